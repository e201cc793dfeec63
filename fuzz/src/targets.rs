//! Functions of the fuzz targets. `cargo test` runs them on the committed inputs (tests/suite/corpus.rs).

use std::fs;
use std::path::Path;

use rust_eland::checkpoint::{Checkpoint, Format, WeightFiles};
use rust_eland::conversion::{Conversion, Options};
#[cfg(feature = "torch")]
use rust_eland::models::WeightLoader;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::trees::{
    self, DefinitionOptions, Ensemble, ReadOptions, TreeError, check, lightgbm, onnx, scikit_learn,
    xgboost,
};
use tempfile::TempDir;

/// A function that reads an input and panics on a finding.
pub type Target = fn(&[u8]);

/// Targets by name.
pub const ALL: [(&str, Target); 10] = [
    ("safetensors", safetensors),
    ("archive", archive),
    ("legacy", legacy),
    ("folder", folder),
    ("sentencepiece", sentencepiece),
    ("xgboost", xgboost),
    ("lightgbm", lightgbm),
    ("python_model", python_model),
    ("skops", skops),
    ("onnx", onnx),
];

/// Reads the header of a safetensors file and its tensors.
pub fn safetensors(input: &[u8]) {
    weights(Format::Safetensors, input);
}

/// Reads a zip file; any other input becomes the pickle of a zip file.
pub fn archive(input: &[u8]) {
    if input.starts_with(b"PK") {
        weights(Format::Pytorch, input);
    } else {
        let storage = [1; 64];
        let entries = [("a/data.pkl", input), ("a/data/0", &storage), ("a/data/1", &storage)];
        weights(Format::Pytorch, &zip(&entries));
    }
}

/// Reads the five pickles and the storages of a legacy file.
pub fn legacy(input: &[u8]) {
    weights(Format::Pytorch, input);
}

/// Reads the JSON and text files of a model. The input is split at the byte 0xff, which no text contains; the next letter is the index
/// of a name in [`FILES`].
pub fn folder(input: &[u8]) {
    let folder = scratch();
    for section in input.split(|&byte| byte == 0xff) {
        let Some((letter, content)) = section.split_first() else { continue };
        let Some(name) = FILES.get(usize::from(letter.wrapping_sub(b'a'))) else { continue };
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    // Weights without tensors: every weight is requested, but no model is built.
    fs::write(folder.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    for task in [None, Some(Task::TextEmbedding)] {
        let mut options = Options::default();
        options.task = task;
        drop(Conversion::read(&files, options, &rust_eland::observer::Progress::quiet()));
    }
}

/// File names of the letters a, b and so on.
const FILES: [&str; 14] = [
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "pytorch_model.bin.index.json",
    "model.safetensors.index.json",
];

/// Reads a SentencePiece model as each tokenizer class with such a model does.
pub fn sentencepiece(input: &[u8]) {
    let folder = scratch();
    let files = ModelFiles::open(folder.path()).unwrap();
    for (model_type, name) in [
        ("xlm-roberta", "sentencepiece.bpe.model"),
        ("camembert", "sentencepiece.bpe.model"),
        ("deberta-v2", "spm.model"),
    ] {
        fs::write(folder.path().join(name), input).unwrap();
        let config = format!(r#"{{"model_type": "{model_type}"}}"#);
        fs::write(folder.path().join("config.json"), config).unwrap();
        let model = rust_eland::config::ModelConfig::read(&files).unwrap();
        drop(rust_eland::tokenizer::Tokenizer::read(&files, &model));
    }
}

/// Reads a model of XGBoost: JSON, or else UBJSON.
pub fn xgboost(input: &[u8]) {
    tree_model(if input.starts_with(b"{\"") {
        xgboost::read_json(input, &ReadOptions::default())
    } else {
        xgboost::read_ubjson(input, &ReadOptions::default())
    });
}

/// Reads a model of LightGBM: JSON, or else text.
pub fn lightgbm(input: &[u8]) {
    tree_model(if input.starts_with(b"{") {
        lightgbm::read_json(input)
    } else {
        lightgbm::read_text(&String::from_utf8_lossy(input))
    });
}

/// Recognizes the format of a file, which includes joblib's compressions; any other input is a pickle or a joblib file.
pub fn python_model(input: &[u8]) {
    let options = ReadOptions { max_inflated: 1 << 20, ..ReadOptions::default() };
    tree_model(match trees::read(input, &options) {
        Err(TreeError::Unrecognized { .. }) => scikit_learn::read_pickle(input, &options),
        result => result,
    });
}

/// Reads a skops archive; any other input becomes the schema of one.
pub fn skops(input: &[u8]) {
    let options = ReadOptions { max_inflated: 1 << 20, ..ReadOptions::default() };
    let zipped;
    let file = if input.starts_with(b"PK") {
        input
    } else {
        zipped = zip(&[("schema.json", input), ("1.npy", ARRAY)]);
        &zipped
    };
    tree_model(scikit_learn::read_skops(file, &options));
}

/// One float64 in numpy's format.
const ARRAY: &[u8] =
    b"\x93NUMPY\x01\0\x3a\0{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n\0\0\0\0\0\0\0\0";

/// Reads an ONNX model.
pub fn onnx(input: &[u8]) {
    tree_model(onnx::read(input));
}

/// Writes the definition of a small model and compares both.
fn tree_model(model: Result<Ensemble, TreeError>) {
    /// Every node is checked with several values, each from the root.
    const MAX_NODES: usize = 2_000;
    let Ok(ensemble) = model else { return };
    let nodes: usize = ensemble.trees.iter().map(|tree| tree.nodes.len()).sum();
    let options = DefinitionOptions::default();
    if nodes > MAX_NODES || ensemble.outputs() > 100 || ensemble.features.len() > 1_000 {
        return;
    }
    let Ok(definition) = ensemble.define(&options) else { return };
    if let Err(error) = check::check(&ensemble, &definition, &options) {
        panic!("{error}");
    }
}

/// Opens weights, and with libtorch loads every tensor.
fn weights(format: Format, input: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("weights");
    fs::write(&path, input).unwrap();
    let files = WeightFiles::one(format, path);
    let Ok(checkpoint) = Checkpoint::open(&files) else { return };
    drop(checkpoint);
    #[cfg(feature = "torch")]
    load(&files);
}

#[cfg(feature = "torch")]
fn load(files: &WeightFiles) {
    let loader = WeightLoader::open(files).unwrap();
    let weights = loader.weights();
    for (name, stored) in loader.checkpoint().tensors() {
        drop(weights.tensor(name, &stored.slice.shape));
    }
    drop(loader.finish());
}

/// Creates a temporary folder, in memory if possible.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Builds a zip file of uncompressed entries without checksums, which the readers ignore.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let at = (file.len() as u32).to_le_bytes();
        let size = (content.len() as u32).to_le_bytes();
        // Method, time and date, checksum.
        let fields = [&[0; 10][..], &size, &size, &(name.len() as u32).to_le_bytes()].concat();
        file.extend([b"PK\x03\x04\x14\0\0\0", &fields[..], name.as_bytes(), content].concat());
        // Comment, disk and attributes.
        let head = b"PK\x01\x02\x14\0\x14\0\0\0";
        directory.extend([head, &fields[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (start, size) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, &[0; 2]].concat());
    file
}
