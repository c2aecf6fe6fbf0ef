//! Checked settings: what an operator can choose, its defaults and its limits.
//!
//! Owns the settings file, the environment and secret files, all read only at load time. Must never use a module above it
//! (only `crate::ids`), or show a secret (P13).
//!
//! Layers, highest first: `EVENRING__SECTION__KEY` in the environment, the TOML file, the defaults.

mod api;
mod changes;
mod dump;
mod keepalive;
mod listen;
mod live;
mod net;
mod reach;
mod redis;
mod redis_url;
mod secret;
mod sections;
mod sentinel;
mod source;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

pub use self::api::ApiSettings;
pub use self::changes::{Change, Changes};
pub use self::keepalive::KeepaliveSettings;
pub use self::listen::ListenSettings;
pub use self::live::LiveSettings;
pub use self::net::{AmiAddress, Namespace, Transport};
pub use self::reach::{HostAddress, SipTransport, SipUri};
pub use self::secret::SECRET_BYTES_MAX;
pub use self::sections::check_filter;
pub use self::sentinel::SentinelSettings;
pub use self::source::{span, span_text};
use crate::ids::{Campaign, Case, NodeName};
use crate::ring_policy::{RingSettings, Timeouts};

/// The file that is read if no other is named. It may be missing.
pub const DEFAULT_PATH: &str = "/etc/evenring/config.toml";

/// Everything that is wrong, one problem a line: what, where, what to do. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<String>,
}

/// All settings, checked. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[node]`: this node.
    pub node: NodeSettings,
    /// Where the lock on the node's name lies: `node.lock_dir`, or what systemd has made for the unit.
    pub lock_dir: Option<PathBuf>,
    /// `[ami]`: the way to Asterisk.
    pub ami: AmiSettings,
    /// `[redis]`: the way to the shared Redis.
    pub redis: RedisSettings,
    /// `[placement]`: leases, tries and waits.
    pub placement: PlacementSettings,
    /// `[ring]`: how a phone is rung.
    pub ring: RingSettings,
    /// `[http]`: health checks and metrics.
    pub http: ListenSettings,
    /// `[agent_check]`: HAProxy's agent checks.
    pub agent_check: ListenSettings,
    /// `[api]`: the HTTP API.
    pub api: ApiSettings,
    /// `[keepalive]`: what is done for an Asterisk that stays away.
    pub keepalive: KeepaliveSettings,
    /// `[log]`: what is logged, and how.
    pub log: LogSettings,
    /// `[doctor]`: what its findings mean here.
    pub doctor: DoctorSettings,
    /// The files that all this was read from.
    pub files: Files,
    warnings: Vec<String>,
    notes: Vec<String>,
    hidden: Vec<String>,
    open_files: Vec<String>,
}

/// Where settings stand.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The settings file, if there is one.
    pub settings: Option<PathBuf>,
    /// Whether a secret stands in it.
    pub has_secret: bool,
    /// Files with a secret each.
    pub secrets: Vec<PathBuf>,
}

/// This node.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name; by default the first label of the host name.
    pub name: NodeName,
    /// Its share of the logins, 1 to 1000.
    pub weight: u32,
    /// Maximum number of local agents; `None` for no cap.
    pub max_agents: Option<u32>,
    /// Campaigns it takes agents of; empty is all.
    pub campaigns: Vec<Campaign>,
    /// Where carriers and proxies send its calls.
    pub sip: Option<SipUri>,
    /// The host under which others reach it.
    pub address: Option<HostAddress>,
}

/// The way to Asterisk. The login is had from [`Settings::require_ami`].
#[derive(Debug, Clone)]
pub struct AmiSettings {
    /// Where the manager interface listens.
    pub address: AmiAddress,
    /// Certificates to trust instead of the built-in ones, PEM. Only with TLS.
    pub ca_file: Option<PathBuf>,
    /// The name in the certificate, if it is not the address's host. Only with TLS.
    pub server_name: Option<String>,
    /// For the TCP and TLS connection.
    pub connect_timeout: Duration,
    /// From the connection to the accepted login.
    pub login_timeout: Duration,
    /// From an action to its answer.
    pub action_timeout: Duration,
    /// A ping is sent after this long without a message.
    pub ping_interval: Duration,
    /// From a ping to its answer; then the connection is given up.
    pub ping_timeout: Duration,
    /// The most extensions that a node has; more are left out.
    pub max_phones: u32,
    /// The most items of Asterisk's lists of devices that are kept; more are left out.
    pub max_devices: u32,
    /// How often the second user of [`Settings::contacts_login`] asks for contact details.
    pub contacts_interval: Duration,
    user: AmiUser,
    contacts_user: AmiUser,
}

