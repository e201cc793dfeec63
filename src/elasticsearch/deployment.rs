//! Starting and stopping deployments (contract 7): what is asked, what the server would refuse, and the wait.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::endpoint::EndpointId;
use super::payload::Payload;
use super::reasons::explained;
use super::stats::{Deployment, State};
use super::{Client, ClientError};
use crate::hint::Hint;
use crate::model_id::ModelId;
use crate::observer::{Progress, RunningStage, Stage};
use crate::version::Version;

/// The longest that a single request may ask the server to wait: what eland asks for. Beyond it the stats are polled, since proxies
/// cut connections on which nothing happens.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// How often the stats are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the last look at the stats may take when the time is up.
const GRACE: Duration = Duration::from_secs(5);

/// A timeout that no start reaches. Longer ones could not be added to the time of day.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What goes wrong with models that are in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// The cluster does not answer, or does not let us.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Settings that the server would refuse.
    #[error("{0}")]
    Settings(String),
    /// A setting that the cluster does not know yet.
    #[error(
        "{setting} needs Elasticsearch {needed} or later, and the cluster runs {found}: leave it out, or upgrade the cluster"
    )]
    Unsupported {
        /// The option.
        setting: &'static str,
        /// What runs.
        found: Version,
        /// What knows it.
        needed: Version,
    },
    /// There is no such thing.
    #[error("the cluster has no {what} {id}; rust-eland list shows what it has")]
    NotFound {
        /// "model", "deployment".
        what: &'static str,
        /// The id.
        id: ServedId,
    },
    /// The server refuses.
    #[error("Elasticsearch refuses to {action}: {reason}")]
    Refused {
        /// What was asked.
        action: String,
        /// The server's reason, and what to do.
        reason: String,
    },
    /// The model is there but does not run.
    #[error("the model {model_id} is stored, but could not be started: {reason}")]
    NotStarted {
        /// The model.
        model_id: ServedId,
        /// The server's reason, and what to do.
        reason: String,
    },
    /// The model runs, but does not answer.
    #[error("{deployment_id} is started, but does not answer the smoke test: {reason}")]
    SmokeTest {
        /// The deployment.
        deployment_id: ServedId,
        /// The server's reason, and what to do.
        reason: String,
    },
    /// An endpoint of the name does something else.
    #[error(
        "the cluster already has an inference endpoint {id}, which does {has}: give another id with --create-endpoint, or delete it"
    )]
    EndpointTaken {
        /// The endpoint.
        id: EndpointId,
        /// What it does.
        has: String,
    },
    /// The model is stored, but its endpoint is not.
    #[error(
        "the model {model_id} is stored, but the inference endpoint {id} could not be created: {reason}"
    )]
    NoEndpoint {
        /// The endpoint.
        id: EndpointId,
        /// The model.
        model_id: ModelId,
        /// The server's reason, and what to do.
        reason: String,
    },
    /// A model that is looked at does not answer.
    #[error("{0}")]
    NotServed(String),
    /// Ctrl-C while a deployment starts.
    #[error(
        "interrupted. The model {model_id} is stored, and Elasticsearch goes on with the deployment {deployment_id}:\n\
         rust-eland status {deployment_id} shows its state, rust-eland stop {deployment_id} ends it"
    )]
    Interrupted {
        /// The model.
        model_id: ServedId,
        /// Its deployment.
        deployment_id: ServedId,
    },
}

impl DeploymentError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Client(error) => error.hint(),
            _ => None,
        }
    }
}

/// The id of a model or deployment in a cluster. Packaged models and deployments have ids that no imported model can have
/// (`.elser_model_2`), so this is freer than [`ModelId`]; patterns and lists are refused, for each command is about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedId(String);

impl ServedId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a segment of a path.
    pub(super) fn segment(&self) -> String {
        const ESCAPED: AsciiSet =
            NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        utf8_percent_encode(&self.0, &ESCAPED).to_string()
    }
}

impl From<&ModelId> for ServedId {
    fn from(id: &ModelId) -> Self {
        Self(id.to_string())
    }
}

