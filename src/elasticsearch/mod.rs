//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod catalogue;
mod client;
mod connection;
mod deployment;
mod endpoint;
mod error;
mod failure;
mod import;
mod interruption;
mod journal;
mod look;
mod payload;
mod reasons;
mod retry;
mod smoke;
mod stats;
mod tls;
mod trained_models;
mod upload;

pub use catalogue::ModelReport;
pub use client::Client;
pub use connection::{Connection, Credentials, Header};
pub use deployment::{ByteSize, DeploymentError, Priority, ServedId, StartOptions, WaitFor};
pub use endpoint::{Endpoint, EndpointId, EndpointOutcome, EndpointTask};
pub use error::{ClientError, Left};
pub use failure::Failure;
pub use import::{Import, OnConflict, Outcome, Transaction};
pub use interruption::{Interrupter, Interruption};
pub use look::{Room, required_memory};
pub use retry::Patience;
pub use smoke::{SmokeTest, example};
pub use stats::{Deployment, Node, State};
pub use tls::{Fingerprint, Trust};
pub use upload::{LARGEST_PART, SMALLEST_PART};
