//! Checkpoints: names to tensors, memory-mapped, with nothing in them ever executed.

mod map;
mod names;
pub mod safetensors;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::torchscript::{TorchError, tensor_over};
pub use map::Map;
use safetensors::{SafetensorsError, Slice};

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be opened.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A clone made without Git LFS.
    #[error("{0} is a Git LFS pointer, not the weights: run `git lfs pull` in the clone")]
    LfsPointer(PathBuf),
    /// Not a valid safetensors file.
    #[error("{path} is not a valid safetensors file: {source}; fetch it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafetensorsError,
    },
    /// The tensors are not those that config.json and the task call for.
    #[error("{path} does not hold the weights that this model needs{}", list(.problems))]
    Weights {
        /// The file.
        path: PathBuf,
        /// One line for each tensor that is missing or has another shape.
        problems: Vec<String>,
    },
    /// libtorch could not make a tensor.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The first few of many.
fn list(problems: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text: String = problems.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if problems.len() > SHOWN {
        text += &format!("\n  … and {} more", problems.len() - SHOWN);
    }
    text
}

/// One file of weights.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Arc<Map>,
    tensors: BTreeMap<String, Slice>,
    survey: bool,
    ledger: RefCell<Ledger>,
}

/// What was asked of a checkpoint.
#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<String>,
    /// Of the tensors handed out, in float32.
    bytes: u64,
    problems: Vec<String>,
    failed: Option<TorchError>,
}

impl Checkpoint {
    /// Opens a safetensors file: maps it and reads its header.
    ///
    /// # Errors
    /// When it cannot be read or is not valid.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = Map::open(path)
            .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
        if map.as_ref().starts_with(b"version https://git-lfs.github.com/spec/") {
            return Err(CheckpointError::LfsPointer(path.to_owned()));
        }
        let tensors = safetensors::read(map.as_ref())
            .map_err(|source| CheckpointError::Safetensors { path: path.to_owned(), source })?
            .into_iter()
            .map(|(name, slice)| (names::canonical(&name), slice))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            map: Arc::new(map),
            tensors,
            survey: false,
            ledger: RefCell::default(),
        })
    }

    /// Opens a file only to see which models could be loaded from it: all its tensors are placeholders.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn survey(path: &Path) -> Result<Self, CheckpointError> {
        Ok(Self { survey: true, ..Self::open(path)? })
    }

    /// All of it, names as in the file.
    #[must_use]
    pub fn weights(&self) -> Weights<'_> {
        Weights { checkpoint: self, prefix: String::new() }
    }

    /// Ends the loading of a model. Returns the names of the tensors that nobody asked for, and the bytes of those handed out.
    ///
    /// # Errors
    /// When a tensor that was asked for is missing or has another shape; all of them are named. The tensors handed out are then
    /// placeholders and must not be used.
    pub fn finish(&self) -> Result<(Vec<String>, u64), CheckpointError> {
        let ledger = self.ledger.take();
        if let Some(error) = ledger.failed {
            return Err(error.into());
        }
        if !ledger.problems.is_empty() {
            return Err(CheckpointError::Weights {
                path: self.path.clone(),
                problems: ledger.problems,
            });
        }
        let unused = self.tensors.keys().filter(|name| !ledger.used.contains(*name)).cloned();
        Ok((unused.collect(), ledger.bytes))
    }

    /// The tensor in float32, mapped where the file holds it so, else widened into memory of its own.
    fn tensor(&self, slice: &Slice) -> Result<Tensor, TorchError> {
        let mapped = tensor_over(Arc::clone(&self.map), slice.offset, slice.kind, &slice.shape);
        let tensor = match mapped {
            Ok(tensor) => tensor,
            // Old files are not padded, so their tensors can lie on odd addresses.
            Err(_) => {
                let bytes = (*self.map).as_ref().get(slice.offset..slice.offset + slice.length);
                Tensor::f_from_data_size(bytes.unwrap_or_default(), &slice.shape, slice.kind)?
            }
        };
        Ok(if slice.kind == Kind::Float { tensor } else { tensor.f_to_kind(Kind::Float)? })
    }
}

/// The tensors of a checkpoint below a prefix.
///
/// Tensors are asked for by name and shape. What is missing or of another shape is noted and a placeholder handed out, so that one
/// message can name all of them: [`Checkpoint::finish`] must be called before any tensor is used.
#[derive(Debug, Clone)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
}

impl Weights<'_> {
    /// The tensors below `name`.
    #[must_use]
    pub fn sub(&self, name: impl Display) -> Self {
        Self { checkpoint: self.checkpoint, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The base model's tensors: those below `name` where the file was saved from a model with a head, else all.
    #[must_use]
    pub fn base(&self, name: &str) -> Self {
        let sub = self.sub(name);
        if self.checkpoint.tensors.keys().any(|key| key.starts_with(&sub.prefix)) {
            sub
        } else {
            self.clone()
        }
    }

    /// Whether the tensor is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.contains_key(&self.name(name))
    }

    /// Notes that a tensor is known and need not be reported as left over.
    pub fn ignore(&self, name: &str) {
        self.checkpoint.ledger.borrow_mut().used.insert(self.name(name));
    }

    /// Notes that all tensors below `name` are known and need not be reported as left over.
    pub fn ignore_all(&self, name: &str) {
        let prefix = self.sub(name).prefix;
        let below = self.checkpoint.tensors.keys().filter(|key| key.starts_with(&prefix));
        self.checkpoint.ledger.borrow_mut().used.extend(below.cloned());
    }

    /// The tensor `name` of `shape`, in float32.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        let name = self.name(name);
        let mut ledger = self.checkpoint.ledger.borrow_mut();
        let tensor = match self.checkpoint.tensors.get(&name) {
            None => {
                ledger.problems.push(format!("{name} {shape:?} is missing"));
                None
            }
            Some(slice) if slice.shape != shape => {
                ledger.problems.push(format!(
                    "{name} has the shape {:?}; config.json calls for {shape:?}",
                    slice.shape
                ));
                None
            }
            Some(_) if self.checkpoint.survey => None,
            Some(slice) => self.checkpoint.tensor(slice).map_err(|e| ledger.failed = Some(e)).ok(),
        };
        if ledger.used.insert(name) {
            ledger.bytes += tensor.as_ref().map_or(0, |tensor| 4 * tensor.numel() as u64);
        }
        tensor.unwrap_or_else(Tensor::new)
    }

    /// A tensor that is computed from tensors handed out, so that the graph need not. Nothing is computed, and a placeholder
    /// handed out, where one of these may be a placeholder.
    pub fn derived(&self, compute: impl FnOnce() -> Result<Tensor, TorchError>) -> Tensor {
        let incomplete = {
            let ledger = self.checkpoint.ledger.borrow();
            !ledger.problems.is_empty() || ledger.failed.is_some()
        };
        if self.checkpoint.survey || incomplete {
            return Tensor::new();
        }
        let computed = tch::no_grad(compute);
        let mut ledger = self.checkpoint.ledger.borrow_mut();
        match computed {
            Ok(tensor) => {
                ledger.bytes += 4 * tensor.numel() as u64;
                tensor
            }
            Err(error) => {
                ledger.failed = Some(error);
                Tensor::new()
            }
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Display for Weights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix.trim_end_matches('.'))
    }
}
