//! What every request passes before it is answered: the rates, the token, the count. Owns who a request comes from. Must never
//! answer anything itself but a refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::debug;

use super::Shared;
use super::problem::{Kind, Problem};
use super::token::{Scope, Token, TokenName, Whom};
use super::wire::Connection;
use crate::registry::view::SessionRow;

/// Whoever sent a request: a token that is known.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<Token>);

impl Caller {
    /// The name of the token.
    pub(super) fn name(&self) -> &TokenName {
        &self.0.name
    }

    /// Whether they may see nodes, sessions, phones and events.
    pub(super) fn may_read(&self) -> Result<(), Problem> {
        self.needs("read", self.0.scopes.contains(&Scope::Read))
    }

    /// Whether they may drain and resume nodes.
    pub(super) fn may_administer(&self) -> Result<(), Problem> {
        self.needs("admin", self.0.scopes.contains(&Scope::Admin))
    }

    /// Whether they may log in anybody at all.
    pub(super) fn may_log_in_some(&self) -> Result<(), Problem> {
        self.needs("login", self.logins().next().is_some())
    }

    /// Whether they may log in this agent for this campaign.
    pub(super) fn may_log_in(&self, agent: Option<&str>, campaign: Option<&str>) -> Result<(), Problem> {
        self.may_log_in_some()?;
        covered("login", self.logins(), agent, campaign)
    }

    /// Whether they may reserve a node without ringing, for anybody at all.
    pub(super) fn may_hold_some(&self) -> Result<(), Problem> {
        self.needs("hold", self.holds().next().is_some())
    }

    /// Whether they may do so for this agent and this campaign.
    pub(super) fn may_hold(&self, agent: Option<&str>, campaign: Option<&str>) -> Result<(), Problem> {
        self.may_hold_some()?;
        covered("hold", self.holds(), agent, campaign)
    }

    /// Whether they may end the session of anybody at all.
    pub(super) fn may_end_some(&self) -> Result<(), Problem> {
        self.may_log_in_some().or_else(|problem| self.may_hold_some().map_err(|_| problem))
    }

    /// Whether they may end this session.
    pub(super) fn may_end(&self, row: &SessionRow) -> Result<(), Problem> {
        let campaign = (!row.campaign.is_empty()).then_some(row.campaign.as_str());
        let login = self.may_log_in(Some(&row.agent), campaign);
        if row.hold {
            login.or_else(|problem| self.may_hold(Some(&row.agent), campaign).map_err(|_| problem))
        } else {
            login
        }
    }

    /// Whether they may see this session.
    pub(super) fn may_see(&self, row: &SessionRow) -> Result<(), Problem> {
        self.may_read().or_else(|_| self.may_end(row))
    }

    /// Whether it sees whatever there is: the logins of everybody, too.
    pub(super) fn is_wide(&self) -> bool {
        self.0.scopes.contains(&Scope::Read) || self.logins().any(|whom| *whom == Whom::All)
    }

    fn logins(&self) -> impl Iterator<Item = &Whom> {
        self.0.scopes.iter().filter_map(|scope| match scope {
            Scope::Login(whom) => Some(whom),
            Scope::Read | Scope::Hold(_) | Scope::Admin => None,
        })
    }

    fn holds(&self) -> impl Iterator<Item = &Whom> {
        self.0.scopes.iter().filter_map(|scope| match scope {
            Scope::Hold(whom) => Some(whom),
            Scope::Read | Scope::Login(_) | Scope::Admin => None,
        })
    }

    fn needs(&self, scope: &str, has: bool) -> Result<(), Problem> {
        if has { Ok(()) } else { Err(Problem::new(Kind::Forbidden, format!("this needs the scope `{scope}`"))) }
    }
}

