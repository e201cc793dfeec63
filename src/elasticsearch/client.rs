//! A connection to a cluster: the first contact, and how requests are sent to one of several addresses.
//!
//! Several addresses count as one cluster. [`Client::connect`] uses the first address that responds as Elasticsearch. When an
//! address fails later, the next request goes to the next address. Before the first request to such an address, the client compares
//! its cluster uuid, version and product with those of the first server. It first sends a request without credentials. If the
//! server requires credentials, the client sends the request again with them, because the uuid cannot be read otherwise. Parts of a
//! model are sent only to servers that passed the comparison. Headers set by the user may be needed to reach the server at all, so
//! with such headers the first request contains everything. An address of another cluster is never used again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, SET_COOKIE};
use reqwest::tls::TlsInfo;
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use super::addresses::Addresses;
use super::payload::Payload;
use super::refusal::Refusal;
use super::server_info::ServerInfo;
use super::{
    ClientError, Connection, ConnectionFailure, KibanaAddress, ServerCertificate, http_client,
};
use crate::error_chain::{ErrorChain, causes};
use crate::proxies::Proxies;
use crate::secrets::redact;
use crate::version::{Target, Version};

/// A connection to a cluster. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) http: reqwest::Client,
    /// The Kibana that lists the models of the cluster.
    pub(super) kibana: Option<KibanaAddress>,
    /// Headers sent with every request. Secret values are marked as sensitive.
    pub(super) headers: HeaderMap,
    /// Whether the user set headers, which a gateway in front of the cluster may need.
    has_custom_headers: bool,
    proxies: Arc<Proxies>,
    addresses: Arc<Addresses>,
    /// The certificate of each address in DER form, by the index of the address.
    certificates: Arc<Mutex<HashMap<usize, Vec<u8>>>>,
    info: ServerInfo,
}

/// The first contact with a cluster, as [`Client::contact`] reports it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Contact {
    /// The connection, or the error of the attempt to connect.
    pub client: Result<Client, ClientError>,
    /// The address that answered, with the proxy in front of it. Without an answer, the last address that was tried.
    pub address: String,
    /// The certificate of this address, if the TLS handshake succeeded without a proxy.
    pub certificate: Option<ServerCertificate>,
    /// Whether the connection goes through a proxy.
    pub has_proxy: bool,
    /// Whether the server is on this machine.
    pub is_local: bool,
}

/// Timeout of `GET /`, whose response is short.
const INFO_TIMEOUT: Duration = Duration::from_secs(30);

/// Separates an address from the proxy in front of it, in messages.
const THROUGH: &str = " through the proxy ";

impl Client {
    /// Connects to the first address that is a usable cluster, and authenticates.
    ///
    /// # Errors
    /// [`ClientError`] if no address can be reached, or the server is not Elasticsearch, is too old, or rejects the credentials.
    pub async fn connect(connection: Connection) -> Result<Self, ClientError> {
        let mut client = Self::unconnected(connection)?;
        client.choose_address().await.map_err(|(error, _)| error)?;
        Ok(client)
    }

    /// Connects like [`Client::connect`], and reports the address and its certificate even if the server rejects the credentials.
    ///
    /// # Errors
    /// [`ClientError`] if a setting of the connection is invalid.
    pub async fn contact(connection: Connection) -> Result<Contact, ClientError> {
        let mut client = Self::unconnected(connection)?;
        let (failure, index) = match client.choose_address().await {
            Ok(index) => (None, index),
            Err((error, index)) => (Some(error), index),
        };
        let certificates = client.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let der = certificates.get(&index).cloned();
        drop(certificates);
        let address = client.place(index);
        let is_local = client.addresses.urls().get(index).is_some_and(is_local);
        Ok(Contact {
            client: failure.map_or(Ok(client), Err),
            has_proxy: address.contains(THROUGH),
            address,
            is_local,
            certificate: der.and_then(|der| ServerCertificate::read(&der, SystemTime::now())),
        })
    }

