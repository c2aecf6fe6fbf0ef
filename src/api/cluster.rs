//! What the cluster is like: nodes, sessions, phones, where a login would ring, and what Prometheus is to ask; and draining.
//! Owns these answers, which are those of the command line. Must never compute what the registry can.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::access::Caller;
use super::extract::{Id, Query};
use super::problem::{Kind, Problem};
use crate::ids::{Agent, Alias, Campaign, Extension, NodeName};
use crate::node::AdminState;
use crate::node::session::Class;
use crate::registry::answers::{DrainAnswer, ExplainAnswer, NodesAnswer, PhonesAnswer};
use crate::registry::view::{SessionRow, SessionState, Verdict, reason_text};
use crate::registry::{LoginRequest, PageEnd};
use crate::runtime::random::new_session;

/// Sessions on a page if nothing else is said, and at most.
const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;
/// Pages of Redis that one request may read: a filter that fits nobody is continued by the next request.
const PAGES_MOST: usize = 50;
/// Where a daemon serves its metrics, if this one does not.
const METRICS_PORT: u16 = 9816;

/// All nodes.
#[utoipa::path(get, path = "/v1/nodes", tag = "cluster",
    responses((status = 200, description = "All nodes, as `evenring status --json`", body = NodesAnswer)))]
pub(super) async fn nodes(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<NodesAnswer>, Problem> {
    caller.may_read()?;
    let mut redis = shared.redis.get().await?;
    let nodes = shared.redis.checked(redis.nodes_shown().await)?;
    let refused = redis.try_login().await.err();
    Ok(Json(NodesAnswer { nodes, redis: reason_text(refused.as_ref()) }))
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionsQuery {
    /// Only this agent.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    agent: Option<Agent>,
    /// Only this alias.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    alias: Option<Alias>,
    /// Only this node.
    #[param(value_type = Option<String>, min_length = 1, max_length = 40, pattern = r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]
    node: Option<NodeName>,
    /// Only this state; without it, all that are open.
    #[param(inline)]
    state: Option<StateWord>,
    /// The most that are returned, up to 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    #[param(pattern = "^[0-9]{1,15}-[0-9a-f]{16}$")]
    after: Option<String>,
}

/// A state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StateWord {
    /// Its node has the order.
    Placed,
    /// It waits for its turn to ring.
    Queued,
    /// Its phone rings.
    Ringing,
    /// Its agent has answered.
    Live,
    /// It is over.
    Ended,
    /// It never became live.
    Failed,
}

impl StateWord {
    fn state(self) -> SessionState {
        match self {
            Self::Placed => SessionState::Placed,
            Self::Queued => SessionState::Queued,
            Self::Ringing => SessionState::Ringing,
            Self::Live => SessionState::Live,
            Self::Ended => SessionState::Ended,
            Self::Failed => SessionState::Failed,
        }
    }
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionsPage {
    /// The oldest change first.
    sessions: Vec<SessionRow>,
    /// `after` of the next page; none: this was the last.
    next: Option<String>,
}

impl SessionsQuery {
    fn wants(&self, row: &SessionRow, alias: Option<&str>) -> bool {
        self.agent.as_ref().is_none_or(|agent| row.agent == agent.as_str())
            && alias.is_none_or(|alias| row.alias == alias)
            && self.node.as_ref().is_none_or(|node| row.node == node.as_str())
            && self.state.is_none_or(|word| row.state == word.state())
    }
}

/// Who is logged in where.
#[utoipa::path(get, path = "/v1/sessions", tag = "cluster", params(SessionsQuery),
    responses((status = 200, description = "Sessions, as `evenring sessions --json`, in pages", body = SessionsPage)))]
