//! The tasks of the daemon and the channels between them. Owns start and stop. Must never hold state of its own: the node
//! loop does.
//!
//! ```text
//!            FromAmi            Order
//!  ami ───────────────► node ◄──── order_fetcher ◄── Redis (wake-up, fetch)
//!   ▲       ToAmi        │ ▲
//!   └────────────────────┘ │ WriteResult
//!             WriteBatch │ │
//!                 ───────► registry_writer ──► Redis (register, phones, adopt, report, heartbeat)
//!                     inbox_reader ◄─► Redis (wake-up, receive)
//!                     login_intake ◄─► Redis (settle)
//!              DaemonStatus
//!                 ───────► http ◄── /healthz, /readyz, /metrics
//!                 ───────► agent_check ◄── HAProxy
//!                          api ◄── other programs, by a thread of its own (src/api)
//!                 ───────► keepalive ──► the operators' command
//! ```

mod contacts;
mod inbox_reader;
mod keepalive;
mod login_intake;
mod name_lock;
mod node_loop;
mod observability;
mod order_fetcher;
mod registry_writer;
mod reload;
mod systemd;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::signal::unix::{SignalKind, signal};

use prometheus_client::registry::Registry as Page;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::ami::action::EventMask;
use crate::ami_client::{self, link_settings};
use crate::api;
use crate::config::{AmiLogin, ConfigError, LiveSettings, Settings};
use crate::ids::{Generation, NodeName};
use crate::node::Node;
use crate::node::roster::Roster;
use crate::registry::{FetchSequence, Registry, RegistryError};
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;
pub use name_lock::runtime_dir;
pub use node_loop::LoopError;
pub use observability::doctor_report::DoctorReport;
pub use reload::{Reloader, SetFilter};

/// Messages from AMI that may wait for the node loop. When they are full, AMI is not read.
const AMI_WAITING: usize = 1024;
/// Actions that may wait for the AMI task.
const ACTIONS_WAITING: usize = 1024;
/// Orders that may wait for the node loop.
const ORDERS_WAITING: usize = 256;
/// More calls to Redis than one batch needs, each with its own time limit: a writer that takes longer is stuck.
const CALLS_IN_A_WRITE: u32 = 20;

/// Why the daemon ended, other than on request.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings are not sufficient for a daemon.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings for Redis are unusable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The node loop ended.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// Another process on this machine has this node's name.
    #[error(
        "the name of node {node} is taken: {holder}. Stop that daemon, or give this one another node.name; run one \
            daemon per node"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
        /// The process that has it.
        holder: String,
    },
    /// The HTTP API cannot be started.
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// The system refused signal handlers.
    #[error("cannot install signal handlers: {0}")]
    Signals(std::io::Error),
}

/// Runs one node until SIGTERM or SIGINT. On SIGHUP, reloads the settings that `reloader` reads. `log_dropped` is shown as
/// a metric.
///
/// # Errors
/// Unusable settings, or a node name that another daemon holds on this machine or has taken. An unavailable Redis or
/// Asterisk is no error, nor is a lease held by another machine: the daemon waits.
pub async fn run(settings: Settings, reloader: Reloader, log_dropped: Arc<AtomicU64>) -> Result<(), DaemonError> {
    // From here on, SIGHUP does not end the process.
    let hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let name = settings.node.name.clone();
    let mut generation = Generation::from_bits(random_bits());
    info!(node = %name, %generation, version = env!("CARGO_PKG_VERSION"), ami = %settings.ami.address,
        redis = %settings.redis.url, "starting");

    let clock = Clock::start();
    // Held until the end of this function: the end of the daemon.
    let claim = name_lock::claim(&settings, generation, clock).await.inspect_err(|error| {
        warn!(node = %name, reason = %error, "ended");
        systemd::status(&format!("ended: {error}"));
    })?;
    let mut tasks = JoinSet::new();
    let (metrics, page) = observability::metrics::Metrics::new(clock);
    let (status, seen) = watch::channel(observability::status::DaemonStatus::new());
    let (told, live_settings) = watch::channel(LiveSettings::of(&settings));
    let stop = listen_to_signals(&mut tasks)?;
    let counts = Arc::default();
    let gauges = observability::gauges::Gauges {
        status: seen,
        ami: Arc::clone(&counts),
        clock,
        lease: settings.placement.lease,
        settings: live_settings.clone(),
        log_dropped,
        runtime_dir: runtime_dir(&settings),
    };
    serve_agent_checks(&settings, live_settings.clone(), gauges.status.clone(), clock, &mut tasks);
    let observer = Arc::new(login_intake::ApiObserver { node: name.clone(), metrics: metrics.clone() });
    api::start(&settings, live_settings.clone(), observer)?;
    serve_http(&settings, page, gauges, &mut tasks);
    tasks.spawn(reload::Reload { settings: settings.clone(), reloader, told }.run(hangup));
    let process =
        Process { settings, holder: claim.holder.clone(), clock, metrics, counts, status, live_settings, stop };
    let result = loop {
        match process.live(generation).await {
            Err(DaemonError::Loop(LoopError::StoodStill { stood_ms, .. })) => {
                generation = Generation::from_bits(random_bits());
                warn!(node = %name, stood_ms, %generation, "the daemon was suspended for longer than its lease: \
                    unstarted logins go to other nodes; starting a new generation");
            }
            result => break result,
        }
    };
    tasks.shutdown().await;
    match &result {
        Ok(()) => info!(node = %name, "stopped"),
        Err(error) => {
            warn!(node = %name, reason = %error, "ended");
            systemd::status(&format!("ended: {error}"));
        }
    }
    result
}

