//! The tasks: who is started, who talks to whom, and who ends what. Owns start and stop. Must never hold state of
//! its own: the node loop does.
//!
//! ```text
//!            FromAmi            Order
//!  ami ───────────────► node ◄──── order_fetcher ◄── Redis (wake-up, take)
//!   ▲       ToAmi        │ ▲
//!   └────────────────────┘ │ Done
//!                  Batch   │
//!                 ───────► books ──► Redis (register, phones, adopt, report, heartbeat)
//!                     login_intake ◄─► Redis (wake-up, receive, settle)
//!              Vitals
//!                 ───────► http ◄── /healthz, /readyz, /metrics
//!                 ───────► keepalive ──► the operators' command
//! ```

pub mod ami;
mod books;
pub mod clock;
mod codec;
mod contacts;
mod gauges;
mod http;
mod keepalive;
mod login_intake;
mod metrics;
mod name;
mod node_loop;
mod notify;
mod order_fetcher;
mod reload;
mod socket;
mod talk;
mod vitals;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::signal::unix::{SignalKind, signal};

use prometheus_client::registry::Registry as Page;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::ami::action::EventMask;
use crate::ami::link::{Boot, LinkSettings};
use crate::config::{AmiLogin, ConfigError, Settings};
use crate::ids::{Generation, NodeName, SessionId};
use crate::node::Node;
use crate::node::roster::Roster;
use crate::registry::{Registry, RegistryError, Takes};
pub use node_loop::LoopError;
pub use reload::{Again, SetFilter};

/// Messages from AMI that may wait for the node loop. When they are full, AMI is not read.
const AMI_WAITING: usize = 1024;
/// Actions that may wait for the AMI task.
const ACTIONS_WAITING: usize = 1024;
/// Orders that may wait for the node loop.
const ORDERS_WAITING: usize = 256;
/// More calls to Redis than one batch of the node loop takes, each with a time limit of its own: who writes for longer is
/// stuck.
const CALLS_IN_A_WRITE: u32 = 20;

/// Why the daemon ended, other than on request.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings do not do for a daemon.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings for Redis do not do.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The node loop ended.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// Another process on this machine speaks for this node.
    #[error(
        "the name of node {node} is taken: {holder}. Stop that daemon, or give this one another [node] name; run one \
         evenring per node"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
        /// By whom.
        holder: String,
    },
    /// The system refused signals.
    #[error("signals cannot be listened to: {0}")]
    Signals(std::io::Error),
}

/// 64 random bits from the system. Should the system have none, the standard library's own seed has to do.
pub fn random_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish())
}

/// A new session id.
pub fn new_session() -> SessionId {
    SessionId::from_bits(random_bits())
}

/// Runs one node until SIGTERM or SIGINT. At SIGHUP, what `again` gives is taken over, as far as it can be. `log_dropped`
/// is shown as a metric.
///
/// # Errors
/// Settings that do not do, or a node name that another daemon on this machine holds, or has taken. A Redis or Asterisk
/// that is away is no error, nor a lease of another machine: the daemon waits for it.
pub async fn run(settings: Settings, again: Again, log_dropped: Arc<AtomicU64>) -> Result<(), DaemonError> {
    // From here on SIGHUP ends nothing.
    let hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let name = settings.node.name.clone();
    let mut generation = Generation::from_bits(random_bits());
    info!(node = %name, %generation, version = env!("CARGO_PKG_VERSION"), ami = %settings.ami.address,
        redis = %settings.redis.url, "starting");

    let clock = clock::Clock::start();
    // Held until the end of this function: the end of the daemon.
    let claim = name::claim(&settings, generation, clock).await.inspect_err(|error| {
        warn!(node = %name, reason = %error, "ended");
    })?;
    let mut tasks = JoinSet::new();
    let (metrics, page) = metrics::Metrics::new(clock);
    let (vitals, seen) = watch::channel(vitals::Vitals::new());
    let (told, in_force) = watch::channel(reload::InForce::of(&settings));
    let stop = listen_to_signals(&mut tasks)?;
    let counts = Arc::default();
    let gauges = gauges::Gauges {
        vitals: seen,
        ami: Arc::clone(&counts),
        clock,
        lease: settings.placement.lease,
        settings: in_force.clone(),
        log_dropped,
    };
    serve_http(&settings, page, gauges, &mut tasks);
    tasks.spawn(reload::Reload { settings: settings.clone(), again, told }.run(hangup));
    let process = Process { settings, holder: claim.holder.clone(), clock, metrics, counts, vitals, in_force, stop };
    let result = loop {
        match process.live(generation).await {
            Err(DaemonError::Loop(LoopError::StoodStill { stood_ms, .. })) => {
                generation = Generation::from_bits(random_bits());
                warn!(node = %name, stood_ms, %generation, "this daemon stood still for longer than its lease: what it had not \
                    rung is rung by others; it begins anew");
            }
            result => break result,
        }
    };
    tasks.shutdown().await;
    match &result {
        Ok(()) => info!(node = %name, "stopped"),
        Err(error) => warn!(node = %name, reason = %error, "ended"),
    }
    result
}

