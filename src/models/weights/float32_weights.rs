//! The float32 values of half-precision weights, in a file instead of memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Tensor;

use super::{WeightError, rows_of_tensor};
use crate::byte_count::ByteCount;
use crate::checkpoint::safetensors::Slice;
use crate::checkpoint::{Checkpoint, Dtype, StoredTensor};
use crate::mapped_file::MappedFile;
use crate::torchscript::constant;

/// Size of float32 weights up to which they are kept in memory, in bytes.
const MOST_IN_MEMORY: u64 = 32 << 20;

/// Tensors begin at multiples of this number of bytes.
const ALIGNMENT: u64 = 64;

/// Elements that are converted at a time.
const BLOCK: usize = 16 << 10;

/// The stored tensors of one checkpoint as float32.
#[derive(Debug, Default)]
pub(super) struct Float32Weights {
    /// Whether the checkpoint was examined for half-precision tensors.
    is_examined: bool,
    file: Option<Float32File>,
}

impl Float32Weights {
    /// A stored tensor in float32. Half-precision tensors of a large checkpoint are converted to a file, others in memory.
    ///
    /// # Errors
    /// [`WeightError`] if libtorch cannot create the tensor, or the file cannot be written.
    pub(super) fn constant(
        &mut self,
        checkpoint: &Checkpoint,
        stored: &StoredTensor,
    ) -> Result<Tensor, WeightError> {
        if !self.is_examined {
            (self.is_examined, self.file) = (true, Float32File::of(checkpoint));
        }
        let widened = match &mut self.file {
            Some(file) => file
                .widen(stored)
                .map_err(|source| WeightError::Widen { folder: file.folder(), source })?,
            None => None,
        };
        Ok(constant(widened.as_ref().unwrap_or(stored))?)
    }

    /// Some rows of a stored tensor in float32. They are copied to a file of their own, or to memory if they are small.
    ///
    /// # Errors
    /// [`WeightError`] if libtorch cannot create the tensor, or the file cannot be written.
    pub(super) fn rows(
        &mut self,
        checkpoint: &Checkpoint,
        stored: &StoredTensor,
        rows: &[i64],
    ) -> Result<Tensor, WeightError> {
        let width =
            stored.slice.shape.iter().skip(1).fold(4, |bytes: u64, &size| {
                bytes.saturating_mul(size.try_into().unwrap_or_default())
            });
        let length = width.saturating_mul(rows.len() as u64);
        let file = (length > MOST_IN_MEMORY && stored.strides.is_none()).then(|| {
            Float32File::with_room(checkpoint, length, "the rows of kept tokens are copied")
        });
        if let Some(mut file) = file.flatten()
            && let Some(copied) = file
                .copy_rows(stored, rows)
                .map_err(|source| WeightError::Widen { folder: file.folder(), source })?
        {
            return Ok(constant(&copied)?);
        }
        let whole = self.constant(checkpoint, stored)?;
        Ok(rows_of_tensor(&whole, rows)?)
    }
}

/// A temporary file without a name that receives tensors of float16 and bfloat16 as float32.
///
/// libtorch needs whole tensors in float32, which take twice the memory of the checkpoint. The file is mapped into memory, so that the
/// operating system can drop the pages that are not in use. The system deletes the file when the last tensor is dropped.
#[derive(Debug)]
struct Float32File {
    file: File,
    map: Arc<MappedFile>,
    /// Where the next tensor begins.
    end: u64,
    /// Tensors in the file, by address and number of bytes of the half-precision values. Tied weights are written once.
    written: BTreeMap<(usize, usize), StoredTensor>,
}

impl Float32File {
    /// A file for the half-precision tensors of a checkpoint, on the disk of the checkpoint or else in the system's folder for temporary
    /// files. `None` if the weights are small or there is no space.
    fn of(checkpoint: &Checkpoint) -> Option<Self> {
        let tensors = checkpoint.tensors().values();
        let length =
            tensors.filter(|stored| is_half(stored)).map(room).fold(0, u64::saturating_add);
        if length <= MOST_IN_MEMORY {
            return None;
        }
        Self::with_room(checkpoint, length, "the weights have 16 bits")
    }

    /// A file with room for `length` bytes, on the disk of the checkpoint or else in the system's folder for temporary files. `None` if
    /// neither disk has enough space, which a warning says. `reason` says why there is a file.
    fn with_room(checkpoint: &Checkpoint, length: u64, reason: &str) -> Option<Self> {
        let weights = checkpoint.files().first()?.path();
        let weights = weights.canonicalize().unwrap_or_else(|_| weights.to_owned());
        let beside = weights.parent().map(Path::to_owned);
        let mut reasons = Vec::new();
        for folder in beside.into_iter().chain([std::env::temp_dir()]) {
            match Self::create(&folder, length) {
                Ok(file) => {
                    tracing::info!(
                        "{reason}; a temporary file in {} holds them as float32 ({})",
                        folder.display(),
                        ByteCount(length)
                    );
                    return Some(file);
                }
                Err(error) => reasons.push(format!("{}: {error}", folder.display())),
            }
        }
        tracing::warn!(
            "{reason}, and no temporary file can hold them as float32 ({}); they are converted in memory",
            reasons.join("; ")
        );
        None
    }