    /// A client that has not contacted a server.
    fn unconnected(connection: Connection) -> Result<Self, ClientError> {
        let proxies =
            if connection.proxies { Proxies::from_environment() } else { Proxies::default() };
        Ok(Self {
            headers: connection.headers()?,
            has_custom_headers: !connection.headers.is_empty(),
            http: http_client::build(&connection, &proxies)?,
            kibana: connection.kibana,
            proxies: Arc::new(proxies),
            addresses: Arc::new(Addresses::new(connection.addresses)),
            certificates: Arc::default(),
            info: ServerInfo { version: Version::OLDEST, serverless: false, cluster_uuid: None },
        })
    }

    /// Selects the first address that is a usable cluster, and returns its index. An error comes with the index of the address.
    async fn choose_address(&mut self) -> Result<usize, (ClientError, usize)> {
        let mut failures = Vec::new();
        let count = self.addresses.urls().len();
        for index in 0..count {
            match self.first_contact(index).await {
                Ok(info) => {
                    self.info = info;
                    self.addresses.select(index);
                    self.addresses.set_checked(index);
                    return Ok(index);
                }
                Err(error) if is_of_address(&error) => {
                    if index + 1 < count {
                        tracing::warn!("{error}; trying the next address");
                    }
                    failures.push(error);
                }
                Err(error) => return Err((error, index)),
            }
        }
        let error = match failures.pop() {
            Some(only) if failures.is_empty() => only,
            Some(last) => {
                failures.push(last);
                ClientError::NoneUsable(failures)
            }
            None => ClientError::Address("the list of addresses is empty".into()),
        };
        Err((error, count.saturating_sub(1)))
    }

    /// Requests version and product of a server, and checks that it can serve models.
    async fn first_contact(&self, index: usize) -> Result<ServerInfo, ClientError> {
        let answer = self.ask_for_info(index, self.headers.clone()).await;
        let url = self.place(index);
        let (headers, body) = answer.map_err(|error| misplaced(error, url.clone()))?;
        let info = ServerInfo::read(&headers, &body)
            .map_err(|reason| ClientError::NotElasticsearch { url, reason })?;
        if info.supports(Version::OLDEST) {
            Ok(info)
        } else {
            Err(ClientError::TooOld(info.version))
        }
    }

    /// Sends `GET /` to an address.
    async fn ask_for_info(
        &self,
        index: usize,
        headers: HeaderMap,
    ) -> Result<(HeaderMap, Value), ClientError> {
        let request = self.send_to(index, headers, Method::GET, "", None, "say what it is");
        tokio::time::timeout(INFO_TIMEOUT, request).await.unwrap_or_else(|_| {
            Err(ClientError::Unreachable {
                url: self.place(index),
                failure: ConnectionFailure::TimedOut,
                reason: format!("no answer within {} seconds", INFO_TIMEOUT.as_secs()),
                sent: true,
                cause: None,
            })
        })
    }

    /// Whether the cluster has the features of a version. Serverless has all of them; its version number has no meaning.
    #[must_use]
    pub fn supports(&self, version: Version) -> bool {
        self.info.supports(version)
    }

    /// The cluster as the target of a conversion.
    #[must_use]
    pub fn target(&self) -> Target {
        if self.info.serverless { Target::Serverless } else { Target::Release(self.info.version) }
    }

    /// Checks that the cluster has the features of a version.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] if the cluster is older.
    pub fn require(&self, needed: Version) -> Result<(), ClientError> {
        if self.supports(needed) {
            Ok(())
        } else {
            Err(ClientError::Unsupported { found: self.info.version, needed })
        }
    }

    /// The version of the cluster.
    #[must_use]
    pub fn version(&self) -> Version {
        self.info.version
    }

    /// Whether Elastic runs the cluster and decides on nodes and versions.
    #[must_use]
    pub fn is_serverless(&self) -> bool {
        self.info.serverless
    }

