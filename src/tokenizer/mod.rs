//! What Elasticsearch needs to tokenize as the model's own tokenizer does: a vocabulary and settings.

mod wordpiece;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::config::{ModelConfig, TokenizerConfig};
use crate::models::SpecialTokens;
use crate::source::{ModelFiles, SourceError};

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server has no tokenizer like it.
    #[error(
        "the tokenizer {0} has no equivalent in Elasticsearch that is supported here; \
         WordPiece tokenizers (BertTokenizer and its relatives) are"
    )]
    Unsupported(String),
    /// `tokenizer.json` is broken or of another kind.
    #[error("tokenizer.json cannot be used: {0}")]
    TokenizerJson(String),
    /// A vocabulary without tokens.
    #[error("{0} holds no tokens; fetch it again")]
    Empty(&'static str),
    /// Tokens that the server demands.
    #[error(
        "the vocabulary lacks {}, which Elasticsearch's {kind} tokenizer demands; \
         is this the vocabulary of the model?", missing.join(", ")
    )]
    MissingTokens {
        /// The server's tokenizer.
        kind: &'static str,
        /// The tokens.
        missing: Vec<&'static str>,
    },
    /// More tokens than embeddings.
    #[error(
        "the vocabulary has {tokens} tokens, the model embeddings for {rows}: they do not belong \
         together; use the tokenizer files that came with the weights"
    )]
    TooLarge {
        /// Tokens in the vocabulary.
        tokens: usize,
        /// Rows of the embedding table.
        rows: i64,
    },
}

/// A tokenizer of the server, under its name in `inference_config.*.tokenization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// WordPiece.
    Bert,
}

impl TokenizerKind {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
        }
    }

    /// How many tensors the server passes to the graph: input_ids, attention_mask, token_type_ids, position_ids, in this order.
    #[must_use]
    pub fn inputs(self) -> usize {
        match self {
            Self::Bert => 4,
        }
    }

    /// The tokens that the server looks for: padding, separator, then the others. All must be there.
    fn special(self) -> [&'static str; 4] {
        match self {
            Self::Bert => ["[PAD]", "[SEP]", "[CLS]", "[UNK]"],
        }
    }

    /// The token that stands for a missing word.
    #[must_use]
    pub fn mask_token(self) -> &'static str {
        match self {
            Self::Bert => "[MASK]",
        }
    }
}

/// The body of the vocabulary request. A token's position is its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// The tokens in the order of their ids.
    pub vocabulary: Vec<String>,
}

/// A tokenizer, as it is uploaded.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// The server's tokenizer.
    pub kind: TokenizerKind,
    /// Its tokens.
    pub vocabulary: Vocabulary,
    /// Whether text is lower-cased (and loses its accents).
    pub do_lower_case: bool,
    /// Ids that the graph needs.
    pub special: SpecialTokens,
    /// The longest input, in tokens, that the tokenizer was made for.
    pub max_length: Option<u32>,
    /// What the server will do differently, if anything.
    pub warnings: Vec<String>,
}

impl Tokenizer {
    /// Reads the tokenizer files of a model.
    ///
    /// # Errors
    /// When they are missing or broken, the server has no such tokenizer, or tokens that it demands are missing.
    pub fn read(files: &ModelFiles, model: &ModelConfig) -> Result<Self, TokenizerError> {
        let config = TokenizerConfig::read(files)?;
        let class = config.tokenizer_class.as_ref().or(model.tokenizer_class.as_ref());
        if let Some(class) = class
            && !wordpiece::CLASSES.contains(&class.trim_end_matches("Fast"))
        {
            return Err(TokenizerError::Unsupported(class.clone()));
        }
        let kind = TokenizerKind::Bert;
        let read = wordpiece::read(files, &config)?;

        let ids: HashMap<&str, usize> =
            read.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let missing: Vec<_> =
            kind.special().into_iter().filter(|token| !ids.contains_key(token)).collect();
        let id = |token: &str| ids.get(token).map_or(-1, |&id| id as i64);
        let [padding, separator, ..] = kind.special().map(id);
        if !missing.is_empty() {
            return Err(TokenizerError::MissingTokens { kind: kind.name(), missing });
        }
        Ok(Self {
            kind,
            special: SpecialTokens { padding, separator },
            vocabulary: Vocabulary { vocabulary: read.tokens },
            do_lower_case: read.do_lower_case,
            max_length: config.max_length(),
            warnings: read.warnings,
        })
    }

    /// Checks that every token has a row in the embedding table.
    ///
    /// # Errors
    /// When it has not.
    pub fn check_embeddings(&self, rows: i64) -> Result<(), TokenizerError> {
        let tokens = self.vocabulary.vocabulary.len();
        if i64::try_from(tokens).is_ok_and(|tokens| tokens <= rows) {
            Ok(())
        } else {
            Err(TokenizerError::TooLarge { tokens, rows })
        }
    }
}

/// Puts tokens in the order of their ids. An id without a token gets one that no text contains, so that those behind it keep theirs.
fn in_order(by_id: BTreeMap<usize, String>) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::with_capacity(by_id.len());
    for (id, token) in by_id {
        while tokens.len() < id {
            tokens.push(format!("[unused id {}]", tokens.len()));
        }
        tokens.push(token);
    }
    tokens
}
