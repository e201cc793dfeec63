//! The cache of the hub's tools, in the layout of Python's huggingface_hub:
//!
//! ```text
//! models--ORG--NAME/blobs/HASH                  the files, by hash; HASH.incomplete while they come in
//! models--ORG--NAME/refs/REVISION               the commit that a branch or tag was last time
//! models--ORG--NAME/snapshots/COMMIT/PATH       links to the blobs
//! models--ORG--NAME/.no_exist/COMMIT/PATH       what is known not to be there
//! .locks/models--ORG--NAME/HASH.lock            held while a blob is written
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use super::digest::Digest;
use super::listing::Entry;
use super::{Commit, HubError, RepositoryId, Revision};

/// One repository's part of the cache.
#[derive(Debug, Clone)]
pub(super) struct RepositoryCache {
    folder: PathBuf,
    locks: PathBuf,
}

/// A lock on a blob, until it is dropped. Nothing on file systems that cannot lock.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing it does the same.
            let _ = FileExt::unlock(file);
        }
    }
}

impl RepositoryCache {
    pub(super) fn new(cache: &Path, id: &RepositoryId) -> Self {
        let folder = id.folder();
        Self { locks: cache.join(".locks").join(&folder), folder: cache.join(folder) }
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.as_str())
    }

    /// Where a blob grows. Python's name for it, so that each goes on where the other stopped.
    pub(super) fn incomplete(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", digest.as_str()))
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str())
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self, revision: &Revision) -> Option<Commit> {
        Commit::parse(revision.as_str()).or_else(|| {
            let text = fs::read_to_string(self.folder.join("refs").join(revision.as_str())).ok()?;
            Commit::parse(text.trim())
        })
    }

    /// Remembers what a branch or tag is. That it cannot is no reason to fail: the cache may be read-only and complete.
    pub(super) fn remember(&self, revision: &Revision, commit: &Commit) {
        if self.commit(revision).as_ref() == Some(commit) {
            return;
        }
        let path = self.folder.join("refs").join(revision.as_str());
        if let Err(error) = write_whole(&path, commit.as_str()) {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// Remembers that a commit has no such file.
    pub(super) fn remember_absent(&self, commit: &Commit, path: &str) {
        let path = self.folder.join(".no_exist").join(commit.as_str()).join(path);
        if !path.exists()
            && let Err(error) = write_whole(&path, "")
        {
            tracing::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// Whether a commit is known to have no such file.
    pub(super) fn is_absent(&self, commit: &Commit, path: &str) -> bool {
        self.folder.join(".no_exist").join(commit.as_str()).join(path).is_file()
    }

    /// Whether a file is there, in the snapshot or among the blobs, with the bytes that it should have.
    pub(super) fn has(&self, commit: &Commit, path: &str, entry: &Entry) -> bool {
        let is_it = |path: PathBuf| {
            fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() == entry.size)
                && entry.digest.matches(&path).unwrap_or(false)
        };
        is_it(self.snapshot(commit).join(path)) || is_it(self.blob(&entry.digest))
    }

    /// Checks a file of a snapshot: a link leads to a blob of this repository, and the blob is what its name says. Whoever cannot make
    /// links leaves no name to check.
    pub(super) fn is_sound(&self, path: &Path) -> bool {
        if !path.is_symlink() {
            return true;
        }
        let blobs = self.folder.join("blobs").canonicalize();
        let Ok((blob, blobs)) = path.canonicalize().and_then(|blob| Ok((blob, blobs?))) else {
            return false;
        };
        if blob.parent() != Some(&blobs) {
            return false;
        }
        let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(digest) = Digest::parse(name) else { return true };
        // Mirrors other than the hub's own have named files by the plain SHA-1.
        digest.matches(path).unwrap_or(false) || digest.is_plain_sha1(path).unwrap_or(false)
    }

    /// Puts a blob in its place in the snapshot.
    pub(super) fn link(&self, commit: &Commit, path: &str, entry: &Entry) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(path);
        let blob = self.blob(&entry.digest);
        // Up from the file's folder: the folders of its path, COMMIT, `snapshots`.
        let mut target = PathBuf::new();
        for _ in 0..path.split('/').count() + 1 {
            target.push("..");
        }
        let target = target.join("blobs").join(entry.digest.as_str());
        let same = match fs::read_link(&pointer) {
            Ok(link) => link == target,
            // A file itself, from where there are no links.
            Err(_) => !blob.exists() && pointer.is_file(),
        };
        if same {
            return Ok(());
        }
        let error = HubError::io("write", &pointer);
        place(&pointer, &target, &blob).map_err(error)
    }

    /// Waits until no one else writes a blob.
    pub(super) async fn lock(&self, digest: &Digest, path: &str) -> Result<Lock, HubError> {
        const PAUSE: Duration = Duration::from_millis(100);
        fs::create_dir_all(&self.locks).map_err(HubError::io("make the folder", &self.locks))?;
        let name = self.locks.join(format!("{}.lock", digest.as_str()));
        let mut told = false;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&name).map_err(HubError::io("write", &name))?;
            match FileExt::try_lock(&file) {
                // Some release the lock by removing its file: then this is a lock on nothing.
                Ok(()) if is_at(&file, &name) => return Ok(Lock(Some(file))),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        tracing::info!("another process is fetching {path}; waiting for it");
                        told = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                // What two writers mix up, the hash tells.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("cannot lock {}: {error}", name.display());
                    return Ok(Lock(None));
                }
            }
        }
    }

    /// Makes the folders that a download needs.
    pub(super) fn prepare(&self) -> Result<PathBuf, HubError> {
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(HubError::io("make the folder", &blobs))?;
        Ok(blobs)
    }
}

