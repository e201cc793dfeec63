//! Pickles of a TorchScript archive, read like libtorch's reader, and rejected where libtorch would trust invalid data.
//!
//! libtorch's reader uses element counts, offsets and strides without validation, pops from a stack that may be empty, and constructs
//! the objects that names refer to. This reader constructs nothing: a value only contains what the checks need.
//!
//! Source: `torch/csrc/jit/serialization/{pickler,unpickler}.cpp` (PyTorch 2.7), which supports only protocol 2 and these opcodes.

use std::collections::BTreeMap;

use crate::pickle::{Id, Limits, Machine, Policy, Value, Values, displayed_name};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    PerTensor,
    PerChannel,
}

/// What names, calls and persistent ids become.
#[derive(Debug)]
pub(super) enum Object {
    /// An instance of a class of the archive's code, or of a quantized layer.
    Instance,
    Scheme(Scheme),
    /// Size of a storage's elements in bytes.
    Element(usize),
    /// Number of elements.
    Storage(i64),
    /// Sizes of a tensor, and whether it is quantized.
    Tensor(Box<[i64]>, bool),
    Callee(Callee),
}

/// Meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
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
    const HEADER: &[u8] = &[0x80, 2];
    if !bytes.starts_with(HEADER) {
        return Err("at byte 0, the pickle does not have protocol 2".into());
    }
    let policy = ArchivePickle { storages: BTreeMap::new(), storage };
    let mut machine = Machine::new(bytes, HEADER.len(), policy);
    let value = machine.run()?;
    let valid = match (machine.values.get(value), root) {
        (Value::Tuple(_), Root::Tuple) | (Value::Object(Object::Instance), Root::Object) => {
            machine.stack_is_empty()
        }
        _ => false,
    };
    if !valid {
        return Err(
            machine.error(format!("the pickle does not contain the {root:?} that it should"))
        );
    }
    Ok(machine.policy.storages.values().map(|&length| length as u64).sum())
}

/// The policy of an archive's pickles.
struct ArchivePickle<'a> {
    storages: BTreeMap<&'a str, usize>,
    storage: &'a dyn Fn(&str) -> Option<usize>,
}

type Reader<'a> = Machine<'a, ArchivePickle<'a>>;
type Checked<T = ()> = Result<T, String>;

