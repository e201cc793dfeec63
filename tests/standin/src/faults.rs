//! Injected faults between client and cluster (contract, 12 and 13.1), as a layer around all other layers. Rules select requests;
//! random faults depend on the seed and the request only, not on the order of requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::errors::ApiError;
use crate::exchange::logged;
use crate::log::{Exchange, RequestLog};

/// Injected faults. By default no request fails.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Rules for selected requests. The first matching rule applies.
    pub rules: Vec<Rule>,
    /// Random faults for all other requests.
    pub random: Option<Random>,
    /// Largest body accepted by an imitated proxy (`client_max_body_size`). Larger bodies get 413 and an HTML page.
    pub body_limit: Option<u64>,
    /// Seconds of `Retry-After` in injected 429 and 503 responses.
    pub retry_after: Option<u32>,
}

/// Random faults.
#[derive(Debug, Clone)]
pub struct Random {
    /// Seed that selects the requests.
    pub seed: u64,
    /// Number of failing requests per 1,000.
    pub per_mille: u32,
    /// Kinds of faults, with equal probability.
    pub faults: Vec<Fault>,
}

/// A fault for selected requests, written `TARGET@FIRST-LAST=FAULT`, `TARGET@NUMBER=FAULT` or, for all requests, `TARGET=FAULT`.
///
/// ```
/// use standin::Rule;
/// // The first attempt of part 3 is stored but returns 503; requests 20 to 40 find a cluster without a master.
/// for rule in ["part-3@1=store-503", "any@20-40=503", "create=store-cut", "part@7=restart-200ms"] {
///     assert!(rule.parse::<Rule>().is_ok());
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `any`, `info`, `privileges`, `license`, `memory`, `get`, `create`, `vocabulary`, `part`, `part-N`, `delete`, `start`, `stop`,
    /// `stats`, `simulate` or `infer`.
    pub target: String,
    /// Numbers of the target's requests, counted from 1.
    pub numbers: RangeInclusive<u64>,
    /// Injected faults.
    pub fault: Fault,
}

/// The fault of a request. Written as its kind, with the prefix `store-` if the request is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Whether the request is executed before the fault occurs.
    pub carried_out: bool,
    /// Kind of the fault.
    pub kind: FaultKind,
}

/// Kind of a fault, as seen by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An error status: Elasticsearch's error for 500 and 503, a proxy's page otherwise. `500`, `502`, `503`, `504`
    Status(u16),
    /// 429 of a circuit breaker. `breaker`
    Breaker,
    /// 429 of a full queue. `rejected`
    Rejected,
    /// The connection is closed before the body is read or, if the request is executed, before the response. `cut`
    Cut,
    /// The connection is closed after half of the request's body. `cut-body`
    CutBody,
    /// The connection is closed after half of the response. `cut-answer`
    CutAnswer,
    /// The request succeeds after a delay. `slow-50ms`
    Slow(Duration),
    /// The stand-in restarts from its directory after a delay. `restart-200ms`
    Restart(Duration),
    /// The request waits until the test releases it or the client disconnects. `hold`
    Hold,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (carried_out, name) = match text.strip_prefix("store-") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let wrong = || format!("[{text}] is not a fault");
        let time = |text: &str| {
            let milliseconds = text.strip_suffix("ms")?.parse().ok()?;
            Some(Duration::from_millis(milliseconds))
        };
        let kind = match name {
            "breaker" => FaultKind::Breaker,
            "rejected" => FaultKind::Rejected,
            "cut" => FaultKind::Cut,
            "cut-body" => FaultKind::CutBody,
            "cut-answer" => FaultKind::CutAnswer,
            "hold" => FaultKind::Hold,
            _ => match name.split_once('-') {
                Some(("slow", rest)) => FaultKind::Slow(time(rest).ok_or_else(wrong)?),
                Some(("restart", rest)) => FaultKind::Restart(time(rest).ok_or_else(wrong)?),
                _ => match name.parse() {
                    Ok(status @ 400..=599) => FaultKind::Status(status),
                    _ => return Err(wrong()),
                },
            },
        };
        Ok(Self { carried_out, kind })
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("[{text}] is not a rule such as part-3@1=store-503");
        let (which, fault) = text.split_once('=').ok_or_else(wrong)?;
        let (target, numbers) = match which.split_once('@') {
            None => (which, 1..=u64::MAX),
            Some((target, numbers)) => {
                let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
                let number = |text: &str| text.parse().map_err(|_| wrong());
                (target, number(first)?..=number(last)?)
            }
        };
        Ok(Self { target: target.to_owned(), numbers, fault: fault.parse()? })
    }
}

/// Faults of a stand-in and its request counters.
#[derive(Debug, Default)]
pub(crate) struct FaultState {
    state: Mutex<State>,
    /// Changes when held requests are released.
    release: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    /// Number of requests matched by the target of each rule.
    counts: Vec<u64>,
    /// Number of attempts of each request.
    times: HashMap<String, u64>,
    held: usize,
    /// Current and highest number of concurrent requests.
    at_once: (usize, usize),
}

