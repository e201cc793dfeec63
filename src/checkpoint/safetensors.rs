//! The header of a safetensors file: eight bytes of length, JSON, then the tensors' bytes without gaps.
//!
//! Source: description of the format in the safetensors repository. The header is validated completely before any tensor is read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Dtype;
use crate::source::{HeaderLengthError, MAX_SAFETENSORS_HEADER, safetensors_header_length};

/// Highest number of tensors.
const MAX_TENSORS: usize = 1 << 18;
/// Highest number of axes of a tensor.
const MAX_RANK: usize = 8;

/// Location of a tensor in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<i64>,
    /// Offset in bytes from the start of the file.
    pub offset: usize,
    /// Number of bytes.
    pub length: usize,
}

/// Reason why a file is not a valid safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The file is shorter than its header.
    #[error("the file ends after {length} bytes, within its header")]
    Truncated {
        /// Bytes in the file.
        length: usize,
    },
    /// The header length is impossible.
    #[error("the header length is {0} bytes; at most {MAX_SAFETENSORS_HEADER} are allowed")]
    HeaderLength(u64),
    /// The header is not valid JSON or has the wrong structure.
    #[error("the header is not valid: {0}")]
    Header(#[from] serde_json::Error),
    /// A tensor entry is invalid.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Name of the tensor in the file.
        name: String,
        /// Description of the defect.
        reason: String,
    },
    /// The tensors do not fill the file.
    #[error(
        "the tensors end at byte {expected} and the file at byte {length}; it is truncated or damaged"
    )]
    Length {
        /// End of the last tensor.
        expected: usize,
        /// Bytes in the file.
        length: usize,
    },
}

/// Tensors of a header. Parsed directly into this struct, so that a header with other content uses no memory.
struct TensorHeader(BTreeMap<String, TensorEntry>);

#[derive(Deserialize)]
struct TensorEntry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for TensorHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = TensorHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorHeader, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if tensors.len() == MAX_TENSORS {
                        let reason = format!("the file has more than {MAX_TENSORS} tensors");
                        return Err(A::Error::custom(reason));
                    }
                    match tensors.entry(name) {
                        Slot::Vacant(slot) => {
                            slot.insert(map.next_value()?);
                        }
                        Slot::Occupied(slot) => {
                            let reason = format!("the file has two tensors {:?}", slot.key());
                            return Err(A::Error::custom(reason));
                        }
                    }
                }
                Ok(TensorHeader(tensors))
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;

        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == MAX_RANK {
                        return Err(A::Error::custom(format!(
                            "a shape has more than {MAX_RANK} sizes"
                        )));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }

        deserializer.deserialize_seq(Sizes)
    }
}

/// Parses the header of a whole file and returns the location of each tensor.
///
/// # Errors
/// [`SafetensorsError`] if a length, offset or shape violates the format.
pub fn read(file: &[u8]) -> Result<BTreeMap<String, Slice>, SafetensorsError> {
    read_header(file, file.len())
}

/// Parses the header from the first bytes of a file, which has `file_length` bytes in total.
///
/// # Errors
/// The same as [`read`].
pub fn read_header(
    file: &[u8],
    file_length: usize,
) -> Result<BTreeMap<String, Slice>, SafetensorsError> {
    let truncated = || SafetensorsError::Truncated { length: file.len() };
    let start = safetensors_header_length(file).map_err(|error| match error {
        HeaderLengthError::Truncated => truncated(),
        HeaderLengthError::TooLong(length) => SafetensorsError::HeaderLength(length),
    })?;
    let start = usize::try_from(start).map_err(|_| truncated())?;
    let header = file.get(8..start).ok_or_else(truncated)?;

    let TensorHeader(header) = serde_json::from_slice(header)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header {
        let slice = slice(&entry, start)
            .map_err(|reason| SafetensorsError::Tensor { name: name.clone(), reason })?;
        tensors.insert(name, slice);
    }

    // The tensors fill the rest of the file, without gaps and overlaps.
    let mut in_order: Vec<(&String, &Slice)> = tensors.iter().collect();
    in_order.sort_by_key(|(_, slice)| (slice.offset, slice.length));
    let mut end = start;
    for (name, slice) in in_order {
        if slice.offset != end {
            return Err(SafetensorsError::Tensor {
                name: name.clone(),
                reason: format!(
                    "starts at byte {}, but the previous one ends at {end}",
                    slice.offset
                ),
            });
        }
        end = slice.offset + slice.length;
    }
    if end != file_length {
        return Err(SafetensorsError::Length { expected: end, length: file_length });
    }
    Ok(tensors)
}

