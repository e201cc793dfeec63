//! The part of Python's pickle format that state dicts use, read as data.
//!
//! A pickle is a program for a stack machine, and unpickling runs any function that it names. This reader never calls a function. A few
//! names are interpreted as data (an ordered dict, a view of a storage); every other name is rejected.
//!
//! Source: `pickletools.py` of CPython (protocols 2 to 5), `torch/_utils.py` and `torch/serialization.py`.

use std::collections::{BTreeMap, HashMap};

use super::Dtype;

/// Highest number of opcodes in a pickle. A state dict has about thirty per tensor; each needs less than a hundred bytes of memory.
const MAX_OPCODES: usize = 1 << 18;

/// Longest name or key in bytes. Repeated comparisons of longer names would take minutes.
const MAX_STRING: usize = 1 << 10;

/// Reason why a pickle is rejected.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The pickle names something that is not part of weights.
    #[error(
        "the pickle wants to call {name} (byte {position}), which weights do not need; refusing to read it"
    )]
    Global {
        /// Position of the opcode in bytes.
        position: usize,
        /// Module and name of the callable.
        name: String,
    },
    /// Any other defect.
    #[error("the pickle is damaged or contains more than weights: at byte {position}, {reason}")]
    Opcode {
        /// Position of the opcode in bytes.
        position: usize,
        /// Description of the defect.
        reason: String,
    },
}

/// Index of a value. Values refer to each other by index, so that dropping values never recurses.
type Id = u32;

#[derive(Debug, Clone)]
enum Value<'a> {
    /// A value that is not needed.
    Other,
    None,
    Bool(bool),
    Int(i64),
    Str(&'a str),
    Global(Global),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Strided<'a>>),
}

/// Meaning of a name.
#[derive(Debug, Clone, Copy)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// Calls another callable, and sets class and attributes of the result.
    RebuildFromType,
    Size,
    /// Creates other data that training scripts save with the weights.
    Leftover,
    Storage(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Size") => Self::Size,
            ("torch", "device" | "Tensor")
            | ("torch.nn.parameter", "Parameter")
            | ("numpy", "dtype")
            | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("_codecs", "encode")
            | ("builtins" | "__builtin__", "set") => Self::Leftover,
            (
                "torch",
                "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "int16"
                | "int8" | "uint8" | "bool",
            ) => Self::Leftover,
            ("torch" | "torch.cuda", storage) => Self::Storage(Dtype::from_storage_class(storage)?),
            _ => return None,
        })
    }
}

/// A storage that a pickle refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// Name in the file.
    pub key: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Number of elements.
    pub elements: usize,
    /// Offset in elements of the referenced part (views of storages in the legacy format).
    pub skipped: usize,
}

/// A tensor: a view of a storage, not yet validated against the storage.
#[derive(Debug, Clone)]
pub(super) struct Strided<'a> {
    pub storage: Storage<'a>,
    /// Offset in elements.
    pub offset: usize,
    pub shape: Vec<i64>,
    /// Strides in elements, one per axis.
    pub strides: Vec<i64>,
}

