//! One repository in the cache that all Hugging Face tools share.
//!
//! ```text
//! models--ORG--NAME/blobs/HASH                       files by hash, or links to the shared store
//! models--ORG--NAME/blobs/HASH.XXXXXXXX.incomplete   a file that is being downloaded
//! models--ORG--NAME/refs/REVISION                    the commit of a branch or tag when it was last resolved
//! models--ORG--NAME/snapshots/COMMIT/PATH            links to blobs
//! models--ORG--NAME/trees/COMMIT.json                sizes and hashes of all files (huggingface_hub 1.22 and later)
//! models--ORG--NAME/.no_exist/COMMIT/PATH            files that the commit does not have
//! .locks/models--ORG--NAME/HASH.lock                 locked while a blob is written
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::digest::Digest;
use super::listing::{Listing, RepositoryFile};
use super::lock::BlobLock;
use super::{Commit, HubError, RepositoryId, Revision, tree_cache};
use crate::source::cache_layout::{blob_of_link, file_of_blob};

/// One repository's part of the cache.
#[derive(Debug, Clone)]
pub(super) struct RepositoryCache {
    folder: PathBuf,
    locks: PathBuf,
    snapshots: Arc<CacheRepo>,
    /// Whether snapshots consist of links. Otherwise they consist of files.
    links: bool,
}

impl RepositoryCache {
    pub(super) fn new(cache: &Path, id: &RepositoryId, links: bool) -> Self {
        let cache = Cache::new(cache.to_owned());
        let repository = Repo::new(id.to_string(), RepoType::Model);
        let folder = repository.folder_name();
        Self {
            locks: cache.path().join(".locks").join(&folder),
            folder: cache.path().join(folder),
            snapshots: Arc::new(cache.repo(repository)),
            links,
        }
    }

