//! Man pages and completions, from what the program itself knows: its command line and its sample settings.
//!
//! Owns their form. Must never say anything of its own about a verb or a setting.
#![allow(dead_code, unreachable_pub, reason = "the example and the tests use their own parts")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// The sample settings, which explain every key.
const SAMPLE: &str = include_str!("../../systemd/config.toml");

/// What stands before the value of a key that has no default.
const EXAMPLE: &str = "no default, e.g. ";

/// Writes all of them into a folder, which is made: `evenring.1` and one page for each verb, `evenring.5`, and the
/// completions under the names that each shell wants. (`systemd/evenring.8` is written by hand.)
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = evenring::cli::Cli::command();
    clap_mangen::generate_to(command.clone(), folder)?;
    lay_out_examples(&folder.join("evenring.1"))?;
    fs::write(folder.join("evenring.5"), settings(SAMPLE))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "evenring", folder)?;
    }
    Ok(())
}

/// What follows the options in `evenring --help` has lines of its own.
fn lay_out_examples(page: &Path) -> io::Result<()> {
    let text = fs::read_to_string(page)?;
    let text = text.replacen("\n.SH EXTRA\n", "\n.SH EXIT CODES AND EXAMPLES\n.nf\n", 1);
    fs::write(page, text.replacen("\n.SH VERSION\n", "\n.fi\n.SH VERSION\n", 1))
}

/// A text as roff shows it unchanged.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// The sample as a page of section 5: a section for each table; under the keys what the comment above them says.
pub fn settings(sample: &str) -> String {
    let mut page = ".TH EVENRING 5 \"\" \"evenring\" \"File formats\"\n.SH NAME\nevenring \\- settings of one node\n\
         .SH SYNOPSIS\n/etc/evenring/config.toml\n.SH DESCRIPTION\n"
        .to_owned();
    let (mut comment, mut keys) = (Vec::new(), Vec::new());
    for line in sample.lines() {
        let text = line.trim_start_matches('#').trim_start();
        if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            tell(&mut page, &mut comment, &mut keys);
            writeln!(page, ".SH [{table}]").expect("a String takes all");
        } else if is_key(text) {
            // "#key" shows a default, "# key" an example
            let kind = if line.starts_with("# ") { EXAMPLE } else { "" };
            // one comment is about the keys of one kind that follow it
            if keys.last().is_some_and(|key: &String| key.contains(EXAMPLE) && kind.is_empty()) {
                tell(&mut page, &mut comment, &mut keys);
            }
            let (key, value) = text.split_once(" = ").unwrap_or((text, ""));
            keys.push(format!("\\fB{}\\fR = {kind}{}", plain(key), plain(value)));
        } else {
            if !keys.is_empty() || text.is_empty() {
                tell(&mut page, &mut comment, &mut keys);
            }
            comment.push(text);
        }
    }
    tell(&mut page, &mut comment, &mut keys);
    page.push_str(".SH SEE ALSO\n.BR evenring (1),\n.BR evenring (8)\n");
    page
}

/// Writes the keys, and under them what was said above them; a comment without keys is a paragraph.
fn tell(page: &mut String, comment: &mut Vec<&str>, keys: &mut Vec<String>) {
    for (number, key) in keys.iter().enumerate() {
        let tag = if number == 0 { ".TP" } else { ".TQ" };
        writeln!(page, "{tag}\n{key}").expect("a String takes all");
    }
    if keys.is_empty() && comment.iter().any(|line| !line.is_empty()) {
        page.push_str(".PP\n");
    }
    for line in comment.drain(..).filter(|line| !line.is_empty()) {
        writeln!(page, "{}", plain(line)).expect("a String takes all");
    }
    keys.clear();
}

/// Whether a line, without its `#`, sets a key.
fn is_key(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_'))
}
