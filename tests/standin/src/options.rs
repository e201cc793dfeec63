//! Options of the imitated cluster.

use std::path::PathBuf;
use std::time::Duration;

use crate::faults::Faults;
use crate::version::Version;

/// Options of a stand-in. [`Options::default`] imitates Elasticsearch 9.5.0 without security and stores files in a temporary
/// directory.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port on the loopback interface; 0 selects a free port.
    pub port: u16,
    /// Imitated version, which determines fields, limits, checks and libtorch.
    pub version: Version,
    /// Build flavour. A serverless cluster always reports version 8.11.0 (contract, 1).
    pub build_flavor: BuildFlavor,
    /// Accepted credentials. Without credentials security is disabled.
    pub credentials: Vec<Credential>,
    /// Directory for models; a temporary directory by default. Models of an earlier stand-in in the same directory are loaded.
    pub data: Option<PathBuf>,
    /// Largest body in bytes. Larger bodies are rejected with 413 and an empty body, as with `http.max_content_length`.
    pub max_content_length: u64,
    /// Whether responses have the header `X-Elastic-Product`. Without it, the stand-in imitates a server that is not Elasticsearch.
    pub product_header: bool,
    /// Ids of models that exist at the start, as configurations without definition and vocabulary.
    pub existing_models: Vec<String>,
    /// Licence of the cluster.
    pub license: License,
    /// Time until a stored part becomes visible, unless another request refreshes the index earlier (contract, 4.2.3).
    pub refresh_interval: Duration,
    /// Number of machine-learning nodes; allocations are distributed over them.
    pub nodes: u32,
    /// Processors per node, for allocations times threads.
    pub allocated_processors: u32,
    /// Whether the cluster can add nodes. If it can, a start without enough processors is accepted and has no allocations
    /// (contract, 7.2).
    pub autoscaling: bool,
    /// Time that a deployment stays in `starting` before its model is loaded.
    pub loading_delay: Duration,
    /// Time between the starts of two allocations.
    pub allocation_delay: Duration,
    /// Nodes that cannot load any model: number and reason.
    pub node_failures: Vec<(u32, String)>,
    /// Time after which a waiting start returns 408, regardless of its own timeout.
    pub longest_start_wait: Duration,
    /// Models and deployments used by ingest pipelines.
    pub in_pipelines: Vec<String>,
    /// Models and deployments used by inference endpoints. The texts of these errors were not compared with a real server.
    pub in_inference_endpoints: Vec<String>,
    /// Evaluate all rows of a request in one call. Versions before 8.9 always do so (contract, 3.4).
    pub batched: bool,
    /// Accept parts of definitions without validating or storing them, and report every definition as complete. For benchmarks of
    /// clients that run on the same machine.
    pub discard_parts: bool,
    /// Injected faults.
    pub faults: Faults,
    /// Memory available to models on each machine-learning node, in bytes; 0 for a cluster without such nodes.
    pub ml_memory: u64,
    /// JVM heap of each node in bytes. A tenth of it limits the JSON of a tree model.
    pub heap: u64,
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
            heap: 1 << 30,
        }
    }
}

/// Build flavour reported by `GET /`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildFlavor {
    /// Self-managed or hosted cluster.
    Default,
    /// Elastic Cloud Serverless.
    Serverless,
}

/// Licence of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum License {
    /// Includes machine learning.
    Platinum,
    /// Includes learning to rank too.
    Enterprise,
    /// Does not include machine learning.
    Basic,
    /// Includes everything for a number of days from now on.
    Trial {
        /// Days until the trial ends.
        days_left: u32,
    },
}

/// A credential and its privilege.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Secret of the credential.
    pub secret: Secret,
    /// Privilege of the credential.
    pub privilege: Privilege,
}

impl Credential {
    /// A user with the privilege `manage_ml`.
    #[must_use]
    pub fn user(name: &str, password: &str) -> Self {
        let secret = Secret::User { name: name.to_owned(), password: password.to_owned() };
        Self { secret, privilege: Privilege::Manage }
    }

    /// An API key in encoded form with the privilege `manage_ml`.
    #[must_use]
    pub fn api_key(encoded: &str) -> Self {
        Self { secret: Secret::ApiKey(encoded.to_owned()), privilege: Privilege::Manage }
    }

    /// A bearer token with the privilege `manage_ml`.
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

/// Authentication method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// Basic authentication.
    User {
        /// User name.
        name: String,
        /// Password.
        password: String,
    },
    /// `Authorization: ApiKey` with base64 of `id:key`.
    ApiKey(String),
    /// `Authorization: Bearer`, as of a service account.
    Token(String),
}

/// Cluster privileges. Each one includes the previous ones (contract, 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// May read `GET /`.
    None,
    /// `monitor_ml`: may read models and run inference.
    Monitor,
    /// `manage_ml`: may create, delete, start and stop models.
    Manage,
}
