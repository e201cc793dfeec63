//! When a request is sent again, and how long it waits before (contract 12).

use std::time::{Duration, Instant};

use super::{ClientError, Interruption};

/// How much a request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often a request is sent again at most.
    pub retries: u32,
    /// How long after its first failure a request is still sent again.
    pub timeout: Duration,
    /// What the first wait is at most; each further one may be twice as long.
    pub first_wait: Duration,
    /// What a wait is at most, unless the server asks for more.
    pub longest_wait: Duration,
    /// How long a stored part may stay invisible to a deletion: the refresh interval of the server's index, and a little more
    /// (contract 6.3).
    pub refresh: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            retries: 10,
            timeout: Duration::from_secs(600),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            refresh: Duration::from_millis(1100),
        }
    }
}

/// The tries of one request.
#[derive(Debug, Clone)]
pub(super) struct Tries {
    patience: Patience,
    failures: u32,
    /// When the first try failed.
    since: Option<Instant>,
    /// Whether an earlier try may have been carried out.
    ambiguous: bool,
}

impl Tries {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0, since: None, ambiguous: false }
    }

    /// The tries of a request that an earlier process may have sent already.
    pub(super) fn sent_before(self, sent: bool) -> Self {
        Self { ambiguous: self.ambiguous || sent, ..self }
    }

    /// Whether an earlier try may have been carried out, so that "already exists" means success.
    pub(super) fn may_have_succeeded(&self) -> bool {
        self.ambiguous
    }

    /// How long to wait before the next try; the error comes back when there is to be none.
    pub(super) fn next(&mut self, error: ClientError) -> Result<Duration, ClientError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.ambiguous |= is_ambiguous(&error);
        if !may_pass(&error) || self.failures >= self.patience.retries {
            return Err(error);
        }
        let longest = self.patience.first_wait.saturating_mul(1 << self.failures.min(20));
        // Half of it at least, so that a wait is one; the rest by chance, so that those who failed together do not come back together.
        let jittered = longest.min(self.patience.longest_wait).mul_f64(0.5 + fastrand::f64() / 2.);
        let wait = error.retry_after().unwrap_or_default().max(jittered);
        self.failures += 1;
        if since.elapsed().saturating_add(wait) > self.patience.timeout {
            return Err(error);
        }
        tracing::debug!("next try in {wait:?}: {error}");
        Ok(wait)
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The error itself when there is to be none, [`ClientError::Interrupted`] when the user stops the work.
    pub(super) async fn wait(
        &mut self,
        error: ClientError,
        interruption: &Interruption,
    ) -> Result<(), ClientError> {
        let mut interruption = interruption.clone();
        tokio::select! {
            waited = self.wait_out(error) => waited,
            () = interruption.requested() => Err(ClientError::Interrupted),
        }
    }

    /// The same for what is to be finished even when the user stops the work.
    pub(super) async fn wait_out(&mut self, error: ClientError) -> Result<(), ClientError> {
        let wait = self.next(error)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Whether the same request may succeed later. Beside what [`ClientError::is_transient`] names, a store that failed (500) and a proxy
/// that waited too long for us (408): with half a model stored, trying again costs little.
pub(super) fn may_pass(error: &ClientError) -> bool {
    error.is_transient() || matches!(error, ClientError::Refused { status: 408 | 500, .. })
}

fn is_ambiguous(error: &ClientError) -> bool {
    error.is_ambiguous() || matches!(error, ClientError::Refused { status: 408 | 500, .. })
}

/// Whether the server asks for fewer requests at a time.
pub(super) fn is_pushback(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 429 | 503, .. }) && may_pass(error)
}

/// Whether what was to be created is there already (contract 0.1: 400, not 409).
pub(super) fn already_exists(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 400, kind: Some(kind), .. }
        if kind == "resource_already_exists_exception")
}

/// How many requests may be under way at once: one more for each round without push-back, half as many after one (additive increase,
/// multiplicative decrease).
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    width: f64,
    /// Requests that were sent before this one tell nothing about the present width.
    narrowed_at: u64,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, width: most as f64, narrowed_at: 0 }
    }

    /// How many there may be.
    pub(super) fn width(&self) -> usize {
        (self.width as usize).clamp(1, self.most)
    }

    pub(super) fn succeeded(&mut self) {
        self.width = (self.width + 1. / self.width).min(self.most as f64);
    }

    /// The `request`th request was pushed back when `sent` had been sent.
    pub(super) fn pushed_back(&mut self, request: u64, sent: u64) {
        if request >= self.narrowed_at {
            self.width = (self.width / 2.).max(1.);
            self.narrowed_at = sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, kind: Option<&str>, retry_after: Option<u64>) -> ClientError {
        ClientError::Refused {
            action: "act".into(),
            status,
            kind: kind.map(str::to_owned),
            reason: "no".into(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let patience = Patience { retries: 8, ..Patience::default() };
        let mut tries = Tries::new(patience);
        for longest in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = tries.next(refused(503, None, None)).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} {longest:?}");
        }
        assert!(tries.next(refused(503, None, None)).is_err());
    }

    #[test]
    fn the_server_s_own_wait_is_honoured_within_the_timeout() {
        let patience = Patience { timeout: Duration::from_secs(60), ..Patience::default() };
        let mut tries = Tries::new(patience);
        let wait = tries.next(refused(429, None, Some(40))).unwrap();
        assert_eq!(wait, Duration::from_secs(40));
        assert!(tries.next(refused(429, None, Some(61))).is_err());
    }

    #[test]
    fn refusals_are_final() {
        for (status, kind) in [
            (400, Some("status_exception")),
            (413, None),
            (429, Some("status_exception")),
            (409, Some("status_exception")),
        ] {
            let mut tries = Tries::new(Patience::default());
            assert!(tries.next(refused(status, kind, None)).is_err(), "{status}");
            assert!(!tries.may_have_succeeded());
        }
        let mut tries = Tries::new(Patience::default());
        assert!(tries.next(ClientError::Credentials("no".into())).is_err());
        assert!(tries.next(refused(500, Some("exception"), None)).is_ok());
        assert!(tries.may_have_succeeded());
    }

    #[test]
    fn a_window_halves_once_a_round_and_grows_again() {
        let mut window = Window::new(8);
        // Eight are under way, numbers 0 to 7; three of them are pushed back.
        for request in [0, 3, 5] {
            window.pushed_back(request, 8);
        }
        assert_eq!(window.width(), 4);
        window.pushed_back(8, 9);
        window.pushed_back(9, 10);
        window.pushed_back(10, 11);
        assert_eq!(window.width(), 1);
        window.succeeded();
        assert_eq!(window.width(), 2);
        for _ in 0..100 {
            window.succeeded();
        }
        assert_eq!(window.width(), 8);
    }
}