    /// An empty file in `folder` with room for `length` bytes.
    fn create(folder: &Path, length: u64) -> io::Result<Self> {
        // Some file systems do not report their free space.
        if let Ok(free) = fs4::available_space(folder)
            && free < length
        {
            let (needed, free) = (ByteCount(length), ByteCount(free));
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{needed} are needed and {free} are free"),
            ));
        }
        let file = tempfile::tempfile_in(folder)?;
        file.set_len(length)?;
        let name: PathBuf = folder.join("(float32 weights)");
        let map = Arc::new(MappedFile::from_file(file.try_clone()?, &name)?);
        Ok(Self { file, map, end: 0, written: BTreeMap::new() })
    }

    /// The folder of the file.
    fn folder(&self) -> PathBuf {
        self.map.path().parent().unwrap_or(Path::new(".")).to_owned()
    }

    /// Converts a tensor to float32. Returns the converted tensor, which is in this file, or `None` if the tensor is not half-precision.
    ///
    /// # Errors
    /// The operating system's error if the file cannot be written.
    fn widen(&mut self, stored: &StoredTensor) -> io::Result<Option<StoredTensor>> {
        let Slice { dtype, shape, offset, length } = &stored.slice;
        let half = stored.file.bytes().get(*offset..offset.saturating_add(*length));
        let Some(half) = half.filter(|half| is_half(stored) && !half.is_empty()) else {
            return Ok(None);
        };
        let source = (half.as_ptr().addr(), half.len());
        if let Some(written) = self.written.get(&source)
            && written.slice.shape == *shape
        {
            return Ok(Some(written.clone()));
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut block = Vec::with_capacity(4 * BLOCK);
        for elements in half.chunks(2 * BLOCK) {
            block.clear();
            push_widened(*dtype, elements, &mut block);
            self.file.write_all(&block)?;
        }
        let place = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let slice = Slice {
            dtype: Dtype::F32,
            shape: shape.clone(),
            offset: place(self.end),
            length: length.saturating_mul(2),
        };
        self.end = self.end.saturating_add(room(stored));
        let written = StoredTensor { file: Arc::clone(&self.map), slice, strides: None };
        self.written.insert(source, written.clone());
        Ok(Some(written))
    }

    /// Copies rows of a contiguous tensor. `None` if its numbers have neither 16 nor 32 bits, or it lacks one of the rows.
    ///
    /// # Errors
    /// The operating system's error if the file cannot be written.
    fn copy_rows(
        &mut self,
        stored: &StoredTensor,
        rows: &[i64],
    ) -> io::Result<Option<StoredTensor>> {
        let Slice { dtype, shape, offset, length } = &stored.slice;
        let all = stored.file.bytes().get(*offset..offset.saturating_add(*length));
        let count = shape.first().and_then(|rows| usize::try_from(*rows).ok()).filter(|it| *it > 0);
        let (Some(all), Some(count)) = (all, count) else { return Ok(None) };
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            return Ok(None);
        }
        let width = all.len() / count;
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut writer = BufWriter::with_capacity(4 * BLOCK, &self.file);
        let mut block = Vec::with_capacity(2 * width);
        let mut written = 0;
        for row in rows {
            let row = usize::try_from(*row).ok().and_then(|row| {
                let start = row.checked_mul(width)?;
                all.get(start..start.checked_add(width)?)
            });
            let Some(row) = row else { return Ok(None) };
            block.clear();
            match dtype {
                Dtype::F32 => block.extend_from_slice(row),
                half => push_widened(*half, row, &mut block),
            }
            writer.write_all(&block)?;
            written += block.len();
        }
        writer.flush()?;
        let mut shape = shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        }
        let offset = usize::try_from(self.end).unwrap_or(usize::MAX);
        drop(writer);
        self.end = self.end.saturating_add((written as u64).next_multiple_of(ALIGNMENT));
        let slice = Slice { dtype: Dtype::F32, shape, offset, length: written };
        Ok(Some(StoredTensor { file: Arc::clone(&self.map), slice, strides: None }))
    }
}

/// Appends the float32 values of half-precision numbers.
fn push_widened(dtype: Dtype, half: &[u8], to: &mut Vec<u8>) {
    let value = if dtype == Dtype::Bf16 { of_bfloat16 } else { of_float16 };
    for element in half.as_chunks().0 {
        to.extend_from_slice(&value(u16::from_le_bytes(*element)).to_ne_bytes());
    }
}

