//! Files of a tokenizer that a test builds, and what Elasticsearch's tokenizer for their upload computes.

use std::fs;

use rust_eland::config::ModelConfig;
use rust_eland::server_tokenization::{Settings, Tokenizer as ServerTokenizer};
use rust_eland::source::ModelFiles;
use rust_eland::tokenizer::{ModelTokenizer, Tokenizer, TokenizerError};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `tokenizer_config.json` and `tokenizer.json` of a ModernBERT.
pub struct Files {
    pub config: Value,
    pub tokenizer: Value,
}

impl Files {
    pub fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("config.json", &json!({"model_type": "modernbert"})),
            ("tokenizer_config.json", &self.config),
            ("tokenizer.json", &self.tokenizer),
        ] {
            fs::write(folder.path().join(name), content.to_string()).unwrap();
        }
        folder
    }

    pub fn read(&self) -> Result<Tokenizer, TokenizerError> {
        let folder = self.write();
        let files = ModelFiles::open(folder.path()).unwrap();
        Tokenizer::read(&files, &ModelConfig::read(&files).unwrap())
    }

    /// The model's own tokenizer.
    pub fn model(&self) -> ModelTokenizer {
        let folder = self.write();
        ModelTokenizer::read(&ModelFiles::open(folder.path()).unwrap(), 512).unwrap().unwrap()
    }
}

/// Elasticsearch's tokenizer for an upload.
pub fn server(tokenizer: &Tokenizer) -> ServerTokenizer {
    let settings = json!({ tokenizer.kind.name(): tokenizer.settings });
    let vocabulary = &tokenizer.vocabulary;
    ServerTokenizer::build(
        Settings::from_json(&settings).unwrap(),
        vocabulary.vocabulary.clone(),
        vocabulary.merges.as_deref().unwrap(),
        &[],
    )
    .unwrap()
}
