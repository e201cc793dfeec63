//! Keys of a repository's configuration files: applied, without effect, or not understood.
//!
//! The table is `keys.tsv`. `tests/fixtures/keys.py` lists the keys of the pinned libraries, and `tests/suite/keys.rs` compares
//! that list with the table. A key without a row is not understood.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{ModelConfig, SentenceTransformers};
use crate::source::ModelFiles;

const TOKENIZER: &str = "tokenizer.json";

const TABLE: &str = include_str!("keys.tsv");

/// A key that may change what the model computes, and is not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredKey {
    /// The file.
    pub file: String,
    /// The key.
    pub key: String,
    /// What the key does, if that is known.
    pub effect: Option<&'static str>,
}

impl fmt::Display for IgnoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, key, effect } = self;
        match effect {
            Some(effect) => write!(f, "{key} in {file} {effect}"),
            None => write!(f, "{key} in {file} is not understood"),
        }
    }
}

/// A row of the table.
struct Row {
    handling: &'static str,
    /// A value (as JSON) that has no effect, in addition to null.
    no_effect: &'static str,
    reason: &'static str,
}

fn row(file: &str, key: &str) -> Option<Row> {
    TABLE.lines().skip(1).find_map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        ((next(), next()) == (file, key)).then(|| Row {
            handling: next(),
            no_effect: next(),
            reason: next(),
        })
    })
}

/// Whether the table has a row for a key. `kind` is the name of a file, or of a module's class for the `config.json` of a module.
#[must_use]
pub fn is_known(kind: &str, key: &str) -> bool {
    row(kind, key).is_some()
}

/// How the table handles a key: `read`, `harmless` or `effect`. None if it has no row.
#[must_use]
pub fn handling(kind: &str, key: &str) -> Option<&'static str> {
    row(kind, key).map(|row| row.handling)
}

/// Whether a value has no effect. Of two lists, all elements of the second must be in the first.
fn is_harmless(harmless: &Value, value: &Value) -> bool {
    match (harmless, value) {
        (Value::Array(harmless), Value::Array(values)) => {
            values.iter().all(|value| harmless.contains(value))
        }
        _ => harmless == value,
    }
}

/// The keys of an object that are not applied. `kind` selects the rows of the table; `file` is the name for messages.
fn ignored(kind: &str, file: &str, object: &Map<String, Value>) -> Vec<IgnoredKey> {
    let ignored = |(key, value): (&String, &Value)| {
        let effect = match row(kind, key) {
            _ if value.is_null() => return None,
            Some(Row { handling: "effect", no_effect, reason }) => {
                let harmless: Option<Value> = serde_json::from_str(no_effect).ok();
                if harmless.is_some_and(|harmless| is_harmless(&harmless, value)) {
                    return None;
                }
                Some(reason)
            }
            Some(_) => return None,
            None => None,
        };
        Some(IgnoredKey { file: file.to_owned(), key: key.clone(), effect })
    };
    object.iter().filter_map(ignored).collect()
}

/// Keys of a model's files that are not applied. `folder` contains the transformer. Missing or invalid files are skipped, because
/// their readers report them.
#[must_use]
pub fn ignored_keys(
    files: &ModelFiles,
    folder: &ModelFiles,
    modules: Option<&SentenceTransformers>,
) -> Vec<IgnoredKey> {
    let mut all = Vec::new();
    let mut review = |kind: &str, file: &str, folder: &ModelFiles, name: &str| {
        if let Ok(Some(object)) = folder.json::<Map<String, Value>>(name) {
            all.extend(ignored(kind, file, &object));
        }
    };
    let is_table = modules.is_some_and(SentenceTransformers::is_token_table);
    let config = match ModelConfig::read(folder) {
        _ if is_table => "SparseStaticEmbedding",
        Ok(config) if config.is_model2vec() => "model2vec",
        _ => "config.json",
    };
    for (kind, name) in [
        (config, "config.json"),
        ("tokenizer_config.json", "tokenizer_config.json"),
        ("special_tokens_map.json", "special_tokens_map.json"),
        ("sentence_bert_config.json", "sentence_bert_config.json"),
    ] {
        review(kind, name, folder, name);
    }
    let router = modules.and_then(SentenceTransformers::router_folder);
    if let Some(Ok(folder)) = router.map(|folder| files.sub(folder)) {
        review("router_config.json", "router_config.json", &folder, "router_config.json");
    }
    let usage = crate::source::SENTENCE_TRANSFORMERS_CONFIG;
    review(usage, usage, files, usage);
    for (class, path) in modules.iter().flat_map(|modules| modules.classes()) {
        if let Ok(folder) = files.sub(path) {
            review(class, &format!("{path}/config.json"), &folder, "config.json");
        }
    }
    if let Ok(Some(text)) = folder.text(TOKENIZER) {
        // Only the keys are parsed, because the values can take hundreds of megabytes.
        let keys: BTreeMap<String, IgnoredAny> = serde_json::from_str(&text).unwrap_or_default();
        let object = keys.into_keys().map(|key| (key, Value::Bool(true))).collect();
        all.extend(ignored(TOKENIZER, TOKENIZER, &object));
    }
    if let Ok(Some(entries)) = files.json::<Vec<Map<String, Value>>>("modules.json") {
        for entry in entries {
            all.extend(ignored("modules.json", "modules.json", &entry));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn review(object: Value) -> Vec<String> {
        let Value::Object(object) = object else { return Vec::new() };
        ignored("config.json", "config.json", &object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn key_without_a_row_is_not_understood() {
        let found = review(json!({"hidden_size": 3, "new_key": 1, "old_key": null}));
        assert_eq!(found, ["new_key in config.json is not understood"]);
    }

    #[test]
    fn key_with_an_effect_is_reported_unless_its_value_has_none() {
        assert!(review(json!({"tie_encoder_decoder": false})).is_empty());
        let found = review(json!({"tie_encoder_decoder": true}));
        assert!(found[0].starts_with("tie_encoder_decoder in config.json ties"), "{found:?}");
    }

    #[test]
    fn every_row_has_a_handling_and_a_reason() {
        for line in TABLE.lines().skip(1) {
            let columns: Vec<_> = line.split('\t').collect();
            let [_, _, handling, _, reason] = columns[..] else { panic!("{line}") };
            assert!(matches!(handling, "read" | "harmless" | "effect"), "{line}");
            assert_eq!(handling == "read", reason.is_empty(), "{line}");
        }
    }
}