    /// The folder of the blobs.
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    /// The path of a blob.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.as_str())
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.snapshots.pointer_path(commit.as_str())
    }

    /// The commit of a revision when it was last resolved.
    pub(super) fn commit(&self, revision: &Revision) -> Option<Commit> {
        Commit::parse(revision.as_str()).or_else(|| {
            let text = fs::read_to_string(self.folder.join("refs").join(revision.as_str())).ok()?;
            Commit::parse(text.trim())
        })
    }

    /// The listing of a commit that huggingface_hub stored, if there is one.
    pub(super) fn stored_listing(&self, commit: &Commit) -> Option<Listing> {
        tree_cache::read(&self.listing_path(commit))
    }

    fn listing_path(&self, commit: &Commit) -> PathBuf {
        self.folder.join("trees").join(format!("{}.json", commit.as_str()))
    }

    /// Stores the listing of a commit like huggingface_hub if the snapshot contains files in place of links, because the name of a link's
    /// target is the only other record of a file's hash. Failures are logged only.
    pub(super) fn store_listing_without_links(
        &self,
        commit: &Commit,
        listing: &Listing,
        needed: &[String],
    ) {
        let snapshot = self.snapshot(commit);
        let path = self.listing_path(commit);
        if needed.iter().all(|file| snapshot.join(file).is_symlink()) || path.exists() {
            return;
        }
        if let Err(error) = write_atomically(&path, &tree_cache::text(listing)) {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// Stores the commit of a branch or tag. The crate's `create_ref` would leave the file empty for a moment. Failures are logged only,
    /// because the cache may be complete and read-only.
    pub(super) fn store_commit(&self, revision: &Revision, commit: &Commit) {
        if self.commit(revision).as_ref() == Some(commit) {
            return;
        }
        let path = self.folder.join("refs").join(revision.as_str());
        if let Err(error) = write_atomically(&path, commit.as_str()) {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// Records that a commit does not have a file. Failures are logged only.
    pub(super) fn store_absence(&self, commit: &Commit, path: &str) {
        let path = self.absence(commit, path);
        if !path.exists()
            && let Err(error) = write_atomically(&path, "")
        {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// Whether the cache records that a commit does not have a file.
    pub(super) fn is_absent(&self, commit: &Commit, path: &str) -> bool {
        self.absence(commit, path).is_file()
    }

    fn absence(&self, commit: &Commit, path: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit.as_str()).join(path)
    }

    /// The cached file with the size and hash of a repository file, in the snapshot or among the blobs. Its bytes are hashed.
    pub(super) fn verified_file(
        &self,
        commit: &Commit,
        path: &str,
        file: &RepositoryFile,
    ) -> Option<PathBuf> {
        let pointer = self.snapshot(commit).join(path);
        let in_snapshot = if pointer.is_symlink() {
            blob_of_link(&self.folder, &pointer).and_then(|name| file_of_blob(&self.folder, &name))
        } else {
            Some(pointer)
        };
        let blob = || file_of_blob(&self.folder, file.digest.as_str());
        in_snapshot.filter(|path| file.is(path)).or_else(|| blob().filter(|path| file.is(path)))
    }

    /// Whether a file of a snapshot is undamaged. A link must point to a blob of this repository whose bytes match its name. A file that
    /// is not a link is compared with the stored listing; without one, there is nothing to compare it with.
    pub(super) fn is_sound(&self, path: &Path, listed: Option<&RepositoryFile>) -> bool {
        if !path.is_symlink() {
            return listed.is_none_or(|file| file.is(path));
        }
        let Some(name) = blob_of_link(&self.folder, path) else { return false };
        let Some(file) = file_of_blob(&self.folder, &name) else { return false };
        if let Some(listed) = listed {
            return listed.is(&file);
        }
        let Some(digest) = Digest::parse(&name) else { return true };
        // Some mirrors name blobs by the plain SHA-1 of the content.
        digest.matches(&file).unwrap_or(false) || digest.is_plain_sha1(&file).unwrap_or(false)
    }

    /// Whether a link of a snapshot points to a blob of this repository.
    pub(super) fn is_link_to_blob(&self, path: &Path) -> bool {
        blob_of_link(&self.folder, path).is_some()
    }

    /// Puts a file into a snapshot: a link to its blob, or the file itself where links are disabled or not supported. `is_disposable`
    /// means that nothing else uses the blob, so it can be moved.
    pub(super) fn add_to_snapshot(
        &self,
        commit: &Commit,
        path: &str,
        file: &RepositoryFile,
        is_disposable: bool,
    ) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(path);
        let blob = self.blob(&file.digest);
        let target = link_target(path, &file.digest);
        let is_done = match fs::read_link(&pointer) {
            Ok(link) => self.links && link == target,
            Err(_) if self.links => !blob.exists() && pointer.is_file(),
            Err(_) => file.is(&pointer),
        };
        if is_done {
            return Ok(());
        }
        let placed = if self.links {
            place_link(&pointer, &target, &blob)
        } else {
            place_file(&pointer, &blob, is_disposable)
        };
        placed.map_err(HubError::io("write", &pointer))
    }

    /// Waits until no other process writes a blob. `path` is the name for messages.
    pub(super) async fn lock(&self, digest: &Digest, path: &str) -> Result<BlobLock, HubError> {
        BlobLock::acquire(&self.locks, digest, path).await
    }

    /// Creates the folders that a download needs.
    pub(super) fn create_folders(&self) -> Result<PathBuf, HubError> {
        let blobs = self.blobs();
        fs::create_dir_all(&blobs).map_err(HubError::io("create the folder", &blobs))?;
        Ok(blobs)
    }
}

/// The relative path from a file of a snapshot to its blob: up from the folders of `path`, from COMMIT and from `snapshots`.
fn link_target(path: &str, digest: &Digest) -> PathBuf {
    let up = path.split('/').count() + 1;
    std::iter::repeat_n("..", up).chain(["blobs", digest.as_str()]).collect()
}

/// Creates a link, or a copy of the file where links are not supported.
fn place_link(pointer: &Path, target: &Path, blob: &Path) -> io::Result<()> {
    let folder = parent(pointer);
    fs::create_dir_all(folder)?;
    // Renamed into place, so that other processes see either the old file or the new one.
    let linked = tempfile::Builder::new()
        .prefix(".link-")
        .make_in(folder, |path| symlink(target, path))
        .and_then(|link| link.into_temp_path().persist(pointer).map_err(|error| error.error));
    let Err(error) = linked else { return Ok(()) };
    tracing::debug!("cannot create a link at {}: {error}", pointer.display());
    place_file(pointer, blob, false)
}

/// Creates a file that is not a link: the blob itself if it is disposable, otherwise a copy.
fn place_file(pointer: &Path, blob: &Path, is_disposable: bool) -> io::Result<()> {
    let folder = parent(pointer);
    fs::create_dir_all(folder)?;
    if is_disposable && !blob.is_symlink() && fs::rename(blob, pointer).is_ok() {
        return Ok(());
    }
    let copy = tempfile::Builder::new().prefix(".copy-").tempfile_in(folder)?.into_temp_path();
    fs::copy(blob, &copy)?;
    copy.persist(pointer).map_err(|error| error.error)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let folder = parent(path);
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.prefix(".ref-").tempfile_in(folder)?.into_temp_path();
    fs::write(&file, text)?;
    file.persist(path).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_blob(links: bool) -> (tempfile::TempDir, RepositoryCache, Commit, RepositoryFile) {
        let root = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(root.path(), &"org/name".parse().unwrap(), links);
        let commit = Commit::parse(&"c".repeat(40)).unwrap();
        let digest = Digest::parse("d670460b4b4aece5915caf5c68d12f560a9fe3e4").unwrap();
        let file = RepositoryFile { size: 13, digest, pointer: None };
        cache.create_folders().unwrap();
        fs::write(cache.blob(&file.digest), "test content\n").unwrap();
        (root, cache, commit, file)
    }

    #[test]
    fn repository_folder_has_the_name_of_hf_hub() {
        let (root, cache, commit, _) = one_blob(true);
        let folder = root.path().join("models--org--name");
        assert_eq!(cache.folder, folder);
        assert_eq!(cache.snapshot(&commit), folder.join("snapshots").join("c".repeat(40)));
    }

    #[test]
    fn snapshot_without_links_holds_the_file() {
        let (root, cache, commit, file) = one_blob(true);
        let pointer = cache.snapshot(&commit).join("a/b.txt");
        place_file(&pointer, &cache.blob(&file.digest), false).unwrap();
        assert!(!pointer.is_symlink() && cache.is_sound(&pointer, None));
        assert!(cache.verified_file(&commit, "a/b.txt", &file).is_some());
        // Without the blob the file stays. With the blob it becomes a link.
        fs::rename(cache.blob(&file.digest), root.path().join("elsewhere")).unwrap();
        cache.add_to_snapshot(&commit, "a/b.txt", &file, false).unwrap();
        assert!(!pointer.is_symlink());
        fs::rename(root.path().join("elsewhere"), cache.blob(&file.digest)).unwrap();
        cache.add_to_snapshot(&commit, "a/b.txt", &file, false).unwrap();
        assert!(pointer.is_symlink());
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "test content\n");
    }

    #[test]
    fn disabled_links_move_a_disposable_blob_and_copy_any_other() {
        let (_root, cache, commit, file) = one_blob(false);
        let pointer = |path| cache.snapshot(&commit).join(path);
        cache.add_to_snapshot(&commit, "copy", &file, false).unwrap();
        assert!(cache.blob(&file.digest).exists() && !pointer("copy").is_symlink());
        cache.add_to_snapshot(&commit, "a/moved", &file, true).unwrap();
        assert!(!cache.blob(&file.digest).exists());
        for path in ["copy", "a/moved"] {
            assert_eq!(fs::read_to_string(pointer(path)).unwrap(), "test content\n");
            cache.add_to_snapshot(&commit, path, &file, false).unwrap();
        }
    }

    #[test]
    fn changed_byte_is_found_by_the_stored_listing_where_there_are_no_links() {
        let (_root, cache, commit, file) = one_blob(false);
        cache.add_to_snapshot(&commit, "a", &file, true).unwrap();
        let path = cache.snapshot(&commit).join("a");
        assert!(cache.is_sound(&path, Some(&file)));
        fs::write(&path, "Test content\n").unwrap();
        assert!(!cache.is_sound(&path, Some(&file)));
    }
}
