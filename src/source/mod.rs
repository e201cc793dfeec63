//! Sources of models: repositories of the hub, the cache of the hub, and local folders.

mod cache_layout;
mod directory;
mod file_formats;
pub mod hub;
mod origin;
pub mod python_json;

pub use directory::{ModelFiles, SourceError};
pub(crate) use file_formats::{
    HeaderLengthError, MAX_SAFETENSORS_HEADER, is_lfs_pointer, safetensors_header_length,
};
pub use origin::Origin;

/// The file in which sentence-transformers declares prompts, similarity and kind of a model.
pub const SENTENCE_TRANSFORMERS_CONFIG: &str = "config_sentence_transformers.json";
