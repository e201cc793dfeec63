//! Reason why a tokenizer cannot be used.

use super::class;
use crate::hint::{Hint, Setting, hint};
use crate::source::SourceError;

/// Reason why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Elasticsearch has no equivalent tokenizer.
    #[error(
        "the tokenizer {0} has no equivalent in Elasticsearch, so its texts would be tokenized wrongly; supported are {supported}",
        supported = class::SUPPORTED
    )]
    Unsupported(String),
    /// A file is invalid.
    #[error("{file} cannot be used: {reason}")]
    Broken {
        /// The file's name.
        file: &'static str,
        /// The problem.
        reason: String,
    },
    /// A Git LFS pointer instead of the file.
    #[error(
        "{0} is a Git LFS pointer, not the file itself: run `git lfs pull` in the model's folder"
    )]
    LfsPointer(&'static str),
    /// A vocabulary without tokens.
    #[error("{0} contains no tokens; download it again")]
    Empty(&'static str),
    /// An id far above the number of tokens.
    #[error(
        "a token has the id {id}, but there are only {tokens} tokens; the tokenizer files are damaged or do not belong together"
    )]
    Id {
        /// The id.
        id: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// Merges of another vocabulary.
    #[error(
        "{unknown} of the {merges} merges in merges.txt name tokens that vocab.json does not contain: the two files do not belong together"
    )]
    Merges {
        /// Number of merges with unknown tokens.
        unknown: usize,
        /// Number of all merges.
        merges: usize,
    },
    /// The server rejects byte-level BPE without merges.
    #[error(
        "the tokenizer has no merges, which Elasticsearch's {0} tokenizer requires; check that the tokenizer files are complete"
    )]
    NoMerges(&'static str),
    /// Tokens required by the server are missing.
    #[error(
        "the tokenizer's files lack {}, which Elasticsearch's {kind} tokenizer requires; check that they belong to the model",
        missing.join(", ")
    )]
    MissingTokens {
        /// The server's tokenizer.
        kind: &'static str,
        /// The tokens.
        missing: Vec<&'static str>,
    },
    /// The tokenizer puts other tokens around a text than the server does.
    #[error(
        "the tokenizer's {role} is {token}, but Elasticsearch's {kind} tokenizer inserts {server}, so every text would get wrong tokens"
    )]
    OtherToken {
        /// Role of the token.
        role: &'static str,
        /// Token of the model's tokenizer.
        token: String,
        /// The server's tokenizer.
        kind: &'static str,
        /// Token of the server.
        server: &'static str,
    },
    /// Texts cannot be tokenized with the uploaded vocabulary.
    #[error("texts cannot be tokenized with this vocabulary: {0}")]
    Encoder(String),
    /// The tokens of other scripts cannot be left out. The field is the reason.
    #[error("tokens of other scripts cannot be left out of this model's vocabulary: {0}")]
    Scripts(String),
    /// More tokens than embeddings.
    #[error(
        "the vocabulary has {tokens} tokens, but the model has embeddings for {rows}: they do not belong together; use the tokenizer files that belong to the weights"
    )]
    TooLarge {
        /// Tokens in the vocabulary.
        tokens: usize,
        /// Rows of the embedding table.
        rows: i64,
    },
}

impl TokenizerError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Encoder(_) => Some(hint!("Remove ", Setting::Quantize, ".")),
            Self::Scripts(_) => Some(hint!("Remove ", Setting::Scripts, ".")),
            _ => None,
        }
    }
}
