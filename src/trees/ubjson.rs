//! Universal Binary JSON, as far as XGBoost writes it, for serde.
//!
//! Numbers are big-endian. Every length is checked against the remaining bytes before it is used, and nesting has a limit.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Levels of nesting. XGBoost uses about ten.
const MAX_DEPTH: usize = 64;

/// What is wrong with a document.
#[derive(Debug)]
pub(crate) struct UbjsonError(String);

impl fmt::Display for UbjsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UbjsonError {}

impl de::Error for UbjsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Reads one value that fills `bytes`.
pub(crate) fn from_slice<'de, T: de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, UbjsonError> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if reader.at != bytes.len() {
        return Err(reader.error("there are bytes after the document"));
    }
    Ok(value)
}

struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
}

impl<'de> Reader<'de> {
    fn error(&self, reason: impl fmt::Display) -> UbjsonError {
        UbjsonError(format!("{reason} (at byte {})", self.at))
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], UbjsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| {
            self.error(format!("{length} bytes are expected but {} remain", rest.len()))
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UbjsonError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next marker that is not a no-op.
    fn marker(&mut self) -> Result<u8, UbjsonError> {
        loop {
            let [marker] = self.array()?;
            if marker != b'N' {
                return Ok(marker);
            }
        }
    }

    fn integer(&mut self, marker: u8) -> Result<i64, UbjsonError> {
        Ok(match marker {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => self.array::<1>()?[0].into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?),
            other => return Err(self.error(format!("marker {other:#04x} is not an integer's"))),
        })
    }

    fn length(&mut self) -> Result<usize, UbjsonError> {
        let marker = self.marker()?;
        let length = self.integer(marker)?;
        usize::try_from(length).map_err(|_| self.error(format!("a length is {length}")))
    }

    fn string(&mut self) -> Result<&'de str, UbjsonError> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.error("a string is not UTF-8"))
    }

    fn scalar<V: Visitor<'de>>(&mut self, marker: u8, visitor: V) -> Result<V::Value, UbjsonError> {
        match marker {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(self.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            b'S' => visitor.visit_borrowed_str(self.string()?),
            b'C' => {
                let [character] = self.array()?;
                visitor.visit_u8(character)
            }
            marker => visitor.visit_i64(self.integer(marker)?),
        }
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, UbjsonError>,
    ) -> Result<T, UbjsonError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} levels of nesting")));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// The type and the number of items of an array, after its `[`.
    fn array_header(&mut self) -> Result<(Option<u8>, Option<usize>), UbjsonError> {
        let mut kind = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            let [marker] = self.array()?;
            if width(marker).is_none() {
                return Err(self.error(format!("arrays of type {marker:#04x} are not supported")));
            }
            if self.peek() != Some(b'#') {
                return Err(self.error("an array has a type but no length"));
            }
            kind = Some(marker);
        }
        let mut count = None;
        if self.peek() == Some(b'#') {
            self.at += 1;
            let items = self.length()?;
            let each = kind.and_then(width).unwrap_or(1);
            let rest = self.bytes.len() - self.at;
            if items.checked_mul(each).is_none_or(|bytes| bytes > rest) {
                return Err(self.error(format!("an array of {items} items exceeds the file")));
            }
            count = Some(items);
        }
        Ok((kind, count))
    }
}

