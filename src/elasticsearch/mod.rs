//! Elasticsearch: the connection, the trained-models API, and the import of a bundle. Knows nothing of PyTorch.

mod client;
mod connection;
mod error;
mod failure;
mod import;
mod interruption;
mod journal;
mod look;
mod payload;
mod retry;
mod tls;
mod trained_models;
mod upload;

pub use client::Client;
pub use connection::{Connection, Credentials, Header};
pub use error::{ClientError, Left};
pub use failure::Failure;
pub use import::{Import, OnConflict, Outcome, Transaction, start};
pub use interruption::{Interrupter, Interruption};
pub use retry::Patience;
pub use tls::{Fingerprint, Trust};
pub use upload::{LARGEST_PART, SMALLEST_PART};
