//! Requests to a cluster, and what their failures mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use super::connection_failure::causes;
use super::payload::Payload;
use super::{ClientError, Connection, ConnectionFailure, Trust, tls};
use crate::error_chain::ErrorChain;
use crate::proxies::Proxies;
use crate::retry::retry_after;
use crate::secrets::redact;
use crate::version::{Target, Version};

/// A cluster that answers.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Sent with every request; the secrets among them are marked as such.
    headers: HeaderMap,
    proxies: Arc<Proxies>,
    addresses: Vec<Url>,
    /// Which of the addresses is in use.
    current: Arc<AtomicUsize>,
    version: Version,
    serverless: bool,
    uuid: Option<String>,
}

/// How long a single answer may take. Storing a part on a busy cluster takes long; eland waits as long.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How long the very first answer may take, which is a small one.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The licences that allow machine learning.
const LICENCES: [&str; 3] = ["platinum", "enterprise", "trial"];

/// What servers say to a plain request at a port for TLS: nginx, Go's net/http.
const PLAIN_REQUEST: [&str; 2] =
    ["plain HTTP request was sent to HTTPS port", "HTTP request to an HTTPS server"];

impl Client {
    /// Connects: reaches the cluster, logs in, and sees that it is one that can serve. Of several addresses the first that does is used.
    ///
    /// # Errors
    /// When it cannot be reached, is something else, is too old, or refuses the credentials.
    pub async fn connect(connection: Connection) -> Result<Self, ClientError> {
        let proxies =
            if connection.proxies { Proxies::from_environment() } else { Proxies::default() };
        let mut client = Self {
            headers: connection.headers()?,
            http: http_client(&connection, &proxies)?,
            proxies: Arc::new(proxies),
            addresses: connection.addresses,
            current: Arc::default(),
            version: Version::OLDEST,
            serverless: false,
            uuid: None,
        };
        let mut failures = Vec::new();
        for index in 0..client.addresses.len() {
            client.current.store(index, Ordering::Relaxed);
            match client.look().await {
                Ok(()) => return Ok(client),
                Err(error) if is_of_address(&error) => {
                    if index + 1 < client.addresses.len() {
                        tracing::warn!("{error}\nTrying the next address");
                    }
                    failures.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        match failures.pop() {
            Some(only) if failures.is_empty() => Err(only),
            Some(last) => {
                failures.push(last);
                Err(ClientError::NoneUsable(failures))
            }
            None => Err(ClientError::Address("there is none".into())),
        }
    }

    /// Sees what answers.
    async fn look(&mut self) -> Result<(), ClientError> {
        let url = self.address();
        let asked = self.send(Method::GET, "", None, "say what it is");
        let answer = tokio::time::timeout(FIRST_TIMEOUT, asked).await.unwrap_or_else(|_| {
            let (failure, seconds) = (ConnectionFailure::TimedOut, FIRST_TIMEOUT.as_secs());
            let reason = format!("no answer within {seconds} seconds");
            Err(ClientError::Unreachable { url, failure, reason, sent: true, cause: None })
        });
        let (headers, info) = answer.map_err(|error| self.misplaced(error))?;
        let number = info["version"]["number"].as_str().unwrap_or_default();
        let product = headers.get("x-elastic-product").map(HeaderValue::as_bytes);
        // Releases before 7.14 did not send the header.
        let is_old = info["tagline"] == "You Know, for Search"
            && info["version"]["distribution"].is_null()
            && number.parse().is_ok_and(|version: Version| version < Version::OLDEST);
        if product != Some(b"Elasticsearch") && !is_old {
            let reason = if info["version"]["distribution"] == "opensearch" {
                format!("it is OpenSearch {number}, which does not have the trained-models API")
            } else {
                "its answer lacks the header X-Elastic-Product".to_owned()
            };
            return Err(self.not_elasticsearch(reason));
        }
        self.version = number.parse().map_err(|reason| self.not_elasticsearch(reason))?;
        self.serverless = info["version"]["build_flavor"] == "serverless";
        // A node that has not joined its cluster yet says "_na_".
        self.uuid = info["cluster_uuid"].as_str().filter(|uuid| *uuid != "_na_").map(str::to_owned);
        if !self.supports(Version::OLDEST) {
            return Err(ClientError::TooOld(self.version));
        }
        Ok(())
    }

    /// Refuses a cluster whose licence lacks machine learning. If the licence cannot be read, the later requests will tell.
    ///
    /// # Errors
    /// When the licence does not suffice, or the cluster does not answer.
    pub async fn check_licence(&self) -> Result<(), ClientError> {
        if self.serverless {
            return Ok(());
        }
        match self.call(Method::GET, "_license", None, "tell its licence").await {
            Ok(answer) => {
                let licence = &answer["license"];
                match (licence["type"].as_str(), licence["status"].as_str()) {
                    (Some(kind), Some(status)) if status != "active" => {
                        Err(ClientError::Licence(format!("the {kind} licence is {status}")))
                    }
                    (Some(kind), _) if !LICENCES.contains(&kind) => {
                        Err(ClientError::Licence(format!("it is a {kind} licence")))
                    }
                    _ => Ok(()),
                }
            }
            Err(ClientError::Privilege { .. } | ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the cluster has what came with a version. Serverless always has; the number that it gives means nothing.
    #[must_use]
    pub fn supports(&self, version: Version) -> bool {
        self.serverless || self.version >= version
    }

    /// The cluster as what a model is made for.
    #[must_use]
    pub fn target(&self) -> Target {
        if self.serverless { Target::Serverless } else { Target::Release(self.version) }
    }

    /// Checks that the cluster has what came with a version.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] when it has not.
    pub fn require(&self, needed: Version) -> Result<(), ClientError> {
        if self.supports(needed) {
            Ok(())
        } else {
            Err(ClientError::Unsupported { found: self.version, needed })
        }
    }

    /// The cluster's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether Elastic runs it, and so decides on nodes and versions.
    #[must_use]
    pub fn is_serverless(&self) -> bool {
        self.serverless
    }

    /// What tells this cluster from others: its uuid or, where it has none, its address.
    pub(super) fn identity(&self) -> &str {
        let first = self.addresses.first().map_or("", Url::as_str);
        self.uuid.as_deref().unwrap_or(first)
    }

    /// Sends a request and reads the JSON of a 2xx answer. `action` completes "refuses to …".
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Payload>,
        action: &str,
    ) -> Result<Value, ClientError> {
        self.send(method, path, body, action).await.map(|(_, answer)| answer)
    }

    /// The one place where a request is sent and its answer classified.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Payload>,
        action: &str,
    ) -> Result<(HeaderMap, Value), ClientError> {
        let index = self.current.load(Ordering::Relaxed);
        let base = self.addresses.get(index).ok_or(ClientError::Address("there is none".into()))?;
        let url = base.join(path).map_err(|e| ClientError::Address(e.to_string()))?;
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let sent = body.as_ref().map_or(0, Payload::length);
        if let Some(body) = &body {
            body.describe(&mut headers);
        }
        tracing::debug!("> {method} {url} ({sent} bytes) {}", shown(&headers));
        let start = Instant::now();
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body.into_body());
        }
        let (status, headers, text) = receive(request.send().await).await.map_err(|error| {
            let error = self.unreachable(base, error);
            tracing::debug!("< failed after {} ms: {error}", start.elapsed().as_millis());
            // The next request, or the next try of this one, goes to the next address.
            self.current.store((index + 1) % self.addresses.len(), Ordering::Relaxed);
            error
        })?;
        tracing::debug!(
            "< {status} ({} bytes, {} ms) {}",
            text.len(),
            start.elapsed().as_millis(),
            shown(&headers)
        );
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            let not_json = || ClientError::NotElasticsearch {
                url: self.place(base),
                reason: "its answer is not JSON".into(),
            };
            return answer.map(|answer| (headers, answer)).ok_or_else(not_json);
        }
        Err(self.refusal(base, status, &headers, &text, answer.as_ref(), action))
    }

    fn refusal(
        &self,
        base: &Url,
        status: StatusCode,
        headers: &HeaderMap,
        text: &str,
        answer: Option<&Value>,
        action: &str,
    ) -> ClientError {
        let known = status.canonical_reason().unwrap_or("an answer without a reason");
        let reason = answer.and_then(reason).map_or_else(
            || format!("{known}, which is not an answer of Elasticsearch's own"),
            |reason| redact(&reason),
        );
        let unanswered = |failure| ClientError::Unreachable {
            url: self.place(base),
            failure,
            reason: format!("the answer is {} {known}", status.as_u16()),
            sent: false,
            cause: None,
        };
        match status {
            // Of a proxy's own: tinyproxy says so of a wrong password.
            StatusCode::UNAUTHORIZED
                if answer.is_none()
                    && base.scheme() == "http"
                    && self.proxies.on_the_way_to(base).is_some() =>
            {
                unanswered(ConnectionFailure::ProxyCredentials)
            }
            StatusCode::UNAUTHORIZED => ClientError::Credentials(reason),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                unanswered(ConnectionFailure::ProxyCredentials)
            }
            StatusCode::BAD_REQUEST if PLAIN_REQUEST.iter().any(|said| text.contains(said)) => {
                unanswered(ConnectionFailure::TlsServer)
            }
            StatusCode::FORBIDDEN if reason.contains("license is non-compliant") => {
                ClientError::Licence(reason)
            }
            StatusCode::FORBIDDEN if answer.is_some_and(|answer| !answer["error"].is_null()) => {
                let (kind, privilege) = privilege(&reason);
                ClientError::Privilege { reason, kind, privilege }
            }
            _ if status.is_redirection() => {
                let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
                let location = redact(location.unwrap_or("another address"));
                ClientError::NotElasticsearch {
                    url: self.place(base),
                    reason: format!("it redirects to {location}"),
                }
            }
            _ => ClientError::Refused {
                action: action.to_owned(),
                status: status.as_u16(),
                kind: answer.and_then(|answer| Some(answer["error"]["type"].as_str()?.to_owned())),
                reason,
                retry_after: retry_after(headers),
            },
        }
    }

