//! Where a model's files come from, so that one can tell later what was imported.

use std::fmt;
use std::path::Path;

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The hub id.
    pub model_id: String,
    /// The commit.
    pub commit: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at commit {}", self.model_id, self.commit)
    }
}

impl Origin {
    /// Reads the origin off the path of a snapshot in the cache of the hub's tools. Nothing for all other folders.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let folder = folder.canonicalize().ok()?;
        let snapshots = folder.parent()?;
        let repository = snapshots.parent()?;
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let commit = name(&folder)?;
        let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if commit.len() != 40
            || !commit.bytes().all(hexadecimal)
            || name(snapshots)? != "snapshots"
            || !(repository.join("blobs").is_dir() || repository.join("refs").is_dir())
        {
            return None;
        }
        let parts: Vec<_> =
            name(repository)?.strip_prefix("models--")?.split("--").map(str::to_owned).collect();
        let valid = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty());
        valid.then(|| Self { model_id: parts.join("/"), commit })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_snapshots_tell_their_origin() {
        let root = tempfile::tempdir().unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let origin = |path: &str, sibling: Option<&str>| {
            let folder = root.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            if let Some(name) = sibling {
                fs::create_dir_all(folder.join("../..").join(name)).unwrap();
            }
            Origin::of_folder(&folder).map(|origin| origin.to_string())
        };
        let snapshot = |name: &str| format!("{name}/snapshots/{commit}");
        let expected = |id: &str| Some(format!("{id} at commit {commit}"));
        assert_eq!(origin(&snapshot("models--org--name"), Some("blobs")), expected("org/name"));
        assert_eq!(origin(&snapshot("models--name"), Some("refs")), expected("name"));
        assert_eq!(origin(&snapshot("models--bare"), None), None);
        assert_eq!(origin(&snapshot("models--a--b--c"), Some("blobs")), None);
        assert_eq!(origin(&snapshot("datasets--a--b"), Some("blobs")), None);
        assert_eq!(origin("models--a--b/snapshots/main", Some("blobs")), None);
        assert_eq!(Origin::of_folder(&root.path().join("none")), None);
    }
}
