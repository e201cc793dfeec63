//! Finds the files of a folder that contain its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::CheckpointError;
use crate::source::{ModelFiles, SourceError};

/// Format of weight files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The safetensors format.
    Safetensors,
    /// The format of `torch.save`, zip or legacy.
    Pytorch,
}

/// File names that Transformers and sentence-transformers use, in the order in which they look for them: a single file, and the
/// index of several files.
const NAMES: [(Format, &str, &str); 2] = [
    (Format::Safetensors, "model.safetensors", "model.safetensors.index.json"),
    (Format::Pytorch, "pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// Files with the weights of a model.
#[derive(Debug, Clone)]
pub struct WeightFiles {
    /// Format of all files.
    pub format: Format,
    /// The single file, or the index of several files, for messages.
    pub path: PathBuf,
    /// All files, without the index.
    pub shards: Vec<PathBuf>,
}

/// Index of weights in several files.
#[derive(Deserialize)]
struct Index {
    /// File of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// A single file.
    #[must_use]
    pub fn one(format: Format, path: PathBuf) -> Self {
        Self { format, shards: vec![path.clone()], path }
    }

    /// Finds the weights of a folder. If there are both formats, safetensors takes precedence.
    ///
    /// # Errors
    /// [`CheckpointError`] if there are no readable weights, or an index names a file that is missing or outside the folder.
    pub fn find(files: &ModelFiles) -> Result<Self, CheckpointError> {
        for (format, one, index) in NAMES {
            if let Some(path) = files.find(one)? {
                return Ok(Self::one(format, path));
            }
            if let Some(path) = files.find(index)? {
                return Self::of_index(files, format, index, path);
            }
        }
        Err(CheckpointError::NoWeights {
            folder: files.folder().to_owned(),
            unreadable: files.listing().into_iter().filter(|name| unreadable(name)).collect(),
        })
    }

    fn of_index(
        files: &ModelFiles,
        format: Format,
        index: &str,
        path: PathBuf,
    ) -> Result<Self, CheckpointError> {
        // In a clone without Git LFS, the index may be a pointer, which is not JSON.
        super::refuse_lfs_pointer(&super::open(&path)?, &path)?;
        let Some(Index { weight_map }) = files.json(index)? else {
            return Err(files.missing(index, "the folder changed while it was read").into());
        };
        let names: BTreeSet<String> = weight_map.into_values().collect();
        let shards = names.into_iter().map(|name| {
            let mut parts = Path::new(&name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(SourceError::Outside { name }.into());
            }
            files
                .find(&name)?
                .ok_or_else(|| CheckpointError::NoShard { index: path.clone(), shard: name })
        });
        let shards = shards.collect::<Result<_, _>>()?;
        Ok(Self { format, path, shards })
    }
}

/// Whether a file contains weights in a format that this program does not support.
fn unreadable(name: &str) -> bool {
    const EXTENSIONS: [&str; 9] =
        ["bin", "ckpt", "gguf", "h5", "msgpack", "onnx", "ot", "pt", "safetensors"];
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    name == "onnx" || name == "openvino" || extension.is_some_and(|e| EXTENSIONS.contains(&e))
}