fn slice(entry: &TensorEntry, start: usize) -> Result<Slice, String> {
    let dtype = Dtype::from_safetensors(&entry.dtype)
        .ok_or_else(|| format!("the element type {} is not supported", entry.dtype))?;
    let size = dtype.size() as u64;
    let (begin, end) = entry.data_offsets;
    let length = end.checked_sub(begin).ok_or("its end is before its start")?;
    let wanted = entry.shape.0.iter().try_fold(size, |all: u64, &n| all.checked_mul(n));
    if wanted != Some(length) {
        return Err(format!(
            "{length} bytes do not match the shape {:?} of type {}",
            entry.shape.0, entry.dtype
        ));
    }
    let as_size = |n: u64| {
        usize::try_from(n).map_err(|_| "the offset exceeds the memory of this machine".to_owned())
    };
    let shape = entry
        .shape
        .0
        .iter()
        .map(|&n| i64::try_from(n).map_err(|_| "its shape is too large".to_owned()));
    Ok(Slice {
        dtype,
        shape: shape.collect::<Result<_, _>>()?,
        offset: start
            .checked_add(as_size(begin)?)
            .ok_or("the offset exceeds the memory of this machine")?,
        length: as_size(length)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    }

    #[test]
    fn tensors_are_read_from_the_header() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[2,26]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
        let tensors = read(&file(header, 26)).unwrap();
        let start = 8 + header.len();
        assert_eq!(
            tensors["b"],
            Slice { dtype: Dtype::F32, shape: vec![2, 3], offset: start + 2, length: 24 }
        );
        assert_eq!(tensors["a"].dtype, Dtype::F16);
    }

    #[test]
    fn inconsistent_header_is_rejected() {
        let refused =
            |header: &str, data: usize| read(&file(header, data)).unwrap_err().to_string();
        let one = |shape: &str, begin: u64, end: u64| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
        };
        assert!(refused(&one("[2]", 0, 8), 7).contains("truncated or damaged"));
        assert!(refused(&one("[2]", 0, 8), 9).contains("truncated or damaged"));
        assert!(refused(&one("[3]", 0, 8), 8).contains("tensor a"));
        assert!(refused(&one("[2]", 8, 0), 8).contains("its end is before its start"));
        assert!(refused(&one("[2]", 4, 12), 12).contains("starts at byte"));
        assert!(refused(&one("[4294967296,4294967296]", 0, 0), 0).contains("tensor a"));
        assert!(
            refused(&one("[2]", 18446744073709551608, 18446744073709551615), 8)
                .contains("tensor a")
        );
        assert!(refused(&one("[1,1,1,1,1,1,1,1,1]", 0, 4), 4).contains("more than 8 sizes"));
        let twice = one("[1]", 0, 4).repeat(2).replace("}{", ",");
        assert!(refused(&twice, 4).contains("two tensors"));
        assert!(refused("{\"a\":1}", 0).contains("header is not valid"));
        assert!(refused("[", 0).contains("header is not valid"));
        assert!(read(&[0; 7]).is_err());
        assert!(
            read(&(1u64 << 60).to_le_bytes())
                .unwrap_err()
                .to_string()
                .contains("1152921504606846976")
        );
        assert!(
            read(&200u64.to_le_bytes()).unwrap_err().to_string().contains("ends after 8 bytes")
        );
    }
}