    /// What a failure of the very first request means: that the address is not the cluster's.
    fn misplaced(&self, error: ClientError) -> ClientError {
        let url = self.address();
        match error {
            // A proxy's own page, as tinyproxy's 500 if nothing answers it.
            ClientError::Refused { status: status @ (403 | 500..), kind: None, .. }
                if url.contains(THROUGH) =>
            {
                let reason = format!("the answer is {status}");
                ClientError::Unreachable {
                    url,
                    failure: ConnectionFailure::Proxy,
                    reason,
                    sent: false,
                    cause: None,
                }
            }
            ClientError::Refused { status: 404, reason, .. } => {
                ClientError::WrongPath { url, reason }
            }
            ClientError::Refused { status, kind: None, reason, .. }
                if ![413, 429, 502, 503, 504].contains(&status) =>
            {
                self.not_elasticsearch(format!("it answers {status}: {reason}"))
            }
            // Elasticsearch closes a connection on which it is not spoken TLS to.
            ClientError::Unreachable {
                url,
                failure: ConnectionFailure::Broken,
                reason,
                sent,
                cause,
            } if url.starts_with("http:") && !url.contains(THROUGH) => ClientError::Unreachable {
                url,
                failure: ConnectionFailure::ClosedUnanswered,
                reason,
                sent,
                cause,
            },
            other => other,
        }
    }

