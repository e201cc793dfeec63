//! Text to token ids as the server does it (contract, 3), apart from the importer's own tokenizers, so that one can find the other's
//! mistakes.

mod byte_pair;
mod layout;
mod special_tokens;
mod unigram;
mod word_piece;

pub(crate) use layout::Row;

use std::ops::Range;

use crate::configuration::tokenization::{self as settings, Tokenization};
use crate::errors::ApiError;
use crate::vocabulary::Vocabulary;
use byte_pair::BytePair;
use special_tokens::SpecialTokens;
use unigram::{Unigram, Unknown};
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
    BytePair(BytePair),
    Unigram(Unigram),
    WordPiece(WordPiece),
}

impl Tokenizer {
    /// Builds the tokenizer; a vocabulary without a required token is refused only here (contract, 3.2).
    pub(crate) fn build(settings: &Tokenization, vocabulary: Vocabulary) -> Result<Self, ApiError> {
        use settings::Tokenizer as Kind;
        let special = SpecialTokens::find(settings, &vocabulary.vocabulary)?;
        let Vocabulary { vocabulary, merges, scores } = vocabulary;
        let (unknown, mask) = (special.unknown, special.mask_text.as_str());
        let word_piece = || {
            let lower_case = settings.do_lower_case;
            Algorithm::WordPiece(WordPiece::new(&vocabulary, lower_case, unknown, mask))
        };
        let byte_pair = |add_prefix_space| {
            Algorithm::BytePair(BytePair::new(
                &vocabulary,
                &merges,
                add_prefix_space,
                unknown,
                mask,
            ))
        };
        let unigram = |handling, never_split: &[&str]| {
            if scores.len() != vocabulary.len() {
                return Err(ApiError::illegal_argument(format!(
                    "provided vocabulary [{}] and scores [{}] must have the same size",
                    vocabulary.len(),
                    scores.len()
                )));
            }
            let unigram = Unigram::new(&vocabulary, &scores, unknown, handling, never_split);
            Ok(Algorithm::Unigram(unigram))
        };
        let (algorithm, inputs) = match &settings.tokenizer {
            Kind::Bert => (word_piece(), Inputs::Four),
            Kind::Mpnet => (word_piece(), Inputs::Two),
            Kind::Roberta { add_prefix_space } | Kind::ByteLevelBpe { add_prefix_space, .. } => {
                (byte_pair(*add_prefix_space), Inputs::Two)
            }
            Kind::XlmRoberta => (unigram(Unknown::Fused, &[mask])?, Inputs::Two),
            Kind::DebertaV2 => {
                let never_split = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];
                (unigram(Unknown::Bytes, &never_split)?, Inputs::Three)
            }
            Kind::BertJa => {
                return Err(ApiError::not_implemented(
                    "the stand-in does not tokenize for [bert_ja]: it has no Japanese analyser",
                ));
            }
        };
        Ok(Self {
            algorithm,
            special,
            with_special_tokens: settings.with_special_tokens,
            max_sequence_length: settings.max_sequence_length,
            vocabulary,
            inputs,
        })
    }

    /// The tokens of a text, without special ones.
    fn tokens(&self, text: &str) -> Vec<Token> {
        match &self.algorithm {
            Algorithm::BytePair(byte_pair) => byte_pair.tokens(text),
            Algorithm::Unigram(unigram) => unigram.tokens(text),
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
            Algorithm::BytePair(_) => byte_pair::decoded(stored),
            Algorithm::Unigram(_) => unigram::decoded(stored),
            Algorithm::WordPiece(_) => stored.strip_prefix("##").unwrap_or(stored).to_owned(),
        })
    }
}
