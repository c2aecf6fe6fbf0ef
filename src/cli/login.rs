//! `evenring login`: asks Redis to place a login, shows the choice, and on request waits until the phone has answered.
//! Owns the waiting and the wording. Must never choose a node: `registry/scripts/place.lua` does.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::watch::{Seen, Watch};
use super::{CliError, DONE, FAILED, NO_REDIS, WhoArgs, output};
use crate::config::Settings;
use crate::daemon::clock::Clock;
use crate::daemon::new_session;
use crate::ids::SessionId;
use crate::registry::view::{Placement, SessionRow, Verdict};
use crate::registry::{Registry, RegistryError};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evenring login cc100x --agent 7 --campaign sales --wait\n  evenring login cc100 --json"
)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Waits until the phone has answered, or it is clear that it will not.
    #[arg(long)]
    wait: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    session: Option<String>,
    node: &'a str,
    state: &'a str,
    reason: &'a str,
    nodes: &'a [crate::registry::view::Candidate],
}

pub(super) async fn run(registry: &mut Registry, settings: &Settings, args: &LoginArgs) -> Result<u8, CliError> {
    let placement = place(registry, settings, args).await?;
    let (mut node, mut state, mut reason) = (placement.node.clone(), placement.state.clone(), placement.reason.clone());
    if !args.who.json {
        announce(&placement);
    }
    if args.wait
        && matches!(placement.verdict, Verdict::Placed | Verdict::Existing)
        && let Some(session) = placement.session
    {
        let last = wait(registry, settings, session, args.who.json).await?;
        (node, state, reason) = match last {
            Some(row) => (row.node, row.state, row.reason),
            None => (node, "failed".to_owned(), "forgotten-by-redis".to_owned()),
        };
    }
    if args.who.json {
        let session = placement.session.map(|id| id.to_string());
        output::json(&Answer { session, node: &node, state: &state, reason: &reason, nodes: &placement.nodes });
    }
    let good = match placement.verdict {
        Verdict::NotNow => return Ok(NO_REDIS),
        Verdict::Refused | Verdict::WouldPlace => false,
        Verdict::Placed | Verdict::Existing => !args.wait || state == "live",
    };
    Ok(if good { DONE } else { FAILED })
}

/// How often a Redis that has just come back is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Asks for a place. Who waits also waits out the moments after an outage in which nothing is decided.
async fn place(registry: &mut Registry, settings: &Settings, args: &LoginArgs) -> Result<Placement, RegistryError> {
    let (request, session) = (args.who.request(), new_session());
    let clock = Clock::start();
    let until = clock.now().after(settings.placement.lease * 3);
    loop {
        let placement = registry.place(&request, session).await?;
        if !args.wait || placement.verdict != Verdict::NotNow || clock.now() >= until {
            return Ok(placement);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn announce(placement: &Placement) {
    let Placement { alias, node, extension, agent, .. } = placement;
    let session = placement.session.map(|id| id.to_string()).unwrap_or_default();
    match placement.verdict {
        Verdict::Placed => {
            output::line_out(&format!("{alias}: {extension} on node {node} (session {session}, agent {agent})"))
        }
        Verdict::Existing => output::line_out(&format!(
            "{alias}: already logged in: {extension} on node {node}, {} (session {session}, agent {agent})",
            placement.state
        )),
        Verdict::Refused | Verdict::WouldPlace | Verdict::NotNow => output::complain(&refusal(placement)),
    }
    show_candidates(placement);
}

/// Why nobody rings, in words that say what to do.
pub(super) fn refusal(placement: &Placement) -> String {
    let alias = &placement.alias;
    let session = placement.session.map(|id| id.to_string()).unwrap_or_default();
    match placement.reason.as_str() {
        "unknown-alias" => format!(
            "{alias}: no node knows such a phone, and it is no explicit alias; check the spelling, `evenring phones` and \
             `evenring alias list`"
        ),
        "no-node" => format!(
            "{alias}: no node has registered with this Redis; start `evenring run` on one, and check redis.namespace. If Redis has \
             just lost its data, the nodes are back in a second: try again"
        ),
        "recovering" => format!(
            "{alias}: not now: Redis was unavailable until a moment ago, and not all nodes have reported since; try again in a \
             few seconds"
        ),
        "empty-alias" => format!("{alias}: this explicit alias names no phone; see `evenring alias list`"),
        "no-eligible-node" => format!("{alias}: no node can ring this phone now; the reasons:"),
        "in-use" => format!(
            "{alias}: agent {} is logged in there (session {session} on node {}); log that one out first",
            placement.agent, placement.node
        ),
        other => format!("{alias}: refused: {other}"),
    }
}

/// The loads that led to the choice.
pub(super) fn show_candidates(placement: &Placement) {
    if placement.nodes.is_empty() {
        return;
    }
    let mut table = output::table(&["NODE", "LOAD", "ELIGIBLE"]);
    for candidate in &placement.nodes {
        let chosen = if candidate.eligible && candidate.name == placement.node { "yes, chosen" } else { "yes" };
        let eligible = if candidate.eligible { chosen } else { &candidate.why };
        table.add_row([candidate.name.clone(), output::load(candidate.load), eligible.to_owned()]);
    }
    output::print_table(&table);
}

/// Waits until the session is live or over, or for longer than that ever takes; while it is queued it takes as long as it
/// takes. `None`: Redis has lost it, and its node, which says again what rings there, has not.
async fn wait(
    registry: &mut Registry,
    settings: &Settings,
    session: SessionId,
    quiet: bool,
) -> Result<Option<SessionRow>, RegistryError> {
    let most =
        settings.ring.timeout * settings.placement.tries + settings.placement.lease * 2 + Duration::from_secs(10);
    let mut watch = Watch::new(registry, session);
    let (mut shown, mut until) = (String::new(), watch.now().after(most));
    loop {
        match watch.look(registry).await? {
            Seen::Forgotten => return Ok(None),
            Seen::Missing => {}
            Seen::There(row) => {
                let now = progress(&row);
                if !quiet && now != shown {
                    output::line_out(&now);
                }
                shown = now;
                if row.place.is_some() {
                    until = watch.now().after(most);
                }
                // At the end, how it stands is the answer.
                if row.is_over() || row.state == "live" || watch.now() >= until {
                    return Ok(Some(*row));
                }
            }
        }
        watch.wait().await;
    }
}

fn progress(row: &SessionRow) -> String {
    match row.place {
        Some(place) => format!("{} on {}, place {place}", row.state, row.node),
        None if row.reason.is_empty() => format!("{} on {}", row.state, row.node),
        None => format!("{}: {}", row.state, row.reason),
    }
}
