//! fill_mask: prediction of a masked word.

use super::{Definition, TextForm};
use crate::config::Head;

/// Returns logits `[batch, tokens, vocabulary]`; the server uses the row of the mask.
pub(super) struct FillMask;

impl Definition for FillMask {
    fn name(&self) -> &'static str {
        "fill_mask"
    }

    fn head(&self) -> Head {
        Head::MaskedLm
    }

    fn text_form(&self) -> TextForm {
        TextForm::Masked
    }
}
