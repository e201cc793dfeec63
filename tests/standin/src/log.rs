//! Log of all requests, for assertions in tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

/// A request and the status of its response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// `GET`, `PUT` …
    pub method: String,
    /// Path as sent, percent-encoded.
    pub path: String,
    /// Query string as sent; empty if the request has none.
    pub query: String,
    /// Headers by lower-case name, without `host` and `authorization`.
    pub headers: Map<String, Value>,
    /// `Content-Type` of the body.
    pub content_type: Option<String>,
    /// `Content-Encoding` of the body.
    pub content_encoding: Option<String>,
    /// Length of the body in bytes as received, before decompression.
    pub body_length: usize,
    /// Body if it is JSON. The bytes of a definition part are replaced by their length and SHA-256.
    pub body: Option<Value>,
    /// Status of the response; 0 if a fault prevents a response.
    pub status: u16,
}

/// All requests in the order of their responses, including those before a restart.
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
