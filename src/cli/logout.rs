//! `evenring logout`: ends a session and waits until it is over. Owns the wording. Must never hang up a call itself:
//! the session's node does.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::watch::{Seen, Watch};
use super::{CliError, DONE, FAILED, output};
use crate::ids::{Alias, SessionId};
use crate::registry::{LoggedOut, Registry, RegistryError};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evenring logout cc100x\n  evenring logout 7 --json      (an agent's id does as well)"
)]
pub(super) struct LogoutArgs {
    /// The alias, the extension, the agent or the session.
    who: Alias,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    session: Option<String>,
    node: &'a str,
    state: &'a str,
    reason: &'a str,
}

/// How long the node may take to hang up.
const MOST: Duration = Duration::from_secs(8);
/// How often it is asked again meanwhile: a Redis that forgets loses the wish, and may have the session again between two looks.
const ASK_AGAIN: Duration = Duration::from_secs(2);

pub(super) async fn run(registry: &mut Registry, args: &LogoutArgs) -> Result<u8, CliError> {
    let who = &args.who;
    let (session, node, state, reason) = match registry.logout(who).await? {
        LoggedOut::Nobody => (None, String::new(), "none".to_owned(), "not-logged-in".to_owned()),
        LoggedOut::Ended(session, node) => (Some(session), node, "ended".to_owned(), "logged-out".to_owned()),
        LoggedOut::Asked(session, node) => {
            let (state, reason) = wait(registry, who, session).await?;
            (Some(session), node, state, reason)
        }
    };
    let over = state == "ended" || state == "failed";
    if args.json {
        output::json(&Answer {
            session: session.map(|id| id.to_string()),
            node: &node,
            state: &state,
            reason: &reason,
        });
    } else if session.is_none() {
        output::complain(&format!("{who} is not logged in; see `evenring sessions`"));
    } else if over {
        output::line_out(&format!("{who}: {state} on node {node}: {reason}"));
    } else {
        output::complain(&format!(
            "{who}: node {node} has the order to hang up but has not done it yet (still {state}); see `evenring status`"
        ));
    }
    Ok(if over { DONE } else { FAILED })
}

/// Waits until the session is over. A Redis that loses it meanwhile loses the wish as well, so the wish is said again: it may
/// be, any number of times.
async fn wait(registry: &mut Registry, who: &Alias, session: SessionId) -> Result<(String, String), RegistryError> {
    let mut watch = Watch::new(registry, session);
    let this: Alias = session.to_string().parse().unwrap_or_else(|_| who.clone());
    let (mut until, mut asked, mut lost) = (watch.now().after(MOST), watch.now(), false);
    loop {
        match watch.look(registry).await? {
            // A session that Redis keeps no more, and that no node has, is over.
            Seen::Forgotten => return Ok(("ended".to_owned(), "forgotten".to_owned())),
            Seen::Missing => lost = true,
            Seen::There(row) => {
                let (was_lost, now) = (std::mem::take(&mut lost), watch.now());
                if !row.is_over() && (was_lost || now.since(asked) >= ASK_AGAIN) {
                    match registry.logout(&this).await {
                        // It went between look and wish: the next look sees that.
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
