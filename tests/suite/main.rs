//! Integration tests of the program and the library in a single binary, because linking takes longer than most tests.
//!
//! Modules that need the feature `torch` convert models or run them. In the other modules, tests that do so are ignored without it.

#![cfg_attr(
    not(feature = "torch"),
    allow(dead_code, unused_imports, reason = "used by modules that need the feature")
)]

#[cfg(feature = "torch")]
mod acceptance;
#[cfg(feature = "torch")]
mod appended;
mod apply;
#[cfg(feature = "torch")]
mod bad_clusters;
#[cfg(feature = "torch")]
mod bad_models;
#[cfg(feature = "torch")]
mod bundle;
mod bundle_fixtures;
mod byte_level;
mod certificates;
mod check;
mod compatibility;
mod connections;
mod corpus;
#[cfg(feature = "torch")]
mod declared;
#[cfg(feature = "torch")]
mod definitions;
mod deployments;
#[cfg(feature = "torch")]
mod dimensions;
#[cfg(feature = "torch")]
mod documents;
mod endpoints;
#[cfg(feature = "torch")]
mod families;
mod fixtures;
mod from_hub;
mod fronts;
#[cfg(feature = "torch")]
mod graphs;
#[cfg(feature = "torch")]
mod guided;
mod hostile_trees;
#[cfg(feature = "torch")]
mod import;
#[cfg(feature = "torch")]
mod inexact_tokenizer;
#[cfg(feature = "torch")]
mod infer;
#[cfg(feature = "torch")]
mod inspect;
mod interruptions;
#[cfg(feature = "torch")]
mod keys;
mod kibana;
// Reads the log of glibc's loader, and imports a bundle.
#[cfg(all(feature = "torch", target_os = "linux", target_env = "gnu"))]
mod libtorch;
#[cfg(feature = "torch")]
mod long_inputs;
#[cfg(feature = "torch")]
mod lora;
#[cfg(feature = "torch")]
mod messages;
#[cfg(feature = "torch")]
mod numbers;
#[cfg(feature = "torch")]
mod pages;
#[cfg(feature = "torch")]
mod parts;
#[cfg(feature = "torch")]
mod pipelines;
mod processes;
mod program;
#[cfg(feature = "torch")]
mod progress;
// Needs Debian's programs, and loopback addresses that only Linux provides by default.
#[cfg(target_os = "linux")]
mod proxies;
#[cfg(feature = "torch")]
mod quantize;
#[cfg(feature = "torch")]
mod real_model;
#[cfg(feature = "torch")]
mod routes;
#[cfg(feature = "torch")]
mod scripts;
mod sentencepiece_bpe;
mod server_tokens;
mod snapshots;
#[cfg(feature = "torch")]
mod static_embeddings;
#[cfg(feature = "torch")]
mod targets;
mod terminal;
#[cfg(feature = "torch")]
mod timings;
mod tls;
#[cfg(feature = "torch")]
mod token_names;
#[cfg(feature = "torch")]
mod tokenize;
mod tokenizer_files;
mod tree_commands;
mod trees;
mod uploads;
#[cfg(feature = "torch")]
mod verify;
#[cfg(feature = "torch")]
mod verify_served;
mod vocabularies;
mod walls;
#[cfg(feature = "torch")]
mod weights;
mod wire;
