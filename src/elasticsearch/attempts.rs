//! The attempts at one request to the cluster: which failures are temporary, and whether a failed attempt may have been carried out
//! (contract 12).

use std::time::Duration;

use super::{ClientError, Interruption};
use crate::retry::{RetryPolicy, RetryState};

/// The attempts at one request.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    retry: RetryState,
    /// Whether an earlier attempt may have been carried out.
    ambiguous: bool,
}

impl Attempts {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { retry: RetryState::new(policy), ambiguous: false }
    }

    /// Marks the request as one that an earlier process may have sent already.
    pub(super) fn sent_before(self, sent: bool) -> Self {
        Self { ambiguous: self.ambiguous || sent, ..self }
    }

    /// Whether an earlier attempt may have been carried out, so that "already exists" means success.
    pub(super) fn may_have_succeeded(&self) -> bool {
        self.ambiguous
    }

    /// How long to wait before the next attempt.
    ///
    /// # Errors
    /// Returns `error` if there must not be another attempt.
    pub(super) fn next(&mut self, error: ClientError) -> Result<Duration, ClientError> {
        self.ambiguous |= is_ambiguous(&error);
        if !may_pass(&error) {
            return Err(error);
        }
        match self.retry.next_wait(error.retry_after()) {
            Some(wait) => {
                tracing::debug!("next attempt in {wait:?}: {error}");
                Ok(wait)
            }
            None => Err(error),
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// Returns `error` if there must not be another attempt, or [`ClientError::Interrupted`] if the user stops the work.
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

    /// Waits before the next attempt of work that must be finished even when the user stops.
    pub(super) async fn wait_out(&mut self, error: ClientError) -> Result<(), ClientError> {
        let wait = self.next(error)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Sends a request that may safely be carried out twice, until it succeeds or fails permanently.
pub(super) async fn with_retries<T, F: Future<Output = Result<T, ClientError>>>(
    policy: RetryPolicy,
    mut request: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut attempts = Attempts::new(policy);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts.wait_out(error).await?,
        }
    }
}

/// Whether the same request may succeed later: transient errors, and also a failed store (500) and a proxy that waited too long (408).
/// With a part of the model stored, another attempt costs little.
pub(super) fn may_pass(error: &ClientError) -> bool {
    error.is_transient() || matches!(error, ClientError::Refused { status: 408 | 500, .. })
}

fn is_ambiguous(error: &ClientError) -> bool {
    error.is_ambiguous() || matches!(error, ClientError::Refused { status: 408 | 500, .. })
}

/// Whether the server requests fewer parallel requests.
pub(super) fn is_pushback(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 429 | 503, .. }) && may_pass(error)
}

/// Whether the error says that the object exists already (contract 0.1: 400, not 409).
pub(super) fn already_exists(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 400, kind: Some(kind), .. }
        if kind == "resource_already_exists_exception")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, kind: Option<&str>) -> ClientError {
        ClientError::Refused {
            action: "act".into(),
            status,
            kind: kind.map(str::to_owned),
            reason: "no".into(),
            retry_after: None,
        }
    }

    #[test]
    fn refusal_is_not_retried() {
        for (status, kind) in [
            (400, Some("status_exception")),
            (413, None),
            (429, Some("status_exception")),
            (409, Some("status_exception")),
        ] {
            let mut attempts = Attempts::new(RetryPolicy::default());
            assert!(attempts.next(refused(status, kind)).is_err(), "{status}");
            assert!(!attempts.may_have_succeeded());
        }
        let mut attempts = Attempts::new(RetryPolicy::default());
        assert!(attempts.next(ClientError::Credentials("no".into())).is_err());
        assert!(attempts.next(refused(500, Some("exception"))).is_ok());
        assert!(attempts.may_have_succeeded());
    }
}
