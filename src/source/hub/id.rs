//! Names on the hub: repositories, revisions and commits. Each is checked before it becomes a part of an address or a path.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::HubError;
use crate::hexadecimal::is_hexadecimal;

/// The id of a repository: `organization/name`, or only a name for the oldest models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
        /// The hub's limit for a whole id.
        const MAX_LENGTH: usize = 96;
        let is_outer = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let parts: Vec<&str> = name.split('/').collect();
        let reason = if parts.len() > 2 {
            "an id has at most one slash"
        } else if parts.iter().any(|part| part.is_empty()) {
            "a part of the id is empty"
        } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
            "an id consists of letters, digits, _, - and ."
        } else if !parts.iter().all(|part| part.starts_with(is_outer) && part.ends_with(is_outer)) {
            "each part of an id starts and ends with a letter or digit"
        } else if name.contains("--") || name.contains("..") || name.ends_with(".git") {
            "an id does not contain -- or .., and does not end in .git"
        } else if name.len() > MAX_LENGTH {
            "an id has at most 96 characters"
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
    /// The revision as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Revision {
    /// The branch `main`.
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
        // The rules of git-check-ref-format, because the name becomes a path in the cache.
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.');
        let valid = name.len() <= 255
            && !name.starts_with('-')
            && !name.contains("..")
            && name.split('/').all(part)
            && !name.chars().any(|c| c.is_control() || c.is_whitespace() || "\\~^:?*[".contains(c));
        if valid { Ok(Self(name.to_owned())) } else { Err(HubError::Revision(name.to_owned())) }
    }
}

/// A commit: 40 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// Parses a full commit hash. Abbreviated ones are not accepted.
    pub(super) fn parse(name: &str) -> Option<Self> {
        is_hexadecimal(name, 40).then(|| Self(name.to_owned()))
    }

    /// The commit as text.
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

/// The name of a model on the hub, as a user writes it.
///
/// Accepted forms:
///
/// ```text
/// ORG/NAME[@REVISION]                 an id
/// ORG/NAME/FILE[@REVISION]            one file of a repository
/// hf://[models/]ORG/NAME[@REVISION][/FILE]
/// https://huggingface.co/ORG/NAME
/// https://huggingface.co/ORG/NAME/tree/REVISION
/// https://huggingface.co/ORG/NAME/blob/REVISION/FILE     also /resolve/ and /raw/
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// The repository.
    pub id: RepositoryId,
    /// The revision, if the name contains one.
    pub revision: Option<Revision>,
    /// The path of a file in the repository, if the name contains one.
    pub file: Option<String>,
}

/// The hosts whose addresses are names of models.
const HOSTS: [&str; 2] = ["huggingface.co", "hf.co"];

/// The first part of the addresses of repositories that are not models.
const OTHER_TYPES: [&str; 4] = ["buckets", "datasets", "kernels", "spaces"];
const NOT_A_MODEL: &str =
    "this is the address of a data set, space or other repository, not of a model";

impl FromStr for HubName {
    type Err = HubError;

    fn from_str(name: &str) -> Result<Self, HubError> {
        let parsed = if let Some(rest) = name.strip_prefix("hf://") {
            Self::from_uri(rest.strip_prefix("models/").unwrap_or(rest))
        } else if let Some(rest) =
            name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"))
        {
            Self::from_address(rest)
        } else if is_on_hub(name) {
            Self::from_address(name)
        } else {
            Self::from_path(name)
        };
        // Messages repeat what the user wrote.
        parsed.map_err(|error| match error {
            HubError::Id { reason, .. } => HubError::Id { name: name.to_owned(), reason },
            other => other,
        })
    }
}

impl HubName {
    /// Parses `ORG/NAME[@REVISION][/FILE]`.
    fn from_uri(path: &str) -> Result<Self, HubError> {
        if path.split('/').next().is_some_and(|part| OTHER_TYPES.contains(&part)) {
            return Err(HubError::Id { name: path.to_owned(), reason: NOT_A_MODEL });
        }
        if let Some((before, after)) = path.split_once('@')
            && let Some((revision, file)) = split_revision(after)
        {
            return Self::new(before, Some(revision), Some(file));
        }
        // This form is never a local path, so the name of a file does not need an extension.
        if !path.contains('@')
            && let [organization, name, file] = *path.splitn(3, '/').collect::<Vec<_>>()
        {
            return Self::new(&format!("{organization}/{name}"), None, Some(file));
        }
        Self::from_path(path)
    }