/// Content of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// All referenced storages by key.
    pub storages: BTreeMap<&'a str, Storage<'a>>,
    /// Number of bytes read.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle from the start of `bytes`.
    ///
    /// # Errors
    /// [`PickleError`] if the pickle is damaged or contains anything other than weights.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine {
            bytes,
            at: 0,
            opcode_at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: BTreeMap::new(),
        };
        let root = machine.run()?;
        Ok(Self { values: machine.values, root, storages: machine.storages, length: machine.at })
    }

    /// Tensors of the state dict: the top-level dict, or the dict under a key used by training scripts.
    pub fn state_dict(&self) -> Option<BTreeMap<&'a str, &Strided<'a>>> {
        let root = self.dict(self.root)?;
        // Names are borrowed, so that a long name repeated by the memo is not copied for each entry.
        let tensors = |entries: &[(Id, Id)]| -> BTreeMap<_, _> {
            entries
                .iter()
                .filter_map(|&(key, value)| Some((self.text(key)?, self.tensor(value)?)))
                .collect()
        };
        let own = tensors(root);
        if !own.is_empty() {
            return Some(own);
        }
        ["state_dict", "model_state_dict", "model"].iter().find_map(|wanted| {
            let entry = root.iter().find(|(key, _)| self.text(*key) == Some(wanted))?;
            Some(tensors(self.dict(entry.1)?)).filter(|tensors| !tensors.is_empty())
        })
    }

    /// The top-level value as a number.
    pub fn int(&self) -> Option<i64> {
        match self.value(self.root) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// The top-level value as a list of strings.
    pub fn strings(&self) -> Option<Vec<&'a str>> {
        match self.value(self.root) {
            Some(Value::List(items)) => items.iter().map(|&id| self.text(id)).collect(),
            _ => None,
        }
    }

    /// Boolean value of a key of the top-level dict.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let entry = self.dict(self.root)?.iter().find(|(key, _)| self.text(*key) == Some(name))?;
        match self.value(entry.1) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    fn value(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id as usize)
    }

    fn text(&self, id: Id) -> Option<&'a str> {
        match self.value(id) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Some(Value::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    fn tensor(&self, id: Id) -> Option<&Strided<'a>> {
        match self.value(id) {
            Some(Value::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }
}

/// The stack machine of the pickle format.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Stack heights of the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    storages: BTreeMap<&'a str, Storage<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs until STOP. Each opcode creates at most one value and stores at most one on the stack, in the memo or in a collection.
    fn run(&mut self) -> Result<Id, PickleError> {
        for _ in 0..MAX_OPCODES {
            self.opcode_at = self.at;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(self.error(format!("there are more than {MAX_OPCODES} opcodes")))
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let [protocol] = self.array()?;
                if !(2..=5).contains(&protocol) {
                    return Err(self.error(format!("unsupported protocol {protocol}")));
                }
            }
            0x95 => {
                self.array::<8>()?;
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => self.stack.push(self.top()?),
            // Constants and numbers
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()));
            }
            b'K' => {
                let [n] = self.array()?;
                self.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()));
            }
            0x8a => {
                let length = self.length::<1>()?;
                let value = long(self.take(length)?);
                self.push(value);
            }
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other);
            }
            // Strings; bytes are not needed
            b'X' | b'T' => self.string::<4>()?,
            0x8c | b'U' => self.string::<1>()?,
            0x8d => self.string::<8>()?,
            b'B' => self.binary::<4>()?,
            b'C' => self.binary::<1>()?,
            0x8e => self.binary::<8>()?,
            // Tuples
            b')' => self.push(Value::Tuple(Box::default())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items.into()));
            }
            0x85..=0x87 => {
                let mut items = vec![0; usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push(Value::Tuple(items.into()));
            }
            // Lists
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(&items)?;
            }
            // Dicts
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.extend_dict(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            // Sets, which are not needed: EMPTY_SET, ADDITEMS
            0x8f => self.push(Value::Other),
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            // The memo
            b'q' => {
                let [slot] = self.array()?;
                self.put(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.put(slot)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,
            b'h' => {
                let [slot] = self.array()?;
                self.get(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.get(slot)?;
            }
            // Names, and INST for a specific message
            b'c' | b'i' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
                if opcode == b'i' {
                    return Err(self.error("INST is not an opcode of a state dict".into()));
                }
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Some(module), Some(name)) = (self.text(module), self.text(name)) else {
                    return Err(self.error("a name is not a string".into()));
                };
                self.global(module, name)?;
            }
            // REDUCE and NEWOBJ: a name applied to arguments
            b'R' | 0x81 => self.apply()?,
            // BUILD: attributes of an object, which are not needed; state dicts store the versions of modules this way
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                if !matches!(self.value(object), Value::Dict(_) | Value::Other) {
                    return Err(self.error("BUILD on a value without attributes".into()));
                }
            }
            b'Q' => self.storage()?,
            other => {
                return Err(
                    self.error(format!("opcode {other:#04x} is not an opcode of a state dict"))
                );
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), PickleError> {
        const MAX_ARGUMENTS: usize = 16;
        let arguments = self.pop()?;
        let callee = self.pop()?;
        let arguments = match self.value(arguments) {
            Value::Tuple(arguments) if arguments.len() <= MAX_ARGUMENTS => arguments.clone(),
            _ => return Err(self.error("arguments are not a short tuple".into())),
        };
        let Value::Global(callee) = *self.value(callee) else {
            return Err(self.error("the callee is not a name".into()));
        };
        let made = match (callee, &*arguments) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, [pairs]) => {
                let entries = self.pairs(*pairs);
                Value::Dict(entries.ok_or_else(|| self.error("malformed list of pairs".into()))?)
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = self.strided(*storage, *offset, *shape, *strides);
                Value::Tensor(Box::new(
                    tensor.ok_or_else(|| self.error("malformed tensor record".into()))?,
                ))
            }
            (Global::RebuildParameter, &[same, ..]) | (Global::Size, &[same]) => {
                if !matches!(self.value(same), Value::Tensor(_) | Value::Tuple(_)) {
                    return Err(self.error(format!("invalid arguments of {callee:?}")));
                }
                self.stack.push(same);
                return Ok(());
            }
            (Global::RebuildFromType, &[callee, _class, arguments, ..]) => {
                let inner = matches!(
                    self.value(callee),
                    Value::Global(Global::RebuildTensor | Global::RebuildParameter)
                );
                if !inner {
                    return Err(
                        self.error(format!("invalid arguments of {:?}", Global::RebuildFromType))
                    );
                }
                self.stack.extend([callee, arguments]);
                return self.apply();
            }
            (Global::Leftover, _) => Value::Other,
            _ => return Err(self.error(format!("invalid arguments of {callee:?}"))),
        };
        self.push(made);
        Ok(())
    }

    /// Converts a list of pairs to the entries of a dict. The list is consumed, so the cost is limited by the opcodes that created it.
    fn pairs(&mut self, list: Id) -> Option<Vec<(Id, Id)>> {
        let Value::List(list) = self.values.get_mut(list as usize)? else { return None };
        let list = std::mem::take(list);
        list.into_iter()
            .map(|pair| match self.value(pair) {
                Value::Tuple(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                Value::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                _ => None,
            })
            .collect()
    }

    fn strided(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Strided<'a>> {
        /// Highest number of axes of a tensor, because each view needs memory per axis.
        const MAX_RANK: usize = 8;
        let Value::Storage(storage) = self.value(storage) else { return None };
        let numbers = |id: Id| match self.value(id) {
            Value::Tuple(items) if items.len() <= MAX_RANK => items
                .iter()
                .map(|&id| i64::try_from(self.size(id)?).ok())
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let shape = numbers(shape)?;
        let strides = numbers(strides)?;
        let offset = self.size(offset)?.checked_add(storage.skipped)?;
        (shape.len() == strides.len()).then_some(Strided {
            storage: **storage,
            offset,
            shape,
            strides,
        })
    }

    /// Persistent id of a storage: ("storage", type, key, device, elements), and a view in the legacy format.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let storage = self.storage_of(id);
        let storage = storage.ok_or_else(|| self.error("malformed storage record".into()))?;
        let whole = Storage { skipped: 0, ..storage };
        if *self.storages.entry(storage.key).or_insert(whole) != whole {
            return Err(
                self.error(format!("two different descriptions of storage {}", storage.key))
            );
        }
        self.push(Value::Storage(Box::new(storage)));
        Ok(())
    }

    fn storage_of(&self, id: Id) -> Option<Storage<'a>> {
        let Value::Tuple(parts) = self.value(id) else { return None };
        let (&[tag, dtype, key, _device, elements], rest) = parts.split_first_chunk()?;
        let (Some("storage"), Value::Global(Global::Storage(dtype))) =
            (self.text(tag), self.value(dtype))
        else {
            return None;
        };
        let skipped = match rest.first().map(|&view| self.value(view)) {
            None | Some(Value::None) => 0,
            Some(Value::Tuple(view)) => self.size(*view.get(1)?)?,
            Some(_) => return None,
        };
        let elements = self.size(elements)?;
        Some(Storage { key: self.text(key)?, dtype: *dtype, elements, skipped })
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let Some(global) = Global::find(module, name) else {
            // Limit the length of a hostile name in messages.
            const SHOWN: usize = 100;
            let name = format!("{module}.{name}");
            let name = name.escape_debug().take(SHOWN).collect();
            return Err(PickleError::Global { position: self.opcode_at, name });
        };
        self.push(Value::Global(global));
        Ok(())
    }

    fn string<const N: usize>(&mut self) -> Result<(), PickleError> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| self.error("a string is not UTF-8".into()))?;
        self.push(if length > MAX_STRING { Value::Other } else { Value::Str(text) });
        Ok(())
    }

    fn binary<const N: usize>(&mut self) -> Result<(), PickleError> {
        let length = self.length::<N>()?;
        self.take(length)?;
        self.push(Value::Other);
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
        let line = line.ok_or_else(|| self.error("a name has no end".into()))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    /// Reads a length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, PickleError> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.array::<N>()?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let array = self.bytes[self.at..].first_chunk().copied();
        self.at += if array.is_some() { N } else { 0 };
        array.ok_or_else(|| self.error("the file ends".into()))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let taken = self.bytes[self.at..].get(..length);
        self.at += if taken.is_some() { length } else { 0 };
        taken
            .ok_or_else(|| self.error(format!("{length} bytes are missing at the end of the file")))
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| self.error("the stack is empty".into()))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.error("the mark is missing".into()))?;
        // Not split_off, which may return a vector with the capacity of the whole stack.
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn put(&mut self, slot: u32) -> Result<(), PickleError> {
        self.memo.insert(slot, self.top()?);
        Ok(())
    }

    fn get(&mut self, slot: u32) -> Result<(), PickleError> {
        let id = self.memo.get(&slot).copied();
        self.stack.push(id.ok_or_else(|| self.error(format!("the memo has no entry {slot}")))?);
        Ok(())
    }

    fn extend_list(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let list = self.top()?;
        match self.values.get_mut(list as usize) {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err(self.error("items are added to a value that is not a list".into())),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let dict = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match self.values.get_mut(dict as usize) {
            Some(Value::Dict(dict)) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            _ => return Err(self.error("entries are added to a value that is not a dict".into())),
        }
        Ok(())
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id as usize).unwrap_or(&Value::Other)
    }

    fn text(&self, id: Id) -> Option<&'a str> {
        match self.value(id) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    fn error(&self, reason: String) -> PickleError {
        PickleError::Opcode { position: self.opcode_at, reason }
    }
}

