//! `evenring explain`: the placement script in its dry mode. Owns the texts. Must never ring a phone.

use clap::Args;

use super::login::{refusal, show_candidates};
use super::{CliError, DONE, FAILED, NO_REDIS, WhoArgs, output};
use crate::registry::Registry;
use crate::registry::answers::ExplainAnswer;
use crate::registry::view::Verdict;
use crate::runtime::random::new_session;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring explain cc100x\n  evenring explain cc100x --campaign sales --json")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    who: WhoArgs,
}

pub(super) async fn run(registry: &mut Registry, args: &ExplainArgs) -> Result<u8, CliError> {
    let placement = registry.explain(&args.who.request(), new_session()).await?;
    if placement.verdict != Verdict::Existing {
        // Where a login would fail, no node would ring; where Redis takes no writes, no node is to blame.
        registry.try_login().await?;
    }
    if args.who.json {
        output::json(&ExplainAnswer::of(&placement));
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
