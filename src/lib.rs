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
//! let options = Options::of_task(Task::TextEmbedding);
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
//! let options = Options::of_task(Task::QuestionAnswering);
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

// The program and the tests use these modules. Their public names are not part of the API unless they are exported below.
#[doc(hidden)]
pub mod bundle;
mod byte_count;
#[doc(hidden)]
pub mod checkpoint;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod conversion;
#[doc(hidden)]
pub mod elasticsearch;
#[doc(hidden)]
pub mod error;
mod error_chain;
mod hexadecimal;
mod hint;
#[doc(hidden)]
pub mod inference_results;
#[doc(hidden)]
pub mod libtorch_environment;
#[doc(hidden)]
pub mod mapped_file;
mod model_id;
#[cfg(feature = "torch")]
#[doc(hidden)]
pub mod models;
#[doc(hidden)]
pub mod observer;
mod pickle;
#[doc(hidden)]
pub mod prebuilt;
mod proxies;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod scripts;
#[doc(hidden)]
pub mod secrets;
#[doc(hidden)]
pub mod segmented_bytes;
#[doc(hidden)]
pub mod server_tokenization;
#[doc(hidden)]
pub mod source;
mod special_tokens;
#[doc(hidden)]
pub mod tasks;
#[doc(hidden)]
pub mod terminal_text;
#[doc(hidden)]
pub mod tokenizer;
#[doc(hidden)]
pub mod torchscript;
#[doc(hidden)]
pub mod trees;
#[doc(hidden)]
pub mod version;
#[doc(hidden)]
pub mod vocabulary;
#[doc(hidden)]
pub mod workflow;

// Bundles.
#[doc(inline)]
pub use bundle::{Artifact, ArtifactFormat, Bundle, BundleError};
#[doc(inline)]
pub use conversion::{ConversionError, Options, Quantize, QuantizeScheme};
#[doc(inline)]
pub use model_id::{ModelId, ModelIdError};
#[doc(inline)]
pub use scripts::{Scripts, ScriptsError};
#[doc(inline)]
pub use source::Origin;
#[doc(inline)]
pub use tasks::Task;
#[doc(inline)]
pub use version::{Target, Version};
#[doc(inline)]
pub use vocabulary::Vocabulary;

// The cluster.
#[doc(inline)]
pub use elasticsearch::{
    ByteSize, Client, ClientError, Connection, ConnectionFailure, Credentials, Deployment,
    DeploymentError, Endpoint, EndpointId, EndpointOutcome, EndpointTask, Fingerprint, Import,
    Node, OnConflict, Outcome, Priority, RemoteState, RequestHeader, ServedId, SmokeTest,
    StartOptions, State, Trust, WaitFor,
};
#[doc(inline)]
pub use retry::RetryPolicy;
#[doc(inline)]
pub use secrets::Secret;

// All steps.
#[doc(inline)]
pub use error::Error;
#[doc(inline)]
pub use hint::{Command, Hint, Piece, Setting};
#[doc(inline)]
pub use observer::{Event, Stage};
#[doc(inline)]
pub use workflow::{ImportInput, ImportRequest, Imported, StartRequest, Started};
