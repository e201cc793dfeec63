//! text_expansion: a weight for every token of the vocabulary (SPLADE, Formal et al. 2021, arXiv:2109.10086).

use super::Definition;
use crate::config::Head;

/// Returns `[batch, vocabulary]`: maximum over the tokens of log(1 + relu(logits)), for the uploaded vocabulary.
///
/// The server uses one row as the result, so pooling is part of the graph.
pub(super) struct TextExpansion;

impl Definition for TextExpansion {
    fn name(&self) -> &'static str {
        "text_expansion"
    }

    fn head(&self) -> Head {
        Head::MaskedLm
    }
}
