//! What a model's bundle is made from, as one SHA-256: two imports with the same one make the same bundle, so that the second need
//! not be made to know it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::conversion::Options;
use crate::hexadecimal::hexadecimal;
use crate::source::Origin;

/// Files of a model's folder that no import reads.
const UNREAD: [&str; 9] = ["gguf", "h5", "md", "msgpack", "onnx", "ot", "png", "py", "tflite"];

/// The deepest folder in a model's that is looked at.
const DEEPEST: usize = 4;

/// The SHA-256 of files, options and program. None where one of them cannot be read.
///
/// Files of the hub, for which no folder is given, are known by the commit that the options name.
#[must_use]
pub fn fingerprint(folder: Option<&Path>, options: &Options, title: &str) -> Option<String> {
    // What is added to the options must be added here.
    let Options {
        task,
        max_length,
        ingest_prefix,
        search_prefix,
        prompts,
        target,
        origin,
        quantize,
        no_verify: _,
    } = options;
    let files = match (folder, origin) {
        (Some(folder), _) => files(folder).ok()?,
        (None, Some(Origin { model_id, commit })) => json!({"id": model_id, "commit": commit}),
        (None, None) => return None,
    };
    let quantize = quantize
        .as_ref()
        .map(|it| json!({"texts": it.texts.as_deref(), "least": it.min_agreement}));
    let all = json!({
        "program": program().ok()?,
        "files": files,
        "origin": origin.as_ref().map(ToString::to_string),
        "title": title,
        "task": task.map(|task| task.name()),
        "max_length": max_length,
        "ingest_prefix": ingest_prefix,
        "search_prefix": search_prefix,
        "prompts": prompts,
        "target": target.to_string(),
        "quantize": quantize,
    });
    Some(hexadecimal(&Sha256::digest(all.to_string())))
}

/// The program itself: another one may make another graph.
fn program() -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(std::env::current_exe()?)?, &mut hash)?;
    Ok(format!("{} {}", hexadecimal(&hash.finalize()), build_info::LIBTORCH))
}

/// The names in a folder, and what they hold.
fn files(folder: &Path) -> io::Result<Value> {
    let mut paths = Vec::new();
    list(folder, DEEPEST, &mut paths)?;
    paths.sort();
    let mut all = serde_json::Map::new();
    for path in paths {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(&path)?, &mut hash)?;
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        all.insert(name, hexadecimal(&hash.finalize()).into());
    }
    Ok(all.into())
}

fn list(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_unread =
            path.extension().is_some_and(|it| UNREAD.iter().any(|unread| it == *unread));
        // Links count as what they lead to.
        let metadata = fs::metadata(&path)?;
        if is_hidden || metadata.is_file() && is_unread {
            continue;
        }
        if metadata.is_file() {
            paths.push(path);
        } else if metadata.is_dir() && depth > 0 {
            list(&path, depth - 1, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_bundle_changes_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("config.json"), "{}").unwrap();
        let of = |options: &Options, title: &str| fingerprint(Some(path), options, title).unwrap();
        let plain = Options::default();
        let first = of(&plain, "a");
        assert_eq!(first, of(&plain, "a"));
        assert_eq!(first, of(&Options { no_verify: true, ..plain.clone() }, "a"));
        let others = [
            Options { task: Some(crate::tasks::Task::Ner), ..plain.clone() },
            Options { max_length: Some(7), ..plain.clone() },
            Options { search_prefix: Some("q: ".into()), ..plain.clone() },
            Options { ingest_prefix: Some("q: ".into()), ..plain.clone() },
            Options { quantize: Some(Default::default()), ..plain.clone() },
            Options { target: "8.17.0".parse().unwrap(), ..plain.clone() },
        ];
        let mut all: Vec<_> = others.iter().map(|options| of(options, "a")).collect();
        all.push(of(&plain, "b"));
        fs::write(path.join("README.md"), "of no interest").unwrap();
        assert_eq!(first, of(&plain, "a"));
        fs::write(path.join("config.json"), "{ }").unwrap();
        all.push(of(&plain, "a"));
        fs::create_dir(path.join("1_Pooling")).unwrap();
        fs::write(path.join("1_Pooling/config.json"), "{}").unwrap();
        all.push(of(&plain, "a"));
        all.push(first);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}
