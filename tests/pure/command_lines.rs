//! What README.md, docs/ and the help tell people to type is what the program takes, and every verb is shown with its options.
//!
//! Owns how a line of a page becomes a command line. Must never run one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../pages/text.rs"]
mod text;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use evenring::cli::Cli;
use text::{REFERENCE, code, file, pages};

/// The commands of a line as a shell takes it apart, as far as pages need it: quotes, `#`, and what stands between two
/// commands. The environment in front of a command is left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut word, mut quote): (Vec<Vec<String>>, _, _) = (vec![Vec::new()], String::new(), None);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (Some(_), _) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            (None, '|' | ';' | '&' | '>') => {
                commands.last_mut().unwrap().push(std::mem::take(&mut word));
                commands.push(Vec::new());
            }
            (None, _) if c.is_whitespace() => commands.last_mut().unwrap().push(std::mem::take(&mut word)),
            (None, _) => word.push(c),
        }
    }
    for command in &mut commands {
        command.retain(|word| !word.is_empty());
        let is_set = |word: &&String| word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
        let skip = command.iter().take_while(is_set).count();
        command.drain(..skip);
        if command.starts_with(&["./dev", "demo", "--exec"].map(str::to_owned)) {
            command.drain(..3);
        }
    }
    commands
}

/// What the program says to those commands of a line that are its own.
fn refused(line: &str) -> Vec<clap::Error> {
    let own = commands(line).into_iter().filter(|words| words.first().is_some_and(|word| word == "evenring"));
    own.filter_map(|words| Cli::try_parse_from(words).err()).collect()
}

/// The same for a form of use: brackets and dots go, and a word that stands for a time becomes one.
fn refused_form(form: &str) -> Vec<clap::Error> {
    let plain = form.replace(['[', ']'], "").replace("...", "").replace("TIME", "5m");
    let plain = plain.replace("--session ID", "--session 0123abcd").replace("--event KIND", "--event failed");
    let line = plain.split('|').next().unwrap().trim_end_matches('\\').to_owned();
    let mut refused = refused(&line);
    // Who only speaks of a verb does not name all that it needs.
    let is_short = |error: &clap::Error| {
        let short = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        [ErrorKind::MissingRequiredArgument, ErrorKind::MissingSubcommand, short].contains(&error.kind())
    };
    refused.retain(|error| !is_short(error));
    refused
}

#[test]
fn what_pages_tell_people_to_type_is_what_the_program_takes() {
    let (mut found, mut wrong) = (0, Vec::new());
    for (name, text) in pages() {
        let (fenced, inline) = code(&text);
        let complaints =
            fenced.iter().flat_map(|line| refused(line)).chain(inline.iter().flat_map(|form| refused_form(form)));
        wrong.extend(complaints.map(|error| format!("{name}: {error}")));
        found += fenced.iter().chain(&inline).filter(|line| line.starts_with("evenring ")).count();
    }
    assert!(found > 40, "only {found} lines were found");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn what_the_help_shows_is_what_the_program_takes() {
    let (mut open, mut found, mut wrong) = (vec![Cli::command()], 0, Vec::new());
    while let Some(command) = open.pop() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  evenring ")) {
            found += 1;
            wrong.extend(refused(&format!("evenring {}", line.split("   ").next().unwrap())));
        }
        open.extend(command.get_subcommands().cloned());
    }
    assert!(found > 15, "only {found} examples were found");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_wrong_command_line_is_seen() {
    for line in
        ["evenring drian tel-1", "A=1 evenring drain tel-1 --dedline 1m # so", "x | evenring alias set desk7 cc1"]
    {
        assert_eq!((refused(line).len(), refused_form(&line.replace('|', ";")).len()), (1, 1), "{line}");
    }
    assert_eq!(refused("evenring login").len(), 1);
    for line in ["evenring login", "evenring drain NODE [--wait] [--deadline TIME]", "evenring ami decode FILE\\|-"] {
        assert_eq!(refused_form(line).len(), 0, "{line}");
    }
    assert_eq!(
        refused("echo 'evenring x' evenring; X=1 evenring sessions --json | jq '.a | .b' # evenring x").len(),
        0
    );
}

/// `login`, `alias set`, …: each verb, with the names of its options.
fn verbs() -> Vec<(String, Vec<String>)> {
    let (mut open, mut verbs) = (vec![(String::from("evenring"), Cli::command())], Vec::new());
    while let Some((path, command)) = open.pop() {
        if command.has_subcommands() {
            open.extend(command.get_subcommands().map(|sub| (format!("{path} {}", sub.get_name()), sub.clone())));
            continue;
        }
        let options = command.get_arguments().filter_map(|argument| argument.get_long());
        verbs.push((path, options.filter(|name| *name != "json").map(|name| format!("--{name}")).collect()));
    }
    verbs
}

#[test]
fn every_verb_is_shown_with_all_of_its_options() {
    let page = file(REFERENCE);
    let (_, inline) = code(&page);
    let verbs = verbs();
    assert!(verbs.len() > 15 && verbs.iter().any(|(_, options)| options.len() > 3), "{verbs:?}");
    for (verb, options) in verbs {
        let starts =
            |form: &&str| form.strip_prefix(verb.as_str()).is_some_and(|rest| !rest.starts_with(|c: char| c != ' '));
        let is_whole = |form: &str| options.iter().all(|option| form.contains(option.as_str()));
        let forms: Vec<_> = inline.iter().copied().filter(starts).collect();
        assert!(
            forms.iter().any(|form| is_whole(form)),
            "{REFERENCE} does not show `{verb}` with {options:?}: {forms:?}"
        );
    }
}
