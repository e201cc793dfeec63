//! Checkpoints: names to tensors, memory-mapped, with nothing in them ever executed.

mod files;
mod names;
mod pickle;
mod pytorch;
pub mod safetensors;
pub(crate) mod zip;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::error_chain::advice;
use crate::mapped_file::MappedFile;
use crate::observer::{Progress, RunningStage, Stage};
use crate::source::SourceError;
use crate::torchscript::{TorchError, tensor_over};
pub use files::{Format, WeightFiles};
pub use names::Spellings;
pub use pickle::PickleError;
pub use pytorch::PytorchError;
use safetensors::{SafetensorsError, Slice};

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be opened.
    #[error("cannot read {path}: {source}{}", advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A clone made without Git LFS.
    #[error("{0} is a Git LFS pointer, not the weights: run `git lfs pull` in the clone")]
    LfsPointer(PathBuf),
    /// The folder has no weights, or none that can be read.
    #[error(
        "{folder} holds no model.safetensors, pytorch_model.bin or index of several: {}",
        others(.unreadable)
    )]
    NoWeights {
        /// The model's folder.
        folder: PathBuf,
        /// Weights in other formats.
        unreadable: Vec<String>,
    },
    /// The index names a file that is not there.
    #[error("{index} names {shard}, which is not there; fetch it too")]
    NoShard {
        /// The index.
        index: PathBuf,
        /// The file.
        shard: String,
    },
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Not a file of PyTorch's, or one that wants more than to be read.
    #[error("{path} cannot be read as PyTorch weights: {source}")]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PytorchError,
    },
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
    /// Tensors that repeat what little the file holds.
    #[error(
        "{0} holds tensors that are far larger than the file itself, which no model needs; refusing. Save it again, as safetensors"
    )]
    OutOfProportion(PathBuf),
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

/// What there is instead of weights that can be read.
fn others(names: &[String]) -> String {
    if names.is_empty() {
        return "fetch the weights too".into();
    }
    format!("{} cannot be read; save the model as safetensors", names.join(", "))
}

/// Maps a file.
fn open(path: &Path) -> Result<MappedFile, CheckpointError> {
    MappedFile::open(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })
}

fn refuse_lfs_pointer(map: &MappedFile, path: &Path) -> Result<(), CheckpointError> {
    if map.as_ref().starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(CheckpointError::LfsPointer(path.to_owned()));
    }
    Ok(())
}

/// Where a tensor lies.
#[derive(Debug)]
struct Stored {
    map: Arc<MappedFile>,
    /// From its first element to its last.
    slice: Slice,
    /// In elements, where it is not contiguous.
    strides: Option<Vec<i64>>,
}

impl Stored {
    /// The tensor in float32, mapped where the file holds it so, else made contiguous or widened in memory of its own.
    fn tensor(&self) -> Result<Tensor, TorchError> {
        let Slice { kind, shape, offset, length } = &self.slice;
        let file = (*self.map).as_ref();
        let elements = [i64::try_from(length / kind.elt_size_in_bytes()).unwrap_or(i64::MAX)];
        let spanned = if self.strides.is_some() { &elements[..] } else { shape };
        let tensor = match tensor_over(Arc::clone(&self.map), *offset, *kind, spanned) {
            Ok(tensor) => tensor,
            // Old files are not padded, so their tensors can lie on odd addresses.
            Err(_) => {
                let bytes = file.get(*offset..offset + length).unwrap_or_default();
                Tensor::f_from_data_size(bytes, spanned, *kind)?
            }
        };
        let tensor = match &self.strides {
            None => tensor,
            Some(strides) => tensor.f_as_strided(shape, strides, 0)?.f_contiguous()?,
        };
        Ok(if *kind == Kind::Float { tensor } else { tensor.f_to_kind(Kind::Float)? })
    }

    /// Bytes of memory that [`tensor`](Self::tensor) takes.
    fn memory(&self) -> usize {
        if self.slice.kind == Kind::Float && self.strides.is_none() {
            return 0;
        }
        let sizes = self.slice.shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX));
        sizes.fold(4, usize::saturating_mul)
    }
}

/// A model's weights, in one file or several.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    /// Bytes of all files.
    size: usize,
    mode: Mode,
    ledger: RefCell<Ledger>,
}