impl FromStr for ServedId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        let refused = |c: char| "/\\,*?".contains(c) || c.is_control() || c.is_whitespace();
        if id.is_empty() || id == "." || id == ".." || id == "_all" || id.contains(refused) {
            return Err("it is not the id of one model or deployment".into());
        }
        Ok(Self(id.to_owned()))
    }
}

impl fmt::Display for ServedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a start waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitFor {
    /// Nothing: the server has accepted the start.
    Starting,
    /// One allocation answers.
    #[default]
    Started,
    /// All allocations answer.
    FullyAllocated,
}

impl WaitFor {
    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::FullyAllocated => "fully_allocated",
        }
    }

    fn reached(self, deployment: &Deployment) -> bool {
        match self {
            Self::Starting => true,
            Self::Started => deployment.answers(),
            Self::FullyAllocated => {
                deployment.answers() && deployment.allocations >= deployment.target_allocations
            }
        }
    }
}

/// What goes first on a crowded node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As all.
    Normal,
    /// Gives way to others; one allocation of one thread.
    Low,
}

/// A number of bytes as the server reads it: `512mb`, `0b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteSize(String);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim_start() {
            // The server reads a number without a unit only if it is 0.
            "b" => 0,
            "" if number.bytes().all(|digit| digit == b'0') => 0,
            "k" | "kb" => 10,
            "m" | "mb" => 20,
            "g" | "gb" => 30,
            "t" | "tb" => 40,
            "p" | "pb" => 50,
            _ => {
                return Err(
                    "give a whole number with its unit, such as 0b, 512kb, 100mb, 2gb".into()
                );
            }
        };
        let fits = number.parse::<u64>().ok().filter(|n| *n <= i64::MAX.unsigned_abs() >> shift);
        let number = fits.ok_or("give a number with its unit, such as 0b, 100mb, 2gb")?;
        let unit = match shift {
            0 => "b",
            10 => "kb",
            20 => "mb",
            30 => "gb",
            40 => "tb",
            _ => "pb",
        };
        Ok(Self(format!("{number}{unit}")))
    }
}

/// What a start asks for. The server chooses what is not set.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The deployment's id; the model's by default.
    pub deployment_id: Option<ServedId>,
    /// What is waited for.
    pub wait_for: WaitFor,
    /// How long at most, at least a millisecond.
    pub timeout: Duration,
    /// Copies that work beside each other.
    pub number_of_allocations: Option<u32>,
    /// Threads of each copy: a power of two up to 32.
    pub threads_per_allocation: Option<u32>,
    /// What goes first.
    pub priority: Option<Priority>,
    /// How many requests may wait on a node.
    pub queue_capacity: Option<u32>,
    /// Bytes of the cache of answers on each node.
    pub cache_size: Option<ByteSize>,
    /// The fewest copies, if their number is to follow the load.
    pub min_allocations: Option<u32>,
    /// The most copies, if their number is to follow the load.
    pub max_allocations: Option<u32>,
    /// Whether a deployment of the id that is there already will do.
    pub adopt: bool,
}

impl Default for StartOptions {
    /// Waits up to 60 s for one allocation, which is what eland does.
    fn default() -> Self {
        Self {
            deployment_id: None,
            wait_for: WaitFor::default(),
            timeout: Duration::from_secs(60),
            number_of_allocations: None,
            threads_per_allocation: None,
            priority: None,
            queue_capacity: None,
            cache_size: None,
            min_allocations: None,
            max_allocations: None,
            adopt: false,
        }
    }
}

