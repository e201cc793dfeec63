//! The meaning of the hub's answers with an error status.

use reqwest::{Response, StatusCode, Url};

use super::retry::{RequestFailure, wait_asked_for};
use super::settings::{TOKEN_FILE, host};
use super::{HubError, HubSettings, RepositoryId};

/// The error for a response with an error status. `what` is the requested object, for messages.
pub(super) async fn failure(
    mut response: Response,
    url: &Url,
    settings: &HubSettings,
    id: &RepositoryId,
    revision: &str,
    what: &str,
) -> RequestFailure {
    /// Maximum number of bytes that are read of a response.
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
    let words = header("X-Error-Message").or(json.as_ref().and_then(|json| json["error"].as_str()));
    let reason = plain(words, status);
    let unavailable =
        || HubError::Unavailable { host: host(url), what: what.to_owned(), reason: reason.clone() };
    let (id, token) = (id.clone(), settings.token.as_ref());
    if status == StatusCode::TOO_MANY_REQUESTS {
        let wait = wait_asked_for(&headers);
        let seconds = wait.map(|wait| wait.as_secs());
        let error = HubError::RateLimit { seconds, token: token.is_some() };
        return RequestFailure::Transient { error, wait, is_rate_limit: true };
    }
    if !settings.is_hub(url) {
        // The address is signed for a limited time, and a CDN does not decide about access to the repository.
        return RequestFailure::transient(unavailable());
    }
    let error = match (status, header("X-Error-Code"), token) {
        (StatusCode::UNAUTHORIZED, Some("GatedRepo") | None, Some(token)) => {
            HubError::Token { origin: token.origin, stored: token.origin == TOKEN_FILE }
        }
        (_, Some("GatedRepo"), token) => {
            let page = settings.page(id.as_str());
            HubError::Gated { id, page, token: token.is_some() }
        }
        (_, Some("RevisionNotFound"), _) => {
            HubError::NoRevision { id, revision: revision.to_owned() }
        }
        (_, Some("EntryNotFound"), _) => HubError::NoFile { id, path: what.to_owned(), reason },
        (StatusCode::UNAUTHORIZED, _, None) | (_, Some("RepoNotFound"), None) => {
            HubError::NotFound { id, token: false }
        }
        (_, Some("RepoNotFound"), Some(_)) => HubError::NotFound { id, token: true },
        (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, ..) => {
            HubError::Forbidden { id, reason }
        }
        (StatusCode::REQUEST_TIMEOUT, ..) => return RequestFailure::transient(unavailable()),
        (status, ..) if status.is_server_error() => return RequestFailure::transient(unavailable()),
        (_, _, _) => HubError::NotAHub {
            host: host(url),
            reason: format!("{reason}, for a request of {what}"),
        },
    };
    error.into()
}

/// Status and text of an answer, on one line and without control characters.
fn plain(words: Option<&str>, status: StatusCode) -> String {
    const LONGEST: usize = 200;
    let name = status.canonical_reason().unwrap_or("unknown status");
    let status = format!("{} {name}", status.as_u16());
    match words {
        None => status,
        Some(words) => {
            let words: String =
                words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
            format!("{status}: {words}")
        }
    }
}
