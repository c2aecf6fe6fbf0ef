//! `evenring login`: asks Redis to place a login, shows the choice, and on request waits until the phone answers.
//! Owns the waiting and the texts. Must never choose a node: `registry/scripts/place.lua` does.

use std::time::Duration;

use clap::Args;

use super::watch::{Seen, Watch};
use super::{CliError, DONE, FAILED, NO_REDIS, WhoArgs, output};
use crate::config::Settings;
use crate::ids::SessionId;
use crate::registry::answers::LoginAnswer;
use crate::registry::view::{
    EndReason, MovedFrom, OwnReason, Parsed, Placement, PlacementReason, PlacementState, RefusalReason, SessionRow,
    SessionState, Verdict, reason_text,
};
use crate::registry::{LoginRequest, Registry, RegistryError};
use crate::runtime::clock::Clock;
use crate::runtime::random::new_session;

#[derive(Debug, Args)]
#[command(after_help = "\
An agent has one session. The same login again returns it (exit code 0). A login with another phone is
refused (logged-in-elsewhere, exit code 1), unless --move is given.

Examples:
  evenring login cc100x --agent 7 --campaign sales --wait
  evenring login cc116x --agent 7 --move          from the old desk to a new one
  evenring login cc100 --json")]
pub(super) struct LoginArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Wait until the phone answers or the login fails.
    #[arg(long)]
    wait: bool,
    /// Log the agent out of another phone first, in the same step.
    #[arg(long = "move")]
    moves: bool,
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
            Some(row) => (row.node, PlacementState::Session(row.state), row.reason.map(PlacementReason::Session)),
            None => {
                let failed = PlacementState::Session(Parsed::Known(SessionState::Failed));
                (node, failed, Some(PlacementReason::Session(EndReason::Own(OwnReason::ForgottenByRedis))))
            }
        };
    }
    if args.who.json {
        output::json(&LoginAnswer::with_state(&placement, (node, state.clone(), reason.as_ref())));
    }
    let good = match placement.verdict {
        Verdict::NotNow => return Ok(NO_REDIS),
        Verdict::Refused | Verdict::WouldPlace => false,
        Verdict::Placed | Verdict::Existing => !args.wait || state.is(SessionState::Live),
    };
    Ok(if good { DONE } else { FAILED })
}

/// Interval at which a Redis that answers `not-now` is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Places the login. With `--wait`, `not-now` is retried for up to three leases.
async fn place(registry: &mut Registry, settings: &Settings, args: &LoginArgs) -> Result<Placement, RegistryError> {
    let request = LoginRequest { moves: args.moves, ..args.who.request() };
    let session = new_session();
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
    let Placement { alias, session_alias, node, extension, agent, .. } = placement;
    let session = placement.session.map(|id| id.to_string()).unwrap_or_default();
    match placement.verdict {
        Verdict::Placed => {
            if let Some(MovedFrom { session, extension, node }) = &placement.moved_from {
                output::line_out(&format!(
                    "{alias}: agent {agent} logged out of {extension} on node {node} (session {session})"
                ));
            }
            output::line_out(&format!("{alias}: {extension} on node {node} (session {session}, agent {agent})"))
        }
        Verdict::Existing => output::line_out(&format!(
            "{alias}: already logged in as {session_alias}: {extension} on node {node}, {} (session {session}, agent \
                {agent}); nothing rings",
            placement.state
        )),
        Verdict::Refused | Verdict::WouldPlace | Verdict::NotNow => output::complain(&refusal(placement)),
    }
    show_candidates(placement);
}

/// Explains why no phone rings, and what to do.
pub(super) fn refusal(placement: &Placement) -> String {
    let alias = &placement.alias;
    let session = placement.session.map(|id| id.to_string()).unwrap_or_default();
    let reason = match &placement.reason {
        Some(PlacementReason::Refusal(Parsed::Known(reason))) => *reason,
        other => return format!("{alias}: refused: {}", reason_text(other.as_ref())),
    };
    match reason {
        RefusalReason::UnknownAlias => format!(
            "{alias}: no node knows this phone, and there is no such explicit alias; check the spelling, `evenring phones` and \
             `evenring alias list`"
        ),
        RefusalReason::NoNode => format!(
            "{alias}: no node has registered in this Redis; start `evenring run` on one, and check redis.namespace. If Redis has \
             just lost its data, the nodes register again within a second: try again"
        ),
        RefusalReason::Recovering => format!(
            "{alias}: not now: Redis has just recovered, and not all nodes have reported since; try again in a few seconds"
        ),
        RefusalReason::EmptyAlias => format!("{alias}: this explicit alias lists no phones; see `evenring alias list`"),
        RefusalReason::NoEligibleNode => format!("{alias}: no node can ring this phone now:"),
        RefusalReason::LoggedInElsewhere => format!(
            "{alias}: refused: agent {} is already logged in as {} on {} at node {} (session {session}); nothing rings. \
                Log out there, or use `evenring login {alias} --agent {} --move`",
            placement.agent, placement.session_alias, placement.extension, placement.node, placement.agent
        ),
        RefusalReason::InUse => format!(
            "{alias}: in use by agent {}, logged in as {} on {} at node {} (session {session}); log them out first",
            placement.agent, placement.session_alias, placement.extension, placement.node
        ),
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
        let eligible = candidate.reason.as_ref().map_or(chosen, Parsed::as_str);
        table.add_row([candidate.name.clone(), output::load(candidate.load), eligible.to_owned()]);
    }
    output::print_table(&table);
}

/// Waits until the session is live or over, or for longer than that ever takes; while it is queued it takes as long as it
/// fetches. `None`: Redis has lost it, and its node, which says again what rings there, has not.
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
                if row.queue_position.is_some() {
                    until = watch.now().after(most);
                }
                // At the end, how it stands is the answer.
                if row.is_over() || row.state == SessionState::Live || watch.now() >= until {
                    return Ok(Some(*row));
                }
            }
        }
        watch.wait().await;
    }
}

fn progress(row: &SessionRow) -> String {
    match row.queue_position {
        Some(place) => format!("{} on {}, position {place}", row.state, row.node),
        None => match &row.reason {
            None => format!("{} on {}", row.state, row.node),
            Some(reason) => format!("{}: {reason}", row.state),
        },
    }
}
