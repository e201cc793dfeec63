//! The log of requests, for assertions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::Host;

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Request {
    /// The host.
    pub host: Host,
    /// `GET`, `HEAD` …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The first requested byte (`Range`).
    pub from: Option<u64>,
    /// The last requested byte, if the range has one.
    pub to: Option<u64>,
    /// The status of the answer.
    pub status: u16,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Request {
    /// Bytes of the body that have been sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}
