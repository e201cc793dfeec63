//! The REST layer, which handles every request before and after its call (contract, 1 and 12).

use std::io::Read;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

use crate::authentication::{Principal, authenticate};
use crate::cluster::Cluster;
use crate::definition::described;
use crate::errors::ApiError;
use crate::log::Exchange;
use crate::version::Version;

const PRODUCT: &str = "x-elastic-product";

/// A media type of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaType {
    Json,
    /// `application/vnd.elasticsearch+json` with a compatible major version.
    Versioned(u32),
}

/// Reads the body, runs the call, and logs both.
pub(crate) async fn exchange(
    State(cluster): State<Arc<Cluster>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let text = |name| {
        let value: &HeaderValue = parts.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut entry = Exchange {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: logged(&parts.headers),
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
        body_length: 0,
        body: None,
        status: 0,
    };
    let is_part = parts.method == Method::PUT && entry.path.contains("/definition/");
    if is_part && cluster.options.discard_parts {
        return discard(entry, body).await;
    }
    let limit = cluster.options.max_content_length;
    let mut response = match read_body(&parts.headers, body, limit).await {
        Err(refusal) => refusal,
        Ok((bytes, received)) => {
            entry.body_length = received;
            entry.body =
                if is_part { described(&bytes) } else { serde_json::from_slice(&bytes).ok() };
            match admit(&cluster, &parts.headers, &entry.path, !bytes.is_empty()) {
                Err(refusal) => refusal.into_response(),
                Ok((principal, accepted)) => {
                    parts.extensions.insert(principal);
                    parts.headers.remove(header::CONTENT_ENCODING);
                    let mut response =
                        next.run(Request::from_parts(parts, Body::from(bytes))).await;
                    set_content_type(&mut response, accepted);
                    response
                }
            }
        }
    };
    if cluster.options.product_header {
        response.headers_mut().insert(PRODUCT, HeaderValue::from_static("Elasticsearch"));
    }
    entry.status = response.status().as_u16();
    tracing::info!(
        "{} {}{}{} -> {} ({} bytes)",
        entry.method,
        entry.path,
        if entry.query.is_empty() { "" } else { "?" },
        entry.query,
        entry.status,
        entry.body_length
    );
    cluster.log.add(entry);
    response
}

/// Accepts a part and discards it. The log records when the request began and when it was completed.
async fn discard(entry: Exchange, mut body: Body) -> Response {
    tracing::info!("{} {} begins", entry.method, entry.path);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return StatusCode::BAD_REQUEST.into_response() };
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    tracing::info!("{} {} -> 200 ({length} bytes)", entry.method, entry.path);
    ([(PRODUCT, "Elasticsearch")], Json(json!({"acknowledged": true}))).into_response()
}

/// Headers of the client that contain no secrets.
pub(crate) fn logged(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .iter()
        .filter(|(name, _)| **name != header::HOST && **name != header::AUTHORIZATION)
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into())
        })
        .collect()
}

/// The decompressed body and its received length in bytes. Above the limit the response is empty and the connection is closed.
async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
) -> Result<(Vec<u8>, usize), Response> {
    let refuse = || {
        let expects = headers.contains_key(header::EXPECT);
        let status =
            if expects { StatusCode::EXPECTATION_FAILED } else { StatusCode::PAYLOAD_TOO_LARGE };
        (status, [(header::CONNECTION, "close"), (header::CONTENT_LENGTH, "0")]).into_response()
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(refuse());
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let bytes = to_bytes(body, limit).await.map_err(|error| {
        if error.to_string() == "length limit exceeded" {
            return refuse();
        }
        // The client has disconnected, so only the log shows this error.
        ApiError::illegal_argument(format!("the body was cut: {error}")).into_response()
    })?;
    let received = bytes.len();
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok((bytes.into(), received)),
        Some(b"gzip") => {
            let mut decompressed = Vec::new();
            let mut decoder = MultiGzDecoder::new(bytes.as_ref()).take(limit as u64 + 1);
            if let Err(error) = decoder.read_to_end(&mut decompressed) {
                let error = ApiError::illegal_argument(format!("cannot decompress body: {error}"));
                return Err(error.into_response());
            }
            if decompressed.len() > limit {
                return Err(refuse());
            }
            Ok((decompressed, received))
        }
        Some(other) => Err(ApiError::illegal_argument(format!(
            "unknown content encoding [{}]",
            String::from_utf8_lossy(other)
        ))
        .into_response()),
    }
}