/// The part of the daemon that outlives a generation.
#[derive(Debug)]
struct Process {
    settings: Settings,
    holder: String,
    clock: Clock,
    metrics: observability::metrics::Metrics,
    counts: Arc<ami_client::Counts>,
    status: watch::Sender<observability::status::DaemonStatus>,
    live_settings: watch::Receiver<LiveSettings>,
    stop: watch::Receiver<Option<&'static str>>,
}

impl Process {
    /// Runs one generation, from the first connection to the last batch.
    async fn live(&self, generation: Generation) -> Result<(), DaemonError> {
        let (settings, clock, metrics) = (&self.settings, self.clock, self.metrics.clone());
        let (login, contacts_login) = (settings.require_ami()?, settings.contacts_login()?);
        let name = settings.node.name.clone();
        self.status.send_replace(observability::status::DaemonStatus::new());
        let mut tasks = JoinSet::new();
        let (to_ami, ami_orders) = mpsc::channel(ACTIONS_WAITING);
        let (ami_told, from_ami) = mpsc::channel(AMI_WAITING);
        let (batches, batch_inputs) = mpsc::channel(1);
        let (done_told, done) = mpsc::channel(1);
        let (orders_told, orders) = mpsc::channel(ORDERS_WAITING);
        let (open, open_ears) = watch::channel(false);

        let link = link_settings(settings, login, EventMask::DAEMON, generation);
        let mut ami = ami_client::Ami::new(name.clone(), settings.ami.clone(), link, clock, "main");
        ami.counts = Arc::clone(&self.counts);
        ami.renewed = Some(ami_client::Renewed {
            live_settings: self.live_settings.clone(),
            login: |live_settings| live_settings.ami_login.clone(),
        });
        tasks.spawn(ami.run(ami_orders, ami_told));

        let (registry, holder, live_settings) =
            (Registry::new(settings)?, self.holder.clone(), self.live_settings.clone());
        let writer =
            registry_writer::RegistryWriter::new(registry, live_settings, generation, holder, metrics.clone(), clock);
        tasks.spawn(writer.run(batch_inputs, done_told));

        let intake_open = open_ears.clone();
        let fetcher = order_fetcher::OrderFetcher {
            registry: Registry::new(settings)?,
            node: name.clone(),
            generation,
            fetches: FetchSequence::default(),
            poll: settings.placement.poll,
            clock,
            metrics: metrics.clone(),
            settings: self.live_settings.clone(),
            junk: LogThrottle::default(),
        };
        tasks.spawn(fetcher.run(orders_told, open_ears.clone()));
        look_for_contacts(settings, contacts_login, &self.live_settings, open_ears, (generation, clock), &mut tasks)?;
        take_logins(settings, self.live_settings.clone(), clock, metrics.clone(), intake_open, &mut tasks)?;

        keep_alive(settings, generation, clock, metrics.clone(), self.status.subscribe(), &mut tasks)?;
        let (ring, timeouts) = (self.live_settings.borrow().ring.clone(), settings.placement.timeouts());
        let mut node = Node::new(name.clone(), generation, ring, timeouts, clock.now());
        node.roster = Roster::new(settings.placement.case, settings.max_phones());
        let outputs = node_loop::Outputs { ami: to_ami, batches, open, status: self.status.clone() };
        let (settings_ears, stop) = (self.live_settings.clone(), self.stop.clone());
        let inputs = node_loop::Inputs { ami: from_ami, orders, done, settings: settings_ears, stop };
        let longest_write = (settings.redis.connect_timeout + settings.redis.response_timeout) * CALLS_IN_A_WRITE;
        let node_loop = node_loop::NodeLoop::new(name, node, clock, outputs, metrics, (longest_write, timeouts.lease));
        let result = node_loop.run(inputs, settings.placement.heartbeat).await;
        tasks.shutdown().await;
        Ok(result?)
    }
}

