//! Weights of a checkpoint as libtorch tensors, requested by name and shape.

mod error;
mod float32_weights;
mod lora;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};

use tch::{Kind, Tensor};

use crate::checkpoint::{
    Checkpoint, CheckpointError, DIRECTION, Dtype, LENGTH, Spellings, StoredTensor, WeightFiles,
    elements,
};
use crate::observer::{Progress, RunningStage, Stage};
use crate::torchscript::{TorchError, constant};
pub use error::WeightError;
use float32_weights::Float32Weights;
pub use lora::Lora;

/// Loads tensors from a checkpoint, and records the requested tensors and the problems with them.
#[derive(Debug)]
pub struct WeightLoader {
    checkpoint: Checkpoint,
    mode: Mode,
    ledger: RefCell<Ledger>,
}

/// What a loader returns for a requested tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The checkpoint's tensor.
    Read,
    /// A placeholder, if the checkpoint contains the tensor.
    Survey,
    /// An uninitialized tensor of the requested shape, whether or not the checkpoint contains it. Its memory is never touched.
    Sketch,
    /// A placeholder, whether or not the checkpoint contains the tensor.
    Outline,
}

/// Requests to a loader so far.
#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<String>,
    /// Size of the returned tensors in float32, in bytes.
    bytes: u64,
    /// Whether a tensor with one row for each token was requested.
    has_vocabulary: bool,
    /// Size of the returned tensors that are not mapped, in bytes.
    memory: usize,
    spellings: Option<&'static Spellings>,
    problems: Vec<String>,
    failed: Option<WeightError>,
    float32: Float32Weights,
    /// Progress stage that displays how many bytes of the files are loaded.
    shown: Option<RunningStage>,
}

impl WeightLoader {
    fn new(checkpoint: Checkpoint, mode: Mode) -> Self {
        Self { checkpoint, mode, ledger: RefCell::default() }
    }

    /// Opens the weight files.
    ///
    /// # Errors
    /// [`CheckpointError`] if a file cannot be read or is not valid.
    pub fn open(files: &WeightFiles) -> Result<Self, CheckpointError> {
        Ok(Self::read(Checkpoint::open(files)?))
    }

    /// A loader that returns the tensors of a checkpoint.
    #[must_use]
    pub fn read(checkpoint: Checkpoint) -> Self {
        Self::new(checkpoint, Mode::Read)
    }

    /// A loader that only determines which models a checkpoint could serve. All its tensors are placeholders.
    #[must_use]
    pub fn survey(checkpoint: Checkpoint) -> Self {
        Self::new(checkpoint, Mode::Survey)
    }

    /// A loader without a checkpoint that returns an uninitialized tensor for every request. With it, the memory of a model can be
    /// measured, and a graph can be built from the configuration alone.
    #[must_use]
    pub fn sketch() -> Self {
        Self::new(Checkpoint::empty(), Mode::Sketch)
    }

    /// A loader without a checkpoint that returns placeholders and counts the parameters.
    #[must_use]
    pub fn outline() -> Self {
        Self::new(Checkpoint::empty(), Mode::Outline)
    }

