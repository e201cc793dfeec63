//! When to try again, and how long to wait before.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::HubError;

/// A request that failed.
pub(super) enum Failure {
    /// For good.
    Final(HubError),
    /// It may be otherwise next time.
    Again {
        error: HubError,
        /// How long the other side wants one to wait.
        wait: Option<Duration>,
        /// Whether there were only too many requests.
        limited: bool,
    },
}

impl Failure {
    pub(super) fn again(error: HubError) -> Self {
        Self::Again { error, wait: None, limited: false }
    }
}

/// How many failures in a row are borne.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Duration,
    failures: u32,
    limits: u32,
}

/// Attempts at one request.
const ATTEMPTS: u32 = 5;
/// Waits for a rate limit to pass.
const LIMITS: u32 = 12;
/// The hub counts requests in windows of five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

impl Patience {
    pub(super) fn new(backoff: Duration) -> Self {
        Self { backoff, failures: 0, limits: 0 }
    }

    /// Something went well.
    pub(super) fn restore(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure's own, when there should be none.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), HubError> {
        let (error, asked_for, limited) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { error, wait, limited } => (error, wait, limited),
        };
        let tries = if limited { &mut self.limits } else { &mut self.failures };
        *tries += 1;
        let doubled = self.backoff.saturating_mul(1 << (*tries - 1).min(6));
        let wait = asked_for.unwrap_or(doubled);
        if *tries >= if limited { LIMITS } else { ATTEMPTS } || wait > LONGEST_WAIT {
            return Err(error);
        }
        let seconds = wait.as_secs_f32();
        if limited {
            tracing::warn!("the hub asks to send fewer requests; waiting {seconds} s, as it says");
        } else {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default();
            tracing::warn!("{first}; trying again in {seconds} s");
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The wait that a 429 names: `Retry-After` in seconds or as a date, or `RateLimit: "name";r=0;t=55`.
pub(super) fn wait_asked_for(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|value| {
        let date = || {
            let date = httpdate::parse_http_date(value.trim()).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default().as_secs() + 1)
        };
        value.trim().parse().ok().or_else(date)
    });
    let window = || {
        let fields = text("RateLimit")?.split([';', ',']);
        fields.filter_map(|field| field.trim().strip_prefix("t=")?.parse().ok()).max()
    };
    retry_after.or_else(window).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_wait_is_read() {
        let wait = |name: &'static str, value: &str| {
            wait_asked_for(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(wait("retry-after", "7"), seconds(7));
        assert_eq!(wait("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), seconds(1));
        assert_eq!(wait("ratelimit", "\"resolvers\";r=0;t=55"), seconds(55));
        assert_eq!(wait("ratelimit", "nonsense"), None);
        assert_eq!(wait("retry-after", "soon"), None);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100_000));
        assert!(wait("retry-after", &later).unwrap() > LONGEST_WAIT);
    }

    #[tokio::test]
    async fn patience_ends() {
        let error =
            || HubError::Unavailable { host: "h".into(), what: "w".into(), reason: "r".into() };
        let mut patience = Patience::new(Duration::ZERO);
        for _ in 1..ATTEMPTS {
            assert!(patience.after(Failure::again(error())).await.is_ok());
        }
        assert!(patience.after(Failure::again(error())).await.is_err());
        let wait = Some(LONGEST_WAIT + Duration::from_secs(1));
        let too_long = Failure::Again { error: error(), wait, limited: true };
        assert!(Patience::new(Duration::ZERO).after(too_long).await.is_err());
    }
}
