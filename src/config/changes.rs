//! Compares two settings: what differs, and what of it a running daemon can apply.
//!
//! Owns which keys can be applied, and which must be the same on all nodes of a cluster. Must never show a secret (P13) or apply anything itself.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;

use super::{AmiSettings, AmiUser, NodeSettings, Settings};

/// Keys that are applied without a restart, besides all of `[ring]`. Those of a connection to Asterisk apply to the next
/// one.
const LIVE: [&str; 18] = [
    "node.weight",
    "node.max_agents",
    "node.campaigns",
    "node.sip",
    "node.address",
    "log.filter",
    "ami.address",
    "ami.username",
    "ami.secret",
    "ami.ca_file",
    "ami.server_name",
    "ami.connect_timeout",
    "ami.login_timeout",
    "ami.action_timeout",
    "ami.ping_interval",
    "ami.ping_timeout",
    "ami.contacts.secret",
    "doctor.accept",
];
/// Keys of which every node must have the same value, besides all of `[ring]` but those below: a login is placed by
/// whichever node reads it, and rung by another.
const SHARED: [&str; 6] = [
    "placement.alias_suffix",
    "placement.lease",
    "placement.tries",
    "placement.order_expiry",
    "placement.session_keep",
    "placement.rejoin",
];
/// What a node may have of its own: how fast its Asterisk can ring.
const OWN_PACE: [&str; 3] = ["ring.rate", "ring.burst", "ring.at_once"];
const LIVE_SECTION: &str = "ring.";
const ABSENT: &str = "not set";

/// One key with another value, as `evenring config dump` shows both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// The value in effect.
    pub from: String,
    /// What the new settings say.
    pub to: String,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What [`Settings::take_over`] takes over.
    pub live: Vec<Change>,
    /// What needs a restart.
    pub restart: Vec<Change>,
}

impl Settings {
    /// What differs between these settings and `new` ones.
    pub fn changes(&self, new: &Self) -> Changes {
        let (before, after) = (values(&self.dump()), values(&new.dump()));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let value = |side: &BTreeMap<String, String>, key| side.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned());
        let mut changes = Changes::default();
        for key in keys {
            let change = Change { key: key.clone(), from: value(&before, key), to: value(&after, key) };
            let live = key.starts_with(LIVE_SECTION) || LIVE.contains(&key.as_str());
            match (change.from == change.to, live) {
                (true, _) => {}
                (false, true) => changes.live.push(change),
                (false, false) => changes.restart.push(change),
            }
        }
        let hidden = "another secret".to_owned();
        for ((key, before), (_, after)) in secrets(self).into_iter().zip(secrets(new)) {
            let side = if LIVE.contains(&key) { &mut changes.live } else { &mut changes.restart };
            if before != after && !side.iter().any(|change| change.key == key) {
                side.push(Change { key: key.to_owned(), from: "***".to_owned(), to: hidden.clone() });
            }
        }
        changes
    }

    /// What must be the same on all nodes of a cluster, as `evenring config dump` shows it.
    pub fn shared(&self) -> BTreeMap<String, String> {
        let is_shared = |key: &String| {
            SHARED.contains(&key.as_str()) || (key.starts_with(LIVE_SECTION) && !OWN_PACE.contains(&key.as_str()))
        };
        values(&self.dump()).into_iter().filter(|(key, _)| is_shared(key)).collect()
    }

    /// Applies what can be applied without a restart: see [`Changes::live`]. Each key of these sections is named here, so
    /// that nobody adds one without a decision.
    pub fn take_over(&mut self, new: &Self) {
        let NodeSettings { name: _, weight, max_agents, campaigns, sip, address } = new.node.clone();
        self.node = NodeSettings { name: self.node.name.clone(), weight, max_agents, campaigns, sip, address };
        self.ring = new.ring.clone();
        self.log.filter.clone_from(&new.log.filter);
        self.doctor = new.doctor.clone();
        let AmiSettings {
            address,
            ca_file,
            server_name,
            connect_timeout,
            login_timeout,
            action_timeout,
            ping_interval,
            ping_timeout,
            user,
            contacts_user,
            max_phones: _,
            max_devices: _,
            contacts_interval: _,
        } = new.ami.clone();
        self.ami = AmiSettings {
            address,
            ca_file,
            server_name,
            connect_timeout,
            login_timeout,
            action_timeout,
            ping_interval,
            ping_timeout,
            user,
            contacts_user: AmiUser { username: self.ami.contacts_user.username.clone(), secret: contacts_user.secret },
            max_phones: self.ami.max_phones,
            max_devices: self.ami.max_devices,
            contacts_interval: self.ami.contacts_interval,
        };
    }
}

