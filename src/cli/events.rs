//! `evenring events`: what happened in the cluster, in order. Owns the filters, the look of a line and how an outage of Redis is
//! waited for. Must never change the order, nor leave an entry out that was asked for.

use std::time::{Duration, SystemTime};

use clap::Args;
use humantime::format_rfc3339_millis;
use tokio::time::sleep;

use super::output::Shown;
use super::{CliError, DONE, output};
use crate::config::span;
use crate::ids::{Agent, Alias, Case, NodeName};
use crate::registry::story::{Entry, Place};
use crate::registry::{Registry, RegistryError};

#[derive(Debug, Args)]
#[command(after_help = "\
Several filters must all fit. A session is named by its id, or by the beginning of it that a line shows.
Redis keeps the last 100,000 entries.

Examples:
  evenring events --since 1h
  evenring events --follow --node tel-1
  evenring events --session 5f3a09c1
  evenring events --event failed --event refused --since 1d --json | jq -r .reason | sort | uniq -c")]
pub(super) struct EventsArgs {
    /// Waits for more, until it is stopped. Without --since it begins now.
    #[arg(long, short)]
    follow: bool,
    /// Only what is not older than this, by the clock of Redis: 90s, 1h, 2d.
    #[arg(long, value_name = "TIME", value_parser = span)]
    since: Option<Duration>,
    /// Only of this session, and of those that it replaces or is replaced by.
    #[arg(long, value_name = "ID", value_parser = session_start)]
    session: Option<String>,
    /// Only on this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Only of this alias or phone.
    #[arg(long)]
    alias: Option<Alias>,
    /// Only of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<Agent>,
    /// Only of this kind; may be repeated.
    #[arg(long, value_name = "KIND")]
    event: Vec<String>,
    /// JSON Lines: one document for each entry. `at` is in ms since 1970 on Redis's clock.
    #[arg(long)]
    json: bool,
}

/// How long nobody asks a Redis that is out of use.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long one question waits for something to happen; the registry makes it shorter if it must.
const WAIT: Duration = Duration::from_secs(5);
/// The length of a session's id, and how much of it a line shows.
const SESSION_DIGITS: usize = 16;
const SHOWN_DIGITS: usize = 8;

fn session_start(text: &str) -> Result<String, String> {
    let fine = (4..=SESSION_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fine { Ok(text.to_ascii_lowercase()) } else { Err("4 to 16 hexadecimal digits".to_owned()) }
}

impl EventsArgs {
    fn wants(&self, entry: &Entry, case: Case) -> bool {
        // What replaces what stands in the reason.
        let named = entry.reason.split(' ').filter(|word| word.len() == SESSION_DIGITS);
        let mut named = named.chain([entry.session.as_str()]);
        let mut about = |id: &String| named.any(|word| word.starts_with(id.as_str()));
        self.session.as_ref().is_none_or(&mut about)
            && self.node.as_ref().is_none_or(|node| entry.node == node.as_str())
            && self.alias.as_ref().is_none_or(|alias| {
                let alias = case.one_spelling(alias.as_str());
                [&entry.alias, &entry.phone].iter().any(|name| case.one_spelling(name) == alias)
            })
            && self.agent.as_ref().is_none_or(|agent| entry.agent == agent.as_str())
            && (self.event.is_empty() || self.event.contains(&entry.event))
    }

    /// Prints one; false: nobody reads any more.
    fn show(&self, entry: &Entry) -> bool {
        if self.json {
            return output::json_line(entry);
        }
        output::one_of_many(&line(entry))
    }
}

/// Time, node, event, alias, agent, the session's first digits, and more about it.
fn line(entry: &Entry) -> Shown {
    let Entry { at, event, node, session, alias, agent, reason, phone, .. } = entry;
    let time = format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(*at));
    let who = if agent.is_empty() || agent == phone { alias.clone() } else { format!("{alias}/{agent}") };
    let session = session.get(..SHOWN_DIGITS).unwrap_or(session);
    let before = Shown::from(format!("{time}  {node:<8}  ")).then_event(event);
    before.then(&format!("  {who:<14}  {session:<SHOWN_DIGITS$}  {reason}")).trimmed()
}

pub(super) async fn run(registry: &mut Registry, args: &EventsArgs) -> Result<u8, CliError> {
    let mut place = match (args.since, args.follow) {
        (Some(span), _) => {
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Place::at(registry.now_ms().await?.saturating_sub(span))
        }
        (None, true) => Place::at(registry.now_ms().await?),
        (None, false) => Place::start(),
    };
    let case = registry.case();
    let mut away = Away::default();
    loop {
        let page = registry.story(&mut place, args.follow.then_some(WAIT)).await;
        let entries = if args.follow { away.wait_out(page).await? } else { Some(page?) };
        let Some(entries) = entries else { continue };
        if entries.is_empty() && !args.follow {
            return Ok(DONE);
        }
        if !entries.iter().filter(|entry| args.wants(entry, case)).all(|entry| args.show(entry)) {
            return Ok(DONE);
        }
    }
}

/// Whether Redis is out of use, and that somebody has been told.
#[derive(Debug, Default)]
struct Away(bool);

impl Away {
    /// `None`: ask again, from the same place.
    async fn wait_out(&mut self, page: Result<Vec<Entry>, RegistryError>) -> Result<Option<Vec<Entry>>, RegistryError> {
        match page {
            Ok(entries) => {
                if std::mem::take(&mut self.0) {
                    output::warn("Redis is back: going on where it was");
                }
                Ok(Some(entries))
            }
            Err(error) if error.is_outage() => {
                if !std::mem::replace(&mut self.0, true) {
                    output::warn(&format!("{error}; waiting"));
                }
                sleep(ASK_AGAIN).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
