//! Values that a pickle creates.

/// Index of a value. Values refer to each other by index, so that dropping values never recurses.
pub(crate) type Id = u32;

/// A Python value. `O` is what a reader makes of names, calls and persistent ids.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a, O> {
    /// A value that no reader needs, such as an integer of more than 64 bits.
    Other,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Set(Vec<Id>),
    /// Keys and values in the order of the file. Keys can repeat.
    Dict(Vec<(Id, Id)>),
    Object(O),
}

impl<O> Value<'_, O> {
    /// Adds items to a list or a set. `false` for any other value.
    pub fn extend_items(&mut self, more: &[Id]) -> bool {
        match self {
            Self::List(items) | Self::Set(items) => items.extend(more),
            _ => return false,
        }
        true
    }
}

/// All values of a pickle, by index.
#[derive(Debug)]
pub(crate) struct Values<'a, O>(Vec<Value<'a, O>>);

impl<O> Default for Values<'_, O> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, O> Values<'a, O> {
    /// Adds a value.
    pub fn push(&mut self, value: Value<'a, O>) -> Id {
        // Every reader limits the number of values far below the maximum of an index.
        #[allow(clippy::cast_possible_truncation)]
        let id = self.0.len() as Id;
        self.0.push(value);
        id
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value with an index.
    pub fn get(&self, id: Id) -> &Value<'a, O> {
        self.0.get(id as usize).unwrap_or(&Value::Other)
    }

    /// The value with an index, to be changed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Value<'a, O>> {
        self.0.get_mut(id as usize)
    }

    /// A text of the file.
    pub fn file_text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a tuple.
    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }
}
