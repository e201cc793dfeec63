//! Pickles of PyTorch's state dicts. Names that create tensors, and data that training scripts save with them, are accepted.
//!
//! Source: `torch/_utils.py` and `torch/serialization.py`.

use std::collections::BTreeMap;
use std::mem;

use super::Dtype;
use crate::pickle::{Id, Limits, Machine, Policy, Value, Values, displayed_name};

/// Highest number of opcodes in a pickle. A state dict has about thirty per tensor.
const MAX_OPCODES: usize = 1 << 18;

/// Longest name or key in bytes. Repeated comparisons of longer names would take minutes.
const MAX_STRING: usize = 1 << 10;

/// Reason why a pickle is rejected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle names something that is not part of weights.
    #[error(
        "the pickle wants to call {name} (byte {position}), which weights do not need, so it was not read"
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

/// What names, calls and persistent ids become.
#[derive(Debug)]
pub(super) enum Object<'a> {
    Name(Global),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Strided<'a>>),
}

/// Meaning of a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
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
    values: Values<'a, Object<'a>>,
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
        let mut machine = Machine::new(bytes, 0, StateDict::default());
        let root = machine.run()?;
        let length = machine.bytes_read();
        Ok(Self { values: machine.values, root, storages: machine.policy.storages, length })
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
        match self.values.get(self.root) {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The top-level value as a list of strings.
    pub fn strings(&self) -> Option<Vec<&'a str>> {
        match self.values.get(self.root) {
            Value::List(items) => items.iter().map(|&id| self.text(id)).collect(),
            _ => None,
        }
    }

    /// Boolean value of a key of the top-level dict.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let entry = self.dict(self.root)?.iter().find(|(key, _)| self.text(*key) == Some(name))?;
        match self.values.get(entry.1) {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn text(&self, id: Id) -> Option<&'a str> {
        self.values.file_text(id)
    }

    fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.values.get(id) {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    fn tensor(&self, id: Id) -> Option<&Strided<'a>> {
        match self.values.get(id) {
            Value::Object(Object::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }
}

/// The policy of state dicts.
#[derive(Debug, Default)]
struct StateDict<'a> {
    storages: BTreeMap<&'a str, Storage<'a>>,
}

type Reader<'a> = Machine<'a, StateDict<'a>>;

impl<'a> Policy<'a> for StateDict<'a> {
    type Object = Object<'a>;
    type Error = PickleError;

    const LIMITS: Limits = Limits {
        opcodes: MAX_OPCODES,
        protocols: 2..=5,
        long: 0..=255,
        text: MAX_STRING,
        pickles: 0,
        nesting: None,
    };

    fn error(position: usize, reason: String) -> PickleError {
        PickleError::Opcode { position, reason }
    }

    fn unsupported(opcode: u8) -> Option<String> {
        match opcode {
            b'i' => Some("INST is not an opcode of a state dict".to_owned()),
            // Frozen sets, NEWOBJ_EX and byte arrays
            0x91 | 0x92 | 0x96 => {
                Some(format!("opcode {opcode:#04x} is not an opcode of a state dict"))
            }
            _ => None,
        }
    }

    fn name(
        machine: &mut Reader<'a>,
        module: &'a str,
        name: &'a str,
    ) -> Result<Value<'a, Object<'a>>, PickleError> {
        let global = Global::find(module, name).ok_or_else(|| PickleError::Global {
            position: machine.position(),
            name: displayed_name(module, name),
        })?;
        Ok(Value::Object(Object::Name(global)))
    }

    fn call(machine: &mut Reader<'a>, callee: Id, arguments: Id) -> Result<(), PickleError> {
        const MAX_ARGUMENTS: usize = 16;
        let values = &mut machine.values;
        let arguments = match values.get(arguments) {
            Value::Tuple(arguments) if arguments.len() <= MAX_ARGUMENTS => arguments.clone(),
            _ => return Err(machine.error("arguments are not a short tuple")),
        };
        let &Value::Object(Object::Name(callee)) = values.get(callee) else {
            return Err(machine.error("the callee is not a name"));
        };
        let result = match (callee, &*arguments) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, [pairs]) => {
                let entries = entries(values, *pairs);
                Value::Dict(entries.ok_or_else(|| machine.error("malformed list of pairs"))?)
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = strided(values, *storage, *offset, *shape, *strides);
                let tensor = tensor.ok_or_else(|| machine.error("malformed tensor record"))?;
                Value::Object(Object::Tensor(Box::new(tensor)))
            }
            (Global::RebuildParameter, &[same, ..]) | (Global::Size, &[same]) => {
                if !matches!(values.get(same), Value::Object(Object::Tensor(_)) | Value::Tuple(_)) {
                    return Err(machine.error(format!("invalid arguments of {callee:?}")));
                }
                machine.push_id(same);
                return Ok(());
            }
            (Global::RebuildFromType, &[inner, _class, arguments, ..])
                if matches!(
                    values.get(inner),
                    Value::Object(Object::Name(Global::RebuildTensor | Global::RebuildParameter))
                ) =>
            {
                return Self::call(machine, inner, arguments);
            }
            (Global::Leftover, _) => Value::Other,
            _ => return Err(machine.error(format!("invalid arguments of {callee:?}"))),
        };
        machine.push(result)
    }

    /// Attributes of objects are not needed. State dicts store the versions of modules this way.
    fn build(machine: &mut Reader<'a>, _state: Id) -> Result<(), PickleError> {
        match machine.values.get(machine.top()?) {
            Value::Dict(_) | Value::Set(_) | Value::Other => Ok(()),
            _ => Err(machine.error("BUILD on a value without attributes")),
        }
    }

    /// Reads a storage: ("storage", type, key, device, elements), and a view in the legacy format.
    fn persistent(machine: &mut Reader<'a>, id: Id) -> Result<(), PickleError> {
        let storage = storage_of(&machine.values, id);
        let storage = storage.ok_or_else(|| machine.error("malformed storage record"))?;
        let whole = Storage { skipped: 0, ..storage };
        if *machine.policy.storages.entry(storage.key).or_insert(whole) != whole {
            return Err(
                machine.error(format!("two different descriptions of storage {}", storage.key))
            );
        }
        machine.push(Value::Object(Object::Storage(Box::new(storage))))
    }
}

