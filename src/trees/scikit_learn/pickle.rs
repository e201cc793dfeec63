//! The part of Python's pickle format that tree models use, read as data.
//!
//! A pickle is a program for a stack machine, and unpickling it runs the functions that it names. Nothing is run here: a call becomes
//! an [`Object`] that keeps the function's name and arguments. A name outside of the list ([`is_allowed`]) ends the reading.
//!
//! Sources: `pickletools.py` of CPython (protocols 2 to 5) and `numpy_pickle.py` of joblib, which puts the bytes of arrays into the
//! stream after the object that describes them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::graph::{Graph, Id, Object, Value};
use super::numpy::{Array, Data, Kind, count};
use crate::trees::TreeError;

/// Opcodes of one file. A decision tree of an ensemble takes about 200.
const MAX_OPCODES: usize = 1 << 22;

/// Pickles within pickles: joblib writes arrays of objects as pickles of their own.
const MAX_NESTING: usize = 4;

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// When it is malformed, or names something that no tree model contains.
pub(crate) fn read(bytes: &[u8]) -> Result<(Graph<'_>, Id), TreeError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode_at: 0,
        opcodes: 0,
        graph: Graph::default(),
        known: HashMap::new(),
    };
    let root = machine.run(0)?;
    Ok((machine.graph, root))
}

/// Whether tree models contain a class or function.
fn is_allowed(module: &str, name: &str) -> bool {
    match module {
        "sklearn.tree._classes" => matches!(
            name,
            "DecisionTreeClassifier"
                | "DecisionTreeRegressor"
                | "ExtraTreeClassifier"
                | "ExtraTreeRegressor"
        ),
        "sklearn.tree._tree" => name == "Tree",
        "sklearn.ensemble._forest" => matches!(
            name,
            "RandomForestClassifier"
                | "RandomForestRegressor"
                | "ExtraTreesClassifier"
                | "ExtraTreesRegressor"
        ),
        "sklearn.ensemble._gb" => {
            matches!(name, "GradientBoostingClassifier" | "GradientBoostingRegressor")
        }
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting" => {
            matches!(name, "HistGradientBoostingClassifier" | "HistGradientBoostingRegressor")
        }
        "sklearn.ensemble._hist_gradient_boosting.predictor" => name == "TreePredictor",
        "sklearn.ensemble._hist_gradient_boosting.binning" => name == "_BinMapper",
        "sklearn.dummy" => matches!(name, "DummyClassifier" | "DummyRegressor"),
        "sklearn.preprocessing._label" => name == "LabelEncoder",
        "sklearn.preprocessing._encoders" => name == "OrdinalEncoder",
        "sklearn.preprocessing._function_transformer" => name == "FunctionTransformer",
        "sklearn.compose._column_transformer" => {
            matches!(name, "ColumnTransformer" | "_RemainderColsList")
        }
        "sklearn.pipeline" => name == "Pipeline",
        "sklearn.utils.validation" => name == "check_array",
        "sklearn.ensemble._gb_losses" | "sklearn._loss.loss" | "sklearn._loss.link" => true,
        "_loss" | "sklearn._loss._loss" => {
            name.starts_with("Cy") || name.starts_with("__pyx_unpickle_Cy")
        }
        "numpy" => matches!(
            name,
            "ndarray"
                | "dtype"
                | "float64"
                | "float32"
                | "int64"
                | "int32"
                | "uint8"
                | "bool_"
                | "bool"
                | "str_"
        ),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "_reconstruct" | "scalar")
        }
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        "numpy.random._pickle" => {
            matches!(name, "__randomstate_ctor" | "__generator_ctor" | "__bit_generator_ctor")
        }
        "numpy.random._mt19937" => name == "MT19937",
        "numpy.random._pcg64" => name == "PCG64",
        "numpy.random.bit_generator" => {
            matches!(name, "SeedSequence" | "__pyx_unpickle_SeedSequence")
        }
        "joblib.numpy_pickle" => name == "NumpyArrayWrapper",
        "functools" => name == "partial",
        "collections" => matches!(name, "OrderedDict" | "defaultdict"),
        "_codecs" => name == "encode",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "builtins" | "__builtin__" => matches!(
            name,
            "bytearray"
                | "bytes"
                | "slice"
                | "object"
                | "dict"
                | "list"
                | "set"
                | "int"
                | "float"
                | "str"
                | "bool"
        ),
        "xgboost.sklearn" => matches!(
            name,
            "XGBClassifier"
                | "XGBRegressor"
                | "XGBRanker"
                | "XGBRFClassifier"
                | "XGBRFRegressor"
                | "XGBModel"
        ),
        "xgboost.compat" => name == "XGBoostLabelEncoder",
        "xgboost.core" => name == "Booster",
        "lightgbm.sklearn" => {
            matches!(name, "LGBMClassifier" | "LGBMRegressor" | "LGBMRanker" | "LGBMModel")
        }
        "lightgbm.basic" => name == "Booster",
        "lightgbm.compat" => name == "_LGBMLabelEncoder",
        _ => false,
    }
}

