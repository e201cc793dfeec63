//! question_answering: position of the answer to a question in a text.

use serde_json::{Map, Value};

use super::{Definition, TextForm};
use crate::config::Head;

/// Returns start and end logits `[2, batch, tokens]` for pairs of question and text.
pub(super) struct QuestionAnswering;

/// Overlap in tokens of the windows of [`LENGTH`] tokens in which a long text is read.
const SPAN: u32 = 128;
const LENGTH: u32 = 386;

impl Definition for QuestionAnswering {
    fn name(&self) -> &'static str {
        "question_answering"
    }

    fn head(&self) -> Head {
        Head::QuestionAnswering
    }

    fn pair(&self) -> bool {
        true
    }

    fn max_sequence_length(&self) -> Option<u32> {
        Some(LENGTH)
    }

    fn tokenize(&self, max_sequence_length: u32, tokenization: &mut Map<String, Value>) {
        tokenization.insert("truncate".into(), "none".into());
        // A window must be longer than its overlap with the next one. Very short models need a smaller overlap.
        tokenization.insert("span".into(), SPAN.min(max_sequence_length / 3).into());
    }

    fn text_form(&self) -> TextForm {
        TextForm::Neighbours
    }
}
