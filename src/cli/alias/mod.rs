//! `evenring alias`: the operators' own table of explicit aliases. Owns its texts. Must never know implicit aliases:
//! they need no table.

mod file;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, DONE, FAILED, USAGE, known, output};
use crate::ids::{Alias, Case, Extension, NodeName};
use crate::registry::Registry;
use crate::registry::view::AliasRow;
use crate::runtime::words::counted;
use file::{Aliases, Changes};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evenring alias set desk7 cc100@tel-1 cc200@tel-2\n  evenring alias list --json\n  \
        evenring alias remove desk7\n  evenring alias export > aliases.txt\n  evenring alias import aliases.txt \
        --dry-run"
)]
pub(super) struct AliasArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show all explicit aliases.
    List {
        /// Print one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Create or replace an explicit alias. It takes precedence over the suffix.
    Set {
        /// Name of the alias.
        alias: Alias,
        /// Phones that it may ring: extension@node.
        #[arg(required = true, value_name = "EXTENSION@NODE")]
        phones: Vec<PhoneAt>,
    },
    /// Remove an explicit alias.
    Remove {
        /// Name of the alias.
        alias: Alias,
    },
    /// Print all explicit aliases in the format that `import` reads, one per line. Use it as a backup: explicit aliases
    /// exist only in Redis.
    Export,
    /// Create or replace explicit aliases from a file. If any line is wrong, nothing is changed.
    Import {
        /// File with one ALIAS EXTENSION@NODE... per line; lines that begin with # are comments; `-` is standard input.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Also remove explicit aliases that are not in the file.
        #[arg(long)]
        replace: bool,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Maximum size of a file of aliases, in bytes: about a million aliases.
const FILE_MOST: u64 = 64 << 20;
/// Aliases written in one command: a longer one would block Redis for others.
const AT_ONCE: usize = 500;
/// Names shown of each kind of change.
const SHOWN_MOST: usize = 10;

/// An extension on a node, written `cc100@tel-1`.
#[derive(Debug, Clone)]
struct PhoneAt(Extension, NodeName);

impl FromStr for PhoneAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (extension, node) = text.split_once('@').ok_or("write EXTENSION@NODE, for example cc100@tel-1")?;
        Ok(Self(
            extension.parse().map_err(|e: crate::ids::IdError| e.to_string())?,
            node.parse().map_err(|e: crate::ids::IdError| e.to_string())?,
        ))
    }
}

impl fmt::Display for PhoneAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0, self.1)
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    aliases: &'a [AliasRow],
}

pub(super) async fn run(registry: &mut Registry, args: &AliasArgs) -> Result<u8, CliError> {
    match &args.what {
        What::List { json } => {
            let aliases = registry.aliases().await?;
            if *json {
                output::json(&Answer { aliases: &aliases });
            } else if aliases.is_empty() {
                output::line_out("No explicit aliases. Aliases made of extension and suffix work without an entry.");
            } else {
                let mut table = output::table(&["ALIAS", "PHONES"]);
                for row in &aliases {
                    table.add_row([&row.alias, &row.phones.join(" ")]);
                }
                output::print_table(&table);
            }
            Ok(DONE)
        }
        What::Set { alias, phones } => {
            let alias = registry.case().alias(alias);
            registry.set_aliases([(&alias, places(phones))]).await?;
            output::line_out(&format!("{alias}: {}", counted(phones.len(), "phone")));
            warn_of(registry, &[(&alias, phones)]).await?;
            Ok(DONE)
        }
        What::Remove { alias } => {
            // Also as it is written: it may be from before placement.case was fold.
            let spellings = [alias.as_str(), &registry.case().one_spelling(alias.as_str())];
            if registry.remove_aliases(spellings).await? > 0 {
                output::line_out(&format!("{alias}: removed"));
                return Ok(DONE);
            }
            output::complain(&format!("there is no explicit alias {alias}; see `evenring alias list`"));
            Ok(FAILED)
        }
        What::Export => {
            for row in registry.aliases().await? {
                output::line_out(&format!("{} {}", row.alias, row.phones.join(" ")));
            }
            Ok(DONE)
        }
        What::Import { file, dry_run, replace, json } => {
            let aliases = match read(file, registry.case()) {
                Ok(aliases) => aliases,
                Err(faults) => {
                    faults.lines().for_each(output::complain);
                    return Ok(USAGE);
                }
            };
            let there = registry.aliases().await?.into_iter().map(|row| (row.alias, row.phones)).collect();
            let changes = Changes::between(&aliases, &there);
            if !dry_run {
                write(registry, &aliases, &changes, *replace).await?;
            }
            tell(&changes, &Printed { dry_run: *dry_run, replace: *replace, json: *json });
            let touched = changes.new.iter().chain(&changes.changed);
            let rows: Vec<_> = touched.filter_map(|alias| Some((alias, aliases.get(alias)?.as_slice()))).collect();
            warn_of(registry, &rows).await?;
            Ok(DONE)
        }
    }
}

