//! The lock that a process holds while it writes a blob. Python's filelock uses the same files in the same way.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use super::HubError;
use super::digest::Digest;

/// How long to wait before the next attempt to lock.
const PAUSE: Duration = Duration::from_millis(100);

/// A lock on a blob, released when it is dropped.
#[derive(Debug)]
pub(super) struct BlobLock {
    /// `None` on file systems without locks.
    file: Option<File>,
    is_reliable: bool,
}

impl BlobLock {
    /// Waits for the lock `FOLDER/HASH.lock`. Returns a lock without effect on file systems that cannot lock.
    pub(super) async fn acquire(
        folder: &Path,
        digest: &Digest,
        name: &str,
    ) -> Result<Self, HubError> {
        fs::create_dir_all(folder).map_err(HubError::io("create the folder", folder))?;
        let path = folder.join(format!("{}.lock", digest.as_str()));
        let mut is_waiting = false;
        loop {
            let file = open(&path).map_err(HubError::io("write", &path))?;
            match FileExt::try_lock(&file) {
                // Some programs release a lock by removing its file. This lock would then be on a file that no other process opens.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    let is_reliable = refuses_second_lock(&path);
                    if !is_reliable {
                        tracing::debug!("locks have no effect at {}", path.display());
                    }
                    return Ok(Self { file: Some(file), is_reliable });
                }
                Err(TryLockError::WouldBlock) => {
                    if !is_waiting {
                        tracing::info!(
                            "another process is downloading {name}; waiting until it finishes"
                        );
                        is_waiting = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("cannot lock {}: {error}", path.display());
                    return Ok(Self { file: None, is_reliable: false });
                }
            }
        }
    }

    /// Whether the lock excludes other processes on this machine. On Lustre and some NFS mounts, every attempt to lock succeeds.
    pub(super) fn is_reliable(&self) -> bool {
        self.is_reliable
    }
}

impl Drop for BlobLock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Closing the file releases the lock too.
            let _ = FileExt::unlock(file);
        }
    }
}

/// Opens or creates a lock file with the mode that Python gives it (0664), so that all users of a group can share a cache.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        const MODE: u32 = 0o664;
        let permissions = file.metadata()?.permissions();
        if permissions.mode() & 0o777 != MODE {
            // Only the owner of the file can change its mode.
            let _ = file.set_permissions(fs::Permissions::from_mode(MODE));
        }
    }
    Ok(file)
}

/// Whether a held lock excludes a second one.
fn refuses_second_lock(path: &Path) -> bool {
    let second = File::open(path);
    second.is_ok_and(|file| matches!(FileExt::try_lock(&file), Err(TryLockError::WouldBlock)))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    file.metadata().ok().map(identity) == fs::metadata(path).ok().map(identity)
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn second_lock_waits_for_the_first() {
        let root = tempfile::tempdir().unwrap();
        let digest = Digest::parse(&"a".repeat(64)).unwrap();
        let lock = || BlobLock::acquire(root.path(), &digest, "x");
        let first = lock().await.unwrap();
        assert!(first.is_reliable());
        // The same call as Python's filelock: flock(LOCK_EX | LOCK_NB) on the file with this name.
        let path = root.path().join(format!("{}.lock", "a".repeat(64)));
        let other = File::open(&path).unwrap();
        assert!(matches!(FileExt::try_lock(&other), Err(TryLockError::WouldBlock)));
        let mut second = std::pin::pin!(lock());
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        drop(first);
        second.await.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
        }
    }
}
