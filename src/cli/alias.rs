//! `evenring alias`: the operators' own table of explicit aliases. Owns its wording. Must never know implicit ones:
//! they need no table.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, DONE, FAILED, output};
use crate::ids::{Alias, Extension, NodeName};
use crate::registry::Registry;
use crate::registry::view::AliasRow;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evenring alias set desk7 cc100@tel-1 cc200@tel-2\n  evenring alias list --json\n  evenring alias remove desk7"
)]
pub(super) struct AliasArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows all explicit aliases.
    List {
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Makes or replaces an explicit alias. It wins over the suffix.
    Set {
        /// The alias.
        alias: Alias,
        /// Where it may ring: extension@node.
        #[arg(required = true, value_name = "EXTENSION@NODE")]
        phones: Vec<PhoneAt>,
    },
    /// Forgets an explicit alias.
    Remove {
        /// The alias.
        alias: Alias,
    },
}

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
                output::line_out("No explicit aliases. Implicit ones (extension + suffix) need no table.");
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
            let phones =
                phones.iter().map(|PhoneAt(extension, node)| (extension.clone(), node.clone())).collect::<Vec<_>>();
            registry.set_alias(alias, &phones).await?;
            output::line_out(&format!("{alias}: {} phone{}", phones.len(), if phones.len() == 1 { "" } else { "s" }));
            Ok(DONE)
        }
        What::Remove { alias } => {
            if registry.remove_alias(alias).await? {
                output::line_out(&format!("{alias}: removed"));
                return Ok(DONE);
            }
            output::complain(&format!("{alias} is no explicit alias; see `evenring alias list`"));
            Ok(FAILED)
        }
    }
}
