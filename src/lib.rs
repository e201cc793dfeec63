//! Converts Hugging Face models and imports them into Elasticsearch.
//!
//! A model becomes a bundle ([`Bundle`]): the TorchScript definition, the vocabulary and the configuration. A bundle becomes a served
//! model through the trained-models API ([`Client`]).
//!
//! ```text
//! hub id or folder ─ source ─► model files ─► checkpoint ─► models × tasks ─► torchscript ─┐
//!                                   └──────► tokenizer ──────────────────────────────────► bundle ─► elasticsearch
//! ```
//!
//! # From a folder to files
//!
//! [`Bundle::from_model`] needs neither a cluster nor a network. [`Bundle::read`] and `rust-eland import --bundle` read the files
//! that it writes.
//!
#![cfg_attr(feature = "torch", doc = "```")]
#![cfg_attr(not(feature = "torch"), doc = "```ignore")]
//! use rust_eland::{Bundle, ModelId, Options, Task};
//!
//! # let output = tempfile::tempdir()?;
//! let mut options = Options::default();
//! options.task = Some(Task::TextEmbedding);
//! let bundle = Bundle::from_model("tests/fixtures/bert/st-mean/model", ModelId::derive("st-mean")?, options, |event| {
//!     println!("{}: {event:?}", event.stage());
//! })?;
//! let metadata = bundle.write(output.path())?;
//! assert!(metadata.ends_with("st-mean.metadata.json"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # From a bundle to a model in a cluster
//!
//! [`Connection`] has the addresses, credentials and certificates. [`ImportRequest::start`] starts the model after the upload.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use rust_eland::{Bundle, Client, Connection, Event, ImportRequest, OnConflict, Outcome};
//!
//! # let cluster = standin::StandIn::start(standin::Options::default());
//! # let address = cluster.url();
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // let address = "https://elastic:PASSWORD@localhost:9200";
//! let client = Client::connect(Connection::to_url(&address)?).await?;
//! let bundle = Bundle::read("tests/fixtures/bundles/ner.metadata.json".as_ref(), None)?;
//!
//! let uploaded = Arc::new(AtomicU64::new(0));
//! let seen = Arc::clone(&uploaded);
//! let mut request = ImportRequest::of_bundle(bundle);
//! request.import.on_conflict = OnConflict::Replace;
//! let imported = request
//!     .run(&client, move |event| {
//!         if let Event::Advanced { done, .. } = event {
//!             seen.store(*done, Ordering::Relaxed);
//!         }
//!     })
//!     .await?;
//! assert!(matches!(imported.outcome, Outcome::Stored { .. }));
//! assert!(uploaded.load(Ordering::Relaxed) > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Unsupported models
//!
//! Errors say what failed and why; [`Error::hint`] says what to do.
//!
#![cfg_attr(feature = "torch", doc = "```")]
#![cfg_attr(not(feature = "torch"), doc = "```ignore")]
//! use rust_eland::{Bundle, ModelId, Options, Task};
//!
//! let mut options = Options::default();
//! options.task = Some(Task::QuestionAnswering);
//! let refused = Bundle::from_model("tests/fixtures/bert/ner/model", ModelId::derive("ner")?, options, |_| ());
//! let error = refused.unwrap_err();
//! assert!(error.to_string().starts_with("this model cannot serve question_answering"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Stability
//!
//! Only the items in this documentation follow semantic versioning. Hidden modules belong to the program and its tests.
#![deny(missing_docs)]

pub mod bundle;
mod byte_count;
#[doc(hidden)]
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
pub mod conversion;
pub mod elasticsearch;
pub mod error;
#[doc(hidden)]
pub mod error_chain;
mod hexadecimal;
pub mod hint;
#[doc(hidden)]
pub mod inference_results;
#[doc(hidden)]
pub mod mapped_file;
pub mod model_id;
#[cfg(feature = "torch")]
#[doc(hidden)]
pub mod models;
pub mod observer;
mod pickle;
#[doc(hidden)]
pub mod prebuilt;
mod proxies;
pub mod retry;
#[doc(hidden)]
pub mod secrets;
#[doc(hidden)]
pub mod segmented_bytes;
#[doc(hidden)]
pub mod server_tokenization;
pub mod source;
mod special_tokens;
pub mod tasks;
#[doc(hidden)]
pub mod terminal_text;
#[doc(hidden)]
pub mod tokenizer;
#[doc(hidden)]
pub mod torchscript;
#[doc(hidden)]
pub mod trees;
pub mod version;
#[doc(hidden)]
pub mod vocabulary;
#[doc(hidden)]
pub mod workflow;

pub use bundle::{Bundle, BundleError};
pub use conversion::{ConversionError, Options, Quantize};
pub use elasticsearch::{
    Client, ClientError, Connection, Credentials, Import, OnConflict, Outcome, StartOptions, Trust,
};
pub use error::Error;
pub use hint::{Hint, Setting};
pub use model_id::ModelId;
pub use observer::{Event, Stage};
pub use retry::RetryPolicy;
pub use tasks::Task;
pub use version::{Target, Version};
pub use workflow::{ImportRequest, Imported};
