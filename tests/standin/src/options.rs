//! What kind of cluster is played.

use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Faults;
use crate::version::Version;

/// How a stand-in is set up. [`Options::default`] plays a cluster of release 9.5.0 without security, with its files in a temporary
/// directory.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port on the loopback interface; 0 takes a free one.
    pub port: u16,
    /// The release that is played: its fields, limits, checks and libtorch.
    pub version: Version,
    /// Serverless or not. A serverless cluster reports version 8.11.0 whatever it is (contract, 1).
    pub build_flavor: BuildFlavor,
    /// Who may come in. Without any credential security is off.
    pub credentials: Vec<Credential>,
    /// Where models are kept; a temporary directory if not set. A stand-in finds again what an earlier one kept there.
    pub data: Option<PathBuf>,
    /// Larger bodies are refused with 413 and nothing in it, as `http.max_content_length` does.
    pub max_content_length: u64,
    /// Whether answers bear `X-Elastic-Product`. Without, it plays something that is not Elasticsearch.
    pub product_header: bool,
    /// Ids of models that exist from the start: configurations without definition and vocabulary.
    pub existing_models: Vec<String>,
    /// The licence of the cluster.
    pub license: License,
    /// How long a stored part stays invisible if nothing refreshes the index before (contract, 4.2.3).
    pub refresh_interval: Duration,
    /// How many nodes run models; allocations are spread over them.
    pub nodes: u32,
    /// How many processors each node has for allocations times threads.
    pub allocated_processors: u32,
    /// Whether nodes can be added: then a start that finds too few processors is accepted, and stays without allocations
    /// (contract, 7.2).
    pub autoscaling: bool,
    /// How long a deployment stays in `starting` before its model is loaded.
    pub loading_delay: Duration,
    /// How long after one allocation the next comes up.
    pub allocation_delay: Duration,
    /// Nodes, by number, that cannot load any model, and their reasons.
    pub node_failures: Vec<(u32, String)>,
    /// A start that waits is answered with 408 after this time, whatever it asked for.
    pub longest_start_wait: Duration,
    /// Models and deployments that ingest pipelines use.
    pub in_pipelines: Vec<String>,
    /// Models and deployments that inference endpoints use. The texts of the refusals are not verified.
    pub in_inference_endpoints: Vec<String>,
    /// Evaluates all rows of a request in one call whatever the version. Releases before 8.9 do so anyway (contract, 3.4).
    pub batched: bool,
    /// Takes in parts of definitions without looking at them or keeping them, and says that every definition is whole: for measuring
    /// clients on a machine that the stand-in shares with them.
    pub discard_parts: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// What each machine-learning node may use of its memory, in bytes; no node of that kind if it is 0.
    pub ml_memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            version: Version::default(),
            build_flavor: BuildFlavor::Default,
            credentials: Vec::new(),
            data: None,
            max_content_length: 100 << 20,
            product_header: true,
            existing_models: Vec::new(),
            license: License::Platinum,
            refresh_interval: Duration::from_secs(1),
            nodes: 1,
            allocated_processors: 16,
            autoscaling: false,
            loading_delay: Duration::ZERO,
            allocation_delay: Duration::ZERO,
            node_failures: Vec::new(),
            longest_start_wait: Duration::MAX,
            in_pipelines: Vec::new(),
            in_inference_endpoints: Vec::new(),
            batched: false,
            discard_parts: false,
            faults: Faults::default(),
            ml_memory: 16 << 30,
        }
    }
}

/// The flavour that `GET /` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildFlavor {
    /// A normal cluster.
    Default,
    /// Elastic's serverless offer.
    Serverless,
}

/// The licence of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum License {
    /// Machine learning is allowed.
    Platinum,
    /// Machine learning is not allowed.
    Basic,
}

/// One way to come in, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The secret.
    pub secret: Secret,
    /// What may be done with it.
    pub privilege: Privilege,
}

impl Credential {
    /// A user who may manage machine learning.
    #[must_use]
    pub fn user(name: &str, password: &str) -> Self {
        let secret = Secret::User { name: name.to_owned(), password: password.to_owned() };
        Self { secret, privilege: Privilege::Manage }
    }

    /// An API key, in its encoded form, that may manage machine learning.
    #[must_use]
    pub fn api_key(encoded: &str) -> Self {
        Self { secret: Secret::ApiKey(encoded.to_owned()), privilege: Privilege::Manage }
    }

    /// A bearer token that may manage machine learning.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self { secret: Secret::Token(token.to_owned()), privilege: Privilege::Manage }
    }

    /// The same credential with another privilege.
    #[must_use]
    pub fn allowed(self, privilege: Privilege) -> Self {
        Self { privilege, ..self }
    }
}

/// What proves who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// Basic authentication.
    User {
        /// The user's name.
        name: String,
        /// The password.
        password: String,
    },
    /// `Authorization: ApiKey` with base64 of `id:key`.
    ApiKey(String),
    /// `Authorization: Bearer`, as of a service account.
    Token(String),
}

/// Cluster privileges, each including those before it (contract, 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// May come in and see that a cluster is there.
    None,
    /// `monitor_ml`: may read models and infer.
    Monitor,
    /// `manage_ml`: may create, delete, start and stop models.
    Manage,
}
