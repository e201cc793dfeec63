//! Commit, libtorch and platform of the build.
#![deny(missing_docs)]

/// The full commit hash; `unknown` if neither a repository nor a source archive contains it.
pub const COMMIT: &str = env!("COMMIT");

/// The version of libtorch that was linked; `none` without the feature `torch`.
pub const LIBTORCH: &str = env!("LIBTORCH_VERSION");

/// The platform, as a target triple of Rust.
pub const TARGET: &str = env!("TARGET");
