//! [`WeightError`]: why weights cannot be loaded.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::torchscript::TorchError;

/// Why a model's weights cannot be loaded from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The checkpoint's tensors are not those that config.json and the task require.
    #[error("{path} does not contain the weights that this model needs{}", list(.problems))]
    Mismatch {
        /// The weight file, or the index of several.
        path: PathBuf,
        /// One line for each tensor that is missing or has another shape.
        problems: Vec<String>,
    },
    /// The file contains tensors that repeat the same few bytes many times.
    #[error(
        "{0} contains tensors that are far larger than the file itself, which no model needs. Save it again as safetensors"
    )]
    OutOfProportion(PathBuf),
    /// The float32 values of half-precision weights could not be written to a temporary file.
    #[error(
        "cannot write the weights as float32 to a temporary file in {folder}: {source}. Free space on that disk and run the command again"
    )]
    Widen {
        /// The folder of the file.
        folder: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// libtorch could not create a tensor.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The first lines of `problems`, and the number of further lines.
fn list(problems: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text: String = problems.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if problems.len() > SHOWN {
        text += &format!("\n  … and {} more", problems.len() - SHOWN);
    }
    text
}
