//! When a failed request is repeated, and how long to wait before it. The hub and the cluster share this module.
//!
//! The caller decides which failures are temporary. A `RetryState` counts them and computes the waits of exponential backoff:
//!
//! ```ignore
//! let mut state = RetryState::new(policy);
//! loop {
//!     match request().await {
//!         Ok(answer) => return Ok(answer),
//!         Err(error) if error.is_transient() => match state.next_wait(error.retry_after()) {
//!             Some(wait) => tokio::time::sleep(wait).await,
//!             None => return Err(error),
//!         },
//!         Err(error) => return Err(error),
//!     }
//! }
//! ```

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Limits for the retries of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Maximum number of retries. The first attempt does not count.
    pub retries: u32,
    /// Time after the first failure during which a request is retried.
    pub timeout: Duration,
    /// Upper limit of the first wait. The limit doubles for each further wait.
    pub first_wait: Duration,
    /// Upper limit of all waits, unless the server requests a longer one with `Retry-After`.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// 10 retries within 10 minutes, with waits from 0.5 s to 30 s.
    fn default() -> Self {
        Self {
            retries: 10,
            timeout: Duration::from_secs(600),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// The failures of one request so far.
#[derive(Debug, Clone)]
pub(crate) struct RetryState {
    policy: RetryPolicy,
    failures: u32,
    first_failure: Option<Instant>,
}

impl RetryState {
    /// A request that has not failed yet.
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0, first_failure: None }
    }

    /// Counts a failure. Returns how long to wait before the next attempt, or `None` if there must not be one. `retry_after` is the
    /// wait that the server requests; it has no effect if it is shorter than the backoff.
    pub(crate) fn next_wait(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let first_failure = *self.first_failure.get_or_insert_with(Instant::now);
        if self.failures >= self.policy.retries {
            return None;
        }
        let longest = self.policy.first_wait.saturating_mul(1 << self.failures.min(20));
        // The wait is random, from half of the backoff to all of it, so that clients that failed together do not retry together.
        let backoff = longest.min(self.policy.longest_wait).mul_f64(0.5 + fastrand::f64() / 2.);
        let wait = retry_after.unwrap_or_default().max(backoff);
        self.failures += 1;
        (first_failure.elapsed().saturating_add(wait) <= self.policy.timeout).then_some(wait)
    }

    /// Resets the count after a success, such as received bytes of a download.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.first_failure = None;
    }
}

/// Parses the header `Retry-After`: seconds, or a date. A date is compared with the header `Date`, or else with this machine's
/// clock, and counts as zero if it has passed.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let wait = until.duration_since(sent.unwrap_or_else(SystemTime::now)).unwrap_or_default();
    // HTTP dates have no fractions of a second.
    Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn next_wait_doubles_and_ends_after_last_retry() {
        let mut state = RetryState::new(RetryPolicy { retries: 8, ..RetryPolicy::default() });
        for longest in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = state.next_wait(None).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} {longest:?}");
        }
        assert_eq!(state.next_wait(None), None);
        state.reset();
        assert!(state.next_wait(None).unwrap() <= Duration::from_millis(500));
    }

    #[test]
    fn next_wait_honours_retry_after_within_timeout() {
        let timeout = Duration::from_secs(60);
        let mut state = RetryState::new(RetryPolicy { timeout, ..RetryPolicy::default() });
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(state.next_wait(seconds(40)), seconds(40));
        assert_eq!(state.next_wait(seconds(61)), None);
    }

    #[test]
    fn next_wait_with_extreme_durations_does_not_panic() {
        let longest = Duration::MAX;
        let policy = RetryPolicy {
            retries: 3,
            timeout: longest,
            first_wait: longest,
            longest_wait: Duration::from_secs(1),
        };
        assert!(RetryState::new(policy).next_wait(Some(longest)).is_some());
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let read = |value: &str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            retry_after(&headers)
        };
        let date = Some("Sat, 21 Nov 2026 10:00:00 GMT");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read(" 7 ", date), seconds(7));
        assert_eq!(read("Sat, 21 Nov 2026 10:00:30 GMT", date), seconds(30));
        assert_eq!(read("Sat, 21 Nov 2026 09:00:00 GMT", date), seconds(0));
        assert_eq!((read("soon", date), read("-1", date)), (None, None));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100_000));
        let wait = read(&later, None).unwrap();
        assert!(
            wait > Duration::from_secs(99_990) && wait <= Duration::from_secs(100_000),
            "{wait:?}"
        );
    }
}
