//! Weights in every format that hub repositories have them in: the same numbers come out, and nothing in them is executed.

use std::fs;
use std::path::{Path, PathBuf};

use rust_eland::conversion::{Conversion, Options};
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use tch::{Kind, Tensor};

use crate::fixtures::Fixture;
use crate::program::says;

/// The model bert/st-mean with the weights of `checkpoints/NAME` (see checkpoints.py), or with none.
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

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn read(folder: &Path) -> Result<Conversion, String> {
    let files = ModelFiles::open(folder).unwrap();
    let options = Options { task: Some(Task::TextEmbedding), ..Options::default() };
    Conversion::read(&files, options).map_err(|error| error.to_string())
}

fn refused(folder: &Path) -> String {
    read(folder).err().expect("it was read")
}

/// What a model makes of one row.
fn output(folder: &Path) -> Tensor {
    let conversion = read(folder).unwrap();
    assert!(conversion.notes().iter().all(|note| !note.contains("not used")));
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

#[test]
fn every_format_gives_the_same_numbers() {
    let reference = output(&Fixture::named("bert/st-mean").model());
    assert!(f64::try_from(reference.abs().max()).unwrap() > 1e-3);
    for name in [
        "zip",
        "zip-64",
        "zip-float64",
        "zip-odd-layouts",
        "zip-nested",
        "zip-protocol-4",
        "legacy",
        "legacy-odd-layouts",
        "sharded-safetensors",
        "sharded-bin",
    ] {
        assert_eq!(of(name), reference, "{name}");
    }
    for kind in ["float16", "bfloat16"] {
        let rounded = of(&format!("safetensors-{kind}"));
        assert_eq!(of(&format!("zip-{kind}")), rounded, "{kind}");
        assert_ne!(rounded, reference, "{kind}");
    }
}

#[test]
fn safetensors_come_first() {
    let folder = model(Some("hostile-eval"));
    copy(&checkpoint("sharded-safetensors"), folder.path());
    assert!(read(folder.path()).is_ok());
}

#[test]
fn a_module_s_weights_may_be_pytorch_s() {
    let folder = tempfile::tempdir().unwrap();
    copy(&Fixture::named("bert/st-dense").model(), folder.path());
    let dense = folder.path().join("2_Dense/model.safetensors");
    let reference = output(folder.path());
    fs::remove_file(&dense).unwrap();
    says(&refused(folder.path()), &["2_Dense holds no model.safetensors, pytorch_model.bin"]);
    copy(&checkpoint("dense"), &folder.path().join("2_Dense"));
    // The matrix lies on another alignment, with which libtorch's last bit varies.
    let difference = f64::try_from((output(folder.path()) - &reference).abs().max()).unwrap();
    assert!(difference < 1e-7, "{difference}");
    copy(&checkpoint("hostile-eval"), &folder.path().join("2_Dense"));
    says(&refused(folder.path()), &["2_Dense/pytorch_model.bin", "eval"]);
}

#[test]
fn nothing_is_called() {
    for (name, global) in [
        ("os-system", "posix.system"),
        ("eval", "eval"),
        ("load-from-bytes", "torch.storage._load_from_bytes"),
    ] {
        for form in ["", "-legacy", "-bare"] {
            let message = refused(model(Some(&format!("hostile-{name}{form}"))).path());
            says(&message, &["pytorch_model.bin", "wants to call", global, "byte", "refusing"]);
        }
    }
    assert!(!Path::new("/tmp/rust-eland-was-here").exists());
}

#[test]
fn archives_that_are_no_state_dict() {
    let message = refused(model(Some("hostile-bomb")).path());
    says(&message, &["data.pkl", "compressed"]);
    says(&refused(model(Some("hostile-script")).path()), &["TorchScript"]);
}

#[test]
fn an_index_that_leads_astray() {
    for (one, index) in [
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ] {
        let with = |shard: &str| {
            let folder = model(None);
            let index_json = serde_json::json!({ "weight_map": { "a": shard } });
            fs::write(folder.path().join(index), index_json.to_string()).unwrap();
            refused(folder.path())
        };
        for outside in
            ["../../etc/passwd", "/etc/passwd", "..", "", "a/../../b", "1_Pooling/config.json"]
        {
            says(&with(outside), &["out of the model's folder"]);
        }
        says(
            &with("gone-00001-of-00002.bin"),
            &[index, "gone-00001-of-00002.bin, which is not there"],
        );
        for name in [one, index] {
            let folder = model(None);
            let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
            fs::write(folder.path().join(name), pointer).unwrap();
            says(&refused(folder.path()), &[name, "git lfs pull"]);
        }
    }
}

#[test]
fn weights_that_only_others_read() {
    let folder = model(None);
    fs::write(folder.path().join("tf_model.h5"), "").unwrap();
    fs::write(folder.path().join("model.gguf"), "").unwrap();
    let message = refused(folder.path());
    says(&message, &["holds no model.safetensors", "model.gguf, tf_model.h5 cannot be read"]);
}

#[test]
fn damaged_files_are_refused() {
    for name in ["zip", "legacy"] {
        let folder = model(Some(name));
        let path = folder.path().join("pytorch_model.bin");
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 10, 200, 4000, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            says(&refused(folder.path()), &["pytorch_model.bin", "cannot be read"]);
        }
        // A flipped byte may go unnoticed among the numbers, but never ends in a panic.
        for at in (0..whole.len().min(9000)).step_by(29) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            fs::write(&path, flipped).unwrap();
            drop(read(folder.path()));
        }
    }
}
