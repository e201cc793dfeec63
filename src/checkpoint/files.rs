//! Which files of a folder hold its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::CheckpointError;
use crate::source::{ModelFiles, SourceError};

/// What the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// `torch.save`, zip or legacy.
    Pytorch,
}

/// The names that Transformers and sentence-transformers give, in the order in which they look for them: one file, and the index
/// of several.
const NAMES: [(Format, &str, &str); 2] = [
    (Format::Safetensors, "model.safetensors", "model.safetensors.index.json"),
    (Format::Pytorch, "pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// The files with a model's weights.
#[derive(Debug, Clone)]
pub struct WeightFiles {
    /// What all of them are.
    pub format: Format,
    /// The file, or the index of several: what messages name.
    pub path: PathBuf,
    /// The files.
    pub shards: Vec<PathBuf>,
}

/// The index of weights in several files.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// One file.
    #[must_use]
    pub fn one(format: Format, path: PathBuf) -> Self {
        Self { format, shards: vec![path.clone()], path }
    }

    /// Finds the weights of a folder: safetensors where there are both.
    ///
    /// # Errors
    /// When there are none that can be read, or an index names a file that is missing or outside the folder.
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
        // A clone without LFS may hold pointers here too, which are no JSON.
        super::refuse_lfs_pointer(&super::open(&path)?, &path)?;
        let Some(Index { weight_map }) = files.json(index)? else {
            return Err(files.missing(index, "it was there just now").into());
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

/// Whether a file is weights that only others can read.
fn unreadable(name: &str) -> bool {
    const EXTENSIONS: [&str; 9] =
        ["bin", "ckpt", "gguf", "h5", "msgpack", "onnx", "ot", "pt", "safetensors"];
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    name == "onnx" || name == "openvino" || extension.is_some_and(|e| EXTENSIONS.contains(&e))
}
