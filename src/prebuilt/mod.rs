//! Definitions that others made: looked at first, loaded and run only then.

#[cfg(feature = "torch")]
mod archive;
#[cfg(feature = "torch")]
mod code;
mod configuration;
#[cfg(feature = "torch")]
mod definition;
#[cfg(feature = "torch")]
mod inspected;
#[cfg(feature = "torch")]
mod pickle;
#[cfg(not(feature = "torch"))]
mod without_torch;

use std::path::PathBuf;

use crate::error_chain::advice;
use crate::model_id::{ModelId, ModelIdError};
use crate::tokenizer::TokenizerError;
#[cfg(feature = "torch")]
use crate::torchscript::TorchError;
use crate::torchscript::operations::Refused;
use crate::version::Target;

pub use configuration::Configuration;
#[cfg(feature = "torch")]
pub use definition::{PrebuiltDefinition, PrebuiltFiles};
#[cfg(feature = "torch")]
pub use inspected::Inspected;
#[cfg(not(feature = "torch"))]
pub use without_torch::{Inspected, PrebuiltDefinition, PrebuiltFiles};

/// Why a definition built by another tool cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrebuiltError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}{}", advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: DefinitionError,
    },
    /// The definition of a bundle cannot be used.
    #[error("the definition of {model_id}: {reason}")]
    Bundle {
        /// The bundle's model id.
        model_id: ModelId,
        /// The reason.
        reason: DefinitionError,
    },
    /// A cluster would not serve the definition.
    #[error("Elasticsearch {target} would refuse the definition: {reason}")]
    Refused {
        /// The cluster's version.
        target: Target,
        /// The reason.
        reason: Refused,
    },
    /// The build has no libtorch.
    #[cfg(not(feature = "torch"))]
    #[error("this build of rust-eland has no libtorch, so it cannot check definitions")]
    NoLibtorch,
    /// Neither the caller nor the configuration names the model.
    #[error("the configuration names no model_id: give --es-model-id")]
    NoModelId,
    /// The model id is not valid.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
}

/// Why a definition, or what was given with it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It is no archive of TorchScript.
    #[error("it is no TorchScript archive that can be used: {0}")]
    Format(String),
    /// A record holds text that Elasticsearch accepts in none: its methods would run while the archive is loaded.
    #[error(
        "its record {record} holds {hook}, a method that would run when it is loaded, which Elasticsearch refuses; it was not loaded. \
         Trace the model (torch.jit.trace, torch.jit.freeze), so that it has no such methods"
    )]
    Hook {
        /// The method's name.
        hook: &'static str,
        /// The record.
        record: String,
    },
    /// A record's name is too long.
    #[error(
        "it holds a record whose name has {length} bytes; Elasticsearch accepts fewer than 256"
    )]
    LongName {
        /// Bytes of the name.
        length: usize,
    },
    /// Its code is not safe to load.
    #[error("its code in {record} is not safe to load, and was not loaded: {reason}")]
    Code {
        /// The record.
        record: String,
        /// Why.
        reason: String,
    },
    /// Its pickles are not safe to load.
    #[error("its record {record} is not safe to load, and was not loaded: {reason}")]
    Pickle {
        /// The record.
        record: String,
        /// Why.
        reason: String,
    },
    /// libtorch cannot read it.
    #[cfg(feature = "torch")]
    #[error("libtorch cannot read it, and Elasticsearch could not either: {}", .0.cause())]
    Unreadable(#[source] TorchError),
    /// No thread for it.
    #[error("no thread to load it in: {0}")]
    Thread(#[source] std::io::Error),
    /// Elasticsearch would refuse its graph.
    #[error("Elasticsearch would refuse it: {0}")]
    Refused(#[from] Refused),
    /// `forward` is not what the server calls.
    #[error("{0}")]
    Signature(String),
    /// It fails on what the server sends.
    #[error("it fails on an input of {tokens} tokens: {reason}")]
    Fails {
        /// The length.
        tokens: usize,
        /// What is wrong.
        reason: String,
    },
    /// The configuration is not one that the server takes.
    #[error("{0}")]
    Configuration(String),
    /// The vocabulary does not go with the configuration.
    #[error(transparent)]
    Vocabulary(#[from] TokenizerError),
}
