//! `evenring queue`: what waits in the queues, and logins that nobody could read. Owns the tables and which queues may be
//! emptied by hand. Must never touch the orders of a node.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, DONE, FAILED, USAGE, output};
use crate::config::span_text;
use crate::registry::queues::{DEAD, Emptying, QueueMessage, QueueRow};
use crate::registry::{ORDERS_PREFIX, Registry};
use crate::runtime::words::counted;

#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    what: QueueWhat,
}

#[derive(Debug, Subcommand)]
enum QueueWhat {
    /// List the queues: how many messages wait, and for how long.
    #[command(after_help = "Example:\n  evenring queue list")]
    List {
        /// Print one JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show messages without receiving them.
    #[command(after_help = "Examples:\n  evenring queue peek\n  evenring queue peek logins --limit 100 --json")]
    Peek {
        /// Name of the queue.
        #[arg(default_value = DEAD)]
        queue: String,
        /// Show at most so many messages, the oldest first.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Put logins that nobody could read into the inbox again.
    #[command(after_help = "\
They are read as if they had just been sent: of use after an upgrade, or when what sent them has been repaired.

Exit codes: 0 done, 1 there is no such message, 3 Redis unavailable.

Examples:
  evenring queue retry --all
  evenring queue retry k3x9w0q1r2a94a8fe5ccb19ba61c4c08")]
    Retry(Which),
    /// Delete messages.
    #[command(after_help = "\
The orders of a node (ring-NODE) are never deleted: drain the node, and they go elsewhere.

Exit codes: 0 done, 1 there is no such message, 2 a queue of orders, 3 Redis unavailable.

Examples:
  evenring queue drop --all
  evenring queue drop --queue web-1 --all")]
    Drop {
        /// Name of the queue.
        #[arg(long, value_name = "NAME", default_value = DEAD)]
        queue: String,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
#[group(required = true)]
struct Which {
    /// Id of one message, as `queue peek` shows it.
    message: Option<String>,
    /// All messages of the queue.
    #[arg(long, conflicts_with = "message")]
    all: bool,
}

#[derive(Serialize)]
struct Queues<'a> {
    queues: &'a [QueueRow],
}

#[derive(Serialize)]
struct Messages<'a> {
    queue: &'a str,
    messages: &'a [QueueMessage],
}

pub(super) async fn run(registry: &mut Registry, args: &QueueArgs) -> Result<u8, CliError> {
    match &args.what {
        QueueWhat::List { json } => list(registry, *json).await,
        QueueWhat::Peek { queue, limit, json } => peek(registry, queue, *limit, *json).await,
        QueueWhat::Retry(which) => empty(registry, Emptying::Retry, DEAD, which).await,
        QueueWhat::Drop { queue, which } => empty(registry, Emptying::Drop, queue, which).await,
    }
}

async fn list(registry: &mut Registry, json: bool) -> Result<u8, CliError> {
    let queues = registry.queues().await?;
    if json {
        output::json(&Queues { queues: &queues });
        return Ok(DONE);
    }
    let mut table = output::table(&["QUEUE", "MESSAGES", "VISIBLE", "OLDEST", "SENT", "RECEIVED"]);
    for row in &queues {
        let oldest = match row.visible {
            0 => String::new(),
            _ => span_text(std::time::Duration::from_secs(row.oldest_ms / 1_000)),
        };
        let numbers = [row.messages, row.visible, row.sent, row.received].map(|number| number.to_string());
        let [messages, visible, sent, received] = numbers;
        table.add_row([row.queue.clone(), messages, visible, oldest, sent, received]);
    }
    output::print_table(&table);
    Ok(DONE)
}

async fn peek(registry: &mut Registry, queue: &str, limit: u32, json: bool) -> Result<u8, CliError> {
    let messages = registry.peek(queue, usize::try_from(limit).unwrap_or(usize::MAX)).await?;
    if json {
        output::json(&Messages { queue, messages: &messages });
        return Ok(DONE);
    }
    if messages.is_empty() {
        output::line_out(&format!("There are no messages in {queue}."));
    }
    for message in &messages {
        output::line_out(&format!("{}  {}", message.id, message.body));
    }
    Ok(DONE)
}

async fn empty(registry: &mut Registry, how: Emptying, queue: &str, which: &Which) -> Result<u8, CliError> {
    if queue.starts_with(ORDERS_PREFIX) {
        output::complain(&format!(
            "{queue} has the orders of a node, which only its daemon may take: `evenring drain` moves them to other nodes"
        ));
        return Ok(USAGE);
    }
    let done = registry.empty(how, queue, which.message.as_deref()).await?;
    if let (Some(message), 0) = (&which.message, done) {
        output::complain(&format!("there is no such message in {queue}: {message}; see `evenring queue peek {queue}`"));
        return Ok(FAILED);
    }
    let count = counted(usize::try_from(done).unwrap_or(usize::MAX), "message");
    output::line_out(&match how {
        Emptying::Retry => format!("{count} put into logins again"),
        Emptying::Drop => format!("{count} deleted from {queue}"),
    });
    Ok(DONE)
}
