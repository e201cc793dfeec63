//! Names on the hub: repositories, revisions, commits. What is not one of them never reaches an address or a path.

use std::fmt;
use std::str::FromStr;

use super::HubError;

/// A repository: `organization/name`, or a name alone as the oldest models have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryId {
    type Err = HubError;

    fn from_str(name: &str) -> Result<Self, HubError> {
        /// Of all of it, on the hub.
        const LONGEST: usize = 96;
        let is_outer = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let parts: Vec<&str> = name.split('/').collect();
        let reason = if parts.len() > 2 {
            "an id has one slash at most"
        } else if parts.iter().any(|part| part.is_empty()) {
            "a part of it is empty"
        } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
            "an id consists of letters, digits, _, - and ."
        } else if !parts.iter().all(|part| part.starts_with(is_outer) && part.ends_with(is_outer)) {
            "its parts begin and end with a letter or digit"
        } else if name.contains("--") || name.contains("..") || name.ends_with(".git") {
            "an id holds no --, no .. and does not end in .git"
        } else if name.len() > LONGEST {
            "it has more than 96 characters"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(HubError::Id { name: name.to_owned(), reason })
    }
}

/// A branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    fn from_str(name: &str) -> Result<Self, HubError> {
        // What git allows in a name (git-check-ref-format), for it becomes a path in the cache.
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.');
        let valid = name.len() <= 255
            && !name.starts_with('-')
            && !name.contains("..")
            && name.split('/').all(part)
            && !name.chars().any(|c| c.is_control() || c.is_whitespace() || "\\~^:?*[".contains(c));
        if valid { Ok(Self(name.to_owned())) } else { Err(HubError::Revision(name.to_owned())) }
    }
}

/// A commit: 40 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// Takes a whole commit's name, and nothing else.
    pub(super) fn parse(name: &str) -> Option<Self> {
        is_hexadecimal(name, 40).then(|| Self(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits `ID@REVISION`.
///
/// # Errors
/// When either part is not one.
pub fn parse_name(name: &str) -> Result<(RepositoryId, Option<Revision>), HubError> {
    match name.split_once('@') {
        Some((id, revision)) => Ok((id.parse()?, Some(revision.parse()?))),
        None => Ok((name.parse()?, None)),
    }
}

/// Whether a name of a listing is that of a file below the repository's root, on every system.
pub(super) fn is_inside(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    !path.chars().any(|c| c.is_control() || "\\:".contains(c)) && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_hub() {
        for id in ["gpt2", "org/name", "sentence-transformers/all-MiniLM-L6-v2", "a_b/c.d-e"] {
            assert_eq!(id.parse::<RepositoryId>().unwrap().as_str(), id);
        }
        let long = "x".repeat(97);
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "./a",
            "../a",
            "a/..",
            "a//b",
            "a b",
            "a/b.git",
            "a--b",
            "-a",
            "a-",
            "a/.b",
            "a\\b",
            "a/b?x",
            "a/b#x",
            "a%2fb",
            "ä",
            "https://x",
            &long,
        ] {
            assert!(name.parse::<RepositoryId>().is_err(), "{name}");
        }
        assert_eq!("org/name".parse::<RepositoryId>().unwrap().folder(), "models--org--name");
    }

    #[test]
    fn revisions_never_lead_out_of_the_cache() {
        for name in ["main", "v1.0", "refs/pr/1", "feature/x_y", &"a".repeat(40)] {
            assert!(name.parse::<Revision>().is_ok(), "{name}");
        }
        for name in
            ["", "..", "a/../b", "/a", "a/", "a//b", "-x", "a b", "a\\b", "a\nb", ".", "a/.b"]
        {
            assert!(name.parse::<Revision>().is_err(), "{name}");
        }
        let (id, revision) = parse_name("org/name@refs/pr/1").unwrap();
        assert_eq!((id.as_str(), revision.unwrap().as_str()), ("org/name", "refs/pr/1"));
        assert!(parse_name("org/name@").is_err() && parse_name("@main").is_err());
    }

    #[test]
    fn names_of_a_listing_stay_inside() {
        assert!(is_inside("config.json") && is_inside("1_Pooling/config.json"));
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "C:x", "a\0b"] {
            assert!(!is_inside(name), "{name:?}");
        }
    }
}
