//! Requests to a cluster, and what their failures mean.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::Value;

use super::Connection;
use crate::model_id::ModelId;
use crate::version::Version;

/// What can go wrong between here and a served model.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("the cluster's address cannot be used: {0}")]
    Address(String),
    /// The file of `--ca-certs`.
    #[error(
        "no certificates can be read from {path}: {reason}; name a file of certificates in PEM form"
    )]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No answer.
    #[error("cannot reach {url}: {reason}\nIs the address right, and the cluster up?")]
    Unreachable {
        /// The address.
        url: String,
        /// What failed, to the innermost cause.
        reason: String,
    },
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
        "the cluster does not accept the credentials: {0}\nGive --es-username and --es-password, or --es-api-key"
    )]
    Credentials(String),
    /// 403.
    #[error(
        "the credentials do not allow this: {0}\nThe user or key needs the cluster privilege manage_ml (role machine_learning_admin)"
    )]
    Privilege(String),
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
    /// The server refuses a request.
    #[error("Elasticsearch refuses to {action} ({status}): {reason}")]
    Refused {
        /// What was asked.
        action: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        reason: String,
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

/// A cluster that answers.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    connection: Connection,
    version: Version,
    serverless: bool,
}

/// How long a single answer may take. Storing a part on a busy cluster takes long; eland waits as long.
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl Client {
    /// Connects: reaches the cluster, logs in, and sees that it is one that can serve.
    ///
    /// # Errors
    /// When it cannot be reached, is something else, is too old, or refuses the credentials.
    pub async fn connect(connection: Connection) -> Result<Self, ClientError> {
        // Another crate may have set a provider first; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Self {
            http: http_client(&connection)?,
            connection,
            version: Version::OLDEST,
            serverless: false,
        };
        let (headers, info) = client.send(Method::GET, "", None, "say what it is").await.map_err(
            |error| match error {
                ClientError::Refused { status, reason, .. } => {
                    client.not_elasticsearch(format!("it answers {status}: {reason}"))
                }
                other => other,
            },
        )?;
        let product = headers.get("x-elastic-product").and_then(|value| value.to_str().ok());
        if product != Some("Elasticsearch") {
            return Err(
                client.not_elasticsearch("its answer lacks the header X-Elastic-Product".into())
            );
        }
        let number = info["version"]["number"].as_str().unwrap_or_default();
        client.version = number.parse().map_err(|reason| client.not_elasticsearch(reason))?;
        client.serverless = info["version"]["build_flavor"] == "serverless";
        if !client.supports(Version::OLDEST) {
            return Err(ClientError::TooOld(client.version));
        }
        Ok(client)
    }

    /// Whether the cluster has what came with a version. Serverless always has; the number that it gives means nothing.
    #[must_use]
    pub fn supports(&self, version: Version) -> bool {
        self.serverless || self.version >= version
    }

    /// The cluster's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends a request and reads the JSON of a 2xx answer. `action` completes "refuses to …".
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        action: &str,
    ) -> Result<Value, ClientError> {
        self.send(method, path, body, action).await.map(|(_, answer)| answer)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        action: &str,
    ) -> Result<(HeaderMap, Value), ClientError> {
        let url =
            self.connection.url.join(path).map_err(|e| ClientError::Address(e.to_string()))?;
        let mut request = self.http.request(method, url).header("accept", "application/json");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            url: self.connection.url.to_string(),
            reason: causes(&error.without_url()),
        };
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(unreachable)?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        if status.is_success() {
            return answer
                .map(|answer| (headers, answer))
                .ok_or_else(|| self.not_elasticsearch("its answer is not JSON".into()));
        }
        let reason = answer.as_ref().and_then(reason).unwrap_or_else(|| {
            let known = status.canonical_reason().unwrap_or("an answer without a reason");
            format!("{known}, which is not an answer of Elasticsearch's own")
        });
        Err(match status {
            StatusCode::UNAUTHORIZED => ClientError::Credentials(reason),
            StatusCode::FORBIDDEN if reason.contains("license") => ClientError::Licence(reason),
            StatusCode::FORBIDDEN => ClientError::Privilege(reason),
            _ => {
                ClientError::Refused { action: action.to_owned(), status: status.as_u16(), reason }
            }
        })
    }

    fn not_elasticsearch(&self, reason: String) -> ClientError {
        ClientError::NotElasticsearch { url: self.connection.url.to_string(), reason }
    }
}

fn http_client(connection: &Connection) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rust-eland/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(TIMEOUT)
        // A redirect would carry the credentials somewhere else.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(credentials) = &connection.credentials {
        let mut value = HeaderValue::try_from(credentials.header()).map_err(|_| {
            ClientError::Credentials("they hold characters that no header can carry".into())
        })?;
        value.set_sensitive(true);
        builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
    if connection.insecure {
        tracing::warn!(
            "--insecure: the cluster's certificate is not verified; anyone in between can read and change what is sent"
        );
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(path) = &connection.ca_certs {
        let unusable = |reason: String| ClientError::Certificates { path: path.clone(), reason };
        let pem = fs::read(path).map_err(|e| unusable(e.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| unusable(causes(&e)))?;
        if certificates.is_empty() {
            return Err(unusable("it holds none".into()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| ClientError::Address(causes(&e)))
}

/// An error with its causes, outermost first.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The server's words: the reason of the error, then of each cause that says something new (contract 0.1).
fn reason(answer: &Value) -> Option<String> {
    let mut error = answer.get("error")?;
    if let Some(text) = error.as_str() {
        return Some(text.to_owned());
    }
    let mut text = error.get("reason")?.as_str()?.to_owned();
    while let Some(cause) = error.get("caused_by") {
        if let Some(reason) = cause["reason"].as_str()
            && !text.contains(reason)
        {
            text += &format!(": {reason}");
        }
        error = cause;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_server_s_reason_is_told_to_the_innermost_cause() {
        let answer = json!({"error": {"reason": "[1:2] failed to parse field [inference_config]",
            "caused_by": {"reason": "[embedding_size] must be a number greater than 0"}}, "status": 400});
        let expected = "[1:2] failed to parse field [inference_config]: [embedding_size] must be a number greater than 0";
        assert_eq!(reason(&answer).as_deref(), Some(expected));
        assert_eq!(reason(&json!({"error": "plain"})).as_deref(), Some("plain"));
        assert_eq!(reason(&json!({})), None);
    }
}
