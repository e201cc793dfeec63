//! Detection of a folder's architecture by `config.json` and the tensors of the checkpoint.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ARCHITECTURES, Architecture};
use crate::checkpoint::Checkpoint;

/// Shapes of the tensors of a checkpoint, by name.
pub type TensorShapes = BTreeMap<String, Vec<i64>>;

/// What a folder reveals about its architecture.
///
/// `model_type` alone does not determine an architecture: JinaBERT v2 has the `model_type` `bert` with other tensors. `auto_map` is no
/// evidence, because it names code that may or may not differ from Transformers.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// `model_type` in `config.json`.
    pub model_type: Option<&'a str>,
    /// Transformers classes in `architectures` of `config.json`.
    pub classes: &'a [String],
    /// Tensors of the checkpoint. `None` if they are unknown before a download.
    pub tensors: Option<&'a TensorShapes>,
}

impl Evidence<'_> {
    /// Whether `config.json` states the `model_type`.
    #[must_use]
    pub fn is(&self, model_type: &str) -> bool {
        self.model_type == Some(model_type)
    }

    /// Whether `config.json` states no `model_type`, and a tensor has one of `parts` in its name. Parts begin and end with a dot.
    #[must_use]
    pub fn is_untyped_with(&self, parts: &[&str]) -> bool {
        self.model_type.is_none() && parts.iter().any(|part| self.has_tensor(part))
    }

    /// Whether a tensor has `part` in its name. A part begins and ends with a dot.
    #[must_use]
    pub fn has_tensor(&self, part: &str) -> bool {
        self.tensors
            .is_some_and(|tensors| tensors.keys().any(|name| format!(".{name}.").contains(part)))
    }

    /// Rows of the first tensor whose name ends with `end`.
    #[must_use]
    pub fn rows_of_tensor(&self, end: &str) -> Option<i64> {
        let (_, shape) = self.tensors?.iter().find(|(name, _)| name.ends_with(end))?;
        shape.first().copied()
    }
}

/// Names and shapes of the tensors of a checkpoint.
#[must_use]
pub fn tensor_shapes(checkpoint: &Checkpoint) -> TensorShapes {
    let tensors = checkpoint.tensors().iter();
    tensors.map(|(name, stored)| (name.clone(), stored.slice.shape.clone())).collect()
}

impl Architecture {
    /// The architecture of a folder: the first in the table that detects the evidence.
    #[must_use]
    pub fn detect(evidence: &Evidence<'_>) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|known| (known.detects)(evidence))
    }

    /// The architecture of a Transformers class, such as `BertForMaskedLM`.
    #[must_use]
    pub fn of_class(class: &str) -> Option<&'static Self> {
        let follows = |rest: &str| {
            ["For", "Model", "Context", "Question", "Pre", "LM"]
                .iter()
                .any(|part| rest.starts_with(part))
        };
        ARCHITECTURES.iter().find(|known| class.strip_prefix(known.class).is_some_and(follows))
    }
}
