//! `/v1/events`: what happens in the cluster, as server-sent events. Owns the filters, where a stream begins, and what is told
//! of a gap. Must never read what others read already: `feed.rs` does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::Shared;
use super::access::Caller;
use super::extract::Query;
use super::feed::{Ear, Heard, Item, Join};
use super::problem::{Kind, Problem};
use crate::ids::{Agent, NodeName};
use crate::node::keyword::Keyword as _;
use crate::registry::events::{Cursor, Entry, EventKind};

/// Something is sent at least this often, so that proxies keep the connection, and a client notices its loss.
const ALIVE: Duration = Duration::from_secs(15);
/// What a client waits before it comes back, in ms.
const RETRY: &str = "retry: 1000\n\n";
/// By how much a place may be ahead of Redis's clock, in ms: after a failover the clock may be a little behind.
const AHEAD_MOST: u64 = 60_000;
/// Kinds of events that one filter may name.
const KINDS_MOST: usize = 32;

/// Which events, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only these kinds, with commas between them.
    #[param(pattern = "^[a-z-]+(,[a-z-]+)*$")]
    event: Option<String>,
    /// Only this node.
    #[param(value_type = Option<String>, min_length = 1, max_length = 40, pattern = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]
    node: Option<NodeName>,
    /// Only this agent.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    agent: Option<Agent>,
    /// Begin behind this event; `0` is the oldest that there is. `Last-Event-ID` says the same. By default, only new events.
    #[param(pattern = "^[0-9]{1,14}(-[0-9]{1,10})?$")]
    after: Option<String>,
}

/// What a watcher wants.
#[derive(Debug)]
struct Filter {
    kinds: Vec<EventKind>,
    node: Option<NodeName>,
    agent: Option<Agent>,
}

impl Filter {
    fn of(query: &EventsQuery) -> Result<Self, Problem> {
        let words: Vec<&str> = query.event.iter().flat_map(|words| words.split(',')).collect();
        if words.len() > KINDS_MOST {
            return Err(Problem::invalid(format!("event names more than {KINDS_MOST} kinds")));
        }
        let kind = |word: &&str| {
            let shown: String = word.chars().take(40).collect();
            EventKind::of(word).ok_or_else(|| Problem::invalid(format!("event: there is no kind {shown:?}")))
        };
        let kinds = words.iter().map(kind).collect::<Result<_, _>>()?;
        Ok(Self { kinds, node: query.node.clone(), agent: query.agent.clone() })
    }

    fn wants(&self, entry: &Entry) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.as_str() == entry.event))
            && self.node.as_ref().is_none_or(|node| entry.node == node.as_str())
            && self.agent.as_ref().is_none_or(|agent| entry.agent == agent.as_str())
    }
}

/// One open stream.
struct Watcher {
    shared: Arc<Shared>,
    filter: Filter,
    /// Frames to send next.
    queue: VecDeque<Bytes>,
    phase: Phase,
    _seat: OwnedSemaphorePermit,
}

enum Phase {
    /// Behind what the feed keeps: this was sent last.
    Behind(Cursor),
    Live(Ear),
    Over,
}

/// What happens, as it happens: server-sent events. `id:` is the place of an event; with `Last-Event-ID`, a client goes on
/// without gap or repetition. An event `gap` says that events are missing before the next one.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventsQuery,
    ("Last-Event-ID" = Option<String>, Header, description = "Begin behind this event",
        pattern = "^[0-9]{1,14}(-[0-9]{1,10})?$")),
    responses((status = 200, description = "A stream of events; each `data:` is one, as `evenring events --json`",
        body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
    head: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_read()?;
    let filter = Filter::of(&query)?;
    let after = place(&query, &head)?;
    let seat = Arc::clone(&shared.watchers).try_acquire_owned();
    let seat = seat.map_err(|_| Problem::new(Kind::Busy, "api.watchers event streams are open already"))?;
    let mut queue = VecDeque::from([Bytes::from_static(RETRY.as_bytes())]);
    let phase = match after {
        Some(after) => {
            if let Some(gap) = check(&shared, &after).await? {
                queue.push_back(gap);
            }
            Phase::Behind(after)
        }
        None => Phase::Live(shared.feed.listen()),
    };
    let watcher = Watcher { shared, filter, queue, phase, _seat: seat };
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    });
    let heads = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((heads, [("x-accel-buffering", "no")], Body::from_stream(frames)).into_response())
}

