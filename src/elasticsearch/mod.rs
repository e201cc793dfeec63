//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod attempts;
mod catalogue;
mod client;
mod connection;
mod connection_failure;
mod deployment;
mod endpoint;
mod error;
mod import;
mod interruption;
mod journal;
mod payload;
mod preflight;
mod reasons;
mod smoke;
mod stats;
mod tls;
mod trained_models;
mod upload;
mod window;

pub use catalogue::ModelReport;
pub use client::Client;
pub use connection::{Connection, Credentials, Header};
pub use connection_failure::ConnectionFailure;
pub use deployment::{ByteSize, DeploymentError, Priority, ServedId, StartOptions, WaitFor};
pub use endpoint::{Endpoint, EndpointId, EndpointOutcome, EndpointTask};
pub use error::{ClientError, RemoteState};
pub use import::{Import, OnConflict, Outcome, Transaction};
pub use interruption::{Interrupter, Interruption};
pub use preflight::{Room, required_memory};
pub use smoke::{SmokeTest, example};
pub use stats::{Deployment, Node, State};
pub use tls::{Fingerprint, Trust};
pub use upload::{LARGEST_PART, SMALLEST_PART};
