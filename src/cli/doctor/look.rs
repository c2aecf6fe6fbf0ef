//! Collects facts from the configuration, files and Redis. Owns what is read, and the finding if it cannot be read. Must
//! never judge the facts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::drift::Side;
use super::files::{Holds, Lying};
use super::finding::{Finding, Level};
use super::manager::Role;
use super::manager_conf::ManagerConf;
use super::redis::Stranger;
use super::{cluster, compare, redis, registry};
use crate::config::Settings;
use crate::ids::NodeName;
use crate::node::Live;
use crate::node::roster::PhoneState;
use crate::registry::view::{Parsed, SessionRow, SessionState, Which};
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::wall_ms;

/// The environment variable with the URL of a user who may read Redis's settings.
const ADMIN: &str = "EVENRING_REDIS_ADMIN_URL";
/// The daemon repairs drift with its second heartbeat; this long after it, Redis has the repair.
pub(super) const REPAIRED_WITHIN: Duration = Duration::from_millis(500);

pub(super) fn config(settings: &Settings) -> Vec<Finding> {
    let place = settings
        .files
        .settings
        .as_ref()
        .map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
    let fix = format!("change it in {place}; `evenring config check` shows it as well");
    let mut findings: Vec<Finding> = settings
        .smells()
        .iter()
        .map(|smell| Finding::warning("config", smell, fix.clone()).code("config.unwise"))
        .collect();
    findings.extend(
        settings.notes().iter().map(|note| Finding::note("config", note, fix.clone()).code("config.unencrypted")),
    );
    findings.extend(
        settings
            .ami
            .secret_problems()
            .into_iter()
            .map(|why| Finding::failure("config", why, fix.clone()).code("config.secret")),
    );
    if settings.ring.at_once < settings.ring.burst {
        let text =
            format!("ring.at_once ({}) is smaller than ring.burst ({})", settings.ring.at_once, settings.ring.burst);
        findings.push(
            Finding::note("config", text, "ring.at_once limits each burst: raise it, or lower ring.burst")
                .code("config.burst"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("config", place));
    }
    findings
}

/// `manager.conf` with its includes, or why it cannot be read.
#[derive(Debug)]
pub(super) struct Conf {
    read: Result<ManagerConf, String>,
    files: Vec<PathBuf>,
}

impl Conf {
    pub(super) fn judge(&self, role: Role, user: &str, proven: Option<&BTreeSet<String>>) -> Vec<Finding> {
        match &self.read {
            Ok(conf) => conf.judge(role, user, proven),
            Err(why) => {
                vec![Finding::note(
                "ami.manager-conf",
                format!("cannot check writetimeout, eventfilter and permit of [{user}]: {why}"),
                "run doctor as a user who may read manager.conf, name the file with --manager-conf, or compare it \
                    with docs/SECURITY.md",
            )
            .code("ami.manager-conf.unchecked")]
            }
        }
    }
}

pub(super) fn manager_conf(path: &Path) -> Conf {
    let mut conf = ManagerConf::default();
    let mut files = vec![path.to_owned()];
    match fs::read(path) {
        Ok(bytes) => conf.read(&String::from_utf8_lossy(&bytes)),
        Err(error) => return Conf { read: Err(format!("{}: {error}", path.display())), files: Vec::new() },
    }
    let base = path.parent().unwrap_or(Path::new("/"));
    // One level, as in Asterisk's own sample (manager.d/*.conf).
    for pattern in std::mem::take(&mut conf.includes) {
        let pattern = base.join(pattern);
        let mut found = match (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) {
            (Some(dir), Some(name)) if name.starts_with('*') => with_ending(dir, name.trim_start_matches('*')),
            _ => vec![pattern],
        };
        found.sort();
        for file in found {
            if let Ok(bytes) = fs::read(&file) {
                let text = String::from_utf8_lossy(&bytes);
                conf.read(&text);
                // Debian's manager.d/README.conf is for everybody
                if ManagerConf::holds_secret(&text) {
                    files.push(file);
                }
            }
        }
    }
    Conf { read: Ok(conf), files }
}

fn with_ending(dir: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

pub(super) fn files(settings: &Settings, conf: &Conf) -> Vec<Lying> {
    let own = if settings.files.has_secret { Holds::SettingsWithSecret } else { Holds::Settings };
    let settings_file = settings.files.settings.iter().map(|path| (path, own));
    let secrets = settings.files.secrets.iter().map(|path| (path, Holds::Secret));
    let managers = conf.files.iter().map(|path| (path, Holds::ManagerConf));
    let all = settings_file.chain(secrets).chain(managers);
    all.filter_map(|(path, holds)| {
        let mode = fs::metadata(path).ok()?.permissions().mode();
        Some(Lying { path: path.clone(), mode, holds })
    })
    .collect()
}

/// A Redis that responds, and the nodes that are alive in it.
#[derive(Debug)]
pub(super) struct View {
    registry: Registry,
    living: Vec<String>,
}

impl View {
    pub(super) fn has_node(&self, name: &str) -> bool {
        self.living.iter().any(|living| living == name)
    }

    /// Returns what Redis has recorded about one node. A queued session has no channel yet.
    pub(super) async fn side(&mut self, node: &str) -> Result<Side, RegistryError> {
        let sessions = self.registry.sessions(Which::Open).await?.into_iter();
        let rung = |row: SessionRow| match row.state {
            // Its channel is not one that a daemon has made.
            Parsed::Known(_) if row.hold => None,
            Parsed::Known(SessionState::Live) => Some((row.session, Live::Yes)),
            Parsed::Known(SessionState::Ringing) => Some((row.session, Live::NotYet)),
            Parsed::Known(
                SessionState::Placed
                | SessionState::Held
                | SessionState::Queued
                | SessionState::Ended
                | SessionState::Failed,
            )
            | Parsed::Other(_) => None,
        };
        let sessions = sessions.filter(|row| row.node == node).filter_map(rung).collect();
        let phones = self.registry.phone_list(None).await?.into_iter();
        let registered = phones.filter(|row| row.node == node && row.state == PhoneState::Registered);
        Ok(Side { sessions, registered: registered.map(|row| row.extension).collect() })
    }
}

/// What was seen of Redis and of the cluster in it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) view: Option<View>,
    /// Of Redis itself: the cause of what is wrong with the nodes, if something is.
    pub(super) redis: Vec<Finding>,
    pub(super) cluster: Vec<Finding>,
}

impl Seen {
    /// Redis refuses logins, and what the nodes write.
    pub(super) fn redis_fails(&self) -> bool {
        fails(&self.redis)
    }
}

fn fails(redis: &[Finding]) -> bool {
    let causes = ["redis", "redis.write", "redis.acl.missing"];
    redis.iter().any(|finding| finding.level == Level::Failure && causes.contains(&finding.code))
}

/// Checks Redis and the cluster in it.
pub(super) async fn cluster(settings: &Settings) -> Seen {
    let mut seen = Seen::default();
    let mut registry = match registry(settings) {
        Ok(registry) => registry,
        Err(why) => {
            seen.redis.push(Finding::failure("redis", why, "correct redis.url or redis.ca_file"));
            return seen;
        }
    };
    match look(settings, &mut registry, &mut seen).await {
        Ok(living) => seen.view = Some(View { registry, living }),
        // That a right is missing has been said.
        Err(RegistryError::Denied { .. } | RegistryError::Lacks { .. }) if seen.redis_fails() => {}
        Err(error) => {
            let fix = match error {
                RegistryError::Denied { .. } | RegistryError::Lacks { .. } => {
                    "give the Redis user the ACL line in docs/SECURITY.md, and the daemon its password"
                }
                RegistryError::Unreachable { .. } => {
                    "start Redis (`systemctl start redis-server`), and check redis.url"
                }
                RegistryError::NotNow { .. } => "wait a few seconds and try again",
                RegistryError::Unfit { advice, .. } | RegistryError::NotWritable { advice, .. } => advice,
                RegistryError::Settings(_)
                | RegistryError::Fenced
                | RegistryError::Superseded
                | RegistryError::Forgotten
                | RegistryError::Script { .. } => "see Redis's log",
            };
            // An error may end with the advice, which is said once.
            let text = error.to_string();
            let text = text.strip_suffix(fix).map_or(text.as_str(), |text| text.trim_end_matches("; "));
            seen.redis.push(Finding::failure("redis", text, fix));
        }
    }
    seen
}

async fn look(settings: &Settings, registry: &mut Registry, seen: &mut Seen) -> Result<Vec<String>, RegistryError> {
    let rights = registry.rights().await?;
    seen.redis.push(Finding::ok("redis", format!("{} responds", settings.redis.url)));
    // What is missing in the rights is a finding of its own.
    let refused = match registry.try_login().await {
        Ok(()) | Err(RegistryError::Lacks { .. }) => None,
        Err(RegistryError::NotWritable { url, why, advice }) => {
            Some((format!("Redis at {url} accepts no writes: {why}"), advice))
        }
        Err(error) => return Err(error),
    };
    let (ours, theirs) = (wall_ms(), registry.now_ms().await?);
    let clock_ahead_ms = i64::try_from(i128::from(theirs) - i128::from(ours)).unwrap_or(i64::MAX);
    let aliases = registry.aliases().await;
    let server = match admin(settings) {
        None => Ok(registry.server().await?),
        Some(Ok(mut admin)) => match admin.server().await {
            Ok(Some(server)) => Ok(Some(server)),
            Ok(None) => Err(format!("the user of {ADMIN} may not read Redis's settings either")),
            Err(error) => Err(format!("{ADMIN}: {error}")),
        },
        Some(Err(why)) => Err(format!("{ADMIN}: {why}")),
    };
    let sentinel = settings.redis.sentinel.is_some();
    seen.redis.extend(redis::judge(&redis::Facts {
        rights,
        server,
        refused,
        stranger: stranger(settings).await,
        local: settings.redis.is_local(),
        sentinels: registry.sentinels().await,
        clock_ahead_ms,
        aliases: aliases.as_ref().map_or(0, Vec::len),
        sentinel,
    }));
    let redis_is_well = !seen.redis_fails();

    let aliases = aliases?;
    let nodes = registry.nodes().await?;
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let living = nodes.iter().filter(|node| node.lease_ms > 0).map(|node| node.name.clone()).collect();
    let is_node = settings.ami_login().is_ok_and(|login| login.is_some());
    let facts = cluster::Facts {
        own: is_node.then(|| NodeName::to_string(&settings.node.name)),
        waiting: registry.waiting(&names).await?,
        phones: registry.phone_list(None).await?,
        sessions: registry.sessions(Which::Open).await?,
        aliases,
        nodes,
        placement: settings.placement.clone(),
        ring_timeout: settings.ring.timeout,
        now_ms: registry.now_ms().await?,
        redis_is_well,
    };
    seen.cluster.extend(cluster::judge(&facts));
    let (told, rivals, now_ms) = (registry.told_settings().await?, registry.rivals().await?, facts.now_ms);
    seen.cluster.extend(compare::judge(&compare::Facts { nodes: facts.nodes, told, rivals, now_ms }));
    Ok(living)
}

/// How Redis receives somebody without a login.
async fn stranger(settings: &Settings) -> Stranger {
    let mut nobody = settings.clone();
    nobody.redis = settings.redis.without_login();
    let mut registry = match registry(&nobody) {
        Ok(registry) => registry,
        Err(why) => return Stranger::Unknown(why),
    };
    match registry.now_ms().await {
        Ok(_) => Stranger::In,
        Err(RegistryError::Denied { .. }) => Stranger::Out,
        Err(error) => Stranger::Unknown(error.to_string()),
    }
}

/// Opens Redis as the user who may read its settings, if one was named.
fn admin(settings: &Settings) -> Option<Result<Registry, String>> {
    let url = std::env::var(ADMIN).ok().filter(|url| !url.is_empty())?;
    Some(settings.redis.with_url(&url).map_err(str::to_owned).and_then(|redis| {
        let mut as_admin = settings.clone();
        as_admin.redis = redis;
        registry(&as_admin)
    }))
}
