//! Where a model's files come from.

mod directory;
pub mod hub;
mod origin;

pub use directory::{ModelFiles, SourceError};
pub use origin::Origin;

/// The file in which sentence-transformers keeps a model's prompts, similarity and kind.
pub const SENTENCE_TRANSFORMERS_CONFIG: &str = "config_sentence_transformers.json";
