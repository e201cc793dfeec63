//! An answer before it is sent, so that a fault can change it.

use bytes::Bytes;

/// Status, headers and body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// The whole file, if the body is a part of it.
    pub whole: Option<Bytes>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), whole: None }
    }

    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self::new(200, value.to_string()).header("Content-Type", "application/json; charset=utf-8")
    }

    /// An error, with the headers that clients read.
    pub(crate) fn error(status: u16, code: Option<&str>, message: &str) -> Self {
        let body = serde_json::json!({ "error": message }).to_string();
        let answer = Self::new(status, body)
            .header("Content-Type", "application/json; charset=utf-8")
            .header("X-Error-Message", message);
        match code {
            Some(code) => answer.header("X-Error-Code", code),
            None => answer,
        }
    }

    /// A redirect, which has a body.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, format!("Redirecting to {location}")).header("Location", location)
    }

    /// A file, or the requested range of it.
    pub(crate) fn file(content: &Bytes, from: Option<u64>, to: Option<u64>) -> Self {
        let size = content.len();
        let whole = Some(content.clone());
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let from = from.map(number);
        let end = to.map_or(size, |to| number(to).saturating_add(1).min(size));
        let answer = match from {
            None => Self { whole, ..Self::new(200, content.clone()) },
            Some(from) if from < end => Self { whole, ..Self::new(206, content.slice(from..end)) }
                .header("Content-Range", &format!("bytes {from}-{}/{size}", end - 1)),
            Some(_) => Self::new(416, "").header("Content-Range", &format!("bytes */{size}")),
        };
        answer.header("Accept-Ranges", "bytes")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}