impl<'a> Policy<'a> for ArchivePickle<'a> {
    type Object = Object;
    type Error = String;

    const LIMITS: Limits = Limits {
        opcodes: MAX_OPCODES,
        protocols: 2..=2,
        long: 8..=8,
        text: usize::MAX,
        pickles: 0,
        nesting: Some(MAX_DEPTH),
    };

    fn error(position: usize, reason: String) -> String {
        format!("at byte {position}, {reason}")
    }

    fn unsupported(opcode: u8) -> Option<String> {
        let supported = matches!(
            opcode,
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | b'G' | b'X' | b'(' | b')' | b't' | 0x85
                ..=0x87
                    | b']'
                    | b'l'
                    | b'a'
                    | b'e'
                    | b'}'
                    | b's'
                    | b'u'
                    | b'd'
                    | b'q'
                    | b'r'
                    | b'h'
                    | b'j'
                    | b'c'
                    | 0x81
                    | b'b'
                    | b'R'
                    | b'Q'
                    | b'.'
        );
        (!supported).then(|| format!("libtorch does not support opcode {opcode:#04x}"))
    }

    fn name(
        machine: &mut Reader<'a>,
        module: &'a str,
        name: &'a str,
    ) -> Checked<Value<'a, Object>> {
        named(module, name).map(Value::Object).map_err(|reason| machine.error(reason))
    }

    /// REDUCE, which libtorch treats like BUILD.
    fn call(machine: &mut Reader<'a>, callee: Id, argument: Id) -> Checked {
        let values = &machine.values;
        let &Value::Object(Object::Callee(callee)) = values.get(callee) else {
            return Err(machine.error("the callee is not a name"));
        };
        let arguments = values.tuple(argument).unwrap_or_default();
        let object = |value| Value::Object(value);
        let result = match (callee, arguments) {
            (Callee::Nothing, _) => Value::None,
            (Callee::Device, &[name]) if values.file_text(name) == Some("cpu") => Value::Other,
            (Callee::Complex, &[_, _]) => Value::Other,
            (Callee::List, &[list]) if matches!(values.get(list), Value::List(_)) => {
                Value::List(Vec::new())
            }
            (Callee::TypeTag, &[tagged, kind]) => {
                if values.file_text(kind).is_none_or(|kind| kind.len() > MAX_NAME) {
                    return Err(machine.error("a type is not a short string"));
                }
                machine.push_id(tagged);
                return Ok(());
            }
            (
                Callee::Tensor,
                &[storage, offset, sizes, strides, _, _]
                | &[storage, offset, sizes, strides, _, _, _],
            ) => {
                let sizes = view(values, [storage, offset, sizes, strides]);
                object(Object::Tensor(sizes.map_err(|reason| machine.error(reason))?, false))
            }
            (Callee::QuantizedTensor, &[storage, offset, sizes, strides, scheme, _, _]) => {
                let sizes = view(values, [storage, offset, sizes, strides]);
                let sizes = sizes.map_err(|reason| machine.error(reason))?;
                check_scheme(values, scheme, &sizes).map_err(|reason| machine.error(reason))?;
                object(Object::Tensor(sizes, true))
            }
            (Callee::Class, _) => object(Object::Instance),
            (Callee::PackedLinear, &[weight, bias])
                if matches!(values.get(weight), Value::Object(Object::Tensor(_, true)))
                    && matches!(
                        values.get(bias),
                        Value::None | Value::Object(Object::Tensor(_, false))
                    ) =>
            {
                object(Object::Instance)
            }
            _ => return Err(machine.error(format!("invalid arguments of {callee:?}"))),
        };
        machine.push_collection(&[argument], result)
    }

    /// NEWOBJ: a class, and no arguments. The class stands for the object until BUILD.
    fn create(machine: &mut Reader<'a>, class: Id, arguments: Id) -> Checked {
        match (machine.values.get(class), machine.values.tuple(arguments)) {
            (Value::Object(Object::Callee(Callee::Class | Callee::PackedLinear)), Some([])) => {
                machine.push_id(class);
                Ok(())
            }
            _ => Err(machine.error("an object is created from a value that is not a class")),
        }
    }

    fn build(machine: &mut Reader<'a>, state: Id) -> Checked {
        let callee = machine.pop()?;
        Self::call(machine, callee, state)
    }

    /// Reads a storage: `("storage", type, key, device, elements)`.
    fn persistent(machine: &mut Reader<'a>, id: Id) -> Checked {
        const MALFORMED: &str = "malformed storage record";
        let values = &machine.values;
        let parts = values.tuple(id).unwrap_or_default();
        let &[tag, element, key, device, elements] = parts else {
            return Err(machine.error(MALFORMED));
        };
        let (
            Some("storage"),
            &Value::Object(Object::Element(size)),
            Some(key),
            Some(device),
            &Value::Int(elements),
        ) = (
            values.file_text(tag),
            values.get(element),
            values.file_text(key),
            values.file_text(device),
            values.get(elements),
        )
        else {
            return Err(machine.error(MALFORMED));
        };
        if device != "cpu" {
            return Err(machine.error(format!(
                "a tensor is on the device {device}; move the model to the CPU before you save it"
            )));
        }
        let wanted = usize::try_from(elements).ok().and_then(|n| n.checked_mul(size));
        if wanted != Some(0) {
            let Some(length) = (machine.policy.storage)(key) else {
                let reason = format!("the uncompressed storage {key:?} is missing");
                return Err(machine.error(reason));
            };
            if wanted.is_none_or(|wanted| wanted > length) {
                let reason = format!("the storage {key:?} is shorter than declared");
                return Err(machine.error(reason));
            }
            machine.policy.storages.insert(key, length);
        }
        machine.push(Value::Object(Object::Storage(elements)))
    }
}

