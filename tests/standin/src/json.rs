//! JSON bodies with the server's strictness: duplicate fields, unknown fields and other types are errors (contract, 0.1).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::errors::ApiError;

/// Parses one JSON document; trailing text is an error.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map(|Strict(value)| value).map_err(|error| malformed(&error))
}

/// The server's parse error for an error of serde.
pub(crate) fn malformed(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let sentence = text.split(" at line ").next().unwrap_or(&text);
    ApiError::parse(format!("[{}:{}] {sentence}", error.line(), error.column()))
}

/// A JSON value without duplicate fields.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("Non-standard token"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("Duplicate field '{name}'")));
            }
            let Strict(value) = map.next_value()?;
            fields.insert(name, value);
        }
        Ok(fields.into())
    }
}

/// An object that is read field by field. Remaining fields are rejected as unknown.
#[derive(Debug)]
pub(crate) struct Object {
    parser: &'static str,
    fields: Map<String, Value>,
}

impl Object {
    /// Wraps `value` as an object that the server names `parser` in errors.
    pub(crate) fn new(parser: &'static str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self { parser, fields }),
            other => Err(ApiError::parse(format!(
                "[1:1] [{parser}] Expected START_OBJECT but was: {}",
                token(&other)
            ))),
        }
    }

    /// The server's name of this object.
    pub(crate) fn parser(&self) -> &'static str {
        self.parser
    }

    /// Whether the field exists, including null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Takes a field without checking its type.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name)
    }

    /// Takes the first field with any name, for objects whose only field name states the type.
    pub(crate) fn take_any(&mut self) -> Option<(String, Value)> {
        let name = self.fields.keys().next()?.clone();
        let value = self.fields.shift_remove(&name)?;
        Some((name, value))
    }

    fn typed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| {
            ApiError::parse(format!(
                "[1:1] [{}] {name} doesn't support values of type: {}",
                self.parser,
                token(&value)
            ))
        })
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, |value| value.as_str().map(ToOwned::to_owned))
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, Value::as_bool)
    }

    /// Takes a number of Java's type `int`.
    pub(crate) fn int(&mut self, name: &str) -> Result<Option<i32>, ApiError> {
        self.typed(name, |value| value.as_i64().and_then(|n| i32::try_from(n).ok()))
    }

    /// Takes a number of Java's type `long`.
    pub(crate) fn long(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, Value::as_i64)
    }

    pub(crate) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        self.typed(name, |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        })
    }

    pub(crate) fn numbers(&mut self, name: &str) -> Result<Option<Vec<f64>>, ApiError> {
        self.typed(name, |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.typed(name, |value| value.as_object().cloned())
    }

    /// Rejects the remaining fields.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(unknown_field(self.parser, name)),
        }
    }
}

/// Error for a field that is unknown to a parser.
pub(crate) fn unknown_field(parser: &str, name: &str) -> ApiError {
    ApiError::parse(format!("[1:1] [{parser}] unknown field [{name}]"))
}

fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "VALUE_NULL",
        Value::Bool(_) => "VALUE_BOOLEAN",
        Value::Number(_) => "VALUE_NUMBER",
        Value::String(_) => "VALUE_STRING",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_fields_and_trailing_text_are_rejected() {
        assert_eq!(
            parse(br#"{"a":[1,-2,0.5,null,true,"x"]}"#).unwrap(),
            json!({"a":[1,-2,0.5,null,true,"x"]})
        );
        assert!(
            parse(br#"{"a":{"b":1,"b":2}}"#).unwrap_err().reason().contains("Duplicate field 'b'")
        );
        for wrong in ["{}{}", "{", "", "{'a':1}"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_types_and_unknown_fields_are_rejected() {
        let object = || {
            Object::new("thing", json!({"s": "x", "n": 3, "b": true, "l": ["a"], "z": null}))
                .unwrap()
        };
        let mut fields = object();
        assert_eq!(fields.string("s").unwrap().as_deref(), Some("x"));
        assert_eq!(fields.int("n").unwrap(), Some(3));
        assert_eq!(fields.boolean("b").unwrap(), Some(true));
        assert_eq!(fields.strings("l").unwrap(), Some(vec!["a".to_owned()]));
        assert_eq!(fields.int("absent").unwrap(), None);
        assert_eq!(fields.finish().unwrap_err().reason(), "[1:1] [thing] unknown field [z]");
        assert_eq!(
            object().string("n").unwrap_err().reason(),
            "[1:1] [thing] n doesn't support values of type: VALUE_NUMBER"
        );
        assert!(object().string("z").is_err());
        assert!(Object::new("thing", json!([])).is_err());
    }
}