/// Whether a tensor is contiguous and has 16 bits per element.
fn is_half(stored: &StoredTensor) -> bool {
    matches!(stored.slice.dtype, Dtype::F16 | Dtype::Bf16) && stored.strides.is_none()
}

/// Bytes that a half-precision tensor takes in the file.
fn room(stored: &StoredTensor) -> u64 {
    (stored.slice.length as u64).saturating_mul(2).next_multiple_of(ALIGNMENT)
}

/// The value of a bfloat16: the upper half of a float32.
fn of_bfloat16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of an IEEE 754 binary16 number: 1 sign bit, 5 bits of the exponent with bias 15, 10 bits of the fraction.
fn of_float16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from((bits >> 10) & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal numbers are multiples of 2^-24.
        0 => (fraction as f32 / 16_777_216.).to_bits(),
        0x1f => 0x7f80_0000 | (fraction << 13),
        _ => ((exponent + 127 - 15) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// Every 16-bit number, as libtorch converts it.
    fn by_libtorch(kind: Kind) -> Vec<f32> {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let half = Tensor::from_data_size(&bytes, &[1 << 16], kind);
        Vec::try_from(half.to_kind(Kind::Float)).unwrap()
    }

    #[test]
    fn half_precision_numbers_have_the_values_of_libtorch() {
        for (kind, value) in
            [(Kind::Half, of_float16 as fn(u16) -> f32), (Kind::BFloat16, of_bfloat16)]
        {
            for (bits, expected) in (0..=u16::MAX).zip(by_libtorch(kind)) {
                let found = value(bits);
                let is_same = found.to_bits() == expected.to_bits();
                assert!(is_same || found.is_nan() && expected.is_nan(), "{kind:?} {bits:#06x}");
            }
        }
    }

    #[test]
    fn widened_tensors_are_contiguous_float32_tensors_in_the_file() {
        let mut source = tempfile::NamedTempFile::new().unwrap();
        let numbers: Vec<u8> = (0..300_u16).flat_map(u16::to_le_bytes).collect();
        source.write_all(&numbers).unwrap();
        let source = Arc::new(MappedFile::open(source.path()).unwrap());
        let tensor = |dtype, offset, length: usize| StoredTensor {
            file: Arc::clone(&source),
            slice: Slice { dtype, shape: vec![length as i64 / 2], offset, length },
            strides: None,
        };
        let stored = [tensor(Dtype::F16, 2, 14), tensor(Dtype::Bf16, 100, 500)];
        let folder = tempfile::tempdir().unwrap();
        let length = stored.iter().map(room).sum();
        let mut file = Float32File::create(folder.path(), length).unwrap();
        for stored in &stored {
            let widened = file.widen(stored).unwrap().unwrap();
            assert_eq!(widened.slice.offset % ALIGNMENT as usize, 0);
            let tensor = constant(&widened).unwrap();
            let address = tensor.data_ptr().cast_const().cast();
            assert!(file.map.bytes().as_ptr_range().contains(&address));
            assert_eq!(tensor, constant(stored).unwrap());
            let again = file.widen(stored).unwrap().unwrap();
            assert_eq!(again.slice.offset, widened.slice.offset);
        }
        assert_eq!(file.end, length);
        assert!(file.widen(&tensor(Dtype::F32, 0, 8)).unwrap().is_none());
        // Nothing remains, even while the file is in use.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn copied_rows_are_contiguous_float32_tensors_in_the_file() {
        let mut source = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..240_u8).collect();
        source.write_all(&bytes).unwrap();
        let source = Arc::new(MappedFile::open(source.path()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let mut file = Float32File::create(folder.path(), 1 << 12).unwrap();
        for (dtype, width) in [(Dtype::F32, 10), (Dtype::F16, 20), (Dtype::Bf16, 20)] {
            let slice = Slice { dtype, shape: vec![6, width], offset: 0, length: 240 };
            let stored = StoredTensor { file: Arc::clone(&source), slice, strides: None };
            let rows = [0, 2, 5];
            let copied = file.copy_rows(&stored, &rows).unwrap().unwrap();
            assert_eq!(copied.slice.offset % ALIGNMENT as usize, 0);
            let expected = rows_of_tensor(&constant(&stored).unwrap(), &rows).unwrap();
            let bits = |tensor: Tensor| -> Vec<u32> {
                let values = Vec::<f32>::try_from(tensor.view([-1])).unwrap();
                values.into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(constant(&copied).unwrap()), bits(expected), "{dtype:?}");
            assert!(file.copy_rows(&stored, &[6]).unwrap().is_none());
        }
    }

    #[test]
    fn full_disk_is_detected_before_the_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = Float32File::create(folder.path(), 1 << 60).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
