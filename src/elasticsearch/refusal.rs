//! Classification of responses with a status other than 2xx.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use serde_json::Value;

use super::{ClientError, ConnectionFailure};
use crate::retry::retry_after;
use crate::secrets::redact;

/// Messages of servers that receive a plain HTTP request on a TLS port: nginx and Go's net/http.
const PLAIN_REQUEST: [&str; 2] =
    ["plain HTTP request was sent to HTTPS port", "HTTP request to an HTTPS server"];

/// An answer with a status other than 2xx.
pub(super) struct Refusal<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// The body.
    pub(super) text: &'a str,
    /// The body, if it is JSON.
    pub(super) json: Option<&'a Value>,
    /// Whether the request was sent to a proxy without TLS, so that the proxy itself may have responded.
    pub(super) is_relayed: bool,
}

impl Refusal<'_> {
    /// The error for a request to `url`. `action` describes the purpose of the request.
    pub(super) fn error(&self, url: String, action: &str) -> ClientError {
        let status = self.status;
        let phrase = status.canonical_reason().unwrap_or("an answer without a reason");
        let product = self.headers.get("x-elastic-product").map(HeaderValue::as_bytes);
        let is_elasticsearch = product == Some(b"Elasticsearch");
        let reason = match self.json.and_then(reason) {
            Some(reason) => redact(&reason),
            None if is_elasticsearch => phrase.to_owned(),
            None => format!("{phrase} (not an answer of Elasticsearch)"),
        };
        let kind = self.json.and_then(|json| json["error"]["type"].as_str());
        let is_unnamed = is_elasticsearch && status != StatusCode::TOO_MANY_REQUESTS;
        let kind = kind.or_else(|| is_unnamed.then_some("unknown"));
        let unreachable = |failure| ClientError::Unreachable {
            url: url.clone(),
            failure,
            reason: format!("the answer is {} {phrase}", status.as_u16()),
            sent: false,
            cause: None,
        };
        match status {
            // tinyproxy responds to a wrong proxy password with 401.
            StatusCode::UNAUTHORIZED if self.json.is_none() && self.is_relayed => {
                unreachable(ConnectionFailure::ProxyCredentials)
            }
            StatusCode::UNAUTHORIZED => ClientError::Credentials(reason),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                unreachable(ConnectionFailure::ProxyCredentials)
            }
            StatusCode::BAD_REQUEST
                if PLAIN_REQUEST.iter().any(|part| self.text.contains(part)) =>
            {
                unreachable(ConnectionFailure::TlsServer)
            }
            StatusCode::FORBIDDEN if reason.contains("license is non-compliant") => {
                ClientError::Licence(reason)
            }
            StatusCode::FORBIDDEN if self.json.is_some_and(|json| !json["error"].is_null()) => {
                let (kind, privilege) = privilege(&reason);
                ClientError::Privilege { reason, kind, privilege }
            }
            _ if status.is_redirection() => {
                let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                let location = redact(location.unwrap_or("another address"));
                ClientError::NotElasticsearch { url, reason: format!("it redirects to {location}") }
            }
            _ => ClientError::Refused {
                action: action.to_owned(),
                status: status.as_u16(),
                kind: kind.map(str::to_owned),
                reason,
                retry_after: retry_after(self.headers),
            },
        }
    }
}

/// Kind and name of the missing privilege: the least one of those that, according to the server, grant the action (contract 12).
fn privilege(reason: &str) -> (&'static str, String) {
    for kind in ["cluster", "index"] {
        let named = reason.split_once(&format!("granted by the {kind} privileges ["));
        if let Some((_, names)) = named
            && let Some((name, _)) = names.split_once([',', ']'])
        {
            return (kind, name.to_owned());
        }
    }
    ("cluster", "manage_ml".to_owned())
}

/// The reason in an error object, followed by the reason of each cause that adds something (contract 0.1).
fn reason(json: &Value) -> Option<String> {
    let mut error = json.get("error")?;
    if let Some(text) = error.as_str() {
        return Some(text.to_owned());
    }
    let mut text = error.get("reason")?.as_str()?.to_owned();
    while let Some(cause) = error.get("caused_by") {
        if let Some(reason) = cause["reason"].as_str()
            && !text.contains(reason)
        {
            text += &format!(": {reason}");
        }
        error = cause;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reason_includes_innermost_cause() {
        let answer = json!({"error": {"reason": "[1:2] failed to parse field [inference_config]",
            "caused_by": {"reason": "[embedding_size] must be a number greater than 0"}}, "status": 400});
        let expected = "[1:2] failed to parse field [inference_config]: [embedding_size] must be a number greater than 0";
        assert_eq!(reason(&answer).as_deref(), Some(expected));
        assert_eq!(reason(&json!({"error": "plain"})).as_deref(), Some("plain"));
        assert_eq!(reason(&json!({})), None);
    }

    #[test]
    fn privilege_is_the_least_named() {
        let granted = |by: &str| {
            format!("action [a] is unauthorized for user [u], this action is granted by the {by}")
        };
        let of = |by: &str| privilege(&granted(by));
        assert_eq!(
            of("cluster privileges [monitor_ml,monitor,all]"),
            ("cluster", "monitor_ml".into())
        );
        assert_eq!(of("index privileges [read]"), ("index", "read".into()));
        assert_eq!(privilege("no"), ("cluster", "manage_ml".into()));
    }
}
