//! P9: what happened to an agent whose call was lost with its node. Owns how the scripts' results are read. Must never
//! decide whether the agent is rung: the scripts do.

use std::fmt;

/// An agent of a lost node, with `rejoin = "auto"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejoined {
    /// The agent is rung from another node.
    Ringing {
        /// Which.
        node: String,
        /// The new session.
        session: String,
        /// The alias.
        alias: String,
        /// The agent.
        agent: String,
    },
    /// No other node can ring their phone.
    Stranded {
        /// The alias.
        alias: String,
        /// The agent.
        agent: String,
    },
}

impl Rejoined {
    /// Reads the result of a report or the reason of a heartbeat; `None`: it is about something else.
    pub fn parse(result: &str) -> Option<Self> {
        let words: Vec<&str> = result.split(' ').collect();
        let own = |word: &str| word.to_owned();
        match words[..] {
            ["rejoined", node, session, alias, agent] => {
                Some(Self::Ringing { node: own(node), session: own(session), alias: own(alias), agent: own(agent) })
            }
            ["stranded", alias, agent] => Some(Self::Stranded { alias: own(alias), agent: own(agent) }),
            _ => None,
        }
    }
}

impl fmt::Display for Rejoined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ringing { node, session, alias, agent } => write!(f, "rejoined {node} {session} {alias} {agent}"),
            Self::Stranded { alias, agent } => write!(f, "stranded {alias} {agent}"),
        }
    }
}
