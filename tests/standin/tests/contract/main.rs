//! The stand-in against the contract, over the wire. One program, so that libtorch is linked once.

mod allocations;
mod deployments;
mod faults;
mod inference;
mod models;
mod program;
mod rest_layer;
mod support;
