//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod catalogue;
mod client;
mod connection;
mod deployment;
mod error;
mod failure;
mod import;
mod proxies;
mod reasons;
mod smoke;
mod stats;
mod tls;
mod trained_models;

pub use catalogue::ModelReport;
pub use client::Client;
pub use connection::{Connection, Credentials, Header};
pub use deployment::{ByteSize, DeploymentError, Priority, ServedId, StartOptions, WaitFor};
pub use error::ClientError;
pub use failure::Failure;
pub use import::{Import, check_free};
pub use smoke::SmokeTest;
pub use stats::{Deployment, Node, State};
pub use tls::{Fingerprint, Trust};
