//! numpy arrays as data: the item types, shapes and bytes.

use std::borrow::Cow;

use super::graph::{Id, malformed};
use crate::trees::TreeError;
use crate::trees::ensemble::Label;

/// The kind of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Signed,
    Unsigned,
    Boolean,
    /// UTF-32 characters.
    Text,
    Object,
    /// A record with fields, or bytes.
    Void,
}

/// The type of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dtype {
    pub kind: Kind,
    /// Bytes of an item.
    pub size: usize,
    pub big_endian: bool,
    /// Name, type and offset of each field of a record.
    pub fields: Vec<(String, Dtype, usize)>,
}

impl Dtype {
    /// A type without fields, from its code: `f8`, `i4`, `b1`, `U3`, `O8`, `V64`.
    pub fn simple(code: &str, big_endian: bool) -> Option<Self> {
        let mut characters = code.chars();
        let kind = match characters.next()? {
            'f' => Kind::Float,
            'i' => Kind::Signed,
            'u' => Kind::Unsigned,
            'b' => Kind::Boolean,
            'U' => Kind::Text,
            'O' => Kind::Object,
            'V' | 'S' => Kind::Void,
            _ => return None,
        };
        let digits = characters.as_str();
        let number: usize = match digits {
            "" => 1,
            digits => digits.parse().ok()?,
        };
        let size = if kind == Kind::Text { number.checked_mul(4)? } else { number };
        let valid = match kind {
            Kind::Float => matches!(size, 2 | 4 | 8),
            Kind::Signed | Kind::Unsigned => matches!(size, 1 | 2 | 4 | 8),
            Kind::Boolean => size == 1,
            Kind::Text | Kind::Object | Kind::Void => true,
        };
        valid.then_some(Self { kind, size, big_endian, fields: Vec::new() })
    }

    /// The number in the bytes of an item.
    fn number(&self, bytes: &[u8]) -> Option<f64> {
        let mut little = [0; 8];
        let bytes = bytes.get(..self.size)?;
        let target = little.get_mut(..self.size)?;
        target.copy_from_slice(bytes);
        if self.big_endian {
            target.reverse();
        }
        let unsigned = u64::from_le_bytes(little);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap
        )]
        Some(match (self.kind, self.size) {
            (Kind::Float, 8) => f64::from_bits(unsigned),
            (Kind::Float, 4) => f32::from_bits(unsigned as u32).into(),
            (Kind::Boolean, _) | (Kind::Unsigned, _) => unsigned as f64,
            (Kind::Signed, 1) => (unsigned as u8 as i8).into(),
            (Kind::Signed, 2) => (unsigned as u16 as i16).into(),
            (Kind::Signed, 4) => (unsigned as u32 as i32).into(),
            (Kind::Signed, 8) => unsigned as i64 as f64,
            _ => return None,
        })
    }
}

/// The items of an array.
#[derive(Debug, Clone)]
pub(crate) enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Objects(Vec<Id>),
}

/// A numpy array.
#[derive(Debug, Clone)]
pub(crate) struct Array<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Whether the first index varies fastest.
    pub fortran: bool,
    pub data: Data<'a>,
}