/// Starts the task that asks for contact details, if there is a user for it.
fn look_for_contacts(
    settings: &Settings,
    login: Option<AmiLogin>,
    live_settings: &watch::Receiver<LiveSettings>,
    open: watch::Receiver<bool>,
    (generation, clock): (Generation, Clock),
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    let Some(login) = login else { return Ok(()) };
    let link = link_settings(settings, login, EventMask::SYSTEM, generation);
    let renewed = ami_client::Renewed {
        live_settings: live_settings.clone(),
        login: |live_settings| live_settings.contacts_login.clone(),
    };
    let contacts = contacts::Contacts::new(settings, Registry::new(settings)?, link, renewed, generation, clock);
    tasks.spawn(contacts.run(open));
    Ok(())
}

/// Starts the task that reads the shared inbox.
fn take_logins(
    settings: &Settings,
    live_settings: watch::Receiver<LiveSettings>,
    clock: Clock,
    metrics: observability::metrics::Metrics,
    open: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    let (registry, node) = (Registry::new(settings)?, settings.node.name.clone());
    let (poll, junk) = (settings.placement.poll, LogThrottle::default());
    let intake = login_intake::LoginIntake { registry, node: node.clone(), clock, metrics, junk };
    tasks.spawn(inbox_reader::InboxReader { intake, node, poll, clock, settings: live_settings }.run(open));
    Ok(())
}

/// Starts the task that watches for an Asterisk that stays away, if the settings name a command.
fn keep_alive(
    settings: &Settings,
    generation: Generation,
    clock: Clock,
    metrics: observability::metrics::Metrics,
    status: watch::Receiver<observability::status::DaemonStatus>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RegistryError> {
    if settings.keepalive.command.is_empty() {
        return Ok(());
    }
    let registry = Registry::new(settings)?;
    let (settings, node) = (settings.keepalive.clone(), settings.node.name.clone());
    tasks.spawn(keepalive::Keepalive { settings, registry, node, generation, clock, metrics }.run(status));
    Ok(())
}

/// Reports when the daemon is to stop, and by which signal.
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
fn serve_http(settings: &Settings, mut page: Page, gauges: observability::gauges::Gauges, tasks: &mut JoinSet<()>) {
    let Some(address) = settings.http.listen else { return };
    let (status, clock, lease) = (gauges.status.clone(), gauges.clock, gauges.lease);
    page.register_collector(Box::new(gauges));
    let shown = observability::http::Shown { page: Arc::new(page), status, clock, lease };
    tasks.spawn(observability::http::run(settings.node.name.clone(), address, shown));
}

/// Starts the task that answers HAProxy, if the settings name an address.
fn serve_agent_checks(
    settings: &Settings,
    live_settings: watch::Receiver<LiveSettings>,
    status: watch::Receiver<observability::status::DaemonStatus>,
    clock: Clock,
    tasks: &mut JoinSet<()>,
) {
    let Some(address) = settings.agent_check.listen else { return };
    let (node, lease) = (settings.node.name.clone(), settings.placement.lease);
    let shown = observability::agent_check::Shown { status, settings: live_settings, clock, lease };
    tasks.spawn(observability::agent_check::AgentCheck { node, address, shown }.run());
}
