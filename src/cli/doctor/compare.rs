//! Compares what the living nodes say of themselves: versions, settings that must be the same, clocks, what waits for a
//! restart, and two hosts that want one name. Owns the judgement. Must never query Redis.

use std::collections::BTreeMap;

use super::finding::{Finding, some};
use crate::registry::view::NodeRow;
use crate::registry::{Rival, ToldRow};

/// With a larger difference, log lines of two nodes cannot be put in order.
const CLOCKS_APART_MS: i64 = 2_000;
/// A daemon that wants a name asks for it once a second.
const RIVAL_ASKED_MS: u64 = 10_000;
/// If these differ, one node does not find what another has placed.
const VITAL: &str = "placement.alias_suffix";

/// What is known of the nodes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) nodes: Vec<NodeRow>,
    pub(super) told: BTreeMap<String, ToldRow>,
    pub(super) rivals: Vec<Rival>,
    /// Redis's clock, ms since 1970.
    pub(super) now_ms: u64,
}

/// Names by a word that each of them has.
pub(super) fn by<'a>(words: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, Vec<String>> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (word, name) in words {
        groups.entry(word).or_default().push(name.to_owned());
    }
    groups
}

pub(super) fn each(groups: &BTreeMap<&str, Vec<String>>) -> String {
    groups.iter().map(|(word, names)| format!("{word} on {}", some(names))).collect::<Vec<_>>().join("; ")
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let living: Vec<&NodeRow> = facts.nodes.iter().filter(|node| node.lease_ms > 0).collect();
    let told: Vec<(&str, &ToldRow)> =
        living.iter().filter_map(|node| Some((node.name.as_str(), facts.told.get(&node.name)?))).collect();
    let mut findings: Vec<Finding> = rivals(facts);
    findings.extend(versions(&living));
    findings.extend(settings(&told));
    findings.extend(restarts(&told));
    findings.extend(clocks(&told));
    findings
}

/// The first word of a holder is for machines: its host stands first in it. Behind the blank is its process.
fn host(holder: &str) -> String {
    let (id, process) = holder.split_once(' ').unwrap_or((holder, ""));
    let host = id.split('/').next().unwrap_or_default();
    if process.is_empty() { host.to_owned() } else { format!("{host} ({process})") }
}

fn rivals(facts: &Facts) -> Vec<Finding> {
    let fresh = facts.rivals.iter().filter(|rival| facts.now_ms.saturating_sub(rival.at) < RIVAL_ASKED_MS);
    let finding = |rival: &Rival| {
        let (node, holder, other) = (&rival.node, host(&rival.holder), host(&rival.rival));
        Finding::failure(
            "nodes",
            format!("two hosts want the name {node}: {holder} has it, {other} waits for it and takes no logins"),
            "set another node.name on one of them and restart its daemon, or stop that daemon for good; each node of a \
                cluster has a name of its own",
        )
        .code("nodes.name")
    };
    fresh.map(finding).collect()
}

fn versions(living: &[&NodeRow]) -> Option<Finding> {
    let versions = by(living.iter().map(|node| (node.version.as_str(), node.name.as_str())));
    if versions.len() < 2 {
        return None;
    }
    let fix = "upgrade the older nodes: daemons of one cluster share scripts";
    Some(
        Finding::warning("nodes", format!("different versions of evenring: {}", each(&versions)), fix)
            .code("nodes.version"),
    )
}

/// One finding for each key that differs.
fn settings(told: &[(&str, &ToldRow)]) -> Vec<Finding> {
    let keys: std::collections::BTreeSet<&String> =
        told.iter().flat_map(|(_, row)| row.settings.shared.keys()).collect();
    let of_key = |key: &String| {
        let value = |row: &'_ ToldRow| row.settings.shared.get(key).cloned().unwrap_or_else(|| "not set".to_owned());
        let values: Vec<(String, &str)> = told.iter().map(|(name, row)| (value(row), *name)).collect();
        let groups = by(values.iter().map(|(value, name)| (value.as_str(), *name)));
        if groups.len() < 2 {
            return None;
        }
        let text = format!("{key} differs: {}", each(&groups));
        let fix = "use the same value on all nodes; `systemctl reload evenring` applies [ring], `systemctl restart \
            evenring` the rest";
        let level = if key == VITAL { Finding::failure } else { Finding::warning };
        Some(level("nodes", text, fix.to_owned()).code("nodes.settings"))
    };
    keys.into_iter().filter_map(of_key).collect()
}