/// A two's complement integer of any length; `None` if the value does not fit, because no size is that large.
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
        Pickle::read(pickle.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn rejected_names_are_reported_with_position() {
        for (pickle, name, position) in [
            (&b"\x80\x02cos\nsystem\n."[..], "os.system", 2),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system", 17),
            (b"(ios\nsystem\n.", "os.system", 1),
            (b"cbuiltins\neval\n.", "builtins.eval", 0),
            (b"ctorch\nload\n.", "torch.load", 0),
            (b"ctorch._utils\n_rebuild_tensor_v2\x00\n.", "_rebuild_tensor_v2\\0", 0),
        ] {
            let message = refused(pickle);
            assert!(message.contains(&format!("{name} (byte {position})")), "{message}");
        }
        let long = [b"c", &[b'a'; 10_000][..], b"\nb\n."].concat();
        assert!(refused(long).len() < 300);
    }

    #[test]
    fn lengths_are_checked_before_allocation() {
        for pickle in [
            &b"X\xff\xff\xff\xffa."[..],
            b"B\xff\xff\xff\xffa.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
            b"\x8a\xff\x01.",
        ] {
            assert!(refused(pickle).contains("at the end of the file"), "{pickle:?}");
        }
        assert!(refused(b"\x80\x02}").contains("the file ends"));
        assert!(refused(b"").contains("the file ends"));
    }

    #[test]
    fn stack_underflow_is_an_error() {
        for pickle in [
            &b"."[..],
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
            b"Q.",
            b")Q.",
            b"b.",
            b"K\x01}b0b.",
            b"h\x07.",
            b"q\x00.",
            b"\x93.",
            b"K\x01K\x01\x93.",
            b"\x94.",
            b"e.",
            b"(e.",
            b"(d0(K\x01d.",
            b"\x80\x01.",
            b"(K\x010.",
            b"\xff.",
            b"i",
            b"c\n",
        ] {
            assert!(Pickle::read(pickle).is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn nesting_uses_no_stack_and_length_is_limited() {
        let depth = MAX_OPCODES / 2 - 1;
        let nested = [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
        assert!(Pickle::read(&nested).is_ok());
        // A list that contains itself.
        assert!(Pickle::read(b"]q\x00h\x00a.").is_ok());
        assert!(refused(vec![b']'; MAX_OPCODES + 1]).contains("more than 262144 opcodes"));
    }

    #[test]
    fn integers_of_every_width_are_parsed() {
        let int = |pickle: &[u8]| Pickle::read(pickle).unwrap().int();
        assert_eq!(int(b"K\xff."), Some(255));
        assert_eq!(int(b"M\x01\x02."), Some(513));
        assert_eq!(int(b"J\xff\xff\xff\xff."), Some(-1));
        assert_eq!(int(b"\x8a\x00."), Some(0));
        assert_eq!(int(b"\x8a\x02\x00\x80."), Some(-32768));
        assert_eq!(int(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."), None);
    }
}
