//! `evenring status`: all nodes. Owns the table and the form of the JSON. Must never compute what the scripts can.

use super::{CliError, DONE, NO_REDIS, output};
use crate::node::left_out::Why;
use crate::registry::answers::NodesAnswer;
use crate::registry::view::{KeepaliveRow, NodeRow, Parsed, reason_text};
use crate::registry::{LeftOutRow, Registry, RegistryError};

pub(super) async fn run(registry: &mut Registry, json: bool) -> Result<u8, CliError> {
    let nodes = registry.nodes_shown().await?;
    // A Redis that is only read shows its nodes as lost: they cannot write either.
    let refused = registry.try_login().await.err();
    let code = if refused.is_some() { NO_REDIS } else { DONE };
    if json {
        output::json(&NodesAnswer { nodes, redis: reason_text(refused.as_ref()) });
        return Ok(code);
    }
    if let Some(error) = &refused {
        output::complain(&format!("logins are refused: {error}"));
        if matches!(error, RegistryError::NotWritable { .. }) && !nodes.is_empty() {
            output::complain("the nodes cannot renew their leases meanwhile: what this table says of them is old");
        }
    }
    if nodes.is_empty() {
        output::line_out("No node has registered yet. Start `evenring run` on a node.");
        return Ok(code);
    }
    show(registry, &nodes).await?;
    Ok(code)
}

async fn show(registry: &mut Registry, nodes: &[NodeRow]) -> Result<(), CliError> {
    let heads = [
        "NODE",
        "STATE",
        "AGENTS",
        "REMOTE",
        "QUEUED",
        "LOAD",
        "WEIGHT",
        "MAX",
        "PHONES",
        "CHANNELS",
        "LEASE",
        "GENERATION",
    ];
    let mut table = output::table(&heads);
    for node in nodes {
        table.add_row([
            output::Cell::from(&node.name),
            output::state(&node.state),
            node.agents.to_string().into(),
            node.remote.to_string().into(),
            node.queued.to_string().into(),
            output::load(node.load).into(),
            node.weight.to_string().into(),
            known(node.max_agents).into(),
            known(node.registrations).into(),
            known(node.registrations.map(|_| node.channels)).into(),
            format!("{} ms", node.lease_ms).into(),
            output::Cell::from(&node.generation),
        ]);
    }
    output::print_table(&table);
    for NodeRow { name, state, reason, claimant, .. } in nodes {
        if !reason.is_empty() {
            output::line_out(&format!("{name} ({state}): {reason}"));
        }
        if !claimant.is_empty() {
            let hint = "give every node its own node.name";
            output::line_out(&format!("{name}: a daemon on host {claimant} waits for this name; {hint}"));
        }
    }
    for node in nodes.iter().filter(|node| !node.left_out.is_empty()) {
        let group = |row: &LeftOutRow| format!("{} {}", row.phones, words(&row.reason));
        let groups: Vec<String> = node.left_out.iter().map(group).collect();
        output::line_out(&format!("{}: phones left out: {}; see `evenring doctor`", node.name, groups.join(", ")));
    }
    for node in nodes.iter().filter(|node| !node.restart_pending.is_empty()) {
        let (name, keys) = (&node.name, node.restart_pending.join(", "));
        output::line_out(&format!("{name}: restart pending for {keys}: `systemctl restart evenring` there"));
    }
    let now = if nodes.iter().any(|node| node.keepalive.is_some()) { registry.now_ms().await? } else { 0 };
    for node in nodes {
        if let Some(KeepaliveRow { runs, at, reason, result }) = &node.keepalive {
            let (ago, result) =
                (output::age(now.saturating_sub(*at)), if result.is_empty() { "still running" } else { result });
            let times = if *runs == 1 { "once".to_owned() } else { format!("{runs} times, the last") };
            output::line_out(&format!("{}: keepalive command ran {times} {ago} ago: {reason}; {result}", node.name));
        }
    }
    Ok(())
}

/// A number, or a dash where there is none.
fn known(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn words(reason: &Parsed<Why>) -> &str {
    match reason {
        Parsed::Known(Why::Name) => "with names that are not valid ids",
        Parsed::Known(Why::MaxPhones) => "over ami.max_phones",
        Parsed::Known(Why::MaxDevices) => "over ami.max_devices",
        Parsed::Other(reason) => reason,
    }
}
