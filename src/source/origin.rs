//! The origin of a model: a repository of the hub at a commit.

use std::fmt;
use std::path::Path;

use super::cache_layout::SnapshotFolder;
use crate::hexadecimal::is_hexadecimal;

/// A repository of the hub at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The hub id, such as `org/name`.
    pub model_id: String,
    /// The commit: 40 hexadecimal digits.
    pub commit: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at commit {}", self.model_id, self.commit)
    }
}

impl Origin {
    /// Reads the origin from the path of a snapshot in the hub's cache. Returns `None` for every other folder.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let folder = folder.canonicalize().ok()?;
        let snapshot = SnapshotFolder::enclosing(&folder)?;
        let repository = &snapshot.repository;
        let is_snapshot = folder.parent() == Some(&repository.join("snapshots"))
            && is_hexadecimal(&snapshot.commit, 40)
            && (repository.join("blobs").is_dir() || repository.join("refs").is_dir());
        is_snapshot.then(|| Some(Self { model_id: snapshot.id()?, commit: snapshot.commit }))?
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn snapshot_folder_has_origin_and_other_folders_do_not() {
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
        assert_eq!(origin(&format!("{}/1_Pooling", snapshot("models--org--name")), None), None);
        assert_eq!(Origin::of_folder(&root.path().join("none")), None);
    }
}
