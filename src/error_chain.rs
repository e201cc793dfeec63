//! What lies beneath an error, for errors that cannot keep what caused them.

use std::error::Error;
use std::{fmt, io};

use crate::secrets::redact;

/// What to do about a failure of the system, for the end of a message.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is the path written right?",
        io::ErrorKind::PermissionDenied => {
            "; let this user read and write there, or name another place"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or name another place (TMPDIR for temporary files)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; name a place that can be written to (TMPDIR for temporary files)"
        }
        _ => "",
    }
}

/// The text of a cause, and of what caused that. No text holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorChain {
    text: String,
    source: Option<Box<ErrorChain>>,
}

impl ErrorChain {
    /// The texts of an error and its causes. What repeats the text before it is left out.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let text = redact(&error.to_string());
        let mut below = error.source();
        while below.is_some_and(|error| redact(&error.to_string()) == text) {
            below = below.and_then(Error::source);
        }
        Self { text, source: below.map(|error| Box::new(Self::of(error))) }
    }
}

impl fmt::Display for ErrorChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for ErrorChain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}
