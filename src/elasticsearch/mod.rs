//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod client;
mod connection;
mod error;
mod import;
mod trained_models;

pub use client::Client;
pub use connection::{Connection, Credentials};
pub use error::{ClientError, Failure};
pub use import::{Import, check_free};
