//! Texts of errors and their causes.

use std::error::Error;
use std::{fmt, io};

use rustls::CertificateError;

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

/// Texts of an error and its causes, outermost first. The error inside an I/O error is not one of its sources, so it is added
/// explicitly.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
        Some(error)
    })
}

/// The texts of an error and its causes, down to the innermost one. Texts that only say that a request failed are left out.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    const EMPTY: [&str; 4] = [
        "error sending request",
        "client error (",
        "request or response body error",
        "error decoding response body",
    ];
    let mut texts: Vec<String> = Vec::new();
    for error in chain(error) {
        // This error has only a debug form.
        let text = match error.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(error))) => {
                format!("invalid peer certificate: {}", error.0)
            }
            _ => error.to_string(),
        };
        if error.is::<rustls::Error>() {
            // The i/o error around it has the same text.
            texts.pop();
        }
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    let first = texts.iter().position(|text| !EMPTY.iter().any(|empty| text.starts_with(empty)));
    texts.split_off(first.unwrap_or(0)).join(": ")
}
