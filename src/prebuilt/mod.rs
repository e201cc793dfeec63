//! TorchScript definitions built by other tools, which are inspected before they are loaded and run.

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
use crate::hint::{Hint, Setting, hint};
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
    #[error("Elasticsearch {target} would reject the definition: {reason}")]
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
    #[error("the configuration contains no model_id")]
    NoModelId,
    /// The model id is not valid.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
}

impl PrebuiltError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoModelId => Some(hint!("Set ", Setting::ModelId, ".")),
            Self::ModelId(error) => Some(error.hint()),
            _ => None,
        }
    }
}

/// Reason why a definition, its vocabulary or its configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The file is not a TorchScript archive.
    #[error("it is not a usable TorchScript archive: {0}")]
    Format(String),
    /// A record contains a method name that Elasticsearch forbids, because such methods run while the archive is loaded.
    #[error(
        "its record {record} contains {hook}, a method that would run during loading. Elasticsearch rejects such methods, so the file was not loaded. \
         Trace the model (torch.jit.trace, torch.jit.freeze) to remove them"
    )]
    Hook {
        /// Name of the method.
        hook: &'static str,
        /// The record.
        record: String,
    },
    /// A record's name is too long.
    #[error("the name of a record has {length} bytes; Elasticsearch accepts fewer than 256")]
    LongName {
        /// Length of the name in bytes.
        length: usize,
    },
    /// The code is not safe to load.
    #[error("its code in {record} is not safe to load, and was not loaded: {reason}")]
    Code {
        /// The record.
        record: String,
        /// Why.
        reason: String,
    },
    /// The pickles are not safe to load.
    #[error("its record {record} is not safe to load, and was not loaded: {reason}")]
    Pickle {
        /// The record.
        record: String,
        /// Why.
        reason: String,
    },
    /// libtorch cannot load the archive.
    #[cfg(feature = "torch")]
    #[error("libtorch cannot read it, so Elasticsearch cannot either: {}", .0.cause())]
    Unreadable(#[source] TorchError),
    /// The thread for loading could not be started.
    #[error("no thread could be started to load it: {0}")]
    Thread(#[source] std::io::Error),
    /// Elasticsearch would reject the graph.
    #[error("Elasticsearch would reject it: {0}")]
    Refused(#[from] Refused),
    /// `forward` does not have the signature that the server needs.
    #[error("{0}")]
    Signature(String),
    /// The definition fails on the server's input.
    #[error("it fails on an input of {tokens} tokens: {reason}")]
    Fails {
        /// Length of the input in tokens.
        tokens: usize,
        /// Description of the failure.
        reason: String,
    },
    /// The server would not accept the configuration.
    #[error("{0}")]
    Configuration(String),
    /// The vocabulary does not match the configuration.
    #[error(transparent)]
    Vocabulary(#[from] TokenizerError),
}
