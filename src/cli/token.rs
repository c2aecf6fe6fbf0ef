//! `evenring token new`: makes a token for the HTTP API. Owns the texts. Must never write the token anywhere but to the
//! terminal of whoever asked for it.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{DONE, FAILED, output};
use crate::api::token::{Scope, TokenName, make};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    what: TokenWhat,
}

#[derive(Debug, Subcommand)]
enum TokenWhat {
    /// Make a token. Nothing is changed: add the line to api.tokens_file on every node, and reload.
    New(NewArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The token is shown once. The line that is kept has its SHA-256 alone.

Scopes: read, login, hold, admin. login and hold can be narrowed to one agent or campaign.

Examples:
  evenring token new crm --scope login --scope read
  evenring token new desk7 --scope login:agent=7
  evenring token new sales --scope login:campaign=sales --json")]
struct NewArgs {
    /// Name of whoever is to have it, for the log and for events.
    name: TokenName,
    /// What it may do; may be given several times.
    #[arg(long, required = true, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    token: String,
    line: String,
}

pub(super) fn run(args: &TokenArgs) -> u8 {
    let TokenWhat::New(args) = &args.what;
    let (token, kept) = match make(args.name.clone(), args.scope.clone()) {
        Ok(made) => made,
        Err(why) => {
            output::complain(&why);
            return FAILED;
        }
    };
    let line = kept.to_string();
    if args.json {
        output::json(&Answer { token, line });
        return DONE;
    }
    output::line_out(&format!("token, shown once: {token}"));
    output::line_out(&format!("line for api.tokens_file (/etc/evenring/tokens) on every node: {line}"));
    DONE
}
