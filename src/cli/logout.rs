//! `evenring logout`: ends a session and waits until it is over. Owns the texts. Must never hang up a call itself:
//! the session's node does.

use std::time::Duration;

use clap::Args;

use super::watch::{Seen, Watch};
use super::{CliError, DONE, FAILED, output};
use crate::ids::{Alias, SessionId};
use crate::node::session::Reason;
use crate::registry::answers::LogoutAnswer;
use crate::registry::view::{EndReason, OwnReason, Parsed, SessionState, reason_text};
use crate::registry::{LoggedOut, Registry, RegistryError};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring logout cc100x\n  evenring logout 7 --json      (by the agent's id)")]
pub(super) struct LogoutArgs {
    /// Alias, extension, agent or session.
    who: Alias,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// How long the node may take to hang up.
const MOST: Duration = Duration::from_secs(8);
/// Interval at which the logout is requested again: a Redis that lost its data has lost the request too.
const ASK_AGAIN: Duration = Duration::from_secs(2);

pub(super) async fn run(registry: &mut Registry, args: &LogoutArgs) -> Result<u8, CliError> {
    let who = &args.who;
    let ended = Parsed::Known(SessionState::Ended);
    let (session, node, state, reason) = match registry.logout(who).await? {
        LoggedOut::Nobody => (None, String::new(), None, Some(EndReason::Own(OwnReason::NotLoggedIn))),
        LoggedOut::Ended(session, node) => (Some(session), node, Some(ended), Some(EndReason::Node(Reason::LoggedOut))),
        LoggedOut::Asked(session, node) => {
            let (state, reason) = wait(registry, who, session).await?;
            (Some(session), node, Some(state), reason)
        }
    };
    let over = matches!(state, Some(Parsed::Known(state)) if state.is_over());
    let (state, reason) = (state.as_ref().map_or("none", Parsed::as_str), reason_text(reason.as_ref()));
    if args.json {
        output::json(&LogoutAnswer::new(session, &node, state, &reason));
    } else if session.is_none() {
        output::complain(&format!("{who} is not logged in; see `evenring sessions`"));
    } else if over {
        output::line_out(&format!("{who}: {state} on node {node}: {reason}"));
    } else {
        output::complain(&format!("{who}: node {node} has not hung up yet (still {state}); see `evenring status`"));
    }
    Ok(if over { DONE } else { FAILED })
}

/// Waits until the session is over. A Redis that loses its data meanwhile loses the request as well, so it is repeated;
/// repeating it is harmless.
async fn wait(
    registry: &mut Registry,
    who: &Alias,
    session: SessionId,
) -> Result<(Parsed<SessionState>, Option<EndReason>), RegistryError> {
    let mut watch = Watch::new(registry, session);
    let this: Alias = session.to_string().parse().unwrap_or_else(|_| who.clone());
    let (mut until, mut asked, mut lost) = (watch.now().after(MOST), watch.now(), false);
    loop {
        match watch.look(registry).await? {
            // Redis has lost the session, and no node reports it: it is over.
            Seen::Forgotten => {
                return Ok((Parsed::Known(SessionState::Ended), Some(EndReason::Own(OwnReason::Forgotten))));
            }
            Seen::Missing => lost = true,
            Seen::There(row) => {
                let (was_lost, now) = (std::mem::take(&mut lost), watch.now());
                if !row.is_over() && (was_lost || now.since(asked) >= ASK_AGAIN) {
                    match registry.logout(&this).await {
                        // It ended in the meantime: the next look sees that.
                        Ok(_) | Err(RegistryError::NotNow { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    asked = now;
                }
                if was_lost {
                    until = now.after(MOST);
                }
                if row.is_over() || watch.now() >= until {
                    return Ok((row.state, row.reason));
                }
            }
        }
        watch.wait().await;
    }
}
