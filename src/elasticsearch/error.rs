//! What can go wrong between here and a served model, told apart, each with what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
        failure: Failure,
        /// What failed, to the innermost cause.
        reason: String,
        /// Whether the request may have reached the server, and so may have been carried out.
        sent: bool,
    },
    /// None of several addresses gave a cluster.
    #[error("none of the {} addresses can be used", .0.len())]
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
    #[error(
        "the cluster already has a model {0}: give another id with --es-model-id, or replace it with --clear-previous"
    )]
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
    /// All was stored, and yet the model is not complete.
    #[error(
        "Elasticsearch does not have the whole definition of {0}, although it acknowledged every part; import it again"
    )]
    Incomplete(ModelId),
    /// The upload failed and what was stored could not be removed.
    #[error(
        "{cause}\nThe half-made model {model_id} could not be removed ({reason}): delete it with DELETE _ml/trained_models/{model_id}"
    )]
    LeftBehind {
        /// Why the upload failed.
        cause: Box<ClientError>,
        /// The model.
        model_id: ModelId,
        /// Why it could not be removed.
        reason: String,
    },
    /// The model is there but does not run.
    #[error("the model {model_id} is stored, but could not be started: {reason}")]
    Deployment {
        /// The model.
        model_id: ModelId,
        /// Why not.
        reason: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl ClientError {
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

/// Why there is no answer. Its display form is what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The host's name is not known.
    Resolve,
    /// Nothing listens at the port.
    Refused,
    /// Nothing answers in time.
    TimedOut,
    /// The connection broke, or the answer was cut.
    Broken,
    /// The certificate is signed by an authority that is not trusted.
    UnknownIssuer,
    /// The certificate is one of another host.
    WrongHost,
    /// The certificate has expired, or is not yet valid.
    Expired,
    /// No certificate that the server presents has the fingerprint that was given.
    Fingerprint,
    /// Something else is wrong with the certificate.
    Certificate,
    /// The server wants a certificate of ours.
    ClientCertificate,
    /// TLS was spoken to a port that does not speak it.
    PlainServer,
    /// Plain HTTP was spoken to a port that does not speak it.
    TlsServer,
    /// The proxy wants credentials.
    ProxyCredentials,
    /// The proxy does not connect to the cluster.
    Proxy,
    /// Anything else.
    Other,
}

impl Failure {
    /// Whether it may pass by itself.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Resolve
                | Self::Refused
                | Self::TimedOut
                | Self::Broken
                | Self::Proxy
                | Self::Other
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "Nobody knows a host of this name: is it written right?",
            Self::Refused => "Nothing listens there: are address and port right, and is the cluster up?",
            Self::TimedOut => {
                "Nothing answers there: are address and port right, and does a firewall or a proxy stand in between?"
            }
            Self::Broken => "The connection broke: try again",
            Self::UnknownIssuer => {
                "The certificate is not signed by an authority that is trusted here: name the cluster's CA with --ca-certs \
                 (config/certs/http_ca.crt of the cluster) or give its fingerprint with --ca-fingerprint"
            }
            Self::WrongHost => {
                "The certificate is one for other names: use one of them in the address"
            }
            Self::Expired => "Renew the cluster's certificate, and see that this machine's clock is right",
            Self::Fingerprint => {
                "Compare --ca-fingerprint with what Elasticsearch printed at its first start; if it is right, someone else answers there"
            }
            Self::Certificate => "Renew the cluster's certificate",
            Self::ClientCertificate => {
                "Give one that the cluster, or the proxy before it, trusts, with --client-cert and --client-key"
            }
            Self::PlainServer => "The port does not speak TLS: write http:// instead of https://",
            Self::TlsServer => "The port seems to speak TLS: write https:// instead of http://",
            Self::ProxyCredentials => {
                "Put the proxy's user and password into the address in HTTPS_PROXY or HTTP_PROXY (http://user:password@host:port)"
            }
            Self::Proxy => {
                "The proxy does not connect to the cluster: is it allowed to, and is the cluster up? NO_PROXY names hosts to reach without it"
            }
            Self::Other => "Is the address right, and the cluster up?",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        assert!(unreachable(Failure::Broken, true).is_ambiguous());
        assert!(!unreachable(Failure::Refused, false).is_ambiguous());
        assert!(!unreachable(Failure::UnknownIssuer, false).is_transient());
    }
}
