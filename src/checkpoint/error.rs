//! Errors of reading weight files.

use std::path::PathBuf;

use super::pytorch::PytorchError;
use super::safetensors::SafetensorsError;
use crate::error_chain::advice;
use crate::source::SourceError;

/// Why weight files cannot be found or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened.
    #[error("cannot read {path}: {source}{}", advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is a Git LFS pointer: the repository was cloned without Git LFS.
    #[error("{0} is a Git LFS pointer, not the weights: run `git lfs pull` in the clone")]
    LfsPointer(PathBuf),
    /// The folder contains no weights in a readable format.
    #[error(
        "{folder} contains no weights (model.safetensors, pytorch_model.bin or an index of several files): {}",
        others(.unreadable)
    )]
    NoWeights {
        /// The model's folder.
        folder: PathBuf,
        /// Files with weights in other formats.
        unreadable: Vec<String>,
    },
    /// The index names a file that does not exist.
    #[error("{index} names {shard}, which does not exist; download it too")]
    NoShard {
        /// The index.
        index: PathBuf,
        /// The missing file.
        shard: String,
    },
    /// A file of the model cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file was not written by `torch.save`, or contains more than weights.
    #[error("{path} cannot be read as PyTorch weights: {source}")]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: PytorchError,
    },
    /// The file violates the safetensors format.
    #[error("{path} is not a valid safetensors file: {source}; download it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: SafetensorsError,
    },
}

/// Names of weights in other formats, with advice.
fn others(names: &[String]) -> String {
    if names.is_empty() {
        return "download the weights too".into();
    }
    format!("{} cannot be read; save the model as safetensors", names.join(", "))
}
