//! `evenring export`: the nodes that take calls, in the words of proxies and DNS. Owns the options and what is said of a list
//! that cannot be made. Must never format a line: `format` does; `watch` keeps a file up to date.

mod command;
mod file;
mod format;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::format::Options;
use super::{CliError, DONE, FAILED, NO_REDIS, USAGE, output};
use crate::config::span;
use crate::registry::Registry;
use crate::registry::view::NodeRow;

/// How often a file is rewritten at most, in its bounds. Kamailio 5.6 refuses a reload within 5 s of the last one.
const EVERY: &str = "6s";
const EVERY_LEAST: Duration = Duration::from_secs(1);
const EVERY_MOST: Duration = Duration::from_secs(3600);
/// The longest time that DNS lets a record live, in seconds.
const TTL_MOST: i64 = 0x7fff_ffff;

#[derive(Debug, Args)]
#[command(after_help = "\
Only nodes that take calls are listed. Each needs node.sip in its settings (haproxy: node.address);
a node without it is left out, with a warning.

With --watch, FILE is replaced atomically when the list changes. It is never emptied: while no node
takes calls, or Redis is unavailable, it stays as it is. --exec runs the words behind it as a
command, without a shell, after each change and once at the start. If the command fails, or prints a
line that begins with `error:` (kamcmd does), it is run again after --every.

Exit codes: 0 done, 1 no node to list, 2 wrong usage or configuration, 3 Redis unavailable or not-now.

Examples:
  evenring export --format dispatcher
  evenring export --format dispatcher --watch /etc/kamailio/evenring.list --exec kamcmd dispatcher.reload
  evenring export --format dns-srv --ttl 5 --watch /etc/bind/evenring.zone --exec rndc reload
  evenring export --format haproxy --port 8089 --draining disabled
  evenring export --format json")]
pub(super) struct ExportArgs {
    /// Format of the list.
    #[arg(long, value_enum)]
    format: Format,
    /// Number of the set of destinations (dispatcher).
    #[arg(long, value_name = "ID", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=0x7fff_ffff))]
    set: u32,
    /// Seconds for which a record may be cached (dns-srv): a dead node may get calls for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=TTL_MOST))]
    ttl: u32,
    /// Port of the servers (haproxy) [default: none, which is the port that the client connected to].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Omit draining nodes, or list them as disabled (not dns-srv).
    #[arg(long, value_enum, value_name = "HOW", default_value = "omit")]
    draining: Draining,
    /// Keep this file up to date until interrupted.
    #[arg(long, value_name = "FILE")]
    watch: Option<PathBuf>,
    /// Rewrite the file, and run the command, at most this often.
    #[arg(long, value_name = "TIME", default_value = EVERY, value_parser = every, requires = "watch")]
    every: Duration,
    /// Command to run after each change: this and all words behind it.
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, requires = "watch")]
    exec: Vec<String>,
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of Kamailio's dispatcher list.
    Dispatcher,
    /// SRV records for a zone file, with addresses where node.sip has no name.
    DnsSrv,
    /// `server` lines of a HAProxy backend.
    Haproxy,
    /// A JSON list.
    Json,
}

/// What becomes of nodes that drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Draining {
    /// They are not listed.
    Omit,
    /// They are listed, and get nothing new.
    Disabled,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = span(text)?;
    let fine = (EVERY_LEAST..=EVERY_MOST).contains(&every);
    if fine { Ok(every) } else { Err("expected 1s to 1h".to_owned()) }
}

pub(super) async fn run(registry: &mut Registry, args: ExportArgs) -> Result<u8, CliError> {
    if (args.format, args.draining) == (Format::DnsSrv, Draining::Disabled) {
        output::complain("an SRV record cannot be disabled: use --draining omit, or another format");
        return Ok(USAGE);
    }
    let ExportArgs { format, set, ttl, port, draining, watch, every, exec } = args;
    let options = Options { format, set, ttl, port, draining };
    if let Some(file) = watch {
        return watch::run(registry, watch::Watched { file, options, every, command: exec }).await;
    }
    let nodes = registry.nodes().await?;
    if nodes.iter().any(|node| node.unsure) {
        output::complain(UNSURE);
        return Ok(NO_REDIS);
    }
    let list = format::list(&nodes, &options);
    list.left_out.iter().for_each(|why| output::warn(why));
    if list.entries == 0 {
        output::complain(&nothing(&nodes));
        return Ok(FAILED);
    }
    output::text_out(&list.text);
    Ok(DONE)
}

/// What is said while nobody can tell which nodes take calls.
const UNSURE: &str = "there were no heartbeats for a moment, because Redis or all nodes were away, and not all nodes have \
    reported since";

/// What is said of an empty list.
fn nothing(nodes: &[NodeRow]) -> String {
    let states: Vec<String> = nodes.iter().map(|node| format!("{} is {}", node.name, node.state)).collect();
    let states = if states.is_empty() { "none has registered".to_owned() } else { states.join(", ") };
    format!("no node takes calls that can be listed ({states}); see `evenring status`")
}
