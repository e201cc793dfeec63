//! Refuses families of models that Elasticsearch cannot serve, by their small files and the names of their weights.

use serde_json::Value;

use super::ConversionError;
use crate::config::SentenceTransformers;
use crate::models::{Declared, TensorShapes};
use crate::source::ModelFiles;

/// Checks, by the small files of a model, that Elasticsearch can serve its family. The check runs before weights are downloaded. Missing
/// files are null.
///
/// # Errors
/// [`ConversionError::Family`] if it cannot.
pub fn check_family(
    config: &Value,
    tokenizer: &Value,
    modules: &Value,
    has_file: &dyn Fn(&str) -> bool,
) -> Result<(), ConversionError> {
    check(&Declared { config, tokenizer, modules, has_file, tensors: None })
}

/// Checks the files of a folder, and the tensors if they are known.
pub(super) fn check_files(
    files: &ModelFiles,
    tensors: Option<&TensorShapes>,
) -> Result<(), ConversionError> {
    let transformer = SentenceTransformers::read(files, None).ok().flatten();
    let transformer = transformer.map(|modules| modules.transformer).unwrap_or_default();
    // Other readers report files that are not valid.
    let folder = files.sub(&transformer).unwrap_or_else(|_| files.clone());
    let read = |files: &ModelFiles, name: &str| files.json::<Value>(name).ok().flatten();
    let [config, tokenizer] = ["config.json", "tokenizer_config.json"]
        .map(|name| read(&folder, name).unwrap_or_default());
    let modules = read(files, "modules.json").unwrap_or_default();
    let has_file = |name: &str| matches!(files.find(name), Ok(Some(_)));
    check(&Declared {
        config: &config,
        tokenizer: &tokenizer,
        modules: &modules,
        has_file: &has_file,
        tensors,
    })
}

fn check(declared: &Declared<'_>) -> Result<(), ConversionError> {
    match declared.refusal() {
        None => Ok(()),
        Some(refusal) => {
            Err(ConversionError::Family { family: refusal.family, reason: refusal.reason })
        }
    }
}