impl AmiSettings {
    /// Secret files and credentials that are named but unusable, whoever asks. Only commands that need the login fail
    /// because of them.
    pub fn secret_problems(&self) -> Vec<String> {
        let users = [&self.user, &self.contacts_user].into_iter();
        let wrong = users.filter_map(|user| match &user.secret {
            Err(secret::Unusable::Wrong(why)) => Some(why.clone()),
            Ok(_) | Err(secret::Unusable::Hidden(_)) => None,
        });
        wrong.collect()
    }
}

/// A name and a secret that are known to be there and fit into AMI headers.
#[derive(Debug, Clone)]
pub struct AmiLogin {
    /// The manager user.
    pub username: String,
    /// Its secret.
    pub secret: SecretString,
}

/// The configured part of a login; an incomplete login is an error only for commands that need it.
#[derive(Debug, Clone)]
struct AmiUser {
    username: Option<String>,
    secret: secret::Found,
}

/// The way to the shared Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `unix://` or `redis+sentinel://`, with the credentials already taken out.
    pub url: String,
    /// The same in parts, if Redis is behind Sentinel.
    pub sentinel: Option<SentinelSettings>,
    /// The ACL user, from `redis.username` or the URL.
    pub username: Option<String>,
    /// The password, from `redis.password`, `redis.password_file`, the systemd credential or the URL.
    pub password: Option<SecretString>,
    /// Certificates to trust instead of the built-in ones, PEM. Only with TLS.
    pub ca_file: Option<PathBuf>,
    /// What all keys start with.
    pub namespace: Namespace,
    /// For a new connection.
    pub connect_timeout: Duration,
    /// From a command to its answer.
    pub response_timeout: Duration,
}

/// Leases, tries and waits.
#[derive(Debug, Clone)]
pub struct PlacementSettings {
    /// What makes an alias of an extension: 1 to 8 characters of the id alphabet, in the one spelling of `case`.
    pub alias_suffix: String,
    /// Whether capitals make another alias or extension.
    pub case: Case,
    /// How long after its last heartbeat a node counts as alive; at least three heartbeats.
    pub lease: Duration,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Nodes tried for one login, 1 to 10.
    pub tries: u32,
    /// An older order is not rung.
    pub order_expiry: Duration,
    /// How long a session stays readable after its end.
    pub session_keep: Duration,
    /// Between two looks into the queues when no wake-up came.
    pub poll: Duration,
    /// What becomes of the agents of a node that is lost.
    pub rejoin: Rejoin,
}

impl PlacementSettings {
    /// What a node may not be late with.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts { lease: self.lease, order_expiry: self.order_expiry }
    }
}

/// What becomes of the agents of a node that is lost (P9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rejoin {
    /// They log in again.
    Manual,
    /// Their phones are rung from other nodes.
    Auto,
}

impl Rejoin {
    /// As it stands in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A `tracing` filter such as `info`, or with a level for a module, as the sample shows; checked.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, the journal under systemd, else JSON lines.
    Auto,
    /// Readable text.
    Text,
    /// One JSON object a line.
    Json,
    /// The systemd journal's own protocol.
    Journald,
}

impl LogFormat {
    /// As it stands in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
            Self::Journald => "journald",
        }
    }
}

/// What the findings of `evenring doctor` mean here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoctorSettings {
    /// The codes of findings whose risk is accepted. Only the doctor knows which codes there are.
    pub accept: Vec<String>,
}

