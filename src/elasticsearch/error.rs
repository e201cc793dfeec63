//! What can go wrong between here and a served model, told apart, each with what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::ConnectionFailure;
use crate::error_chain::ErrorChain;
use crate::hint::{Hint, Setting, hint};
use crate::model_id::ModelId;
use crate::version::Version;

/// What can go wrong between here and a served model. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address, or another option of the connection, is not one.
    #[error("the cluster's address cannot be used: {0}")]
    Address(String),
    /// An option of the connection other than the address.
    #[error("{0}")]
    Option(String),
    /// A file of certificates or keys.
    #[error("{option} {path}: {reason}", path = path.display())]
    Certificates {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No answer, or not a whole one.
    #[error("cannot reach {url}: {reason}\n{failure}")]
    Unreachable {
        /// The address.
        url: String,
        /// What kind of failure it is.
        failure: ConnectionFailure,
        /// What failed, to the innermost cause.
        reason: String,
        /// Whether the request may have reached the server, and so may have been carried out.
        sent: bool,
        /// What failed, cause by cause; none if there was an answer.
        #[source]
        cause: Option<ErrorChain>,
    },
    /// None of several addresses gave a cluster.
    #[error("none of the {} addresses can be used:\n{}", .0.len(), numbered(.0))]
    NoneUsable(Vec<ClientError>),
    /// An answer, but not of Elasticsearch.
    #[error(
        "{url} is not Elasticsearch: {reason}\nCheck the address: a proxy or another service may be answering"
    )]
    NotElasticsearch {
        /// The address.
        url: String,
        /// How one can tell.
        reason: String,
    },
    /// 404 for the very first request.
    #[error(
        "nothing is served at {url}: {reason}\nCheck the path of the address: behind a proxy it may need another prefix, without one it has none"
    )]
    WrongPath {
        /// The address.
        url: String,
        /// The server's words.
        reason: String,
    },
    /// A version that cannot load the archives.
    #[error(
        "the cluster runs Elasticsearch {0}, whose libtorch cannot load these models: upgrade it to {oldest} or later",
        oldest = Version::OLDEST
    )]
    TooOld(Version),
    /// A version that lacks something that the model needs.
    #[error(
        "the cluster runs Elasticsearch {found}; this model needs {needed} or later: upgrade the cluster"
    )]
    Unsupported {
        /// What runs.
        found: Version,
        /// What the model needs.
        needed: Version,
    },
    /// 401.
    #[error(
        "the cluster does not accept the credentials: {0}\nGive --es-api-key, --es-token, or --es-username with --es-password or --es-password-file"
    )]
    Credentials(String),
    /// 403.
    #[error(
        "the credentials do not allow this: {reason}\nThe user or key needs the {kind} privilege {privilege}{role}",
        role = if privilege == "manage_ml" { " (role machine_learning_admin)" } else { "" }
    )]
    Privilege {
        /// The server's words.
        reason: String,
        /// `cluster` or `index`.
        kind: &'static str,
        /// The least privilege that the server's words name.
        privilege: String,
    },
    /// 403 for want of a licence.
    #[error(
        "the cluster's licence does not allow machine learning: {0}\nIt needs a platinum or enterprise licence; a trial is enough to try"
    )]
    Licence(String),
    /// The id is taken.
    #[error("the cluster already has a model {0}")]
    Exists(ModelId),
    /// The server, or a proxy before it, refuses a request.
    #[error("{who} refuses to {action} ({status}): {reason}{advice}",
        who = if kind.is_some() { "Elasticsearch" } else { "the cluster, or a proxy before it," },
        advice = advice(*status, kind.as_deref()))]
    Refused {
        /// What was asked.
        action: String,
        /// HTTP status.
        status: u16,
        /// The `type` of Elasticsearch's error object (contract 0.1); none if the answer holds none, as those of proxies.
        kind: Option<String>,
        /// The server's words.
        reason: String,
        /// How long the answer asks to wait (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The id is another model's alias.
    #[error("{alias} is an alias of the model {model_id}: give another id with --es-model-id")]
    Alias {
        /// The id.
        alias: ModelId,
        /// The model.
        model_id: String,
    },
    /// The id is taken by half a model, and nothing here tells of its upload.
    #[error(
        "the cluster has a half-made model {0}, whose upload was not begun here: it was left as it is\nIf nobody is importing it now, replace it with --clear-previous, or delete it with DELETE _ml/trained_models/{0}"
    )]
    HalfMade(ModelId),
    /// `--on-conflict skip`, and the model is another one.
    #[error(
        "the cluster has a model {0} with another definition: it was left as it is\nGive another id with --es-model-id, or replace it with --on-conflict replace"
    )]
    Different(ModelId),
    /// A process on this machine is importing it.
    #[error(
        "another process on this machine is importing {0} into this cluster: wait for it, or give another id with --es-model-id"
    )]
    Underway(ModelId),
    /// Someone else was faster.
    #[error(
        "another import has made the model {0} meanwhile: it was left as it is\nWait for that one, or give another id with --es-model-id"
    )]
    Overtaken(ModelId),
    /// Someone else has deleted what was half stored.
    #[error(
        "the model {0} was deleted, or replaced, by someone else while it was uploaded: what is there now was left as it is\nImport it again if it is still wanted"
    )]
    Lost(ModelId),
    /// Something that an earlier model left does not go away.
    #[error(
        "parts of an earlier model {0} are still stored, although it was deleted: give another id with --es-model-id, or try again later"
    )]
    LeftOver(ModelId),
    /// Larger than the server can hold.
    #[error(
        "a definition of {length} bytes is more than Elasticsearch takes: 10,000 parts of 35 MiB"
    )]
    TooManyParts {
        /// Bytes of the definition.
        length: usize,
    },
    /// The model that is to be replaced is needed.
    #[error("the old model {model_id} cannot be deleted: {reason}\n{state}. {way_out}",
        state = if *stopped { "It was stopped under its own name, and is still there" } else { "Nothing was changed" },
        way_out = way_out(reason))]
    InUse {
        /// The model.
        model_id: ModelId,
        /// The server's words.
        reason: String,
        /// Whether it was stopped before.
        stopped: bool,
    },
    /// All was stored, and yet the model is not complete.
    #[error(
        "Elasticsearch does not have the whole definition of {0}, although it acknowledged every part; import it again"
    )]
    Incomplete(ModelId),
    /// The import did not come to its end.
    #[error("{cause}{old}{what}",
        old = if *replaced { format!("\nThe old model {model_id} was deleted before that.") } else { String::new() },
        what = left.told(model_id))]
    Unfinished {
        /// Why not.
        #[source]
        cause: Box<ClientError>,
        /// The model.
        model_id: ModelId,
        /// What is on the cluster now.
        left: RemoteState,
        /// Whether an old model was deleted for it.
        replaced: bool,
    },
    /// The system does not let Ctrl-C be listened to, without which no upload begins.
    #[error("signals cannot be listened to: {0}")]
    Signals(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl ClientError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Exists(_) => Some(hint!(
                "Choose another id with ",
                Setting::ModelId,
                ", or replace the model with ",
                Setting::ClearPrevious,
                "."
            )),
            _ => None,
        }
    }

    /// Whether the same request may succeed a little later (contract 12): the connection failed, the cluster is too busy or not yet
    /// able to answer, or a gateway does not reach it. A refusal of 429 that names a lack of room for the model is none of these.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { failure, .. } => failure.is_transient(),
            Self::Refused { status: 429, kind, .. } => matches!(
                kind.as_deref(),
                None | Some("circuit_breaking_exception" | "es_rejected_execution_exception")
            ),
            Self::Refused { status: 502..=504, .. } => true,
            _ => false,
        }
    }

    /// Whether the request may have been carried out although it failed, so that "already exists" after another try means success.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => *sent,
            _ => self.is_transient(),
        }
    }

    /// How long the answer asks to wait before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn numbered(errors: &[ClientError]) -> String {
    let lines = errors.iter().zip(1..).map(|(error, number)| format!("{number}. {error}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What to do about a refusal whose reason does not tell: a further line, or nothing.
fn advice(status: u16, kind: Option<&str>) -> &'static str {
    match (status, kind) {
        (413, _) => {
            "\nThe request is larger than it takes: give a smaller --part-size, or raise the limit (http.max_content_length, or the proxy's)"
        }
        (429, Some("circuit_breaking_exception" | "es_rejected_execution_exception") | None) => {
            "\nThe cluster is too busy: try again later, or with a lower --upload-concurrency"
        }
        (502 | 504, _) => {
            "\nA proxy or load balancer does not reach the cluster: is Elasticsearch up behind it?"
        }
        (503, _) => {
            "\nThe cluster, or a proxy before it, is not able to answer now: see its health and try again"
        }
        _ => "",
    }
}

/// What an import that did not come to its end has left on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteState {
    /// Nothing.
    Nothing,
    /// Nothing, since it was removed.
    Removed,
    /// So many parts of so many, with a journal here.
    Resumable((usize, usize)),
    /// Half a model, since it could not be removed.
    Behind(String),
    /// The old model, stopped.
    Stopped,
}

