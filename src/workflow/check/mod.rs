//! The check of a cluster: what the cluster and the credentials can do. A line that cannot be checked is a warning and ends nothing.

mod features;
mod nodes;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::elasticsearch::{
    Client, ClientError, Connection, Contact, DeploymentError, Licence, ModelReport, State, Trust,
};
use crate::hint::{Command, Hint, Setting, hint};

/// The check of a cluster, line by line.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClusterCheck {
    /// The lines, in the order in which an import needs what they check.
    pub lines: Vec<CheckLine>,
}

/// One line of a check.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckLine {
    /// What is checked.
    pub subject: Subject,
    /// The result.
    pub state: CheckState,
    /// The result in words. The text can come from the server.
    pub summary: String,
    /// What to do.
    pub hint: Option<Hint>,
    /// The facts behind the summary, for programs.
    pub details: Value,
}

/// The result of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Imports work as far as this line is concerned.
    Ok,
    /// Something is unknown, or only some imports work.
    Warning,
    /// Imports, or the models that they store, do not work.
    Failure,
}

/// What a line of a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Whether the cluster can be reached.
    Connection,
    /// The certificate of the server.
    Certificate,
    /// The version and its libtorch.
    Version,
    /// User name and password, or a key.
    Credentials,
    /// The licence.
    Licence,
    /// A cluster privilege.
    Privilege(&'static str),
    /// All machine learning nodes.
    Nodes,
    /// A machine learning node.
    Node(String),
    /// The deployments.
    Deployments,
    /// The largest new model.
    LargestModel,
    /// The tokenizers of the version.
    Tokenizers,
    /// The tasks of the version.
    Tasks,
    /// Other features of the version.
    Features,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Certificate => "certificate",
            Self::Version => "version",
            Self::Credentials => "credentials",
            Self::Licence => "licence",
            Self::Privilege(name) => return write!(f, "privilege {name}"),
            Self::Nodes => "nodes",
            Self::Node(name) => return write!(f, "node {name}"),
            Self::Deployments => "deployments",
            Self::LargestModel => "largest new model",
            Self::Tokenizers => "tokenizers",
            Self::Tasks => "tasks",
            Self::Features => "features",
        })
    }
}

/// Timeout of one request. A cluster that is too busy to answer sooner is a warning.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate that expires within this number of days is a warning.
const SOON: i64 = 30;

/// A privilege: its name, the action that it allows, the commands that need the action, and whether every import needs it. Versions
/// that do not have a privilege of this name are asked for the action.
const PRIVILEGES: [(&str, &str, &str, bool); 5] = [
    (
        "monitor_ml",
        "cluster:monitor/xpack/ml/inference/get",
        "list, status, infer and verify",
        true,
    ),
    (
        "manage_ml",
        "cluster:admin/xpack/ml/inference/put",
        "import, start, stop and delete models",
        true,
    ),
    ("monitor", "cluster:monitor/xpack/license/get", "show licence and version", false),
    ("manage_inference", "cluster:admin/xpack/inference/put", "create inference endpoints", false),
    ("manage_pipeline", "cluster:admin/ingest/pipeline/put", "create ingest pipelines", false),
];

impl CheckLine {
    fn new(subject: Subject, state: CheckState, summary: impl Into<String>) -> Self {
        Self { subject, state, summary: summary.into(), hint: None, details: Value::Null }
    }

    fn ok(subject: Subject, summary: impl Into<String>) -> Self {
        Self::new(subject, CheckState::Ok, summary)
    }

    fn warning(subject: Subject, summary: impl Into<String>) -> Self {
        Self::new(subject, CheckState::Warning, summary)
    }

    fn failure(subject: Subject, summary: impl Into<String>) -> Self {
        Self::new(subject, CheckState::Failure, summary)
    }

    /// A line that could not be checked.
    fn unchecked(subject: Subject, error: &Unchecked) -> Self {
        let needed = match subject {
            Subject::Licence => Some("monitor"),
            Subject::Nodes | Subject::Deployments => Some("monitor_ml"),
            _ => None,
        };
        let hint = match (error, needed) {
            (
                Unchecked::Failed(DeploymentError::Client(ClientError::Privilege { .. })),
                Some(name),
            ) => Some(hint!(format!("Grant the cluster privilege {name} to the user or API key."))),
            _ => error.hint(),
        };
        Self::warning(subject, format!("not checked: {error}")).with_hint(hint)
    }

    fn with_hint(self, hint: Option<Hint>) -> Self {
        Self { hint, ..self }
    }

