//! The running hub, and what a test can control.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::request::Parts;
use axum::http::{Response, header};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::runtime::Runtime;

use crate::answer::Answer;
use crate::body::{End, Gate, body};
use crate::fault::{Break, Fault};
use crate::log::Request;
use crate::repository::Repository;
use crate::{api, files};

/// The host of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The hub.
    Hub,
    /// The CDN, which serves large files.
    Cdn,
}

/// The options of a hub.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port of the hub; 0 takes a free one.
    pub port: u16,
    /// The repositories.
    pub repositories: Vec<Repository>,
    /// A token that can read all repositories.
    pub token: Option<String>,
    /// A valid token that can read only public repositories.
    pub stranger: Option<String>,
    /// Entries on a page of a listing.
    pub page: usize,
    /// The speed limit of each connection.
    pub bytes_per_second: Option<u64>,
    /// The address of another hub, to which the API and the files redirect.
    pub moved_to: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            repositories: Vec::new(),
            token: None,
            stranger: None,
            page: 1000,
            bytes_per_second: None,
            moved_to: None,
        }
    }
}

/// A running hub with its CDN, both on the loopback interface. Dropping it stops them.
pub struct Hub {
    state: Arc<State>,
    runtime: Option<Runtime>,
}

/// The state that the handlers share.
pub(crate) struct State {
    addresses: [SocketAddr; 2],
    options: Options,
    repositories: Mutex<Vec<Arc<Repository>>>,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<Request>>,
    gate: Arc<Gate>,
}

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Nobody,
    /// A caller with an invalid token.
    Revoked,
    /// A caller with a valid token without access.
    Known,
    Granted,
}

/// A request.
pub(crate) struct Asked {
    pub path: String,
    pub authorization: Option<String>,
    pub from: Option<u64>,
    pub to: Option<u64>,
    pub if_none_match: Option<String>,
}