/// What outlives a generation.
#[derive(Debug)]
struct Process {
    settings: Settings,
    holder: String,
    clock: clock::Clock,
    metrics: metrics::Metrics,
    counts: Arc<ami::Counts>,
    vitals: watch::Sender<vitals::Vitals>,
    in_force: watch::Receiver<reload::InForce>,
    stop: watch::Receiver<Option<&'static str>>,
}

impl Process {
    /// One generation, from the first connection to the last word.
    async fn live(&self, generation: Generation) -> Result<(), DaemonError> {
        let (settings, clock, metrics) = (&self.settings, self.clock, self.metrics.clone());
        let (login, contacts_login) = (settings.require_ami()?, settings.contacts_login()?);
        let name = settings.node.name.clone();
        self.vitals.send_replace(vitals::Vitals::new());
        let mut tasks = JoinSet::new();
        let (to_ami, ami_orders) = mpsc::channel(ACTIONS_WAITING);
        let (ami_told, from_ami) = mpsc::channel(AMI_WAITING);
        let (batches, batch_ears) = mpsc::channel(1);
        let (done_told, done) = mpsc::channel(1);
        let (orders_told, orders) = mpsc::channel(ORDERS_WAITING);
        let (open, open_ears) = watch::channel(false);

        let link = link_settings(settings, login, EventMask::DAEMON, generation);
        let mut ami = ami::Ami::new(name.clone(), settings.ami.clone(), link, clock, "main");
        ami.counts = Arc::clone(&self.counts);
        ami.renewed =
            Some(ami::Renewed { in_force: self.in_force.clone(), login: |in_force| in_force.ami_login.clone() });
        tasks.spawn(ami.run(ami_orders, ami_told));

        let (registry, holder, in_force) = (Registry::new(settings)?, self.holder.clone(), self.in_force.clone());
        let books = books::Books::new(registry, in_force, generation, holder, metrics.clone(), clock);
        tasks.spawn(books.run(batch_ears, done_told));

        let intake_open = open_ears.clone();
        let fetcher = order_fetcher::OrderFetcher {
            registry: Registry::new(settings)?,
            node: name.clone(),
            generation,
            takes: Takes::default(),
            poll: settings.placement.poll,
            clock,
            metrics: metrics.clone(),
            settings: self.in_force.clone(),
            junk: clock::Repeats::default(),
        };
        tasks.spawn(fetcher.run(orders_told, open_ears.clone()));
        look_for_contacts(settings, contacts_login, &self.in_force, open_ears, (generation, clock), &mut tasks)?;
        take_logins(settings, self.in_force.clone(), clock, metrics.clone(), intake_open, &mut tasks)?;

        keep_alive(settings, generation, clock, metrics.clone(), self.vitals.subscribe(), &mut tasks)?;
        let (ring, lease) = (self.in_force.borrow().ring.clone(), settings.placement.lease);
        let mut node = Node::new(name.clone(), generation, ring, lease, clock.now());
        node.roster = roster(settings);
        let mouths = node_loop::Mouths { ami: to_ami, batches, open, vitals: self.vitals.clone() };
        let (settings_ears, stop) = (self.in_force.clone(), self.stop.clone());
        let ears = node_loop::Ears { ami: from_ami, orders, done, settings: settings_ears, stop };
        let longest_write = (settings.redis.connect_timeout + settings.redis.response_timeout) * CALLS_IN_A_WRITE;
        let node_loop = node_loop::NodeLoop::new(name, node, clock, mouths, metrics, (longest_write, lease));
        let result = node_loop.run(ears, settings.placement.heartbeat).await;
        tasks.shutdown().await;
        Ok(result?)
    }
}

