//! A stand-in for the Hugging Face hub. The API and small files are on one port, and the CDN for large files is on another. The answers
//! follow the clients' sources and captures of the real hub. Tests can inject faults.
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
