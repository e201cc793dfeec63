//! ner: named entities in a text, with labels such as B-PER, I-PER, O.

use serde_json::{Map, Value};

use super::{Definition, Facts, ServedLabels, classification_labels};
use crate::config::Head;

/// Returns logits `[batch, tokens, labels]`.
pub(super) struct Ner;

impl Definition for Ner {
    fn name(&self) -> &'static str {
        "ner"
    }

    fn head(&self) -> Head {
        Head::TokenClassification
    }

    fn served_labels(&self, labels: &[String]) -> Result<ServedLabels, String> {
        ServedLabels::of_entities(labels)
    }

    fn configure(&self, facts: &Facts<'_>, config: &mut Map<String, Value>) {
        classification_labels(facts, config);
    }
}