/// Whether one of those whom a scope is for is this agent of this campaign.
fn covered<'a>(
    scope: &str,
    mut whom: impl Iterator<Item = &'a Whom>,
    agent: Option<&str>,
    campaign: Option<&str>,
) -> Result<(), Problem> {
    if whom.any(|whom| whom.covers(agent, campaign)) {
        return Ok(());
    }
    let detail = format!(
        "the scope `{scope}` of this token is narrowed to another agent or campaign; a narrowed token must name its agent or \
            campaign in the request"
    );
    Err(Problem::new(Kind::Forbidden, detail))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        // Every route lies behind `guard`, which puts it there.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::new(Kind::Unauthorized, NO_TOKEN))
    }
}

const NO_TOKEN: &str = "send a token of this cluster: `Authorization: Bearer TOKEN`";

/// Lets a request through, or refuses it; counts it either way.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| super::route_label(path.as_str()));
    let response = match check(&shared, &request) {
        Ok(caller) => {
            debug!(node = %shared.node, token = %caller.name(), method = %request.method(), route, "request");
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    shared.observer.answered(route, response.status().as_u16());
    response
}

fn check(shared: &Shared, request: &Request) -> Result<Caller, Problem> {
    let head = request.headers();
    let connection = request.extensions().get::<Connection>();
    if let Some(connection) = connection {
        shared.limits.address(connection.peer)?;
        if connection.ambiguous.load(Ordering::Relaxed) {
            let detail = "send either Content-Length or Transfer-Encoding, not both";
            return Err(Problem::new(Kind::Ambiguous, detail));
        }
    }
    let token = token(head)?;
    let found = token.and_then(|token| shared.tokens.borrow().find(token));
    let caller = Caller(found.ok_or_else(|| Problem::new(Kind::Unauthorized, NO_TOKEN))?);
    if let Some(connection) = connection {
        connection.strangers.remove(connection.number);
    }
    own_origin(head)?;
    shared.limits.token(caller.name())?;
    Ok(caller)
}

/// The token of a request.
fn token(head: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = head.get_all(AUTHORIZATION).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Kind::Ambiguous, "send one Authorization header"));
    }
    let Some((scheme, token)) = value.and_then(|value| value.as_bytes().split_at_checked(7)) else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii()))
}

/// Refuses what a page of another site sends.
fn own_origin(head: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = head.get(ORIGIN) else { return Ok(()) };
    let own = head.get(HOST).map(|host| host.as_bytes());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host.as_bytes());
    if origin.is_some() && origin == own {
        return Ok(());
    }
    Err(Problem::new(Kind::ForeignOrigin, "the Origin of the request is not the host that it was sent to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in lines {
            head.append(*name, value.parse().unwrap());
        }
        head
    }

    #[test]
    fn one_token_is_read_and_two_are_refused() {
        assert_eq!(token(&head(&[("authorization", "Bearer x")])).unwrap(), Some(&b"x"[..]));
        assert_eq!(token(&head(&[("authorization", "bearer x")])).unwrap(), Some(&b"x"[..]));
        for none in ["Basic eDp5", "x", "Bearer"] {
            assert_eq!(token(&head(&[("authorization", none)])).unwrap(), None, "{none}");
        }
        assert_eq!(token(&head(&[])).unwrap(), None);
        let two = head(&[("authorization", "Bearer x"), ("authorization", "Bearer x")]);
        assert_eq!(token(&two).unwrap_err().kind, Kind::Ambiguous);
    }

    #[test]
    fn the_page_of_another_site_is_refused() {
        assert!(own_origin(&head(&[("host", "a:9817")])).is_ok());
        assert!(own_origin(&head(&[("host", "a:9817"), ("origin", "http://a:9817")])).is_ok());
        for origin in ["http://b:9817", "null", "http://a:9817.evil", "http://a"] {
            let refused = own_origin(&head(&[("host", "a:9817"), ("origin", origin)]));
            assert_eq!(refused.unwrap_err().kind, Kind::ForeignOrigin, "{origin}");
        }
    }
}
