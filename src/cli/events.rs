//! `evenring events`: what happened in the cluster, in order. Owns the filters, the format of a line and how an outage of
//! Redis is bridged. Must never change the order or omit a matching entry.

use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::PossibleValuesParser;
use humantime::format_rfc3339_millis;
use tokio::time::sleep;

use super::output::Shown;
use super::{CliError, DONE, USAGE, known, output};
use crate::config::span;
use crate::ids::{Agent, Alias, Case, NodeName};
use crate::registry::events::{Cursor, Entry, EventKind};
use crate::registry::{Registry, RegistryError};

#[derive(Debug, Args)]
#[command(after_help = "\
Filters are combined with AND. A session can be named by its id, or by the first digits that a
line shows. Redis keeps the last 100,000 events.

Examples:
  evenring events --since 1h
  evenring events --follow --node tel-1
  evenring events --session 5f3a09c1
  evenring events --event failed --event refused --since 1d --json | jq -r .reason | sort | uniq -c")]
pub(super) struct EventsArgs {
    /// Follow new events until interrupted. Starts now unless --since is given.
    #[arg(long, short)]
    follow: bool,
    /// Show events newer than this, by Redis's clock: 90s, 1h, 2d.
    #[arg(long, value_name = "TIME", value_parser = span)]
    since: Option<Duration>,
    /// Show only this session, and sessions that it replaces or that replace it.
    #[arg(long, value_name = "ID", value_parser = session_start)]
    session: Option<String>,
    /// Show only this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Show only this alias or extension.
    #[arg(long)]
    alias: Option<Alias>,
    /// Show only this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<Agent>,
    /// Show only this kind of event; may be given several times.
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    event: Vec<String>,
    /// Print JSON Lines, one document for each event. `at` is in ms since 1970 on Redis's clock.
    #[arg(long)]
    json: bool,
}

/// Wait between two attempts while Redis is unavailable.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long one read waits for new events; the registry shortens it if necessary.
const WAIT: Duration = Duration::from_secs(5);
/// The length of a session's id, and how much of it a line shows.
const SESSION_DIGITS: usize = 16;
const SHOWN_DIGITS: usize = 8;

fn session_start(text: &str) -> Result<String, String> {
    let fine = (4..=SESSION_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fine { Ok(text.to_ascii_lowercase()) } else { Err("expected 4 to 16 hexadecimal digits".to_owned()) }
}

impl EventsArgs {
    fn wants(&self, entry: &Entry, case: Case) -> bool {
        // The reason names the session that is replaced.
        let named = entry.reason.split(' ').filter(|word| word.len() == SESSION_DIGITS);
        let mut named = named.chain([entry.session.as_str()]);
        let mut about = |id: &String| named.any(|word| word.starts_with(id.as_str()));
        self.session.as_ref().is_none_or(&mut about)
            && self.node.as_ref().is_none_or(|node| entry.node == node.as_str())
            && self.alias.as_ref().is_none_or(|alias| {
                let alias = case.one_spelling(alias.as_str());
                [&entry.alias, &entry.extension].iter().any(|name| case.one_spelling(name) == alias)
            })
            && self.agent.as_ref().is_none_or(|agent| entry.agent == agent.as_str())
            && (self.event.is_empty() || self.event.contains(&entry.event))
    }

    /// What is said of a filter by a name that does not exist.
    async fn names_nothing(&self, registry: &mut Registry) -> Result<Option<String>, RegistryError> {
        if let Some(node) = &self.node {
            let names: Vec<String> = registry.nodes().await?.into_iter().map(|row| row.name).collect();
            if !names.iter().any(|name| name == node.as_str()) {
                return Ok(Some(known::no_node(node, &names)));
            }
        }
        match &self.alias {
            Some(alias) => known::no_alias(registry, alias).await,
            None => Ok(None),
        }
    }

    /// Prints one event; false when the reader has gone.
    fn show(&self, entry: &Entry) -> bool {
        if self.json {
            return output::json_line(entry);
        }
        output::one_of_many(&line(entry))
    }
}

/// Formats time, node, event, alias and agent, the session's first digits and the reason.
fn line(entry: &Entry) -> Shown {
    let Entry { at, event, node, session, alias, agent, reason, extension: phone, .. } = entry;
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
            Cursor::at(registry.now_ms().await?.saturating_sub(span))
        }
        (None, true) => Cursor::at(registry.now_ms().await?),
        (None, false) => Cursor::start(),
    };
    let case = registry.case();
    if args.follow
        && let Some(why) = args.names_nothing(registry).await?
    {
        output::complain(&why);
        return Ok(USAGE);
    }
    let (mut away, mut shown) = (Away::default(), false);
    loop {
        let page = registry.events(&mut place, args.follow.then_some(WAIT)).await;
        let entries = if args.follow { away.wait_out(page).await? } else { Some(page?) };
        let Some(entries) = entries else { continue };
        if entries.is_empty() && !args.follow {
            // What a forgotten node or a phone of before did can still be looked up.
            let why = if shown { None } else { args.names_nothing(registry).await? };
            return Ok(why.map_or(DONE, |why| {
                output::complain(&why);
                USAGE
            }));
        }
        let mut wanted = entries.iter().filter(|entry| args.wants(entry, case)).peekable();
        shown |= wanted.peek().is_some();
        if !wanted.all(|entry| args.show(entry)) {
            return Ok(DONE);
        }
    }
}

/// Whether an outage of Redis has been reported.
#[derive(Debug, Default)]
struct Away(bool);

impl Away {
    /// Returns `None` during an outage: ask again from the same cursor.
    async fn wait_out(&mut self, page: Result<Vec<Entry>, RegistryError>) -> Result<Option<Vec<Entry>>, RegistryError> {
        match page {
            Ok(entries) => {
                if std::mem::take(&mut self.0) {
                    output::warn("Redis is back: continuing");
                }
                Ok(Some(entries))
            }
            Err(error) if error.is_outage() => {
                if !std::mem::replace(&mut self.0, true) {
                    output::warn(&format!("{error}; retrying"));
                }
                sleep(ASK_AGAIN).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
