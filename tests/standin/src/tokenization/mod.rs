//! Text to token ids as the server does it (contract, 3). Written from the contract and the server's documented behaviour, apart from
//! the importer's own tokenizers, so that one can find the other's mistakes.

mod layout;
mod special_tokens;
mod word_piece;

pub(crate) use layout::Row;

use std::ops::Range;

use crate::configuration::tokenization::{self as settings, Tokenization};
use crate::errors::ApiError;
use crate::vocabulary::Vocabulary;
use special_tokens::SpecialTokens;
use word_piece::WordPiece;

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    /// Which word of the text it belongs to; pieces of a word share the number.
    pub(crate) word: usize,
    /// Where the token stands in the text, in bytes. The server gives a word piece the place of its word.
    pub(crate) place: Range<usize>,
}

/// The tensors that a tokenizer's models take (contract, 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// input_ids, attention_mask
    Two,
    /// and token_type_ids
    Three,
    /// and position_ids
    Four,
}

/// A tokenizer, built from a stored vocabulary when a deployment starts.
pub(crate) struct Tokenizer {
    algorithm: Algorithm,
    special: SpecialTokens,
    with_special_tokens: bool,
    max_sequence_length: usize,
    vocabulary: Vec<String>,
    inputs: Inputs,
}

enum Algorithm {
    WordPiece(WordPiece),
}

impl Tokenizer {
    /// Builds the tokenizer; a vocabulary without a required token is refused only here (contract, 3.2).
    pub(crate) fn build(settings: &Tokenization, vocabulary: Vocabulary) -> Result<Self, ApiError> {
        use settings::Tokenizer as Kind;
        let special = SpecialTokens::find(settings, &vocabulary.vocabulary)?;
        let (algorithm, inputs) = match &settings.tokenizer {
            Kind::Bert => (word_piece(settings, &vocabulary, &special), Inputs::Four),
            Kind::Mpnet => (word_piece(settings, &vocabulary, &special), Inputs::Two),
            Kind::BertJa
            | Kind::Roberta { .. }
            | Kind::XlmRoberta
            | Kind::DebertaV2
            | Kind::ByteLevelBpe { .. } => {
                return Err(ApiError::not_implemented(format!(
                    "the stand-in does not tokenize for [{}] yet",
                    settings.name()
                )));
            }
        };
        Ok(Self {
            algorithm,
            special,
            with_special_tokens: settings.with_special_tokens,
            max_sequence_length: settings.max_sequence_length,
            vocabulary: vocabulary.vocabulary,
            inputs,
        })
    }

    /// The tokens of a text, without special ones.
    fn tokens(&self, text: &str) -> Vec<Token> {
        match &self.algorithm {
            Algorithm::WordPiece(word_piece) => word_piece.tokens(text),
        }
    }

    pub(crate) fn inputs(&self) -> Inputs {
        self.inputs
    }

    pub(crate) fn pad_id(&self) -> u32 {
        self.special.pad
    }

    /// The mask token's text, and its id if the vocabulary has it.
    pub(crate) fn mask(&self) -> (&str, Option<u32>) {
        (&self.special.mask_text, self.special.mask)
    }

    /// The stored text of a token.
    pub(crate) fn stored(&self, id: usize) -> Option<&str> {
        self.vocabulary.get(id).map(String::as_str)
    }

    /// The text of a token as a reader expects it, without the marks of the algorithm.
    pub(crate) fn decoded(&self, id: usize) -> Option<String> {
        let stored = self.stored(id)?;
        Some(match &self.algorithm {
            Algorithm::WordPiece(_) => stored.strip_prefix("##").unwrap_or(stored).to_owned(),
        })
    }
}

fn word_piece(
    settings: &Tokenization,
    vocabulary: &Vocabulary,
    special: &SpecialTokens,
) -> Algorithm {
    Algorithm::WordPiece(WordPiece::new(
        &vocabulary.vocabulary,
        settings.do_lower_case,
        special.unknown,
        &special.mask_text,
    ))
}