    /// Displays how many bytes of the files are loaded, until [`finish`](Self::finish).
    pub fn show(&self, progress: &Progress) {
        let stage = progress.start_bytes(Stage::ReadWeights, self.checkpoint.size() as u64);
        self.ledger.borrow_mut().shown = Some(stage);
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether a model requested a tensor with one row for each token, since the last [`finish`](Self::finish).
    #[must_use]
    pub fn has_vocabulary(&self) -> bool {
        self.ledger.borrow().has_vocabulary
    }

    /// The name of the weight file, or of the index of several.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.checkpoint.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The quantization scheme of the checkpoint, recognized by the names of its tensors. `None` if they are ordinary weights.
    #[must_use]
    pub fn quantization(&self) -> Option<&'static str> {
        /// Suffixes of tensors that accompany quantized weights, and the scheme that writes them.
        const SCHEMES: [(&str, &str); 9] = [
            (".quant_state.bitsandbytes__nf4", "bitsandbytes, 4 bits"),
            (".quant_state.bitsandbytes__fp4", "bitsandbytes, 4 bits"),
            (".g_idx", "GPTQ"),
            (".qzeros", "AWQ or GPTQ"),
            (".qweight", "AWQ or GPTQ"),
            (".weight_packed", "compressed-tensors"),
            (".weight_scale_inv", "fp8"),
            (".weight_scale", "compressed-tensors or fp8"),
            (".weight._data", "quanto"),
        ];
        let tensors = self.checkpoint.tensors();
        let named = SCHEMES.iter().find(|(end, _)| tensors.keys().any(|name| name.ends_with(end)));
        let float8 = || tensors.values().any(|stored| stored.slice.dtype == Dtype::F8);
        named.map(|(_, scheme)| *scheme).or_else(|| float8().then_some("float8"))
    }

    /// All tensors, by their names in the file.
    #[must_use]
    pub fn weights(&self) -> Weights<'_> {
        let (prefix, of_any_type) = (String::new(), false);
        Weights { loader: self, prefix, spellings: None, lora: None, rows: None, of_any_type }
    }

    /// Ends the loading of a model. Returns the names of the tensors that were not requested, and the size of the requested ones in
    /// float32, in bytes.
    ///
    /// # Errors
    /// [`WeightError::Mismatch`] if a requested tensor is missing or has another shape; the error lists all such tensors. The
    /// returned tensors are then placeholders and must not be used.
    pub fn finish(&self) -> Result<(Vec<String>, u64), WeightError> {
        let ledger = self.ledger.take();
        if let Some(error) = ledger.failed {
            return Err(error);
        }
        if let Some(stage) = ledger.shown.filter(|_| ledger.problems.is_empty()) {
            stage.finish();
        }
        if !ledger.problems.is_empty() {
            return Err(WeightError::Mismatch {
                path: self.checkpoint.path().to_owned(),
                problems: ledger.problems,
            });
        }
        let expected = |name: &str| ledger.spellings.is_some_and(|s| s.is_leftover(name));
        let names = self.checkpoint.tensors().keys();
        let unused = names.filter(|&name| !ledger.used.contains(name) && !expected(name));
        Ok((unused.cloned().collect(), ledger.bytes))
    }
}

/// The tensors of a checkpoint whose names start with a prefix.
///
/// Tensors are requested by name and shape. A tensor that is missing or has another shape is recorded, and a placeholder is returned
/// for it, so that one message can list all of them. Call [`WeightLoader::finish`] before any tensor is used.
#[derive(Debug, Clone)]
pub struct Weights<'a> {
    loader: &'a WeightLoader,
    prefix: String,
    spellings: Option<&'static Spellings>,
    lora: Option<&'a Lora>,
    /// The rows of tables with one row for each token of the vocabulary that are kept; all by default.
    rows: Option<&'a [i64]>,
    /// Whether tensors of whole numbers are accepted.
    of_any_type: bool,
}

impl<'a> Weights<'a> {
    /// The same tensors, which can also be found by the alternative names of an architecture.
    #[must_use]
    pub fn spelled(self, spellings: &'static Spellings) -> Self {
        self.loader.ledger.borrow_mut().spellings = Some(spellings);
        Self { spellings: Some(spellings), ..self }
    }

    /// The same tensors, into which an adapter is merged.
    #[must_use]
    pub fn adapted(self, lora: Option<&'a Lora>) -> Self {
        Self { lora, ..self }
    }

    /// The same tensors, of which tables with one row for each token have these rows only.
    #[must_use]
    pub fn with_rows(self, rows: Option<&'a [i64]>) -> Self {
        Self { rows, ..self }
    }

    /// The same tensors, which can also consist of whole numbers.
    #[must_use]
    pub fn of_any_type(self) -> Self {
        Self { of_any_type: true, ..self }
    }