pub(super) async fn sessions(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<SessionsPage>, Problem> {
    caller.may_read()?;
    let limit = query.limit.map_or(LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if !(1..=LIMIT_MOST).contains(&limit) {
        return Err(Problem::invalid(format!("limit={limit} is not between 1 and {LIMIT_MOST}")));
    }
    let mut end: Option<PageEnd> = query.after.as_deref().map(str::parse).transpose().map_err(Problem::invalid)?;
    let over = query.state.is_some_and(|word| word.state().is_over());
    let mut found = Vec::new();
    for _ in 0..PAGES_MOST {
        let mut redis = shared.redis.get().await?;
        let case = redis.case();
        let alias = query.alias.as_ref().map(|alias| case.one_spelling(alias.as_str()));
        let (rows, next) = shared.redis.checked(redis.sessions_page(over, end.as_ref()).await)?;
        drop(redis);
        for row in rows {
            if query.wants(&row, alias.as_deref()) {
                if found.len() == limit {
                    let next = found.last().and_then(PageEnd::of).map(|end| end.to_string());
                    return Ok(Json(SessionsPage { sessions: found, next }));
                }
                found.push(row);
            }
        }
        end = next;
        if end.is_none() {
            break;
        }
    }
    Ok(Json(SessionsPage { sessions: found, next: end.map(|end| end.to_string()) }))
}

/// One phone on each node.
#[utoipa::path(get, path = "/v1/phones/{extension}", tag = "cluster",
    params(("extension" = String, Path, description = "The phone", min_length = 1, max_length = 64,
        pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")),
    responses((status = 200, description = "The phone, as `evenring phones EXTENSION --json`", body = PhonesAnswer)))]
pub(super) async fn phones(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(extension): Id<Extension>,
) -> Result<Json<PhonesAnswer>, Problem> {
    caller.may_read()?;
    let mut redis = shared.redis.get().await?;
    let phones = shared.redis.checked(redis.phones_shown(Some(&extension)).await)?;
    if phones.is_empty() {
        return Err(Problem::new(Kind::UnknownPhone, format!("no node knows the phone {extension}")));
    }
    Ok(Json(PhonesAnswer { phones }))
}

/// Who would log in.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// The agent; by default named after the phone.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")]
    agent: Option<Agent>,
    /// The campaign.
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    campaign: Option<Campaign>,
    /// An agent at a phone elsewhere.
    #[serde(default)]
    remote: bool,
}

/// Where a login would ring, and why.
#[utoipa::path(get, path = "/v1/explain/{alias}", tag = "cluster",
    params(ExplainQuery, ("alias" = String, Path, description = "Alias or extension", min_length = 1, max_length = 64,
        pattern = r"^[A-Za-z0-9_+][A-Za-z0-9_.-]*$")),
    responses((status = 200, description = "The choice, as `evenring explain --json`", body = ExplainAnswer)))]
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(alias): Id<Alias>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<ExplainAnswer>, Problem> {
    caller.may_read()?;
    let class = if query.remote { Class::Remote } else { Class::Local };
    let request = LoginRequest { alias, agent: query.agent, campaign: query.campaign, class, moves: false, hold: None };
    let mut redis = shared.redis.get().await?;
    let placement = shared.redis.checked(redis.explain(&request, new_session()).await)?;
    if placement.verdict != Verdict::Existing {
        // Where a login would fail, no node would ring.
        shared.redis.checked(redis.try_login().await)?;
    }
    Ok(Json(ExplainAnswer::of(&placement)))
}

/// Drain a node: no new logins, those that it has stay.
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", tag = "cluster",
    params(("node" = String, Path, description = "The node", min_length = 1, max_length = 40,
        pattern = "^[A-Za-z0-9_][A-Za-z0-9_-]*$")),
    responses((status = 200, description = "It drains, as `evenring drain --json`", body = DrainAnswer)))]
pub(super) async fn drain(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(node): Id<NodeName>,
) -> Result<Json<DrainAnswer>, Problem> {
    turn(&shared, &caller, &node, AdminState::Drain).await
}

/// Resume a drained node: it takes logins again.
#[utoipa::path(post, path = "/v1/nodes/{node}/resume", tag = "cluster",
    params(("node" = String, Path, description = "The node", min_length = 1, max_length = 40,
        pattern = "^[A-Za-z0-9_][A-Za-z0-9_-]*$")),
    responses((status = 200, description = "It takes logins, as `evenring resume --json`", body = DrainAnswer)))]
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(node): Id<NodeName>,
) -> Result<Json<DrainAnswer>, Problem> {
    turn(&shared, &caller, &node, AdminState::Ready).await
}

async fn turn(shared: &Shared, caller: &Caller, node: &NodeName, to: AdminState) -> Result<Json<DrainAnswer>, Problem> {
    caller.may_administer()?;
    let mut redis = shared.redis.get().await?;
    let by = format!("by token {}", caller.name());
    let turned = shared.redis.checked(redis.set_admin_state_by(node, to, &by).await)?;
    let turned = turned.ok_or_else(|| Problem::new(Kind::UnknownNode, format!("there is no node {node}")))?;
    let rows = shared.redis.checked(redis.nodes().await)?;
    let row = rows.iter().find(|row| row.name == node.as_str());
    let left = row.map_or((0, 0), |row| (row.agents, row.remote));
    Ok(Json(DrainAnswer::of(node, to, &turned, left)))
}

/// Targets of Prometheus.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TargetGroup {
    /// `host:port`.
    targets: Vec<String>,
    labels: TargetLabels,
}

/// What is said of a target.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TargetLabels {
    /// The node.
    node: String,
}

/// The daemons, for Prometheus (http_sd).
#[utoipa::path(get, path = "/v1/prometheus/targets", tag = "cluster",
    responses((status = 200, description = "A target for each node", body = [TargetGroup])))]
pub(super) async fn targets(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
) -> Result<Json<Vec<TargetGroup>>, Problem> {
    caller.may_read()?;
    let mut redis = shared.redis.get().await?;
    let rows = shared.redis.checked(redis.nodes().await)?;
    let port = shared.metrics_port.unwrap_or(METRICS_PORT);
    let group = |row: crate::registry::view::NodeRow| {
        let host = row.address.map_or(row.host, |address| address.in_uri());
        let targets = (!host.is_empty()).then(|| vec![format!("{host}:{port}")])?;
        Some(TargetGroup { targets, labels: TargetLabels { node: row.name } })
    };
    Ok(Json(rows.into_iter().filter_map(group).collect()))
}