fn restarts(told: &[(&str, &ToldRow)]) -> Vec<Finding> {
    let pending = told.iter().filter(|(_, row)| !row.settings.restart.is_empty());
    let finding = |(name, row): &(&str, &ToldRow)| {
        let text = format!("restart pending on {name}: {} changed in its settings", some(&row.settings.restart));
        Finding::warning("nodes", text, format!("`systemctl restart evenring` on {name}: calls stay"))
            .code("nodes.restart")
    };
    pending.map(finding).collect()
}

fn clocks(told: &[(&str, &ToldRow)]) -> Option<Finding> {
    let ahead = |row: &ToldRow| row.clock_ahead_ms;
    let first = told.iter().min_by_key(|(_, row)| ahead(row))?;
    let last = told.iter().max_by_key(|(_, row)| ahead(row))?;
    let apart = ahead(last.1).saturating_sub(ahead(first.1));
    if apart < CLOCKS_APART_MS {
        return None;
    }
    let text = format!(
        "the clocks of the nodes differ: {} is {} s ahead of {}; logins work, but timestamps cannot be compared",
        last.0,
        apart / 1000,
        first.0
    );
    Some(Finding::warning("nodes", text, "synchronise the clocks of all hosts (NTP)").code("nodes.clock"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;
    use crate::registry::ToldSettings;

    fn node(name: &str, lease_ms: u64) -> NodeRow {
        NodeRow {
            name: name.into(),
            state: "active".into(),
            agents: 0,
            remote: 0,
            load: 0.0,
            weight: 1,
            queued: 0,
            max_agents: None,
            sip: None,
            address: None,
            registrations: Some(0),
            channels: 0,
            lease_ms,
            generation: "1".into(),
            refused: 0,
            version: "0.1.0".into(),
            case: "exact".into(),
            reason: String::new(),
            claimant: String::new(),
            left_out: Vec::new(),
            keepalive: None,
            restart_pending: Vec::new(),
            unsure: false,
            host: String::new(),
        }
    }

    fn row(rejoin: &str, suffix: &str, clock_ahead_ms: i64) -> ToldRow {
        let shared = [("placement.rejoin", rejoin), (VITAL, suffix)];
        let shared = shared.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        ToldRow { settings: ToldSettings { shared, restart: Vec::new() }, clock_ahead_ms }
    }

    fn good() -> Facts {
        let told = [("a", row("auto", "x", 10)), ("b", row("auto", "x", -5)), ("dead", row("manual", "y", 99_000))];
        Facts {
            nodes: vec![node("a", 900), node("b", 900), node("dead", 0), node("older", 900)],
            told: told.map(|(name, row)| (name.to_owned(), row)).into(),
            rivals: vec![Rival { node: "a".into(), holder: "h/1".into(), rival: "i/2".into(), at: 1 }],
            now_ms: 1_000_000,
        }
    }

    /// The findings on that cluster after one change.
    #[track_caller]
    fn after(change: impl FnOnce(&mut Facts), expected: &[(&str, &str, &str, &str)]) {
        let mut facts = good();
        change(&mut facts);
        check(&judge(&facts), expected);
    }

    #[test]
    fn what_differs_between_living_nodes_is_named_with_both_values() {
        after(|_| {}, &[]);
        after(
            |f| f.nodes[1].version = "0.2.0".into(),
            &[("nodes", "warning", "0.1.0 on a, older; 0.2.0 on b", "upgrade")],
        );
        let told = |name: &str, new: ToldRow| {
            let name = name.to_owned();
            move |f: &mut Facts| drop(f.told.insert(name, new))
        };
        after(
            told("b", row("manual", "x", 0)),
            &[("nodes", "warning", "placement.rejoin differs: auto on a; manual on b", "the same value on all nodes")],
        );
        after(
            told("b", row("auto", "y", 0)),
            &[("nodes", "failure", "placement.alias_suffix differs: x on a; y on b", "the same value")],
        );
        after(told("b", row("auto", "x", 61_000)), &[("nodes", "warning", "b is 60 s ahead of a", "NTP")]);
        after(
            |f| f.told.get_mut("b").expect("b").settings.restart = vec!["placement.lease".into()],
            &[("nodes", "warning", "restart pending on b: placement.lease", "`systemctl restart evenring` on b")],
        );
    }

    #[test]
    fn two_hosts_that_want_one_name_are_both_named() {
        after(
            |f| {
                f.rivals[0] = Rival {
                    node: "a".into(),
                    holder: "tel-1/boot/id pid 7".into(),
                    rival: "tel-9/boot/id pid 8".into(),
                    at: 995_000,
                };
            },
            &[("nodes", "failure", "the name a: tel-1 (pid 7) has it, tel-9 (pid 8) waits", "another node.name")],
        );
    }
}
