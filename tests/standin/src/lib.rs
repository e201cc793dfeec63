//! A stand-in for Elasticsearch's trained-models API. It is as strict as the server, returns the server's errors, and serves the models
//! uploaded to it. Section numbers in comments refer to `elasticsearch-contract.md`.
//!
//! ```
//! let standin = standin::StandIn::start(standin::Options::default());
//! assert!(standin.url().starts_with("http://127.0.0.1:"));
//! assert!(standin.requests().is_empty());
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod api;
mod archive;
mod authentication;
mod cluster;
mod configuration;
mod definition;
mod deployment;
mod errors;
mod exchange;
mod faults;
mod inference;
mod json;
mod log;
mod options;
mod query;
mod server;
mod store;
mod tokenization;
mod trees;
pub mod version;
mod vocabulary;

pub use faults::{Fault, FaultKind, Faults, Random, Rule};
pub use log::Exchange;
pub use options::{BuildFlavor, Credential, License, Options, Privilege, Secret};
pub use server::StandIn;
pub use version::Version;
pub use vocabulary::Vocabulary;
