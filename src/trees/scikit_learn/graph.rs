//! Python objects as data: the common form of what a pickle, a joblib file or a skops archive holds.
//!
//! An object keeps the names of its class or function and what the file gives to it. Nothing is called.

use std::borrow::Cow;

use super::numpy::{Array, Data, Dtype};
use crate::pickle::Values;
pub(crate) use crate::pickle::{Id, Value};
use crate::trees::TreeError;
use crate::trees::ensemble::Label;

/// What a class, a function or a call becomes.
#[derive(Debug)]
pub(crate) enum Python<'a> {
    /// Module and name of a class or a function.
    Name(&'a str, &'a str),
    /// A class of a skops archive.
    OwnedName(Box<(String, String)>),
    /// A text of a skops archive.
    OwnedText(String),
    /// The result of a call.
    Object {
        /// The class or function.
        class: Id,
        /// The arguments.
        arguments: Id,
        /// The state that is set afterwards.
        state: Option<Id>,
    },
    Array(Box<Array<'a>>),
    /// Another value in its place.
    Same(Id),
}

/// All values of a file.
pub(crate) type Graph<'a> = Values<'a, Python<'a>>;

/// Values that stand for other values, one after the other, at most.
const MAX_SAME: usize = 8;

impl<'a> Graph<'a> {
    /// The value with an index, behind values that stand for others.
    pub fn value(&self, id: Id) -> &Value<'a, Python<'a>> {
        let mut value = self.get(id);
        for _ in 0..MAX_SAME {
            match value {
                Value::Object(Python::Same(other)) => value = self.get(*other),
                _ => break,
            }
        }
        value
    }

    /// Arguments and state of an object.
    fn object(&self, id: Id) -> Option<(Id, Option<Id>)> {
        match self.value(id) {
            Value::Object(Python::Object { arguments, state, .. }) => Some((*arguments, *state)),
            _ => None,
        }
    }

    /// Module and name of a class or function, or of the class of an object.
    pub fn name(&self, id: Id) -> Option<(&str, &str)> {
        let named = match self.value(id) {
            Value::Object(Python::Object { class, .. }) => self.value(*class),
            value => value,
        };
        match named {
            Value::Object(Python::Name(module, name)) => Some((module, name)),
            Value::Object(Python::OwnedName(name)) => Some((&name.0, &name.1)),
            _ => None,
        }
    }

    /// The name of the class of an object, without its module.
    pub fn class(&self, id: Id) -> &str {
        match self.value(id) {
            Value::Object(Python::Object { .. }) => self.name(id).map_or("", |(_, name)| name),
            _ => "",
        }
    }

    /// An attribute of an object: an entry of its state.
    pub fn attribute(&self, object: Id, name: &str) -> Option<Id> {
        self.entry(self.object(object)?.1?, name)
    }

    /// An attribute, or an error that names it.
    pub fn required(&self, object: Id, name: &str) -> Result<Id, TreeError> {
        self.attribute(object, name)
            .ok_or_else(|| malformed(format!("{} has no attribute {name}", self.class(object))))
    }

    /// The entry of a dict.
    pub fn entry(&self, dict: Id, name: &str) -> Option<Id> {
        let Value::Dict(entries) = self.value(dict) else {
            return None;
        };
        entries.iter().find(|(key, _)| self.text(*key) == Some(name)).map(|entry| entry.1)
    }