    fn with_details(self, details: Value) -> Self {
        Self { details, ..self }
    }
}

/// Why a line could not be checked.
enum Unchecked {
    Failed(DeploymentError),
    TimedOut,
}

impl Unchecked {
    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Failed(error) => error.hint(),
            Self::TimedOut => Some(hint!("Check the cluster again when it is less busy.")),
        }
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut => write!(f, "no answer within {} seconds", TIMEOUT.as_secs()),
        }
    }
}

/// Waits for an answer, but not longer than [`TIMEOUT`].
async fn answered<T, E: Into<DeploymentError>>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, Unchecked> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| Unchecked::Failed(error.into())),
        Err(_) => Err(Unchecked::TimedOut),
    }
}

impl ClusterCheck {
    /// Checks what a cluster and the credentials of a connection can do. The check only reads.
    ///
    /// # Errors
    /// [`ClientError`] if a setting of the connection is invalid. Every other problem is a line of the check.
    pub async fn of(connection: Connection) -> Result<Self, ClientError> {
        let is_verified = connection.trust != Trust::Anyone;
        let has_credentials = connection.credentials.is_some();
        let contact = Client::contact(connection).await?;
        let mut lines = Vec::new();
        let connected = || {
            let answers = format!("{} answers", contact.address);
            [CheckLine::ok(Subject::Connection, answers), transport(&contact, is_verified)]
        };
        match &contact.client {
            Ok(client) => {
                lines.extend(connected());
                Self::add_facts(client, has_credentials, &mut lines).await;
            }
            Err(error) => {
                let subject = match error {
                    ClientError::Credentials(_) | ClientError::Privilege { .. } => {
                        Subject::Credentials
                    }
                    ClientError::TooOld(_) => Subject::Version,
                    _ => Subject::Connection,
                };
                if subject != Subject::Connection {
                    lines.extend(connected());
                }
                let hint = error.hint();
                lines.push(CheckLine::failure(subject, error.to_string()).with_hint(hint));
            }
        }
        Ok(Self { lines })
    }

    async fn add_facts(client: &Client, has_credentials: bool, lines: &mut Vec<CheckLine>) {
        lines.push(features::version(client));
        lines.push(licence(client).await);
        lines.extend(privileges(client, has_credentials).await);
        lines.extend(nodes::lines(client).await);
        lines.push(deployments(client).await);
        lines.extend(features::lines(client));
    }

    /// The number of lines with a state.
    #[must_use]
    pub fn count(&self, state: CheckState) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }
}

