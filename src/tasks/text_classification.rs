//! text_classification: the class of a text.

use serde_json::{Map, Value};

use super::{Definition, Facts, ServedLabels, classification_labels};
use crate::config::Head;

/// Returns logits `[batch, labels]`, to which the server applies softmax.
pub(super) struct TextClassification;

impl Definition for TextClassification {
    fn name(&self) -> &'static str {
        "text_classification"
    }

    fn head(&self) -> Head {
        Head::SequenceClassification
    }

    fn served_labels(&self, labels: &[String]) -> Result<ServedLabels, String> {
        if labels.len() >= 2 {
            Ok(ServedLabels::unchanged(labels))
        } else {
            Err(format!(
                "Elasticsearch requires at least two labels, but the model has {}",
                labels.len()
            ))
        }
    }

    fn configure(&self, facts: &Facts<'_>, config: &mut Map<String, Value>) {
        classification_labels(facts, config);
    }
}