/// Makes a link, or where that cannot be, what Python makes instead: the file itself.
fn place(pointer: &Path, target: &Path, blob: &Path) -> io::Result<()> {
    let folder = pointer.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Made beside it and renamed, so that whoever reads meanwhile finds the old one or the new.
    let linked = tempfile::Builder::new()
        .prefix(".link-")
        .make_in(folder, |path| symlink(target, path))
        .and_then(|link| link.into_temp_path().persist(pointer).map_err(|error| error.error));
    let Err(error) = linked else { return Ok(()) };
    tracing::debug!("no link at {}: {error}", pointer.display());
    copy(blob, pointer, folder)
}

fn copy(blob: &Path, pointer: &Path, folder: &Path) -> io::Result<()> {
    let copy = tempfile::Builder::new().prefix(".copy-").tempfile_in(folder)?.into_temp_path();
    fs::copy(blob, &copy)?;
    copy.persist(pointer).map_err(|error| error.error)
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.prefix(".ref-").tempfile_in(folder)?.into_temp_path();
    fs::write(&file, text)?;
    file.persist(path).map_err(|error| error.error)
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().ok().map(of) == fs::metadata(path).ok().map(of)
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_no_links_the_file_itself_is_there() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(root.path(), &"org/name".parse().unwrap());
        let commit = Commit::parse(&"c".repeat(40)).unwrap();
        let digest = Digest::parse("d670460b4b4aece5915caf5c68d12f560a9fe3e4").unwrap();
        let entry = Entry { size: 13, digest };
        cache.prepare().unwrap();
        fs::write(cache.blob(&entry.digest), "test content\n").unwrap();
        let pointer = cache.snapshot(&commit).join("a/b.txt");
        let folder = pointer.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        copy(&cache.blob(&entry.digest), &pointer, folder).unwrap();
        assert!(!pointer.is_symlink() && cache.is_sound(&pointer));
        assert!(cache.has(&commit, "a/b.txt", &entry));
        // Without the blob it stays; beside the blob it becomes a link.
        fs::rename(cache.blob(&entry.digest), root.path().join("elsewhere")).unwrap();
        cache.link(&commit, "a/b.txt", &entry).unwrap();
        assert!(!pointer.is_symlink());
        fs::rename(root.path().join("elsewhere"), cache.blob(&entry.digest)).unwrap();
        cache.link(&commit, "a/b.txt", &entry).unwrap();
        assert!(pointer.is_symlink());
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "test content\n");
    }

    #[tokio::test]
    async fn a_lock_is_python_s_and_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(root.path(), &"org/name".parse().unwrap());
        let digest = Digest::parse(&"a".repeat(64)).unwrap();
        let first = cache.lock(&digest, "x").await.unwrap();
        let name = format!(".locks/models--org--name/{}.lock", "a".repeat(64));
        // filelock's call: flock(LOCK_EX | LOCK_NB) on the file of that name.
        let other = File::open(root.path().join(name)).unwrap();
        assert!(matches!(FileExt::try_lock(&other), Err(TryLockError::WouldBlock)));
        let mut second = std::pin::pin!(cache.lock(&digest, "x"));
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        drop(first);
        second.await.unwrap();
    }
}
