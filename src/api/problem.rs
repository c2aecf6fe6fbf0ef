//! Errors as RFC 9457 has them. Owns which there are, their stable `type`s, and how an error of Redis becomes one. Must never
//! repeat what a client sent without escaping it.

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::registry::RegistryError;

/// What stands before a name in `type`. It leads nowhere on purpose: docs/api.md has a section for each name.
const TYPE_BASE: &str = "https://evenring.invalid/problems/";
/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// When to ask again what could not be answered now, in s.
const AGAIN_S: u64 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $status:ident, $title:literal;)*) => {
        /// What may be wrong. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The last part of its `type`.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Its status.
            pub(super) fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

kinds! {
    /// It cannot be read.
    Malformed = "malformed", BAD_REQUEST, "The request cannot be read";
    /// It can be read in two ways.
    Ambiguous = "ambiguous", BAD_REQUEST, "The request can be read in more than one way";
    /// No token, or one that nobody has.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid token is required";
    /// The token may not do this.
    Forbidden = "forbidden", FORBIDDEN, "The token does not allow this";
    /// A page of another site asks.
    ForeignOrigin = "foreign-origin", FORBIDDEN, "Requests of other sites are refused";
    /// There is no such path.
    NotFound = "not-found", NOT_FOUND, "There is no such path";
    /// No node knows the alias.
    UnknownAlias = "unknown-alias", NOT_FOUND, "No node knows this alias";
    /// Redis has no such session.
    UnknownSession = "unknown-session", NOT_FOUND, "There is no such session";
    /// No node has such a phone.
    UnknownPhone = "unknown-phone", NOT_FOUND, "No node knows this phone";
    /// There is no such node.
    UnknownNode = "unknown-node", NOT_FOUND, "There is no such node";
    /// The path has other methods.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not have this method";
    /// It came too slowly.
    TooSlow = "too-slow", REQUEST_TIMEOUT, "The request did not arrive in time";
    /// Another agent has the phone.
    InUse = "in-use", CONFLICT, "Another agent is logged in there";
    /// The agent has another phone.
    LoggedInElsewhere = "logged-in-elsewhere", CONFLICT, "The agent is logged in with another phone";
    /// No node can ring the phone.
    NoEligibleNode = "no-eligible-node", CONFLICT, "No node can ring this phone now";
    /// The explicit alias has no phones.
    EmptyAlias = "empty-alias", CONFLICT, "The explicit alias lists no phones";
    /// A node rings it.
    NotAHold = "not-a-hold", CONFLICT, "This is no hold";
    /// It is over.
    SessionOver = "session-over", CONFLICT, "The session is over";
    /// The body is too large.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The path is too long.
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The path is too long";
    /// The body is no JSON.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON";
    /// It can be read, but a value cannot be used.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "A value cannot be used";
    /// The key was used for another login.
    IdempotencyMismatch = "idempotency-mismatch", UNPROCESSABLE_ENTITY, "The Idempotency-Key belongs to another request";
    /// Too many requests.
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "Too many requests";
    /// The head is too large.
    HeadTooLarge = "head-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large";
    /// A fault of the program.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The request failed";
    /// Redis cannot be asked.
    RedisUnavailable = "redis-unavailable", SERVICE_UNAVAILABLE, "Redis is unavailable";
    /// The nodes have not reported yet.
    Recovering = "recovering", SERVICE_UNAVAILABLE, "The nodes have not reported yet";
    /// No node has registered.
    NoNode = "no-node", SERVICE_UNAVAILABLE, "No node has registered";
    /// Too much at once.
    Busy = "busy", SERVICE_UNAVAILABLE, "Too many requests are in progress";
}

/// A problem, as an answer.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    detail: String,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
}

/// A problem, as the description of the API has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// What kind of problem it is.
    #[schema(format = "uri")]
    r#type: String,
    /// The same in words.
    title: String,
    /// The status.
    status: u16,
    /// What happened, and what to do.
    detail: String,
}

impl Problem {
    /// What happened this time, and what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after_s = (kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(AGAIN_S);
        Self { kind, detail: detail.into(), more: Map::new(), retry_after_s }
    }

    /// A value that cannot be used.
    pub(super) fn invalid(detail: impl ToString) -> Self {
        Self::new(Kind::Invalid, detail.to_string())
    }

    /// With one more member.
    pub(super) fn with(mut self, key: &str, value: impl Serialize) -> Self {
        // What is shown of Redis always serialises.
        self.more.insert(key.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// With the time after which to ask again.
    pub(super) fn again_after(mut self, s: u64) -> Self {
        self.retry_after_s = Some(s);
        self
    }

    /// The answer's body.
    fn body(&self) -> Vec<u8> {
        let mut members = self.more.clone();
        members.insert("type".to_owned(), format!("{TYPE_BASE}{}", self.kind.name()).into());
        members.insert("title".to_owned(), self.kind.title().into());
        members.insert("status".to_owned(), self.kind.status().as_u16().into());
        members.insert("detail".to_owned(), self.detail.clone().into());
        Value::Object(members).to_string().into_bytes()
    }

    /// The whole answer in bytes, where no service is there to send it. The connection ends with it.
    pub(super) fn raw(&self) -> Vec<u8> {
        let (status, body) = (self.kind.status(), self.body());
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut head = HeaderMap::new();
        head.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(s) = self.retry_after_s {
            head.insert(RETRY_AFTER, HeaderValue::from(s));
        }
        if self.kind == Kind::Unauthorized {
            head.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (self.kind.status(), head, self.body()).into_response()
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        if matches!(error, RegistryError::NotNow { .. }) {
            let detail = "Redis has just recovered, and not all nodes have reported since: ask again in a few seconds";
            return Self::new(Kind::Recovering, detail);
        }
        // The error's own text names the server: that is for operators.
        if error.is_outage() {
            let detail = "Redis is unavailable or accepts no writes: ask again; the log of this node says why";
            return Self::new(Kind::RedisUnavailable, detail);
        }
        Self::new(Kind::Internal, "a call to Redis failed; the log of this node says why")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_section_in_the_pages() {
        let page = include_str!("../../docs/api.md");
        for kind in Kind::ALL {
            let section = format!("\n### {}\n", kind.name());
            assert!(page.contains(&section), "docs/api.md has no section {:?}", kind.name());
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
        }
        let sections = page.split("\n## Problems\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let known = |name: &&str| !Kind::ALL.iter().any(|kind| kind.name() == *name);
        let unknown: Vec<&str> = sections.lines().filter_map(|line| line.strip_prefix("### ")).filter(known).collect();
        assert_eq!(unknown, [""; 0], "no problem is called so");
    }

    #[test]
    fn a_problem_has_the_members_of_the_standard_and_its_own() {
        let problem = Problem::new(Kind::NoEligibleNode, "x").with("nodes", ["a"]).with("title", "not mine");
        let body: Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(body["type"], "https://evenring.invalid/problems/no-eligible-node");
        assert_eq!((&body["status"], &body["nodes"][0]), (&409.into(), &"a".into()));
        assert_eq!(body["title"], Kind::NoEligibleNode.title());
        let raw = String::from_utf8(problem.raw()).unwrap();
        assert!(raw.starts_with("HTTP/1.1 409 Conflict\r\n"), "{raw}");
        assert!(raw.ends_with(&format!("\r\n\r\n{}", String::from_utf8(problem.body()).unwrap())), "{raw}");
    }
}
