//! Pickles and joblib files of tree models: which names they contain, and the arrays that joblib stores.
//!
//! A call becomes an object that keeps the function's name and arguments. A name outside of the list ([`is_allowed`]) ends the reading.
//!
//! Sources: the files that scikit-learn, XGBoost and LightGBM write, and `numpy_pickle.py` of joblib, which puts the bytes of arrays into
//! the stream after the object that describes them.

use std::borrow::Cow;

use super::graph::{Graph, Python};
use super::numpy::{Array, Data, Kind, count};
use crate::pickle::{Id, Limits, Machine, Policy, Value, displayed_name};
use crate::trees::TreeError;

/// Opcodes of one file. A decision tree of an ensemble takes about 200.
const MAX_OPCODES: usize = 1 << 22;

/// Reads the pickle at the start of `bytes`.
///
/// # Errors
/// When it is malformed, or names something that no tree model contains.
pub(crate) fn read(bytes: &[u8]) -> Result<(Graph<'_>, Id), TreeError> {
    let mut machine = Machine::new(bytes, 0, TreeModel);
    let root = machine.run()?;
    Ok((machine.values, root))
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
    TreeError::PickleName { position, name: displayed_name(module, name) }
}

/// The policy of tree models.
struct TreeModel;

type Reader<'a> = Machine<'a, TreeModel>;

impl<'a> Policy<'a> for TreeModel {
    type Object = Python<'a>;
    type Error = TreeError;

    const LIMITS: Limits = Limits {
        opcodes: MAX_OPCODES,
        protocols: 2..=5,
        long: 0..=255,
        // The text of a LightGBM model is one string.
        text: usize::MAX,
        // joblib writes arrays of objects as pickles of their own.
        pickles: 4,
        nesting: None,
    };

    fn error(position: usize, reason: String) -> TreeError {
        TreeError::malformed("pickle", format!("{reason} (at byte {position})"))
    }

    fn too_many_opcodes(_position: usize) -> TreeError {
        TreeError::Limit(format!("more than {MAX_OPCODES} opcodes in a pickle"))
    }

    fn unsupported(opcode: u8) -> Option<String> {
        match opcode {
            0x97 | 0x98 => Some("its arrays are stored outside of the file".to_owned()),
            b'P' | b'Q' => Some("it refers to objects outside of the file".to_owned()),
            b'T' | b'U' | b'i' => Some(format!("opcode {opcode:#04x} is not supported")),
            _ => None,
        }
    }

    fn name(
        machine: &mut Reader<'a>,
        module: &'a str,
        name: &'a str,
    ) -> Result<Value<'a, Python<'a>>, TreeError> {
        if !is_allowed(module, name) {
            return Err(refused(machine.position(), module, name));
        }
        Ok(Value::Object(Python::Name(module, name)))
    }

    fn call(machine: &mut Reader<'a>, callee: Id, arguments: Id) -> Result<(), TreeError> {
        let class = match machine.values.get(callee) {
            // copyreg._reconstructor(class, object, None) makes an empty object of the class.
            Value::Object(Python::Name(_, "_reconstructor")) => {
                let first = machine.values.list(arguments).and_then(|items| items.first()).copied();
                first.ok_or_else(|| machine.error("a call has no arguments"))?
            }
            Value::Object(Python::Name(..)) => callee,
            _ => return Err(machine.error("something other than a class or function is called")),
        };
        machine.push(Value::Object(Python::Object { class, arguments, state: None }))
    }

    /// Sets the state of an object. Bytes of an array follow if joblib wrote the object.
    fn build(machine: &mut Reader<'a>, new_state: Id) -> Result<(), TreeError> {
        let target = machine.top()?;
        match machine.values.get_mut(target) {
            Some(Value::Object(Python::Object { state, .. })) => *state = Some(new_state),
            _ => return Err(machine.error("the state of something other than an object is set")),
        }
        if machine.values.name(target) == Some(("joblib.numpy_pickle", "NumpyArrayWrapper")) {
            let array = joblib_array(machine, target)?;
            if let Some(value) = machine.values.get_mut(target) {
                *value = Value::Object(array);
            }
        }
        Ok(())
    }

    fn persistent(machine: &mut Reader<'a>, _id: Id) -> Result<(), TreeError> {
        Err(machine.error("it refers to objects outside of the file"))
    }

    /// Entries of an OrderedDict or a defaultdict; no tree model is read from them.
    fn ignores_entries(object: &Python<'a>) -> bool {
        matches!(object, Python::Object { .. })
    }
}

/// The array whose bytes follow the object that describes it.
fn joblib_array<'a>(machine: &mut Reader<'a>, wrapper: Id) -> Result<Python<'a>, TreeError> {
    let values = &machine.values;
    let entry = |name: &str| values.attribute(wrapper, name);
    let dtype = entry("dtype").ok_or_else(|| machine.error("an array has no dtype"))?;
    let dtype = values.dtype(dtype)?;
    if dtype.kind == Kind::Object {
        return machine.run_inner().map(Python::Same);
    }
    let shape = entry("shape").and_then(|shape| values.shape(shape).ok());
    let shape = shape.ok_or_else(|| machine.error("an array has no shape"))?;
    let fortran = entry("order").and_then(|order| values.text(order)) == Some("F");
    let aligned = entry("numpy_array_alignment_bytes").is_some_and(|bytes| !values.is_none(bytes));
    if aligned {
        let [padding] = machine.array()?;
        machine.take(padding.into())?;
    }
    let length = count(&shape).and_then(|items| items.checked_mul(dtype.size));
    let length = length.ok_or_else(|| machine.error("an array is too large"))?;
    let bytes = machine.take(length)?;
    let array = Array::new(dtype, shape, fortran, Data::Bytes(Cow::Borrowed(bytes)))?;
    Ok(Python::Array(Box::new(array)))
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
    fn calls_and_references_of_other_values_are_refused() {
        for pickle in [
            &b""[..],
            b"))R.",
            b"K\x01}b.",
            b"\x97.",
            b"Q.",
            b"Pname\n.",
            b"U\x01a.",
            b"cnumpy\ndtype\n)R(iname\n.",
            b"ccopyreg\n_reconstructor\n)R.",
            b"X\xff\xff\xff\xffa.",
        ] {
            assert!(read(pickle).is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn arrays_of_joblib_are_bounded_by_the_file() {
        let wrapper = |shape: &[u8], rest: &[u8]| {
            let head = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x05\0\0\0shape";
            let dtype = b"X\x05\0\0\0dtypecnumpy\ndtype\n(X\x02\0\0\0f8\x89\x88tRub";
            [&head[..], shape, dtype, rest].concat()
        };
        assert!(read(&wrapper(b"K\x01\x85", b"\0\0\0\0\0\0\0\0.")).is_ok());
        let error = refused(wrapper(b"K\x02\x85", b"\0\0\0\0\0\0\0\0."));
        assert!(error.contains("16 bytes are expected but 9 remain"), "{error}");
        let huge = b"\x8a\x08\0\0\0\0\0\0\0\x10K\x10\x86";
        assert!(refused(wrapper(huge, b".")).contains("an array is too large"));
        // An array of objects is a pickle of its own, and so are the arrays within.
        let nested = |levels| {
            let objects = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}X\x05\0\0\0dtype\
                cnumpy\ndtype\n(X\x02\0\0\0O8\x89\x88tRsb";
            [objects.repeat(levels), b"N".to_vec(), vec![b'.'; levels + 1]].concat()
        };
        assert!(read(&nested(4)).is_ok());
        assert!(refused(nested(5)).contains("too many pickles within pickles"));
    }
}