    /// Identifier of this cluster: its uuid or, if it has none, its first address.
    pub(super) fn identity(&self) -> &str {
        let first = self.addresses.urls().first().map_or("", Url::as_str);
        self.info.cluster_uuid.as_deref().unwrap_or(first)
    }

    /// Sends a request to an address of the cluster and returns the JSON of a 2xx answer. `action` completes "refused to …".
    ///
    /// # Errors
    /// [`ClientError`] if the server cannot be reached or rejects the request. The next request then goes to the next address.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Payload>,
        action: &str,
    ) -> Result<Value, ClientError> {
        let index = self.checked_address().await?;
        let headers = self.headers.clone();
        self.send_to(index, headers, method, path, body, action).await.map(|(_, answer)| answer)
    }

    /// The index of the address in use. An address that is used for the first time is compared with the cluster.
    async fn checked_address(&self) -> Result<usize, ClientError> {
        // Every turn that does not end the loop excludes an address, and the one of the first contact is never excluded.
        loop {
            let index = self.addresses.current();
            if self.addresses.is_checked(index) {
                return Ok(index);
            }
            let difference = match self.ask_anew(index).await {
                Ok((headers, body)) => match ServerInfo::read(&headers, &body) {
                    Ok(info) => self.info.difference(&info),
                    Err(reason) => Some(reason),
                },
                Err(ClientError::NotElasticsearch { reason, .. }) => Some(reason),
                Err(error) => {
                    self.addresses.leave(index);
                    return Err(unsent(error, self.place(index)));
                }
            };
            match difference {
                None => self.addresses.set_checked(index),
                Some(reason) => {
                    if self.addresses.exclude(index) {
                        tracing::warn!(
                            "{} is not used, because it does not belong to the same cluster: {reason}",
                            self.place(index)
                        );
                    }
                }
            }
        }
    }

    /// Requests version and product from an address that was not used before, first without credentials.
    async fn ask_anew(&self, index: usize) -> Result<(HeaderMap, Value), ClientError> {
        if !self.has_custom_headers {
            match self.ask_for_info(index, HeaderMap::new()).await {
                Err(
                    ClientError::Credentials(_)
                    | ClientError::Privilege { .. }
                    | ClientError::Refused { status: 403, .. },
                ) if self.headers.contains_key(AUTHORIZATION) => {}
                answer => return answer,
            }
        }
        self.ask_for_info(index, self.headers.clone()).await
    }

    /// Sends a request to one address and classifies the response. All requests are sent here.
    async fn send_to(
        &self,
        index: usize,
        mut headers: HeaderMap,
        method: Method,
        path: &str,
        body: Option<Payload>,
        action: &str,
    ) -> Result<(HeaderMap, Value), ClientError> {
        let base = self.addresses.urls().get(index);
        let base =
            base.ok_or_else(|| ClientError::Address("the list of addresses is empty".into()))?;
        let url = base.join(path).map_err(|e| ClientError::Address(e.to_string()))?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let length = body.as_ref().map_or(0, Payload::length);
        if let Some(body) = &body {
            body.describe(&mut headers);
        }
        tracing::debug!("> {method} {url} ({length} bytes) {}", shown(&headers));
        let start = Instant::now();
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body.into_body());
        }
        let sent = request.send().await;
        if let Ok(response) = &sent {
            self.keep_certificate(index, response);
        }
        let (status, headers, text) = receive(sent).await.map_err(|error| {
            let error = unreachable(self.place(index), error);
            tracing::debug!("< failed after {} ms: {error}", start.elapsed().as_millis());
            self.addresses.leave(index);
            error
        })?;
        tracing::debug!(
            "< {status} ({} bytes, {} ms) {}",
            text.len(),
            start.elapsed().as_millis(),
            shown(&headers)
        );
        let json: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            let reason = "its answer is not JSON".to_owned();
            return json
                .map(|json| (headers, json))
                .ok_or_else(|| ClientError::NotElasticsearch { url: self.place(index), reason });
        }
        let is_relayed = base.scheme() == "http" && self.proxies.on_the_way_to(base).is_some();
        let json = json.as_ref();
        let refusal = Refusal { status, headers: &headers, text: &text, json, is_relayed };
        Err(refusal.error(self.place(index), action))
    }

    /// Keeps the certificate of an address that was not used before.
    fn keep_certificate(&self, index: usize, response: &Response) {
        let certificate =
            response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        if let Some(der) = certificate {
            let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
            certificates.entry(index).or_insert_with(|| der.to_owned());
        }
    }

    /// An address, and the proxy in front of it.
    fn place(&self, index: usize) -> String {
        let Some(base) = self.addresses.urls().get(index) else { return String::new() };
        match self.proxies.on_the_way_to(base) {
            Some(proxy) => format!("{base}{THROUGH}{proxy}"),
            None => base.to_string(),
        }
    }
}

