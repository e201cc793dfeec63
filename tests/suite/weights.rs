//! Weights in every format of hub repositories give the same values, and no code in them runs.

use std::fs;
use std::path::{Path, PathBuf};

use rust_eland::checkpoint::WeightFiles;
use rust_eland::conversion::{Conversion, Options};
use rust_eland::models::WeightLoader;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::corpus::targets::zip;
use crate::fixtures::{Fixture, copy};
use crate::program::says;

/// The model bert/st-mean with the weights of `checkpoints/NAME` (see checkpoints.py), or without weights.
fn model(weights: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-mean").model(), folder.path());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    if let Some(name) = weights {
        copy(&checkpoint(name), folder.path());
    }
    folder
}

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// Copies a folder recursively.
fn read(folder: &Path) -> Result<Conversion, String> {
    let files = ModelFiles::open(folder).unwrap();
    let options = Options::of_task(Task::TextEmbedding);
    Conversion::read(&files, options, &rust_eland::observer::Progress::quiet())
        .map_err(|error| error.to_string())
}

fn refused(folder: &Path) -> String {
    read(folder).err().expect("it was read")
}

/// Output of a model for one row.
fn output(folder: &Path) -> Tensor {
    let conversion = read(folder).unwrap();
    assert!(conversion.notes().iter().all(|note| !note.contains("unused tensors")));
    let of = (Kind::Int64, tch::Device::Cpu);
    let ids = Tensor::arange(9, of).unsqueeze(0) + conversion.tokenizer().special.separator;
    let positions = Tensor::arange(9, of).unsqueeze(0);
    conversion
        .forward(&[ids.shallow_clone(), ids.ones_like(), ids.zeros_like(), positions])
        .unwrap()
}

fn of(name: &str) -> Tensor {
    output(model(Some(name)).path())
}

/// The tensors of a folder's weights that can be weights, which integers cannot: name, shape, values as float32.
fn tensors(folder: &Path) -> Vec<(String, Vec<i64>, Vec<f32>)> {
    let files = WeightFiles::find(&ModelFiles::open(folder).unwrap()).unwrap();
    let checkpoint = WeightLoader::open(&files).unwrap();
    let weights = checkpoint.weights();
    let all = checkpoint.checkpoint().tensors().iter();
    let floats = all.filter(|(_, stored)| stored.slice.dtype.is_float());
    let read = floats.map(|(name, stored)| {
        let shape = &stored.slice.shape;
        let tensor = weights.tensor(name, shape);
        assert_eq!((tensor.kind(), tensor.size()), (Kind::Float, shape.clone()), "{name}");
        let values = Vec::try_from(tensor.flatten(0, -1)).unwrap();
        (name.to_owned(), shape.clone(), values)
    });
    let read = read.collect();
    checkpoint.finish().unwrap();
    read
}

#[test]
fn tensors_of_every_type_and_layout_have_the_saved_values() {
    let json = fs::read(checkpoint("values.json")).unwrap();
    let wanted: Value = serde_json::from_slice(&json).unwrap();
    let wanted = wanted.as_object().unwrap();
    for name in [
        "values-zip",
        "values-zip-5",
        "values-zip-64",
        "values-legacy",
        "values-safetensors",
        "values-state_dict",
        "values-state_dict-legacy",
        "values-model",
        "values-model_state_dict",
    ] {
        let read = tensors(&checkpoint(name));
        let is_float = |tensor: &&String| !tensor.contains("int") && *tensor != "bool";
        assert_eq!(read.len(), wanted.keys().filter(is_float).count(), "{name}");
        for (tensor, shape, values) in read {
            let wanted = &wanted[&tensor];
            assert_eq!(json!(shape), wanted["shape"], "{name} {tensor}");
            assert_eq!(json!(values), wanted["values"], "{name} {tensor}");
        }
    }
}

#[test]
fn zip64_fixture_has_only_64_bit_fields() {
    let file = fs::read(checkpoint("values-zip-64/pytorch_model.bin")).unwrap();
    let end = file.windows(4).rposition(|four| four == b"PK\x05\x06").unwrap();
    assert_eq!(file[end + 8..end + 20], [0xff; 12]);
    let record = file.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    assert_eq!(file[record + 20..record + 28], [0xff; 8]);
}

