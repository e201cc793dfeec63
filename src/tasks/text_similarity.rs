//! text_similarity: score of a text for a query (cross-encoders, rerankers).

use serde_json::{Map, Value};

use super::{Definition, ServedLabels, TextForm};
use crate::config::Head;

/// Returns one raw score per row, `[batch, 1]`, for pairs of query and text.
pub(super) struct TextSimilarity;

impl Definition for TextSimilarity {
    fn name(&self) -> &'static str {
        "text_similarity"
    }

    fn head(&self) -> Head {
        Head::SequenceClassification
    }

    fn pair(&self) -> bool {
        true
    }

    fn served_labels(&self, labels: &[String]) -> Result<ServedLabels, String> {
        if labels.len() == 1 {
            Ok(ServedLabels::default())
        } else {
            Err(format!(
                "Elasticsearch requires a model with one score, but this model has {} labels",
                labels.len()
            ))
        }
    }

    /// A long document is truncated, but never the query.
    fn tokenize(&self, _max_sequence_length: u32, tokenization: &mut Map<String, Value>) {
        tokenization.insert("truncate".into(), "second".into());
    }

    fn text_form(&self) -> TextForm {
        TextForm::Neighbours
    }
}