/// Checks the credentials, the type of the body and the accepted types of the response.
fn admit(
    cluster: &Cluster,
    headers: &HeaderMap,
    path: &str,
    has_body: bool,
) -> Result<(Principal, MediaType), ApiError> {
    let version = cluster.options.version;
    let principal = authenticate(&cluster.options.credentials, headers, path)?;
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let content = text(header::CONTENT_TYPE);
    let sent = match content {
        Some(content) => Some(media_type(content, "Content-Type", version)?),
        None if has_body => {
            return Err(ApiError::sentence(
                StatusCode::NOT_ACCEPTABLE,
                "Content-Type header is missing",
            ));
        }
        None => None,
    };
    let wanted = match text(header::ACCEPT) {
        None => None,
        Some(accept) => accepted(accept, version)?,
    };
    let is_versioned = |media: Option<MediaType>| matches!(media, Some(MediaType::Versioned(_)));
    if has_body && is_versioned(wanted) != is_versioned(sent) {
        return Err(ApiError::media_type(format!(
            "A compatible version is required on both Content-Type and Accept headers if either one has requested a compatible version. Accept={} Content-Type={}",
            text(header::ACCEPT).unwrap_or("null"),
            content.unwrap_or("null")
        )));
    }
    Ok((principal, wanted.or(sent).unwrap_or(MediaType::Json)))
}

/// The first supported type of an `Accept` header; `None` if the client accepts any type.
fn accepted(accept: &str, version: Version) -> Result<Option<MediaType>, ApiError> {
    let mut refusal = None;
    for entry in accept.split(',') {
        let essence = entry.split(';').next().unwrap_or_default().trim();
        if essence == "*/*" || essence == "application/*" {
            return Ok(None);
        }
        match media_type(entry, "Accept", version) {
            Ok(media) => return Ok(Some(media)),
            Err(error) => refusal = Some(error),
        }
    }
    refusal.map_or(Ok(None), Err)
}

fn media_type(text: &str, header: &str, version: Version) -> Result<MediaType, ApiError> {
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let parameter = |wanted: &str| {
        parts.clone().filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case(wanted).then(|| value.trim_matches('"').to_owned())
        })
    };
    match essence.as_str() {
        "application/json" => Ok(MediaType::Json),
        "application/vnd.elasticsearch+json" => {
            let major = parameter("compatible-with").and_then(|value| value.parse().ok());
            match major {
                Some(major) if major == version.major || major + 1 == version.major => {
                    Ok(MediaType::Versioned(major))
                }
                _ => Err(ApiError::media_type(format!(
                    "Invalid media-type value on headers [{header}]"
                ))),
            }
        }
        _ => Err(ApiError::sentence(
            StatusCode::NOT_ACCEPTABLE,
            format!("{header} header [{text}] is not supported"),
        )),
    }
}

fn set_content_type(response: &mut Response, media: MediaType) {
    if !response.headers().contains_key(header::CONTENT_TYPE) {
        return;
    }
    if let MediaType::Versioned(major) = media {
        let value = format!("application/vnd.elasticsearch+json;compatible-with={major}");
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version::new(9, 5, 0);

    #[test]
    fn media_type_is_json_of_a_supported_version() {
        let read = |text: &str| media_type(text, "Accept", VERSION);
        assert_eq!(read("application/json; charset=UTF-8"), Ok(MediaType::Json));
        for major in [8, 9] {
            let text = format!("application/vnd.elasticsearch+json; compatible-with={major}");
            assert_eq!(read(&text), Ok(MediaType::Versioned(major)));
        }
        for wrong in [
            "application/vnd.elasticsearch+json; compatible-with=7",
            "application/vnd.elasticsearch+json",
        ] {
            assert_eq!(read(wrong).unwrap_err().status, 400, "{wrong}");
        }
        assert_eq!(read("text/html").unwrap_err().status, 406);
    }

    #[test]
    fn first_supported_accept_type_is_chosen() {
        assert_eq!(accepted("*/*", VERSION), Ok(None));
        assert_eq!(accepted("text/html, application/json", VERSION), Ok(Some(MediaType::Json)));
        assert!(accepted("text/html", VERSION).is_err());
    }
}
