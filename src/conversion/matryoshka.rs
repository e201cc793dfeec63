//! Matryoshka embeddings, whose leading components are embeddings of their own (Kusupati et al. 2022, arXiv:2205.13147).

use serde_json::Value;

use super::description::Description;
use super::{ConversionError, Options, model_card};
use crate::config::{ModelConfig, Usage};
use crate::source::ModelFiles;
use crate::tasks::{Embedder, Task};

/// Beginning of the names of repositories whose card applies a LayerNorm without weights before the cut (nomic-embed-text-v1.5). The card of
/// the model states this; no file does.
const STANDARDIZED: &str = "nomic-embed-text-v1.5";

/// What a model's files declare about cutting its embeddings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Matryoshka {
    /// Numbers of dimensions that the files list, sorted.
    pub(super) dimensions: Vec<i64>,
    /// The key and the file with the list.
    source: &'static str,
    /// Whether any number is suitable, because the components are sorted by their variance (PCA).
    is_sorted: bool,
    /// Whether the model card names Matryoshka embeddings.
    is_in_card: bool,
    /// Whether a LayerNorm without weights precedes the cut.
    is_standardized: bool,
}

impl Matryoshka {
    /// Reads the declarations of a model. `name` is the name of its repository or folder.
    pub(super) fn read(
        files: &ModelFiles,
        config: &ModelConfig,
        usage: &Usage,
        name: Option<&str>,
    ) -> Self {
        let listed = config.json.get("matryoshka_dimensions").and_then(Value::as_array);
        let listed = listed.into_iter().flatten().filter_map(Value::as_i64);
        let mut dimensions: Vec<i64> = listed.filter(|dimension| *dimension > 0).collect();
        let mut source = "matryoshka_dimensions in config.json";
        if dimensions.is_empty() {
            dimensions.extend(usage.truncate_dim.filter(|dimension| *dimension > 0));
            source = "truncate_dim in config_sentence_transformers.json";
        }
        dimensions.sort_unstable();
        dimensions.dedup();
        let pca = config.json.get("apply_pca");
        let name = name.and_then(|name| name.rsplit('/').next()).unwrap_or_default();
        Self {
            dimensions,
            source,
            is_sorted: pca.is_some_and(|pca| *pca != Value::Bool(false)),
            is_in_card: model_card::mentions(files, "matryoshka"),
            is_standardized: name.to_lowercase().starts_with(STANDARDIZED),
        }
    }

    /// Cuts the embeddings of a model to the number of dimensions that the options request. Returns a note on the quality of the result,
    /// unless the model's files declare this number.
    pub(super) fn cut(
        &self,
        embedder: &mut Embedder,
        asked: u32,
    ) -> Result<Option<String>, ConversionError> {
        let size = embedder.size();
        let dimensions = i64::from(asked);
        if dimensions < 1 || dimensions > size {
            return Err(ConversionError::Dimensions { asked, size });
        }
        embedder.cut(dimensions, self.is_standardized);
        if dimensions == size || self.is_sorted || self.dimensions.contains(&dimensions) {
            return Ok(None);
        }
        let measure = "compare the search results with those of all dimensions";
        Ok(Some(if self.is_standardized || (self.dimensions.is_empty() && self.is_in_card) {
            format!(
                "the model card describes Matryoshka embeddings; check that it lists {dimensions} dimensions"
            )
        } else if self.dimensions.is_empty() {
            format!(
                "no file of the model declares that its embeddings can be cut (Matryoshka), so {dimensions} of {size} dimensions can lose much of \
                 the meaning: {measure}"
            )
        } else {
            let listed: Vec<_> = self.dimensions.iter().map(i64::to_string).collect();
            format!(
                "the model does not declare {dimensions} dimensions, only {} ({}): {measure}",
                listed.join(", "),
                self.source
            )
        }))
    }
}

impl Options {
    /// Checks that a task returns embeddings if the options cut them.
    pub(super) fn check_dimensions(&self, task: Task) -> Result<(), ConversionError> {
        match self.dimensions {
            Some(_) if task != Task::TextEmbedding => Err(ConversionError::NoEmbeddings { task }),
            _ => Ok(()),
        }
    }
}

impl Description {
    /// What the files declare about cutting embeddings.
    pub(super) fn matryoshka(&self, options: &Options) -> Matryoshka {
        let name = super::description::name(&self.files, options);
        Matryoshka::read(&self.files, &self.config, &self.usage, name.as_deref())
    }
}