impl Hub {
    /// Starts a hub.
    ///
    /// # Panics
    /// If the hub cannot start.
    #[must_use]
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(hub) => hub,
            Err(error) => panic!("the hub cannot start: {error}"),
        }
    }

    /// Starts a hub.
    ///
    /// # Errors
    /// If the port is in use.
    pub fn try_start(mut options: Options) -> io::Result<Self> {
        let listen = |port| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let listeners = [listen(options.port)?, listen(0)?];
        let addresses = [listeners[0].local_addr()?, listeners[1].local_addr()?];
        let repositories = std::mem::take(&mut options.repositories);
        let repositories = Mutex::new(repositories.into_iter().map(Arc::new).collect());
        let state = Arc::new(State {
            addresses,
            options,
            repositories,
            faults: Mutex::default(),
            log: Mutex::default(),
            gate: Arc::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        for (listener, host) in listeners.into_iter().zip([Host::Hub, Host::Cdn]) {
            let state = Arc::clone(&state);
            let app = Router::new().fallback(move |request: HttpRequest| {
                let (state, (head, _)) = (Arc::clone(&state), request.into_parts());
                async move { state.handle(host, &head).await }
            });
            runtime.spawn(async move {
                axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await
            });
        }
        Ok(Self { state, runtime: Some(runtime) })
    }

    /// The address of the hub, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.state.url()
    }

    /// All requests so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.state.log).clone()
    }

    /// Forgets the requests.
    pub fn forget(&self) {
        locked(&self.state.log).clear();
    }

    /// Injects a fault.
    pub fn inject(&self, fault: Fault) {
        locked(&self.state.faults).push(fault);
    }

    /// The number of faults that no request has met.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        locked(&self.state.faults).iter().filter(|fault| fault.times > 0).count()
    }

    /// Replaces a repository, which changes its commit.
    pub fn replace(&self, repository: Repository) {
        let mut repositories = locked(&self.state.repositories);
        repositories.retain(|other| other.id != repository.id);
        repositories.push(Arc::new(repository));
    }

    /// Sends this many more bytes of bodies, and then stops sending.
    pub fn hold_after(&self, bytes: u64) {
        self.state.gate.set(Some(bytes));
    }

    /// Whether the hub has stopped sending bodies.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.state.gate.is_closed()
    }

    /// Sends bodies again.
    pub fn release(&self) {
        self.state.gate.set(None);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    pub(crate) fn cdn_url(&self) -> String {
        format!("http://{}", self.addresses[1])
    }

    pub(crate) fn page(&self) -> usize {
        self.options.page
    }

    pub(crate) fn repositories(&self) -> Vec<Arc<Repository>> {
        locked(&self.repositories).clone()
    }

    pub(crate) fn caller(&self, asked: &Asked) -> Caller {
        let Some(sent) = &asked.authorization else { return Caller::Nobody };
        let is = |token: &Option<String>| {
            token.as_ref().is_some_and(|token| *sent == format!("Bearer {token}"))
        };
        if is(&self.options.token) {
            Caller::Granted
        } else if is(&self.options.stranger) {
            Caller::Known
        } else {
            Caller::Revoked
        }
    }

    async fn handle(&self, host: Host, head: &Parts) -> Response<Body> {
        let header = |name: header::HeaderName| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        // A client of a proxy sends the whole address.
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let range = header(header::RANGE);
        let range =
            range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (from, to) = range.unwrap_or_default();
        let asked = Asked {
            path,
            authorization: header(header::AUTHORIZATION),
            from: from.parse().ok(),
            to: to.parse().ok(),
            if_none_match: header(header::IF_NONE_MATCH),
        };
        // A client of a proxy reaches both hosts here.
        let cdn = self.addresses[1].to_string();
        let host = match head.uri.authority() {
            Some(authority) if authority.as_str() == cdn => Host::Cdn,
            _ => host,
        };
        let mut answer = match host {
            Host::Hub => self.answer(&asked),
            Host::Cdn => files::cdn(self, &asked),
        };
        let mut end = End::Whole;
        let mut length = true;
        let fault = self.fault(host, &asked.path);
        match fault {
            None => {}
            Some(Break::Answer(status, headers, text)) => {
                answer = Answer::new(status, text);
                answer.headers = headers;
            }
            Some(Break::Header(name, value)) => answer.set(&name, &value),
            Some(Break::Cut(after)) => end = End::Cut(after),
            Some(Break::Stall(after)) => end = End::Stall(after),
            Some(Break::Flip) => {
                let mut bytes = answer.body.to_vec();
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
                answer.body = Bytes::from(bytes);
            }
            Some(Break::NoRange) => {
                if let Some(whole) = answer.whole.take() {
                    (answer.status, answer.body) = (200, whole);
                    answer.set("Content-Range", "");
                }
            }
            Some(Break::NoLength) => length = false,
            Some(Break::Silence) => {
                self.record(host, head, &asked, 0);
                std::future::pending::<()>().await;
            }
        }
        let sent = self.record(host, head, &asked, answer.status);
        let mut response = Response::builder().status(answer.status);
        for (name, value) in &answer.headers {
            response = response.header(name, value);
        }
        if length {
            response = response.header(header::CONTENT_LENGTH, answer.body.len());
        }
        let gate = Arc::clone(&self.gate);
        let body = body(answer.body, end, gate, sent, self.options.bytes_per_second);
        response.body(body).unwrap_or_default()
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if let Some(other) = &self.options.moved_to {
            return Answer::redirect(308, &format!("{other}{}", asked.path));
        }
        let path = asked.path.split('?').next().unwrap_or_default();
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
        let begins = |prefix: &[&str]| {
            parts.iter().zip(prefix).filter(|(part, other)| *part == *other).count() == prefix.len()
        };
        if begins(&["api", "resolve-cache", "models"]) {
            return files::resolve_cache(self, asked, &parts[3..]);
        }
        if begins(&["api", "models"]) {
            return api::answer(self, asked, &parts[2..]);
        }
        match parts.iter().position(|part| part == "resolve") {
            Some(at) => files::resolve(self, asked, &parts[..at].join("/"), &parts[at + 1..]),
            None => files::not_found(),
        }
    }

    fn fault(&self, host: Host, path: &str) -> Option<Break> {
        let mut faults = locked(&self.faults);
        let fault = faults
            .iter_mut()
            .find(|fault| fault.host == host && fault.times > 0 && path.contains(&fault.path))?;
        fault.times -= 1;
        Some(fault.how.clone())
    }

    fn record(&self, host: Host, head: &Parts, asked: &Asked, status: u16) -> Arc<AtomicU64> {
        let sent = Arc::new(AtomicU64::new(0));
        locked(&self.log).push(Request {
            host,
            method: head.method.to_string(),
            path: asked.path.clone(),
            authorization: asked.authorization.clone(),
            from: asked.from,
            to: asked.to,
            status,
            sent: Arc::clone(&sent),
        });
        sent
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
