//! Judges nodes, phones, aliases, queues and sessions as Redis has them. Owns the judgement. Must never query Redis.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::compare::{by, each};
use super::finding::{Finding, some};
use crate::config::{PlacementSettings, span_text};
use crate::node::left_out::Why;
use crate::node::roster::PhoneState;
use crate::registry::inspect::Waiting;
use crate::registry::view::{AliasRow, NodeRow, Parsed, PhoneRow, SessionRow, SessionState, ShownNodeState};
use crate::registry::{Hold, LeftOutRow};

/// The facts from Redis.
#[derive(Debug)]
pub(super) struct Facts {
    /// The node of this configuration, if it belongs to a node.
    pub(super) own: Option<String>,
    pub(super) nodes: Vec<NodeRow>,
    pub(super) phones: Vec<PhoneRow>,
    pub(super) aliases: Vec<AliasRow>,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) placement: PlacementSettings,
    pub(super) ring_timeout: Duration,
    /// Redis's clock, ms since 1970.
    pub(super) now_ms: u64,
    /// Redis takes what the daemons write.
    pub(super) redis_is_well: bool,
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    if !facts.redis_is_well {
        // What is to be seen is what Redis did to the nodes, and no node is to blame for it.
        return case(facts).into_iter().collect();
    }
    let mut findings = nodes(facts);
    if !facts.nodes.is_empty() {
        findings.extend(phones(facts));
        findings.extend(aliases(facts));
        findings.extend(queues(facts));
        findings.push(sessions(facts));
    }
    findings
}

fn nodes(facts: &Facts) -> Vec<Finding> {
    let Facts { own, nodes, .. } = facts;
    let mut findings = Vec::new();
    if nodes.is_empty() {
        let text = "no node has ever registered in this Redis and namespace";
        return vec![
            Finding::failure("nodes", text, "start `evenring run` on the nodes; check redis.url and redis.namespace")
                .code("nodes.none"),
        ];
    }
    if let Some(own) = own
        && !nodes.iter().any(|node| node.name == *own)
    {
        let text = format!("this node, {own}, has never registered");
        findings.push(
            Finding::failure("nodes", text, "start its daemon (`systemctl start evenring`) and check its log")
                .code("nodes.unregistered"),
        );
    }
    findings.extend(nodes.iter().filter_map(state));
    let active = nodes.iter().filter(|node| node.state == ShownNodeState::Active).count();
    if active == 0 {
        let text = "no node is in the rotation: all logins are refused";
        findings.push(Finding::failure("nodes", text, "see the findings above").code("nodes.inactive"));
    }
    let full = |node: &&NodeRow| node.max_agents.is_some_and(|most| node.agents >= most);
    let full: Vec<String> = nodes.iter().filter(full).map(|node| node.name.clone()).collect();
    if !full.is_empty() {
        findings.push(
            Finding::warning("nodes", format!("full: {}", some(&full)), "raise node.max_agents, or add a node")
                .code("nodes.full"),
        );
    }
    findings.extend(case(facts));
    if findings.is_empty() {
        findings.push(Finding::ok("nodes", format!("nodes in the rotation: {active}")));
    }
    findings
}

/// The finding for a node that is not active.
fn state(node: &NodeRow) -> Option<Finding> {
    let name = &node.name;
    let state = match &node.state {
        Parsed::Known(state) => *state,
        Parsed::Other(state) => {
            return Some(
                Finding::warning(
                    "nodes",
                    format!("{name} is {state}: this version of evenring does not know that state"),
                    "upgrade evenring here",
                )
                .code("nodes.unknown"),
            );
        }
    };
    Some(match state {
        ShownNodeState::Active => return None,
        ShownNodeState::Draining => {
            Finding::note("nodes", format!("{name} is draining: no new logins"), format!("`evenring resume {name}`")).code("nodes.draining")
        }
        ShownNodeState::Stopped => Finding::warning(
            "nodes",
            format!("{name} is stopped"),
            format!("start its daemon; if it will not come back: `evenring forget {name}`"),
        ).code("nodes.stopped"),
        ShownNodeState::LeaseExpired => Finding::warning(
            "nodes",
            format!("{name} is lost: its lease has expired"),
            format!("check its host and daemon; if it will not come back: `evenring forget {name}`"),
        ).code("nodes.lost"),
        ShownNodeState::Down => Finding::failure(
            "nodes",
            format!("{name} is down: its Asterisk is unavailable"),
            format!("start Asterisk there, and check the daemon's log (`evenring doctor` on {name})"),
        ).code("nodes.down"),
        ShownNodeState::Starting => Finding::warning(
            "nodes",
            format!("{name} is starting: not in sync with its Asterisk"),
            format!("if this lasts, check the daemon's log (`evenring doctor` on {name})"),
        ).code("nodes.starting"),
        ShownNodeState::Stopping => Finding::warning(
            "nodes",
            format!("{name} is stopping: its Asterisk was told to stop, and it takes no logins"),
            "start Asterisk again when it has stopped, or revert it (`core abort shutdown`): the node then takes logins again",
        ).code("nodes.stopping"),
        ShownNodeState::Unknown => Finding::warning(
            "nodes",
            format!("{name} is unknown: Redis has no state of it, and it takes no logins"),
            format!("restart its daemon; if it will not come back: `evenring forget {name}`"),
        ).code("nodes.unknown"),
    })
}

