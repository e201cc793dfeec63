//! Integration tests of the program and the library in a single binary, because linking libtorch takes longer than most tests.

mod apply;
mod bad_clusters;
mod bad_models;
mod bundle;
mod certificates;
mod connections;
mod corpus;
mod declared;
mod definitions;
mod deployments;
mod documents;
mod endpoints;
mod fixtures;
mod from_hub;
mod fronts;
mod graphs;
mod guided;
mod import;
mod infer;
mod inspect;
mod interruptions;
mod keys;
mod messages;
mod numbers;
mod program;
mod progress;
// Needs Debian's programs, and loopback addresses that only Linux provides by default.
#[cfg(target_os = "linux")]
mod proxies;
mod quantize;
mod real_model;
mod server_tokens;
mod snapshots;
mod targets;
mod terminal;
mod timings;
mod tls;
mod tokenize;
mod tree_commands;
mod trees;
mod uploads;
mod verify;
mod vocabularies;
mod walls;
mod weights;
mod wire;
