//! `evenring explain`: the placement script in its dry mode. Owns the texts. Must never ring a phone.

use clap::Args;
use serde::Serialize;

use super::login::{refusal, show_candidates};
use super::{CliError, DONE, FAILED, NO_REDIS, WhoArgs, output};
use crate::registry::Registry;
use crate::registry::view::{Candidate, PlacementState, Verdict, reason_text};
use crate::runtime::random::new_session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring explain cc100x\n  evenring explain cc100x --campaign sales --json")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    who: WhoArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    /// What the agent of the session that exists is logged in with; empty if there is none.
    session_alias: &'a str,
    /// Its phone, or the one that would ring.
    extension: &'a str,
    agent: &'a str,
    node: &'a str,
    state: &'a PlacementState,
    reason: String,
    nodes: &'a [Candidate],
}

pub(super) async fn run(registry: &mut Registry, args: &ExplainArgs) -> Result<u8, CliError> {
    let placement = registry.explain(&args.who.request(), new_session()).await?;
    if placement.verdict != Verdict::Existing {
        // Where a login would fail, no node would ring; where Redis takes no writes, no node is to blame.
        registry.try_login().await?;
    }
    if args.who.json {
        let p = &placement;
        output::json(&Answer {
            session_alias: &p.session_alias,
            extension: &p.extension,
            agent: &p.agent,
            node: &p.node,
            state: &p.state,
            reason: reason_text(p.reason.as_ref()),
            nodes: &p.nodes,
        });
    } else {
        match placement.verdict {
            Verdict::Existing => output::line_out(&format!(
                "{}: already logged in as {}: {} on node {}, {} (agent {}); a login would return that session",
                placement.alias,
                placement.session_alias,
                placement.extension,
                placement.node,
                placement.state,
                placement.agent
            )),
            Verdict::Placed | Verdict::WouldPlace => output::line_out(&format!(
                "{}: would ring {} on node {} as agent {}",
                placement.alias, placement.extension, placement.node, placement.agent
            )),
            Verdict::Refused | Verdict::NotNow => output::complain(&refusal(&placement)),
        }
        show_candidates(&placement);
    }
    Ok(match placement.verdict {
        Verdict::Refused => FAILED,
        Verdict::NotNow => NO_REDIS,
        Verdict::Placed | Verdict::Existing | Verdict::WouldPlace => DONE,
    })
}
