//! `evenring phones`: which phones can ring on which node, with contact details if a second AMI user is configured.
//! Owns the table and the form of the JSON. Must never ask Asterisk: it shows what the nodes have reported.

use clap::Args;
use serde::Serialize;

use super::{CliError, DONE, output};
use crate::ids::Extension;
use crate::registry::Registry;
use crate::registry::view::PhoneRow;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring phones\n  evenring phones cc100 --json")]
pub(super) struct PhonesArgs {
    /// Show only this extension.
    extension: Option<Extension>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    phones: &'a [PhoneRow],
}

pub(super) async fn run(registry: &mut Registry, args: &PhonesArgs) -> Result<u8, CliError> {
    let phones = registry.phone_list(args.extension.as_ref()).await?;
    if args.json {
        output::json(&Answer { phones: &phones });
        return Ok(DONE);
    }
    if phones.is_empty() {
        output::line_out(
            "No node knows such a phone. Nodes report their phones once they are in sync with Asterisk: see `evenring \
                status`.",
        );
        return Ok(DONE);
    }
    let mut table = output::table(&["EXTENSION", "NODE", "STATE", "CONTACT"]);
    for phone in &phones {
        let uri = phone.contact.as_ref().and_then(|contact| contact.get("uri")).and_then(|uri| uri.as_str());
        table.add_row([phone.extension.as_str(), &phone.node, phone.state.as_str(), uri.unwrap_or_default()]);
    }
    output::print_table(&table);
    Ok(DONE)
}