/// Sizes of a tensor, from storage, offset, sizes and strides, after checking that its storage contains it.
fn view(
    values: &Values<'_, Object>,
    [storage, offset, sizes, strides]: [Id; 4],
) -> Checked<Box<[i64]>> {
    const MALFORMED: &str = "malformed tensor record";
    let (&Value::Object(Object::Storage(elements)), &Value::Int(offset)) =
        (values.get(storage), values.get(offset))
    else {
        return Err(MALFORMED.into());
    };
    let numbers = |id: Id| -> Option<Box<[i64]>> {
        let number = |&id: &Id| match values.get(id) {
            &Value::Int(n) if n >= 0 => Some(n),
            _ => None,
        };
        values.tuple(id)?.iter().map(number).collect()
    };
    let (sizes, strides) = (numbers(sizes).ok_or(MALFORMED)?, numbers(strides).ok_or(MALFORMED)?);
    if sizes.len() != strides.len() || offset < 0 {
        return Err(MALFORMED.into());
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
fn check_scheme(values: &Values<'_, Object>, id: Id, sizes: &[i64]) -> Checked {
    let Some(parts) = values.tuple(id) else {
        return Err("a quantized tensor has no scheme".into());
    };
    let parts: Vec<_> = parts.iter().map(|&id| values.get(id)).collect();
    let fits = match parts[..] {
        [Value::Object(Object::Scheme(Scheme::PerTensor)), _, Value::Int(_)] => true,
        [
            Value::Object(Object::Scheme(Scheme::PerChannel)),
            Value::Object(Object::Tensor(scales, false)),
            Value::Object(Object::Tensor(zeros, false)),
            Value::Int(axis),
        ] => {
            let along = usize::try_from(*axis).ok().and_then(|axis| sizes.get(axis));
            along.is_some_and(|along| **scales == [*along] && **zeros == [*along])
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err("a quantized tensor has an unsuitable scheme".into()) }
}

/// Meaning of a name.
fn named(module: &str, name: &str) -> Checked<Object> {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
    if !module.bytes().chain(name.bytes()).all(|byte| valid(&byte)) {
        return Err("malformed name".into());
    }
    let refused = || format!("it refers to {}, which no model needs", displayed_name(module, name));
    let callee = match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Callee::Tensor,
        ("torch._utils", "_rebuild_qtensor") => Callee::QuantizedTensor,
        ("collections", "OrderedDict") => Callee::Nothing,
        ("builtins", "complex") => Callee::Complex,
        ("torch", "device") => Callee::Device,
        ("torch", "per_tensor_affine") => return Ok(Object::Scheme(Scheme::PerTensor)),
        ("torch", "per_channel_affine" | "per_channel_affine_float_qparams") => {
            return Ok(Object::Scheme(Scheme::PerChannel));
        }
        ("torch", storage) => {
            let size = storage.strip_suffix("Storage").and_then(element_size);
            return size.map(Object::Element).ok_or_else(refused);
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
                return Err(refused());
            }
        }
    };
    Ok(Object::Callee(callee))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(items: &[u8]) -> Result<u64, String> {
        check(&[b"\x80\x02(", items, b"t."].concat(), Root::Tuple, &|_| None)
    }

    fn refused(items: &[u8]) -> String {
        tuple(items).unwrap_err()
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let lists = |depth| [vec![b']'; depth], vec![b'a'; depth - 1]].concat();
        assert_eq!(tuple(&lists(MAX_DEPTH as usize)), Ok(0));
        assert!(refused(&lists(MAX_DEPTH as usize + 1)).contains("nest too deep"));
    }

    #[test]
    fn value_that_changes_inside_another_value_is_refused() {
        // Each list is put into the one before while it is empty, so that the nesting would stay unknown.
        for pickle in [&b"]q\0]q\x01h\0h\x01ah\x01]a"[..], b"]q\0h\0a", b"}q\0h\0h\0s"] {
            let reason = refused(pickle);
            assert!(reason.contains("changes after another value contains it"), "{reason}");
        }
    }

    #[test]
    fn opcodes_and_names_that_libtorch_does_not_write_are_refused() {
        for (pickle, part) in [
            (&b"\x8c\x01a"[..], "libtorch does not support opcode 0x8c"),
            (b"\x94", "libtorch does not support opcode 0x94"),
            (b"\x8a\x01\0", "a long integer has 1 bytes"),
            (b"Nr\x01\0\0\0", "the memo has a gap"),
            (b"cos\nsystem\n", "it refers to os.system, which no model needs"),
            (b"cos\x1b\nsystem\n", "malformed name"),
            (b"c__torch__.torch.classes\nx\n", "which no model needs"),
            (b"ctorch\nload\n", "torch.load"),
            (b"N)\x81", "not a class"),
        ] {
            let reason = refused(pickle);
            assert!(reason.contains(part), "{reason}");
        }
        let start = check(b"\x80\x04).", Root::Tuple, &|_| None).unwrap_err();
        assert_eq!(start, "at byte 0, the pickle does not have protocol 2");
    }
}
