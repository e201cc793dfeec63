//! The model's own tokenizer: the library `tokenizers` with the model's `tokenizer.json`.

use tokenizers::{
    EncodeInput, Tokenizer as Library, TruncationDirection, TruncationParams, TruncationStrategy,
};

use super::tokenizer_json::NAME;
use super::{TokenizerError, bytes};
use crate::source::ModelFiles;

/// The tokenizer that the model was trained with, as the reference for Elasticsearch's tokenizer.
pub struct ModelTokenizer {
    library: Library,
}

impl ModelTokenizer {
    /// Reads `tokenizer.json`, if the model has one. Rows have at most `max_length` tokens; the longer text of a pair is truncated
    /// first.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file cannot be read or is not valid.
    pub fn read(files: &ModelFiles, max_length: usize) -> Result<Option<Self>, TokenizerError> {
        let Some(json) = bytes(files, NAME)? else { return Ok(None) };
        let broken = |reason: tokenizers::Error| TokenizerError::Broken {
            file: NAME,
            reason: reason.to_string(),
        };
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&json);
        let mut library = Library::from_bytes(json).map_err(broken)?;
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        library.with_truncation(Some(truncation)).map_err(broken)?;
        library.with_padding(None);
        Ok(Some(Self { library }))
    }

    /// Ids of a text or of a pair of texts, including special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] if the library cannot tokenize the text.
    pub fn ids(&self, text: &str, second: Option<&str>) -> Result<Vec<u32>, TokenizerError> {
        let input = match second {
            Some(second) => EncodeInput::Dual(text.into(), second.into()),
            None => EncodeInput::Single(text.into()),
        };
        let encoding = self.library.encode_fast(input, true);
        let encoding = encoding.map_err(|error| TokenizerError::Encoder(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.library.id_to_token(id)
    }
}
