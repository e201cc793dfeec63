//! question_answering: where in a text the answer to a question stands.

use serde_json::{Map, Value};

use super::{Definition, neighbours};
use crate::config::Head;
use crate::tokenizer::{Encoder, Row, TokenizerError};

/// Logits of start and end, `[2, batch, tokens]`, of the pair question, text.
pub(super) struct QuestionAnswering;

/// A long text is read in windows of [`LENGTH`] tokens that overlap by this many.
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
        // A window must be longer than what it shares with the next, which a very short model needs less of.
        tokenization.insert("span".into(), SPAN.min(max_sequence_length / 3).into());
    }

    fn rows(&self, texts: &[String], encoder: &Encoder) -> Result<Vec<Row>, TokenizerError> {
        neighbours(texts, encoder)
    }
}
