//! `/v1/logins` and `/v1/agents`: who logs in and out. Owns the statuses of what comes of it. Must never choose a node:
//! `registry/scripts/lib/placement.lua` does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::access::Caller;
use super::extract::{Id, Query, json};
use super::problem::{Kind, Problem, ProblemBody};
use crate::config::{span, span_text};
use crate::ids::{Agent, Alias, Campaign, SessionId};
use crate::node::keyword::Keyword as _;
use crate::node::session::{Class, Reason};
use crate::registry::answers::{LoginAnswer, LogoutAnswer};
use crate::registry::view::{
    OwnReason, Parsed, Placement, PlacementReason, RefusalReason, SessionRow, SessionState, Verdict, Which, reason_text,
};
use crate::registry::{Confirmed, Hold, LoggedOut, LoginRequest, session_of_key};
use crate::runtime::random::new_session;

/// The longest `wait`.
const WAIT_MOST: Duration = Duration::from_secs(25);
/// Interval at which a session is read that is waited for: an event may get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The header that makes a login repeatable.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of such a key.
const KEY_MOST: usize = 255;

/// A login.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginBody {
    /// What the agent types: an alias, or the extension alone.
    #[schema(value_type = String, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    alias: Alias,
    /// The agent; by default named after the phone.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    #[serde(default)]
    agent: Option<Agent>,
    /// The campaign.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    #[serde(default)]
    campaign: Option<Campaign>,
    /// An agent at a phone elsewhere: placed like any other, and never counted as load.
    #[serde(default)]
    remote: bool,
    /// An agent who is logged in with another phone is logged out there first, in the same step.
    #[serde(default)]
    r#move: bool,
    /// Of a hold: how long it stays without a word, from `1s` to `5m`; `30s` if it is left out.
    #[schema(value_type = Option<String>, pattern = r"^([1-9]|[1-9][0-9]|[12][0-9][0-9]|300)s$")]
    #[serde(default)]
    ttl: Option<String>,
    /// Of a hold: which phones may be chosen; `registered` if it is left out.
    #[schema(value_type = Option<String>, pattern = "^(registered|known)$")]
    #[serde(default)]
    require: Option<String>,
}

impl LoginBody {
    fn request(self, ring: Ring) -> Result<LoginRequest, Problem> {
        let hold = match ring {
            Ring::None => Some(Hold::parse(self.ttl.as_deref(), self.require.as_deref()).map_err(Problem::invalid)?),
            Ring::Phone if self.ttl.is_some() || self.require.is_some() => {
                let detail = "ttl and require are those of a hold: ask with `?ring=none`, or leave them out";
                return Err(Problem::new(Kind::NotAHold, detail));
            }
            Ring::Phone => None,
        };
        let class = if self.remote { Class::Remote } else { Class::Local };
        let Self { alias, agent, campaign, r#move: moves, .. } = self;
        Ok(LoginRequest { alias, agent, campaign, class, moves, hold })
    }
}

/// What became of a hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HoldAnswer {
    #[serde(flatten)]
    login: LoginAnswer,
    /// The host under which its node is reached, if that is known.
    address: Option<String>,
}

/// How a login is rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ring {
    /// The node rings the phone.
    #[default]
    Phone,
    /// Nobody is rung: a hold.
    None,
}

/// The query of a login.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LoginQuery {
    /// `none`: a hold, that is the choice and the reservation, and nobody is rung.
    #[serde(default)]
    #[param(inline)]
    ring: Ring,
}

