//! Texts of errors and their causes.

use std::error::Error;
use std::{fmt, io};

use crate::secrets::redact;

/// Advice about an operating system error, for the end of a message.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; check the permissions, or choose another location",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free disk space, or choose another location (TMPDIR for temporary files)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a writable location (TMPDIR for temporary files)"
        }
        _ => "",
    }
}

/// Text of a cause and of its own causes, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorChain {
    text: String,
    source: Option<Box<ErrorChain>>,
}

impl ErrorChain {
    /// Texts of an error and its causes. Repeated texts are omitted.
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
