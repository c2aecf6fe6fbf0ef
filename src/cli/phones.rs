//! `evenring phones`: which phones can ring on which node, with contact details if a second AMI user is configured.
//! Owns the table and the form of the JSON. Must never ask Asterisk: it shows what the nodes have reported.

use clap::Args;

use super::{CliError, DONE, USAGE, known, output};
use crate::ids::Extension;
use crate::registry::Registry;
use crate::registry::answers::PhonesAnswer;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  evenring phones\n  evenring phones cc100 --json")]
pub(super) struct PhonesArgs {
    /// Show only this extension.
    extension: Option<Extension>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(registry: &mut Registry, args: &PhonesArgs) -> Result<u8, CliError> {
    let phones = registry.phones_shown(args.extension.as_ref()).await?;
    let unknown = match &args.extension {
        Some(extension) if phones.is_empty() => known::no_extension(registry, extension.as_str()).await?,
        Some(_) | None => None,
    };
    if args.json {
        output::json(&PhonesAnswer { phones: phones.clone() });
    }
    if let Some(why) = unknown {
        output::complain(&why);
        return Ok(USAGE);
    }
    if args.json {
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
