//! Ids of the tokens that the graph treats specially.

/// Ids of the tokens that the graph treats specially, as positions in the uploaded vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Padding. Elasticsearch fills short rows with this id, in `input_ids` and in the attention mask.
    pub padding: i64,
    /// The separator, which ends the first text and, if there is one, the second.
    pub separator: i64,
    /// The tokens at the end of the uploaded vocabulary that the model does not have.
    pub appended: Option<AppendedTokens>,
    /// The tokens that were appended because Elasticsearch requires them, if there are any.
    pub without_embedding: Option<WithoutEmbedding>,
}

/// Tokens at the end of the uploaded vocabulary that the model has no embeddings for: `<unk>`, `<pad>` or both for byte-level BPE, and `<s>`
/// for T5. Texts do not contain such an `<unk>`, `<pad>` is behind the mask, and `<s>` begins a row, where the graph drops the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WithoutEmbedding {
    /// The first id without an embedding. All larger ids have none either.
    pub first: i64,
    /// The id that replaces them elsewhere.
    pub replacement: i64,
}

/// Tokens at the end of the uploaded vocabulary that the model does not have. With them, Elasticsearch's rows contain what the graph
/// needs to compute the rows of the model's own tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendedTokens {
    /// `<0x00>` to `<0xFF>`, for `deberta_v2`. Elasticsearch replaces each byte of a character outside the vocabulary by one of these
    /// tokens. The model's own tokenizer replaces all adjacent characters outside the vocabulary by one unknown token.
    Bytes {
        /// The id of the first appended token.
        first: i64,
        /// The id of the unknown token.
        unknown: i64,
    },
    /// White space, for `bert_ja`. Elasticsearch returns white space as tokens; the model's own tokenizer drops white space.
    Blanks {
        /// The id of the first appended token.
        first: i64,
    },
}

impl AppendedTokens {
    /// The id of the first appended token. All larger ids are appended tokens, too.
    #[must_use]
    pub fn first(self) -> i64 {
        match self {
            Self::Bytes { first, .. } | Self::Blanks { first } => first,
        }
    }

    /// The ids that the graph passes to the model for a row of Elasticsearch, without the padding at the end.
    #[must_use]
    pub fn model_ids(self, server: &[u32]) -> Vec<u32> {
        let is_appended = |id: u32| i64::from(id) >= self.first();
        let mut ids = Vec::with_capacity(server.len());
        let mut previous = false;
        for &id in server {
            let appended = is_appended(id);
            match self {
                Self::Bytes { unknown, .. } if appended && !previous => {
                    ids.push(u32::try_from(unknown).unwrap_or(id));
                }
                _ if appended => (),
                _ => ids.push(id),
            }
            previous = appended;
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_of_bytes_becomes_one_unknown_token_and_blanks_disappear() {
        let row = [1, 7, 10, 11, 8, 12, 3, 13, 2];
        let bytes = AppendedTokens::Bytes { first: 10, unknown: 3 };
        assert_eq!(bytes.model_ids(&row), [1, 7, 3, 8, 3, 3, 3, 2]);
        assert_eq!(AppendedTokens::Blanks { first: 10 }.model_ids(&row), [1, 7, 8, 3, 2]);
    }
}
