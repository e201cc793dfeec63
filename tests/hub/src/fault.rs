//! What goes wrong.

use crate::server::Host;

/// What is broken, where, and how often.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Who breaks it.
    pub host: Host,
    /// A part of the paths for which it does.
    pub path: String,
    /// How many requests meet it.
    pub times: usize,
    /// How.
    pub how: Break,
}

/// A way to break an answer.
#[derive(Debug, Clone)]
pub enum Break {
    /// Another answer: status, headers, text.
    Answer(u16, Vec<(String, String)>, String),
    /// A header with another value, or none where it is empty.
    Header(String, String),
    /// The connection breaks off after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// One bit of the body is another.
    Flip,
    /// The whole file comes, whatever range is asked for.
    NoRange,
    /// No length is told.
    NoLength,
    /// No answer at all.
    Silence,
}

impl Fault {
    /// At the hub.
    #[must_use]
    pub fn hub(path: &str, times: usize, how: Break) -> Self {
        Self { host: Host::Hub, path: path.to_owned(), times, how }
    }

    /// At the CDN.
    #[must_use]
    pub fn cdn(path: &str, times: usize, how: Break) -> Self {
        Self { host: Host::Cdn, path: path.to_owned(), times, how }
    }
}

impl Break {
    /// An answer with a status and headers.
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