/// What a checkpoint hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Its tensors.
    Read,
    /// Placeholders.
    Survey,
    /// Tensors of the shapes that are asked for, with no values, whatever the file holds: their memory is never touched.
    Sketch,
    /// Placeholders, whatever the file holds.
    Outline,
}

/// What was asked of a checkpoint.
#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<String>,
    /// Of the tensors handed out, in float32.
    bytes: u64,
    /// Of the tensors that are not mapped.
    memory: usize,
    spellings: Option<&'static Spellings>,
    problems: Vec<String>,
    failed: Option<CheckpointError>,
    /// Shows how much of the files is taken.
    shown: Option<RunningStage>,
}

impl Checkpoint {
    /// Shows how much of the files is taken, until [`finish`](Self::finish).
    pub fn show(&self, progress: &Progress) {
        let stage = progress.start_bytes(Stage::ReadWeights, self.size as u64);
        self.ledger.borrow_mut().shown = Some(stage);
    }

    /// Opens the weights: maps the files and reads where their tensors lie.
    ///
    /// # Errors
    /// When one cannot be read or is not valid.
    pub fn open(files: &WeightFiles) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        let mut size = 0;
        for path in &files.shards {
            let map = Arc::new(open(path)?);
            refuse_lfs_pointer(&map, path)?;
            size += (*map).as_ref().len();
            let stored = |slice, strides| Stored { map: Arc::clone(&map), slice, strides };
            let bytes = (*map).as_ref();
            match files.format {
                Format::Safetensors => tensors.extend(
                    safetensors::read(bytes)
                        .map_err(|source| CheckpointError::Safetensors {
                            path: path.clone(),
                            source,
                        })?
                        .into_iter()
                        .map(|(name, slice)| (name, stored(slice, None))),
                ),
                Format::Pytorch => tensors.extend(
                    pytorch::read(bytes)
                        .map_err(|source| CheckpointError::Pytorch { path: path.clone(), source })?
                        .into_iter()
                        .map(|(name, view)| (name, stored(view.slice, view.strides))),
                ),
            }
        }
        let (tensors, ledger) = (by_today_s_names(tensors), RefCell::default());
        Ok(Self { path: files.path.clone(), tensors, size, mode: Mode::Read, ledger })
    }

    /// Opens the weights only to see which models could be loaded from them: all their tensors are placeholders.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn survey(files: &WeightFiles) -> Result<Self, CheckpointError> {
        Ok(Self { mode: Mode::Survey, ..Self::open(files)? })
    }

    /// The same by the headers of safetensors files alone, each with the length of its whole file. `path` is what messages name.
    ///
    /// # Errors
    /// When a header is not valid.
    pub fn survey_headers(
        path: PathBuf,
        headers: &[(PathBuf, Vec<u8>, u64)],
    ) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        let nothing = MappedFile::of_nothing();
        let nothing =
            Arc::new(nothing.map_err(|source| CheckpointError::Io { path: path.clone(), source })?);
        for (path, header, length) in headers {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            let read = safetensors::read_header(header, length)
                .map_err(|source| CheckpointError::Safetensors { path: path.clone(), source })?;
            let stored = |slice| Stored { map: Arc::clone(&nothing), slice, strides: None };
            tensors.extend(read.into_iter().map(|(name, slice)| (name, stored(slice))));
        }
        Ok(Self {
            path,
            tensors: by_today_s_names(tensors),
            size: 0,
            mode: Mode::Survey,
            ledger: RefCell::default(),
        })
    }

    /// No weights at all: every tensor that is asked for is made, of the shape asked for and without values. What a model takes of
    /// memory can be told from it, and what its configuration alone makes of it.
    #[must_use]
    pub fn sketch() -> Self {
        let (path, tensors) = (PathBuf::new(), BTreeMap::new());
        Self { path, tensors, size: 0, mode: Mode::Sketch, ledger: RefCell::default() }
    }

    /// The same with placeholders for tensors, only to count them.
    #[must_use]
    pub fn outline() -> Self {
        Self { mode: Mode::Outline, ..Self::sketch() }
    }

    /// The name of the file, or of the index of several.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The element type that most bytes have, and the number of elements of all tensors that are no integers.
    #[must_use]
    pub fn parameters(&self) -> (Option<Kind>, u64) {
        let mut bytes: Vec<(Kind, u64)> = Vec::new();
        let mut count = 0;
        for Stored { slice, .. } in self.tensors.values() {
            if !matches!(slice.kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
                continue;
            }
            count += elements(&slice.shape);
            match bytes.iter_mut().find(|(kind, _)| *kind == slice.kind) {
                Some((_, sum)) => *sum += slice.length as u64,
                None => bytes.push((slice.kind, slice.length as u64)),
            }
        }
        (bytes.into_iter().max_by_key(|(_, sum)| *sum).map(|(kind, _)| kind), count)
    }

    /// The name and shape of every tensor, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.slice.shape.as_slice()))
    }

    /// All of it, names as in the file.
    #[must_use]
    pub fn weights(&self) -> Weights<'_> {
        Weights { checkpoint: self, prefix: String::new(), spellings: None }
    }

    /// Ends the loading of a model. Returns the names of the tensors that nobody asked for, and the bytes of those handed out.
    ///
    /// # Errors
    /// When a tensor that was asked for is missing or has another shape; all of them are named. The tensors handed out are then
    /// placeholders and must not be used.
    pub fn finish(&self) -> Result<(Vec<String>, u64), CheckpointError> {
        let ledger = self.ledger.take();
        if let Some(error) = ledger.failed {
            return Err(error);
        }
        if let Some(stage) = ledger.shown.filter(|_| ledger.problems.is_empty()) {
            stage.finish();
        }
        if !ledger.problems.is_empty() {
            return Err(CheckpointError::Weights {
                path: self.path.clone(),
                problems: ledger.problems,
            });
        }
        let known = |name: &str| ledger.spellings.is_some_and(|s| s.is_leftover(name));
        let unused =
            self.tensors.keys().filter(|&name| !ledger.used.contains(name) && !known(name));
        Ok((unused.cloned().collect(), ledger.bytes))
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
    spellings: Option<&'static Spellings>,
}