impl StartOptions {
    /// Checks what the server would refuse whatever its release (contract 7.1).
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] with the first that does not hold.
    pub fn check(&self) -> Result<(), DeploymentError> {
        let refuse = |holds: bool, text: &str| {
            if holds { Err(DeploymentError::Settings(text.to_owned())) } else { Ok(()) }
        };
        let is_low = self.priority == Some(Priority::Low);
        refuse(self.timeout < Duration::from_millis(1), "--start-timeout must not be 0")?;
        refuse(self.number_of_allocations == Some(0), "--number-of-allocations must not be 0")?;
        refuse(
            self.threads_per_allocation.is_some_and(|n| n > 32 || !n.is_power_of_two()),
            "--threads-per-allocation must be 1, 2, 4, 8, 16 or 32",
        )?;
        refuse(self.queue_capacity == Some(0), "--queue-capacity must not be 0")?;
        refuse(self.max_allocations == Some(0), "--max-allocations must not be 0")?;
        refuse(
            self.min_allocations
                .zip(self.max_allocations)
                .is_some_and(|(least, most)| least > most),
            "--min-allocations must not be larger than --max-allocations",
        )?;
        refuse(
            self.is_adaptive() && self.number_of_allocations.is_some(),
            "--number-of-allocations cannot be given with --min-allocations or --max-allocations, between which the cluster \
             chooses it",
        )?;
        refuse(
            is_low && self.number_of_allocations.or(self.min_allocations).is_some_and(|n| n > 1),
            "--priority low allows one allocation only: leave out --number-of-allocations or --min-allocations",
        )?;
        refuse(
            is_low && self.threads_per_allocation.is_some_and(|n| n > 1),
            "--priority low allows one thread only: leave out --threads-per-allocation",
        )
    }

    /// Checks also what this cluster's release would refuse.
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] or [`DeploymentError::Unsupported`].
    pub fn check_for(&self, client: &Client) -> Result<(), DeploymentError> {
        self.check()?;
        for (setting, is_given, needed) in [
            ("--deployment-id", self.deployment_id.is_some(), Version::DEPLOYMENT_ID),
            ("--min-allocations", self.min_allocations.is_some(), Version::ADAPTIVE_ALLOCATIONS),
            ("--max-allocations", self.max_allocations.is_some(), Version::ADAPTIVE_ALLOCATIONS),
        ] {
            if is_given && !client.supports(needed) {
                let found = client.version();
                return Err(DeploymentError::Unsupported { setting, found, needed });
            }
        }
        let is_newer = client.supports(Version::SMALLER_QUEUE);
        let limit = if is_newer { 100_000 } else { 1_000_000 };
        match self.queue_capacity {
            Some(capacity) if capacity >= limit => Err(DeploymentError::Settings(format!(
                "--queue-capacity must be less than {limit} on this cluster"
            ))),
            _ => Ok(()),
        }
    }

    fn is_adaptive(&self) -> bool {
        self.min_allocations.is_some() || self.max_allocations.is_some()
    }

    /// The query of the request.
    fn query(&self) -> String {
        let milliseconds = self.timeout.min(LONGEST_REQUEST).as_millis().max(1);
        let mut query = match milliseconds % 1000 {
            0 => format!("timeout={}s", milliseconds / 1000),
            _ => format!("timeout={milliseconds}ms"),
        };
        query += &format!("&wait_for={}", self.wait_for.name());
        if let Some(id) = &self.deployment_id {
            query += &format!("&deployment_id={}", id.segment());
        }
        for (name, number) in [
            ("number_of_allocations", self.number_of_allocations),
            ("threads_per_allocation", self.threads_per_allocation),
            ("queue_capacity", self.queue_capacity),
        ] {
            if let Some(number) = number {
                query += &format!("&{name}={number}");
            }
        }
        if let Some(priority) = self.priority {
            let name = if priority == Priority::Low { "low" } else { "normal" };
            query += &format!("&priority={name}");
        }
        if let Some(ByteSize(size)) = &self.cache_size {
            query += &format!("&cache_size={size}");
        }
        query
    }

    /// The body of the request, which alone takes adaptive allocations.
    fn body(&self) -> Option<Value> {
        if !self.is_adaptive() {
            return None;
        }
        let mut adaptive = json!({"enabled": true});
        if let Some(least) = self.min_allocations {
            adaptive["min_number_of_allocations"] = least.into();
        }
        if let Some(most) = self.max_allocations {
            adaptive["max_number_of_allocations"] = most.into();
        }
        Some(json!({"adaptive_allocations": adaptive}))
    }

    /// Starts a model and waits, until the timeout at the latest. The deployment goes on when the wait ends, for whatever reason.
    ///
    /// # Errors
    /// When the settings do not hold, the server refuses, a node cannot load the model, or the time is up.
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
                "{} runs with {} of {} allocations; rust-eland status {} shows whether more come{}",
                deployment.deployment_id,
                deployment.allocations,
                deployment.target_allocations,
                deployment.deployment_id,
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

