//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod client;
mod connection;
mod import;
mod trained_models;

pub use client::{Client, ClientError};
pub use connection::{Connection, Credentials};
pub use import::{Import, check_free};
