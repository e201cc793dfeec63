//! The JSON files of a repository that describe the model, as typed structs.

mod model;
mod sentence_transformers;
mod tokenizer;

pub use model::ModelConfig;
pub use sentence_transformers::{
    DenseConfig, Module, PoolingConfig, PoolingMode, SentenceBertConfig, SentenceTransformers,
    USAGE, Usage,
};
pub use tokenizer::{SPECIAL_TOKEN_ROLES, SpecialTokenNames, TokenizerConfig};