/// Starts the task that asks for contact details, if there is a user for it.
fn look_for_contacts(
    settings: &Settings,
    login: Option<AmiLogin>,
    in_force: &watch::Receiver<reload::InForce>,
    open: watch::Receiver<bool>,
    (generation, clock): (Generation, clock::Clock),
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    let Some(login) = login else { return Ok(()) };
    let link = link_settings(settings, login, EventMask::SYSTEM, generation);
    let renewed = ami::Renewed { in_force: in_force.clone(), login: |in_force| in_force.contacts_login.clone() };
    let contacts = contacts::Contacts::new(settings, Registry::new(settings)?, link, renewed, generation, clock);
    tasks.spawn(contacts.run(open));
    Ok(())
}

/// Starts the task that works the shared inbox.
fn take_logins(
    settings: &Settings,
    in_force: watch::Receiver<reload::InForce>,
    clock: clock::Clock,
    metrics: metrics::Metrics,
    open: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    let (registry, node) = (Registry::new(settings)?, settings.node.name.clone());
    let (poll, junk) = (settings.placement.poll, clock::Repeats::default());
    let intake = login_intake::LoginIntake { registry, node, poll, clock, metrics, settings: in_force, junk };
    tasks.spawn(intake.run(open));
    Ok(())
}

/// Starts the task that watches for an Asterisk that stays away, if the settings name a command.
fn keep_alive(
    settings: &Settings,
    generation: Generation,
    clock: clock::Clock,
    metrics: metrics::Metrics,
    vitals: watch::Receiver<vitals::Vitals>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    if settings.keepalive.command.is_empty() {
        return Ok(());
    }
    let registry = Registry::new(settings)?;
    let (settings, node) = (settings.keepalive.clone(), settings.node.name.clone());
    tasks.spawn(keepalive::Keepalive { settings, registry, node, generation, clock, metrics }.run(vitals));
    Ok(())
}

/// Tells when the daemon is to stop, and by which signal.
fn listen_to_signals(tasks: &mut JoinSet<()>) -> Result<watch::Receiver<Option<&'static str>>, DaemonError> {
    let (stop_told, stop) = watch::channel(None);
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    tasks.spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        stop_told.send_replace(Some(name));
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

/// Starts the task that answers over HTTP, if the settings name an address.
fn serve_http(settings: &Settings, mut page: Page, gauges: gauges::Gauges, tasks: &mut JoinSet<()>) {
    let Some(address) = settings.http.listen else { return };
    let (vitals, clock, lease) = (gauges.vitals.clone(), gauges.clock, gauges.lease);
    page.register_collector(Box::new(gauges));
    let shown = http::Shown { page: Arc::new(page), vitals, clock, lease };
    tasks.spawn(http::run(settings.node.name.clone(), address, shown));
}

/// A roster with the configured limits.
pub fn roster(settings: &Settings) -> Roster {
    Roster::new(settings.placement.case, usize::try_from(settings.ami.max_phones).unwrap_or(usize::MAX))
}

/// What a session on the configured manager is given.
pub fn link_settings(settings: &Settings, login: AmiLogin, events: EventMask, generation: Generation) -> LinkSettings {
    LinkSettings {
        username: login.username,
        secret: login.secret,
        events,
        ping_interval: settings.ami.ping_interval,
        ping_timeout: settings.ami.ping_timeout,
        login_timeout: settings.ami.login_timeout,
        action_timeout: settings.ami.action_timeout,
        devices_most: usize::try_from(settings.ami.max_devices).unwrap_or(usize::MAX),
        boot: Boot::Awaited,
        generation,
        connection: 0,
    }
}