    fn unreachable(&self, base: &Url, error: reqwest::Error) -> ClientError {
        let failure = ConnectionFailure::of(&error);
        let sent = !error.is_connect();
        let error = error.without_url();
        let reason = redact(&causes(&error));
        let cause = Some(ErrorChain::of(&error));
        ClientError::Unreachable { url: self.place(base), failure, reason, sent, cause }
    }

    /// An address, with the proxy on the way to it.
    fn place(&self, base: &Url) -> String {
        match self.proxies.on_the_way_to(base) {
            Some(proxy) => format!("{base}{THROUGH}{proxy}"),
            None => base.to_string(),
        }
    }

    /// The address in use.
    fn address(&self) -> String {
        let index = self.current.load(Ordering::Relaxed);
        self.addresses.get(index).map(|base| self.place(base)).unwrap_or_default()
    }

    fn not_elasticsearch(&self, reason: String) -> ClientError {
        ClientError::NotElasticsearch { url: self.address(), reason }
    }
}

const THROUGH: &str = " through the proxy ";

/// Whether another address of the cluster may do better.
fn is_of_address(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. }
            | ClientError::NotElasticsearch { .. }
            | ClientError::WrongPath { .. }
            | ClientError::Refused { .. }
    )
}

async fn receive(
    answer: Result<Response, reqwest::Error>,
) -> Result<(StatusCode, HeaderMap, String), reqwest::Error> {
    let response = answer?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok((status, headers, response.text().await?))
}

fn http_client(connection: &Connection, proxies: &Proxies) -> Result<reqwest::Client, ClientError> {
    let speaks_tls = |address: &Url| {
        let proxy = proxies.on_the_way_to(address);
        address.scheme() == "https" || proxy.is_some_and(|proxy| proxy.starts_with("https:"))
    };
    let is_used = connection.addresses.iter().any(speaks_tls);
    let tls =
        tls::configuration(&connection.trust, connection.client_certificate.as_ref(), is_used)?;
    if connection.trust == Trust::Anyone {
        tracing::warn!(
            "--insecure: the cluster's certificate is not verified; anyone in between can read and change what is sent"
        );
    }
    let builder = reqwest::Client::builder();
    let builder = if connection.proxies { builder } else { builder.no_proxy() };
    // Some proxies close a connection after an answer without saying so, and the next request would be lost on it.
    let is_relayed =
        |address: &Url| address.scheme() == "http" && proxies.on_the_way_to(address).is_some();
    let builder = match connection.addresses.iter().any(is_relayed) {
        true => builder.pool_max_idle_per_host(0),
        false => builder,
    };
    builder
        .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(TIMEOUT)
        // A redirect would carry the credentials somewhere else.
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| ClientError::Option(redact(&causes(&error))))
}

/// Headers for a trace.
fn shown(headers: &HeaderMap) -> String {
    let shown = headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let shown = match text.split_once(' ') {
            Some((scheme, _)) if name == AUTHORIZATION => format!("{scheme} …"),
            _ if name == SET_COOKIE || value.is_sensitive() => "…".to_owned(),
            _ => redact(&text),
        };
        format!("{name}: {shown}")
    });
    shown.collect::<Vec<_>>().join("; ")
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

    #[test]
    fn the_least_privilege_is_named() {
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
