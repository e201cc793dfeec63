//! Weight files, read as data: parameter names with the bytes, element type and shape of each tensor.
//!
//! Files are memory-mapped and nothing in them is ever executed. This module does not depend on libtorch;
//! `models/weights.rs` turns stored tensors into tensors of libtorch.

mod dtype;
mod error;
mod files;
mod names;
mod pickle;
mod pytorch;
pub mod safetensors;
pub mod zip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mapped_file::MappedFile;
pub use dtype::Dtype;
pub use error::CheckpointError;
pub use files::{Format, WeightFiles};
pub use names::{DIRECTION, LENGTH, Spellings};

pub use pickle::PickleError;
pub use pytorch::PytorchError;
use safetensors::Slice;

/// A tensor in a mapped file. Its bytes are not read yet.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// File that contains the bytes.
    pub file: Arc<MappedFile>,
    /// Element type, shape, and the byte range from the first element to the last.
    pub slice: Slice,
    /// Distance between neighbours along each axis, in elements; `None` if the tensor is contiguous.
    pub strides: Option<Vec<i64>>,
}

/// Tensors of a model's weight files, by their current parameter names in Transformers.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<MappedFile>>,
    tensors: BTreeMap<String, StoredTensor>,
}

impl Checkpoint {
    /// Maps the files and reads the position of each tensor.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file cannot be read or is not valid.
    pub fn open(files: &WeightFiles) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        let mut mapped = Vec::new();
        for path in &files.shards {
            let file = Arc::new(open(path)?);
            refuse_lfs_pointer(&file, path)?;
            mapped.push(Arc::clone(&file));
            let stored = |slice, strides| StoredTensor { file: Arc::clone(&file), slice, strides };
            match files.format {
                Format::Safetensors => tensors.extend(
                    safetensors::read(file.bytes())
                        .map_err(|source| CheckpointError::Safetensors {
                            path: path.clone(),
                            source,
                        })?
                        .into_iter()
                        .map(|(name, slice)| (name, stored(slice, None))),
                ),
                Format::Pytorch => tensors.extend(
                    pytorch::read(file.bytes())
                        .map_err(|source| CheckpointError::Pytorch { path: path.clone(), source })?
                        .into_iter()
                        .map(|(name, view)| (name, stored(view.slice, view.strides))),
                ),
            }
        }
        Ok(Self { path: files.path.clone(), files: mapped, tensors: with_current_names(tensors) })
    }

    /// Reads names, types and shapes from the headers of safetensors files. The bytes of the tensors are not available.
    ///
    /// Each header comes with the path of its file and the length of the whole file in bytes. Messages name the file `path`.
    ///
    /// # Errors
    /// [`CheckpointError::Safetensors`] if a header is not valid.
    pub fn from_headers(
        path: PathBuf,
        headers: &[(PathBuf, Vec<u8>, u64)],
    ) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        let empty = MappedFile::empty()
            .map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
        let empty = Arc::new(empty);
        for (path, header, length) in headers {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            let read = safetensors::read_header(header, length)
                .map_err(|source| CheckpointError::Safetensors { path: path.clone(), source })?;
            let stored = |slice| StoredTensor { file: Arc::clone(&empty), slice, strides: None };
            tensors.extend(read.into_iter().map(|(name, slice)| (name, stored(slice))));
        }
        Ok(Self { path, files: Vec::new(), tensors: with_current_names(tensors) })
    }

    /// A checkpoint without tensors and without a file.
    #[must_use]
    pub fn empty() -> Self {
        Self { path: PathBuf::new(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    /// The weight file, or the index if there are several.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of all files, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.files.iter().map(|file| file.bytes().len()).sum()
    }

    /// The mapped files. Empty for a checkpoint of headers.
    #[must_use]
    pub fn files(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    /// The tensors, ordered by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// Element type of most bytes in floating-point tensors, and the number of elements of all these tensors.
    #[must_use]
    pub fn parameters(&self) -> (Option<Dtype>, u64) {
        let mut bytes: Vec<(Dtype, u64)> = Vec::new();
        let mut count = 0;
        for StoredTensor { slice, .. } in self.tensors.values() {
            if !slice.dtype.is_float() {
                continue;
            }
            count += elements(&slice.shape);
            match bytes.iter_mut().find(|(dtype, _)| *dtype == slice.dtype) {
                Some((_, sum)) => *sum += slice.length as u64,
                None => bytes.push((slice.dtype, slice.length as u64)),
            }
        }
        (bytes.into_iter().max_by_key(|(_, sum)| *sum).map(|(dtype, _)| dtype), count)
    }
}

fn open(path: &Path) -> Result<MappedFile, CheckpointError> {
    MappedFile::open(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })
}

fn refuse_lfs_pointer(file: &MappedFile, path: &Path) -> Result<(), CheckpointError> {
    if crate::source::is_lfs_pointer(file.bytes()) {
        return Err(CheckpointError::LfsPointer(path.to_owned()));
    }
    Ok(())
}

fn with_current_names(tensors: BTreeMap<String, StoredTensor>) -> BTreeMap<String, StoredTensor> {
    let renamed = names::unwrap(tensors).into_iter();
    renamed.map(|(name, stored)| (names::canonical(&name), stored)).collect()
}

/// Number of elements of a shape.
pub(crate) fn elements(shape: &[i64]) -> u64 {
    let sizes = shape.iter().map(|&size| u64::try_from(size).unwrap_or(0));
    sizes.fold(1, u64::saturating_mul)
}
