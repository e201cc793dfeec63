//! TorchScript modules: traced from Rust, loaded, checked, saved and run.

pub mod archive;
mod archive_writer;
mod ffi;
mod module;
pub mod operations;
mod trace;

pub use ffi::tensor_over;
pub use module::{Module, Parameter, Quantized, Signature};
pub use trace::{Dim, Size, arange, expand, full, reshape, slice, slice_between, view};

/// Keeps libtorch to the calling thread until it is dropped: for passes over short inputs and the like. What these do is to read the
/// weights, which one thread does as fast, and on a busy machine several wait for each other at every operation (verifying
/// BERT-base with a dozen of other processes beside it: 11.7 s with two threads, 0.8 s with one).
pub(crate) struct OneThread(i32);

impl OneThread {
    pub(crate) fn begin() -> Self {
        let threads = tch::get_num_threads();
        tch::set_num_threads(1);
        Self(threads)
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.0);
    }
}

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

impl TorchError {
    /// The line of the message that says what is wrong: the last one of a traceback through TorchScript, else the first.
    #[must_use]
    pub fn cause(&self) -> String {
        let whole = self.to_string();
        let whole = whole.strip_prefix("libtorch: ").unwrap_or(&whole);
        let mut lines = whole.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = if whole.contains("Traceback of TorchScript") {
            lines.next_back()
        } else {
            lines.next()
        };
        line.unwrap_or(whole).to_owned()
    }
}

/// libtorch appends its C++ call stack to messages; nobody reads it.
fn first_lines(message: &str) -> &str {
    message.split("\nException raised from").next().unwrap_or(message).trim_end()
}