/// Log an agent in: choose a node and ring the phone.
#[utoipa::path(
    post, path = "/v1/logins", tag = "logins", params(LoginQuery, ("Idempotency-Key" = Option<String>, Header,
        description = "The same key with the same body is the same session, for placement.session_keep.",
        min_length = 1, max_length = 255, pattern = r"^[\x21-\x7e]+$")),
    request_body = LoginBody,
    responses(
        (status = 201, description = "A node was chosen and rings the phone; of a hold, with its `address`", body = HoldAnswer,
            headers(("Location" = String, description = "The session"))),
        (status = 200, description = "The session that exists already; nothing rings", body = HoldAnswer),
        (status = 404, description = "unknown-alias", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "in-use, logged-in-elsewhere, empty-alias, or no-eligible-node with the reason of \
            each node in `nodes`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn log_in(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(query): Query<LoginQuery>,
    head: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    match query.ring {
        Ring::Phone => caller.may_log_in_some()?,
        Ring::None => caller.may_hold_some()?,
    }
    let key = idempotency_key(&head)?;
    let request = json::<LoginBody>(request).await?.request(query.ring)?;
    let (agent, campaign) =
        (request.agent.as_ref().map(Agent::as_str), request.campaign.as_ref().map(Campaign::as_str));
    match query.ring {
        Ring::Phone => caller.may_log_in(agent, campaign)?,
        Ring::None => caller.may_hold(agent, campaign)?,
    }
    let placement = place(&shared, &caller, &request, key.as_deref()).await?;
    let address = match (query.ring, placement.node.parse()) {
        (Ring::None, Ok(node)) => {
            let mut redis = shared.redis.get().await?;
            shared.redis.checked(redis.address_of(&node).await)?
        }
        (Ring::None | Ring::Phone, _) => None,
    };
    answer(&caller, &placement, address)
}

/// The agent of a hold is on the phone: whoever asked for it has rung. Repeating it is harmless.
#[utoipa::path(
    put, path = "/v1/logins/{id}/live", tag = "logins",
    params(("id" = String, Path, description = "The session", pattern = "^[0-9a-f]{16}$")),
    responses(
        (status = 200, description = "The session, which is live", body = SessionRow),
        (status = 404, description = "unknown-session", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "not-a-hold, session-over", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn is_live(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionRow>, Problem> {
    caller.may_hold_some()?;
    let before = session(&shared, id).await?;
    let campaign = (!before.campaign.is_empty()).then_some(before.campaign.as_str());
    caller.may_hold(Some(&before.agent), campaign)?;
    let confirmed = {
        let mut redis = shared.redis.get().await?;
        shared.redis.checked(redis.confirm(id).await)?
    };
    match confirmed {
        Confirmed::Live => session(&shared, id).await.map(Json),
        Confirmed::None => Err(Problem::new(Kind::UnknownSession, format!("Redis has no session {id}, or no longer"))),
        Confirmed::Rung => {
            Err(Problem::new(Kind::NotAHold, "the node of this session rings it, and says when it is live"))
        }
        Confirmed::Over(state, reason) => {
            let (state, reason) = (state.to_string(), reason_text(reason.as_ref()));
            let problem = Problem::new(Kind::SessionOver, format!("the session is over ({state}): ask for a new one"));
            Err(problem.with("state", state).with("reason", reason))
        }
    }
}

async fn place(
    shared: &Shared,
    caller: &Caller,
    request: &LoginRequest,
    key: Option<&str>,
) -> Result<Placement, Problem> {
    let mut redis = shared.redis.get().await?;
    let session = key.map_or_else(new_session, |key| session_of_key(&caller.name().to_string(), key));
    if key.is_some() && !shared.redis.checked(redis.belongs_to(session, request).await)? {
        let detail = "this Idempotency-Key was used for a login with another body: use a new key for each login";
        return Err(Problem::new(Kind::IdempotencyMismatch, detail));
    }
    let before = shared.clock.now();
    let placement = shared.redis.checked(redis.place(request, session).await)?;
    shared.observer.placed(&placement, shared.clock.now().since(before));
    Ok(placement)
}

fn idempotency_key(head: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = head.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::new(Kind::Ambiguous, "send one Idempotency-Key"));
    }
    let fine = |key: &&[u8]| (1..=KEY_MOST).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    let key = Some(value.as_bytes()).filter(fine).and_then(|key| String::from_utf8(key.to_vec()).ok());
    let wrong = || Problem::invalid(format!("the Idempotency-Key is not 1 to {KEY_MOST} visible ASCII characters"));
    key.map(Some).ok_or_else(wrong)
}

/// The answer to whoever asked for the login.
fn answer(caller: &Caller, placement: &Placement, address: Option<String>) -> Result<Response, Problem> {
    let login = LoginAnswer::of(placement);
    let body = HoldAnswer { login, address };
    match (placement.verdict, placement.session) {
        (Verdict::Placed, Some(session)) => {
            let location = [(LOCATION, format!("/v1/logins/{session}"))];
            Ok((StatusCode::CREATED, location, Json(body)).into_response())
        }
        (Verdict::Existing, _) => Ok(Json(body).into_response()),
        (Verdict::Placed | Verdict::Refused | Verdict::NotNow | Verdict::WouldPlace, _) => {
            Err(refusal(caller, placement, body.login))
        }
    }
}

fn refusal(caller: &Caller, placement: &Placement, answer: LoginAnswer) -> Problem {
    let alias = &placement.alias;
    let Some(PlacementReason::Refusal(Parsed::Known(reason))) = &placement.reason else {
        return Problem::new(Kind::Internal, format!("{alias}: {}", reason_text(placement.reason.as_ref())));
    };
    let (kind, detail) = match reason {
        RefusalReason::UnknownAlias => {
            (Kind::UnknownAlias, format!("no node knows {alias}, and there is no such explicit alias"))
        }
        RefusalReason::EmptyAlias => (Kind::EmptyAlias, format!("the explicit alias {alias} lists no phones")),
        RefusalReason::InUse => {
            let detail = format!("another agent is logged in with the phone of {alias}: log them out first");
            (Kind::InUse, detail)
        }
        RefusalReason::LoggedInElsewhere => {
            let detail = "the agent is logged in with another phone: log them out, or send \"move\": true";
            (Kind::LoggedInElsewhere, detail.to_owned())
        }
        RefusalReason::NoEligibleNode => (Kind::NoEligibleNode, format!("no node can ring the phone of {alias} now")),
        RefusalReason::Recovering => {
            (Kind::Recovering, "Redis has just recovered, and not all nodes have reported since".to_owned())
        }
        RefusalReason::NoNode => (Kind::NoNode, "no node has registered".to_owned()),
    };
    let problem = Problem::new(kind, detail);
    if kind == Kind::NoEligibleNode {
        return problem.with("nodes", placement.nodes.iter().map(Why::of).collect::<Vec<_>>());
    }
    // Whose session it is, is no business of a token for another agent.
    let names_other = matches!(kind, Kind::InUse | Kind::LoggedInElsewhere);
    if names_other && caller.is_wide() { problem.with("login", answer) } else { problem }
}

/// A node of a refusal.
#[derive(Debug, Serialize)]
struct Why<'a> {
    name: &'a str,
    why: &'a str,
    load: f64,
}

impl<'a> Why<'a> {
    fn of(candidate: &'a crate::registry::view::Candidate) -> Self {
        let why = candidate.reason.as_ref().map_or("", Parsed::as_str);
        Self { name: &candidate.name, why, load: candidate.load }
    }
}

/// The query of a look at a session.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Answer at the next change of the state, and after this time at the latest: `20s`, up to `25s`.
    #[param(pattern = r"^([0-9]|1[0-9]|2[0-5])s$")]
    wait: Option<String>,
    /// Wait only while the session is in this state, which the client knows: if it is in another one by now, answer at once.
    #[param(value_type = Option<String>, pattern = "^(placed|held|queued|ringing|live|ended|failed)$")]
    state: Option<String>,
}