impl Settings {
    /// Reads the file at `path`, or at [`DEFAULT_PATH`] if there is one, and `env` above it (see [`process_env`]).
    ///
    /// # Errors
    /// All problems: a missing file, invalid TOML, unknown keys, values out of bounds, contradictions, and a password of
    /// Redis that the daemon has and this user may not read.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let settings = Self::look(path, env)?;
        if settings.hidden.is_empty() { Ok(settings) } else { Err(ConfigError { problems: settings.hidden }) }
    }

    /// The same for those who only look at the settings and connect to nothing: a password that this user may not read is
    /// no problem.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn look(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::load_or_default(path, Path::new(DEFAULT_PATH), Path::new("/"), env)
    }

    /// `root` is where the daemon's unit lies.
    fn load_or_default(
        path: Option<&Path>,
        default: &Path,
        root: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(default);
        let text = match read(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => {
                let problem = format!("cannot read {}: {error}; check the path and its permissions", file.display());
                return Err(ConfigError { problems: vec![problem] });
            }
        };
        let env: BTreeMap<String, String> = env.collect();
        let folder = env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credentials = secret::Credentials::of(folder, file == default, root);
        // systemd may name several, with colons between them.
        let runtime = env.get("RUNTIME_DIRECTORY").and_then(|dirs| dirs.split(':').find(|dir| dir.starts_with('/')));
        let runtime = runtime.map(PathBuf::from);
        let mut reader = source::Reader::new(file, &text, env.into_iter());
        let settings = sections::settings(&mut reader, &credentials);
        let world_readable = std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
        if let (Some(key), true) = (reader.inline_secrets.first(), world_readable) {
            let shown = file.display();
            let advice = format!("use {key}_file, or chmod 0640 {shown} with the daemon's group");
            reader.open_files.push(format!("{key} is in {shown}, which is world-readable: {advice}"));
        }
        match settings {
            Some(mut settings) if reader.problems.is_empty() => {
                settings.lock_dir = settings.lock_dir.or(runtime);
                settings.warnings.append(&mut reader.warnings);
                settings.notes = reader.notes;
                settings.hidden = reader.hidden;
                settings.open_files = reader.open_files;
                settings.files = Files {
                    settings: file.exists().then(|| file.to_owned()),
                    has_secret: !reader.inline_secrets.is_empty(),
                    secrets: reader.secret_files,
                };
                Ok(settings)
            }
            Some(_) | None => Err(ConfigError { problems: reader.problems }),
        }
    }

    /// How many phones of one Asterisk the daemon keeps at most.
    pub fn max_phones(&self) -> usize {
        usize::try_from(self.ami.max_phones).unwrap_or(usize::MAX)
    }

    /// The login for Asterisk, which only the daemon needs.
    ///
    /// # Errors
    /// If the name or the secret was not given, or the secret's file cannot be read.
    pub fn require_ami(&self) -> Result<AmiLogin, ConfigError> {
        let missing = |what: &str| ConfigError { problems: vec![what.to_owned()] };
        self.ami_login()?.ok_or_else(|| {
            missing("ami.username is not set: the daemon needs an AMI user of its Asterisk (see manager.conf)")
        })
    }

    /// The same; `None` if no user is named.
    ///
    /// # Errors
    /// If it has a name but no secret, or the secret's file cannot be read.
    pub fn ami_login(&self) -> Result<Option<AmiLogin>, ConfigError> {
        login(&self.ami.user, "ami")
    }

    /// The second manager user, which only asks for contact details; `None` if there is none.
    ///
    /// # Errors
    /// If it has a name but no secret, or the secret's file cannot be read.
    pub fn contacts_login(&self) -> Result<Option<AmiLogin>, ConfigError> {
        login(&self.ami.contacts_user, "ami.contacts")
    }

    /// What the daemon still needs for its logins at Asterisk. A secret that this user may not read is not missing.
    pub fn missing_logins(&self) -> Vec<String> {
        let hidden = |user: &AmiUser| matches!(user.secret, Err(secret::Unusable::Hidden(_)));
        let main =
            if hidden(&self.ami.user) && self.ami.user.username.is_some() { None } else { self.require_ami().err() };
        let contacts = if hidden(&self.ami.contacts_user) { None } else { self.contacts_login().err() };
        main.into_iter().chain(contacts).flat_map(|error| error.problems).collect()
    }

    /// What is legal but unwise, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        [&self.warnings[..], &self.open_files].concat()
    }

    /// The same without the modes of files.
    pub fn smells(&self) -> &[String] {
        &self.warnings
    }

    /// What is worth knowing about them, and no reason to change anything; one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// All settings in effect as a TOML file, secrets as `***`. Absent settings are comments.
    pub fn dump(&self) -> String {
        dump::dump(self)
    }
}

/// The environment of this process, for [`Settings::load`]. Values that are not UTF-8 are marked, and
/// refused there if they belong to evenring.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// A name without a secret is an error for commands that need the login; a secret without a name is ignored.
fn login(user: &AmiUser, section: &str) -> Result<Option<AmiLogin>, ConfigError> {
    let fail = |problem: String| ConfigError { problems: vec![problem] };
    let Some(username) = user.username.clone() else { return Ok(None) };
    let credential = section.replace('.', "-");
    match user.secret.clone().map_err(|why| fail(why.to_string()))? {
        Some(secret) => Ok(Some(AmiLogin { username, secret })),
        None => Err(fail(format!(
            "{section}.username is set, but no secret: write it into /etc/evenring/{credential}-secret, which the unit \
             passes on, or set {section}.secret_file or {section}.secret"
        ))),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}
