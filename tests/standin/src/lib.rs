//! A stand-in for Elasticsearch's trained-model API: strict where the server is, with the server's own errors, and able to serve the
//! models that are uploaded to it. It is written after `elasticsearch-contract.md`; section numbers in the comments are that paper's.
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
pub mod version;
mod vocabulary;

pub use faults::{Fault, FaultKind, Faults, Random, Rule};
pub use log::Exchange;
pub use options::{BuildFlavor, Credential, License, Options, Privilege, Secret};
pub use server::StandIn;
pub use version::Version;
pub use vocabulary::Vocabulary;