impl WaitQuery {
    fn time(&self) -> Result<Option<Duration>, Problem> {
        let Some(text) = &self.wait else { return Ok(None) };
        let shown: String = text.chars().take(20).collect();
        let wait = span(text).map_err(|_| Problem::invalid(format!("wait={shown:?} is no time: write `20s`")))?;
        if wait > WAIT_MOST {
            let detail = format!("wait={} is more than {}", span_text(wait), span_text(WAIT_MOST));
            return Err(Problem::invalid(detail));
        }
        Ok(Some(wait))
    }

    fn known_state(&self) -> Result<Option<SessionState>, Problem> {
        let Some(word) = &self.state else { return Ok(None) };
        let shown: String = word.chars().take(20).collect();
        let wrong = || Problem::invalid(format!("state={shown:?} is no state of a session"));
        SessionState::of(word).map(Some).ok_or_else(wrong)
    }
}

/// One session, at once or at the next change of its state.
#[utoipa::path(
    get, path = "/v1/logins/{id}", tag = "logins",
    params(WaitQuery, ("id" = String, Path, description = "The session", pattern = "^[0-9a-f]{16}$")),
    responses((status = 200, description = "The session", body = SessionRow)),
)]
pub(super) async fn look(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<SessionId>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<SessionRow>, Problem> {
    let (wait, known) = (query.time()?, query.known_state()?);
    // Before the session is read, so that no change is missed in between.
    let mut feed = shared.feed.listen();
    let first = session(&shared, id).await?;
    caller.may_see(&first)?;
    let has_changed = known.is_some_and(|state| first.state != state);
    let Some(wait) = wait.filter(|_| !first.is_over() && !has_changed) else { return Ok(Json(first)) };
    let full = || Problem::new(Kind::Busy, "too many requests wait for a session already: ask without `wait`");
    let _seat = shared.waiting.try_acquire().map_err(|_| full())?;
    let until = shared.clock.now().after(wait);
    loop {
        let left = until.since(shared.clock.now());
        if left.is_zero() {
            return session(&shared, id).await.map(Json);
        }
        // The time is up, or something has happened, or a change was overlooked: the session is read again.
        let _ = tokio::time::timeout(left.min(LOOK_AGAIN), feed.changed(id)).await;
        let now = session(&shared, id).await?;
        if now.state != first.state {
            return Ok(Json(now));
        }
    }
}

async fn session(shared: &Shared, id: SessionId) -> Result<SessionRow, Problem> {
    let mut redis = shared.redis.get().await?;
    let found = shared.redis.checked(redis.sessions(Which::One(id)).await)?.pop();
    found.ok_or_else(|| Problem::new(Kind::UnknownSession, format!("Redis has no session {id}, or no longer")))
}

/// Log out the agent of a session. Repeating it is harmless.
#[utoipa::path(
    delete, path = "/v1/logins/{id}", tag = "logins",
    params(("id" = String, Path, description = "The session", pattern = "^[0-9a-f]{16}$")),
    responses((status = 202, description = "It is over, or its node is asked to hang up", body = LogoutAnswer)),
)]
pub(super) async fn log_out(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<SessionId>,
) -> Result<Response, Problem> {
    caller.may_end_some()?;
    end(&shared, &caller, Some(id)).await
}