/// Nodes that compare names differently find different sessions.
fn case(facts: &Facts) -> Option<Finding> {
    let living = facts.nodes.iter().filter(|node| node.lease_ms > 0);
    let groups = by(living.map(|node| (node.case.as_str(), node.name.as_str())));
    let here = facts.placement.case.as_str();
    if groups.keys().all(|case| *case == here) {
        return None;
    }
    Some(
        Finding::failure(
            "nodes",
            format!("placement.case differs: {}; {here} in this configuration", each(&groups)),
            "use the same value on all nodes and wherever `evenring` is called, and restart the daemons",
        )
        .code("nodes.case"),
    )
}

fn living(facts: &Facts) -> BTreeSet<&str> {
    facts.nodes.iter().filter(|node| node.lease_ms > 0).map(|node| node.name.as_str()).collect()
}

/// Phones that Asterisk has, but that are left out.
fn left_out(facts: &Facts) -> Vec<Finding> {
    let living = facts.nodes.iter().filter(|node| node.lease_ms > 0);
    let groups = living.flat_map(|node| node.left_out.iter().map(move |row| (&node.name, row)));
    let finding = |(node, row): (&String, &LeftOutRow)| {
        let LeftOutRow { reason, phones, examples } = row;
        let shown = if examples.is_empty() { String::new() } else { format!(": {}", examples.join(", ")) };
        let (why, fix) = match reason {
            Parsed::Known(Why::Name) => (
                "have names that are not valid ids",
                "if agents use them, rename these endpoints: letters, digits, '_', '.' and '-', at most 64, at the beginning no '.' \
                 or '-' but also '+'",
            ),
            Parsed::Known(Why::MaxPhones) => {
                ("are over ami.max_phones", "raise ami.max_phones on that node, and restart its daemon")
            }
            Parsed::Known(Why::MaxDevices) => (
                "are over ami.max_devices, and may be phones",
                "raise ami.max_devices on that node, and restart its daemon",
            ),
            Parsed::Other(reason) => (reason.as_str(), "see the daemon's log"),
        };
        Finding::warning("phones", format!("left out on {node}: {phones} {why}{shown}"), fix).code("phones.left-out")
    };
    groups.map(finding).collect()
}

