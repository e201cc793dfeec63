//! Errors in the server's format (contract, 0.1 and 12).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// An error: the HTTP status and the server's error object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    body: ErrorBody,
    challenges: &'static [&'static str],
}

#[derive(Debug, Clone, PartialEq)]
enum ErrorBody {
    /// `{"error":{"type":…,"reason":…,…},"status":…}`
    Exception { chain: Vec<Cause> },
    /// `{"error":"…","status":…}`, as written by the REST layer.
    Sentence(String),
    /// `{}`, the answer to a request for pipelines that do not exist.
    Empty,
}

#[derive(Debug, Clone, PartialEq)]
struct Cause {
    kind: &'static str,
    reason: String,
}

/// Authentication schemes offered by a secured cluster (contract, 12).
const CHALLENGES: &[&str] =
    &["Basic realm=\"security\", charset=\"UTF-8\"", "Bearer realm=\"security\"", "ApiKey"];

const PARSE: &str = "x_content_parse_exception";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, reason: impl Into<String>) -> Self {
        let chain = vec![Cause { kind, reason: reason.into() }];
        Self { status, body: ErrorBody::Exception { chain }, challenges: &[] }
    }

    /// An exception of the server by the name that answers have for its class.
    pub(crate) fn exception(
        status: StatusCode,
        kind: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(status, kind, reason)
    }

    /// An `ElasticsearchStatusException` with its own status.
    pub(crate) fn status(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::new(status, "status_exception", reason)
    }

    pub(crate) fn bad_request(reason: impl Into<String>) -> Self {
        Self::status(StatusCode::BAD_REQUEST, reason)
    }

    pub(crate) fn conflict(reason: impl Into<String>) -> Self {
        Self::status(StatusCode::CONFLICT, reason)
    }

    pub(crate) fn too_many_requests(reason: impl Into<String>) -> Self {
        Self::status(StatusCode::TOO_MANY_REQUESTS, reason)
    }

    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "resource_not_found_exception", reason)
    }

    /// The server returns 400 here, not 409 (contract, 0.1).
    pub(crate) fn already_exists(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "resource_already_exists_exception", reason)
    }

    /// A circuit breaker has tripped (contract, 12).
    pub(crate) fn breaker() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "circuit_breaking_exception",
            "[parent] Data too large, data for [<http_request>] would be [1050000000/1001.3mb], which is larger than the limit of [1020054732/972.7mb]",
        )
    }

    /// A queue is full (contract, 12).
    pub(crate) fn rejected() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "es_rejected_execution_exception",
            "rejected execution of coordinating operation",
        )
    }

    /// The cluster has no master (contract, 12).
    pub(crate) fn no_master() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "master_not_discovered_exception", "null")
    }

    /// The server error created by `ExceptionsHelper`, with type `exception`.
    pub(crate) fn server(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "exception", reason)
    }

    /// A status exception with status 500, as thrown by the result processors.
    pub(crate) fn internal(reason: impl Into<String>) -> Self {
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }

    pub(crate) fn not_implemented(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "exception", reason)
    }

    pub(crate) fn illegal_argument(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "illegal_argument_exception", reason)
    }

    /// A validation error with numbered messages.
    pub(crate) fn validation(complaints: &[String]) -> Self {
        let mut reason = String::from("Validation Failed: ");
        for (i, complaint) in complaints.iter().enumerate() {
            reason.push_str(&format!("{}: {complaint};", i + 1));
        }
        Self::new(StatusCode::BAD_REQUEST, "action_request_validation_exception", reason)
    }

    pub(crate) fn parse(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, PARSE, reason)
    }

    /// A named object, such as a task or tokenizer, without a parser in the server.
    pub(crate) fn unknown_object(category: &str, name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "named_object_not_found_exception",
            format!("[1:1] unable to parse {category} with name [{name}]: parser not found"),
        )
    }

    pub(crate) fn deployment_timeout(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "model_deployment_timeout_exception", reason)
    }

    pub(crate) fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "security_exception", reason)
    }

    pub(crate) fn unauthenticated(reason: impl Into<String>) -> Self {
        Self {
            challenges: CHALLENGES,
            ..Self::new(StatusCode::UNAUTHORIZED, "security_exception", reason)
        }
    }

    /// An error of the REST layer before any action runs: a plain sentence.
    pub(crate) fn sentence(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, body: ErrorBody::Sentence(sentence.into()), challenges: &[] }
    }

    /// A status with an empty object as its body.
    pub(crate) fn empty_object(status: StatusCode) -> Self {
        Self { status, body: ErrorBody::Empty, challenges: &[] }
    }

    /// A header that requests an unsupported major version.
    pub(crate) fn media_type(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "media_type_header_exception", reason)
    }

    /// Wraps this error, which occurred while the object `parser` was parsed, in the exception of that parser.
    pub(crate) fn while_parsing(self, parser: &str, field: &str) -> Self {
        self.caused(ApiError::parse(format!("[1:1] [{parser}] failed to parse field [{field}]")))
    }

    /// Returns `outer` with this error as its cause.
    pub(crate) fn caused(self, mut outer: Self) -> Self {
        if let (ErrorBody::Exception { chain }, ErrorBody::Exception { chain: causes }) =
            (&mut outer.body, self.body)
        {
            chain.extend(causes);
        }
        outer
    }

    /// Reason of the outermost exception.
    pub(crate) fn reason(&self) -> &str {
        match &self.body {
            ErrorBody::Exception { chain } => &chain[0].reason,
            ErrorBody::Sentence(sentence) => sentence,
            ErrorBody::Empty => "",
        }
    }

    /// All reasons of the chain, outermost first, for tests and logs.
    #[cfg(test)]
    pub(crate) fn everything(&self) -> String {
        match &self.body {
            ErrorBody::Exception { chain } => {
                chain.iter().map(|cause| cause.reason.as_str()).collect::<Vec<_>>().join("; ")
            }
            ErrorBody::Sentence(sentence) => sentence.clone(),
            ErrorBody::Empty => String::new(),
        }
    }

    fn to_json(&self) -> Value {
        let status = self.status.as_u16();
        let chain = match &self.body {
            ErrorBody::Sentence(sentence) => return json!({"error": sentence, "status": status}),
            ErrorBody::Empty => return json!({}),
            ErrorBody::Exception { chain } => chain,
        };
        let render = |cause: &Cause| {
            let mut object = Map::new();
            object.insert("type".into(), cause.kind.into());
            object.insert("reason".into(), cause.reason.clone().into());
            if !self.challenges.is_empty() {
                object.insert("header".into(), json!({"WWW-Authenticate": self.challenges}));
            }
            object
        };
        let mut causes = chain.iter().rev();
        let mut error = causes.next().map(render).unwrap_or_default();
        for cause in causes {
            let inner = std::mem::replace(&mut error, render(cause));
            error.insert("caused_by".into(), inner.into());
        }
        // The root cause is the innermost exception of the parser.
        let parsers = chain.iter().take_while(|cause| cause.kind == PARSE).count();
        let root = render(&chain[parsers.max(1) - 1]);
        let mut body = Map::new();
        body.insert("root_cause".into(), json!([root]));
        body.extend(error);
        json!({"error": body, "status": status})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        for challenge in self.challenges {
            response
                .headers_mut()
                .append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_the_envelope_of_the_server() {
        let error = ApiError::already_exists("Trained machine learning model [m] already exists");
        assert_eq!(
            error.to_json(),
            json!({"error": {
                "root_cause": [{
                    "type": "resource_already_exists_exception",
                    "reason": "Trained machine learning model [m] already exists"
                }],
                "type": "resource_already_exists_exception",
                "reason": "Trained machine learning model [m] already exists"
            }, "status": 400})
        );
    }

    #[test]
    fn nested_causes_have_the_innermost_parser_as_root() {
        let error = ApiError::bad_request("illegal")
            .while_parsing("ner", "tokenization")
            .while_parsing("trained_model_config", "inference_config");
        let json = error.to_json();
        assert_eq!(
            json["error"]["reason"],
            "[1:1] [trained_model_config] failed to parse field [inference_config]"
        );
        assert_eq!(
            json["error"]["root_cause"][0]["reason"],
            "[1:1] [ner] failed to parse field [tokenization]"
        );
        assert_eq!(json["error"]["caused_by"]["caused_by"]["reason"], "illegal");
        assert_eq!(json["status"], 400);
    }

    #[test]
    fn validation_messages_are_numbered() {
        let error = ApiError::validation(&["first".into(), "second".into()]);
        assert_eq!(error.reason(), "Validation Failed: 1: first;2: second;");
    }
}