/// Warns of what is legal and seldom meant: a node that has never registered, and a name that meant a phone on all nodes.
async fn warn_of(registry: &mut Registry, rows: &[(&Alias, &[PhoneAt])]) -> Result<(), CliError> {
    let nodes: Vec<String> = registry.nodes().await?.into_iter().map(|row| row.name).collect();
    let strangers: BTreeSet<&NodeName> =
        rows.iter().flat_map(|(_, phones)| *phones).map(|PhoneAt(_, node)| node).collect();
    for node in strangers.into_iter().filter(|node| !nodes.iter().any(|name| name == node.as_str())).take(SHOWN_MOST) {
        output::warn(&format!("{}; it rings nobody until a node of that name registers", known::no_node(node, &nodes)));
    }
    let phones: BTreeSet<String> = match rows.is_empty() {
        true => BTreeSet::new(),
        false => registry.phone_list(None).await?.into_iter().map(|row| row.extension).collect(),
    };
    let suffix = registry.alias_suffix().to_owned();
    let shadowed = |alias: &Alias| {
        let stem = alias.as_str().strip_suffix(&suffix).filter(|stem| !stem.is_empty() && phones.contains(*stem));
        stem.or(Some(alias.as_str()).filter(|name| phones.contains(*name))).map(str::to_owned)
    };
    for (alias, phone) in rows.iter().filter_map(|(alias, _)| Some((alias, shadowed(alias)?))).take(SHOWN_MOST) {
        output::warn(&format!(
            "{alias} is also a name of the phone {phone} (with placement.alias_suffix): it no longer rings {phone} on the \
                least loaded node, only the phones listed here; `evenring alias remove {alias}` undoes that"
        ));
    }
    Ok(())
}

fn places(phones: &[PhoneAt]) -> Vec<(Extension, NodeName)> {
    phones.iter().map(|PhoneAt(extension, node)| (extension.clone(), node.clone())).collect()
}

/// The aliases of a file, or what is wrong with it.
fn read(path: &Path, case: Case) -> Result<Aliases, String> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let source: io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let count = source.and_then(|source| source.take(FILE_MOST + 1).read_to_string(&mut text));
    match count {
        Err(error) => Err(format!("cannot read {name}: {error}")),
        Ok(count) if count as u64 > FILE_MOST => Err(format!("{name} is larger than {} MiB", FILE_MOST >> 20)),
        Ok(_) => file::parse(&text, case).map_err(|faults| {
            let lines: Vec<String> = faults.iter().map(|fault| format!("{name}: {fault}")).collect();
            format!("{}\nnothing was changed", lines.join("\n"))
        }),
    }
}

async fn write(registry: &mut Registry, aliases: &Aliases, changes: &Changes, replace: bool) -> Result<(), CliError> {
    let touched: Vec<&Alias> = changes.new.iter().chain(&changes.changed).collect();
    for part in touched.chunks(AT_ONCE) {
        let rows = part.iter().filter_map(|alias| Some((*alias, places(aliases.get(*alias)?))));
        registry.set_aliases(rows).await?;
    }
    if replace {
        for part in changes.only_there.chunks(AT_ONCE) {
            registry.remove_aliases(part.iter().map(String::as_str)).await?;
        }
    }
    Ok(())
}

/// How the result of an import is shown.
struct Printed {
    dry_run: bool,
    replace: bool,
    json: bool,
}

#[derive(Serialize)]
struct Imported {
    new: usize,
    changed: usize,
    same: usize,
    removed: usize,
    kept: usize,
    dry_run: bool,
}

fn tell(changes: &Changes, how: &Printed) {
    let Changes { new, changed, only_there, same } = changes;
    let (removed, kept) = if how.replace { (only_there.len(), 0) } else { (0, only_there.len()) };
    if how.json {
        let counts =
            Imported { new: new.len(), changed: changed.len(), same: *same, removed, kept, dry_run: how.dry_run };
        return output::json(&counts);
    }
    let names = |list: &[Alias]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let gone = if how.replace { only_there.clone() } else { Vec::new() };
    for (sign, list) in [("+", names(new)), ("~", names(changed)), ("-", gone)] {
        for name in list.iter().take(SHOWN_MOST) {
            output::line_out(&format!("{sign} {name}"));
        }
        if list.len() > SHOWN_MOST {
            output::line_out(&format!("{sign} and {} more", list.len() - SHOWN_MOST));
        }
    }
    let would = if how.dry_run { "; nothing was changed" } else { "" };
    let (new, changed) = (new.len(), changed.len());
    output::line_out(&format!(
        "{new} new, {changed} changed, {same} unchanged, {removed} removed, {kept} not in the file{would}"
    ));
}
