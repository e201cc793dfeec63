//! Failed requests to the hub: which of them are repeated, and after which wait.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::HubError;
use crate::retry::{RetryPolicy, RetryState, retry_after};

/// A request that failed.
pub(super) enum RequestFailure {
    /// The request would fail again.
    Final(HubError),
    /// The request may succeed later.
    Transient {
        /// Why it failed.
        error: HubError,
        /// The wait that the server requests.
        wait: Option<Duration>,
        /// Whether the server refuses requests because there were too many.
        is_rate_limit: bool,
    },
}

impl RequestFailure {
    /// A failure for which the server requests no particular wait.
    pub(super) fn transient(error: HubError) -> Self {
        Self::Transient { error, wait: None, is_rate_limit: false }
    }
}

impl From<HubError> for RequestFailure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// The failures of one request so far. Rate limits are counted separately, because waiting for them is not a failure of the hub.
#[derive(Debug)]
pub(super) struct Retries {
    failures: RetryState,
    rate_limits: RetryState,
}

/// Retries after failures.
const RETRIES: u32 = 4;
/// Waits for a rate limit to pass.
const RATE_LIMIT_RETRIES: u32 = 11;
/// The longest wait that the server can request. The hub counts requests in windows of five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

impl Retries {
    /// `first_wait` is the longest wait after a first failure.
    pub(super) fn new(first_wait: Duration) -> Self {
        let policy = |retries, timeout| {
            RetryState::new(RetryPolicy { retries, timeout, first_wait, ..RetryPolicy::default() })
        };
        Self {
            failures: policy(RETRIES, LONGEST_WAIT * RETRIES),
            rate_limits: policy(RATE_LIMIT_RETRIES, LONGEST_WAIT * RATE_LIMIT_RETRIES),
        }
    }

    /// No retries: the first failure is final.
    pub(super) fn none() -> Self {
        let policy = RetryPolicy { retries: 0, ..RetryPolicy::default() };
        Self { failures: RetryState::new(policy), rate_limits: RetryState::new(policy) }
    }

    /// Starts again after received bytes.
    pub(super) fn reset(&mut self) {
        self.failures.reset();
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error of the failure, if there must not be another attempt.
    pub(super) async fn wait_after(&mut self, failure: RequestFailure) -> Result<(), HubError> {
        let (error, asked_for, is_rate_limit) = match failure {
            RequestFailure::Final(error) => return Err(error),
            RequestFailure::Transient { error, wait, is_rate_limit } => {
                (error, wait, is_rate_limit)
            }
        };
        let state = if is_rate_limit { &mut self.rate_limits } else { &mut self.failures };
        let wait = state.next_wait(asked_for).filter(|wait| *wait <= LONGEST_WAIT);
        let Some(wait) = wait else { return Err(error) };
        let seconds = wait.as_secs_f32();
        if is_rate_limit {
            tracing::warn!("the hub limits the rate of requests; waiting {seconds:.1} s");
        } else {
            tracing::warn!("{error}; retrying in {seconds:.1} s");
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The wait that a response with status 429 requests: `Retry-After`, or the hub's `RateLimit: "name";r=0;t=55`.
pub(super) fn wait_asked_for(headers: &HeaderMap) -> Option<Duration> {
    let window = || {
        let fields = headers.get("RateLimit")?.to_str().ok()?.split([';', ',']);
        fields.filter_map(|field| field.trim().strip_prefix("t=")?.parse().ok()).max()
    };
    retry_after(headers).or_else(|| window().map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_wait_reads_both_headers() {
        let wait = |name: &'static str, value: &str| {
            wait_asked_for(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(wait("retry-after", "7"), seconds(7));
        assert_eq!(wait("ratelimit", "\"resolvers\";r=0;t=55"), seconds(55));
        assert_eq!(wait("ratelimit", "nonsense"), None);
        assert_eq!(wait("retry-after", "soon"), None);
    }

    #[tokio::test]
    async fn retries_end_after_five_attempts_and_refuse_long_waits() {
        let error =
            || HubError::Unavailable { host: "h".into(), what: "w".into(), reason: "r".into() };
        let mut retries = Retries::new(Duration::ZERO);
        for _ in 0..RETRIES {
            assert!(retries.wait_after(RequestFailure::transient(error())).await.is_ok());
        }
        assert!(retries.wait_after(RequestFailure::transient(error())).await.is_err());
        let wait = Some(LONGEST_WAIT + Duration::from_secs(1));
        let too_long = RequestFailure::Transient { error: error(), wait, is_rate_limit: true };
        assert!(Retries::new(Duration::ZERO).wait_after(too_long).await.is_err());
    }
}
