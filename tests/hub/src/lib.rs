//! A stand-in for the Hugging Face hub: the API and the pages of files on one port, the CDN for large files on another. It answers as the
//! real ones do, as far as clients and others' captures tell, and breaks what it is told to break.
//!
//! ```
//! let repository = hub::Repository::new("org/name").file("config.json", "{}").large("model.safetensors", "…");
//! let hub = hub::Hub::start(hub::Options { repositories: vec![repository], ..hub::Options::default() });
//! assert!(hub.url().starts_with("http://127.0.0.1:"));
//! assert!(hub.requests().is_empty());
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod answer;
mod api;
mod body;
mod fault;
mod files;
mod log;
mod repository;
mod server;

pub use fault::{Break, Fault};
pub use log::Request;
pub use repository::{Access, File, Repository};
pub use server::{Host, Hub, Options};
