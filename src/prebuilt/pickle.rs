//! Pickles of an archive, read like libtorch's reader, and rejected where libtorch would trust invalid data.
//!
//! libtorch's reader uses element counts, offsets and strides without validation, pops from a stack that may be empty, and constructs
//! the objects that names refer to. This reader constructs nothing: a value only contains what the checks need.
//!
//! Source: `torch/csrc/jit/serialization/{pickler,unpickler}.cpp` (PyTorch 2.7), which supports only protocol 2 and these opcodes.

use std::collections::BTreeMap;

/// Highest number of opcodes in a pickle. An attribute of a module has about five, a tensor thirty.
const MAX_OPCODES: usize = 1 << 21;

/// Highest nesting of values, because libtorch frees values recursively.
const MAX_DEPTH: u32 = 200;

/// Longest name or type in bytes.
const MAX_NAME: usize = 1 << 12;

/// libtorch's class of a quantized linear layer; all other classes of libtorch are rejected.
const PACKED_LINEAR: &str = "__torch__.torch.classes.quantized.LinearPackedParamsBase";

/// Required content of a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// A tuple of constants.
    Tuple,
    /// A module object.
    Object,
}

/// Index of a value.
type Id = u32;

#[derive(Debug, Clone)]
enum Value<'a> {
    /// A value that is not needed.
    Other,
    None,
    Int(i64),
    Str(&'a [u8]),
    Tuple(Box<[Id]>),
    List,
    Dict,
    Object,
    Scheme(Scheme),
    Element(usize),
    /// Number of elements.
    Storage(i64),
    /// Sizes of a tensor, and whether it is quantized.
    Tensor(Box<[i64]>, bool),
    Callee(Callee),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    PerTensor,
    PerChannel,
}

/// Meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Callee {
    Tensor,
    QuantizedTensor,
    /// `OrderedDict`, whose content is not needed.
    Nothing,
    Device,
    /// A list of elements of one type.
    List,
    TypeTag,
    Complex,
    /// A class defined in the archive's code.
    Class,
    PackedLinear,
}

/// Reads a pickle and returns the size in bytes of its storages. `storage` returns the length of a storage by key.
///
/// # Errors
/// The reason why the pickle must not be loaded.
pub(super) fn check(
    bytes: &[u8],
    root: Root,
    storage: &dyn Fn(&str) -> Option<usize>,
) -> Result<u64, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode_at: 0,
        values: Vec::new(),
        depths: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        storages: BTreeMap::new(),
        storage,
    };
    machine.run(root).map_err(|reason| format!("at byte {}, {reason}", machine.opcode_at))?;
    Ok(machine.storages.values().map(|&length| length as u64).sum())
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    values: Vec<Value<'a>>,
    /// Nesting depth of each value.
    depths: Vec<u32>,
    stack: Vec<Id>,
    /// Stack heights of the marks.
    marks: Vec<usize>,
    memo: Vec<Id>,
    storages: BTreeMap<&'a str, usize>,
    storage: &'a dyn Fn(&str) -> Option<usize>,
}

