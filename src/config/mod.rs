//! The JSON files of a repository that describe the model, as typed structs.

mod head;
pub mod keys;
mod lenient;
mod lora;
mod model;
mod sentence_transformers;
mod tokenizer;

pub use head::Head;
pub use lora::{LoraForm, LoraTasks, PeftConfig};
pub use model::{Labels, ModelConfig, Quantization};
pub use sentence_transformers::{
    DenseConfig, Module, ModulesError, PoolingConfig, PoolingMode, SentenceBertConfig,
    SentenceTransformers, SpladeConfig, Usage,
};
pub use tokenizer::{SPECIAL_TOKEN_ROLES, SpecialTokenNames, TokenizerConfig};
