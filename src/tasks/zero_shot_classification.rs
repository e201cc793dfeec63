//! zero_shot_classification: whether a text entails a hypothesis that contains a label from the request.

use serde_json::{Map, Value};

use super::{Definition, Facts, ServedLabels, TextForm, classification_labels};
use crate::config::Head;

/// Returns logits `[batch, 3]` for pairs of text and hypothesis.
pub(super) struct ZeroShotClassification;

/// Topics for example hypotheses.
const TOPICS: [&str; 8] =
    ["politics", "sport", "business", "health", "travel", "technology", "food", "art"];

impl Definition for ZeroShotClassification {
    fn name(&self) -> &'static str {
        "zero_shot_classification"
    }

    fn head(&self) -> Head {
        Head::SequenceClassification
    }

    fn pair(&self) -> bool {
        true
    }

    fn served_labels(&self, labels: &[String]) -> Result<ServedLabels, String> {
        ServedLabels::of_inference(labels)
    }

    fn configure(&self, facts: &Facts<'_>, config: &mut Map<String, Value>) {
        classification_labels(facts, config);
        if facts.lower_cases {
            // The default begins with a capital letter, which such a vocabulary does not have.
            config.insert("hypothesis_template".to_owned(), "this example is {}.".into());
        }
    }

    fn text_form(&self) -> TextForm {
        TextForm::Hypotheses(&TOPICS)
    }
}
