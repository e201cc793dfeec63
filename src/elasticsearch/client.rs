//! Requests to a cluster, and what their failures mean.

use std::error::Error;
use std::fs;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::Value;

use super::{ClientError, Connection, Failure};
use crate::version::Version;

/// A cluster that answers.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    connection: Connection,
    version: Version,
    serverless: bool,
}

/// How long a single answer may take. Storing a part on a busy cluster takes long; eland waits as long.
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl Client {
    /// Connects: reaches the cluster, logs in, and sees that it is one that can serve.
    ///
    /// # Errors
    /// When it cannot be reached, is something else, is too old, or refuses the credentials.
    pub async fn connect(connection: Connection) -> Result<Self, ClientError> {
        // Another crate may have set a provider first; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Self {
            http: http_client(&connection)?,
            connection,
            version: Version::OLDEST,
            serverless: false,
        };
        let (headers, info) = client.send(Method::GET, "", None, "say what it is").await.map_err(
            |error| match error {
                ClientError::Refused { status, reason, .. } => {
                    client.not_elasticsearch(format!("it answers {status}: {reason}"))
                }
                other => other,
            },
        )?;
        let product = headers.get("x-elastic-product").and_then(|value| value.to_str().ok());
        if product != Some("Elasticsearch") {
            return Err(
                client.not_elasticsearch("its answer lacks the header X-Elastic-Product".into())
            );
        }
        let number = info["version"]["number"].as_str().unwrap_or_default();
        client.version = number.parse().map_err(|reason| client.not_elasticsearch(reason))?;
        client.serverless = info["version"]["build_flavor"] == "serverless";
        if !client.supports(Version::OLDEST) {
            return Err(ClientError::TooOld(client.version));
        }
        Ok(client)
    }

    /// Whether the cluster has what came with a version. Serverless always has; the number that it gives means nothing.
    #[must_use]
    pub fn supports(&self, version: Version) -> bool {
        self.serverless || self.version >= version
    }

    /// The cluster's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends a request and reads the JSON of a 2xx answer. `action` completes "refuses to …".
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        action: &str,
    ) -> Result<Value, ClientError> {
        self.send(method, path, body, action).await.map(|(_, answer)| answer)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        action: &str,
    ) -> Result<(HeaderMap, Value), ClientError> {
        let url =
            self.connection.url.join(path).map_err(|e| ClientError::Address(e.to_string()))?;
        let mut request = self.http.request(method, url).header("accept", "application/json");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: self.connection.url.to_string(),
            failure: failure(&error),
            sent: !error.is_connect(),
            reason: causes(&error.without_url()),
        };
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(unreachable)?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            return answer
                .map(|answer| (headers, answer))
                .ok_or_else(|| self.not_elasticsearch("its answer is not JSON".into()));
        }
        let reason = answer.as_ref().and_then(reason).unwrap_or_else(|| {
            let known = status.canonical_reason().unwrap_or("an answer without a reason");
            format!("{known}, which is not an answer of Elasticsearch's own")
        });
        Err(match status {
            StatusCode::UNAUTHORIZED => ClientError::Credentials(reason),
            StatusCode::FORBIDDEN if reason.contains("license") => ClientError::Licence(reason),
            StatusCode::FORBIDDEN => {
                let (kind, privilege) = privilege(&reason);
                ClientError::Privilege { reason, kind, privilege }
            }
            _ => ClientError::Refused {
                action: action.to_owned(),
                status: status.as_u16(),
                kind: answer
                    .as_ref()
                    .and_then(|answer| Some(answer["error"]["type"].as_str()?.to_owned())),
                reason,
                retry_after: retry_after(&headers),
            },
        })
    }

    fn not_elasticsearch(&self, reason: String) -> ClientError {
        ClientError::NotElasticsearch { url: self.connection.url.to_string(), reason }
    }
}

fn http_client(connection: &Connection) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(TIMEOUT)
        // A redirect would carry the credentials somewhere else.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(credentials) = &connection.credentials {
        let mut value = HeaderValue::try_from(credentials.header()).map_err(|_| {
            ClientError::Credentials("they hold characters that no header can carry".into())
        })?;
        value.set_sensitive(true);
        builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
    if connection.insecure {
        tracing::warn!(
            "--insecure: the cluster's certificate is not verified; anyone in between can read and change what is sent"
        );
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(path) = &connection.ca_certs {
        let unusable = |reason: String| ClientError::Certificates {
            option: "--ca-certs",
            path: path.clone(),
            reason: format!("{reason}; name a file of certificates in PEM form"),
        };
        let pem = fs::read(path).map_err(|e| unusable(e.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| unusable(causes(&e)))?;
        if certificates.is_empty() {
            return Err(unusable("it holds none".into()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| ClientError::Address(causes(&e)))
}

/// An error with its causes, outermost first.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// What kind of failure it is that there is no answer.
fn failure(error: &reqwest::Error) -> Failure {
    if error.is_dns() {
        return Failure::Resolve;
    }
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return Failure::Refused;
        }
        cause = error.source();
    }
    if error.is_connect() { Failure::Other } else { Failure::Broken }
}

/// The kind of the missing privilege and its name: the least of those that the server names as granting the action (contract 12).
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

/// The seconds of `Retry-After`. Its other form, a date, is not worth a clock that may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The server's words: the reason of the error, then of each cause that says something new (contract 0.1).
fn reason(answer: &Value) -> Option<String> {
    let mut error = answer.get("error")?;
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
    fn the_server_s_reason_is_told_to_the_innermost_cause() {
        let answer = json!({"error": {"reason": "[1:2] failed to parse field [inference_config]",
            "caused_by": {"reason": "[embedding_size] must be a number greater than 0"}}, "status": 400});
        let expected = "[1:2] failed to parse field [inference_config]: [embedding_size] must be a number greater than 0";
        assert_eq!(reason(&answer).as_deref(), Some(expected));
        assert_eq!(reason(&json!({"error": "plain"})).as_deref(), Some("plain"));
        assert_eq!(reason(&json!({})), None);
    }
}