/// Judges the phones of the living nodes: only those can ring.
fn phones(facts: &Facts) -> Vec<Finding> {
    let mut findings = left_out(facts);
    let living = living(facts);
    let mut known: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for row in facts.phones.iter().filter(|row| living.contains(row.node.as_str())) {
        let (all, registered) = known.entry(&row.extension).or_default();
        all.insert(&row.node);
        if row.state == PhoneState::Registered {
            registered.insert(&row.node);
        }
    }
    let which = |fits: &dyn Fn(&BTreeSet<&str>, &BTreeSet<&str>) -> bool| -> Vec<String> {
        known.iter().filter(|(_, (all, on))| fits(all, on)).map(|(extension, _)| (*extension).to_owned()).collect()
    };
    let nowhere = which(&|_, on| on.is_empty());
    let one = which(&|all, on| on.len() == 1 && all.len() > 1);
    let everywhere = which(&|_, on| !on.is_empty());
    if known.is_empty() {
        findings.push(
            Finding::failure(
                "phones",
                "no living node knows any phone",
                "configure endpoints in Asterisk, and give the daemon's AMI user read = system,call",
            )
            .code("phones.none"),
        );
        return findings;
    }
    if everywhere.is_empty() {
        let text = format!("none of {} phones is registered on any node: all logins are refused", known.len());
        findings.push(
            Finding::failure(
                "phones",
                text,
                "see `evenring phones`, and check the phones' settings (server, password)",
            )
            .code("phones.unregistered"),
        );
        return findings;
    }
    if !nowhere.is_empty() {
        // Their agents may be off duty: this is only a note.
        findings.push(
            Finding::note(
                "phones",
                format!("registered on no node ({}): {}", nowhere.len(), some(&nowhere)),
                "if their agents should be working now, see `evenring phones` and check the phones' settings (server, \
                password)",
            )
            .code("phones.nowhere"),
        );
    }
    if !one.is_empty() {
        findings.push(
            Finding::warning(
                "phones",
                format!("registered on one node only ({}): {}", one.len(), some(&one)),
                "register them on all nodes: otherwise their agents can only log in on that node",
            )
            .code("phones.one-node"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("phones", format!("all phones are registered: {}", known.len())));
    }
    findings
}

fn aliases(facts: &Facts) -> Vec<Finding> {
    let living = living(facts);
    let state = |place: &str| {
        let (extension, node) = place.split_once('@')?;
        let row = facts.phones.iter().find(|row| row.extension == extension && row.node == node)?;
        Some(row.state == PhoneState::Registered && living.contains(node))
    };
    let nodes: BTreeSet<&str> = facts.nodes.iter().map(|node| node.name.as_str()).collect();
    let case = facts.placement.case;
    let is_spelled = |name: &str| case.one_spelling(name) == name;
    let extension = |place: &String| place.split_once('@').is_none_or(|(extension, _)| is_spelled(extension));
    let (found, lost): (Vec<_>, Vec<_>) =
        facts.aliases.iter().partition(|row| is_spelled(&row.alias) && row.phones.iter().all(extension));
    let mut findings = Vec::new();
    if !lost.is_empty() {
        let names: Vec<String> = lost.iter().map(|row| row.alias.clone()).collect();
        findings.push(
            Finding::warning(
                "aliases",
                format!(
                    "with capitals, created before placement.case was {} ({}): {}",
                    case.as_str(),
                    lost.len(),
                    some(&names)
                ),
                "`evenring alias export > aliases.txt`, `evenring alias import aliases.txt --replace`",
            )
            .code("aliases.case"),
        );
    }
    for AliasRow { alias, phones } in found {
        let unknown: Vec<String> = phones.iter().filter(|place| state(place).is_none()).cloned().collect();
        let strangers: Vec<String> = phones
            .iter()
            .filter_map(|place| place.split_once('@'))
            .filter(|(_, node)| !nodes.contains(node))
            .map(|(_, node)| node.to_owned())
            .collect();
        let fix = format!("`evenring alias set {alias} EXTENSION@NODE...`, or `evenring alias remove {alias}`");
        if !phones.iter().any(|place| state(place) == Some(true)) {
            let text = format!("alias {alias} has no registered phone: {}", some(phones));
            findings.push(
                Finding::warning("aliases", text, format!("register one of them, or {fix}")).code("aliases.no-phone"),
            );
        } else if !strangers.is_empty() {
            findings.push(
                Finding::warning("aliases", format!("alias {alias} names unknown nodes: {}", some(&strangers)), fix)
                    .code("aliases.unknown-node"),
            );
        } else if !unknown.is_empty() {
            findings.push(
                Finding::warning("aliases", format!("alias {alias} names unknown phones: {}", some(&unknown)), fix)
                    .code("aliases.unknown-phone"),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("aliases", format!("explicit aliases: {}", facts.aliases.len())));
    }
    findings
}

fn queues(facts: &Facts) -> Vec<Finding> {
    let late = facts.placement.poll * 2 + Duration::from_secs(1);
    let mut findings = Vec::new();
    for Waiting { queue, oldest } in &facts.waiting {
        let Some(age) = oldest.filter(|age| *age > late) else { continue };
        let shown = span_text(Duration::from_secs(age.as_secs()));
        let (text, fix) = match queue.strip_prefix("ring-") {
            Some(node) => (
                format!("an order for {node} has been waiting for {shown}: its daemon does not fetch it"),
                format!("check the log of the daemon on {node}, or `evenring drain {node}`"),
            ),
            None => (
                format!("a login in the queue {queue} has been waiting for {shown}: no daemon receives it"),
                "start a daemon, or check the daemons' logs".to_owned(),
            ),
        };
        let level = if age > facts.placement.order_expiry { Finding::failure } else { Finding::warning };
        findings.push(level("queues", text, fix).code("queues.overdue"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("queues", "no orders or logins are overdue"));
    }
    findings
}

/// Sessions that stay too long in a state that should pass.
fn sessions(facts: &Facts) -> Finding {
    let most = |state: &Parsed<SessionState>| match state {
        Parsed::Known(SessionState::Placed) => Some(facts.placement.order_expiry),
        Parsed::Known(SessionState::Ringing) => Some(facts.ring_timeout + Duration::from_secs(10)),
        Parsed::Known(SessionState::Held) => Some(Hold::MOST),
        // Queued and live sessions have no time limit.
        Parsed::Known(SessionState::Queued | SessionState::Live | SessionState::Ended | SessionState::Failed)
        | Parsed::Other(_) => None,
    };
    let stuck = |row: &&SessionRow| {
        let age = Duration::from_millis(facts.now_ms.saturating_sub(row.since));
        most(&row.state).is_some_and(|most| age > most + facts.placement.lease * 2)
    };
    let stuck: Vec<String> = facts
        .sessions
        .iter()
        .filter(stuck)
        .map(|row| format!("{} ({} on {})", row.session, row.state, row.node))
        .collect();
    if stuck.is_empty() {
        return Finding::ok("sessions", format!("open sessions: {}", facts.sessions.len()));
    }
    Finding::warning(
        "sessions",
        format!("stuck: {}", some(&stuck)),
        "`evenring logout SESSION`; check the log of that node's daemon",
    )
    .code("sessions.stuck")
}
