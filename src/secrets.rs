//! Secrets, which are registered in one place so that no log line or message contains them.
//!
//! A [`Secret`] registers its text and its encoded forms for the life of the process. [`redact`] replaces each of them by
//! `…`. Everything that the program writes to standard error is redacted, including the log lines of other crates.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Replacement of a secret.
const HIDDEN: &str = "…";

/// Secrets shorter than this are replaced only as whole words. Otherwise a password `a` would make every message unreadable.
const ALONE: usize = 8;

/// All forms of all secrets, the longest first, so that a secret that contains another one is replaced completely.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// A secret text, such as a password, key or token. Its debug form is `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Creates a secret and registers its forms.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let unquoted = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
        let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        let mut forms = vec![
            unquoted(serde_json::Value::from(text.as_str()).to_string()),
            unquoted(format!("{text:?}")),
            encoded.to_ascii_lowercase(),
            encoded,
            STANDARD.encode(&text),
            STANDARD_NO_PAD.encode(&text),
            URL_SAFE.encode(&text),
            URL_SAFE_NO_PAD.encode(&text),
            text.clone(),
        ];
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.append(&mut forms);
        known.retain(|form| !form.is_empty());
        known.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self(text)
    }

    /// The text, for requests.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Replaces all registered secrets in a text.
#[must_use]
pub fn redact(text: &str) -> String {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.iter().fold(text.to_owned(), |text, secret| hide(text, secret))
}

fn hide(text: String, secret: &str) -> String {
    if !text.contains(secret) {
        return text;
    }
    let alone = secret.chars().count() < ALONE;
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(secret) {
        hidden += before;
        let touches = before.ends_with(char::is_alphanumeric)
            || before.is_empty() && hidden.ends_with(char::is_alphanumeric)
            || after.starts_with(char::is_alphanumeric);
        hidden += if alone && touches { secret } else { HIDDEN };
        rest = after;
    }
    hidden + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_hidden_in_every_encoding() {
        let secret = Secret::new("p@ss/w\"ord√");
        let forms = [
            "p@ss/w\"ord√".to_owned(),
            "p%40ss%2Fw%22ord%E2%88%9A".to_owned(),
            "p%40ss%2fw%22ord%e2%88%9a".to_owned(),
            format!("{:?}", "p@ss/w\"ord√"),
            STANDARD.encode("p@ss/w\"ord√"),
        ];
        for form in forms {
            let text = redact(&format!("before {form} after{form}"));
            assert!(text.matches('…').count() == 2 && text.starts_with("before "), "{text}");
        }
        assert_eq!(format!("{secret:?}"), "…");
    }

    #[test]
    fn short_secret_is_hidden_as_a_whole_word() {
        let _secret = Secret::new("zqx");
        assert_eq!(redact("zqx: user:zqx@host, zqxy azqx zqx"), "…: user:…@host, zqxy azqx …");
        let _empty = Secret::new("");
        assert_eq!(redact("a b"), "a b");
    }
}
