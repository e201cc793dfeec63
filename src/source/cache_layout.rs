//! Locations in the cache that all Hugging Face tools share, and the links that are allowed in it.
//!
//! ```text
//! CACHE/models--ORG--NAME/snapshots/COMMIT/PATH   links to blobs of the repository
//! CACHE/models--ORG--NAME/blobs/NAME              files, or links to the shared store (huggingface_hub 1.32 and later)
//! CACHE/blobs/XX/HASH                             the shared store: files by Xet hash, XX being the first two digits
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::hexadecimal::is_hexadecimal;

/// A snapshot folder of the cache: `CACHE/models--ORG--NAME/snapshots/COMMIT`.
#[derive(Debug, Clone)]
pub(super) struct SnapshotFolder {
    /// The folder `models--ORG--NAME`.
    pub(super) repository: PathBuf,
    /// The name of the snapshot folder, normally a commit.
    pub(super) commit: String,
}

impl SnapshotFolder {
    /// Finds the snapshot folder that encloses a folder, or is the folder itself. `folder` must be a canonical path.
    pub(super) fn enclosing(folder: &Path) -> Option<Self> {
        folder.ancestors().find_map(|snapshot| {
            let snapshots = snapshot.parent()?;
            let repository = snapshots.parent()?;
            let name = repository.file_name()?.to_str()?;
            (snapshots.file_name()? == "snapshots" && name.starts_with("models--")).then_some(())?;
            let commit = snapshot.file_name()?.to_str()?.to_owned();
            Some(Self { repository: repository.to_owned(), commit })
        })
    }

    /// The hub id in the name of the repository's folder.
    pub(super) fn id(&self) -> Option<String> {
        let name = self.repository.file_name()?.to_str()?;
        let parts: Vec<_> = name.strip_prefix("models--")?.split("--").collect();
        let valid = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty());
        valid.then(|| parts.join("/"))
    }
}

/// Returns the file behind a blob of a repository: the blob itself, or its entry in the shared store. `None` if the blob does not
/// exist, or is a link to any other place.
pub(super) fn file_of_blob(repository: &Path, name: &str) -> Option<PathBuf> {
    let blob = repository.join("blobs").canonicalize().ok()?.join(name);
    let file = blob.canonicalize().ok()?;
    let allowed = file.is_file() && (file == blob || is_shared(&file, repository));
    allowed.then_some(file)
}

/// Returns the name of the blob to which a link in a snapshot points. `None` if the link points to any other place.
///
/// Only the first hop counts: the name of the blob is the hash that its bytes must have, while an entry of the shared store is named by a
/// hash that cannot be computed here.
pub(super) fn blob_of_link(repository: &Path, link: &Path) -> Option<String> {
    let target = link.parent()?.join(fs::read_link(link).ok()?);
    let blobs = repository.join("blobs").canonicalize().ok()?;
    let is_blob = target.parent()?.canonicalize().ok()? == blobs;
    is_blob.then_some(target.file_name()?.to_str()?.to_owned())
}

/// Whether a canonical path is an entry of the shared store of the cache that holds a repository.
fn is_shared(file: &Path, repository: &Path) -> bool {
    let entry = || {
        let hash = file.file_name()?.to_str()?;
        let prefix = file.parent()?;
        let store = repository.canonicalize().ok()?.parent()?.join("blobs");
        let in_store =
            prefix.parent()? == store && prefix.file_name()?.to_str()? == hash.get(..2)?;
        Some(in_store && is_hexadecimal(hash, 64))
    };
    entry().unwrap_or(false)
}