/// The error for a name that is not allowed.
fn refused(position: usize, module: &str, name: &str) -> TreeError {
    if module.starts_with("sklearn.")
        && name.chars().all(|character| character.is_ascii_alphanumeric())
    {
        return TreeError::unsupported(
            format!("the scikit-learn class {name}"),
            "decision trees, extra trees, random forests, gradient boosting and histogram gradient boosting are supported; save such a model on its own",
        );
    }
    // Nobody reads more of a hostile name.
    const SHOWN: usize = 100;
    let name = format!("{module}.{name}").escape_debug().take(SHOWN).collect();
    TreeError::PickleName { position, name }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    opcodes: usize,
    graph: Graph<'a>,
    /// Positions of names in the graph.
    known: HashMap<(Cow<'a, str>, Cow<'a, str>), u32>,
}

/// The stack and the memo of one pickle.
#[derive(Default)]
struct State {
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs until STOP. Each opcode makes at most one value.
    fn run(&mut self, nesting: usize) -> Result<Id, TreeError> {
        if nesting > MAX_NESTING {
            return Err(self.error("too many pickles within pickles"));
        }
        let mut state = State::default();
        loop {
            self.opcodes += 1;
            if self.opcodes > MAX_OPCODES {
                return Err(TreeError::Limit(format!(
                    "more than {MAX_OPCODES} opcodes in a pickle"
                )));
            }
            self.opcode_at = self.at;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop(&mut state);
            }
            self.step(&mut state, opcode, nesting)?;
        }
    }

    fn step(&mut self, state: &mut State, opcode: u8, nesting: usize) -> Result<(), TreeError> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let [protocol] = self.array()?;
                if !(2..=5).contains(&protocol) {
                    return Err(
                        self.error(format!("pickle protocol {protocol} is not one of 2 to 5"))
                    );
                }
            }
            0x95 => {
                self.array::<8>()?;
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => state.marks.push(state.stack.len()),
            b'0' => {
                if state.marks.last() == Some(&state.stack.len()) {
                    state.marks.pop();
                } else {
                    self.pop(state)?;
                }
            }
            b'1' => {
                self.pop_mark(state)?;
            }
            b'2' => {
                let top = self.top(state)?;
                state.stack.push(top);
            }
            // Constants and numbers
            b'N' => self.push(state, Value::None),
            0x88 => self.push(state, Value::Bool(true)),
            0x89 => self.push(state, Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(state, Value::Int(number.into()));
            }
            b'K' => {
                let [number] = self.array()?;
                self.push(state, Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(state, Value::Int(number.into()));
            }
            0x8a => {
                let length = self.length::<1>()?;
                let value = long(self.take(length)?);
                self.push(state, value);
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(state, Value::Float(number));
            }
            // Strings and bytes
            b'X' => self.string::<4>(state)?,
            0x8c => self.string::<1>(state)?,
            0x8d => self.string::<8>(state)?,
            b'B' => self.binary::<4>(state)?,
            b'C' => self.binary::<1>(state)?,
            // BINBYTES8, BYTEARRAY8
            0x8e | 0x96 => self.binary::<8>(state)?,
            // Tuples, lists, sets
            b')' | b']' | 0x8f => self.push(state, Value::List(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark(state)?;
                self.push(state, Value::List(items));
            }
            0x85..=0x87 => {
                let mut items = vec![0; usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop(state)?;
                }
                self.push(state, Value::List(items));
            }
            b'a' => {
                let item = self.pop(state)?;
                self.extend_list(state, &[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark(state)?;
                self.extend_list(state, &items)?;
            }
            // Dicts
            b'}' => self.push(state, Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark(state)?;
                self.push(state, Value::Dict(Vec::new()));
                self.extend_dict(state, &items)?;
            }
            b's' => {
                let value = self.pop(state)?;
                let key = self.pop(state)?;
                self.extend_dict(state, &[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark(state)?;
                self.extend_dict(state, &items)?;
            }
            // Classes, functions and calls
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(state, module.into(), name.into())?;
            }
            0x93 => {
                let name = self.pop(state)?;
                let module = self.pop(state)?;
                let (Value::Text(module), Value::Text(name)) =
                    (self.graph.value(module).clone(), self.graph.value(name).clone())
                else {
                    return Err(self.error("a name is not text"));
                };
                self.global(state, module, name)?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let arguments = self.pop(state)?;
                let class = self.pop(state)?;
                if !matches!(self.graph.value(class), Value::Global(_)) {
                    return Err(self.error("something other than a class or function is called"));
                }
                // copyreg._reconstructor(class, object, None) makes an empty object of the class.
                let class = match self.graph.name(class) {
                    Some((_, "_reconstructor")) => {
                        let first =
                            self.graph.list(arguments).and_then(|items| items.first()).copied();
                        first.ok_or_else(|| self.error("a call has no arguments"))?
                    }
                    _ => class,
                };
                self.push(state, Value::Object(Box::new(Object { class, arguments, state: None })));
            }
            // NEWOBJ_EX
            0x92 => {
                self.pop(state)?;
                let arguments = self.pop(state)?;
                let class = self.pop(state)?;
                self.push(state, Value::Object(Box::new(Object { class, arguments, state: None })));
            }
            b'b' => self.build(state, nesting)?,
            // Memo
            b'q' => {
                let [slot] = self.array()?;
                self.put(state, slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.put(state, slot)?;
            }
            0x94 => {
                let slot = u32::try_from(state.memo.len()).unwrap_or(u32::MAX);
                self.put(state, slot)?;
            }
            b'h' => {
                let [slot] = self.array()?;
                self.get(state, slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.get(state, slot)?;
            }
            0x97 | 0x98 => return Err(self.error("its arrays are stored outside of the file")),
            b'P' | b'Q' => return Err(self.error("it refers to objects outside of the file")),
            other => return Err(self.error(format!("opcode {other:#04x} is not supported"))),
        }
        Ok(())
    }

    /// Sets the state of an object. Bytes of an array follow if joblib wrote the object.
    fn build(&mut self, state: &mut State, nesting: usize) -> Result<(), TreeError> {
        let given = self.pop(state)?;
        let target = self.top(state)?;
        match self.graph.values.get_mut(target as usize) {
            Some(Value::Object(object)) => object.state = Some(given),
            _ => return Err(self.error("the state of something other than an object is set")),
        }
        if self.graph.name(target) != Some(("joblib.numpy_pickle", "NumpyArrayWrapper")) {
            return Ok(());
        }
        let entry = |name: &str| self.graph.attribute(target, name);
        let dtype = entry("dtype").ok_or_else(|| self.error("an array has no dtype"))?;
        let dtype = self.graph.dtype(dtype)?;
        if dtype.kind == Kind::Object {
            let array = self.run(nesting + 1)?;
            self.graph.values[target as usize] = Value::Same(array);
            return Ok(());
        }
        let shape = entry("shape").and_then(|shape| {
            self.graph
                .list(shape)?
                .iter()
                .map(|&size| self.graph.size(size))
                .collect::<Option<Vec<_>>>()
        });
        let shape = shape.ok_or_else(|| self.error("an array has no shape"))?;
        let fortran = entry("order").and_then(|order| self.graph.text(order)) == Some("F");
        let aligned =
            entry("numpy_array_alignment_bytes").is_some_and(|bytes| !self.graph.is_none(bytes));
        if aligned {
            let [padding] = self.array()?;
            self.take(padding.into())?;
        }
        let length = count(&shape).and_then(|items| items.checked_mul(dtype.size));
        let length = length.ok_or_else(|| self.error("an array is too large"))?;
        let bytes = self.take(length)?;
        let array = Array::new(dtype, shape, fortran, Data::Bytes(Cow::Borrowed(bytes)))?;
        self.graph.values[target as usize] = Value::Array(Box::new(array));
        Ok(())
    }

    fn global(
        &mut self,
        state: &mut State,
        module: Cow<'a, str>,
        name: Cow<'a, str>,
    ) -> Result<(), TreeError> {
        if !is_allowed(&module, &name) {
            return Err(refused(self.opcode_at, &module, &name));
        }
        let key = (module, name);
        let index = match self.known.get(&key) {
            Some(&index) => index,
            None => {
                let index = u32::try_from(self.graph.names.len()).unwrap_or(u32::MAX);
                self.graph.names.push(key.clone());
                self.known.insert(key, index);
                index
            }
        };
        self.push(state, Value::Global(index));
        Ok(())
    }

    fn string<const N: usize>(&mut self, state: &mut State) -> Result<(), TreeError> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("a string is not UTF-8"))?;
        self.push(state, Value::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn binary<const N: usize>(&mut self, state: &mut State) -> Result<(), TreeError> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(state, Value::Bytes(Cow::Borrowed(bytes)));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, TreeError> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(b'\n', rest);
        let line = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let line = line.ok_or_else(|| self.error("a name is not terminated"))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    /// A length in `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, TreeError> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.array::<N>()?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TreeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], TreeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| {
            self.error(format!("{length} bytes are expected but {} remain", rest.len()))
        })?;
        self.at += length;
        Ok(taken)
    }

    fn push(&mut self, state: &mut State, value: Value<'a>) {
        let id = self.graph.push(value);
        state.stack.push(id);
    }

    fn top(&self, state: &State) -> Result<Id, TreeError> {
        let floor = state.marks.last().copied().unwrap_or(0);
        let top = state.stack.last().filter(|_| state.stack.len() > floor);
        top.copied().ok_or_else(|| self.error("the stack is empty"))
    }

    fn pop(&self, state: &mut State) -> Result<Id, TreeError> {
        let top = self.top(state)?;
        state.stack.pop();
        Ok(top)
    }

    fn pop_mark(&self, state: &mut State) -> Result<Vec<Id>, TreeError> {
        let mark = state.marks.pop().ok_or_else(|| self.error("there is no mark"))?;
        // Not split_off, which may hand out the whole stack's capacity.
        Ok(state.stack.drain(mark.min(state.stack.len())..).collect())
    }

    fn put(&self, state: &mut State, slot: u32) -> Result<(), TreeError> {
        let top = self.top(state)?;
        state.memo.insert(slot, top);
        Ok(())
    }

    fn get(&self, state: &mut State, slot: u32) -> Result<(), TreeError> {
        let id = state.memo.get(&slot).copied();
        state.stack.push(id.ok_or_else(|| self.error(format!("the memo has no entry {slot}")))?);
        Ok(())
    }

    fn extend_list(&mut self, state: &State, items: &[Id]) -> Result<(), TreeError> {
        let list = self.top(state)?;
        match self.graph.values.get_mut(list as usize) {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err(self.error("items are added to something other than a list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, state: &State, items: &[Id]) -> Result<(), TreeError> {
        let dict = self.top(state)?;
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.error("a dict has a key without a value"));
        }
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        match self.graph.values.get_mut(dict as usize) {
            Some(Value::Dict(dict)) => dict.extend(pairs),
            // An OrderedDict or defaultdict; no tree model is read from its entries.
            Some(Value::Object(_)) => {}
            _ => return Err(self.error("entries are added to something other than a dict")),
        }
        Ok(())
    }

    fn error(&self, reason: impl std::fmt::Display) -> TreeError {
        TreeError::malformed("pickle", format!("{reason} (at byte {})", self.opcode_at))
    }
}

/// A two's complement number of any length.
fn long<'a>(bytes: &[u8]) -> Value<'a> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    match all.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(all))
        }
        None => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: impl AsRef<[u8]>) -> String {
        read(pickle.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn names_outside_of_the_list_are_refused_with_their_position() {
        for (pickle, name, position) in [
            (&b"\x80\x02cos\nsystem\n."[..], "os.system", 2),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system", 17),
            (b"cbuiltins\neval\n.", "builtins.eval", 0),
            (b"cbuiltins\ngetattr\n.", "builtins.getattr", 0),
            (b"csklearn.tree._classes\n__init__\n.", "sklearn.tree._classes.__init__", 0),
            (b"cnumpy\nload\n.", "numpy.load", 0),
        ] {
            let message = refused(pickle);
            assert!(message.contains(&format!("{name} (at byte {position})")), "{message}");
        }
        let long = [b"c", &[b'a'; 10_000][..], b"\nb\n."].concat();
        assert!(refused(long).len() < 300);
    }

    #[test]
    fn truncated_and_malformed_pickles_are_refused() {
        for pickle in [
            &b""[..],
            b".",
            b"0.",
            b"1.",
            b"2.",
            b"t.",
            b"K\x01(\x85.",
            b"]a.",
            b"K\x01K\x02a.",
            b"(s.",
            b"}(K\x01u.",
            b"R.",
            b"))R.",
            b"b.",
            b"K\x01}b.",
            b"h\x07.",
            b"q\x00.",
            b"\x93.",
            b"K\x01K\x01\x93.",
            b"\x94.",
            b"(e.",
            b"(d0(K\x01d.",
            b"\x80\x01.",
            b"\xff.",
            b"c\n",
            b"\x97.",
            b"Q.",
            b"X\xff\xff\xff\xffa.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
            b"\x96\x00\x00\x00\x00\x00\x00\x00\x10a.",
        ] {
            assert!(read(pickle).is_err(), "{pickle:?}");
        }
    }
}
