//! `config.json` (`PretrainedConfig` in Transformers).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::source::{ModelFiles, SourceError};

/// What every model's `config.json` says, whatever its architecture.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// All of it, for the architecture to read its own fields.
    pub json: Value,
    /// Names the architecture.
    pub model_type: Option<String>,
    /// The Transformers classes that the file was saved from.
    pub architectures: Vec<String>,
    /// The tokenizer's class, in some old repositories.
    pub tokenizer_class: Option<String>,
    /// The names of the labels, in the order of their ids.
    pub labels: Vec<String>,
}

#[derive(Deserialize)]
struct Fields {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    tokenizer_class: Option<String>,
    id2label: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
}

/// More labels than any model has, few enough to make default names for.
const MAX_LABELS: usize = 1 << 20;

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When it is not there or not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let json: Value = files.required_json(
            "config.json",
            "a Transformers model needs it to say what it is; is this the folder of the model itself?",
        )?;
        Self::parse(json).map_err(|source| SourceError::Json {
            path: files.folder().join("config.json"),
            source,
        })
    }

    /// Takes what `config.json` holds.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn parse(json: Value) -> Result<Self, serde_json::Error> {
        let fields = Fields::deserialize(&json)?;
        let labels =
            labels(fields.id2label, fields.num_labels).map_err(serde::de::Error::custom)?;
        Ok(Self {
            model_type: fields.model_type,
            architectures: fields.architectures.unwrap_or_default(),
            tokenizer_class: fields.tokenizer_class,
            labels,
            json,
        })
    }

    /// The class of the repository's own code that is to be run for this model (`auto_map`), if there is any.
    #[must_use]
    pub fn own_code(&self) -> Option<&str> {
        let map = self.json.get("auto_map")?.as_object()?;
        // A configuration class alone says nothing of how the model computes.
        let models = map.iter().filter(|(auto, _)| auto.starts_with("AutoModel"));
        models.filter_map(|(_, class)| class.as_str()).next()
    }
}

/// Labels in the order of their ids. As in Transformers, `num_labels` wins over an `id2label` of another length, and where neither is
/// given there are two.
fn labels(
    id2label: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
) -> Result<Vec<String>, String> {
    let defaults = |n: usize| (0..n).map(|i| format!("LABEL_{i}")).collect();
    match (id2label, num_labels) {
        (_, Some(n)) if n > MAX_LABELS => Err(format!("num_labels is {n}, which no model has")),
        (Some(named), n) if n.is_none_or(|n| n == named.len()) => {
            let mut by_id = BTreeMap::new();
            for (id, label) in named {
                let id: usize = id.parse().map_err(|_| format!("id2label: {id:?} is not an id"))?;
                let label = match label {
                    Value::String(label) => label,
                    other => other.to_string(),
                };
                by_id.insert(id, label);
            }
            match by_id.keys().enumerate().find(|(i, id)| i != *id) {
                Some((i, _)) => Err(format!("id2label names no label for id {i}")),
                None => Ok(by_id.into_values().collect()),
            }
        }
        (_, n) => Ok(defaults(n.unwrap_or(2))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(id2label: Value, num_labels: Option<usize>) -> Result<Vec<String>, String> {
        labels(serde_json::from_value(id2label).unwrap(), num_labels)
    }

    #[test]
    fn labels_come_in_the_order_of_their_ids() {
        let many: serde_json::Map<_, _> =
            (0..12).map(|i| (i.to_string(), json!(format!("L{i}")))).collect();
        assert_eq!(read(many.into(), None).unwrap()[9..], ["L9", "L10", "L11"]);
        assert_eq!(read(json!(null), Some(3)).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        assert_eq!(read(json!({"0": "a"}), Some(2)).unwrap(), ["LABEL_0", "LABEL_1"]);
        assert_eq!(read(json!(null), None).unwrap().len(), 2);
        assert!(read(json!({"0": "a", "2": "b"}), None).is_err());
        assert!(read(json!({"x": "a"}), None).is_err());
    }
}
