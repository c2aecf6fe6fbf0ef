//! `evenring sessions`: who is logged in where. Owns the table and the form of the JSON. Must never change a session.

use clap::Args;

use super::{CliError, DONE, output};
use crate::registry::Registry;
use crate::registry::answers::SessionsAnswer;
use crate::registry::view::{Which, reason_text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  evenring sessions\n  evenring sessions --all --json | jq '.sessions[] | select(.state \
        == \"failed\")'"
)]
pub(super) struct SessionsArgs {
    /// Include sessions that ended recently (within placement.session_keep).
    #[arg(long)]
    all: bool,
    /// Print one JSON document instead of a table. `since` is in ms since 1970 on Redis's clock.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(registry: &mut Registry, args: &SessionsArgs) -> Result<u8, CliError> {
    let which = if args.all { Which::All } else { Which::Open };
    let sessions = registry.sessions(which).await?;
    if args.json {
        output::json(&SessionsAnswer { sessions });
        return Ok(DONE);
    }
    if sessions.is_empty() {
        output::line_out("Nobody is logged in.");
        return Ok(DONE);
    }
    let now = registry.now_ms().await?;
    let mut table = output::table(&[
        "SESSION",
        "ALIAS",
        "EXTENSION",
        "AGENT",
        "CAMPAIGN",
        "NODE",
        "STATE",
        "POSITION",
        "CLASS",
        "FOR",
        "REASON",
    ]);
    for session in &sessions {
        table.add_row([
            output::Cell::from(&session.session),
            output::Cell::from(&session.alias),
            output::Cell::from(&session.extension),
            output::Cell::from(&session.agent),
            output::Cell::from(&session.campaign),
            output::Cell::from(&session.node),
            output::state(&session.state),
            session.queue_position.map(|place| place.to_string()).unwrap_or_default().into(),
            if session.remote { "remote" } else { "local" }.into(),
            output::age(now.saturating_sub(session.since)).into(),
            output::Cell::from(reason_text(session.reason.as_ref())),
        ]);
    }
    output::print_table(&table);
    Ok(DONE)
}