    /// The items of a tuple, a list or a set.
    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Some(items),
            Value::List(items) | Value::Set(items) => Some(items),
            _ => None,
        }
    }

    /// The argument of an object's constructor at a position.
    pub fn argument(&self, object: Id, position: usize) -> Option<Id> {
        self.list(self.object(object)?.0)?.get(position).copied()
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            Value::Object(Python::OwnedText(text)) => Some(text),
            _ => None,
        }
    }

    pub fn is_none(&self, id: Id) -> bool {
        matches!(self.value(id), Value::None)
    }

    /// A whole number, from Python or numpy.
    pub fn integer(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(number) => Some(*number),
            Value::Bool(truth) => Some((*truth).into()),
            _ => self.scalar(id).and_then(|number| {
                #[allow(clippy::cast_possible_truncation)]
                let whole = number as i64;
                #[allow(clippy::cast_precision_loss)]
                (whole as f64 == number).then_some(whole)
            }),
        }
    }

    /// A count or an index.
    pub fn size(&self, id: Id) -> Option<usize> {
        self.integer(id).and_then(|number| usize::try_from(number).ok())
    }

    /// A number, from Python or numpy.
    pub fn number(&self, id: Id) -> Option<f64> {
        match self.value(id) {
            Value::Float(number) => Some(*number),
            #[allow(clippy::cast_precision_loss)]
            Value::Int(number) => Some(*number as f64),
            Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
            _ => self.scalar(id),
        }
    }

    fn scalar(&self, id: Id) -> Option<f64> {
        let array = self.array(id).ok()?;
        match array.numbers().ok()?.as_slice() {
            [number] => Some(*number),
            _ => None,
        }
    }

    /// Bytes: a `bytes` or `bytearray` object. Old protocols write them as text in which each character is a byte.
    pub fn bytes(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        match self.value(id) {
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Object(Python::Object { .. }) => match self.name(id)? {
                ("_codecs", "encode") => self.latin1(self.argument(id, 0)?),
                ("builtins" | "__builtin__", "bytearray" | "bytes") => {
                    let Some(argument) = self.argument(id, 0) else {
                        return Some(Cow::Borrowed(&[]));
                    };
                    match self.value(argument) {
                        Value::Text(_) => self.latin1(argument),
                        Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
                        // One level: bytearray(_codecs.encode(text)).
                        _ => match self.name(argument)? {
                            ("_codecs", "encode") => self.latin1(self.argument(argument, 0)?),
                            _ => None,
                        },
                    }
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn latin1(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        let text = self.text(id)?;
        text.chars()
            .map(|character| u8::try_from(u32::from(character)).ok())
            .collect::<Option<Vec<_>>>()
            .map(Cow::Owned)
    }

    /// A numpy array or scalar.
    pub fn array(&self, id: Id) -> Result<Array<'_>, TreeError> {
        if let Value::Object(Python::Array(array)) = self.value(id) {
            return Ok(array.borrowed());
        }
        let invalid = || malformed("something other than an array is in the place of an array");
        let (arguments, state) = self.object(id).ok_or_else(invalid)?;
        match self.name(id).ok_or_else(invalid)? {
            (_, "_reconstruct") => {
                let state = state.and_then(|state| self.list(state)).ok_or_else(invalid)?;
                let [_version, shape, dtype, fortran, data] = state else {
                    return Err(invalid());
                };
                let fortran = matches!(self.value(*fortran), Value::Bool(true));
                let data = match self.list(*data) {
                    Some(items) => Data::Objects(items.to_vec()),
                    None => Data::Bytes(self.bytes(*data).ok_or_else(invalid)?),
                };
                Array::new(self.dtype(*dtype)?, self.shape(*shape)?, fortran, data)
            }
            (_, "_frombuffer") => {
                let arguments = self.list(arguments).ok_or_else(invalid)?;
                let [buffer, dtype, shape, order] = arguments else {
                    return Err(invalid());
                };
                let fortran = self.text(*order) == Some("F");
                let data = Data::Bytes(self.bytes(*buffer).ok_or_else(invalid)?);
                Array::new(self.dtype(*dtype)?, self.shape(*shape)?, fortran, data)
            }
            (_, "scalar") => {
                let arguments = self.list(arguments).ok_or_else(invalid)?;
                let [dtype, data] = arguments else {
                    return Err(invalid());
                };
                let data = Data::Bytes(self.bytes(*data).ok_or_else(invalid)?);
                Array::new(self.dtype(*dtype)?, Vec::new(), false, data)
            }
            _ => Err(invalid()),
        }
    }

    /// The attribute of an object that is an array.
    pub fn array_of(&self, object: Id, name: &str) -> Result<Array<'_>, TreeError> {
        self.array(self.required(object, name)?)
    }

    /// The shape of an array.
    pub fn shape(&self, id: Id) -> Result<Vec<usize>, TreeError> {
        let items =
            self.list(id).and_then(|items| items.iter().map(|&item| self.size(item)).collect());
        items.ok_or_else(|| malformed("an array has no valid shape"))
    }

    /// The type of an array's items: `numpy.dtype(code, False, True)` with a state.
    pub fn dtype(&self, id: Id) -> Result<Dtype, TreeError> {
        let invalid = || malformed("an array has an unsupported dtype");
        let (_, state) = self.object(id).ok_or_else(invalid)?;
        let code = self.argument(id, 0).and_then(|code| self.text(code)).ok_or_else(invalid)?;
        let state = state.and_then(|state| self.list(state)).unwrap_or_default();
        let big = state.get(1).and_then(|&order| self.text(order)) == Some(">");
        let simple = Dtype::simple(code, big).ok_or_else(invalid)?;
        let Some((&names, &fields)) = state.get(3).zip(state.get(4)) else {
            return Ok(simple);
        };
        let Some(names) = self.list(names) else {
            return Ok(simple);
        };
        let mut described = Vec::new();
        for &name in names {
            let name = self.text(name).ok_or_else(invalid)?;
            let field =
                self.entry(fields, name).and_then(|field| self.list(field)).ok_or_else(invalid)?;
            let (&dtype, &offset) = field.first().zip(field.get(1)).ok_or_else(invalid)?;
            // Fields of fields are not followed.
            let code =
                self.argument(dtype, 0).and_then(|code| self.text(code)).ok_or_else(invalid)?;
            let big = self.big_endian(dtype);
            let dtype = Dtype::simple(code, big).ok_or_else(invalid)?;
            described.push((name.to_owned(), dtype, self.size(offset).ok_or_else(invalid)?));
        }
        let size = state.get(5).and_then(|&size| self.size(size)).unwrap_or(simple.size);
        Ok(Dtype { size, fields: described, ..simple })
    }

    fn big_endian(&self, dtype: Id) -> bool {
        let Some((_, state)) = self.object(dtype) else {
            return false;
        };
        let state = state.and_then(|state| self.list(state)).unwrap_or_default();
        state.get(1).and_then(|&order| self.text(order)) == Some(">")
    }

    /// The labels in an array.
    pub fn labels(&self, id: Id) -> Option<Vec<Label>> {
        let array = self.array(id).ok()?;
        match &array.data {
            Data::Objects(items) => items
                .iter()
                .map(|&item| match self.value(item) {
                    // Scalars within an array: no deeper.
                    Value::Object(Python::Object { .. }) => {
                        self.array(item).ok()?.labels()?.into_iter().next()
                    }
                    Value::Bool(truth) => Some(Label::Boolean(*truth)),
                    _ => match self.text(item) {
                        Some(text) => Some(Label::Text(text.to_owned())),
                        None => self.number(item).map(Label::Number),
                    },
                })
                .collect(),
            Data::Bytes(_) => array.labels(),
        }
    }
}

/// Name of the format in errors about the objects.
pub(super) const FORMAT: &str = "Python";

/// A malformed Python file.
pub(crate) fn malformed(reason: impl Into<String>) -> TreeError {
    TreeError::malformed(FORMAT, reason)
}
