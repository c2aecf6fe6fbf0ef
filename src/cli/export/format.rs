//! The list of nodes in the words of Kamailio, DNS, HAProxy and JSON: pure. Owns each line, and which nodes are listed. Must never
//! read or write anything.
//!
//! What Redis says is outside text: only what parses as a name, a host or a SIP URI gets into a line.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Draining, Format};
use crate::config::{HostAddress, SipTransport, SipUri};
use crate::ids::NodeName;
use crate::registry::view::{NodeRow, Parsed, ShownNodeState};

/// The heaviest node's weight in formats that take 1 to 100.
const WEIGHT_MOST: u64 = 100;
/// Flag 4 of Kamailio's dispatcher: the destination is disabled.
const DISABLED: u8 = 4;

/// What is listed, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) format: Format,
    /// Kamailio's set of destinations.
    pub(super) set: u32,
    /// Seconds.
    pub(super) ttl: u32,
    /// Of HAProxy's servers.
    pub(super) port: Option<u16>,
    pub(super) draining: Draining,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    /// Whole lines.
    pub(super) text: String,
    /// How many nodes are in it that take calls.
    pub(super) entries: usize,
    /// Nodes that take calls and are not in it, with the reason and what to do.
    pub(super) left_out: Vec<String>,
}

/// A node that is listed.
struct Entry<'a> {
    name: NodeName,
    row: &'a NodeRow,
    drains: bool,
    /// 1 to 100, in proportion to the heaviest node of the cluster.
    weight: u64,
}

/// One element of the JSON list.
#[derive(Serialize)]
struct JsonEntry<'a> {
    name: &'a str,
    state: &'a Parsed<ShownNodeState>,
    sip: Option<&'a SipUri>,
    address: Option<&'a HostAddress>,
    weight: u64,
}

/// The nodes that take calls, by name.
pub(super) fn list(nodes: &[NodeRow], options: &Options) -> List {
    let heaviest = nodes.iter().map(|node| node.weight).max().unwrap_or(1);
    let entries = nodes.iter().filter_map(|row| {
        let drains = match row.state {
            Parsed::Known(ShownNodeState::Active) => false,
            Parsed::Known(ShownNodeState::Draining) => options.draining == Draining::Disabled,
            Parsed::Known(_) | Parsed::Other(_) => return None,
        };
        let is_listed = drains || row.state == ShownNodeState::Active;
        // A name that is none was written by somebody else.
        let name = is_listed.then(|| row.name.parse().ok()).flatten()?;
        Some(Entry { name, row, drains, weight: share(row.weight, heaviest) })
    });
    let entries: Vec<Entry<'_>> = entries.collect();
    let mut made = List { text: String::new(), entries: 0, left_out: Vec::new() };
    if options.format == Format::Json {
        json(&entries, &mut made);
        return made;
    }
    let mut labels = BTreeSet::new();
    for entry in &entries {
        let line = match options.format {
            Format::Dispatcher => dispatcher(entry, options.set),
            Format::DnsSrv => dns_srv(entry, options.ttl, &mut labels),
            Format::Haproxy | Format::Json => haproxy(entry, options.port),
        };
        match line {
            Ok(line) => {
                made.text.push_str(&line);
                made.entries += usize::from(!entry.drains);
            }
            Err(why) => made.left_out.push(format!("node {} is left out: {why}", entry.name)),
        }
    }
    made
}

/// A weight as a share of the heaviest, 1 to 100.
fn share(weight: u64, heaviest: u64) -> u64 {
    let (weight, heaviest) = (u128::from(weight), u128::from(heaviest.max(1)));
    let share = (weight * u128::from(WEIGHT_MOST) + heaviest / 2) / heaviest;
    u64::try_from(share).unwrap_or(WEIGHT_MOST).clamp(1, WEIGHT_MOST)
}

fn sip_of<'a>(entry: &Entry<'a>) -> Result<&'a SipUri, String> {
    entry.row.sip.as_ref().ok_or_else(|| "set node.sip in its settings, and reload it".to_owned())
}

/// `SETID URI FLAGS PRIORITY ATTRS`.
fn dispatcher(entry: &Entry<'_>, set: u32) -> Result<String, String> {
    let (sip, flags) = (sip_of(entry)?, if entry.drains { DISABLED } else { 0 });
    Ok(format!("{set} {sip} {flags} 0 duid={};rweight={}\n", entry.name, entry.weight))
}