/// Error for a failure of the first request, which often means that the address is wrong.
fn misplaced(error: ClientError, url: String) -> ClientError {
    match error {
        // A proxy may respond with its own page, as tinyproxy does with a 500 if it cannot connect.
        ClientError::Refused { status: status @ (403 | 500..), kind: None, .. }
            if url.contains(THROUGH) =>
        {
            ClientError::Unreachable {
                url,
                failure: ConnectionFailure::Proxy,
                reason: format!("the answer is {status}"),
                sent: false,
                cause: None,
            }
        }
        ClientError::Refused { status: 404, reason, .. } => ClientError::WrongPath { url, reason },
        ClientError::Refused { status, kind: None, reason, .. }
            if ![413, 429, 502, 503, 504].contains(&status) =>
        {
            ClientError::NotElasticsearch { url, reason: format!("it answers {status}: {reason}") }
        }
        // Elasticsearch closes a connection if it expects TLS and receives plain HTTP.
        ClientError::Unreachable {
            url,
            failure: ConnectionFailure::Broken,
            reason,
            sent,
            cause,
        } if url.starts_with("http:") && !url.contains(THROUGH) => {
            let failure = ConnectionFailure::ClosedUnanswered;
            ClientError::Unreachable { url, failure, reason, sent, cause }
        }
        other => other,
    }
}

/// An error of the comparison that precedes a request. The request itself was not sent.
fn unsent(error: ClientError, url: String) -> ClientError {
    match error {
        ClientError::Unreachable { url, failure, reason, cause, .. } => {
            ClientError::Unreachable { url, failure, reason, sent: false, cause }
        }
        ClientError::Refused { status, ref reason, .. } if error.is_transient() => {
            ClientError::Unreachable {
                url,
                failure: ConnectionFailure::Other,
                reason: format!("the answer is {status}: {reason}"),
                sent: false,
                cause: None,
            }
        }
        other => other,
    }
}

/// Whether an address names this machine.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn unreachable(url: String, error: reqwest::Error) -> ClientError {
    let failure = match ConnectionFailure::of(&error) {
        // With a proxy, the connection itself goes to the proxy.
        ConnectionFailure::Refused | ConnectionFailure::Resolve if url.contains(THROUGH) => {
            ConnectionFailure::ProxyUnreachable
        }
        failure => failure,
    };
    let sent = !error.is_connect();
    let error = error.without_url();
    let reason = redact(&causes(&error));
    let cause = Some(ErrorChain::of(&error));
    ClientError::Unreachable { url, failure, reason, sent, cause }
}

/// Whether the request may succeed at another address of the cluster.
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

/// Headers for a trace, without secrets.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_decides_whether_an_address_is_local() {
        for (url, expected) in [
            ("http://localhost:9200", true),
            ("http://127.0.0.3:9200", true),
            ("http://[::1]:9200", true),
            ("http://localhost.example.com:9200", false),
            ("http://127.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_local(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