impl RemoteState {
    fn told(&self, id: &ModelId) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Removed => format!("\nThe half-made model {id} was removed from the cluster."),
            Self::Resumable((stored, parts)) => format!(
                "\nThe upload of {id} can go on: {stored} of {parts} parts are stored. Run the same command again to send the rest, or give it up with DELETE _ml/trained_models/{id}"
            ),
            Self::Behind(reason) => format!(
                "\nThe half-made model {id} could not be removed ({reason}): delete it with DELETE _ml/trained_models/{id}"
            ),
            Self::Stopped => format!("\nThe old model {id} is stopped, and may still be there."),
        }
    }
}

/// What lets go of a model, by the server's reason.
fn way_out(reason: &str) -> &'static str {
    if reason.contains("ingest processors") {
        "Take it out of the ingest pipelines that name it, or its alias, first; or give another id with --es-model-id"
    } else if reason.contains("deployed") {
        "Stop its deployments first (POST _ml/trained_models/DEPLOYMENT/deployment/_stop); or give another id with --es-model-id"
    } else if reason.contains("inference endpoint") || reason.contains("inference service") {
        "Delete the inference endpoint that uses it first (DELETE _inference/ID); or give another id with --es-model-id"
    } else {
        "Let go of it first, or give another id with --es-model-id"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_in_use_is_told_with_the_way_out() {
        for (reason, stopped, parts) in [
            (
                "Cannot delete model [m] as it is still referenced by ingest processors; use force to delete the model",
                false,
                ["Nothing was changed", "ingest pipelines"],
            ),
            (
                "Cannot delete model [m] as it is currently deployed; use force to delete the model",
                true,
                ["is still there", "Stop its deployments"],
            ),
            (
                "Model [m] is used by an inference endpoint",
                false,
                ["Nothing was changed", "DELETE _inference/ID"],
            ),
        ] {
            let model_id = "m".parse().unwrap();
            let told = ClientError::InUse { model_id, reason: reason.into(), stopped }.to_string();
            assert!(
                told.contains(reason) && parts.iter().all(|part| told.contains(part)),
                "{told}"
            );
        }
    }

    fn refused(status: u16, kind: Option<&str>) -> ClientError {
        let (kind, action, reason) = (kind.map(str::to_owned), "act".into(), "no".into());
        ClientError::Refused { action, status, kind, reason, retry_after: None }
    }

    #[test]
    fn what_may_be_tried_again() {
        for (status, kind, transient) in [
            (429, Some("circuit_breaking_exception"), true),
            (429, Some("es_rejected_execution_exception"), true),
            (429, Some("status_exception"), false),
            (429, None, true),
            (400, Some("status_exception"), false),
            (413, None, false),
            (500, Some("exception"), false),
            (503, Some("cluster_block_exception"), true),
            (504, None, true),
        ] {
            assert_eq!(refused(status, kind).is_transient(), transient, "{status} {kind:?}");
        }
        let unreachable = |failure, sent| ClientError::Unreachable {
            url: "http://x/".into(),
            failure,
            reason: String::new(),
            sent,
            cause: None,
        };
        assert!(unreachable(ConnectionFailure::Broken, true).is_ambiguous());
        assert!(!unreachable(ConnectionFailure::Refused, false).is_ambiguous());
        assert!(!unreachable(ConnectionFailure::UnknownIssuer, false).is_transient());
    }
}
