//! Ids of models in Elasticsearch (contract 2.2).
//!
//! The id of a model from the hub is derived from its hub id: `org/Name` becomes `org__name`. A repository can contain several
//! models, such as the query half and the document half of a router, a sparse head beside a dense one, or one LoRA adapter per
//! task. Each further model has a *part*, which is appended to the derived id: `org__name__query`. The parts of a repository are
//! distinct, so the ids are distinct too. An id has at most 64 characters. If it would be longer, the beginning of the derived id
//! is cut off; the part is never cut.

use std::fmt;
use std::str::FromStr;

use crate::hint::{Hint, Setting, hint};

/// The maximum number of characters of an id.
const MAX_LENGTH: usize = 64;

/// The maximum number of characters of a part. It leaves room for 30 characters of the derived id.
const MAX_PART_LENGTH: usize = 32;

/// The text between the derived id and the part. A slash becomes the same text.
const SEPARATOR: &str = "__";

/// A valid id: lower-case letters, digits, `_`, `-` and `.`, with a letter or digit at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId(String);

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} cannot be a model id: {reason}")]
#[non_exhaustive]
pub struct ModelIdError {
    id: String,
    reason: &'static str,
}

impl ModelIdError {
    /// The rule that the text breaks.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Hint {
        hint!("Set ", Setting::ModelId, " to another id.")
    }
}

impl ModelId {
    /// Derives an id from a hub id or a path, as eland does: white space and slashes become `__`, capitals become lower case, and the
    /// last 64 characters are taken. Other characters that Elasticsearch refuses become `_`.
    ///
    /// # Errors
    /// If no letter or digit is left.
    pub fn derive(name: &str) -> Result<Self, ModelIdError> {
        let id = replaced(name);
        last_characters(&id, MAX_LENGTH).parse()
    }

    /// Derives the id of one of several models in a repository: the derived id, `__` and the part.
    ///
    /// ```
    /// use rust_eland::ModelId;
    ///
    /// let id = ModelId::derive_part("org/Name", "query")?;
    /// assert_eq!(id.as_str(), "org__name__query");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the part is empty or has more than 32 characters, or the name contains no letter or digit.
    pub fn derive_part(name: &str, part: &str) -> Result<Self, ModelIdError> {
        let part = replaced(part);
        let part = part.trim_matches(|c| !is_outer(c));
        let invalid = |reason| ModelIdError { id: format!("{name}{SEPARATOR}{part}"), reason };
        if part.is_empty() {
            return Err(invalid("the name of the part is empty"));
        }
        if part.len() > MAX_PART_LENGTH {
            return Err(invalid("the name of the part has more than 32 characters"));
        }
        let id = replaced(name);
        let base = last_characters(&id, MAX_LENGTH - SEPARATOR.len() - part.len());
        if base.is_empty() {
            return Err(invalid("the name of the model contains no letter or digit"));
        }
        format!("{base}{SEPARATOR}{part}").parse()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name with all characters replaced that an id must not contain.
fn replaced(name: &str) -> String {
    let separated = |c: char| {
        let is_separator = c.is_whitespace() || c == '/' || c == '\\';
        if is_separator { SEPARATOR.chars().collect() } else { vec![c] }
    };
    let lower = name.chars().flat_map(separated).flat_map(char::to_lowercase);
    lower.map(|c| if is_inner(c) { c } else { '_' }).collect()
}

/// The last characters of an id, from the first to the last letter or digit.
fn last_characters(id: &str, max_length: usize) -> &str {
    // An id consists of ASCII characters only.
    let start = id.len().saturating_sub(max_length);
    id.get(start..).unwrap_or_default().trim_matches(|c| !is_outer(c))
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
            "the id is empty"
        } else if id.len() > MAX_LENGTH {
            "the id has more than 64 characters"
        } else if !id.chars().all(is_inner) {
            "only lower-case letters, digits, _, - and . are allowed"
        } else if !(id.starts_with(is_outer) && id.ends_with(is_outer)) {
            "the id must start and end with a letter or digit"
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
    fn derived_id_is_that_of_eland() {
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
    fn id_that_the_server_refuses_is_not_valid() {
        for id in ["", "A", "_a", "a_", ".a", "a b", "ä", &"x".repeat(65)] {
            assert!(id.parse::<ModelId>().is_err(), "{id}");
        }
        assert!("a.b-c_1".parse::<ModelId>().is_ok());
    }

    #[test]
    fn derived_part_follows_the_derived_id() {
        let derived =
            |name: &str, part: &str| ModelId::derive_part(name, part).unwrap().to_string();
        assert_eq!(derived("org/Name", "query"), "org__name__query");
        assert_eq!(
            derived("jinaai/jina-v3", "retrieval.passage"),
            "jinaai__jina-v3__retrieval.passage"
        );
        assert_eq!(derived("./Modèle/", "Text Matching/"), "mod_le__text__matching");
    }

    #[test]
    fn derived_part_has_at_most_64_characters_and_keeps_the_part() {
        for length in [1, 20, 30, 57, 58, 96] {
            for part in ["sparse", &"p".repeat(32)] {
                let name = format!("{}/{}", "o".repeat(length / 2), "n".repeat(length.div_ceil(2)));
                let id = ModelId::derive_part(&name, part).unwrap();
                assert!(
                    id.as_str().len() <= 64 && id.as_str().ends_with(&format!("__{part}")),
                    "{id}"
                );
                assert!(id.as_str().parse::<ModelId>().is_ok());
            }
        }
        // The separator of the hub id does not start the id.
        let id = ModelId::derive_part(&format!("org/{}", "n".repeat(55)), "query").unwrap();
        assert_eq!(id.as_str(), format!("{}__query", "n".repeat(55)));
    }

    #[test]
    fn derived_part_without_a_name_is_refused() {
        for (name, part) in [("org/name", ""), ("org/name", "//"), ("///", "query")] {
            assert!(ModelId::derive_part(name, part).is_err(), "{name} {part}");
        }
        assert!(ModelId::derive_part("org/name", &"p".repeat(33)).is_err());
    }
}
