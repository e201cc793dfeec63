//! Makes Hugging Face transformers into served models of Elasticsearch.
//!
//! A model becomes a bundle ([`mod@bundle`]): the TorchScript definition, the vocabulary and the configuration. A bundle becomes a served
//! model through the trained-models API ([`elasticsearch`]).
//!
//! ```text
//! hub id or folder ─ source ─► model files ─► checkpoint ─► models × tasks ─► torchscript ─┐
//!                                   └──────► tokenizer ──────────────────────────────────► bundle ─► elasticsearch
//! ```
#![deny(missing_docs)]

pub mod bundle;
pub mod cause;
pub mod checkpoint;
pub mod chunks;
pub mod cli;
pub mod config;
pub mod conversion;
pub mod definition;
pub mod elasticsearch;
pub mod error;
pub mod model_id;
pub mod models;
pub mod progress;
mod proxies;
pub mod recipe;
pub mod secrets;
pub mod source;
pub mod tasks;
pub mod timings;
pub mod tokenizer;
pub mod torchscript;
pub mod version;
