//! How a phone is rung: what is dialled, what the agent meets after answering, and how many at a time. Pure data, and the
//! templates in it. Must never read a file or the environment: `config` does.

mod template;

use std::collections::BTreeMap;
use std::time::Duration;

pub use template::{Placeholder, TEMPLATE_BYTES_MAX, Template, TemplateError};

/// How a phone is rung.
#[derive(Debug, Clone)]
pub struct RingSettings {
    /// The channel to originate.
    pub dial: Template,
    /// What the agent meets after answering.
    pub target: RingTarget,
    /// What the phone shows.
    pub caller_id: Template,
    /// How long the phone rings, 1 to 120 seconds.
    pub timeout: Duration,
    /// Channel variables, without commas.
    pub variables: BTreeMap<String, Template>,
    /// Originates per second in the long run.
    pub rate: u32,
    /// Originates at once after a quiet time.
    pub burst: u32,
    /// Phones that ring at the same time; who is over it waits.
    pub at_once: u32,
}

/// What a node may not be late with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// After this long without a heartbeat, other nodes may have its sessions.
    pub lease: Duration,
    /// A login that had to wait for a heartbeat until it was placed longer ago than this is not rung any more.
    pub order_expiry: Duration,
}

/// What an answered channel is connected with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingTarget {
    /// A dialplan application.
    Application {
        /// Its name, e.g. `ConfBridge`.
        name: String,
        /// Its arguments; `None` if they are set to nothing.
        data: Option<Template>,
    },
    /// A place in the dialplan.
    Dialplan {
        /// The context.
        context: Template,
        /// The extension in it.
        exten: Template,
        /// The priority, from 1.
        priority: u32,
    },
}
