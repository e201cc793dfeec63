//! ner: the entities in a text, by labels of the kind B-PER, I-PER, O.

use serde_json::{Map, Value};

use super::{Definition, Facts, classification_labels};
use crate::config::Head;

/// Logits `[batch, tokens, labels]`.
pub(super) struct Ner;

impl Definition for Ner {
    fn name(&self) -> &'static str {
        "ner"
    }

    fn head(&self) -> Head {
        Head::TokenClassification
    }

    /// As the server does (contract 2.4): every label begins with I, B or is O, and one is O.
    fn check_labels(&self, labels: &[String]) -> Result<(), String> {
        let iob = |label: &&String| {
            let label = label.to_uppercase();
            !(["I-", "B-", "I_", "B_"].iter().any(|begin| label.starts_with(begin))
                || label.starts_with('O'))
        };
        let wrong: Vec<_> = labels.iter().filter(iob).map(String::as_str).collect();
        if !wrong.is_empty() {
            return Err(format!(
                "Elasticsearch takes labels of the IOB form (B-PER, I-PER, O) only, not {}",
                wrong.join(", ")
            ));
        }
        if labels.iter().any(|label| label.eq_ignore_ascii_case("O")) {
            Ok(())
        } else {
            Err("Elasticsearch demands a label O for tokens outside of entities".into())
        }
    }

    fn configure(&self, facts: &Facts<'_>, config: &mut Map<String, Value>) {
        classification_labels(facts, config);
    }
}
