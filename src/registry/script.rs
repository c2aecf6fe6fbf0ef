//! The scripts, as source. Owns which there are and which shared parts are put before each. Must never know what
//! their replies mean: the typed calls of this room do.

use redis::Script;

const JUDGE: &str = include_str!("scripts/judge.lua");
const LIBRARY: &str = include_str!("scripts/lib.lua");
/// Where a login may ring, and which of these nodes it gets.
const CHOICE: &str = include_str!("scripts/lib/choice.lua");
/// What becomes of a login that has been placed.
const ATTEMPT: &str = include_str!("scripts/lib/attempt.lua");
/// How a login is placed.
const PLACEMENT: &str = include_str!("scripts/lib/placement.lua");
/// How a login of the inbox is answered, and what becomes of answers that nobody takes.
const ANSWER: &str = include_str!("scripts/lib/answer.lua");

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident: $file:literal $(with $part:ident)*),* $(,)?) => {
        /// Every script, hashed once.
        #[derive(Debug)]
        pub(super) struct Scripts {
            $($(#[$doc])* pub(super) $name: Script,)*
        }

        impl Scripts {
            /// Joins judge and library with each script.
            pub(super) fn new() -> Self {
                Self { $($name: Script::new(&[JUDGE, LIBRARY, CHOICE, ATTEMPT, $($part,)* include_str!(concat!("scripts/", $file, ".lua"))].join("\n")),)* }
            }

            fn named(&self) -> Vec<(&'static str, &Script)> {
                vec![$(($file, &self.$name),)*]
            }
        }

        #[cfg(test)]
        const FILES: &[(&str, &str)] = &[$(($file, include_str!(concat!("scripts/", $file, ".lua"))),)*];
    };
}

/// Every script by name, with the hash by which Redis knows it: in the log of its slow calls it has no other name.
pub fn script_hashes() -> Vec<(&'static str, String)> {
    Scripts::new().named().into_iter().map(|(name, script)| (name, script.get_hash().to_owned())).collect()
}

scripts! {
    /// One login: choose and reserve.
    place: "place" with PLACEMENT,
    /// A node fetches its orders.
    take: "take",
    /// A node says what became of sessions.
    report: "report",
    /// A node says which sessions it found in Asterisk.
    adopt: "adopt",
    /// A daemon takes a node's name.
    register: "register",
    /// Lease, state, housekeeping.
    heartbeat: "heartbeat" with ANSWER,
    /// A daemon stops.
    leave: "leave",
    /// Who waits for his turn to ring.
    line: "line",
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
    /// What only a daemon knows, for the story.
    note: "note",
    /// What our user may do.
    rights: "rights",
    /// The shared inbox: the next messages.
    receive: "receive",
    /// The shared inbox: placed and answered.
    settle: "settle" with PLACEMENT with ANSWER,
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
}