/// `section.key` and value of every line of a dump.
fn values(dump: &str) -> BTreeMap<String, String> {
    let mut section = "";
    let mut values = BTreeMap::new();
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once(" = ") {
            values.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    values
}

/// What a dump hides.
fn secrets(settings: &Settings) -> [(&'static str, Option<String>); 4] {
    let user = |user: &AmiUser| {
        user.secret.as_ref().ok().and_then(|secret| secret.as_ref()).map(|secret| secret.expose_secret().to_owned())
    };
    let redis = &settings.redis;
    let sentinel = redis.sentinel.as_ref().and_then(|sentinel| sentinel.password.as_ref());
    let shown = |secret: Option<&secrecy::SecretString>| secret.map(|secret| secret.expose_secret().to_owned());
    [
        ("ami.secret", user(&settings.ami.user)),
        ("ami.contacts.secret", user(&settings.ami.contacts_user)),
        ("redis.password", shown(redis.password.as_ref())),
        ("redis.sentinel_password", shown(sentinel)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), toml).expect("written");
        let name = [("EVENRING__NODE__NAME".to_owned(), "n".to_owned())];
        Settings::load(Some(file.path()), name.into_iter()).expect("settings")
    }

    /// The keys that are taken over, and those that need a restart.
    #[track_caller]
    fn check(before: &str, after: &str, live: &[&str], restart: &[&str]) {
        let (mut old, new) = (settings(before), settings(after));
        let changes = old.changes(&new);
        let keys = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
        assert_eq!((keys(&changes.live), keys(&changes.restart)), (to_owned(live), to_owned(restart)), "{changes:?}");
        assert!(!format!("{changes:?}").contains("hunter"), "{changes:?}");
        old.take_over(&new);
        let left = old.changes(&new);
        assert_eq!((left.live, left.restart), (Vec::new(), changes.restart), "what is taken over is in force");
    }

    fn to_owned(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn what_all_nodes_must_agree_about_is_neither_the_node_nor_its_pace() {
        let (one, other) = (settings("").shared(), settings("node.weight = 9\nring.rate = 9\nlog.filter = \"debug\""));
        assert_eq!(one, other.shared());
        assert_eq!(one["placement.rejoin"], "\"manual\"");
        let differs =
            settings("[placement]\nrejoin = \"auto\"\n[ring]\ndata = \"{alias}\"\n[ring.variables]\nA = \"b\"");
        let differs = differs.shared();
        let keys: Vec<_> =
            differs.iter().filter(|(key, value)| one.get(*key) != Some(value)).map(|(key, _)| key).collect();
        assert_eq!(keys, ["placement.rejoin", "ring.data", "ring.variables.A"]);
    }

    #[test]
    fn what_can_be_taken_over_is_and_the_rest_is_named() {
        check("", "", &[], &[]);
        check(
            "",
            "[node]\nweight = 2\nmax_agents = 5\ncampaigns = [\"x\"]\nsip = \"sip:a\"\naddress = \"a\"\n\
             [log]\nfilter = \"debug\"",
            &["log.filter", "node.address", "node.campaigns", "node.max_agents", "node.sip", "node.weight"],
            &[],
        );
        check(
            "",
            "[ring]\ntimeout = \"9s\"\nrate = 1\nburst = 2\ndial = \"SIP/{agent}\"",
            &["ring.burst", "ring.dial", "ring.rate", "ring.timeout"],
            &[],
        );
        let place = "[ring]\ncontext = \"c\"\nexten = \"e\"\n[ring.variables]\nA = \"b\"";
        let keys = ["ring.application", "ring.context", "ring.data", "ring.exten", "ring.priority", "ring.variables.A"];
        check("", place, &keys, &[]);
        check(place, "", &keys, &[]);
        check("", "placement.lease = \"4s\"\nlog.format = \"json\"", &[], &["log.format", "placement.lease"]);
        let secret =
            |secret: &str| format!("ami.username = \"u\"\nami.secret = \"{secret}\"\nredis.password = \"{secret}\"");
        check(&secret("hunter2"), &secret("hunter3"), &["ami.secret"], &["redis.password"]);
        check("", &secret("hunter3"), &["ami.secret", "ami.username"], &["redis.password"]);
        let contacts = "[ami]\naddress = \"127.0.0.2:5038\"\nping_timeout = \"3s\"\n[ami.contacts]\ninterval = \"1m\"";
        check("", contacts, &["ami.address", "ami.ping_timeout"], &["ami.contacts.interval"]);
        check("", "doctor.accept = [\"redis.default-user\"]", &["doctor.accept"], &[]);
        check("", "ami.max_phones = 9\nami.max_devices = 9", &[], &["ami.max_devices", "ami.max_phones"]);
    }
}
