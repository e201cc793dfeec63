//! What was asked, so that tests can assert what a client sent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

/// One request and how it was answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// `GET`, `PUT` …
    pub method: String,
    /// The path as it was sent, percent-encoded.
    pub path: String,
    /// The query as it was sent; empty without one.
    pub query: String,
    /// The headers by their names in lower case, without `host` and `authorization`.
    pub headers: Map<String, Value>,
    /// The `Content-Type` of the body.
    pub content_type: Option<String>,
    /// The `Content-Encoding` of the body.
    pub content_encoding: Option<String>,
    /// Bytes of the body as they came, before any decompression.
    pub body_length: usize,
    /// The body where it is JSON. The bytes of a part of a definition are described by their number and SHA-256.
    pub body: Option<Value>,
    /// The status of the answer; 0 where a fault leaves none.
    pub status: u16,
}

/// All requests in the order in which they were answered, also before a restart.
#[derive(Debug, Default)]
pub(crate) struct RequestLog(Mutex<Vec<Exchange>>);

impl RequestLog {
    fn entries(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, exchange: Exchange) {
        self.entries().push(exchange);
    }

    pub(crate) fn all(&self) -> Vec<Exchange> {
        self.entries().clone()
    }
}
