//! Tests of the stand-in against the contract, over HTTP. A single test binary, so that libtorch is linked once.

mod allocations;
mod deployments;
mod faults;
mod inference;
mod models;
mod program;
mod rest_layer;
mod support;
mod trees;
