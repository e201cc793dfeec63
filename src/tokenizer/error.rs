//! Why a tokenizer cannot be used.

use super::class;
use crate::source::SourceError;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server has no tokenizer like it.
    #[error(
        "the tokenizer {0} has no equivalent in Elasticsearch, so its texts would be tokenized wrongly; supported are {supported}",
        supported = class::SUPPORTED
    )]
    Unsupported(String),
    /// A file does not hold what it should.
    #[error("{file} cannot be used: {reason}")]
    Broken {
        /// The file's name.
        file: &'static str,
        /// Why not.
        reason: String,
    },
    /// The note that git keeps in place of a large file.
    #[error(
        "{0} is a Git LFS pointer, not the file itself: run `git lfs pull` in the model's folder"
    )]
    LfsPointer(&'static str),
    /// A vocabulary without tokens.
    #[error("{0} holds no tokens; fetch it again")]
    Empty(&'static str),
    /// An id far beyond the number of tokens.
    #[error(
        "a token has the id {id} although there are {tokens} tokens; the tokenizer files are broken or do not belong together"
    )]
    Id {
        /// The id.
        id: usize,
        /// How many tokens there are.
        tokens: usize,
    },
    /// Merges of another vocabulary.
    #[error(
        "{unknown} of the {merges} merges in merges.txt name tokens that vocab.json does not have: the two files do not belong \
         together"
    )]
    Merges {
        /// Merges that name unknown tokens.
        unknown: usize,
        /// All merges.
        merges: usize,
    },
    /// The server refuses byte-level BPE without merges.
    #[error(
        "there are no merges, which Elasticsearch's {0} tokenizer demands; is the tokenizer complete?"
    )]
    NoMerges(&'static str),
    /// Tokens that the server demands.
    #[error(
        "the tokenizer's files lack {}, which Elasticsearch's {kind} tokenizer demands; is this the vocabulary of the model?",
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
        "the tokenizer's {role} is {token}, where Elasticsearch's {kind} tokenizer puts {server}: every text would be read wrongly"
    )]
    OtherToken {
        /// What the token is for.
        role: &'static str,
        /// The tokenizer's.
        token: String,
        /// The server's tokenizer.
        kind: &'static str,
        /// The server's token.
        server: &'static str,
    },
    /// No text can be tokenized with what is uploaded.
    #[error("texts cannot be tokenized with this vocabulary: {0}; leave out --quantize")]
    Encoder(String),
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
