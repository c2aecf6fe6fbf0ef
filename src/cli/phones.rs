//! `evenring phones`: which phones can ring on which node, with contact details where a second AMI user brings them.
//! Owns the table and the shape of the JSON. Must never ask Asterisk: the nodes have reported.

use clap::Args;
use serde::Serialize;

use super::{CliError, DONE, output};
use crate::ids::Extension;
use crate::registry::Registry;
use crate::registry::view::PhoneRow;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring phones\n  evenring phones cc100 --json")]
pub(super) struct PhonesArgs {
    /// Only this extension.
    extension: Option<Extension>,
    /// One JSON document instead of a table.
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
            "No node knows such a phone. Nodes report theirs when their Asterisk has booted: see `evenring status`.",
        );
        return Ok(DONE);
    }
    let mut table = output::table(&["EXTENSION", "NODE", "STATE", "CONTACT"]);
    for phone in &phones {
        let uri = phone.contact.as_ref().and_then(|contact| contact.get("uri")).and_then(|uri| uri.as_str());
        table.add_row([phone.extension.as_str(), &phone.node, &phone.state, uri.unwrap_or_default()]);
    }
    output::print_table(&table);
    Ok(DONE)
}
