//! What can go wrong between a daemon and Redis, with the advice for people. Owns those texts. Must never decide which error a
//! reply is: `refusal` does.

/// An error between this process and Redis, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The settings cannot be used.
    #[error("redis.url or redis.ca_file is unusable: {0}")]
    Settings(String),
    /// No answer at all. Safe to try again; what was asked may have happened.
    #[error("Redis at {url} is not reachable: {why}; check that it is running, and check redis.url")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system said.
        why: String,
    },
    /// Redis denies the login or the command.
    #[error(
        "Redis at {url} denied access: {why}; check redis.username, the password and the ACL (docs/SECURITY.md, Redis \
            ACL)"
    )]
    Denied {
        /// Where.
        url: String,
        /// What Redis said.
        why: String,
    },
    /// Redis lets this user in, but not do all that a login needs.
    #[error(
        "the user of Redis at {url} may not do what a login needs: {missing}; use the ACL line in docs/SECURITY.md \
            (Redis ACL), with your namespace in all three places"
    )]
    Lacks {
        /// Where.
        url: String,
        /// The commands.
        missing: String,
    },
    /// Redis responds, but accepts no writes now.
    #[error("Redis at {url} accepts no writes: {why}; {advice}")]
    NotWritable {
        /// Where.
        url: String,
        /// What Redis said.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// Redis responds, but its version or setup is unsuitable.
    #[error("Redis at {url} is unusable: {why}; {advice}")]
    Unfit {
        /// Where.
        url: String,
        /// What it said.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// A newer generation has this node's name.
    #[error("another daemon has taken this node's name: writes of this one are refused")]
    Fenced,
    /// Something that this daemon said later has been carried out already. Nothing was changed: say it again.
    #[error("a later call of this daemon was carried out before this one; it is sent again")]
    Superseded,
    /// Redis does not know this node (any more): register again.
    #[error("Redis does not know this node")]
    Forgotten,
    /// Redis was unavailable or replaced: nothing is decided until the nodes have reported. Safe to try again.
    #[error("Redis at {url} has just recovered and is waiting for the nodes to report; try again in a few seconds")]
    NotNow {
        /// Where.
        url: String,
    },
    /// A bug in a script, or a key that is not ours to use.
    #[error("a script failed in Redis at {url}: {why}")]
    Script {
        /// Where.
        url: String,
        /// What Redis said.
        why: String,
    },
}

impl RegistryError {
    /// Whether an operator must change something before a retry can help.
    pub fn needs_people(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Lacks { .. } | Self::Unfit { .. } => true,
            Self::Settings(_) | Self::Script { .. } => true,
            Self::Unreachable { .. } | Self::NotWritable { .. } | Self::NotNow { .. } => false,
            Self::Fenced | Self::Superseded | Self::Forgotten => false,
        }
    }

    /// Whether Redis is unavailable: logins wait until it is back.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Denied { .. } | Self::Lacks { .. } | Self::NotWritable { .. } => true,
            Self::Unfit { .. } | Self::NotNow { .. } => true,
            Self::Settings(_) | Self::Fenced | Self::Superseded | Self::Forgotten | Self::Script { .. } => false,
        }
    }
}