/// A start under way.
struct Start<'a> {
    client: &'a Client,
    model_id: &'a ServedId,
    deployment_id: &'a ServedId,
    options: &'a StartOptions,
    deadline: Instant,
}

/// What is known of the request that starts.
enum Request {
    /// It has not been answered.
    Pending,
    /// The server accepted it, and may go on with it.
    Accepted,
    /// The answer says nothing: a proxy's, or none.
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
            let found = self.look(&waiting).await?;
            match (&found, &request) {
                (Look::Deployed(deployment), _) if self.has_failed(deployment, &request) => {
                    return Err(self.failed(deployment));
                }
                (Look::Deployed(deployment), Request::Accepted) if self.reached(deployment) => {
                    waiting.finish();
                    return Ok(deployment.clone());
                }
                // The answer may have been lost on the way, but what was asked for is there.
                (Look::Deployed(deployment), _)
                    if self.options.wait_for != WaitFor::Starting && self.reached(deployment) =>
                {
                    waiting.finish();
                    return Ok(deployment.clone());
                }
                (Look::None, Request::Accepted) => {
                    return Err(self.not_started("the deployment was removed while waiting"));
                }
                (Look::None, Request::Lost(error)) => {
                    return Err(self.not_started(&error.to_string()));
                }
                _ if is_over => return Err(self.timed_out(found)),
                _ => {}
            }
        }
    }

    fn reached(&self, deployment: &Deployment) -> bool {
        self.options.wait_for.reached(deployment)
    }

    /// Until the server answers, its own words on a failure are waited for: they name every node.
    fn has_failed(&self, deployment: &Deployment, request: &Request) -> bool {
        let is_told = !matches!(request, Request::Pending) || Instant::now() >= self.deadline;
        deployment.state == State::Failed && is_told
    }

    fn answered(&self, answer: Result<Value, ClientError>) -> Result<Request, DeploymentError> {
        let error = match answer {
            Ok(_) => return Ok(Request::Accepted),
            Err(error) => error,
        };
        match error {
            // The deployment keeps starting (contract 7.2).
            ClientError::Refused { status: 408, kind: Some(_), .. } => Ok(Request::Accepted),
            // A proxy that waits less long than asked, or a node that went away: the start may go on.
            ClientError::Refused { status: 408, .. } => Ok(Request::Lost(error)),
            error if error.is_transient() => Ok(Request::Lost(error)),
            ClientError::Refused { status: 400 | 409, ref reason, .. }
                if self.options.adopt && is_running(reason) =>
            {
                tracing::info!("{} is deployed already, with its own settings", self.deployment_id);
                Ok(Request::Accepted)
            }
            ClientError::Refused { status: 404, reason, .. } if is_unknown(&reason) => {
                Err(DeploymentError::NotFound { what: "model", id: self.model_id.clone() })
            }
            ClientError::Refused { reason, .. } => Err(self.not_started(&reason)),
            // A rolling upgrade refuses with 403 too.
            ClientError::Privilege { reason, .. } if reason.contains("upgrade is in progress") => {
                Err(self.not_started(&reason))
            }
            other => Err(other.into()),
        }
    }

    /// Looks at the stats and shows them. What a busy cluster cannot say now, it may say later.
    async fn look(&self, waiting: &RunningStage) -> Result<Look, DeploymentError> {
        let deployments = self.client.deployments(self.deployment_id);
        match timeout_at(self.deadline.max(Instant::now()) + GRACE, deployments).await {
            Ok(Ok(mut deployments)) => {
                let id = self.deployment_id.as_str();
                deployments.retain(|deployment| deployment.deployment_id == id);
                let Some(deployment) = deployments.pop() else { return Ok(Look::None) };
                waiting.wait_for(&format!(
                    "{id}: {} of {} allocations",
                    deployment.allocations, deployment.target_allocations
                ));
                Ok(Look::Deployed(deployment))
            }
            Ok(Err(DeploymentError::NotFound { .. })) => Ok(Look::None),
            Ok(Err(DeploymentError::Client(error))) if error.is_transient() => {
                tracing::debug!("the deployment's state is not known: {error}");
                Ok(Look::Unknown(Some(error)))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Look::Unknown(None)),
        }
    }

    fn not_started(&self, reason: &str) -> DeploymentError {
        DeploymentError::NotStarted {
            model_id: self.model_id.clone(),
            reason: explained(reason, ""),
        }
    }

    /// A deployment that failed while nobody waited stays, and is in the way of the next start.
    fn failed(&self, deployment: &Deployment) -> DeploymentError {
        let reasons = deployment.reasons().join("; ");
        let reasons = if reasons.is_empty() { "no reason is given" } else { &reasons };
        DeploymentError::NotStarted {
            model_id: self.model_id.clone(),
            reason: format!(
                "{}\nStop the failed deployment before the next start: rust-eland stop {}",
                explained(reasons, ""),
                self.deployment_id
            ),
        }
    }

    fn timed_out(&self, found: Look) -> DeploymentError {
        let seconds = self.options.timeout.as_secs_f64();
        let id = self.deployment_id;
        let reason = match found {
            Look::Deployed(deployment) => {
                let (has, wants) = (deployment.allocations, deployment.target_allocations);
                let wanted = self.options.wait_for.name();
                let mut text = format!(
                    "after {seconds} s {id} is not {wanted}, with {has} of {wants} allocations"
                );
                for reason in deployment.reasons() {
                    text += &format!("; {}", explained(&reason, ""));
                }
                text
            }
            Look::None => format!("after {seconds} s the server has not answered"),
            Look::Unknown(Some(error)) => {
                format!("after {seconds} s its state is not known: {error}")
            }
            Look::Unknown(None) => format!("after {seconds} s the server has not answered"),
        };
        DeploymentError::NotStarted {
            model_id: self.model_id.clone(),
            reason: format!(
                "{reason}\nElasticsearch goes on with it: rust-eland status {id} shows how far it is. --start-timeout waits longer"
            ),
        }
    }
}

