//! P9: what became of an agent whose call was lost with its node. Owns the words of the scripts for it. Must never decide
//! whether he is rung: the scripts do.

/// An agent of a lost node, with `rejoin = "auto"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comeback {
    /// He is rung from another node.
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
    /// No other node can ring his phone.
    Stranded {
        /// The alias.
        alias: String,
        /// The agent.
        agent: String,
    },
}

impl Comeback {
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
