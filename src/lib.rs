pub mod checkpoint;
pub mod config;
pub mod conversion;
pub mod models;
pub mod source;
pub mod tasks;
pub mod tokenizer;
pub mod torchscript;