/// An SRV record whose owner is relative to the zone, and the address of its target where that is not a name elsewhere.
fn dns_srv(entry: &Entry<'_>, ttl: u32, labels: &mut BTreeSet<String>) -> Result<String, String> {
    let sip = sip_of(entry)?;
    let owner = match sip.transport() {
        SipTransport::Udp => "_sip._udp",
        SipTransport::Tcp => "_sip._tcp",
        SipTransport::Tls => "_sips._tcp",
    };
    let (target, address) = match &sip.host {
        HostAddress::Name(name) if !name.contains('.') => {
            return Err(format!(
                "{name} is no full host name: write one with its domain, or an IP address, into node.sip"
            ));
        }
        HostAddress::Name(name) => (format!("{name}."), None),
        HostAddress::Ip(ip) => (label(&entry.name, labels), Some(ip)),
    };
    let weight = entry.row.weight.clamp(1, u16::MAX.into());
    let mut lines = format!("{owner} {ttl} IN SRV 0 {weight} {} {target}\n", sip.port());
    if let Some(ip) = address {
        let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{target} {ttl} IN {kind} {ip}");
    }
    Ok(lines)
}

/// A name in the zone for a node: one that no other node gets, and hardly anything else has. DNS takes no `_` in the name of
/// a host, and knows no capitals.
fn label(node: &NodeName, taken: &mut BTreeSet<String>) -> String {
    let plain = node.as_str().to_ascii_lowercase().replace('_', "-");
    let plain = format!("evenring-{}", plain.trim_end_matches('-'));
    let plain = plain.trim_end_matches('-').to_owned();
    let others = (2..).map(|number: u32| format!("{plain}-{number}"));
    let free = std::iter::once(plain.clone()).chain(others).find(|label| !taken.contains(label)).unwrap_or(plain);
    taken.insert(free.clone());
    free
}

/// `server NAME ADDRESS[:PORT] weight N [disabled]`.
fn haproxy(entry: &Entry<'_>, port: Option<u16>) -> Result<String, String> {
    let host = entry.row.address.as_ref().or(entry.row.sip.as_ref().map(|sip| &sip.host));
    let host = host.ok_or("set node.address in its settings, and reload it")?;
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let disabled = if entry.drains { " disabled" } else { "" };
    Ok(format!("server {} {}{port} weight {}{disabled}\n", entry.name, host.in_uri(), entry.weight))
}