/// Converts a list of pairs to the entries of a dict. The list is consumed, so the cost is limited by the opcodes that created it.
fn entries(values: &mut Values<'_, Object<'_>>, list: Id) -> Option<Vec<(Id, Id)>> {
    let Value::List(list) = values.get_mut(list)? else {
        return None;
    };
    let list = mem::take(list);
    let pair = |pair| match values.get(pair) {
        Value::Tuple(pair) => <[Id; 2]>::try_from(&**pair).ok(),
        Value::List(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
        _ => None,
    };
    list.into_iter().map(|item| pair(item).map(|[key, value]| (key, value))).collect()
}

fn strided<'a>(
    values: &Values<'a, Object<'a>>,
    storage: Id,
    offset: Id,
    shape: Id,
    strides: Id,
) -> Option<Strided<'a>> {
    /// Highest number of axes of a tensor, because each view needs memory per axis.
    const MAX_RANK: usize = 8;
    let Value::Object(Object::Storage(storage)) = values.get(storage) else {
        return None;
    };
    let numbers = |id: Id| {
        let items = values.tuple(id).filter(|items| items.len() <= MAX_RANK)?;
        let number = |&id: &Id| i64::try_from(size(values, id)?).ok();
        items.iter().map(number).collect::<Option<Vec<_>>>()
    };
    let shape = numbers(shape)?;
    let strides = numbers(strides)?;
    let offset = size(values, offset)?.checked_add(storage.skipped)?;
    (shape.len() == strides.len()).then_some(Strided { storage: **storage, offset, shape, strides })
}

fn size(values: &Values<'_, Object<'_>>, id: Id) -> Option<usize> {
    match values.get(id) {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

fn storage_of<'a>(values: &Values<'a, Object<'a>>, id: Id) -> Option<Storage<'a>> {
    let (&[tag, dtype, key, _device, elements], rest) = values.tuple(id)?.split_first_chunk()?;
    let (Some("storage"), &Value::Object(Object::Name(Global::Storage(dtype)))) =
        (values.file_text(tag), values.get(dtype))
    else {
        return None;
    };
    let skipped = match rest.first().map(|&view| values.get(view)) {
        None | Some(Value::None) => 0,
        Some(Value::Tuple(view)) => size(values, *view.get(1)?)?,
        Some(_) => return None,
    };
    Some(Storage { key: values.file_text(key)?, dtype, elements: size(values, elements)?, skipped })
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
    fn calls_and_references_of_other_values_are_refused() {
        for pickle in [&b"))R."[..], b")Q.", b"K\x01}b0b.", b"K\x01)R.", b"NQ."] {
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
}
