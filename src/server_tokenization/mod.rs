//! The token ids that Elasticsearch computes from a text, for an uploaded vocabulary and its settings.
//!
//! The tokenizers of Elasticsearch differ from those of Transformers in details. This module reproduces them, with the exceptions that
//! they throw. `tests/fixtures/server-tokens` holds the ids that Elasticsearch's own classes returned.

mod byte_pair;
mod differences;
mod error;
mod java;
mod layout;
mod never_split;
mod normalization;
mod settings;
mod special_tokens;
mod unigram;
mod word_piece;

use std::ops::Range;
use std::sync::Arc;

pub use byte_pair::{byte_symbols, is_one_word};
pub use differences::Difference;
pub use error::{Exception, TokenizationError};
pub use layout::Row;
pub use normalization::nmt_nfkc;
pub use settings::{BpeTokens, Kind, NO_SPAN, Settings, Truncate};

use byte_pair::BytePair;
use special_tokens::SpecialTokens;
use unigram::{Unigram, Unknown};
use word_piece::WordPiece;

/// The tokens that `deberta_v2` does not split.
const DEBERTA_NEVER_SPLIT: [&str; 5] = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The id: the position in the vocabulary.
    pub id: u32,
    /// The number of the word in the text. The pieces of a word share the number.
    pub word: usize,
    /// The place in the text, in bytes. A piece of a WordPiece or byte-pair word has the place of its word.
    pub place: Range<usize>,
}

/// The tensors that the server passes to the model of a tokenizer (contract, 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// input_ids and attention_mask.
    Two,
    /// input_ids, attention_mask and token_type_ids.
    Three,
    /// input_ids, attention_mask, token_type_ids and position_ids.
    Four,
}

impl Inputs {
    /// The number of tensors.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
        }
    }
}

/// A tokenizer of the server, built from a vocabulary.
#[derive(Debug)]
pub struct Tokenizer {
    algorithm: Algorithm,
    special: SpecialTokens,
    settings: Settings,
    vocabulary: Arc<Vec<String>>,
}

#[derive(Debug)]
enum Algorithm {
    BytePair(BytePair),
    Unigram(Unigram),
    WordPiece(WordPiece),
}

impl Tokenizer {
    /// Builds the tokenizer, as the server does when a deployment starts. `merges` are lines `a b` in the order of their ranks, for
    /// byte-pair tokenizers; `scores` has one score for each token, for Unigram tokenizers.
    ///
    /// # Errors
    /// When the vocabulary lacks a required token or a score.
    pub fn build(
        settings: Settings,
        vocabulary: impl Into<Arc<Vec<String>>>,
        merges: &[String],
        scores: &[f64],
    ) -> Result<Self, TokenizationError> {
        let vocabulary = vocabulary.into();
        let special = SpecialTokens::find(&settings, &vocabulary)?;
        let (unknown, mask) = (special.unknown, special.mask_text.as_str());
        let word_piece = |split_chinese| {
            let lower_case = settings.do_lower_case;
            Algorithm::WordPiece(WordPiece::new(
                &vocabulary,
                lower_case,
                split_chinese,
                unknown,
                mask,
            ))
        };
        let unigram = |handling, never_split: &[&str]| {
            if scores.len() != vocabulary.len() {
                return Err(Exception::IllegalArgument.error(format!(
                    "provided vocabulary [{}] and scores [{}] must have the same size",
                    vocabulary.len(),
                    scores.len()
                )));
            }
            let scores = scores.to_vec();
            let unigram = Unigram::new(&vocabulary, scores, unknown, handling, never_split);
            Ok(Algorithm::Unigram(unigram))
        };
        let algorithm = match &settings.kind {
            Kind::Bert | Kind::Mpnet => word_piece(true),
            Kind::BertJa => word_piece(false),
            Kind::Roberta { add_prefix_space } | Kind::ByteLevelBpe { add_prefix_space, .. } => {
                let prefix = *add_prefix_space;
                Algorithm::BytePair(BytePair::new(&vocabulary, merges, prefix, unknown, mask))
            }
            Kind::XlmRoberta => unigram(Unknown::Fused, &[mask])?,
            Kind::DebertaV2 => unigram(Unknown::Bytes, &DEBERTA_NEVER_SPLIT)?,
        };
        Ok(Self { algorithm, special, settings, vocabulary })
    }

    /// The tokens of a text, without special tokens.
    ///
    /// # Errors
    /// When the server throws an exception, or the words must come from a Japanese analyser.
    pub fn tokens(&self, text: &str) -> Result<Vec<Token>, TokenizationError> {
        match &self.algorithm {
            Algorithm::WordPiece(_) if self.settings.kind == Kind::BertJa && !text.is_empty() => {
                Err(TokenizationError::NoJapaneseAnalyser)
            }
            Algorithm::WordPiece(word_piece) => Ok(word_piece.tokens(text)),
            Algorithm::BytePair(byte_pair) => Ok(byte_pair.tokens(text)),
            Algorithm::Unigram(unigram) => unigram.tokens(text),
        }
    }

    /// The tokens of the segments that a Japanese analyser found in a text, for `bert_ja`. The analyser of the server returns white
    /// space as segments too. Places refer to the segments joined. Other tokenizers do not segment, so they return no tokens.
    #[must_use]
    pub fn tokens_of_segments(&self, segments: &[&str]) -> Vec<Token> {
        let Algorithm::WordPiece(word_piece) = &self.algorithm else { return Vec::new() };
        let mut start = 0;
        word_piece.tokens_of_words(segments.iter().map(|segment| {
            let at = start;
            start += segment.len();
            (at, *segment)
        }))
    }

    /// Whether several tokens can belong to one word. In Unigram tokenizers, each token counts as a word.
    #[must_use]
    pub fn has_words(&self) -> bool {
        !matches!(self.algorithm, Algorithm::Unigram(_))
    }

    /// The settings that the tokenizer was built with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The tensors that the server passes to the model.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        match self.settings.kind {
            Kind::Bert | Kind::BertJa => Inputs::Four,
            Kind::DebertaV2 => Inputs::Three,
            Kind::Mpnet | Kind::Roberta { .. } | Kind::XlmRoberta | Kind::ByteLevelBpe { .. } => {
                Inputs::Two
            }
        }
    }

    /// The id that fills short rows.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.special.pad
    }

    /// The id that replaces what the vocabulary does not have.
    #[must_use]
    pub fn unknown_id(&self) -> u32 {
        self.special.unknown
    }

    /// The text of the mask token, and its id if the vocabulary has the token.
    #[must_use]
    pub fn mask(&self) -> (&str, Option<u32>) {
        (&self.special.mask_text, self.special.mask)
    }

    /// The text of a token as stored in the vocabulary.
    #[must_use]
    pub fn stored(&self, id: usize) -> Option<&str> {
        self.vocabulary.get(id).map(String::as_str)
    }

    /// The text of a token without the marks of the algorithm.
    #[must_use]
    pub fn decoded(&self, id: usize) -> Option<String> {
        let stored = self.stored(id)?;
        Some(match &self.algorithm {
            Algorithm::BytePair(_) => byte_pair::decoded(stored),
            Algorithm::Unigram(_) => unigram::decoded(stored),
            Algorithm::WordPiece(_) => stored.strip_prefix("##").unwrap_or(stored).to_owned(),
        })
    }
}
