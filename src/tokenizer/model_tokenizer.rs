//! The model's own tokenizer: the library `tokenizers` with the model's `tokenizer.json`.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::normalizers::Precompiled;
use tokenizers::{
    EncodeInput, Encoding, Tokenizer as Library, TruncationDirection, TruncationParams,
    TruncationStrategy,
};

use super::excerpt::excerpt;
use super::tokenizer_json::{NAME, is, parts, without_mark};
use super::{KeptTokens, Tokenizer, TokenizerError, bytes};
use crate::server_tokenization::Token;
use crate::source::ModelFiles;

/// The tokenizer that the model was trained with, as the reference for Elasticsearch's tokenizer.
pub struct ModelTokenizer {
    library: Library,
    adds_special_tokens: bool,
    kept: Option<KeptTokens>,
}

impl ModelTokenizer {
    /// Reads `tokenizer.json`, if the model has one. Rows have at most `max_length` tokens; the longer text of a pair is truncated
    /// first.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file cannot be read or is not valid.
    pub fn read(files: &ModelFiles, max_length: usize) -> Result<Option<Self>, TokenizerError> {
        file(files)?.map(|json| Self::parse(&json, max_length)).transpose()
    }

    /// Like [`read`](Self::read), with the right ids for these texts only. Large Unigram vocabularies are read faster, in less memory.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file cannot be read or is not valid.
    pub fn read_for(
        files: &ModelFiles,
        max_length: usize,
        texts: &[&str],
    ) -> Result<Option<Self>, TokenizerError> {
        let Some(json) = file(files)? else { return Ok(None) };
        match excerpt(without_mark(&json), texts) {
            Some(library) => Self::of(library, max_length).map(Some),
            None => Self::parse(&json, max_length).map(Some),
        }
    }

    fn parse(json: &[u8], max_length: usize) -> Result<Self, TokenizerError> {
        Self::of(Library::from_bytes(without_mark(json)).map_err(broken)?, max_length)
    }

    fn of(mut library: Library, max_length: usize) -> Result<Self, TokenizerError> {
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        library.with_truncation(Some(truncation)).map_err(broken)?;
        library.with_padding(None);
        Ok(Self { library, adds_special_tokens: true, kept: None })
    }

    /// The same tokenizer for the rows of an uploaded one: with its ids, and with special tokens if it has them.
    #[must_use]
    pub fn for_rows_of(self, uploaded: &Tokenizer) -> Self {
        let adds_special_tokens = uploaded.has_special_tokens();
        Self { adds_special_tokens, kept: uploaded.kept.clone(), ..self }
    }

    /// Ids of a text or of a pair of texts, including special tokens if the model reads them.
    ///
    /// # Errors
    /// [`TokenizerError`] if the library cannot tokenize the text.
    pub fn ids(&self, text: &str, second: Option<&str>) -> Result<Vec<u32>, TokenizerError> {
        let input = match second {
            Some(second) => EncodeInput::Dual(text.into(), second.into()),
            None => EncodeInput::Single(text.into()),
        };
        let encoding = self.library.encode_fast(input, self.adds_special_tokens);
        let encoding = encoding.map_err(|error| TokenizerError::Encoder(error.to_string()))?;
        Ok(encoding.get_ids().iter().map(|id| self.new_id(*id)).collect())
    }

    /// The tokens of a text, without special tokens. Pieces of a word have the number and the place of the word, as in the WordPiece and
    /// byte-pair tokenizers of the server.
    ///
    /// # Errors
    /// [`TokenizerError`] if the library cannot tokenize the text.
    pub fn tokens(&self, text: &str) -> Result<Vec<Token>, TokenizerError> {
        let (encoding, mut tokens) = self.encoded(text)?;
        let words = encoding.get_word_ids();
        // Numbers of the words of tokens that belong to no word, such as special tokens in the text.
        let mut alone = tokens.len();
        for (at, token) in tokens.iter_mut().enumerate() {
            token.word = words.get(at).copied().flatten().map_or_else(
                || {
                    alone += 1;
                    alone
                },
                |word| word as usize,
            );
        }
        for pieces in tokens.chunk_by_mut(|a, b| a.word == b.word) {
            let start = pieces.first().map_or(0, |piece| piece.place.start);
            let end = pieces.last().map_or(0, |piece| piece.place.end);
            pieces.iter_mut().for_each(|piece| piece.place = start..end.max(start));
        }
        Ok(tokens)
    }

    /// The tokens of a text, without special tokens. Each token counts as a word, as in the Unigram tokenizers of the server.
    ///
    /// # Errors
    /// [`TokenizerError`] if the library cannot tokenize the text.
    pub fn tokens_as_words(&self, text: &str) -> Result<Vec<Token>, TokenizerError> {
        Ok(self.encoded(text)?.1)
    }

    /// The encoding of a text, and its tokens with their own places. The number of a token is its position.
    fn encoded(&self, text: &str) -> Result<(Encoding, Vec<Token>), TokenizerError> {
        let encoding = self.library.encode(text, false);
        let encoding = encoding.map_err(|error| TokenizerError::Encoder(error.to_string()))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets()).enumerate();
        let tokens = tokens.map(|(word, (id, (start, end)))| Token {
            id: self.new_id(*id),
            word,
            place: place(text, *start, *end),
        });
        let tokens = tokens.collect();
        Ok((encoding, tokens))
    }

    /// The id of a token.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token).map(|id| self.new_id(id))
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        let id = self.kept.as_ref().map_or(Some(id), |kept| kept.model_id(id))?;
        self.library.id_to_token(id)
    }

    /// The id in the uploaded vocabulary.
    fn new_id(&self, id: u32) -> u32 {
        self.kept.as_ref().map_or(id, |kept| kept.new_id(id))
    }
}

/// The steps of a tokenizer that are checked before the library reads the file.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
}

/// Reads the file, and checks SentencePiece's tables, because the library panics if it cannot read one.
fn file(files: &ModelFiles) -> Result<Option<Vec<u8>>, TokenizerError> {
    let Some(json) = bytes(files, NAME)? else { return Ok(None) };
    if let Ok(steps) = serde_json::from_slice::<Steps>(without_mark(&json)) {
        let all = parts(&steps.normalizer, "normalizers");
        for table in all.into_iter().filter(|part| is(part, "Precompiled")) {
            serde_json::from_str::<Precompiled>(&table.to_string()).map_err(broken)?;
        }
    }
    Ok(Some(json))
}

fn broken(reason: impl ToString) -> TokenizerError {
    TokenizerError::Broken { file: NAME, reason: reason.to_string() }
}

/// The place of a token in a text, at boundaries of characters and without the blanks before the token.
fn place(text: &str, start: usize, end: usize) -> Range<usize> {
    let start = (0..=start.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at));
    let (start, end) = (start.unwrap_or(0), end.unwrap_or(text.len()));
    let found = text.get(start..end).unwrap_or_default();
    let start = start + found.len() - found.trim_start().len();
    start..end.max(start)
}
