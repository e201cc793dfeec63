//! Requests to the hub: redirects, the token, retries, and what its failures mean.
//!
//! All of them are made here and not by the crate hf-hub, whose releases 1.x bring aws-lc and the whole of Xet's crates, switched on for
//! everybody, and whose downloads neither resume nor look at the status of what they store.

use std::error::Error;
use std::fs;
use std::sync::Arc;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LINK, LOCATION, RANGE,
};
use reqwest::{Certificate, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::digest::Digest;
use super::retry::{Failure, Patience, wait_asked_for};
use super::settings::host;
use super::{Commit, HubError, HubSettings, RepositoryId};
use crate::error_chain::ErrorChain;
use crate::proxies::Proxies;

/// A client of one hub.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    settings: Arc<HubSettings>,
    proxies: Arc<Proxies>,
}

/// A file at a commit.
pub(super) struct Wanted<'a> {
    pub id: &'a RepositoryId,
    pub commit: &'a Commit,
    pub path: &'a str,
    pub size: u64,
    pub digest: &'a Digest,
}

/// Hops from an address to what it stands for. The hub makes one or two.
const MAX_HOPS: usize = 8;

impl Client {
    pub(super) fn new(settings: Arc<HubSettings>) -> Result<Self, HubError> {
        // Another part of the program may have set a provider first; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.read_timeout)
            .read_timeout(settings.read_timeout)
            // Redirects are followed here, where it is known who may see the token.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca_certs {
            let unusable = |reason| HubError::Certificates { path: path.clone(), reason };
            let pem = fs::read(path).map_err(|e| unusable(e.to_string()))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|e| unusable(causes(&e)))?;
            if certificates.is_empty() {
                return Err(unusable("it holds none".into()));
            }
            // Beside the system's: not every host need be behind the proxy that re-signs.
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(|e| HubError::Setting {
            name: "the connection to the hub",
            reason: causes(&e),
        })?;
        Ok(Self { http, settings, proxies: Arc::new(Proxies::from_environment()) })
    }

    pub(super) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.settings.backoff)
    }

    /// Asks the API for JSON. Returns the address of the next page too, if there is one.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        url: Url,
        id: &RepositoryId,
        revision: &str,
    ) -> Result<(T, Option<Url>), HubError> {
        let mut patience = self.patience();
        loop {
            match self.json_once(&url, id, revision).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    async fn json_once<T: DeserializeOwned>(
        &self,
        url: &Url,
        id: &RepositoryId,
        revision: &str,
    ) -> Result<(T, Option<Url>), Failure> {
        /// A listing of a thousand files has some 300 kB.
        const MAX_BYTES: usize = 64 << 20;
        let mut url = url.clone();
        for _ in 0..MAX_HOPS {
            let not_a_hub =
                |reason: &str| HubError::NotAHub { host: host(&url), reason: reason.to_owned() };
            let mut response = self.get(&url, None, id).await?;
            if let Some(next) = redirect(&response, &url)? {
                if !self.settings.is_endpoint(&next) {
                    let reason = format!("it sends one on to {}", host(&next));
                    return Err(not_a_hub(&reason).into());
                }
                url = next;
                continue;
            }
            let status = response.status();
            if !status.is_success() {
                let what = format!("the listing of {id}");
                return Err(self.refusal(response, &url, id, revision, &what).await);
            }
            let next = next_page(response.headers(), &url);
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&url, id, e))? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_BYTES {
                    return Err(not_a_hub("its answer does not end").into());
                }
            }
            let answer = serde_json::from_slice(&body).map_err(|error| {
                not_a_hub(&format!("its answer is not the JSON of the hub's API ({error})"))
            })?;
            return Ok((answer, next));
        }
        let reason = "it sends one from address to address".into();
        Err(HubError::NotAHub { host: host(&url), reason }.into())
    }

    /// Asks for a file from a byte on. Returns who answers, too.
    pub(super) async fn file(
        &self,
        wanted: &Wanted<'_>,
        offset: u64,
    ) -> Result<(Response, Url), Failure> {
        self.follow(wanted, (offset > 0).then(|| format!("bytes={offset}-"))).await
    }

    /// The first bytes of a file, `length` of them or all that it has. Nothing is stored, and nothing can be compared with the file's hash.
    pub(super) async fn beginning(
        &self,
        wanted: &Wanted<'_>,
        length: u64,
    ) -> Result<Vec<u8>, HubError> {
        let length = length.min(wanted.size);
        let mut patience = self.patience();
        loop {
            match self.beginning_once(wanted, length).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    async fn beginning_once(&self, wanted: &Wanted<'_>, length: u64) -> Result<Vec<u8>, Failure> {
        let Some(last) = length.checked_sub(1) else { return Ok(Vec::new()) };
        let (mut response, url) = self.follow(wanted, Some(format!("bytes=0-{last}"))).await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        // Who does not know ranges sends the whole file, of which no more is read.
        while bytes.len() < length {
            let chunk = response.chunk().await.map_err(|e| self.broken(&url, wanted.id, e))?;
            let Some(chunk) = chunk else {
                return Err(Failure::again(HubError::Unavailable {
                    host: host(&url),
                    what: wanted.path.to_owned(),
                    reason: format!("it ends after {} of {length} bytes", bytes.len()),
                }));
            };
            bytes.extend_from_slice(&chunk);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Asks for a file, or a range of it, wherever the hub sends one on to.
    async fn follow(
        &self,
        wanted: &Wanted<'_>,
        range: Option<String>,
    ) -> Result<(Response, Url), Failure> {
        let mut parts: Vec<&str> = wanted.id.as_str().split('/').collect();
        parts.extend(["resolve", wanted.commit.as_str()]);
        parts.extend(wanted.path.split('/'));
        let mut url = self.settings.url(&parts);
        for _ in 0..MAX_HOPS {
            let response = self.get(&url, range.as_deref(), wanted.id).await?;
            if self.settings.is_endpoint(&url) {
                self.check_headers(response.headers(), wanted)?;
            }
            if let Some(next) = redirect(&response, &url)? {
                if url.scheme() == "https" && next.scheme() != "https" {
                    let reason = "it sends one on to an address without encryption".into();
                    return Err(HubError::Hostile { host: host(&url), reason }.into());
                }
                url = next;
                continue;
            }
            if response.status().is_success() {
                return Ok((response, url));
            }
            let revision = wanted.commit.as_str();
            return Err(self.refusal(response, &url, wanted.id, revision, wanted.path).await);
        }
        let reason = "it sends one from address to address".into();
        Err(HubError::NotAHub { host: host(&url), reason }.into())
    }

    async fn get(
        &self,
        url: &Url,
        range: Option<&str>,
        id: &RepositoryId,
    ) -> Result<Response, Failure> {
        // What is checked are the file's own bytes and their number.
        let mut request = self.http.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        if let Some(token) = &self.settings.token
            && self.settings.is_endpoint(url)
        {
            let mut value =
                HeaderValue::try_from(token.header()).map_err(|_| HubError::Setting {
                    name: token.origin,
                    reason: "the token holds characters that no header can carry".into(),
                })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(|error| self.broken(url, id, error))?;
        // Not the query, which may be a signature.
        let (host, path) = (host(url), url.path());
        tracing::debug!("GET {host}{path} {}: {}", range.unwrap_or("whole"), response.status());
        Ok(response)
    }

    /// The hub says what a file is when it is asked for it; the listing has said so before.
    fn check_headers(&self, headers: &HeaderMap, wanted: &Wanted<'_>) -> Result<(), HubError> {
        let differs = |name: &str, expected: &str| {
            let value = headers.get(name)?;
            let text = value.to_str().unwrap_or_default();
            let text = text.trim_start_matches("W/").trim_matches('"');
            (text != expected).then(|| HubError::Hostile {
                host: host(&self.settings.endpoint),
                reason: format!("its {name} for {} is not what it lists", wanted.path),
            })
        };
        let found = differs("X-Repo-Commit", wanted.commit.as_str())
            .or_else(|| differs("X-Linked-ETag", wanted.digest.as_str()))
            .or_else(|| differs("X-Linked-Size", &wanted.size.to_string()));
        found.map_or(Ok(()), Err)
    }

    /// A request or an answer that broke off.
    pub(super) fn broken(&self, url: &Url, id: &RepositoryId, error: reqwest::Error) -> Failure {
        // Its address may hold a signature.
        let error = error.without_url();
        let reason = if error.is_timeout() {
            format!("it was silent for {} s", self.settings.read_timeout.as_secs_f32())
        } else {
            causes(&error)
        };
        let host = host(url);
        // reqwest does not tell the kinds of failure apart.
        if ["certificate", "UnknownIssuer", "CaUsedAsEndEntity"].iter().any(|s| reason.contains(s))
        {
            return HubError::Untrusted { host, reason }.into();
        }
        let proxy = self.proxies.on_the_way_to(url);
        let cause = Box::new(ErrorChain::of(&error));
        Failure::again(HubError::Unreachable { host, proxy, reason, id: id.clone(), cause })
    }

    /// What an answer other than 2xx means.
    async fn refusal(
        &self,
        mut response: Response,
        url: &Url,
        id: &RepositoryId,
        revision: &str,
        what: &str,
    ) -> Failure {
        /// Of a message.
        const MAX_BYTES: usize = 4096;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while body.len() < MAX_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let words =
            header("X-Error-Message").or(json.as_ref().and_then(|json| json["error"].as_str()));
        let reason = plain(words, status);
        let unavailable = || HubError::Unavailable {
            host: host(url),
            what: what.to_owned(),
            reason: reason.clone(),
        };
        let (id, token) = (id.clone(), self.settings.token.as_ref());
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = wait_asked_for(&headers);
            let seconds = wait.map(|wait| wait.as_secs());
            let error = HubError::RateLimit { seconds, token: token.is_some() };
            return Failure::Again { error, wait, limited: true };
        }
        if !self.settings.is_endpoint(url) {
            // The address is signed for a while only, and whoever stores the file is no authority on the repository.
            return Failure::again(unavailable());
        }
        let error = match (status, header("X-Error-Code"), token) {
            (StatusCode::UNAUTHORIZED, Some("GatedRepo") | None, Some(token)) => {
                HubError::Token { origin: token.origin }
            }
            (_, Some("GatedRepo"), token) => {
                let page = self.settings.page(id.as_str());
                HubError::Gated { id, page, token: token.is_some() }
            }
            (_, Some("RevisionNotFound"), _) => {
                HubError::NoRevision { id, revision: revision.to_owned() }
            }
            (_, Some("EntryNotFound"), _) => HubError::NoFile { id, path: what.to_owned(), reason },
            (StatusCode::UNAUTHORIZED, _, None) | (_, Some("RepoNotFound"), None) => {
                HubError::UnknownOrPrivate { id }
            }
            (_, Some("RepoNotFound"), Some(_)) => HubError::NoRepository { id },
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, ..) => {
                HubError::Forbidden { id, reason }
            }
            (StatusCode::REQUEST_TIMEOUT, ..) => return Failure::again(unavailable()),
            (status, ..) if status.is_server_error() => return Failure::again(unavailable()),
            (_, _, _) => {
                HubError::NotAHub { host: host(url), reason: format!("{reason}, asked for {what}") }
            }
        };
        error.into()
    }
}

/// The server's words, on one line; they may be anything.
fn plain(words: Option<&str>, status: StatusCode) -> String {
    const LONGEST: usize = 200;
    let known = status.canonical_reason().unwrap_or("an answer without a reason");
    let status = format!("{} {known}", status.as_u16());
    match words {
        None => status,
        Some(words) => {
            let words: String =
                words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
            format!("{status}: {words}")
        }
    }
}

/// Where an answer sends one on to.
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
            reason: "it sends one on to something that is no address".into(),
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

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}