#[test]
fn nested_storages_are_read_from_their_start() {
    let all: Vec<f32> = (0..12).map(|n| n as f32 + 0.5).collect();
    let wanted = [
        ("alone", vec![2], vec![-1., -2.]),
        ("first", vec![4], all[..4].to_vec()),
        ("second", vec![2, 3], all[6..].to_vec()),
        ("turned", vec![2, 2], vec![4.5, 6.5, 5.5, 7.5]),
        ("whole", vec![12], all),
    ];
    let wanted = wanted.map(|(name, shape, values)| (name.to_owned(), shape, values));
    assert_eq!(tensors(&checkpoint("views-legacy")), wanted);
}

/// Writes model.safetensors with float32 tensors.
fn write_safetensors(folder: &Path, tensors: &[(&str, &[i64], &[f32])]) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], header.as_bytes(), &data].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

#[test]
fn weight_normalization_is_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let directions = [3., 4., 0., -2.];
    for (g, v) in [
        ("a.weight_g", "a.weight_v"),
        ("a.parametrizations.weight.original0", "a.parametrizations.weight.original1"),
    ] {
        // Normalized by rows (the default), by columns, and as a whole.
        for (shape, lengths, wanted) in [
            (&[2, 1][..], &[10., 1.][..], [6., 8., 0., -1.]),
            (&[1, 2], &[6., 20.], [6., 4. * 20. / 20f32.sqrt(), 0., -2. * 20. / 20f32.sqrt()]),
            (&[], &[29f32.sqrt()], directions),
        ] {
            write_safetensors(folder.path(), &[(g, shape, lengths), (v, &[2, 2], &directions)]);
            let files = WeightFiles::find(&ModelFiles::open(folder.path()).unwrap()).unwrap();
            let checkpoint = WeightLoader::open(&files).unwrap();
            let weight = checkpoint.weights().sub("a").tensor("weight", &[2, 2]);
            assert_eq!(checkpoint.finish().unwrap().0, Vec::<String>::new());
            let wanted = Tensor::from_slice(&wanted).view([2, 2]);
            assert!(weight.allclose(&wanted, 1e-6, 0., false), "{g} {shape:?}");
        }
    }
    write_safetensors(
        folder.path(),
        &[("a.weight_g", &[3, 1], &[1.; 3]), ("a.weight_v", &[2, 2], &[1.; 4])],
    );
    let files = WeightFiles::find(&ModelFiles::open(folder.path()).unwrap()).unwrap();
    let checkpoint = WeightLoader::open(&files).unwrap();
    let _ = checkpoint.weights().tensor("a.weight", &[2, 2]);
    let message = checkpoint.finish().unwrap_err().to_string();
    says(&message, &["a.weight_g has the shape [3, 1]", "requires [2, 1]"]);
}

#[test]
fn every_format_produces_the_same_output() {
    let reference = output(&Fixture::named("bert/st-mean").model());
    assert!(f64::try_from(reference.abs().max()).unwrap() > 1e-3);
    for name in ["zip", "zip-wrapped", "legacy-odd-layouts", "sharded-safetensors", "sharded-bin"] {
        assert_eq!(of(name), reference, "{name}");
    }
    for kind in ["float16", "bfloat16"] {
        let rounded = of(&format!("safetensors-{kind}"));
        assert_eq!(of(&format!("zip-{kind}")), rounded, "{kind}");
        assert_ne!(rounded, reference, "{kind}");
    }
}

#[test]
fn safetensors_take_precedence() {
    let folder = model(Some("hostile-eval"));
    copy(&checkpoint("sharded-safetensors"), folder.path());
    assert!(read(folder.path()).is_ok());
}

#[test]
fn module_weights_are_read_from_pytorch_files() {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-dense").model(), folder.path());
    let dense = folder.path().join("2_Dense/model.safetensors");
    let reference = output(folder.path());
    fs::remove_file(&dense).unwrap();
    says(
        &refused(folder.path()),
        &["2_Dense contains no weights (model.safetensors, pytorch_model.bin"],
    );
    copy(&checkpoint("dense"), &folder.path().join("2_Dense"));
    // The matrix has another alignment, which changes the last bit of libtorch's results.
    let difference = f64::try_from((output(folder.path()) - &reference).abs().max()).unwrap();
    assert!(difference < 1e-7, "{difference}");
    copy(&checkpoint("hostile-eval"), &folder.path().join("2_Dense"));
    says(&refused(folder.path()), &["2_Dense/pytorch_model.bin", "eval"]);
}

