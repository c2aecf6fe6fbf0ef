//! The scripts, as source. Owns which there are and which shared parts are put before each. Must never know what
//! their replies mean: the typed calls of this module do.

use std::collections::BTreeSet;

use redis::Script;

/// What time it is and which node may be called dead: put before every script.
const JUDGE: &str = include_str!("scripts/judge.lua");

macro_rules! parts {
    ($($name:literal),* $(,)?) => {
        /// The parts that scripts share, by name. One may use those before it.
        const PARTS: &[(&str, &str)] = &[$(($name, include_str!(concat!("scripts/lib/", $name, ".lua"))),)*];
    };
}

parts! {
    "keys", "permission", "removal", "clock", "fencing", "tables", "rsmq", "events", "nodes", "hangup", "sessions", "ring_queue", "forgetting", "eligibility",
    "targets", "quick_choice", "orders", "holds", "attempts", "rejoin", "moves", "placement", "answers",
}

/// The parts that this text says it needs.
fn needs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().find_map(|line| line.strip_prefix("-- Needs: ")).unwrap_or_default().split(' ')
}

/// Judge, parts and script as one text. Only what is needed: each function costs every call of the script.
fn join(text: &str) -> String {
    let mut wanted: BTreeSet<&str> = needs(text).collect();
    // From the last to the first, for a part needs only such as stand before it.
    for (name, part) in PARTS.iter().rev() {
        if wanted.contains(name) {
            wanted.extend(needs(part));
        }
    }
    let parts = PARTS.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, part)| *part);
    std::iter::once(JUDGE).chain(parts).chain(std::iter::once(text)).collect::<Vec<_>>().join("\n")
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $file:literal),* $(,)?) => {
        /// Every script, hashed once.
        #[derive(Debug)]
        pub(super) struct Scripts {
            $($(#[$doc])* pub(super) $name: Script,)*
        }

        impl Scripts {
            /// Joins each with what it needs.
            pub(super) fn new() -> Self {
                let [$($name,)*] = FILES.each_ref().map(|(_, text)| Script::new(&join(text)));
                Self { $($name,)* }
            }

            fn named(&self) -> Vec<(&'static str, &Script)> {
                vec![$(($file, &self.$name),)*]
            }
        }

        const FILES: [(&str, &str); [$($file,)*].len()] =
            [$(($file, include_str!(concat!("scripts/", $file, ".lua"))),)*];
    };
}

/// Every script by name, with the hash by which Redis knows it: in the log of its slow calls it has no other name.
pub fn script_hashes() -> Vec<(&'static str, String)> {
    Scripts::new().named().into_iter().map(|(name, script)| (name, script.get_hash().to_owned())).collect()
}

/// A script as Redis gets it; `None`: there is none of that name.
pub fn script_text(name: &str) -> Option<String> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| join(text))
}

scripts! {
    /// One login: choose and reserve.
    place: "place",
    /// The same of one that nobody rings.
    hold: "hold",
    /// Its agent is on the phone.
    confirm: "confirm",
    /// A node fetches its orders.
    fetch_orders: "fetch_orders",
    /// A node says what became of sessions.
    report: "report",
    /// A node says which sessions it found in Asterisk.
    adopt: "adopt",
    /// A daemon takes a node's name.
    register: "register",
    /// Lease, state, housekeeping.
    heartbeat: "heartbeat",
    /// A daemon stops.
    leave: "leave",
    /// Who waits for their turn to ring.
    ring_queue: "ring_queue",
    /// A node's share and caps, and whom it leaves out.
    limits: "limits",
    /// A node drains or resumes.
    drain: "drain",
    /// A dead node is taken off the list.
    forget: "forget",
    /// Which phones a node knows.
    phones: "phones",
    /// Contact details of a node's phones.
    contacts: "contacts",
    /// Ends a session.
    logout: "logout",
    /// Every node.
    status: "status",
    /// Sessions.
    sessions: "sessions",
    /// The operators' command runs, or has ended.
    keepalive: "keepalive",
    /// What only a daemon knows, for the event stream.
    append_events: "append_events",
    /// What our user may do.
    rights: "rights",
    /// Whether a login would be taken.
    try_login: "try_login",
    /// What must be the same on all nodes.
    settings: "settings",
    /// The shared inbox: the next messages.
    receive: "receive",
    /// The shared inbox: placed and answered.
    settle: "settle",
    /// The queues, for operators.
    queue: "queue",
    /// What an idempotency key was first used for.
    idempotency: "idempotency",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_gives() {
        for (name, text) in FILES {
            let header: String = text.lines().take_while(|line| line.starts_with("--")).collect();
            assert!(header.starts_with(&format!("-- {name}.lua: ")), "{name} does not start with its own name");
            assert!(header.contains("reply "), "{name} does not say what it replies");
            let uses_arguments = text.contains("ARGV[");
            assert_eq!(uses_arguments, header.contains("ARGV "), "{name}: arguments and header disagree");
        }
    }

    /// Words that are code: no comment, no text.
    fn words(text: &str) -> Vec<&str> {
        let code = text.lines().map(|line| line.split("--").next().unwrap_or_default());
        let code = code.flat_map(|line| line.split('\'').step_by(2));
        code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
    }

    /// What a part gives to those behind it.
    fn gives(text: &str) -> Vec<&str> {
        let names = text.lines().filter_map(|line| line.strip_prefix("local "));
        names
            .flat_map(|rest| {
                let rest =
                    rest.strip_prefix("function ").map_or(rest, |name| name.split('(').next().unwrap_or_default());
                rest.split('=').next().unwrap_or_default().split(',').map(str::trim)
            })
            .collect()
    }

    #[test]
    fn every_text_needs_what_it_says_and_says_what_it_needs() {
        for (at, (name, text)) in PARTS.iter().enumerate().chain(FILES.iter().map(|file| (PARTS.len(), file))) {
            let (words, own) = (words(text), gives(text));
            let needed: BTreeSet<&str> = needs(text).filter(|part| !part.is_empty()).collect();
            for (place, (part, provider)) in PARTS.iter().enumerate() {
                let used: Vec<&str> =
                    gives(provider).into_iter().filter(|given| words.contains(given) && !own.contains(given)).collect();
                if part != name {
                    assert_eq!(!used.is_empty(), needed.contains(part), "{name} uses {used:?} of {part}");
                }
                assert!(!needed.contains(part) || place < at, "{name} needs {part}, which stands behind it");
            }
            for part in needed {
                assert!(PARTS.iter().any(|(known, _)| *known == part), "{name} needs {part}, which does not exist");
            }
        }
    }
}
