//! TorchScript modules: traced from Rust, loaded, checked, saved and run.

mod ffi;
mod module;
pub mod operations;
mod trace;

pub use ffi::tensor_over;
pub use module::{Module, Quantized};
pub use trace::{Dim, Size, arange, expand, full, reshape, slice, slice_between, view};

/// What can go wrong in libtorch.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// A C++ exception of libtorch, with its message.
    #[error("libtorch: {}", first_lines(.0))]
    Native(String),
    /// An operation that tch refused.
    #[error("libtorch: {}", first_lines(&.0.to_string()))]
    Tch(#[from] tch::TchError),
    /// The archive could not be written.
    #[error("cannot write the TorchScript archive: {0}")]
    Write(#[source] std::io::Error),
}

/// libtorch appends its C++ call stack to messages; nobody reads it.
fn first_lines(message: &str) -> &str {
    message.split("\nException raised from").next().unwrap_or(message).trim_end()
}
