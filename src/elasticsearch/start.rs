//! The start of a deployment: the request, and the wait for allocations (contract 7).

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::deployment_error::is_unknown_model;
use super::payload::Payload;
use super::stats::{Deployment, State};
use super::{Client, ClientError, DeploymentError, ServedId, StartOptions, WaitFor};
use crate::hint::{Command, Hint, Setting, hint};
use crate::observer::{Progress, RunningStage, Stage};

/// The interval between two polls of the stats.
const INTERVAL: Duration = Duration::from_secs(1);

/// Additional time for the last poll after the timeout of the start.
const GRACE: Duration = Duration::from_secs(5);

/// Maximum timeout. A longer one could not be added to the current time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl StartOptions {
    /// Starts a model and waits for it, at most until the timeout. The deployment continues when the wait ends.
    ///
    /// # Errors
    /// [`DeploymentError`] if the settings are not valid, the server rejects the request, no node can load the model, or the
    /// timeout expires.
    pub async fn start(
        &self,
        client: &Client,
        model_id: &ServedId,
        progress: &Progress,
    ) -> Result<Deployment, DeploymentError> {
        self.check_for(client)?;
        let start = Start {
            client,
            model_id,
            deployment_id: self.deployment_id.as_ref().unwrap_or(model_id),
            options: self,
            deadline: Instant::now() + self.timeout.min(FOREVER),
        };
        let deployment = start.run(progress).await?;
        if deployment.allocations < deployment.target_allocations
            && self.wait_for != WaitFor::Starting
        {
            let reasons = deployment.reasons();
            tracing::warn!(
                "{} runs with {} of {} allocations{}",
                deployment.deployment_id,
                deployment.allocations,
                deployment.target_allocations,
                if reasons.is_empty() {
                    String::new()
                } else {
                    format!(": {}", reasons.join("; "))
                }
            );
        }
        Ok(deployment)
    }
}

/// A start in progress.
struct Start<'a> {
    client: &'a Client,
    model_id: &'a ServedId,
    deployment_id: &'a ServedId,
    options: &'a StartOptions,
    deadline: Instant,
}

/// The state of the request that starts the deployment.
enum Request {
    /// The request has no response yet.
    Pending,
    /// The server accepted the request, and may still work on it.
    Accepted,
    /// There was no response, or only one of a proxy.
    Lost(ClientError),
}

