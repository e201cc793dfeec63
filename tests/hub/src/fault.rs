//! Faults that a test injects.

use crate::server::Host;

/// A fault: where it happens, how often, and what it does.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The host.
    pub host: Host,
    /// A part of the paths of the affected requests.
    pub path: String,
    /// The number of affected requests.
    pub times: usize,
    /// The effect.
    pub how: Break,
}

/// The effect of a fault on an answer.
#[derive(Debug, Clone)]
pub enum Break {
    /// Another answer: status, headers, text.
    Answer(u16, Vec<(String, String)>, String),
    /// A header with another value. An empty value removes the header.
    Header(String, String),
    /// The connection breaks after this many bytes of the body.
    Cut(usize),
    /// The body stalls after this many bytes.
    Stall(usize),
    /// One bit of the body is flipped.
    Flip,
    /// The range of the request is ignored.
    NoRange,
    /// The length of the body is not sent.
    NoLength,
    /// No answer at all.
    Silence,
}

impl Fault {
    /// A fault of the hub.
    #[must_use]
    pub fn hub(path: &str, times: usize, how: Break) -> Self {
        Self { host: Host::Hub, path: path.to_owned(), times, how }
    }

    /// A fault of the CDN.
    #[must_use]
    pub fn cdn(path: &str, times: usize, how: Break) -> Self {
        Self { host: Host::Cdn, path: path.to_owned(), times, how }
    }
}

impl Break {
    /// Another answer, with a status and headers.
    #[must_use]
    pub fn status(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers =
            headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::Answer(status, headers, "<html><body>This is not the file.</body></html>".into())
    }

    /// A header with another value.
    #[must_use]
    pub fn header(name: &str, value: &str) -> Self {
        Self::Header(name.to_owned(), value.to_owned())
    }
}