/// Bytes of a number.
fn width(marker: u8) -> Option<usize> {
    match marker {
        b'i' | b'U' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = UbjsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        match self.marker()? {
            b'{' => self.nested(|reader| {
                if matches!(reader.peek(), Some(b'#' | b'$')) {
                    return Err(reader.error("objects with a count are not supported"));
                }
                let value = visitor.visit_map(Object(reader))?;
                match reader.marker()? {
                    b'}' => Ok(value),
                    _ => Err(reader.error("an object was not read to its end")),
                }
            }),
            b'[' => self.nested(|reader| {
                let (kind, count) = reader.array_header()?;
                let value = visitor.visit_seq(Array { reader, kind, count })?;
                if count.is_none() {
                    match reader.marker()? {
                        b']' => {}
                        _ => return Err(reader.error("an array was not read to its end")),
                    }
                }
                Ok(value)
            }),
            marker => self.scalar(marker, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        if self.peek() == Some(b'Z') {
            self.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, UbjsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        // Arrays of numbers are skipped at once.
        if self.peek() == Some(b'[') && self.bytes.get(self.at + 1) == Some(&b'$') {
            self.at += 1;
            let (kind, count) = self.array_header()?;
            let bytes = kind.and_then(width).unwrap_or_default() * count.unwrap_or_default();
            self.take(bytes)?;
            return visitor.visit_unit();
        }
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

struct Object<'a, 'de>(&'a mut Reader<'de>);

impl<'de> MapAccess<'de> for Object<'_, 'de> {
    type Error = UbjsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, UbjsonError> {
        while self.0.peek() == Some(b'N') {
            self.0.at += 1;
        }
        if self.0.peek() == Some(b'}') {
            return Ok(None);
        }
        let key = self.0.string()?;
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, UbjsonError> {
        seed.deserialize(&mut *self.0)
    }
}

struct Array<'a, 'de> {
    reader: &'a mut Reader<'de>,
    kind: Option<u8>,
    count: Option<usize>,
}

impl<'de> SeqAccess<'de> for Array<'_, 'de> {
    type Error = UbjsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, UbjsonError> {
        match &mut self.count {
            Some(0) => return Ok(None),
            Some(count) => *count -= 1,
            None => {
                while self.reader.peek() == Some(b'N') {
                    self.reader.at += 1;
                }
                if self.reader.peek() == Some(b']') {
                    return Ok(None);
                }
            }
        }
        match self.kind {
            Some(kind) => seed.deserialize(Number { reader: self.reader, kind }).map(Some),
            None => seed.deserialize(&mut *self.reader).map(Some),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.count
    }
}

/// An item of a typed array.
struct Number<'a, 'de> {
    reader: &'a mut Reader<'de>,
    kind: u8,
}

impl<'de> Deserializer<'de> for Number<'_, 'de> {
    type Error = UbjsonError;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        visitor.visit_some(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        self.reader.scalar(self.kind, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, UbjsonError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_and_untyped_arrays_are_read() {
        let typed = b"[$d#L\0\0\0\0\0\0\0\x02\x3f\x80\0\0\xbf\x80\0\0";
        assert_eq!(from_slice::<Vec<f32>>(typed).unwrap(), [1.0, -1.0]);
        assert_eq!(from_slice::<Vec<i64>>(b"[#U\x02i\xffI\x01\0").unwrap(), [-1, 256]);
        assert_eq!(from_slice::<Vec<bool>>(b"[TNF]").unwrap(), [true, false]);
        let object = from_slice::<std::collections::BTreeMap<String, String>>(b"{U\x01aSU\x01b}");
        assert_eq!(object.unwrap()["a"], "b");
    }

    #[test]
    fn lengths_beyond_the_file_are_refused_before_allocation() {
        for document in [
            &b"[$d#L\x10\0\0\0\0\0\0\0"[..],
            b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"[#L\x10\0\0\0\0\0\0\0",
            b"[$l#L\xff\xff\xff\xff\xff\xff\xff\xff",
            b"SL\x10\0\0\0\0\0\0\0",
            b"{L\x10\0\0\0\0\0\0\0",
            b"[$T#U\x02",
            b"[$d]",
            b"[",
            b"",
            b"[#U\x01",
        ] {
            assert!(from_slice::<serde_json::Value>(document).is_err(), "{document:?}");
        }
        let error = from_slice::<serde_json::Value>(&vec![b'['; 1 << 20]).unwrap_err();
        assert!(error.to_string().contains("levels of nesting"), "{error}");
    }
}