impl<'a> Array<'a> {
    /// An array whose data has the length that type and shape demand.
    pub fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        fortran: bool,
        data: Data<'a>,
    ) -> Result<Self, TreeError> {
        let items = count(&shape).ok_or_else(|| malformed("an array is too large"))?;
        let complete = match &data {
            Data::Bytes(bytes) => items.checked_mul(dtype.size) == Some(bytes.len()),
            Data::Objects(objects) => objects.len() == items,
        };
        let fits = dtype.fields.iter().all(|(_, field, offset)| {
            offset.checked_add(field.size).is_some_and(|end| end <= dtype.size)
        });
        if !complete || !fits || (dtype.kind == Kind::Object) != matches!(data, Data::Objects(_)) {
            return Err(malformed("the data of an array do not fit its shape and dtype"));
        }
        Ok(Self { dtype, shape, fortran, data })
    }

    /// The same array without a copy.
    pub fn borrowed(&self) -> Array<'_> {
        let data = match &self.data {
            Data::Bytes(bytes) => Data::Bytes(Cow::Borrowed(bytes.as_ref())),
            Data::Objects(objects) => Data::Objects(objects.clone()),
        };
        Array { dtype: self.dtype.clone(), shape: self.shape.clone(), fortran: self.fortran, data }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        count(&self.shape).unwrap_or(0)
    }

    fn item(&self, index: usize) -> Option<&[u8]> {
        let Data::Bytes(bytes) = &self.data else { return None };
        let start = index.checked_mul(self.dtype.size)?;
        bytes.get(start..start.checked_add(self.dtype.size)?)
    }

    /// The items as numbers, in the order of the bytes.
    fn stored(&self) -> Option<Vec<f64>> {
        (0..self.len()).map(|index| self.dtype.number(self.item(index)?)).collect()
    }

    /// The items as numbers, the last index varying fastest.
    pub fn numbers(&self) -> Result<Vec<f64>, TreeError> {
        let stored = self.stored().ok_or_else(|| malformed("an array does not hold numbers"))?;
        Ok(self.in_c_order(stored))
    }

    /// The objects, the last index varying fastest.
    pub fn objects(&self) -> Option<Vec<Id>> {
        match &self.data {
            Data::Objects(objects) => Some(self.in_c_order(objects.clone())),
            Data::Bytes(_) => None,
        }
    }

    fn in_c_order<T: Copy>(&self, stored: Vec<T>) -> Vec<T> {
        if !self.fortran || self.shape.len() < 2 {
            return stored;
        }
        let mut ordered = Vec::with_capacity(stored.len());
        let mut index = vec![0; self.shape.len()];
        for _ in 0..stored.len() {
            let mut position = 0;
            for (size, place) in self.shape.iter().zip(&index).rev() {
                position = position * size + place;
            }
            ordered.push(stored[position]);
            for (place, size) in index.iter_mut().zip(&self.shape).rev() {
                *place += 1;
                if *place < *size {
                    break;
                }
                *place = 0;
            }
        }
        ordered
    }

    /// The items as class labels.
    pub fn labels(&self) -> Option<Vec<Label>> {
        match self.dtype.kind {
            Kind::Text => {
                (0..self.len()).map(|index| self.characters(index).map(Label::Text)).collect()
            }
            Kind::Boolean => {
                Some(self.stored()?.into_iter().map(|truth| Label::Boolean(truth != 0.0)).collect())
            }
            _ => Some(self.stored()?.into_iter().map(Label::Number).collect()),
        }
    }

    fn characters(&self, index: usize) -> Option<String> {
        let mut text = String::new();
        for bytes in self.item(index)?.chunks_exact(4) {
            let bytes = <[u8; 4]>::try_from(bytes).ok()?;
            let code = if self.dtype.big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            };
            text.push(char::from_u32(code)?);
        }
        text.truncate(text.trim_end_matches('\0').len());
        Some(text)
    }

    /// A field of all records.
    pub fn column(&self, name: &str) -> Result<Vec<f64>, TreeError> {
        self.optional_column(name)?
            .ok_or_else(|| malformed(format!("an array has no field {name}")))
    }

    /// A field of all records, if they have it.
    pub fn optional_column(&self, name: &str) -> Result<Option<Vec<f64>>, TreeError> {
        let Some((_, dtype, offset)) = self.dtype.fields.iter().find(|field| field.0 == name)
        else {
            return Ok(None);
        };
        let numbers = (0..self.len())
            .map(|index| dtype.number(self.item(index)?.get(*offset..)?))
            .collect::<Option<Vec<_>>>();
        numbers
            .map(Some)
            .ok_or_else(|| malformed(format!("the field {name} does not hold numbers")))
    }
}

/// Number of items of a shape.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

/// Reads a file in numpy's own format (`.npy`).
pub(crate) fn read_npy(bytes: &[u8]) -> Result<Array<'static>, TreeError> {
    let invalid = || malformed("an array file (.npy) is not valid");
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(invalid)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(invalid()),
    };
    let header = rest
        .get(..length)
        .and_then(|header| std::str::from_utf8(header).ok())
        .ok_or_else(invalid)?;
    let data = rest.get(length..).ok_or_else(invalid)?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start());
    let fortran = after("'fortran_order':").ok_or_else(invalid)?.starts_with("True");
    let shape = after("'shape':")
        .and_then(|rest| rest.strip_prefix('('))
        .and_then(|rest| rest.split_once(')'));
    let shape =
        shape.ok_or_else(invalid)?.0.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape = shape.map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| invalid())?;
    let description = after("'descr':").ok_or_else(invalid)?;
    let dtype = if let Some(list) = description.strip_prefix('[') {
        let list = list.split_once(']').ok_or_else(invalid)?.0;
        let mut fields = Vec::new();
        let mut size = 0_usize;
        for field in list.split('(').skip(1) {
            let mut parts = field.split('\'');
            let (Some(name), Some(code)) = (parts.nth(1), parts.nth(1)) else {
                return Err(invalid());
            };
            let dtype = described(code).ok_or_else(invalid)?;
            let width = dtype.size;
            // Padding has no name.
            if !name.is_empty() {
                fields.push((name.to_owned(), dtype, size));
            }
            size = size.checked_add(width).ok_or_else(invalid)?;
        }
        Dtype { kind: Kind::Void, size, big_endian: false, fields }
    } else {
        let code = description.split('\'').nth(1).ok_or_else(invalid)?;
        described(code).ok_or_else(invalid)?
    };
    Array::new(dtype, shape, fortran, Data::Bytes(Cow::Owned(data.to_vec())))
}

/// A type in the words of an array file: `<f8`, `|b1`.
fn described(code: &str) -> Option<Dtype> {
    let big_endian = code.starts_with('>');
    Dtype::simple(code.trim_start_matches(['<', '>', '|', '=']), big_endian)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_becomes_c_order() {
        let data: Vec<u8> =
            [1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let dtype = Dtype::simple("f8", false).unwrap();
        let array = Array::new(dtype, vec![2, 3], true, Data::Bytes(data.into())).unwrap();
        assert_eq!(array.numbers().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn shapes_beyond_the_data_are_refused() {
        let array = |shape: Vec<usize>| {
            Array::new(
                Dtype::simple("f8", false).unwrap(),
                shape,
                false,
                Data::Bytes(vec![0; 16].into()),
            )
        };
        assert!(array(vec![2]).is_ok());
        assert!(array(vec![3]).is_err());
        assert!(array(vec![usize::MAX, 2]).is_err());
        assert!(read_npy(b"\x93NUMPY\x01\x00\x40\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,), }").is_err());
    }
}
