//! Model ids, as Elasticsearch takes them (contract 2.2).

use std::fmt;
use std::str::FromStr;

/// The most characters of an id.
const LONGEST: usize = 64;

/// A valid id: lower-case letters, digits, `_`, `-` and `.`, a letter or digit at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId(String);

/// Why something is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} cannot be a model id: {reason}. Give another with --es-model-id")]
pub struct ModelIdError {
    id: String,
    reason: &'static str,
}

impl ModelIdError {
    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl ModelId {
    /// The id that a hub id or a path gives: white space and slashes become `__`, then lower case, then the last 64 characters, as
    /// eland derives it; other characters that Elasticsearch refuses become `_`.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn derive(name: &str) -> Result<Self, ModelIdError> {
        let replaced: String = name
            .chars()
            .flat_map(
                |c| if c.is_whitespace() || "/\\".contains(c) { vec!['_', '_'] } else { vec![c] },
            )
            .flat_map(char::to_lowercase)
            .map(|c| if is_inner(c) { c } else { '_' })
            .collect();
        let first = replaced.chars().count().saturating_sub(LONGEST);
        let last: String = replaced.chars().skip(first).collect();
        last.trim_matches(|c| !is_outer(c)).parse()
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_outer(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_inner(c: char) -> bool {
    is_outer(c) || "_-.".contains(c)
}

impl FromStr for ModelId {
    type Err = ModelIdError;

    fn from_str(id: &str) -> Result<Self, ModelIdError> {
        let reason = if id.is_empty() {
            "it is empty"
        } else if id.len() > LONGEST {
            "it has more than 64 characters"
        } else if !id.chars().all(is_inner) {
            "only lower-case letters, digits, _, - and . are allowed"
        } else if !(id.starts_with(is_outer) && id.ends_with(is_outer)) {
            "it must begin and end with a letter or digit"
        } else {
            return Ok(Self(id.to_owned()));
        };
        Err(ModelIdError { id: id.to_owned(), reason })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_derived_as_eland_does() {
        let derived = |name: &str| ModelId::derive(name).unwrap().to_string();
        assert_eq!(
            derived("sentence-transformers/all-MiniLM-L6-v2"),
            "sentence-transformers__all-minilm-l6-v2"
        );
        assert_eq!(derived("/tmp/my model"), "tmp__my__model");
        assert_eq!(derived("a\\b"), "a__b");
        assert_eq!(derived(&"x".repeat(70)), "x".repeat(64));
        assert_eq!(derived("./Modèle+1/"), "mod_le_1");
        assert!(ModelId::derive("///").is_err());
    }

    #[test]
    fn what_the_server_refuses_is_no_id() {
        for id in ["", "A", "_a", "a_", ".a", "a b", "ä", &"x".repeat(65)] {
            assert!(id.parse::<ModelId>().is_err(), "{id}");
        }
        assert!("a.b-c_1".parse::<ModelId>().is_ok());
    }
}