#[test]
fn transformer_is_found_in_a_subfolder() {
    let reference = output(&Fixture::named("bert/st-mean").model());
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-mean").model(), &folder.path().join("0_Transformer"));
    for name in ["modules.json", "1_Pooling"] {
        fs::rename(folder.path().join("0_Transformer").join(name), folder.path().join(name))
            .unwrap();
    }
    let path = folder.path().join("modules.json");
    let mut modules: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    modules[0]["path"] = "0_Transformer".into();
    fs::write(path, modules.to_string()).unwrap();
    assert_eq!(output(folder.path()), reference);
    fs::remove_file(folder.path().join("0_Transformer/model.safetensors")).unwrap();
    says(&refused(folder.path()), &["0_Transformer contains no weights"]);
    copy(&checkpoint("zip-wrapped"), &folder.path().join("0_Transformer"));
    assert_eq!(output(folder.path()), reference);
}

#[test]
fn pickles_are_never_executed() {
    for (name, global) in [
        ("os-system", "posix.system"),
        ("eval", "eval"),
        ("load", "torch.serialization.load"),
        ("load-from-bytes", "torch.storage._load_from_bytes"),
        ("namespace", "argparse.Namespace"),
    ] {
        for form in ["", "-legacy", "-bare"] {
            let message = refused(model(Some(&format!("hostile-{name}{form}"))).path());
            says(&message, &["pytorch_model.bin", "wants to call", global, "byte", "was not read"]);
        }
    }
    assert!(!Path::new("/tmp/rust-eland-was-here").exists());
}

/// Pickles that PyTorch would run, and ways to hide the call, with the expected messages.
#[test]
fn opcodes_that_call_functions_are_rejected() {
    let named =
        |name: &str| vec![format!("wants to call {name} (byte "), "was not read".to_owned()];
    let opcode = |reason: &str| vec![reason.to_owned()];
    let tensor = "ctorch._utils\n_rebuild_tensor_v2\n";
    let cases: Vec<(Vec<u8>, Vec<String>)> = vec![
        (b"cbuiltins\neval\n(X\x01\0\0\x001tR.".into(), named("builtins.eval")),
        (b"c__builtin__\nexec\n.".into(), named("__builtin__.exec")),
        (b"ctorch\nload\n(X\x01\0\0\0atR.".into(), named("torch.load")),
        (b"ctorch.hub\nload\n.".into(), named("torch.hub.load")),
        (b"ctorch.jit\nload\n.".into(), named("torch.jit.load")),
        (b"ctorch\nos.system\n.".into(), named("torch.os.system")),
        (b"cnumpy\nload\n.".into(), named("numpy.load")),
        (b"cfunctools\npartial\n.".into(), named("functools.partial")),
        // INST, OBJ, NEWOBJ_EX, EXT1 and similar, text persistent ids, old protocols
        (b"(X\x02\0\0\0idios\nsystem\n.".into(), named("os.system")),
        (b"(icollections\nOrderedDict\n.".into(), opcode("INST is not an opcode")),
        (b"(ccollections\nOrderedDict\no.".into(), opcode("opcode 0x6f")),
        (b"ccollections\nOrderedDict\n)}\x92.".into(), opcode("opcode 0x92")),
        (b"\x82\x01.".into(), opcode("opcode 0x82")),
        (b"\x83\x01\0.".into(), opcode("opcode 0x83")),
        (b"\x84\x01\0\0\0.".into(), opcode("opcode 0x84")),
        (b"Pos.system\n.".into(), opcode("opcode 0x50")),
        (b"S'a'\n.".into(), opcode("opcode 0x53")),
        // REDUCE and NEWOBJ of a value that is not a name, or with wrong arguments
        (b"K\x01)R.".into(), opcode("the callee is not a name")),
        (b"}K\x01\x85\x81.".into(), opcode("the callee is not a name")),
        (b"ccollections\nOrderedDict\nK\x01R.".into(), opcode("not a short tuple")),
        ([tensor.as_bytes(), b")R."].concat(), opcode("invalid arguments of RebuildTensor")),
        ([tensor.as_bytes(), b"(K\x01K\0))tR."].concat(), opcode("malformed tensor record")),
        // Functions that call other functions; only those that create tensors are accepted.
        (
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nctorch\nTensor\n)NtR.".into(),
            opcode("invalid arguments of RebuildFromType"),
        ),
        // BUILD of a value without attributes
        (b"K\x01}b.".into(), opcode("BUILD on a value without attributes")),
        // Persistent ids: nested, of another kind, of a module with its source
        (b"X\x07\0\0\0storage\x85Q\x85Q.".into(), opcode("malformed storage record")),
        (b"(X\x06\0\0\0moduleK\x01K\x01K\x01K\x01tQ.".into(), opcode("malformed storage record")),
        (b"NQ.".into(), opcode("malformed storage record")),
    ];
    for (pickle, parts) in cases {
        let bare = [b"\x80\x02", &pickle[..]].concat();
        let inside = zip(&[("archive/data.pkl", &bare)]);
        for file in [bare, inside] {
            let folder = model(None);
            fs::write(folder.path().join("pytorch_model.bin"), &file).unwrap();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            says(&refused(folder.path()), &parts);
        }
    }
}

