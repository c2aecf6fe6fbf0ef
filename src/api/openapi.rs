//! `/openapi.json`: the description of the API, made from its types. Owns what all operations have in common. Must never
//! describe what a handler does not do.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::Shared;
use super::access::Caller;
use super::problem::{PROBLEM_JSON, ProblemBody};

/// The name of the one way to show a token.
const SCHEME: &str = "token";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "evenring",
        description = "Phone-alias load balancing for Asterisk: logins, the cluster, its events. \
        Problems are those of docs/api.md."
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// A router that collects descriptions.
pub(super) fn router() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// The whole document: each operation needs a token, and may answer with a problem.
pub(super) fn finish(mut document: utoipa::openapi::OpenApi) -> String {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token of `evenring token new`"));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer.build()));
    document.security = Some(vec![SecurityRequirement::new(SCHEME, [""; 0])]);
    let problem = ResponseBuilder::new()
        .description("A problem (RFC 9457)")
        .content(PROBLEM_JSON, Content::new(Some(Ref::from_schema_name("Problem"))))
        .build();
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.put, &mut path.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem.clone()));
        }
    }
    // It is made of texts: it always serialises.
    document.to_json().unwrap_or_default()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "description",
    responses((status = 200, description = "The description of the API, OpenAPI 3.1", body = Object)))]
pub(super) async fn document(State(shared): State<Arc<Shared>>, _caller: Caller) -> Response {
    ([(CONTENT_TYPE, "application/json")], shared.openapi.clone()).into_response()
}
