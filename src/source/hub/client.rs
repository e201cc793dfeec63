//! Requests to the hub: redirects, the token, retries and certificates.
//!
//! The crate hf-hub does not send these requests. Its downloads do not resume, check neither status nor hash, and do not
//! distinguish the errors of the hub. Its releases 1.x add about 90 crates.

use std::error::Error;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LINK, LOCATION, RANGE,
};
use reqwest::{Certificate, Response, Url};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::listing::RepositoryFile;
use super::retry::{RequestFailure, Retries};
use super::settings::host;
use super::{Commit, HubError, HubSettings, RepositoryId, refusal};
use crate::error_chain::{ErrorChain, causes};
use crate::proxies::Proxies;

/// A client of one hub.
#[derive(Debug, Clone)]
pub(super) struct HubClient {
    http: reqwest::Client,
    settings: Arc<HubSettings>,
    proxies: Arc<Proxies>,
    /// Limits the ranges that all downloads together request at a time.
    range_permits: Arc<Semaphore>,
    /// Whether failed requests are sent again.
    retries: bool,
}

/// A file of a repository at a commit.
#[derive(Debug, Clone)]
pub(super) struct FileRequest {
    pub id: RepositoryId,
    pub commit: Commit,
    pub path: String,
    pub file: RepositoryFile,
}

/// Maximum number of redirects for one request. The hub needs one or two.
const MAX_REDIRECTS: usize = 8;

const ENDLESS_REDIRECTS: &str = "it redirects endlessly";

