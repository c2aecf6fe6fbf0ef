//! `evenring forget`: removes a dead node from the list. Owns the texts. Must never decide whether it is dead: the script
//! does.

use clap::Args;
use serde::Serialize;

use super::{CliError, DONE, FAILED, USAGE, known, output};
use crate::config::span_text;
use crate::ids::NodeName;
use crate::registry::{Forgotten, Registry};
use crate::runtime::words::counted;

#[derive(Debug, Args)]
#[command(after_help = "\
Works only for a node whose lease has expired (`stopped` or `lease-expired`) and that has no
sessions left. Also removes its phones and its drain flag. If the node comes back, it registers
as a new one.

Exit codes: 0 forgotten, 1 the node is alive or has sessions, 2 no such node, 3 Redis unavailable.

Example:
  evenring forget tel-1")]
pub(super) struct ForgetArgs {
    /// Name of the node.
    node: NodeName,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    node: &'a str,
    forgotten: bool,
    /// Why it was not forgotten; empty if it was.
    reason: &'a str,
    /// Explicit aliases that still name it.
    aliases: &'a [String],
}

pub(super) async fn run(registry: &mut Registry, args: &ForgetArgs) -> Result<u8, CliError> {
    let node = &args.node;
    let refused = match registry.forget(node).await? {
        Forgotten::Yes => None,
        Forgotten::Unknown => {
            known::no_such_node(registry, node).await?;
            return Ok(USAGE);
        }
        Forgotten::Alive(left) => {
            let left = span_text(left);
            let why = format!(
                "{node} is alive, its lease runs for another {left}: stop its daemon first, or take it out of the \
                    rotation with `evenring drain {node}`"
            );
            Some(("alive", why))
        }
        Forgotten::Busy(sessions) => {
            let why = format!(
                "{node} has {}: another node ends them within a minute after {node} has \
                    stopped; see `evenring sessions`, and try again",
                counted(usize::try_from(sessions).unwrap_or(usize::MAX), "open session")
            );
            Some(("sessions", why))
        }
    };
    let aliases = if refused.is_none() { still_named(registry, node).await? } else { Vec::new() };
    let reason = refused.as_ref().map_or("", |(word, _)| word);
    if args.json {
        output::json(&Answer { node: node.as_str(), forgotten: refused.is_none(), reason, aliases: &aliases });
    }
    match &refused {
        Some((_, why)) => output::complain(why),
        None if args.json => {}
        None => output::line_out(&format!("{node}: forgotten")),
    }
    if !aliases.is_empty() {
        output::warn(&format!(
            "explicit aliases still name {node}: {}; change them with `evenring alias`",
            aliases.join(", ")
        ));
    }
    Ok(if refused.is_none() { DONE } else { FAILED })
}

/// Explicit aliases with a phone on this node.
async fn still_named(registry: &mut Registry, node: &NodeName) -> Result<Vec<String>, CliError> {
    let end = format!("@{node}");
    let rows = registry.aliases().await?.into_iter();
    Ok(rows.filter(|row| row.phones.iter().any(|phone| phone.ends_with(&end))).map(|row| row.alias).collect())
}
