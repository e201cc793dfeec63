//! Ids of the tokens that mark the structure of a text.

/// Ids of the tokens that mark structure, as positions in the uploaded vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Padding. Elasticsearch fills short rows with this id, in `input_ids` and in the attention mask.
    pub padding: i64,
    /// The separator, which ends the first text and, if there is one, the second.
    pub separator: i64,
}