impl HubClient {
    pub(super) fn new(settings: Arc<HubSettings>) -> Result<Self, HubError> {
        // Fails if another part of the program has already installed a provider, which can be used as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.read_timeout)
            .read_timeout(settings.read_timeout)
            // Redirects are followed here, because the token must not be sent to all targets.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca_certs {
            let invalid = |reason| HubError::Certificates { path: path.clone(), reason };
            let pem = fs::read(path).map_err(|e| invalid(e.to_string()))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|e| invalid(causes(&e)))?;
            if certificates.is_empty() {
                return Err(invalid("the file contains no certificates".into()));
            }
            // Added to the system's authorities, because not every host is behind the proxy that re-signs connections.
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(|e| HubError::Setting {
            name: "the connection to the hub",
            reason: causes(&e),
        })?;
        Ok(Self {
            http,
            range_permits: Arc::new(Semaphore::new(settings.ranges.connections.max(1))),
            settings,
            proxies: Arc::new(Proxies::from_environment()),
            retries: true,
        })
    }

    /// A client that sends each request once.
    pub(super) fn without_retries(&self) -> Self {
        Self { retries: false, ..self.clone() }
    }

    pub(super) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// The retries for one request.
    pub(super) fn retries(&self) -> Retries {
        if self.retries { Retries::new(self.settings.backoff) } else { Retries::none() }
    }

    /// Requests JSON from the API. Returns the address of the next page too, if there is one.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        url: Url,
        id: &RepositoryId,
        revision: &str,
    ) -> Result<(T, Option<Url>), HubError> {
        let mut retries = self.retries();
        loop {
            match self.json_once(&url, id, revision).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => retries.wait_after(failure).await?,
            }
        }
    }

    async fn json_once<T: DeserializeOwned>(
        &self,
        url: &Url,
        id: &RepositoryId,
        revision: &str,
    ) -> Result<(T, Option<Url>), RequestFailure> {
        /// A listing of a thousand files has about 300 kB.
        const MAX_BYTES: usize = 64 << 20;
        let mut url = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let not_a_hub =
                |reason: &str| HubError::NotAHub { host: host(&url), reason: reason.to_owned() };
            let mut response = self.get(&url, None, id).await?;
            if let Some(next) = redirect(&response, &url)? {
                if !self.settings.is_hub(&next) {
                    let reason = format!(
                        "it redirects to {}, which is not an address of the hub",
                        host(&next)
                    );
                    return Err(not_a_hub(&reason).into());
                }
                url = next;
                continue;
            }
            if !response.status().is_success() {
                let what = format!("the listing of {id}");
                return Err(
                    refusal::failure(response, &url, &self.settings, id, revision, &what).await
                );
            }
            let next =
                next_page(response.headers(), &url).map(|url| self.settings.at_endpoint(url));
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk(&mut response, &url, id).await? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_BYTES {
                    return Err(not_a_hub("its answer is too long").into());
                }
            }
            let answer = serde_json::from_slice(&body).map_err(|error| {
                not_a_hub(&format!("its answer is not JSON of the hub's API ({error})"))
            })?;
            return Ok((answer, next));
        }
        Err(HubError::NotAHub { host: host(&url), reason: ENDLESS_REDIRECTS.into() }.into())
    }

    /// Requests a file from the byte `start` to the byte `end`, or to its last byte. Returns the address of the answer too.
    pub(super) async fn file(
        &self,
        request: &FileRequest,
        start: u64,
        end: Option<u64>,
    ) -> Result<(Response, Url), RequestFailure> {
        let range = match (start, end) {
            (0, None) => None,
            (start, None) => Some(format!("bytes={start}-")),
            (start, Some(end)) => Some(format!("bytes={start}-{end}")),
        };
        self.follow(request, range).await
    }

    /// Requests a range of a file at an address that [`file`](Self::file) has returned.
    pub(super) async fn range(
        &self,
        url: &Url,
        request: &FileRequest,
        start: u64,
        end: u64,
    ) -> Result<Response, RequestFailure> {
        let response = self.get(url, Some(&format!("bytes={start}-{end}")), &request.id).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (id, revision) = (&request.id, request.commit.as_str());
        Err(refusal::failure(response, url, &self.settings, id, revision, &request.path).await)
    }

    /// Waits until fewer ranges than the limit are being received.
    pub(super) async fn range_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.range_permits.acquire().await.ok()
    }

    /// The next bytes of an answer.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        url: &Url,
        id: &RepositoryId,
    ) -> Result<Option<bytes::Bytes>, RequestFailure> {
        response.chunk().await.map_err(|error| self.connection_failure(url, id, error))
    }

    /// The first `length` bytes of a file, or all bytes of a shorter one. Their hash cannot be checked.
    pub(super) async fn beginning(
        &self,
        request: &FileRequest,
        length: u64,
    ) -> Result<Vec<u8>, HubError> {
        let length = length.min(request.file.size);
        let mut retries = self.retries();
        loop {
            match self.beginning_once(request, length).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => retries.wait_after(failure).await?,
            }
        }
    }

    async fn beginning_once(
        &self,
        request: &FileRequest,
        length: u64,
    ) -> Result<Vec<u8>, RequestFailure> {
        let Some(last) = length.checked_sub(1) else { return Ok(Vec::new()) };
        let (mut response, url) = self.file(request, 0, Some(last)).await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        // A server without support for ranges sends the whole file, of which only the beginning is read.
        while bytes.len() < length {
            let Some(chunk) = self.chunk(&mut response, &url, &request.id).await? else {
                return Err(RequestFailure::transient(HubError::Unavailable {
                    host: host(&url),
                    what: request.path.clone(),
                    reason: format!("the answer ends after {} of {length} bytes", bytes.len()),
                }));
            };
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Requests a file and follows the redirects.
    async fn follow(
        &self,
        request: &FileRequest,
        range: Option<String>,
    ) -> Result<(Response, Url), RequestFailure> {
        let FileRequest { id, commit, path, .. } = request;
        let mut parts: Vec<&str> = id.as_str().split('/').collect();
        parts.extend(["resolve", commit.as_str()]);
        parts.extend(path.split('/'));
        let mut url = self.settings.url(&parts);
        for _ in 0..MAX_REDIRECTS {
            let response = self.get(&url, range.as_deref(), id).await?;
            if self.settings.is_hub(&url) {
                self.check_headers(response.headers(), request)?;
            }
            if let Some(next) = redirect(&response, &url)? {
                if url.scheme() == "https" && next.scheme() != "https" {
                    let reason = "it redirects to an address without encryption".into();
                    return Err(HubError::Hostile { host: host(&url), reason }.into());
                }
                url = next;
                continue;
            }
            if response.status().is_success() {
                return Ok((response, url));
            }
            let settings = &self.settings;
            return Err(refusal::failure(response, &url, settings, id, commit.as_str(), path).await);
        }
        Err(HubError::NotAHub { host: host(&url), reason: ENDLESS_REDIRECTS.into() }.into())
    }

    async fn get(
        &self,
        url: &Url,
        range: Option<&str>,
        id: &RepositoryId,
    ) -> Result<Response, RequestFailure> {
        // Sizes and hashes are those of the file without compression.
        let mut request = self.http.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        if let Some(token) = &self.settings.token
            && self.settings.is_hub(url)
        {
            let mut value =
                HeaderValue::try_from(token.header()).map_err(|_| HubError::Setting {
                    name: "the access token",
                    reason: format!(
                        "the token from {} contains characters that a header cannot contain",
                        token.origin
                    ),
                })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await;
        let response = response.map_err(|error| self.connection_failure(url, id, error))?;
        // The query is not logged, because it may contain a signature.
        let (host, path) = (host(url), url.path());
        tracing::debug!("GET {host}{path} {}: {}", range.unwrap_or("whole"), response.status());
        Ok(response)
    }

    /// Compares the hub's headers for a file with its listing.
    fn check_headers(&self, headers: &HeaderMap, request: &FileRequest) -> Result<(), HubError> {
        let differs = |name: &str, expected: &str| {
            let value = headers.get(name)?;
            let text = value.to_str().unwrap_or_default();
            let text = text.trim_start_matches("W/").trim_matches('"');
            (text != expected).then(|| HubError::Hostile {
                host: host(&self.settings.endpoint),
                reason: format!("its {name} for {} contradicts its listing", request.path),
            })
        };
        let found = differs("X-Repo-Commit", request.commit.as_str())
            .or_else(|| differs("X-Linked-ETag", request.file.digest.as_str()))
            .or_else(|| differs("X-Linked-Size", &request.file.size.to_string()));
        found.map_or(Ok(()), Err)
    }

    /// The error for a connection that could not be opened or broke off.
    fn connection_failure(
        &self,
        url: &Url,
        id: &RepositoryId,
        error: reqwest::Error,
    ) -> RequestFailure {
        // The address of the error may contain a signature.
        let error = error.without_url();
        let reason = if error.is_timeout() {
            format!("no answer within {} s", self.settings.read_timeout.as_secs_f32())
        } else if error.is_body() || error.is_decode() {
            format!("the connection broke: {}", causes(&error))
        } else {
            causes(&error)
        };
        // reqwest does not distinguish the kinds of failure.
        if ["certificate", "UnknownIssuer", "CaUsedAsEndEntity"].iter().any(|s| reason.contains(s))
        {
            return HubError::Untrusted { host: host(url), reason }.into();
        }
        RequestFailure::transient(self.unreachable(url, id, reason, &error))
    }

    /// The error for a hub that did not respond in time.
    pub(super) fn no_answer_within(&self, timeout: Duration, id: &RepositoryId) -> HubError {
        let reason = format!("no answer within {} s", timeout.as_secs_f32());
        let error = io::Error::from(io::ErrorKind::TimedOut);
        self.unreachable(&self.settings.endpoint, id, reason, &error)
    }

    fn unreachable(
        &self,
        url: &Url,
        id: &RepositoryId,
        reason: String,
        error: &(dyn Error + 'static),
    ) -> HubError {
        HubError::Unreachable {
            host: host(url),
            proxy: self.proxies.on_the_way_to(url),
            reason,
            id: id.clone(),
            cause: Box::new(ErrorChain::of(error)),
        }
    }
}

/// The address to which an answer redirects.
fn redirect(response: &Response, url: &Url) -> Result<Option<Url>, HubError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    location
        .and_then(|location| url.join(location).ok())
        .filter(|next| ["http", "https"].contains(&next.scheme()) && next.has_host())
        .filter(|next| next.username().is_empty() && next.password().is_none())
        .map(Some)
        .ok_or_else(|| HubError::Hostile {
            host: host(url),
            reason: "it redirects to something that is not an address".into(),
        })
}

/// `Link: <address>; rel="next"`.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    let (address, _) = rest.split_once('>')?;
    url.join(address).ok()
}
