//! fill_mask: prediction of a masked word.

use super::Definition;
use crate::config::Head;
use crate::tokenizer::{Encoder, Row, TokenizerError};

/// Returns logits `[batch, tokens, vocabulary]`; the server uses the row of the mask.
pub(super) struct FillMask;

impl Definition for FillMask {
    fn name(&self) -> &'static str {
        "fill_mask"
    }

    fn head(&self) -> Head {
        Head::MaskedLm
    }

    fn rows(&self, texts: &[String], encoder: &Encoder) -> Result<Vec<Row>, TokenizerError> {
        texts.iter().map(|text| encoder.masked(text)).collect()
    }
}