/// Log an agent out. Repeating it is harmless.
#[utoipa::path(
    delete, path = "/v1/agents/{agent}", tag = "logins",
    params(("agent" = String, Path, description = "The agent", min_length = 1, max_length = 64,
        pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")),
    responses((status = 202, description = "It is over, or its node is asked to hang up", body = LogoutAnswer)),
)]
pub(super) async fn log_out_agent(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(agent): Id<Agent>,
) -> Result<Response, Problem> {
    caller.may_end_some()?;
    let id = {
        let mut redis = shared.redis.get().await?;
        shared.redis.checked(redis.session_of_agent(&agent).await)?
    };
    if id.is_none() {
        caller
            .may_log_in(Some(agent.as_str()), None)
            .or_else(|_| caller.may_hold(Some(agent.as_str()), None))
            .or_else(|problem| if caller.is_wide() { Ok(()) } else { Err(problem) })?;
    }
    end(&shared, &caller, id).await
}

/// Ends a session, if there is one.
async fn end(shared: &Shared, caller: &Caller, id: Option<SessionId>) -> Result<Response, Problem> {
    let mut redis = shared.redis.get().await?;
    let row = match id {
        Some(id) => shared.redis.checked(redis.sessions(Which::One(id)).await)?.pop(),
        None => None,
    };
    let nobody = || LogoutAnswer::new(None, "", "none", OwnReason::NotLoggedIn.as_str());
    let answer = match (id, row) {
        (Some(id), Some(row)) => {
            caller.may_end(&row)?;
            if row.is_over() {
                LogoutAnswer::new(Some(id), &row.node, row.state.as_str(), &reason_text(row.reason.as_ref()))
            } else {
                // Sixteen hexadecimal digits are an alias in form.
                let who: Alias = id.to_string().parse().map_err(Problem::invalid)?;
                match shared.redis.checked(redis.logout(&who).await)? {
                    LoggedOut::Nobody => nobody(),
                    LoggedOut::Ended(id, node) => {
                        let (state, reason) = (SessionState::Ended.as_str(), Reason::LoggedOut.to_string());
                        LogoutAnswer::new(Some(id), &node, state, &reason)
                    }
                    LoggedOut::Asked(id, node) => LogoutAnswer::new(Some(id), &node, row.state.as_str(), ""),
                }
            }
        }
        (Some(_) | None, _) => nobody(),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_time_up_to_25_s() {
        let time = |text: &str| WaitQuery { wait: Some(text.to_owned()), state: None }.time();
        assert_eq!(time("20s").unwrap(), Some(Duration::from_secs(20)));
        assert_eq!(time("25s").unwrap(), Some(WAIT_MOST));
        for wrong in ["26s", "1e9", "", "-1s", "20", "999999999999999999h"] {
            assert_eq!(time(wrong).unwrap_err().kind, Kind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_one_word_of_visible_characters() {
        let key = |values: &[&'static [u8]]| {
            let mut head = HeaderMap::new();
            for value in values {
                head.append(IDEMPOTENCY_KEY, axum::http::HeaderValue::from_bytes(value).unwrap());
            }
            idempotency_key(&head)
        };
        assert_eq!(key(&[]).unwrap(), None);
        assert_eq!(key(&[b"a-1"]).unwrap().as_deref(), Some("a-1"));
        assert_eq!(key(&[b"a", b"b"]).unwrap_err().kind, Kind::Ambiguous);
        for wrong in [&b""[..], b"a b", b"\xff", &[b'a'; 256]] {
            assert_eq!(key(&[wrong]).unwrap_err().kind, Kind::Invalid, "{wrong:?}");
        }
    }
}
