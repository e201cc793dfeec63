//! TorchScript modules: traced from Rust, loaded, checked, saved and run.

#[cfg(feature = "torch")]
pub mod archive;
#[cfg(feature = "torch")]
mod archive_writer;
#[cfg(feature = "torch")]
mod element_type;
#[cfg(feature = "torch")]
mod ffi;
#[cfg(feature = "torch")]
mod library;
#[cfg(feature = "torch")]
mod module;
#[cfg(feature = "torch")]
mod one_thread;
pub mod operations;
#[cfg(feature = "torch")]
mod parallel;
#[cfg(feature = "torch")]
mod quantized_layers;
#[cfg(feature = "torch")]
mod server_inputs;
#[cfg(feature = "torch")]
mod trace;

#[cfg(feature = "torch")]
pub(crate) use ffi::constant;
#[cfg(feature = "torch")]
pub use library::{load, load_in_background, set_environment};
#[cfg(feature = "torch")]
pub use module::{Module, Parameter, Quantized, Signature};
#[cfg(feature = "torch")]
pub(crate) use one_thread::OneThread;
#[cfg(feature = "torch")]
pub(crate) use parallel::in_parallel;
#[cfg(feature = "torch")]
pub(crate) use quantized_layers::{Replacement, linear_layer};
#[cfg(feature = "torch")]
pub use server_inputs::{server_inputs, server_inputs_of_width};
#[cfg(feature = "torch")]
pub use trace::{Dim, Size, arange, expand, full, reshape, slice, slice_between, view};

#[cfg(feature = "torch")]
#[doc(hidden)]
pub use tch;

/// Does nothing, because this build has no libtorch.
#[cfg(not(feature = "torch"))]
pub async fn load_in_background() {}

/// An error of libtorch.
#[cfg(feature = "torch")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// A C++ exception of libtorch, with its message.
    #[error("libtorch: {}", first_lines(.0))]
    Native(String),
    /// A number that quantization reads is infinite or NaN, or too large for float16.
    #[error("{0}")]
    NotFinite(&'static str),
    /// libtorch could not be loaded.
    #[error(
        "cannot load libtorch from {}: {reason}. Keep the program beside the folder lib of its release, or run make libtorch and build the \
         program again",
        folder.display()
    )]
    NotLoaded {
        /// Where libtorch should be.
        folder: std::path::PathBuf,
        /// The reason, from the system's loader.
        reason: String,
    },
    /// The archive could not be written.
    #[error("cannot write the TorchScript archive: {0}")]
    Write(#[source] std::io::Error),
}

#[cfg(feature = "torch")]
impl From<tch::TchError> for TorchError {
    fn from(error: tch::TchError) -> Self {
        Self::Native(error.to_string())
    }
}

#[cfg(feature = "torch")]
impl TorchError {
    /// Line of the message with the cause: the last line of a TorchScript traceback, otherwise the first line.
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

/// Removes the C++ call stack that libtorch appends to messages.
#[cfg(feature = "torch")]
fn first_lines(message: &str) -> &str {
    message.split("\nException raised from").next().unwrap_or(message).trim_end()
}