    /// Parses `ORG/NAME[@REVISION]` and `ORG/NAME/FILE[@REVISION]`.
    fn from_path(path: &str) -> Result<Self, HubError> {
        let (before, after) = match path.split_once('@') {
            Some((before, after)) => (before, Some(after)),
            None => (path, None),
        };
        let parts: Vec<&str> = before.splitn(3, '/').collect();
        match parts.as_slice() {
            // Without the dot, a mistyped local path such as `models/bert/base` would be searched on the hub.
            [organization, name, file] if is_file_name(file) => {
                Self::new(&format!("{organization}/{name}"), after, Some(file))
            }
            _ => Self::new(before, after, None),
        }
    }

    /// Parses an address without its scheme.
    fn from_address(address: &str) -> Result<Self, HubError> {
        let error = |reason| HubError::Id { name: address.to_owned(), reason };
        let address = address.split(['?', '#']).next().unwrap_or_default();
        let path = address.split_once('/').map_or("", |(_, path)| path);
        if !is_on_hub(address) {
            return Err(error("only addresses of huggingface.co and hf.co are accepted"));
        }
        let decoded: Vec<String> = path
            .trim_end_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        // An id has one or two parts, and a view is followed by a revision.
        let is_view = |at: &usize| {
            let is_view = |part: &&str| ["tree", "blob", "resolve", "raw"].contains(part);
            parts.get(*at).is_some_and(is_view) && parts.len() > at + 1
        };
        let (id, rest) = parts.split_at([2, 1].into_iter().find(is_view).unwrap_or(parts.len()));
        if OTHER_TYPES.contains(id.first().unwrap_or(&"")) {
            return Err(error(NOT_A_MODEL));
        }
        let id = id.join("/");
        match rest {
            [] => Self::new(&id, None, None),
            ["tree", revision] => Self::new(&id, Some(revision), None),
            ["tree", ..] => Err(error("this is the address of a folder within a repository")),
            [_, revision, file @ ..] if !file.is_empty() => {
                Self::new(&id, Some(revision), Some(&file.join("/")))
            }
            _ => Err(error("the address does not contain a revision and a file")),
        }
    }

    fn new(id: &str, revision: Option<&str>, file: Option<&str>) -> Result<Self, HubError> {
        let id: RepositoryId = id.parse()?;
        let revision = revision.map(str::parse).transpose()?;
        let file = file.map(str::to_owned);
        if file.as_deref().is_some_and(|file| !is_inside(file)) {
            let reason = "the path of the file is not valid";
            return Err(HubError::Id { name: id.to_string(), reason });
        }
        Ok(Self { id, revision, file })
    }
}

/// Splits `REVISION/FILE`. A revision with slashes has the form `refs/pr/N`.
fn split_revision(text: &str) -> Option<(&str, &str)> {
    let slash = match text.strip_prefix("refs/") {
        Some(rest) => {
            let second = rest.find('/')? + 1;
            "refs/".len() + second + rest.get(second..)?.find('/')?
        }
        None => text.find('/')?,
    };
    let (revision, file) = text.split_at(slash);
    let file = file.strip_prefix('/')?;
    is_file_name(file).then_some((revision, file))
}

/// Whether an address without its scheme is one of the hub.
fn is_on_hub(address: &str) -> bool {
    let host = address.split_once('/').map_or(address, |(host, _)| host);
    HOSTS.contains(&host.strip_prefix("www.").unwrap_or(host))
}

/// Whether the last part of a path has an extension.
fn is_file_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(stem, extension)| !stem.is_empty() && !extension.is_empty())
}

