//! `pytorch_model.bin`: a state dict in the zip or the legacy format of `torch.save`.
//!
//! Source: `torch/serialization.py` (PyTorch 2.7). Since PyTorch 1.6, the file is a zip archive with a pickle and one uncompressed
//! entry for each storage. Older files consist of five pickles (magic number, protocol, the writer's system, the object, the keys
//! of the storages), followed by the storages.

use std::collections::BTreeMap;
use std::ops::Range;

use super::pickle::{Pickle, PickleError, Strided};
use super::safetensors::Slice;
use super::zip;

/// First pickle of the legacy format: protocol 2, the number 0x1950a86a20f9469cfc6c.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Reason why a file contains no readable weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PytorchError {
    /// The pickle is not valid.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The archive, or the storages after the pickle, are not valid.
    #[error("{0}")]
    Archive(String),
    /// A tensor exceeds its storage.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Name of the tensor in the file.
        name: String,
        /// Description of the defect.
        reason: &'static str,
    },
}

/// Location of a tensor in its file.
#[derive(Debug)]
pub(super) struct View {
    /// Byte range from the first element to the last, and the shape.
    pub slice: Slice,
    /// Strides in elements; `None` if the tensor is contiguous.
    pub strides: Option<Vec<i64>>,
}

/// Parses a whole file and returns the location of each tensor.
///
/// # Errors
/// [`PytorchError`] if the file has another format, is damaged, or contains anything other than data.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, View>, PytorchError> {
    if file.starts_with(b"PK\x03\x04") {
        archive(file)
    } else if file.starts_with(LEGACY) {
        legacy(file)
    } else {
        // A bare pickle is also parsed, so that the error names a call that is hidden in it.
        if file.starts_with(b"\x80") {
            Pickle::read(file)?;
        }
        Err(invalid("torch.save did not write this file; download it again"))
    }
}

fn invalid(reason: impl Into<String>) -> PytorchError {
    PytorchError::Archive(reason.into())
}

fn archive(file: &[u8]) -> Result<BTreeMap<String, View>, PytorchError> {
    let entries = zip::entries(file).map_err(PytorchError::Archive)?;
    let mut roots = entries
        .keys()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|root| !root.contains('/'));
    let (Some(root), None) = (roots.next(), roots.next()) else {
        return Err(invalid("data.pkl is missing, so torch.save did not write this file"));
    };
    let find = |name: &str| entries.get(format!("{root}/{name}").as_str()).cloned();
    if find("constants.pkl").is_some() {
        return Err(invalid("the file is a TorchScript archive, not a state dict"));
    }
    if find("byteorder").and_then(|range| file.get(range)).is_some_and(|order| order == b"big") {
        return Err(invalid(
            "the file was written on a big-endian machine; save the model again on a little-endian one",
        ));
    }
    let pickle = find("data.pkl").and_then(|range| file.get(range)).unwrap_or_default();
    views(&Pickle::read(pickle)?, |key| find(&format!("data/{key}")))
}

fn legacy(file: &[u8]) -> Result<BTreeMap<String, View>, PytorchError> {
    const PROTOCOL: i64 = 1001;
    let mut at = LEGACY.len();
    let mut next = || -> Result<Pickle<'_>, PytorchError> {
        let pickle = Pickle::read(&file[at..])?;
        at += pickle.length;
        Ok(pickle)
    };
    let protocol = next()?.int();
    if protocol != Some(PROTOCOL) {
        return Err(invalid(format!(
            "the format version is not {PROTOCOL}, the only supported one"
        )));
    }
    if next()?.flag("little_endian") == Some(false) {
        return Err(invalid(
            "the file was written on a big-endian machine; save the model again on a little-endian one",
        ));
    }
    let state = next()?;
    let keys = next()?;
    let keys = keys.strings().ok_or_else(|| invalid("the list of storages is damaged"))?;

    let mut storages = BTreeMap::new();
    for key in keys {
        let storage = state
            .storages
            .get(key)
            .ok_or_else(|| invalid(format!("the storage {key:?} belongs to no tensor")))?;
        let truncated =
            || invalid(format!("the file ends within the storage {key:?}; download it again"));
        let length = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(truncated)?;
        if usize::try_from(u64::from_le_bytes(*length)) != Ok(storage.elements) {
            return Err(invalid(format!(
                "the length of the storage {key:?} differs from the declared one"
            )));
        }
        let start = at + length.len();
        let end = storage
            .elements
            .checked_mul(storage.dtype.size())
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|end| *end <= file.len())
            .ok_or_else(truncated)?;
        storages.insert(key, start..end);
        at = end;
    }
    views(&state, |key| storages.get(key).cloned())
}

