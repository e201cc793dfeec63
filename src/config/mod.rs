//! The JSON files of a repository that describe the model, as typed structs.

mod head;
mod model;
mod sentence_transformers;
mod tokenizer;

pub use head::Head;
pub use model::ModelConfig;
pub use sentence_transformers::{
    DenseConfig, Module, PoolingConfig, PoolingMode, SentenceBertConfig, SentenceTransformers,
    Usage,
};
pub use tokenizer::{SPECIAL_TOKEN_ROLES, SpecialTokenNames, TokenizerConfig};