impl Start<'_> {
    async fn run(&self, progress: &Progress) -> Result<Deployment, DeploymentError> {
        let waiting = progress.start(Stage::Start);
        let path = format!(
            "_ml/trained_models/{}/deployment/_start?{}",
            self.model_id.segment(),
            self.options.query()
        );
        let call = self.client.call(
            Method::POST,
            &path,
            self.options.body().as_ref().map(Payload::json),
            "start the model",
        );
        tokio::pin!(call);
        let mut request = Request::Pending;
        loop {
            let next = (Instant::now() + INTERVAL).min(self.deadline);
            tokio::select! {
                biased;
                answer = &mut call, if matches!(request, Request::Pending) => {
                    request = self.answered(answer)?;
                }
                () = sleep_until(next) => {}
            }
            let is_over = Instant::now() >= self.deadline;
            let found = self.poll(&waiting).await?;
            match (&found, &request) {
                (Polled::Deployed(deployment), _) if self.has_failed(deployment, &request) => {
                    return Err(self.failed(deployment));
                }
                (Polled::Deployed(deployment), Request::Accepted)
                    if self.is_reached(deployment) =>
                {
                    waiting.finish();
                    return Ok(deployment.clone());
                }
                // The response may be lost, but the deployment exists.
                (Polled::Deployed(deployment), _)
                    if self.options.wait_for != WaitFor::Starting
                        && self.is_reached(deployment) =>
                {
                    waiting.finish();
                    return Ok(deployment.clone());
                }
                (Polled::None, Request::Accepted) => {
                    return Err(self.not_started("the deployment was removed while waiting", None));
                }
                (Polled::None, Request::Lost(error)) => {
                    return Err(self.not_started(error.to_string(), error.hint()));
                }
                _ if is_over => return Err(self.timed_out(found)),
                _ => {}
            }
        }
    }

    fn is_reached(&self, deployment: &Deployment) -> bool {
        self.options.wait_for.is_reached_by(deployment)
    }

    /// The server's own response names every node, so a failure is reported only after it.
    fn has_failed(&self, deployment: &Deployment, request: &Request) -> bool {
        let is_answered = !matches!(request, Request::Pending) || Instant::now() >= self.deadline;
        deployment.state == State::Failed && is_answered
    }

    fn answered(&self, answer: Result<Value, ClientError>) -> Result<Request, DeploymentError> {
        let error = match answer {
            Ok(_) => return Ok(Request::Accepted),
            Err(error) => error,
        };
        match error {
            // The deployment continues to start (contract 7.2).
            ClientError::Refused { status: 408, kind: Some(_), .. } => Ok(Request::Accepted),
            // A proxy with a shorter timeout, or a node that left: the start may continue.
            ClientError::Refused { status: 408, .. } => Ok(Request::Lost(error)),
            error if error.is_transient() => Ok(Request::Lost(error)),
            ClientError::Refused { status: 400 | 409, ref reason, .. }
                if self.options.adopt && is_running(reason) =>
            {
                tracing::info!("{} is already deployed, with its own settings", self.deployment_id);
                Ok(Request::Accepted)
            }
            ClientError::Refused { status: 404, reason, .. } if is_unknown_model(&reason) => {
                Err(DeploymentError::NotFound { what: "model", id: self.model_id.clone() })
            }
            ClientError::Refused { reason, .. } => Err(self.not_started(reason, None)),
            // A rolling upgrade also causes a 403.
            ClientError::Privilege { reason, .. } if reason.contains("upgrade is in progress") => {
                Err(self.not_started(reason, None))
            }
            other => Err(other.into()),
        }
    }

    /// Requests and reports the stats. A busy cluster may respond later.
    async fn poll(&self, waiting: &RunningStage) -> Result<Polled, DeploymentError> {
        let deployments = self.client.deployments(self.deployment_id);
        match timeout_at(self.deadline.max(Instant::now()) + GRACE, deployments).await {
            Ok(Ok(mut deployments)) => {
                let id = self.deployment_id.as_str();
                deployments.retain(|deployment| deployment.deployment_id == id);
                let Some(deployment) = deployments.pop() else { return Ok(Polled::None) };
                waiting.wait_for(&format!(
                    "{id}: {} of {} allocations",
                    deployment.allocations, deployment.target_allocations
                ));
                Ok(Polled::Deployed(deployment))
            }
            Ok(Err(DeploymentError::NotFound { .. })) => Ok(Polled::None),
            Ok(Err(DeploymentError::Client(error))) if error.is_transient() => {
                tracing::debug!("the state of the deployment is not available: {error}");
                Ok(Polled::Unknown(Some(error)))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Polled::Unknown(None)),
        }
    }

    fn not_started(&self, reason: impl Into<String>, hint: Option<Hint>) -> DeploymentError {
        DeploymentError::NotStarted { model_id: self.model_id.clone(), reason: reason.into(), hint }
    }

    /// A failed deployment remains, and blocks the next start.
    fn failed(&self, deployment: &Deployment) -> DeploymentError {
        let reasons = deployment.reasons().join("; ");
        let reasons =
            if reasons.is_empty() { "the server returned no reason".into() } else { reasons };
        let stop = Command::Stop(Some(self.deployment_id.to_string()));
        self.not_started(
            reasons,
            Some(hint!("Stop the failed deployment before the next start: ", stop, ".")),
        )
    }

    fn timed_out(&self, found: Polled) -> DeploymentError {
        let seconds = self.options.timeout.as_secs_f64();
        let id = self.deployment_id;
        let reason = match found {
            Polled::Deployed(deployment) => {
                let (has, wants) = (deployment.allocations, deployment.target_allocations);
                let wanted = self.options.wait_for.name();
                let mut text = format!(
                    "after {seconds} s {id} is not {wanted}, with {has} of {wants} allocations"
                );
                for reason in deployment.reasons() {
                    text += &format!("; {reason}");
                }
                text
            }
            Polled::Unknown(Some(error)) => {
                format!("after {seconds} s the state of {id} is not available: {error}")
            }
            Polled::None | Polled::Unknown(None) => {
                format!("after {seconds} s the server has not answered")
            }
        };
        let hint = hint!(
            "Elasticsearch continues to start the deployment: ",
            Command::Status(Some(id.to_string())),
            " shows its state. To wait longer, set ",
            Setting::StartTimeout,
            "."
        );
        self.not_started(reason, Some(hint))
    }
}

/// The result of one poll.
enum Polled {
    Deployed(Deployment),
    None,
    Unknown(Option<ClientError>),
}

/// Whether a start was rejected because the deployment exists (contract 7.2).
fn is_running(reason: &str) -> bool {
    reason.contains("existing deployment with the same id")
        || reason.contains("already been started")
}
