//! Functions of the fuzz targets. `cargo test` runs them on the committed inputs (tests/suite/corpus.rs).

use std::fs;
use std::path::Path;

use rust_eland::checkpoint::{Checkpoint, Format, WeightFiles};
use rust_eland::conversion::{Conversion, Options};
#[cfg(feature = "torch")]
use rust_eland::models::WeightLoader;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use tempfile::TempDir;

/// A function that reads an input and panics on a finding.
pub type Target = fn(&[u8]);

/// Targets by name.
pub const ALL: [(&str, Target); 5] = [
    ("safetensors", safetensors),
    ("archive", archive),
    ("legacy", legacy),
    ("folder", folder),
    ("sentencepiece", sentencepiece),
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