fn json(entries: &[Entry<'_>], made: &mut List) {
    let rows: Vec<JsonEntry<'_>> = entries
        .iter()
        .map(|entry| JsonEntry {
            name: entry.name.as_str(),
            state: &entry.row.state,
            sip: entry.row.sip.as_ref(),
            address: entry.row.address.as_ref(),
            weight: entry.row.weight,
        })
        .collect();
    // Words and numbers always serialise.
    made.text = serde_json::to_string_pretty(&rows).unwrap_or_default();
    made.text.push('\n');
    made.entries = entries.iter().filter(|entry| !entry.drains).count();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, sip: &str, address: &str, weight: u64) -> NodeRow {
        NodeRow {
            name: name.into(),
            state: state.into(),
            agents: 1,
            remote: 0,
            load: 1.0,
            weight,
            queued: 0,
            max_agents: Some(1),
            sip: sip.parse().ok(),
            address: address.parse().ok(),
            registrations: Some(2),
            channels: 1,
            lease_ms: 1,
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

    fn cluster() -> Vec<NodeRow> {
        vec![
            node("a", "active", "sip:10.0.0.11:5060", "10.0.0.11", 1),
            node("b_2", "active", "sip:tel-2.example.net;transport=tls", "", 2),
            node("c", "draining", "sip:[2001:db8::3]:5080;transport=tcp", "tel-3", 3),
            node("d", "down", "sip:10.0.0.14", "10.0.0.14", 4),
            node("e", "lease-expired", "sip:10.0.0.15", "10.0.0.15", 1),
            node("f", "of another version", "sip:10.0.0.16", "10.0.0.16", 1),
            node("g", "active", "", "", 1),
        ]
    }

    fn options(format: Format, draining: Draining) -> Options {
        Options { format, set: 7, ttl: 5, port: None, draining }
    }

    #[track_caller]
    fn check(nodes: &[NodeRow], options: Options, lines: &[&str], entries: usize, left_out: &[&str]) {
        let made = list(nodes, &options);
        assert_eq!(made.text.lines().collect::<Vec<_>>(), lines);
        assert!(made.text.is_empty() || made.text.ends_with('\n'));
        assert_eq!(made.entries, entries);
        assert_eq!(made.left_out.len(), left_out.len(), "{:?}", made.left_out);
        for (why, part) in made.left_out.iter().zip(left_out) {
            assert!(why.contains(part), "{why:?} lacks {part:?}");
        }
    }

    #[test]
    fn kamailio_gets_destinations_with_a_weight_in_proportion_to_the_heaviest() {
        let (a, b) = (
            "7 sip:10.0.0.11:5060 0 0 duid=a;rweight=25",
            "7 sip:tel-2.example.net;transport=tls 0 0 duid=b_2;rweight=50",
        );
        let c = "7 sip:[2001:db8::3]:5080;transport=tcp 4 0 duid=c;rweight=75";
        let why = ["node g is left out: set node.sip"];
        check(&cluster(), options(Format::Dispatcher, Draining::Omit), &[a, b], 2, &why);
        check(&cluster(), options(Format::Dispatcher, Draining::Disabled), &[a, b, c], 2, &why);
        // Only what drains, or nothing, is no list.
        check(&cluster()[2..6], options(Format::Dispatcher, Draining::Omit), &[], 0, &[]);
        assert_eq!(list(&cluster()[2..6], &options(Format::Dispatcher, Draining::Disabled)).entries, 0);
        assert_eq!([share(1, 1), share(1, 1000), share(999, 1000), share(1, 3), share(0, 0)], [100, 1, 100, 33, 1]);
        assert_eq!(share(u64::MAX, 1), 100);
    }

    #[test]
    fn a_zone_gets_services_and_the_addresses_that_it_lacks() {
        let lines = [
            "_sip._udp 5 IN SRV 0 1 5060 evenring-a",
            "evenring-a 5 IN A 10.0.0.11",
            "_sips._tcp 5 IN SRV 0 2 5061 tel-2.example.net.",
        ];
        check(&cluster(), options(Format::DnsSrv, Draining::Omit), &lines, 2, &["node.sip"]);
        // Names that DNS cannot tell apart, or does not take.
        let twins = ["a_b", "a-B", "_"].map(|name| node(name, "active", "sip:[2001:db8::1]", "", 1 << 20));
        let lines = [
            "_sip._udp 5 IN SRV 0 65535 5060 evenring-a-b",
            "evenring-a-b 5 IN AAAA 2001:db8::1",
            "_sip._udp 5 IN SRV 0 65535 5060 evenring-a-b-2",
            "evenring-a-b-2 5 IN AAAA 2001:db8::1",
            "_sip._udp 5 IN SRV 0 65535 5060 evenring",
            "evenring 5 IN AAAA 2001:db8::1",
        ];
        check(&twins, options(Format::DnsSrv, Draining::Omit), &lines, 3, &[]);
        let short = [node("a", "active", "sip:tel-1", "", 1)];
        check(&short, options(Format::DnsSrv, Draining::Omit), &[], 0, &["tel-1 is no full host name"]);
    }

    #[test]
    fn haproxy_gets_servers() {
        let lines = ["server a 10.0.0.11 weight 25", "server b_2 tel-2.example.net weight 50"];
        let why = ["node g is left out: set node.address"];
        check(&cluster(), options(Format::Haproxy, Draining::Omit), &lines, 2, &why);
        let with_port = Options { port: Some(8089), ..options(Format::Haproxy, Draining::Disabled) };
        let lines = [
            "server a 10.0.0.11:8089 weight 25",
            "server b_2 tel-2.example.net:8089 weight 50",
            "server c tel-3:8089 weight 75 disabled",
        ];
        check(&cluster(), with_port, &lines, 2, &why);
        let v6 = [node("c", "active", "", "2001:db8::3", 1)];
        check(&v6, options(Format::Haproxy, Draining::Omit), &["server c [2001:db8::3] weight 100"], 1, &[]);
    }

    #[test]
    fn json_has_every_node_that_takes_calls_and_no_name_that_is_none() {
        let mut nodes = cluster();
        nodes.push(node("x\n7 sip:evil", "active", "sip:10.0.0.17", "10.0.0.17", 1));
        let made = list(&nodes, &options(Format::Json, Draining::Disabled));
        let rows: serde_json::Value = serde_json::from_str(&made.text).unwrap();
        let expected = serde_json::json!([
            {"name": "a", "state": "active", "sip": "sip:10.0.0.11:5060", "address": "10.0.0.11", "weight": 1},
            {"name": "b_2", "state": "active", "sip": "sip:tel-2.example.net;transport=tls", "address": null, "weight": 2},
            {"name": "c", "state": "draining", "sip": "sip:[2001:db8::3]:5080;transport=tcp", "address": "tel-3", "weight": 3},
            {"name": "g", "state": "active", "sip": null, "address": null, "weight": 1},
        ]);
        assert_eq!((rows, made.entries), (expected, 3));
        assert_eq!(list(&nodes[7..], &options(Format::Dispatcher, Draining::Omit)).text, "");
        assert_eq!(list(&[], &options(Format::Json, Draining::Omit)).text, "[]\n");
    }
}
