//! `evenring doctor`: checks this node and the cluster, and says what to do about each problem. Owns the order of the
//! checks and how findings are shown. Must never change anything. The modules:
//!
//! | file | purpose |
//! |---|---|
//! | `look` | collects facts from files and Redis |
//! | `asterisk` | collects facts from this node's Asterisk over AMI |
//! | `manager`, `manager_conf` | the manager user's rights, time limit, filters |
//! | `redis`, `cluster`, `files` | Redis itself; nodes, phones, aliases, queues, sessions; modes of files |
//! | `compare` | what must be the same on all nodes |
//! | `daemon` | whether this node's daemon says that it is ready |
//! | `drift` | differences between Redis and Asterisk |

mod asterisk;
mod cluster;
mod compare;
mod daemon;
mod drift;
mod files;
mod finding;
mod look;
mod manager;
mod manager_conf;
mod redis;

use std::path::PathBuf;

use clap::Args;

use super::{CliError, DONE, FAILED, USAGE, output};
use crate::config::{AmiLogin, ConfigError, Settings};
use crate::daemon::{DoctorReport, runtime_dir};
use crate::registry::Registry;
use asterisk::{ManagerProbe, with_manager};
use drift::{Drift, Side};
use finding::{Finding, Level};
use look::{Conf, View};
use manager::Role;

#[derive(Debug, Args)]
#[command(after_help = "\
Run it on a node with its daemon's configuration, as a user who may read that file and
manager.conf. It logs in to Asterisk beside the daemon and sends one Originate to a channel
technology that does not exist, to check that the result is reported: no phone rings, and
Asterisk logs a warning. It writes one key into Redis, which ends by itself, because a full
Redis can still be read. The daemon's Redis user may not read Redis's own settings; to check
them too, name an admin: EVENRING_REDIS_ADMIN_URL=redis://USER:PASSWORD@HOST:PORT.

The worst finding stands first, and a cause before what follows from it. What is well is shown
with --verbose. Each finding ends with its code: doctor.accept in the settings names the codes
whose risk you accept.

With --json, a list of {check, code, level, finding, fix}; level is ok, accepted, note, warning or
failure.

Exit codes: 0 all is well, 1 there are warnings, 2 there are failures or the configuration is
unreadable.

Examples:
  evenring doctor
  evenring doctor --json | jq -r '.[] | select(.level == \"failure\") | .fix'")]
pub(super) struct DoctorArgs {
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Also leave the number of failures and warnings for the metrics of this node's daemon, which evenring-doctor.timer
    /// does.
    #[arg(long)]
    report: bool,
    /// Also show what is well, and what is accepted.
    #[arg(long, short)]
    verbose: bool,
    /// Path of Asterisk's manager.conf.
    #[arg(long, value_name = "FILE", default_value = "/etc/asterisk/manager.conf")]
    manager_conf: PathBuf,
}

pub(super) async fn run(settings: &Settings, args: &DoctorArgs) -> Result<u8, CliError> {
    let mut findings = look::config(settings);
    let conf = look::manager_conf(&args.manager_conf);
    findings.extend(files::judge(&look::files(settings, &conf)));
    let mut seen = look::cluster(settings).await;
    let managers = managers(settings, &conf, seen.view.take()).await;
    let known = daemon::Known {
        redis: seen.redis_fails(),
        asterisk: managers.iter().any(|finding| finding.code == "ami" && finding.level == Level::Failure),
    };
    findings.extend(seen.redis);
    findings.extend(managers);
    if settings.ami_login().is_ok_and(|login| login.is_some()) {
        findings.extend(daemon::ask(settings, known).await);
    }
    findings.extend(seen.cluster);
    finding::accept(&mut findings, &settings.doctor.accept);
    finding::sort(&mut findings);
    show(&findings, args);
    if args.report && !report(settings, &findings) {
        return Ok(USAGE);
    }
    Ok(match findings.iter().map(|finding| finding.level).max() {
        None | Some(Level::Ok | Level::Accepted | Level::Note) => DONE,
        Some(Level::Warning) => FAILED,
        Some(Level::Failure) => USAGE,
    })
}

/// Leaves the numbers where the daemon looks for them; false if that failed, which nobody would notice otherwise.
fn report(settings: &Settings, findings: &[Finding]) -> bool {
    let count = |level| findings.iter().filter(|finding| finding.level == level).map(|_| 1).sum();
    let report = DoctorReport { failures: count(Level::Failure), warnings: count(Level::Warning), at: 0.0 };
    let written = report.write(&runtime_dir(settings));
    if let Err(error) = &written {
        output::complain(&format!("cannot leave the report for the daemon's metrics: {error}"));
    }
    written.is_ok()
}