impl Weights<'_> {
    /// With the spellings of an architecture.
    #[must_use]
    pub fn spelled(self, spellings: &'static Spellings) -> Self {
        self.checkpoint.ledger.borrow_mut().spellings = Some(spellings);
        Self { spellings: Some(spellings), ..self }
    }

    /// The tensors below `name`.
    #[must_use]
    pub fn sub(&self, name: impl Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The base model's tensors: those below its name where the file was saved from a model with a head, else all.
    #[must_use]
    pub fn base(&self) -> Self {
        let names = self.spellings.map_or(&[][..], |spellings| spellings.base);
        names.iter().fold(self.clone(), |weights, name| weights.within(name))
    }

    /// The tensors below `name` where there are any, else all.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        let sub = self.sub(name);
        if self.checkpoint.tensors.keys().any(|key| key.starts_with(&sub.prefix)) {
            sub
        } else {
            self.clone()
        }
    }

    /// Whether the tensor is there, under today's name.
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

    /// The tensor `name` of `shape`, in float32, whatever the file calls it.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        let mut name = self.name(name);
        let tensors = &self.checkpoint.tensors;
        let others = self.spellings.map(|spellings| spellings.others(&name)).unwrap_or_default();
        if !tensors.contains_key(&name) {
            if let Some(weight) = self.normalized(&name, shape) {
                return weight;
            }
            if let Some(other) = others.iter().find(|other| tensors.contains_key(*other)) {
                name.clone_from(other);
            }
        }
        let mut ledger = self.checkpoint.ledger.borrow_mut();
        ledger.used.extend(others.into_iter().filter(|other| *other != name));
        let tensor = match tensors.get(&name) {
            _ if self.checkpoint.mode == Mode::Outline => None,
            _ if self.checkpoint.mode == Mode::Sketch => {
                let made = Tensor::f_empty(shape, (Kind::Float, tch::Device::Cpu));
                made.map_err(|error| ledger.failed = Some(TorchError::from(error).into())).ok()
            }
            None => {
                ledger.problems.push(format!("{name} {shape:?} is missing"));
                None
            }
            Some(stored) if stored.slice.shape != shape => {
                ledger.problems.push(format!(
                    "{name} has the shape {:?}; config.json calls for {shape:?}",
                    stored.slice.shape
                ));
                None
            }
            Some(_) if self.checkpoint.mode == Mode::Survey => None,
            Some(stored) => {
                ledger.memory = ledger.memory.saturating_add(stored.memory());
                // Widening takes four times the file at most, and a few tensors share a storage.
                let tensor = if ledger.memory > self.checkpoint.size.saturating_mul(8) {
                    Err(CheckpointError::OutOfProportion(self.checkpoint.path.clone()))
                } else {
                    stored.tensor().map_err(Into::into)
                };
                if let Some(stage) = &ledger.shown {
                    stage.advance(stored.slice.length as u64);
                }
                tensor.map_err(|e| ledger.failed = Some(e)).ok()
            }
        };
        if ledger.used.insert(name) {
            ledger.bytes = ledger.bytes.saturating_add(elements(shape).saturating_mul(4));
        }
        tensor.unwrap_or_else(Tensor::new)
    }

    /// The weight `name` where the file holds its length and its direction instead.
    fn normalized(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let stem = name.strip_suffix("weight").filter(|stem| stem.ends_with('.'))?;
        let [length, direction] =
            [names::LENGTH, names::DIRECTION].map(|part| format!("{stem}{part}"));
        let tensors = &self.checkpoint.tensors;
        let held = &tensors.get(&length).filter(|_| tensors.contains_key(&direction))?.slice.shape;
        // One length for each part of the direction along some axes, mostly the first, or one for all of it.
        let fits = |(held, whole): (&i64, &i64)| *held == 1 || held == whole;
        let fits = held.is_empty() || held.len() == shape.len() && held.iter().zip(shape).all(fits);
        let by_rows =
            shape.iter().enumerate().map(|(axis, &size)| if axis == 0 { size } else { 1 });
        let lengths = if fits { held.clone() } else { by_rows.collect() };
        let all = Self { prefix: String::new(), ..self.clone() };
        let (length, direction) = (all.tensor(&length, &lengths), all.tensor(&direction, shape));
        let of_one = |axis: &i64| lengths.get(*axis as usize).is_none_or(|&size| size == 1);
        let axes: Vec<i64> = (0..shape.len() as i64).filter(of_one).collect();
        Some(all.derived(|| {
            // No axis at all would mean all of them.
            let norm = match &axes[..] {
                [] => direction.f_abs()?,
                axes => direction.f_norm_scalaropt_dim(2, axes, true)?,
            };
            Ok(direction.f_mul(&length.f_div(&norm)?)?)
        }))
    }

    /// A tensor that is computed from tensors handed out, so that the graph need not. Nothing is computed, and a placeholder
    /// handed out, where one of these may be a placeholder.
    pub fn derived(&self, compute: impl FnOnce() -> Result<Tensor, TorchError>) -> Tensor {
        let incomplete = {
            let ledger = self.checkpoint.ledger.borrow();
            !ledger.problems.is_empty() || ledger.failed.is_some()
        };
        if matches!(self.checkpoint.mode, Mode::Survey | Mode::Outline) || incomplete {
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
                ledger.failed = Some(error.into());
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

/// Tensors by the names that Transformers gives them today.
fn by_today_s_names(tensors: BTreeMap<String, Stored>) -> BTreeMap<String, Stored> {
    let renamed = names::unwrap(tensors).into_iter();
    renamed.map(|(name, stored)| (names::canonical(&name), stored)).collect()
}

/// The number of elements of a shape.
fn elements(shape: &[i64]) -> u64 {
    let sizes = shape.iter().map(|&size| u64::try_from(size).unwrap_or(0));
    sizes.fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, format: Format) -> Checkpoint {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints");
        Checkpoint::open(&WeightFiles::one(format, root.join(name))).unwrap()
    }

    #[test]
    fn float32_is_mapped_and_all_else_is_not() {
        for (name, format) in [
            ("zip/pytorch_model.bin", Format::Pytorch),
            ("sharded-safetensors/model-00001-of-00002.safetensors", Format::Safetensors),
            ("values-zip/pytorch_model.bin", Format::Pytorch),
            ("safetensors-float16/model.safetensors", Format::Safetensors),
        ] {
            let checkpoint = open(name, format);
            let weights = checkpoint.weights();
            for (tensor, stored) in &checkpoint.tensors {
                let file = (*stored.map).as_ref().as_ptr_range();
                let made = weights.tensor(tensor, &stored.slice.shape);
                let address = made.data_ptr().cast_const().cast();
                let as_it_is = stored.slice.kind == Kind::Float && stored.strides.is_none();
                assert_eq!(
                    file.contains(&address),
                    as_it_is && stored.slice.length > 0,
                    "{name} {tensor}"
                );
            }
        }
    }
}