/// Signals that the connection is closed without a response.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected fault: the connection is closed")
    }
}

impl std::error::Error for Cut {}

impl FaultState {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the faults and restarts the counters.
    pub(crate) fn set(&self, faults: Faults) {
        let counts = vec![0; faults.rules.len()];
        let mut state = self.state();
        let at_once = (state.at_once.0, state.at_once.0);
        *state = State { faults, counts, at_once, ..State::default() };
    }

    /// Number of held requests, including those whose clients disconnected.
    pub(crate) fn held(&self) -> usize {
        self.state().held
    }

    /// Releases the held requests.
    pub(crate) fn release(&self) {
        self.state().held = 0;
        self.release.send_replace(());
    }

    /// Highest number of concurrent requests.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state().at_once.1
    }

    fn draw(&self, method: &Method, path: &str) -> Option<Fault> {
        let names = names(method, path);
        let mut state = self.state();
        let State { faults, counts, times, .. } = &mut *state;
        let mut found = None;
        for (rule, count) in faults.rules.iter().zip(counts) {
            if names.contains(&rule.target) {
                *count += 1;
                if rule.numbers.contains(count) {
                    found = found.or(Some(rule.fault));
                }
            }
        }
        let request = format!("{method} {path}");
        let time = times.entry(request.clone()).or_default();
        *time += 1;
        let random = faults.random.as_ref().filter(|random| !random.faults.is_empty());
        found.or_else(|| {
            let random = random?;
            let dice = |of: &str, sides: u64| {
                let mut hasher = DefaultHasher::new();
                (random.seed, of, &request, *time).hash(&mut hasher);
                hasher.finish() % sides
            };
            if dice("whether", 1000) >= u64::from(random.per_mille) {
                return None;
            }
            let which = dice("which", random.faults.len() as u64);
            random.faults.get(usize::try_from(which).unwrap_or_default()).copied()
        })
    }
}

/// Counts a request while it is running.
struct UnderWay<'a>(&'a FaultState);

impl<'a> UnderWay<'a> {
    fn new(state: &'a FaultState) -> Self {
        let (now, most) = &mut state.state().at_once;
        *now += 1;
        *most = (*most).max(*now);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().at_once.0 -= 1;
    }
}

/// Target names of a request in rules.
fn names(method: &Method, path: &str) -> Vec<String> {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let mut names = vec!["any".to_owned()];
    let kind = match (method.as_str(), segments.as_slice()) {
        (_, []) => "info",
        (_, ["_security", ..]) => "privileges",
        (_, ["_license"]) => "license",
        (_, ["_ml", "memory", ..]) => "memory",
        (_, [.., "_stats"]) => "stats",
        (_, [.., "_simulate"]) => "simulate",
        (_, [.., "_start"]) => "start",
        (_, [.., "_stop"]) => "stop",
        (_, [.., "_infer"]) => "infer",
        (_, [.., "vocabulary"]) => "vocabulary",
        (_, [.., "definition", part]) => {
            names.push(format!("part-{part}"));
            "part"
        }
        ("GET", ["_ml", "trained_models", ..]) => "get",
        ("PUT", ["_ml", "trained_models", _]) => "create",
        ("DELETE", ["_ml", "trained_models", _]) => "delete",
        _ => return names,
    };
    names.push(kind.to_owned());
    names
}

