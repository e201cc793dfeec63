//! fill_mask: the word that a mask stands for.

use super::Definition;
use crate::models::Head;

/// Logits `[batch, tokens, vocabulary]`; the server reads the row at the mask.
pub(super) struct FillMask;

impl Definition for FillMask {
    fn name(&self) -> &'static str {
        "fill_mask"
    }

    fn head(&self) -> Head {
        Head::MaskedLm
    }
}