type Checked<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self, root: Root) -> Checked {
        if self.array()? != [0x80, 2] {
            return Err("the pickle does not have protocol 2".into());
        }
        for _ in 0..MAX_OPCODES {
            self.opcode_at = self.at;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return match (self.stack.as_slice(), root) {
                    (&[id], Root::Tuple) if matches!(self.value(id), Value::Tuple(_)) => Ok(()),
                    (&[id], Root::Object) if matches!(self.value(id), Value::Object) => Ok(()),
                    _ => Err(format!("the pickle does not contain the {root:?} that it should")),
                };
            }
            self.step(opcode)?;
        }
        Err(format!("the pickle has more than {MAX_OPCODES} opcodes"))
    }

    fn step(&mut self, opcode: u8) -> Checked {
        match opcode {
            // Constants and numbers
            b'N' => self.push(Value::None, &[]),
            0x88 | 0x89 => self.push(Value::Other, &[]),
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()), &[])
            }
            b'K' => {
                let [n] = self.array()?;
                self.push(Value::Int(n.into()), &[])
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()), &[])
            }
            0x8a => {
                if self.array()? != [8] {
                    return Err("a long integer does not have eight bytes".into());
                }
                let n = i64::from_le_bytes(self.array()?);
                self.push(Value::Int(n), &[])
            }
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other, &[])
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                let text = self.take(length as usize)?;
                self.push(Value::Str(text), &[])
            }
            // Collections
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b')' => self.push(Value::Tuple(Box::default()), &[]),
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items)
            }
            0x85..=0x87 => {
                let mut items = vec![0; usize::from(opcode - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.tuple(items)
            }
            b']' => self.push(Value::List, &[]),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List, &items)
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item], &Value::List)
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(&items, &Value::List)
            }
            b'}' => self.push(Value::Dict, &[]),
            b's' => {
                let items = [self.pop()?, self.pop()?];
                self.extend(&items, &Value::Dict)
            }
            b'u' | b'd' => {
                let items = self.pop_mark()?;
                if items.len() % 2 == 1 {
                    return Err("a key has no value".into());
                }
                if opcode == b'd' {
                    self.push(Value::Dict, &items)
                } else {
                    self.extend(&items, &Value::Dict)
                }
            }
            // The memo, which libtorch allocates up to the largest index
            b'q' | b'r' => {
                let slot = if opcode == b'q' {
                    let [slot] = self.array()?;
                    slot.into()
                } else {
                    u32::from_le_bytes(self.array()?)
                };
                let top = self.top()?;
                let known = self.memo.len();
                match self.memo.get_mut(slot as usize) {
                    Some(place) => *place = top,
                    None if slot as usize == known => self.memo.push(top),
                    None => return Err("the memo has a gap".into()),
                }
                Ok(())
            }
            b'h' | b'j' => {
                let slot = if opcode == b'h' {
                    let [slot] = self.array()?;
                    slot.into()
                } else {
                    u32::from_le_bytes(self.array()?)
                };
                let id = self.memo.get(slot as usize).ok_or("the memo has no such entry")?;
                self.stack.push(*id);
                Ok(())
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let value = named(module, name)?;
                self.push(value, &[])
            }
            // NEWOBJ: a class, and no arguments
            0x81 => {
                let arguments = self.pop()?;
                let class = self.top()?;
                match (self.value(class), self.value(arguments)) {
                    (Value::Callee(Callee::Class | Callee::PackedLinear), Value::Tuple(none))
                        if none.is_empty() =>
                    {
                        Ok(())
                    }
                    _ => Err("an object is created from a value that is not a class".into()),
                }
            }
            // BUILD and REDUCE, which libtorch treats alike
            b'b' | b'R' => self.apply(),
            b'Q' => self.refer(),
            other => Err(format!("libtorch does not support opcode {other:#04x}")),
        }
    }

    fn apply(&mut self) -> Checked {
        let argument = self.pop()?;
        let callee = self.pop()?;
        let &Value::Callee(callee) = self.value(callee) else {
            return Err("the callee is not a name".into());
        };
        let arguments = match self.value(argument) {
            Value::Tuple(items) => items.clone(),
            _ => Box::default(),
        };
        let made = match (callee, &*arguments) {
            (Callee::Nothing, _) => Value::None,
            (Callee::Device, &[name]) if matches!(self.value(name), Value::Str(b"cpu")) => {
                Value::Other
            }
            (Callee::Complex, &[_, _]) => Value::Other,
            (Callee::List, &[list]) if matches!(self.value(list), Value::List) => Value::List,
            (Callee::TypeTag, &[tagged, kind]) => {
                if !matches!(self.value(kind), Value::Str(kind) if kind.len() <= MAX_NAME) {
                    return Err("a type is not a short string".into());
                }
                self.stack.push(tagged);
                return Ok(());
            }
            (
                Callee::Tensor,
                &[storage, offset, sizes, strides, _, _]
                | &[storage, offset, sizes, strides, _, _, _],
            ) => {
                let sizes = self.view(storage, offset, sizes, strides)?;
                Value::Tensor(sizes, false)
            }
            (Callee::QuantizedTensor, &[storage, offset, sizes, strides, scheme, _, _]) => {
                let sizes = self.view(storage, offset, sizes, strides)?;
                self.check_scheme(scheme, &sizes)?;
                Value::Tensor(sizes, true)
            }
            (Callee::Class, _) => Value::Object,
            (Callee::PackedLinear, &[weight, bias])
                if matches!(self.value(weight), Value::Tensor(_, true))
                    && matches!(self.value(bias), Value::None | Value::Tensor(_, false)) =>
            {
                Value::Object
            }
            _ => return Err(format!("invalid arguments of {callee:?}")),
        };
        self.push(made, &[argument])
    }

    /// Reads a storage: `("storage", type, key, device, elements)`.
    fn refer(&mut self) -> Checked {
        let id = self.pop()?;
        let Value::Tuple(parts) = self.value(id) else {
            return Err("malformed storage record".into());
        };
        let parts: Vec<_> = parts.iter().map(|&id| self.value(id)).collect();
        let (key, size, elements) = match parts[..] {
            [
                Value::Str(b"storage"),
                Value::Element(size),
                Value::Str(key),
                Value::Str(b"cpu"),
                Value::Int(elements),
            ] => (*key, *size, *elements),
            [
                Value::Str(b"storage"),
                Value::Element(_),
                Value::Str(_),
                Value::Str(device),
                Value::Int(_),
            ] => {
                return Err(format!(
                    "a tensor is on the device {}; move the model to the CPU before you save it",
                    String::from_utf8_lossy(device)
                ));
            }
            _ => return Err("malformed storage record".into()),
        };
        let key = std::str::from_utf8(key).map_err(|_| "the key of a storage is not UTF-8")?;
        let wanted = usize::try_from(elements).ok().and_then(|n| n.checked_mul(size));
        let length = (self.storage)(key);
        if wanted != Some(0) {
            let length =
                length.ok_or_else(|| format!("the uncompressed storage {key:?} is missing"))?;
            if wanted.is_none_or(|wanted| wanted > length) {
                return Err(format!("the storage {key:?} is shorter than declared"));
            }
            self.storages.insert(key, length);
        }
        self.push(Value::Storage(elements), &[])
    }

    /// Sizes of a tensor, after checking that its storage contains it.
    fn view(&self, storage: Id, offset: Id, sizes: Id, strides: Id) -> Checked<Box<[i64]>> {
        const ODD: &str = "malformed tensor record";
        let (&Value::Storage(elements), &Value::Int(offset)) =
            (self.value(storage), self.value(offset))
        else {
            return Err(ODD.into());
        };
        let numbers = |id: Id| -> Option<Box<[i64]>> {
            let Value::Tuple(items) = self.value(id) else { return None };
            let number = |&id: &Id| match self.value(id) {
                &Value::Int(n) if n >= 0 => Some(n),
                _ => None,
            };
            items.iter().map(number).collect()
        };
        let (sizes, strides) = (numbers(sizes).ok_or(ODD)?, numbers(strides).ok_or(ODD)?);
        if sizes.len() != strides.len() || offset < 0 {
            return Err(ODD.into());
        }
        let last = sizes.iter().zip(&strides).try_fold(offset, |last, (size, stride)| {
            last.checked_add((size - 1).checked_mul(*stride)?)
        });
        let count = sizes.iter().try_fold(1i64, |all, size| all.checked_mul(*size));
        match (last, count) {
            (Some(_), Some(0)) => Ok(sizes),
            (Some(last), Some(_)) if last < elements => Ok(sizes),
            _ => Err("a tensor extends beyond the end of its storage".into()),
        }
    }

    /// Reads `(scheme, scale, zero point)` or `(scheme, scales, zero points, axis)`.
    fn check_scheme(&self, id: Id, sizes: &[i64]) -> Checked {
        let Value::Tuple(parts) = self.value(id) else {
            return Err("a quantized tensor has no scheme".into());
        };
        let parts: Vec<_> = parts.iter().map(|&id| self.value(id)).collect();
        let fits = match parts[..] {
            [Value::Scheme(Scheme::PerTensor), _, Value::Int(_)] => true,
            [
                Value::Scheme(Scheme::PerChannel),
                Value::Tensor(scales, false),
                Value::Tensor(zeros, false),
                Value::Int(axis),
            ] => {
                let along = usize::try_from(*axis).ok().and_then(|axis| sizes.get(axis));
                along.is_some_and(|along| **scales == [*along] && **zeros == [*along])
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err("a quantized tensor has an unsuitable scheme".into()) }
    }

    fn tuple(&mut self, items: Vec<Id>) -> Checked {
        let inner = items.clone();
        self.push(Value::Tuple(items.into()), &inner)
    }

    /// Adds items to the collection on top of the stack.
    fn extend(&mut self, items: &[Id], of: &Value<'_>) -> Checked {
        let id = self.top()?;
        if std::mem::discriminant(self.value(id)) != std::mem::discriminant(of) {
            return Err("an item is added to a value that cannot contain it".into());
        }
        let depth = self.depth_over(items)?;
        if let Some(own) = self.depths.get_mut(id as usize) {
            *own = depth.max(*own);
        }
        Ok(())
    }

    fn push(&mut self, value: Value<'a>, over: &[Id]) -> Checked {
        let depth = self.depth_over(over)?;
        let id = Id::try_from(self.values.len()).map_err(|_| "the pickle has too many values")?;
        self.values.push(value);
        self.depths.push(depth);
        self.stack.push(id);
        Ok(())
    }

    fn depth_over(&self, items: &[Id]) -> Checked<u32> {
        let deepest = items.iter().filter_map(|&id| self.depths.get(id as usize)).max();
        let depth = deepest.map_or(0, |depth| depth + 1);
        if depth > MAX_DEPTH { Err("its values nest too deep".into()) } else { Ok(depth) }
    }

    /// Pops a value. Values below the last mark belong to an unfinished collection.
    fn pop(&mut self) -> Checked<Id> {
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err("the stack has nothing above its mark".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn top(&self) -> Checked<Id> {
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_mark(&mut self) -> Checked<Vec<Id>> {
        let mark = self.marks.pop().ok_or("the mark is missing")?;
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id as usize).unwrap_or(&Value::Other)
    }

    fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "the pickle ends too early".into())
    }

    fn take(&mut self, length: usize) -> Checked<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or("the pickle ends too early")?;
        let bytes = self.bytes.get(self.at..end).ok_or("the pickle ends too early")?;
        self.at = end;
        Ok(bytes)
    }

    fn line(&mut self) -> Checked<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(MAX_NAME).position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or("a name has no end")?)?;
        self.at += 1;
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
        if !line.iter().all(valid) {
            return Err("malformed name".into());
        }
        std::str::from_utf8(line).map_err(|_| "malformed name".into())
    }
}

