//! A body that is sent in pieces, and can break off, stall, or be limited in speed.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::Notify;

/// Bytes in a piece.
const PIECE: usize = 4096;

/// The end of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Whole,
    Cut(usize),
    Stall(usize),
}

/// Limits the number of bytes that are sent.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    left: Mutex<Option<u64>>,
    opened: Notify,
}

impl Gate {
    pub(crate) fn set(&self, left: Option<u64>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
        self.opened.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) == Some(0)
    }

    async fn pass(&self, bytes: usize) {
        loop {
            let opened = self.opened.notified();
            {
                let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *left {
                    None => return,
                    Some(0) => {}
                    Some(left) => {
                        *left = left.saturating_sub(bytes as u64);
                        return;
                    }
                }
            }
            opened.await;
        }
    }
}

/// Creates a body.
pub(crate) fn body(
    content: Bytes,
    end: End,
    gate: Arc<Gate>,
    sent: Arc<AtomicU64>,
    bytes_per_second: Option<u64>,
) -> Body {
    let begun = Instant::now();
    let limit = match end {
        End::Whole => content.len(),
        End::Cut(after) | End::Stall(after) => after.min(content.len()),
    };
    let pieces = stream::unfold(0_usize, move |at| {
        let (content, gate, sent) = (content.clone(), Arc::clone(&gate), Arc::clone(&sent));
        async move {
            if at < limit {
                let piece = content.slice(at..limit.min(at + PIECE));
                gate.pass(piece.len()).await;
                if let Some(speed) = bytes_per_second {
                    let due = Duration::from_secs_f64(at as f64 / speed as f64);
                    tokio::time::sleep_until((begun + due).into()).await;
                }
                sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                let next = at + piece.len();
                return Some((Ok(piece), next));
            }
            match end {
                End::Whole => None,
                End::Cut(_) => Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), at)),
                End::Stall(_) => {
                    let never: Infallible = std::future::pending().await;
                    match never {}
                }
            }
        }
    });
    Body::from_stream(pieces)
}
