//! `evenring doctor`: what is wrong with this node and the cluster, and what to do about each. Owns the order of the looks
//! and how findings are shown. Must never change anything; what is good and what is not is said by the checks:
//!
//! | file | looks at |
//! |---|---|
//! | `look` | files, Redis: what there is |
//! | `asterisk` | the manager of this node's Asterisk: what it says |
//! | `manager`, `manager_conf` | the manager user's rights, time limit, filters |
//! | `redis`, `cluster`, `files` | Redis itself; nodes, phones, aliases, queues, sessions; modes of files |
//! | `drift` | where Redis and Asterisk disagree |

mod asterisk;
mod cluster;
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
use crate::registry::Registry;
use asterisk::{Talk, with_manager};
use drift::{Drift, Side};
use finding::{Finding, Level};
use look::{Conf, View};
use manager::Role;

#[derive(Debug, Args)]
#[command(after_help = "\
Best run on a node, with its daemon's configuration, as somebody who may read that and
manager.conf. It logs in to Asterisk beside the daemon and sends one Originate to a technology
that does not exist, to see whether its outcome is told: that rings nobody, and Asterisk logs a
warning. How Redis is set up, the daemon's own Redis user may not ask: name one who may in the
environment, EVENRING_REDIS_ADMIN_URL=redis://USER:PASSWORD@HOST:PORT.

With --json, a list of {check, level, finding, fix}; level is ok, note, warning or failure.

Exit codes: 0 all is well, 1 there are warnings, 2 there are failures (or no readable configuration).

Examples:
  evenring doctor
  evenring doctor --json | jq -r '.[] | select(.level == \"failure\") | .fix'")]
pub(super) struct DoctorArgs {
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Where Asterisk's manager.conf is.
    #[arg(long, value_name = "FILE", default_value = "/etc/asterisk/manager.conf")]
    manager_conf: PathBuf,
}

pub(super) async fn run(settings: &Settings, args: &DoctorArgs) -> Result<u8, CliError> {
    let mut findings = look::config(settings);
    let conf = look::manager_conf(&args.manager_conf);
    findings.extend(files::judge(&look::files(settings, &conf)));
    let (view, said) = look::cluster(settings).await;
    findings.extend(said);
    findings.extend(managers(settings, &conf, view).await);
    show(&findings, args);
    Ok(match findings.iter().map(|finding| finding.level).max() {
        None | Some(Level::Ok | Level::Note) => DONE,
        Some(Level::Warning) => FAILED,
        Some(Level::Failure) => USAGE,
    })
}

/// Both users of this node's Asterisk, and what it has.
async fn managers(settings: &Settings, conf: &Conf, view: Option<View>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match settings.ami_login() {
        Ok(Some(login)) => {
            let user = login.username.clone();
            let heard = with_manager(settings, login, async |talk: &mut Talk| {
                let heard = talk.rights(Role::Main).await?;
                let drift = match view {
                    Some(view) => drift(settings, talk, view).await?,
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
        Ok(None) => findings.push(Finding::note(
            "ami",
            "no manager user is configured here: Asterisk was not asked",
            "run it on a node, with its daemon's configuration (--config)",
        )),
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
    match with_manager(settings, login, async |talk: &mut Talk| talk.rights(Role::Contacts).await).await {
        Ok(heard) => {
            let mut findings = manager::judge(Role::Contacts, &user, &heard);
            // Said once already.
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
        "check that Asterisk runs, `enabled = yes` and [{user}] (secret, permit, not allowmultiplelogin = no) in \
         manager.conf, `manager reload`, and ami.address"
    );
    Finding::failure("ami", format!("{}: no login as {user}: {why}", settings.ami.address), fix)
}

fn unusable(error: &ConfigError) -> Finding {
    Finding::failure("ami", error.to_string(), "give the login in the configuration; see `evenring config check`")
}

/// Two looks, if the first one finds something: what is on its way is no drift.
async fn drift(settings: &Settings, talk: &mut Talk, mut view: View) -> Result<Vec<Finding>, asterisk::Lost> {
    let node = settings.node.name.as_str();
    let unseen = |why: &str| {
        let fix = "see the lines about ami, redis and nodes";
        vec![Finding::note("drift", format!("Redis and the Asterisk of {node} were not compared: {why}"), fix)]
    };
    if !view.has_node(node) {
        return Ok(unseen("this node is not registered and alive"));
    }
    let mut before: Option<Drift> = None;
    loop {
        let Some(asterisk) = talk.truth(settings).await? else { return Ok(unseen("Asterisk did not say all it has")) };
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
        tokio::time::sleep(settings.placement.heartbeat * 2 + look::MENDED_WITHIN).await;
    }
}

fn show(findings: &[Finding], args: &DoctorArgs) {
    if args.json {
        output::json(&findings);
        return;
    }
    for Finding { check, level, finding, fix } in findings {
        output::shown_out(&output::level(level.word()).then(&format!(" {check:<16} {finding}")));
        if !fix.is_empty() {
            output::line_out(&format!("{:<25}-> {fix}", ""));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (failures, warnings) = (count(Level::Failure), count(Level::Warning));
    output::line_out(&match (failures, warnings) {
        (0, 0) => "all is well".to_owned(),
        (failures, warnings) => format!("failures: {failures}, warnings: {warnings}"),
    });
}

/// A Redis, for the checks.
fn registry(settings: &Settings) -> Result<Registry, String> {
    Registry::new(settings).map_err(|error| error.to_string())
}