/// Meaning of a name.
fn named<'a>(module: &str, name: &str) -> Checked<Value<'a>> {
    let callee = match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Callee::Tensor,
        ("torch._utils", "_rebuild_qtensor") => Callee::QuantizedTensor,
        ("collections", "OrderedDict") => Callee::Nothing,
        ("builtins", "complex") => Callee::Complex,
        ("torch", "device") => Callee::Device,
        ("torch", "per_tensor_affine") => return Ok(Value::Scheme(Scheme::PerTensor)),
        ("torch", "per_channel_affine" | "per_channel_affine_float_qparams") => {
            return Ok(Value::Scheme(Scheme::PerChannel));
        }
        ("torch", storage) => {
            let size = storage.strip_suffix("Storage").and_then(element_size);
            return size
                .map(Value::Element)
                .ok_or_else(|| format!("it refers to torch.{name}, which no model needs"));
        }
        (
            "torch.jit._pickle",
            "build_intlist" | "build_tensorlist" | "build_doublelist" | "build_boollist",
        ) => Callee::List,
        ("torch.jit._pickle", "restore_type_tag") => Callee::TypeTag,
        _ => {
            let full = format!("{module}.{name}");
            if full == PACKED_LINEAR {
                Callee::PackedLinear
            } else if full.starts_with("__torch__.") && !full.starts_with("__torch__.torch.classes")
            {
                Callee::Class
            } else {
                return Err(format!("it refers to {full}, which no model needs"));
            }
        }
    };
    Ok(Value::Callee(callee))
}

/// Size of an element in bytes, by PyTorch's name of the storage type.
fn element_size(name: &str) -> Option<usize> {
    Some(match name {
        "Byte" | "Char" | "Bool" | "QInt8" | "QUInt8" => 1,
        "Half" | "BFloat16" | "Short" => 2,
        "Float" | "Int" | "QInt32" => 4,
        "Double" | "Long" | "ComplexFloat" => 8,
        "ComplexDouble" => 16,
        _ => return None,
    })
}
