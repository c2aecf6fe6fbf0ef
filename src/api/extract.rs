//! How a request is read: the body, the query, what stands in the path. Owns the limits of a body and the texts of what is
//! wrong. Must never know what a request means.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query as AxumQuery, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};

/// Bytes of a body.
const BODY_MOST: usize = 16 << 10;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Characters of an error's text that quotes what was sent.
const SHOWN_MOST: usize = 300;

/// The query of a request; unknown keys are refused by the type.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |error: QueryRejection| Problem::invalid(shown(&error.body_text()));
        AxumQuery::from_request_parts(parts, state).await.map(|AxumQuery(query)| Self(query)).map_err(wrong)
    }
}

/// The one id in the path of a request.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr<Err: ToString>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|error| Problem::invalid(shown(&error.body_text())))?;
        text.parse().map(Self).map_err(|error: T::Err| Problem::invalid(shown(&error.to_string())))
    }
}

/// The body of a request, which must be one JSON document of this type.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(Kind::UnsupportedMediaType, "send Content-Type: application/json"));
    }
    let body = body(request).await?;
    // A list of its values in order would be read as the document, too.
    if !body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<serde_json::Value>(&body).is_ok() {
        return Err(Problem::invalid("the body is not a JSON object"));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data if body.trim_ascii_start().starts_with(b"{") => Kind::Invalid,
            serde_json::error::Category::Data => Kind::Malformed,
            serde_json::error::Category::Syntax | serde_json::error::Category::Eof => Kind::Malformed,
            serde_json::error::Category::Io => Kind::Internal,
        };
        Problem::new(kind, shown(&error.to_string()))
    })
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::TooLarge, format!("the body has more than {BODY_MOST} bytes"));
    let body = request.into_body();
    if body.size_hint().lower() > BODY_MOST as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_MOST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if is_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::Malformed, "the body ended early, or its chunks are wrong")),
        Err(_) => Err(Problem::new(Kind::TooSlow, "the body did not arrive within 5 s")),
    }
}

fn is_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string().contains("length limit"))
}

/// An error's text without control characters, and cut short.
fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN_MOST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}
