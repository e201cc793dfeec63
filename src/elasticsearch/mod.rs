//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod client;
mod connection;
mod error;
mod failure;
mod import;
mod tls;
mod trained_models;

pub use client::Client;
pub use connection::{Connection, Credentials, Header};
pub use error::ClientError;
pub use failure::Failure;
pub use import::{Import, check_free};
pub use tls::{Fingerprint, Trust};
