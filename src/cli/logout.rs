//! `evenring logout`: ends a session and waits until it is over. Owns the wording. Must never hang up a call itself:
//! the session's node does.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;

use super::{CliError, DONE, FAILED, output};
use crate::ids::{Alias, SessionId};
use crate::registry::view::Which;
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
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) async fn run(registry: &mut Registry, args: &LogoutArgs) -> Result<u8, CliError> {
    let who = &args.who;
    let (session, node, state, reason) = match registry.logout(who).await? {
        LoggedOut::Nobody => (None, String::new(), "none".to_owned(), "not-logged-in".to_owned()),
        LoggedOut::Ended(session, node) => (Some(session), node, "ended".to_owned(), "logged-out".to_owned()),
        LoggedOut::Asked(session, node) => {
            let (state, reason) = wait(registry, session).await?;
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

async fn wait(registry: &mut Registry, session: SessionId) -> Result<(String, String), RegistryError> {
    let mut news = registry.subscribe_session(session).await?.into_on_message();
    let mut last = ("asked".to_owned(), String::new());
    let look = async {
        loop {
            // A session that Redis keeps no more is over.
            let Some(row) = registry.sessions(Which::One(session)).await?.pop() else {
                return Ok(("ended".to_owned(), "forgotten".to_owned()));
            };
            let over = row.is_over();
            last = (row.state, row.reason);
            if over {
                return Ok(last.clone());
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, news.next()).await;
        }
    };
    let result = tokio::time::timeout(MOST, look).await;
    match result {
        Ok(result) => result,
        Err(_) => Ok(last),
    }
}