fn many_days(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

/// The line about TLS.
fn transport(contact: &Contact, is_verified: bool) -> CheckLine {
    let subject = Subject::Certificate;
    if contact.address.starts_with("http:") {
        if contact.is_local && !contact.has_proxy {
            return CheckLine::ok(subject, "none: the connection to this machine is not encrypted");
        }
        let summary = "none: the connection is not encrypted, and others on the network can read credentials and texts";
        return CheckLine::warning(subject, summary)
            .with_hint(Some(hint!("Use an address that starts with https://.")));
    }
    let unverified = || {
        (!is_verified).then(|| {
            hint!(
                "Set ",
                Setting::CaCertificates,
                " or ",
                Setting::CaFingerprint,
                " instead of ",
                Setting::Insecure,
                "."
            )
        })
    };
    let Some(certificate) = &contact.certificate else {
        return match (contact.has_proxy, unverified()) {
            (true, None) => {
                let summary = "verified, but not shown: the connection goes through a proxy";
                CheckLine::ok(subject, summary)
            }
            (true, hint) => {
                let summary = "not verified and not shown: the connection goes through a proxy";
                CheckLine::warning(subject, summary).with_hint(hint)
            }
            (false, _) => CheckLine::warning(subject, "the certificate could not be read")
                .with_hint(Some(hint!("Show it with openssl s_client -connect HOST:PORT."))),
        };
    };
    let days = certificate.days_left;
    let issuer = if certificate.issuer == certificate.subject {
        format!("{}, signed by itself", certificate.subject)
    } else {
        format!("{}, issued by {}", certificate.subject, certificate.issuer)
    };
    let until = match days {
        ..0 => format!("expired on {}", certificate.not_after),
        _ => format!("{} left (until {})", many_days(days), certificate.not_after),
    };
    let trust = if is_verified { "" } else { "; not verified" };
    let state = match days {
        ..0 => CheckState::Failure,
        SOON.. if is_verified => CheckState::Ok,
        _ => CheckState::Warning,
    };
    let renew = (days < SOON).then(|| hint!("Renew the certificate."));
    let hint = renew.into_iter().chain(unverified()).reduce(Hint::and);
    CheckLine::new(subject, state, format!("{issuer}; {until}{trust}"))
        .with_hint(hint)
        .with_details(json!(certificate))
}

async fn licence(client: &Client) -> CheckLine {
    let subject = Subject::Licence;
    if client.is_serverless() {
        return CheckLine::ok(subject, "not needed: the cluster is serverless");
    }
    let licence = match answered(client.licence()).await {
        Ok(licence) => licence,
        Err(error) => return CheckLine::unchecked(subject, &error),
    };
    let Licence { kind, status, days_left } = &licence;
    let left = match *days_left {
        Some(days @ ..0) => format!(", ended {} ago", many_days(days.saturating_neg())),
        Some(days) => format!(", {} left", many_days(days)),
        None => String::new(),
    };
    let summary = format!("{kind} ({status}){left}");
    let line = if licence.allows_machine_learning() {
        // A trial lasts 30 days, so that it would always be a warning with the limit of other licences.
        let soon = if kind == "trial" { 7 } else { SOON };
        match days_left {
            Some(days) if *days < soon => CheckLine::warning(subject, summary)
                .with_hint(Some(hint!("Extend the licence: models stop when it expires."))),
            _ => CheckLine::ok(subject, summary),
        }
    } else {
        let summary = format!("{summary}, which does not allow machine learning");
        let hint = if kind == "basic" {
            hint!(
                "Use a platinum or enterprise licence, or start a trial of 30 days: POST /_license/start_trial?acknowledge=true."
            )
        } else {
            hint!("Use a platinum, enterprise or trial licence.")
        };
        CheckLine::failure(subject, summary).with_hint(Some(hint))
    };
    line.with_details(json!(licence))
}

/// One line for each privilege. A cluster without security allows everything.
async fn privileges(client: &Client, has_credentials: bool) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    for (name, action, purpose, is_required) in PRIVILEGES {
        let mut has = answered(client.has_privilege(name)).await;
        if matches!(&has, Err(Unchecked::Failed(error)) if error.to_string().contains("unknown cluster privilege"))
        {
            has = answered(client.has_privilege(action)).await;
        }
        let subject = Subject::Privilege(name);
        let line = match has {
            Ok(true) => CheckLine::ok(subject, format!("granted: {purpose}")),
            Ok(false) => {
                let summary = format!("missing: {purpose}");
                let role = if is_required { " (role machine_learning_admin)" } else { "" };
                let hint = hint!(format!(
                    "Grant the cluster privilege {name} to the user or API key{role}."
                ));
                let state = if is_required { CheckState::Failure } else { CheckState::Warning };
                CheckLine::new(subject, state, summary).with_hint(Some(hint))
            }
            Err(Unchecked::Failed(error)) if is_without_security(&error) => {
                let credentials =
                    if has_credentials { ", and credentials have no effect" } else { "" };
                let summary = format!("not needed: security is off{credentials}");
                lines.push(CheckLine::ok(subject, summary));
                break;
            }
            Err(error) => CheckLine::unchecked(subject, &error),
        };
        lines.push(line.with_details(json!({ "purpose": purpose })));
    }
    lines
}

/// Whether a cluster refuses to show privileges because it has no security: such a cluster does not have the API, or says so.
fn is_without_security(error: &DeploymentError) -> bool {
    let reason = error.to_string();
    reason.contains("no handler found")
        || reason.contains("Security must be explicitly enabled")
        || reason.contains("Security is not enabled")
}

async fn deployments(client: &Client) -> CheckLine {
    let subject = Subject::Deployments;
    let models = match answered(client.reports(None)).await {
        Ok(models) => models,
        Err(error) => return CheckLine::unchecked(subject, &error),
    };
    let all = || models.iter().flat_map(|model: &ModelReport| &model.deployments);
    let shown: Vec<_> = all()
        .map(|it| {
            let (id, state) = (&it.deployment_id, it.state.name());
            format!("{id} ({state}, {} of {} allocations)", it.allocations, it.target_allocations)
        })
        .collect();
    let details = json!(all().collect::<Vec<_>>());
    let summary = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let line = match all().find(|it| it.state == State::Failed) {
        Some(failed) => {
            let id = Some(failed.deployment_id.clone());
            let hint = hint!("Show the reason with ", Command::Status(id), ".");
            CheckLine::warning(subject, summary).with_hint(Some(hint))
        }
        None => CheckLine::ok(subject, summary),
    };
    line.with_details(details)
}