#[test]
fn archives_without_state_dict_are_rejected() {
    let message = refused(model(Some("hostile-bomb")).path());
    says(&message, &["data.pkl", "compressed"]);
    says(&refused(model(Some("hostile-script")).path()), &["TorchScript"]);
    for (name, entry) in [("parent", "../../etc/passwd"), ("absolute", "/etc/passwd")] {
        let message = refused(model(Some(&format!("hostile-{name}"))).path());
        says(&message, &[&format!("entry {entry:?} leads out of the archive"), "not read"]);
    }
    // A storage with this name is only searched in the archive.
    let state = b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n\
        X\x13\0\0\0../../../etc/passwdX\x03\0\0\0cpuK\x01tQK\0K\x01\x85K\x01\x85tRs.";
    let folder = model(None);
    let file = zip(&[("archive/data.pkl", state)]);
    fs::write(folder.path().join("pytorch_model.bin"), file).unwrap();
    says(&refused(folder.path()), &["tensor a", "its storage is not in the file"]);
}

#[test]
fn tensors_larger_than_their_file_are_rejected() {
    /// A view of storage 0, which has `elements` elements of a type.
    fn view(kind: &str, elements: u8, geometry: &[u8]) -> Vec<u8> {
        let kind = format!("ctorch\n{kind}Storage\n");
        let (id, key) = (b"X\x07\0\0\0storage", b"X\x01\0\0\x000X\x03\0\0\0cpuK");
        let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(";
        [rebuild, &b"("[..], id, kind.as_bytes(), key, &[elements], b"tQK\0", geometry, b"tR"]
            .concat()
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |pickle: &[u8], storage: &[u8]| {
        let file = zip(&[("x/data.pkl", pickle), ("x/data/0", storage)]);
        fs::write(folder.path().join("pytorch_model.bin"), file).unwrap();
    };
    // A matrix of 64 MB that repeats the same four bytes.
    let matrix = view("Float", 1, b"M\x00\x10M\x00\x10\x86K\0K\0\x86");
    write(&[b"\x80\x02}X\x01\0\0\0a", &matrix[..], b"s."].concat(), &[0; 4]);
    says(
        &cannot_be_made(folder.path()),
        &["pytorch_model.bin contains tensors that are far larger than the file"],
    );

    // Hundreds of tensors in one float16 storage, converted one by one.
    let vector = view("Half", 250, b"K\xfa\x85K\x01\x85");
    let mut pickle = [b"\x80\x02}(X\x01\0\0\0a", &vector[..], b"q\x01"].concat();
    for n in 100..=250 {
        pickle.extend([b"X\x03\0\0\0", format!("{n}").as_bytes(), b"h\x01"].concat());
    }
    pickle.extend(b"u.");
    write(&pickle, &[0; 500]);
    says(&cannot_be_made(folder.path()), &["far larger than the file"]);
}

/// Errors of tensors that are found but cannot be created.
fn cannot_be_made(folder: &Path) -> String {
    let files = WeightFiles::find(&ModelFiles::open(folder).unwrap()).unwrap();
    let checkpoint = WeightLoader::open(&files).unwrap();
    for (name, stored) in checkpoint.checkpoint().tensors() {
        drop(checkpoint.weights().tensor(name, &stored.slice.shape));
    }
    checkpoint.finish().unwrap_err().to_string()
}

#[test]
fn invalid_weight_index_is_rejected() {
    for (one, index) in [
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ] {
        let with = |shard: &str| {
            let folder = model(None);
            let index_json = json!({ "weight_map": { "a": shard } });
            fs::write(folder.path().join(index), index_json.to_string()).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.bin")).unwrap();
            refused(folder.path())
        };
        for outside in
            ["../../etc/passwd", "/etc/passwd", "..", "", "a/../../b", "1_Pooling/config.json"]
        {
            says(&with(outside), &["out of the model's folder"]);
        }
        if cfg!(unix) {
            says(
                &with("link.bin"),
                &["link.bin is a symbolic link to /etc/passwd", "not followed"],
            );
        }
        says(
            &with("gone-00001-of-00002.bin"),
            &[index, "gone-00001-of-00002.bin, which does not exist"],
        );
        for name in [one, index] {
            let folder = model(None);
            let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
            fs::write(folder.path().join(name), pointer).unwrap();
            says(&refused(folder.path()), &[name, "git lfs pull"]);
        }
    }
}

/// Weights, tokenizer files and modules may be links within the folder or to the hub's cache, but not elsewhere.
#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_rejected() {
    use std::os::unix::fs::symlink;

    let reference = output(&Fixture::named("bert/st-mean").model());
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models--org--name");
    let snapshot = repository.join("snapshots/0123456789abcdef");
    copy(&Fixture::named("bert/st-mean").model(), &snapshot);
    fs::create_dir(repository.join("blobs")).unwrap();
    for (name, up) in [
        ("model.safetensors", "../../"),
        ("vocab.txt", "../../"),
        ("config.json", "../../"),
        ("1_Pooling/config.json", "../../../"),
    ] {
        let blob = name.replace('/', "-");
        fs::rename(snapshot.join(name), repository.join("blobs").join(&blob)).unwrap();
        symlink(format!("{up}blobs/{blob}"), snapshot.join(name)).unwrap();
    }
    assert_eq!(output(&snapshot), reference);
    // The folder itself may be a link.
    symlink(&snapshot, root.path().join("link")).unwrap();
    assert_eq!(output(&root.path().join("link")), reference);
    // In a copy outside of a cache, the same links lead out of the folder.
    let elsewhere = root.path().join("copies/name/snapshots");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::rename(&snapshot, elsewhere.join("0")).unwrap();
    fs::rename(repository.join("blobs"), elsewhere.join("../blobs")).unwrap();
    says(&refused(&elsewhere.join("0")), &["symbolic link to", "out of the model's folder"]);

    for name in ["config.json", "model.safetensors", "vocab.txt", "modules.json", "1_Pooling"] {
        let folder = root.path().join(format!("model-{name}"));
        copy(&Fixture::named("bert/st-mean").model(), &folder);
        let outside = root.path().join(format!("outside-{name}"));
        fs::rename(folder.join(name), &outside).unwrap();
        symlink(&outside, folder.join(name)).unwrap();
        says(&refused(&folder), &[name, "is a symbolic link to", "not followed"]);
        fs::remove_file(folder.join(name)).unwrap();
        symlink("nothing", folder.join(name)).unwrap();
        says(&refused(&folder), &[name, "broken symbolic link", "Download the model again"]);
    }
}

#[test]
fn weights_in_unsupported_formats_are_reported() {
    let folder = model(None);
    fs::write(folder.path().join("tf_model.h5"), "").unwrap();
    fs::write(folder.path().join("model.gguf"), "").unwrap();
    let message = refused(folder.path());
    says(
        &message,
        &["contains no weights (model.safetensors", "model.gguf, tf_model.h5 cannot be read"],
    );
}

#[test]
fn damaged_files_are_rejected() {
    for name in ["zip", "legacy-odd-layouts"] {
        let folder = model(Some(name));
        let path = folder.path().join("pytorch_model.bin");
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 10, 200, 4000, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            says(&refused(folder.path()), &["pytorch_model.bin", "cannot be read"]);
        }
        // A flipped byte in the values may be undetected, but never causes a panic.
        for at in (0..whole.len().min(9000)).step_by(29) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            fs::write(&path, flipped).unwrap();
            drop(read(folder.path()));
        }
    }
}

/// Tensors over mapped files are read-only memory, so operations that write to their tensor may only be applied to tensors that a
/// model computed. The names of such operations end with an underscore in tch.
#[test]
fn in_place_operations_write_to_computed_tensors_only() {
    /// Lines that were reviewed: the tensor is a result of `forward`, or was converted from another element type.
    const REVIEWED: [&str; 4] = [
        "let _ = scores.f_add_(bias)?;",
        "let _ = scores.f_add_(&others)?;",
        "let _ = converted.f_addmm_(&left, &right)?;",
        "Ok(row.f_index_put_(&[Some(&rows), Some(ids)], values, false)?)",
    ];

    fn check(folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for (number, line) in text.lines().enumerate() {
                    let in_place = line.match_indices("_(").any(|(end, _)| {
                        let name = |c: char| c.is_alphanumeric() || c == '_';
                        let before = line[..end].trim_end_matches(name);
                        before.ends_with('.') && before.len() < end
                    });
                    assert!(
                        !in_place || REVIEWED.contains(&line.trim()),
                        "{}:{}: {line}",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}