/// Checks both AMI users of this node, and compares its Asterisk with Redis.
async fn managers(settings: &Settings, conf: &Conf, view: Option<View>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match settings.ami_login() {
        Ok(Some(login)) => {
            let user = login.username.clone();
            let heard = with_manager(settings, login, async |probe: &mut ManagerProbe| {
                let heard = probe.rights(Role::Main).await?;
                let drift = match view {
                    Some(view) => drift(settings, probe, view).await?,
                    None => Vec::new(),
                };
                Ok((heard, drift))
            });
            match heard.await {
                Ok((heard, drift)) => {
                    findings.push(Finding::ok("ami", format!("{}: logged in as {user}", settings.ami.address)));
                    findings.extend(manager::judge(Role::Main, &user, &heard));
                    let proven = heard.commands.as_ref().ok().map(manager::write_classes);
                    findings.extend(conf.judge(Role::Main, &user, proven.as_ref()));
                    findings.extend(drift);
                }
                Err(why) => {
                    findings.push(no_manager(settings, &user, why));
                    findings.extend(conf.judge(Role::Main, &user, None));
                }
            }
        }
        Ok(None) => findings.push(
            Finding::note(
                "ami",
                "no AMI user is configured here: Asterisk was not checked",
                "run it on a node with its daemon's configuration (--config)",
            )
            .code("ami.unchecked"),
        ),
        Err(error) => findings.push(unusable(&error)),
    }
    match settings.contacts_login() {
        Ok(Some(login)) => findings.extend(contacts(settings, conf, login).await),
        Ok(None) => {}
        Err(error) => findings.push(unusable(&error)),
    }
    findings
}

async fn contacts(settings: &Settings, conf: &Conf, login: AmiLogin) -> Vec<Finding> {
    let user = login.username.clone();
    match with_manager(settings, login, async |probe: &mut ManagerProbe| probe.rights(Role::Contacts).await).await {
        Ok(heard) => {
            let mut findings = manager::judge(Role::Contacts, &user, &heard);
            // Reported for the main user already.
            findings.retain(|finding| finding.check != "ami.version");
            let proven = heard.commands.as_ref().ok().map(manager::write_classes);
            findings.extend(conf.judge(Role::Contacts, &user, proven.as_ref()));
            findings
        }
        Err(why) => vec![no_manager(settings, &user, why)],
    }
}

fn no_manager(settings: &Settings, user: &str, why: String) -> Finding {
    let fix = format!(
        "check that Asterisk is running, that manager.conf has `enabled = yes` and [{user}] with the right secret and \
         permit, without allowmultiplelogin = no, then `manager reload`; and check ami.address"
    );
    Finding::failure("ami", format!("{}: cannot log in as {user}: {why}", settings.ami.address), fix)
}

fn unusable(error: &ConfigError) -> Finding {
    Finding::failure(
        "ami",
        error.to_string(),
        "complete the AMI login in the configuration; see `evenring config \
        check`",
    )
}

/// Compares twice if the first comparison finds something: a report on its way is not drift.
async fn drift(settings: &Settings, probe: &mut ManagerProbe, mut view: View) -> Result<Vec<Finding>, asterisk::Lost> {
    let node = settings.node.name.as_str();
    let unseen = |why: &str| {
        let fix = "see the findings about ami, redis and nodes";
        let text = format!("Redis and the Asterisk of {node} were not compared: {why}");
        vec![Finding::note("drift", text, fix).code("drift.unchecked")]
    };
    if !view.has_node(node) {
        return Ok(unseen("this node is not registered and alive"));
    }
    let mut before: Option<Drift> = None;
    loop {
        let Some(asterisk) = probe.truth(settings).await? else {
            return Ok(unseen(
                "Asterisk did not return complete \
            lists",
            ));
        };
        let redis: Side = match view.side(node).await {
            Ok(side) => side,
            Err(error) => return Ok(unseen(&error.to_string())),
        };
        let now = Drift::between(&redis, &asterisk);
        let over = before.is_some() || now.is_empty();
        let lasting = before.map_or_else(|| now.clone(), |before| before.lasting(&now));
        if over {
            return Ok(lasting.findings(node, &redis));
        }
        before = Some(lasting);
        tokio::time::sleep(settings.placement.heartbeat * 2 + look::REPAIRED_WITHIN).await;
    }
}

fn show(findings: &[Finding], args: &DoctorArgs) {
    if args.json {
        output::json(&findings);
        return;
    }
    for Finding { check, code, level, finding, fix } in findings {
        let is_bad = !matches!(level, Level::Ok | Level::Accepted);
        if !is_bad && !args.verbose {
            continue;
        }
        let name = if is_bad { format!(" [{code}]") } else { String::new() };
        output::shown_out(&output::level(level.word()).then(&format!(" {check:<16} {finding}{name}")));
        if !fix.is_empty() && *level != Level::Accepted {
            output::line_out(&format!("{:<26}-> {fix}", ""));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (failures, warnings, accepted) = (count(Level::Failure), count(Level::Warning), count(Level::Accepted));
    // Nobody is told that all is well where not all was seen.
    let unseen: Vec<&str> = findings.iter().filter_map(|finding| finding.code.strip_suffix(".unchecked")).collect();
    let mut last = match (failures, warnings, unseen.is_empty()) {
        (0, 0, true) => "all is well".to_owned(),
        (0, 0, false) => format!("all is well, as far as it was checked; not checked: {}", unseen.join(", ")),
        (failures, warnings, _) => format!("failures: {failures}, warnings: {warnings}"),
    };
    if accepted > 0 {
        last.push_str(&format!("; accepted: {accepted}"));
    }
    output::line_out(&last);
}

/// Opens Redis for the checks.
fn registry(settings: &Settings) -> Result<Registry, String> {
    Registry::new(settings).map_err(|error| error.to_string())
}
