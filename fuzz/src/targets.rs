//! What each fuzz target does with an input. `cargo test` replays the committed inputs through the same functions
//! (tests/suite/corpus.rs).

use std::fs;
use std::path::Path;

use rust_eland::checkpoint::{Checkpoint, Format, WeightFiles};
use rust_eland::conversion::{Conversion, Options};
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use tempfile::TempDir;

/// Reads an input; a finding is a panic.
pub type Target = fn(&[u8]);

/// The targets, by name.
pub const ALL: [(&str, Target); 5] = [
    ("safetensors", safetensors),
    ("archive", archive),
    ("legacy", legacy),
    ("folder", folder),
    ("sentencepiece", sentencepiece),
];

/// The header of a safetensors file, and the tensors that it tells of.
pub fn safetensors(input: &[u8]) {
    weights(Format::Safetensors, input);
}

/// A zip file as it is; anything else as the pickle within one.
pub fn archive(input: &[u8]) {
    if input.starts_with(b"PK") {
        weights(Format::Pytorch, input);
    } else {
        let storage = [1; 64];
        let entries = [("a/data.pkl", input), ("a/data/0", &storage), ("a/data/1", &storage)];
        weights(Format::Pytorch, &zip(&entries));
    }
}

/// The five pickles and the storages of a legacy file.
pub fn legacy(input: &[u8]) {
    weights(Format::Pytorch, input);
}

/// The JSON and text files of a model, whose names [`FILES`] has. The input is taken apart at the byte 0xff, which no text holds;
/// the letter behind it says which file comes.
pub fn folder(input: &[u8]) {
    let folder = scratch();
    for section in input.split(|&byte| byte == 0xff) {
        let Some((letter, content)) = section.split_first() else { continue };
        let Some(name) = FILES.get(usize::from(letter.wrapping_sub(b'a'))) else { continue };
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    // No tensor at all: every weight is missing, so that all of it is asked for and nothing is built.
    fs::write(folder.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    for task in [None, Some(Task::TextEmbedding)] {
        let options = Options { task, ..Options::default() };
        drop(Conversion::read(&files, options, &rust_eland::observer::Progress::quiet()));
    }
}

/// The letters a, b and so on.
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

/// A SentencePiece model, read as each of the classes that have one would.
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

/// Opens weights and reads every tensor.
fn weights(format: Format, input: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("weights");
    fs::write(&path, input).unwrap();
    let Ok(checkpoint) = Checkpoint::open(&WeightFiles::one(format, path)) else { return };
    let weights = checkpoint.weights();
    for (name, shape) in checkpoint.tensors() {
        drop(weights.tensor(name, shape));
    }
    drop(checkpoint.finish());
}

/// A folder in memory where the system has one.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A zip file of stored entries, without checksums: nobody looks at them.
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