/// Where a stream begins; `None`: now.
fn place(query: &EventsQuery, head: &HeaderMap) -> Result<Option<Cursor>, Problem> {
    let mut values = head.get_all("last-event-id").iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Kind::Ambiguous, "send one Last-Event-ID"));
    }
    // What the client has seen last is newer than what its address says.
    let text = match value {
        Some(value) => Some(value.to_str().map_err(|_| Problem::invalid("Last-Event-ID is no id of an event"))?),
        None => query.after.as_deref(),
    };
    text.filter(|text| !text.is_empty()).map(str::parse).transpose().map_err(Problem::invalid)
}

/// Refuses a place that is still to come; tells of a gap if what was behind the place is gone.
async fn check(shared: &Shared, after: &Cursor) -> Result<Option<Bytes>, Problem> {
    let mut redis = shared.redis.get().await?;
    let now = shared.redis.checked(redis.now_ms().await)?;
    if after.key().0 > now.saturating_add(AHEAD_MOST) {
        return Err(Problem::invalid("there is no such event yet: its id is in the future"));
    }
    let oldest = shared.redis.checked(redis.oldest_event().await)?.map(Item::of);
    let gone = oldest.is_none_or(|oldest| after.key() < oldest.key);
    Ok((gone && *after != Cursor::start()).then(|| gap(after.key(), "trimmed")))
}

/// The event that says that some are missing behind this place.
fn gap((time, number): (u64, u64), reason: &str) -> Bytes {
    format!("event: gap\ndata: {{\"after\":\"{time}-{number}\",\"reason\":\"{reason}\"}}\n\n").into()
}

impl Watcher {
    /// The next frame; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return Some(frame);
            }
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Behind(after) => self.catch_up(after).await?,
                Phase::Live(mut ear) => match tokio::time::timeout(ALIVE, ear.next()).await {
                    Err(_) => {
                        self.queue.push_back(Bytes::from_static(b":\n\n"));
                        self.phase = Phase::Live(ear);
                    }
                    Ok(Heard::Item(item)) => {
                        self.add(&item);
                        self.phase = Phase::Live(ear);
                    }
                    // The client comes back with the last id that it has seen.
                    Ok(Heard::Lost) => self.queue.push_back(gap((0, 0), "slow")),
                },
            }
        }
    }

    /// Joins the feed, or reads a page that it does not have. `None`: Redis is away, and the client has to come back.
    async fn catch_up(&mut self, mut after: Cursor) -> Option<()> {
        if let Join::Live(items, ear) = self.shared.feed.join(after.key()) {
            items.iter().for_each(|item| self.add(item));
            self.phase = Phase::Live(ear);
            return Some(());
        }
        let page = {
            let mut redis = self.shared.redis.get().await.ok()?;
            let page = redis.events(&mut after, None).await;
            self.shared.redis.checked(page).ok()?
        };
        let end = page.is_empty();
        page.into_iter().for_each(|entry| self.add(&Item::of(entry)));
        if end {
            // The stream ends before the feed begins, which has everything from there on.
            match self.shared.feed.since() {
                Some((time, number)) => after = format!("{time}-{number}").parse().ok()?,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        self.phase = Phase::Behind(after);
        Some(())
    }

    fn add(&mut self, item: &Item) {
        if self.filter.wants(&item.entry) {
            self.queue.push_back(item.frame.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(after: Option<&str>, event: Option<&str>) -> EventsQuery {
        EventsQuery { event: event.map(str::to_owned), node: None, agent: None, after: after.map(str::to_owned) }
    }

    #[test]
    fn what_the_client_saw_last_counts() {
        let mut head = HeaderMap::new();
        assert_eq!(place(&query(None, None), &head).unwrap(), None);
        assert_eq!(place(&query(Some("5-1"), None), &head).unwrap().unwrap().key(), (5, 1));
        head.insert("last-event-id", "7-2".parse().unwrap());
        assert_eq!(place(&query(Some("5-1"), None), &head).unwrap().unwrap().key(), (7, 2));
        for wrong in ["abc", "1-2-3", "-1", "1-", "999999999999999999999", "1 -1"] {
            head.insert("last-event-id", wrong.parse().unwrap());
            assert_eq!(place(&query(None, None), &head).unwrap_err().kind, Kind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn only_kinds_that_exist_can_be_asked_for() {
        assert_eq!(Filter::of(&query(None, Some("live,node-up"))).unwrap().kinds, [EventKind::Live, EventKind::NodeUp]);
        for wrong in ["", "live,", "lives"] {
            assert_eq!(Filter::of(&query(None, Some(wrong))).unwrap_err().kind, Kind::Invalid, "{wrong}");
        }
    }
}
