//! What was asked, so that tests can assert what a client sent and was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::Host;

/// One request and how it was answered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who was asked.
    pub host: Host,
    /// `GET`, `HEAD` …
    pub method: String,
    /// Path and query as they were sent.
    pub path: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The first byte asked for (`Range`).
    pub from: Option<u64>,
    /// The last byte asked for, if one was named.
    pub to: Option<u64>,
    /// The status of the answer.
    pub status: u16,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Request {
    /// Bytes of the body that have been handed to the connection by now.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}
