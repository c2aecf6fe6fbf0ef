//! What a stage stands on: which Redis, how many phones, and the settings of its daemons.
//!
//! Owns the kinds of it, and how their Redis is broken and repaired. Must never know a certain fault.

use std::time::Duration;

use crate::lab::redis::Redis;
use crate::lab::sentinel::{Rules, Watched};
use crate::lab::wires::DATA;

/// Which stage a fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Redis with two replicas and three sentinels: another one takes over soon.
    Sentinel,
    /// One Redis that writes down each change before it answers.
    Journal,
    /// One Redis that keeps nothing when it ends.
    Memory,
    /// As the first, with phones for a large shift. An agent who picks up just waits: so many conferences would cost more
    /// than the rest.
    Callers,
}

impl Ground {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sentinel, Self::Journal, Self::Memory, Self::Callers];

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Sentinel | Self::Callers => "Redis with two replicas and three sentinels",
            Self::Journal => "one Redis that writes down each change (appendfsync always)",
            Self::Memory => "one Redis without persistence",
        }
    }

    /// How many phones there are.
    pub fn phones(self) -> u32 {
        match self {
            Self::Sentinel | Self::Journal | Self::Memory => 90,
            Self::Callers => 490,
        }
    }

    /// How long a phone rings. Where all of Redis is away nothing may end a ring but its agent: longer than that.
    pub fn rings_for(self) -> Duration {
        match self {
            Self::Sentinel | Self::Callers => Duration::from_secs(4),
            Self::Journal | Self::Memory => Duration::from_secs(15),
        }
    }

    /// The daemons' settings. The name of the session is the name of the caller, so that the phones know which session
    /// rings them. Sessions that are over are forgotten soon: one round does not look at those of the last.
    pub fn settings(self) -> String {
        let (seconds, more) = (
            self.rings_for().as_secs(),
            match self {
                Self::Sentinel | Self::Journal | Self::Memory => "",
                Self::Callers => "application = \"Wait\"\ndata = \"3600\"\n",
            },
        );
        format!(
            "[ring]\ntimeout = \"{seconds}s\"\ncaller_id = \"\\\"{{session}}\\\" <{{extension}}>\"\n{more}\
             [placement]\nrejoin = \"auto\"\nsession_keep = \"60s\"\n"
        )
    }
}

/// The Redis of a stage.
#[derive(Debug)]
pub enum Store {
    /// Behind Sentinel; and which server is dead or frozen.
    Watched(Watched, Option<usize>),
    /// One alone.
    Single(Redis),
}

impl Store {
    /// As this ground has it.
    pub(super) fn start(ground: Ground) -> Self {
        match ground {
            Ground::Sentinel | Ground::Callers => Self::Watched(Watched::start(DATA, &Rules::default()), None),
            Ground::Journal => {
                Self::Single(Redis::start_with(DATA, &["--appendonly", "yes", "--appendfsync", "always"]))
            }
            Ground::Memory => Self::Single(Redis::start_with(DATA, &[])),
        }
    }

    /// Where daemons and command line find it.
    pub fn url(&self) -> String {
        match self {
            Self::Watched(watched, _) => watched.url("redis", ""),
            Self::Single(redis) => redis.url(),
        }
    }

    /// Where the server is that is written to now.
    pub fn primary_url(&self) -> String {
        match self {
            Self::Watched(watched, _) => watched.servers[watched.primary()].url(),
            Self::Single(redis) => redis.url(),
        }
    }

    /// The server that is broken, or else the primary, which is broken from now on.
    fn victim(&mut self) -> &mut Redis {
        match self {
            Self::Watched(watched, broken) => {
                let victim = *broken.get_or_insert_with(|| watched.primary());
                &mut watched.servers[victim]
            }
            Self::Single(redis) => redis,
        }
    }

    /// The primary ends, as if the power went.
    pub fn kill9(&mut self) {
        self.victim().kill9();
    }

    /// The primary freezes.
    pub fn sigstop(&mut self) {
        self.victim().sigstop();
    }

    /// What was killed starts again.
    pub fn start_again(&mut self) {
        self.victim().start_again();
        self.repaired();
    }

    /// What was frozen thaws.
    pub fn sigcont(&mut self) {
        self.victim().sigcont();
        self.repaired();
    }

    fn repaired(&mut self) {
        if let Self::Watched(_, broken) = self {
            *broken = None;
        }
        self.wait_whole();
    }

    /// Waits until a primary has its replicas, where there are any.
    pub fn wait_whole(&self) {
        match self {
            Self::Watched(watched, _) => watched.wait_whole(),
            Self::Single(_) => {}
        }
    }
}