/// Whether a path of a listing is a path within the repository, on every operating system.
pub(super) fn is_inside(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    !path.chars().any(|c| c.is_control() || "\\:".contains(c)) && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_id_accepts_only_ids_of_the_hub() {
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
    }

    #[test]
    fn revision_never_leads_out_of_the_cache() {
        for name in ["main", "v1.0", "refs/pr/1", "feature/x_y", &"a".repeat(40)] {
            assert!(name.parse::<Revision>().is_ok(), "{name}");
        }
        for name in
            ["", "..", "a/../b", "/a", "a/", "a//b", "-x", "a b", "a\\b", "a\nb", ".", "a/.b"]
        {
            assert!(name.parse::<Revision>().is_err(), "{name}");
        }
    }

    fn parsed(name: &str) -> Result<(String, Option<String>, Option<String>), HubError> {
        let name: HubName = name.parse()?;
        Ok((name.id.to_string(), name.revision.map(|it| it.to_string()), name.file))
    }

    #[track_caller]
    fn assert_parsed(name: &str, id: &str, revision: Option<&str>, file: Option<&str>) {
        let expected = (id.to_owned(), revision.map(str::to_owned), file.map(str::to_owned));
        assert_eq!(parsed(name).unwrap(), expected, "{name}");
    }

    #[test]
    fn hub_name_is_an_id_with_a_revision_or_a_file() {
        assert_parsed("gpt2", "gpt2", None, None);
        assert_parsed("org/name@refs/pr/1", "org/name", Some("refs/pr/1"), None);
        assert_parsed("org/name/model.json", "org/name", None, Some("model.json"));
        assert_parsed("org/name/a/b.ubj@v1", "org/name", Some("v1"), Some("a/b.ubj"));
        for name in ["org/name@", "@main", "a/b/c", "a/b/../c.json", "a/b/", "a/b/.json", "a/b/c."]
        {
            assert!(parsed(name).is_err(), "{name}");
        }
    }

    #[test]
    fn hub_name_is_an_address() {
        for prefix in [
            "https://huggingface.co",
            "http://www.huggingface.co",
            "https://hf.co",
            "huggingface.co",
        ] {
            let name = |path: &str| format!("{prefix}/{path}");
            assert_parsed(&name("org/name"), "org/name", None, None);
            assert_parsed(&name("org/name/?x=y#z"), "org/name", None, None);
            assert_parsed(&name("gpt2/tree/main"), "gpt2", Some("main"), None);
            let pr = name("org/name/tree/refs%2Fpr%2F1/");
            assert_parsed(&pr, "org/name", Some("refs/pr/1"), None);
            let file = name("org/name/blob/v1/a/model.json");
            assert_parsed(&file, "org/name", Some("v1"), Some("a/model.json"));
            let file = name("org/name/resolve/main/model.json?download=true");
            assert_parsed(&file, "org/name", Some("main"), Some("model.json"));
            // Repositories can have the name of a view.
            assert_parsed(&name("org/tree"), "org/tree", None, None);
            assert_parsed(&name("org/raw/tree/v1"), "org/raw", Some("v1"), None);
            let file = name("org/tree/blob/main/LICENSE");
            assert_parsed(&file, "org/tree", Some("main"), Some("LICENSE"));
        }
        for name in [
            "https://example.org/org/name",
            "https://huggingface.co/",
            "https://huggingface.co/datasets/org/name",
            "https://huggingface.co/org/name/tree/main/folder",
            "https://huggingface.co/org/name/blob/main",
            "https://huggingface.co/org/name/discussions",
            "https://huggingface.co/org/name/tree/..",
        ] {
            assert!(parsed(name).is_err(), "{name}");
        }
        let error = "https://hub/a/b".parse::<HubName>().unwrap_err().to_string();
        assert!(error.contains("\"https://hub/a/b\""), "{error}");
    }

    #[test]
    fn hub_name_is_a_uri_of_huggingface_hub() {
        assert_parsed("hf://org/name", "org/name", None, None);
        assert_parsed("hf://models/org/name@v1", "org/name", Some("v1"), None);
        assert_parsed("hf://org/name@v1/a/b.json", "org/name", Some("v1"), Some("a/b.json"));
        let pr = "hf://org/name@refs/pr/3/b.json";
        assert_parsed(pr, "org/name", Some("refs/pr/3"), Some("b.json"));
        assert_parsed("hf://org/name@refs/pr/3", "org/name", Some("refs/pr/3"), None);
        assert_parsed("hf://org/name@a/branch", "org/name", Some("a/branch"), None);
        assert_parsed("org/name@release/1.0", "org/name", Some("release/1.0"), None);
        assert_parsed("hf://org/name/LICENSE", "org/name", None, Some("LICENSE"));
        assert!(parsed("hf://datasets/org/name").is_err());
        assert!(parsed("hf://org/name/").is_err());
    }

    #[test]
    fn path_of_a_listing_stays_inside_the_repository() {
        assert!(is_inside("config.json") && is_inside("1_Pooling/config.json"));
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "C:x", "a\0b"] {
            assert!(!is_inside(name), "{name:?}");
        }
    }
}
