//! What a build was made from.
#![deny(missing_docs)]

/// The commit, in full; `unknown` where neither a repository nor a source archive told it.
pub const COMMIT: &str = env!("COMMIT");

/// The version of libtorch that was linked; `none` without the feature `torch`.
pub const LIBTORCH: &str = env!("LIBTORCH_VERSION");

/// The kind of machine, as Rust calls it.
pub const TARGET: &str = env!("TARGET");