fn views(
    pickle: &Pickle<'_>,
    storage: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<BTreeMap<String, View>, PytorchError> {
    let tensors = pickle.state_dict().ok_or_else(|| invalid("the file contains no state dict"))?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let view = storage(tensor.storage.key)
                .ok_or("its storage is not in the file")
                .and_then(|bytes| view(tensor, bytes));
            match view {
                Ok(view) => Ok((name.to_owned(), view)),
                Err(reason) => Err(PytorchError::Tensor { name: name.to_owned(), reason }),
            }
        })
        .collect()
}

/// Part of a storage's bytes that a tensor covers.
fn view(tensor: &Strided<'_>, bytes: Range<usize>) -> Result<View, &'static str> {
    const BEYOND: &str = "the tensor extends beyond the end of its storage";
    let (shape, strides) = (&tensor.shape, &tensor.strides);
    let span = span(shape, strides).ok_or("its shape is too large")?;
    let size = tensor.storage.dtype.size();
    let offset = tensor.offset.checked_mul(size).ok_or(BEYOND)?;
    let length = span.checked_mul(size).ok_or(BEYOND)?;
    let start = bytes.start.checked_add(offset).ok_or(BEYOND)?;
    if start.checked_add(length).is_none_or(|end| end > bytes.end) {
        return Err(BEYOND);
    }
    let slice = Slice { dtype: tensor.storage.dtype, shape: shape.clone(), offset: start, length };
    let strides = (span > 0 && !contiguous(shape, strides)).then(|| strides.clone());
    Ok(View { slice, strides })
}

/// Number of elements from the first to the last, including gaps.
fn span(shape: &[i64], strides: &[i64]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let last = shape.iter().zip(strides).try_fold(0i64, |last, (size, stride)| {
        last.checked_add((size - 1).checked_mul(*stride)?)
    })?;
    usize::try_from(last.checked_add(1)?).ok()
}

fn contiguous(shape: &[i64], strides: &[i64]) -> bool {
    let mut wanted = Some(1i64);
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || wanted == Some(stride);
        wanted = wanted.and_then(|wanted| wanted.checked_mul(size));
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::super::Dtype;
    use super::super::pickle::Storage;
    use super::*;

    fn of(offset: usize, shape: &[i64], strides: &[i64]) -> Result<View, &'static str> {
        let storage = Storage { key: "0", dtype: Dtype::F32, elements: 6, skipped: 0 };
        let tensor = Strided { storage, offset, shape: shape.into(), strides: strides.into() };
        view(&tensor, 100..124)
    }

    #[test]
    fn views_outside_their_storage_are_rejected() {
        let whole = of(0, &[2, 3], &[3, 1]).unwrap();
        assert_eq!((whole.slice.offset, whole.slice.length, whole.strides), (100, 24, None));
        let turned = of(0, &[3, 2], &[1, 3]).unwrap();
        assert_eq!((turned.slice.length, turned.strides), (24, Some(vec![1, 3])));
        let part = of(3, &[1, 3], &[77, 1]).unwrap();
        assert_eq!((part.slice.offset, part.slice.length, part.strides), (112, 12, None));
        assert_eq!(of(5, &[], &[]).unwrap().slice.length, 4);
        assert_eq!(of(6, &[0, 9], &[9, 1]).unwrap().slice.length, 0);
        for (offset, shape, strides) in [
            (1, [2, 3], [3, 1]),
            (0, [3, 3], [3, 1]),
            (0, [2, 3], [4, 1]),
            (usize::MAX, [1, 1], [1, 1]),
            (usize::MAX / 4, [1, 1], [1, 1]),
            (7, [0, 1], [1, 1]),
            (0, [i64::MAX, i64::MAX], [i64::MAX, 1]),
            (0, [i64::MAX, 2], [1, i64::MAX]),
        ] {
            assert!(of(offset, &shape, &strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn file_not_saved_by_torch_is_reported() {
        for file in [&b""[..], b"PK", b"GGUF", b"{}", b"\x80\x02}."] {
            assert!(read(file).unwrap_err().to_string().contains("torch.save"), "{file:?}");
        }
        assert!(read(b"PK\x03\x04").unwrap_err().to_string().contains("truncated"));
        let bare = read(b"\x80\x02cposix\nsystem\n.").unwrap_err().to_string();
        assert!(bare.contains("posix.system"));
    }
}