/// What a look at the stats shows.
enum Look {
    Deployed(Deployment),
    None,
    Unknown(Option<ClientError>),
}

/// Whether a start is refused because the deployment is there (contract 7.2).
fn is_running(reason: &str) -> bool {
    reason.contains("existing deployment with the same id")
        || reason.contains("already been started")
}

/// Whether a 404 speaks of the model, and not of its definition (contract 7.2).
pub(super) fn is_unknown(reason: &str) -> bool {
    reason.contains("No known trained model") || reason.contains("Could not find trained model [")
}

impl Client {
    /// Stops one deployment.
    ///
    /// # Errors
    /// When the server refuses, as for one that a pipeline uses, unless it is forced to.
    pub async fn stop_deployment(
        &self,
        deployment_id: &ServedId,
        force: bool,
    ) -> Result<(), DeploymentError> {
        let force = if force { "?force=true" } else { "" };
        let id = deployment_id.segment();
        let path = format!("_ml/trained_models/{id}/deployment/_stop{force}");
        let answer = self.call(Method::POST, &path, None, "stop the deployment").await;
        answer.map(drop).map_err(|error| refused(error, || format!("stop {deployment_id}")))
    }
}

/// A refusal with the way out; those that a proxy or a busy cluster makes have theirs already.
pub(super) fn refused(error: ClientError, action: impl FnOnce() -> String) -> DeploymentError {
    match error {
        ClientError::Refused { kind: Some(_), ref reason, .. } if !error.is_transient() => {
            DeploymentError::Refused { action: action(), reason: explained(reason, "") }
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StartOptions {
        StartOptions::default()
    }

    #[test]
    fn default_options_pass_the_check() {
        StartOptions::default().check().unwrap();
        StartOptions { timeout: Duration::MAX, ..options() }.check().unwrap();
    }

    #[test]
    fn what_every_server_refuses_is_refused_here() {
        for (options, text) in [
            (StartOptions { timeout: Duration::ZERO, ..options() }, "--start-timeout"),
            (
                StartOptions { number_of_allocations: Some(0), ..options() },
                "--number-of-allocations",
            ),
            (StartOptions { threads_per_allocation: Some(3), ..options() }, "1, 2, 4, 8, 16 or 32"),
            (StartOptions { threads_per_allocation: Some(64), ..options() }, "16 or 32"),
            (StartOptions { threads_per_allocation: Some(0), ..options() }, "16 or 32"),
            (StartOptions { queue_capacity: Some(0), ..options() }, "--queue-capacity"),
            (StartOptions { max_allocations: Some(0), ..options() }, "--max-allocations"),
            (
                StartOptions { min_allocations: Some(3), max_allocations: Some(2), ..options() },
                "must not be larger than",
            ),
            (
                StartOptions {
                    min_allocations: Some(0),
                    number_of_allocations: Some(1),
                    ..options()
                },
                "between which the cluster chooses it",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    number_of_allocations: Some(2),
                    ..options()
                },
                "one allocation only",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    min_allocations: Some(2),
                    ..options()
                },
                "one allocation only",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    threads_per_allocation: Some(2),
                    ..options()
                },
                "one thread only",
            ),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let low = StartOptions {
            priority: Some(Priority::Low),
            number_of_allocations: Some(1),
            threads_per_allocation: Some(1),
            ..options()
        };
        low.check().unwrap();
        StartOptions { threads_per_allocation: Some(32), ..options() }.check().unwrap();
    }

    #[test]
    fn the_request_holds_what_is_set() {
        assert_eq!(options().query(), "timeout=60s&wait_for=started");
        assert!(options().body().is_none());
        let all = StartOptions {
            deployment_id: Some("for search!".replace(' ', "-").parse().unwrap()),
            wait_for: WaitFor::FullyAllocated,
            timeout: Duration::from_millis(1500),
            threads_per_allocation: Some(4),
            priority: Some(Priority::Normal),
            queue_capacity: Some(5),
            cache_size: Some("10KB".parse().unwrap()),
            min_allocations: Some(0),
            max_allocations: Some(3),
            ..options()
        };
        assert_eq!(
            all.query(),
            "timeout=1500ms&wait_for=fully_allocated&deployment_id=for-search%21&threads_per_allocation=4&queue_capacity=5\
             &priority=normal&cache_size=10kb"
        );
        let body = all.body().unwrap();
        let adaptive = json!({"enabled": true, "min_number_of_allocations": 0,
            "max_number_of_allocations": 3});
        assert_eq!(body, json!({"adaptive_allocations": adaptive}));
        let patient = StartOptions { timeout: Duration::from_secs(3600), ..options() };
        assert!(patient.query().starts_with("timeout=60s&"));
    }

    #[test]
    fn sizes_have_units() {
        for (text, read) in [
            ("0", "0b"),
            ("0b", "0b"),
            ("10KB", "10kb"),
            ("2 gb", "2gb"),
            ("1m", "1mb"),
            ("8191pb ", "8191pb"),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, read);
        }
        for text in ["", "10", "kb", "-1b", "1.5gb", "1x", "99999999999999999999b", "8192pb"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_names_one_thing() {
        for id in ["m", ".elser_model_2_linux-x86_64", "My-deployment", "ü"] {
            assert_eq!(id.parse::<ServedId>().unwrap().as_str(), id);
        }
        for id in ["", ".", "..", "a/b", "a\\b", "a,b", "a*", "_all", "a b", "a?b", "a\n"] {
            assert!(id.parse::<ServedId>().is_err(), "{id}");
        }
    }
}