/// Passes a request to the API or injects a fault. `restart` is called with the duration of the restart.
pub(crate) async fn around(
    state: &FaultState,
    log: &RequestLog,
    api: Router,
    restart: impl Fn(Duration),
    request: Request,
) -> Result<Response, Cut> {
    let _under_way = UnderWay::new(state);
    let fault = state.draw(request.method(), request.uri().path());
    let (limit, retry_after) = {
        let state = state.state();
        (state.faults.body_limit, state.faults.retry_after)
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.zip(limit).is_some_and(|(length, limit)| length > limit) {
        log.add(unanswered(&request, 413));
        return Ok(page(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let Some(Fault { carried_out, kind }) = fault else { return Ok(call(api, request).await) };
    tracing::info!("{} {} meets {kind:?}", request.method(), request.uri().path());
    // A delay comes before the request; half a response needs a complete one.
    if let FaultKind::Slow(time) = kind {
        tokio::time::sleep(time).await;
        return Ok(call(api, request).await);
    }
    if kind == FaultKind::Hold {
        let mut release = state.release.subscribe();
        let held = || state.state().held += 1;
        if carried_out {
            let answer = call(api, request).await;
            held();
            let _ = release.changed().await;
            return Ok(answer);
        }
        held();
        let _ = release.changed().await;
        return Ok(call(api, request).await);
    }
    let mut answer = None;
    if carried_out || kind == FaultKind::CutAnswer {
        answer = Some(call(api, request).await);
    } else {
        let status = match kind {
            FaultKind::Status(status) => status,
            FaultKind::Breaker | FaultKind::Rejected => 429,
            _ => 0,
        };
        log.add(unanswered(&request, status));
        if kind == FaultKind::CutBody {
            read_half(request, announced.unwrap_or(0)).await;
        } else if matches!(kind, FaultKind::Status(_) | FaultKind::Breaker | FaultKind::Rejected) {
            // If the server responded immediately, the client would see a broken connection as often as the response.
            let _ = to_bytes(request.into_body(), usize::MAX).await;
        }
    }
    let mut response = match kind {
        FaultKind::Status(status) => failure(status),
        FaultKind::Breaker => ApiError::breaker().into_response(),
        FaultKind::Rejected => ApiError::rejected().into_response(),
        FaultKind::CutAnswer => half(answer.unwrap_or_default()).await,
        FaultKind::Cut | FaultKind::CutBody | FaultKind::Slow(_) | FaultKind::Hold => {
            return Err(Cut);
        }
        FaultKind::Restart(time) => {
            restart(time);
            // The connection ends when the server stops.
            return std::future::pending().await;
        }
    };
    if let Some(seconds) = retry_after.filter(|_| matches!(response.status().as_u16(), 429 | 503)) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

async fn call(api: Router, request: Request) -> Response {
    api.oneshot(request).await.unwrap_or_else(|error: Infallible| match error {})
}

/// Log entry of a request that did not reach the API; status 0 if there is no response.
fn unanswered(request: &Request, status: u16) -> Exchange {
    Exchange {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: logged(request.headers()),
        content_type: None,
        content_encoding: None,
        body_length: 0,
        body: None,
        status,
    }
}

fn failure(status: u16) -> Response {
    match status {
        500 => ApiError::server("injected fault").into_response(),
        503 => ApiError::no_master().into_response(),
        _ => page(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)),
    }
}

/// Response of a proxy.
fn page(status: StatusCode) -> Response {
    let text = format!(
        "<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n"
    );
    let headers = [(header::CONTENT_TYPE, "text/html"), (header::CONNECTION, "close")];
    (status, headers, text).into_response()
}

async fn read_half(request: Request, announced: u64) {
    let mut body = request.into_body();
    let mut read = 0;
    while read <= announced / 2 {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => break,
        }
    }
}

/// The head of a response and half of its body, then a closed connection.
async fn half(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    Response::from_parts(parts, Body::new(Half(Some(half))))
}

/// A body that ends before its declared length.
struct Half(Option<Bytes>);

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(Cut)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(state: &FaultState, count: usize) -> Vec<Option<Fault>> {
        (0..count)
            .map(|i| {
                state.draw(&Method::PUT, &format!("/_ml/trained_models/m/definition/{}", i % 20))
            })
            .collect()
    }

    #[test]
    fn seed_gives_the_same_faults_in_any_order() {
        let state = FaultState::default();
        let random = |seed| Faults {
            random: Some(Random {
                seed,
                per_mille: 300,
                faults: vec!["cut".parse().unwrap(), "store-503".parse().unwrap()],
            }),
            ..Faults::default()
        };
        state.set(random(1));
        let first = drawn(&state, 200);
        state.set(random(1));
        assert_eq!(drawn(&state, 200), first);
        state.set(random(2));
        assert_ne!(drawn(&state, 200), first);
        let failed = first.iter().flatten().count();
        assert!((30..90).contains(&failed), "{failed}");
        state.set(random(1));
        for i in (0..20).rev() {
            let path = format!("/_ml/trained_models/m/definition/{i}");
            assert_eq!(state.draw(&Method::PUT, &path), first[i]);
        }
    }

    #[test]
    fn rules_select_and_count_requests() {
        let rule = |text: &str| text.parse::<Rule>().unwrap();
        let state = FaultState::default();
        let rules = vec![rule("part-1@2=store-500"), rule("any@4-5=breaker"), rule("create=cut")];
        state.set(Faults { rules, ..Faults::default() });
        let ask = |method: &str, path: &str| {
            state.draw(&method.parse().unwrap(), path).map(|fault| (fault.carried_out, fault.kind))
        };
        let part = "/_ml/trained_models/m/definition/1";
        assert_eq!(ask("PUT", part), None);
        assert_eq!(ask("PUT", part), Some((true, FaultKind::Status(500))));
        assert_eq!(ask("PUT", "/_ml/trained_models/m"), Some((false, FaultKind::Cut)));
        assert_eq!(ask("GET", "/"), Some((false, FaultKind::Breaker)));
        assert_eq!(ask("PUT", part), Some((false, FaultKind::Breaker)));
        assert_eq!(ask("GET", "/_ml/trained_models/m"), None);
        for wrong in ["", "part", "part=", "part=explode", "part@x=cut", "part=slow", "part=200"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
