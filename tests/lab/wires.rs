//! The cables of a lab that tests pull and spoil: each node's cable to the phones, and a second one to a network of its
//! own, where Redis is.
//!
//! Owns the second network, and the rules by which packets are lost. Must never know what goes over a cable. What is
//! cut or lost is so on the way: neither end is told.

use std::net::Ipv4Addr;

use super::{Lab, Node, run, try_run};

/// Where Redis is for the nodes of a lab with two networks.
pub const DATA: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The network namespace of a machine that only has the command line.
pub const DESK: &str = "ev-desk";

/// Which of a node's cables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// To the phones.
    Phones,
    /// To Redis.
    Data,
}

/// Whose cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// A node's, by name.
    Node(&'a str, Cable),
    /// That of the machine with the command line.
    Desk,
}

impl End<'_> {
    fn namespace(self) -> String {
        match self {
            Self::Node(name, _) => format!("ev-{name}"),
            Self::Desk => DESK.to_owned(),
        }
    }

    /// Its far end, at the bridge.
    fn far(self) -> String {
        match self {
            Self::Node(name, Cable::Phones) => format!("cable-{name}"),
            Self::Node(name, Cable::Data) => format!("data-{name}"),
            Self::Desk => "data-desk".to_owned(),
        }
    }

    /// Its end in the namespace.
    fn near(self) -> &'static str {
        match self {
            Self::Node(_, Cable::Phones) => "eth0",
            Self::Node(_, Cable::Data) | Self::Desk => "eth1",
        }
    }
}

/// The second network. It goes before the lab does.
#[derive(Debug)]
pub struct Wires {
    ends: Vec<String>,
}

impl Wires {
    /// Gives every node of the lab a second cable, and makes the desk.
    pub fn lay(lab: &Lab) -> Self {
        run("ip link add br1 type bridge forward_delay 0");
        run(&format!("ip addr add {DATA}/24 dev br1"));
        run("ip link set br1 up");
        let mut wires = Self { ends: Vec::new() };
        for (number, name) in lab.nodes().iter().map(Node::name).enumerate() {
            wires.plug_in(End::Node(name, Cable::Data), 11 + number);
        }
        run(&format!("ip netns add {DESK}"));
        run(&format!("ip -n {DESK} link set lo up"));
        wires.plug_in(End::Desk, 99);
        wires
    }

    fn plug_in(&mut self, end: End<'_>, number: usize) {
        let (namespace, far, near) = (end.namespace(), end.far(), end.near());
        run(&format!("ip link add {far} type veth peer name {near} netns {namespace}"));
        self.ends.push(far.clone());
        run(&format!("ip link set {far} master br1 up"));
        run(&format!("ip -n {namespace} addr add 10.78.0.{number}/24 dev {near}"));
        run(&format!("ip -n {namespace} link set {near} up"));
    }

    /// Pulls a cable.
    pub fn pull(&self, end: End<'_>) {
        run(&format!("ip link set {} down", end.far()));
    }

    /// Puts it back.
    pub fn put_back(&self, end: End<'_>) {
        run(&format!("ip link set {} up", end.far()));
    }

    /// From now on so many of a hundred packets are lost, in each direction. (By nftables where a packet arrives: the
    /// kernel's own emulator of bad networks, netem, is a module that many machines have not.)
    pub fn spoil(&self, end: End<'_>, percent: u32) {
        for (nft, device) in [("nft".to_owned(), end.far()), (nft_in(end), end.near().to_owned())] {
            run(&format!("{nft} add table netdev spoil-{device}"));
            let hook = format!("{{ type filter hook ingress device {device} priority 0 ; }}");
            run(&format!("{nft} add chain netdev spoil-{device} in {hook}"));
            run(&format!("{nft} add rule netdev spoil-{device} in numgen random mod 100 < {percent} drop"));
        }
    }

    /// No packet is lost any more.
    pub fn repair(&self, end: End<'_>) {
        for (nft, device) in [("nft".to_owned(), end.far()), (nft_in(end), end.near().to_owned())] {
            run(&format!("{nft} delete table netdev spoil-{device}"));
        }
    }
}

fn nft_in(end: End<'_>) -> String {
    format!("ip netns exec {} nft", end.namespace())
}

impl Drop for Wires {
    fn drop(&mut self) {
        for end in &self.ends {
            try_run(&format!("ip link del {end}"));
        }
        try_run(&format!("ip netns del {DESK}"));
        try_run("ip link del br1");
    }
}