    /// The tensors below `name`.
    #[must_use]
    pub fn sub(&self, name: impl Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The base model's tensors: those below the base model's name if the file was saved from a model with a head, otherwise all.
    #[must_use]
    pub fn base(&self) -> Self {
        let names = self.spellings.map_or(&[][..], |spellings| spellings.base);
        names.iter().fold(self.clone(), |weights, name| weights.within(name))
    }

    /// The tensors below `name` if there are any, otherwise all.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        let sub = self.sub(name);
        if self.loader.checkpoint.tensors().keys().any(|key| key.starts_with(&sub.prefix)) {
            sub
        } else {
            self.clone()
        }
    }

    /// Whether the checkpoint holds the tensor under its current name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.loader.checkpoint.tensors().contains_key(&self.name(name))
    }

    /// Marks a tensor as used, so that it is not reported as unused.
    pub fn ignore(&self, name: &str) {
        self.loader.ledger.borrow_mut().used.insert(self.name(name));
    }

    /// Marks all tensors below `name` as used, so that they are not reported as unused.
    pub fn ignore_all(&self, name: &str) {
        let prefix = self.sub(name).prefix;
        let below = self.loader.checkpoint.tensors().keys().filter(|key| key.starts_with(&prefix));
        self.loader.ledger.borrow_mut().used.extend(below.cloned());
    }

    /// The tensor `name` of `shape`, in float32, under any of its names in the file.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.rows_of(name, shape, None)
    }

    /// The tensor `name` of `shape` with one row for each token of the vocabulary, such as the word embeddings. Only the rows of kept tokens
    /// are returned.
    pub fn vocabulary_tensor(&self, name: &str, shape: &[i64]) -> Tensor {
        self.loader.ledger.borrow_mut().has_vocabulary = true;
        self.rows_of(name, shape, self.rows)
    }

    /// The tensor `name` of `shape`, or some of its rows.
    fn rows_of(&self, name: &str, shape: &[i64], rows: Option<&[i64]>) -> Tensor {
        let mut name = self.name(name);
        let tensors = self.loader.checkpoint.tensors();
        let others = self.spellings.map(|spellings| spellings.others(&name)).unwrap_or_default();
        if let Some(weight) = self.merged(&name, shape).or_else(|| self.widened(&name, shape)) {
            return self.selected(weight, shape, rows);
        }
        if !tensors.contains_key(&name) {
            if let Some(weight) = self.normalized(&name, shape) {
                return self.selected(weight, shape, rows);
            }
            if let Some(other) = others.iter().find(|other| tensors.contains_key(*other)) {
                name.clone_from(other);
            }
        }
        let mut ledger = self.loader.ledger.borrow_mut();
        ledger.used.extend(others.into_iter().filter(|other| *other != name));
        let tensor = self.read(&mut ledger, &name, tensors.get(&name), shape, rows);
        if ledger.used.insert(name) {
            let kept = elements(&with_rows(shape, rows));
            ledger.bytes = ledger.bytes.saturating_add(kept.saturating_mul(4));
        }
        tensor.unwrap_or_default()
    }

    /// Some rows of a tensor that is counted already.
    fn selected(&self, tensor: Tensor, shape: &[i64], rows: Option<&[i64]>) -> Tensor {
        let Some(rows) = rows else { return tensor };
        let left_out = elements(shape).saturating_sub(elements(&with_rows(shape, Some(rows))));
        let selected = self.computed(|| rows_of_tensor(&tensor, rows));
        let mut ledger = self.loader.ledger.borrow_mut();
        ledger.bytes = ledger.bytes.saturating_sub(left_out.saturating_mul(4));
        selected
    }

    /// Reads a tensor of the checkpoint or of an adapter, or some of its rows. Records the problem of a tensor that is missing, or has another
    /// type or shape.
    fn read(
        &self,
        ledger: &mut Ledger,
        name: &str,
        stored: Option<&StoredTensor>,
        shape: &[i64],
        rows: Option<&[i64]>,
    ) -> Option<Tensor> {
        match stored {
            _ if self.loader.mode == Mode::Outline => None,
            _ if self.loader.mode == Mode::Sketch => {
                let empty =
                    Tensor::f_empty(with_rows(shape, rows), (Kind::Float, tch::Device::Cpu));
                empty.map_err(|error| ledger.failed = Some(TorchError::from(error).into())).ok()
            }
            None => {
                ledger.problems.push(format!("{name} {shape:?} is missing"));
                None
            }
            Some(stored) if stored.slice.shape != shape => {
                ledger.problems.push(format!(
                    "{name} has the shape {:?}, but config.json requires {shape:?}",
                    stored.slice.shape
                ));
                None
            }
            Some(stored) if !stored.slice.dtype.is_float() && !self.of_any_type => {
                ledger.problems.push(format!(
                    "{name} has the type {}, but weights must be floating-point numbers",
                    stored.slice.dtype.name()
                ));
                None
            }
            Some(_) if self.loader.mode == Mode::Survey => None,
            Some(stored) => {
                ledger.memory = ledger.memory.saturating_add(memory(stored));
                // float32 needs at most four times the file's bytes, and a few tensors share their storage.
                let tensor = if ledger.memory > self.loader.checkpoint.size().saturating_mul(8) {
                    let path = self.loader.checkpoint.path().to_owned();
                    Err(WeightError::OutOfProportion(path))
                } else if let Some(rows) = rows {
                    ledger.float32.rows(&self.loader.checkpoint, stored, rows)
                } else {
                    ledger.float32.constant(&self.loader.checkpoint, stored)
                };
                if let Some(stage) = &ledger.shown {
                    stage.advance(stored.slice.length as u64);
                }
                tensor.map_err(|e| ledger.failed = Some(e)).ok()
            }
        }
    }

    /// The tensor `name` of `shape` as `N` equal parts along its first axis, which share its memory.
    pub fn parts<const N: usize>(&self, name: &str, shape: &[i64]) -> [Tensor; N] {
        let mut parts = self.split(name, shape, N as i64).into_iter();
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    /// The tensor `name` of `shape` as `count` equal parts along its first axis, which share its memory.
    pub fn split(&self, name: &str, shape: &[i64], count: i64) -> Vec<Tensor> {
        let whole = self.tensor(name, shape);
        let rows = shape.first().map_or(0, |rows| rows / count);
        let is_placeholder = whole.size() != shape;
        let part = |part: i64| {
            if is_placeholder { Tensor::new() } else { whole.narrow(0, part * rows, rows) }
        };
        (0..count).map(part).collect()
    }

    /// Reads the weight `name` if the file contains a matrix in 8-bit form, as bitsandbytes saves it: int8 values, and one scale
    /// per row (`SCB`). The value 127 stands for the largest absolute value of a row.
    fn widened(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let stem = name.strip_suffix("weight").filter(|stem| stem.ends_with('.'))?;
        let tensors = self.loader.checkpoint.tensors();
        let (scale_name, format) = (format!("{stem}SCB"), format!("{stem}weight_format"));
        let stored = tensors.get(name).filter(|stored| {
            stored.slice.dtype == Dtype::I8 && stored.slice.shape == shape && shape.len() == 2
        })?;
        let scale = tensors.get(&scale_name).filter(|scale| {
            scale.slice.dtype.is_float() && scale.slice.shape.first() == shape.first()
        })?;
        {
            let mut ledger = self.loader.ledger.borrow_mut();
            let names = [name.to_owned(), scale_name, format];
            ledger.used.extend(names);
        }
        Some(self.derived(|| {
            let scale = constant(scale)?.f_reshape([-1, 1])?.f_div_scalar(127.)?;
            Ok(constant(stored)?.f_mul(&scale)?)
        }))
    }

    /// Computes the weight `name` if the file contains its norm and direction instead (weight normalization).
    fn normalized(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let stem = name.strip_suffix("weight").filter(|stem| stem.ends_with('.'))?;
        let [length, direction] = [LENGTH, DIRECTION].map(|part| format!("{stem}{part}"));
        let tensors = self.loader.checkpoint.tensors();
        let held = &tensors.get(&length).filter(|_| tensors.contains_key(&direction))?.slice.shape;
        // The norm has one value for each slice along some axes, usually the first, or one value for the whole direction.
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
            // libtorch reads an empty list of axes as all axes.
            let norm = match &axes[..] {
                [] => direction.f_abs()?,
                axes => direction.f_norm_scalaropt_dim(2, axes, true)?,
            };
            Ok(direction.f_mul(&length.f_div(&norm)?)?)
        }))
    }

    /// A tensor computed from loaded tensors, so that the graph does not compute it. If one of them may be a placeholder, nothing is
    /// computed and a placeholder is returned.
    pub fn derived(&self, compute: impl FnOnce() -> Result<Tensor, TorchError>) -> Tensor {
        let tensor = self.computed(compute);
        if tensor.defined() {
            self.loader.ledger.borrow_mut().bytes += 4 * tensor.numel() as u64;
        }
        tensor
    }

    /// A tensor computed from loaded tensors as by [`derived`](Self::derived), in place of a tensor that is counted already.
    fn computed(&self, compute: impl FnOnce() -> Result<Tensor, TorchError>) -> Tensor {
        let incomplete = {
            let ledger = self.loader.ledger.borrow();
            !ledger.problems.is_empty() || ledger.failed.is_some()
        };
        if matches!(self.loader.mode, Mode::Survey | Mode::Outline) || incomplete {
            return Tensor::new();
        }
        tch::no_grad(compute).unwrap_or_else(|error| {
            self.loader.ledger.borrow_mut().failed = Some(error.into());
            Tensor::new()
        })
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

/// The shape of some rows of a tensor.
fn with_rows(shape: &[i64], rows: Option<&[i64]>) -> Vec<i64> {
    let mut shape = shape.to_vec();
    if let (Some(first), Some(rows)) = (shape.first_mut(), rows) {
        *first = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    }
    shape
}

/// Some rows of a tensor, as a copy.
fn rows_of_tensor(tensor: &Tensor, rows: &[i64]) -> Result<Tensor, TorchError> {
    Ok(tensor.f_index_select(0, &Tensor::f_from_slice(rows)?)?)
}

/// Memory that [`constant`] allocates for a tensor, in bytes.
fn memory(stored: &StoredTensor) -> usize {
    if stored.slice.dtype == Dtype::F32 && stored.strides.is_none() {
        return 0;
    }
    let sizes = stored.slice.shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX));
    sizes.fold(4, usize::saturating_mul)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Format;

    fn open(name: &str, format: Format) -> WeightLoader {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints");
        WeightLoader::open(&WeightFiles::one(format, root.join(name))).unwrap()
    }

    #[test]
    fn only_contiguous_float32_tensors_stay_in_the_mapped_file() {
        for (name, format) in [
            ("zip/pytorch_model.bin", Format::Pytorch),
            ("sharded-safetensors/model-00001-of-00002.safetensors", Format::Safetensors),
            ("values-zip/pytorch_model.bin", Format::Pytorch),
            ("safetensors-float16/model.safetensors", Format::Safetensors),
        ] {
            let loader = open(name, format);
            for (tensor, stored) in loader.checkpoint().tensors() {
                let file = stored.file.bytes().as_ptr_range();
                let loaded = constant(stored).unwrap();
                let address = loaded.data_ptr().cast_const().cast();
                let mapped = stored.slice.dtype == Dtype::F32 && stored.strides.is_none();
                assert_eq!(
                    file.contains(&address),
                    mapped && stored.slice.length > 0,
                    "{name} {tensor}"
                );
            }
        }
    }
}
