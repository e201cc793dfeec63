//! [`Claim`]: the lock that keeps two processes on this machine from importing the same model, and the place of its journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};
use sha2::{Digest, Sha256};

use super::journal::{BEGIN, Journal, JournalHeader, content, line};
use super::part_size::MOST_PARTS;
use crate::hexadecimal::hexadecimal;
use crate::model_id::ModelId;

/// The exclusive right on this machine to import a model with this id into this cluster. It is released when the value is dropped
/// or the process ends.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) journal: PathBuf,
    lock: PathBuf,
    /// Open file that holds the lock.
    file: File,
}

/// Why a claim cannot be taken.
#[derive(Debug)]
pub(super) enum Unclaimed {
    /// Another process has it.
    Held,
    /// The directory cannot be used.
    Io(PathBuf, io::Error),
}

impl Claim {
    /// Takes the claim.
    pub(super) fn take(folder: &Path, cluster: &str, id: &ModelId) -> Result<Self, Unclaimed> {
        let folder = folder.join("imports");
        let failed = |error| Unclaimed::Io(folder.clone(), error);
        fs::create_dir_all(&folder).map_err(failed)?;
        // The uuid comes from the server, so it must not be part of a file name.
        let cluster = hexadecimal(&Sha256::digest(cluster)[..8]);
        let journal = folder.join(format!("{id}.{cluster}.journal"));
        let lock = journal.with_extension("lock");
        let file =
            lock_file(&lock, |path| fs::read_to_string(path)).map_err(|error| match error {
                TryLockError::WouldBlock => Unclaimed::Held,
                TryLockError::Error(error) => failed(error),
            })?;
        Ok(Self { journal, lock, file })
    }

    /// Starts a new journal in place of an existing one. If the file cannot be written, the journal stays in memory.
    pub(super) fn begin(&self, header: JournalHeader) -> Journal {
        match self.create(&header) {
            Ok(file) => Journal::new(header, Some(file)),
            Err(error) => {
                warn_unresumable(&self.journal, &error);
                self.forget();
                Journal::new(header, None)
            }
        }
    }

    /// Creates the file with its first line atomically, and syncs it to the disk before anything is sent.
    fn create(&self, header: &JournalHeader) -> io::Result<File> {
        let folder = self.journal.parent().unwrap_or(Path::new(""));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let header = serde_json::to_string(header)?;
        file.write_all(line(&format!("{BEGIN} {header}")).as_bytes())?;
        file.as_file().sync_all()?;
        let file = file.persist(&self.journal).map_err(|error| error.error)?;
        // Not every system can sync directories. Without it, a power failure can remove the journal; the upload then starts again.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(file)
    }

    /// The journal of an earlier process, up to its first incomplete line.
    pub(super) fn resume(&self) -> Option<Journal> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.journal).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
        };
        let mut lines = text.split_inclusive('\n');
        let first = lines.next()?;
        let header = content(first)?.strip_prefix(BEGIN)?;
        let header: JournalHeader = serde_json::from_str(header).ok()?;
        // Rejects sizes that no upload has.
        if header.length == 0 || header.part_size == 0 || header.parts() > MOST_PARTS {
            return None;
        }
        let mut whole = first.len();
        let mut journal = Journal::new(header, None);
        for line in lines {
            if !content(line).is_some_and(|content| journal.replay(content)) {
                break;
            }
            whole += line.len();
        }
        // Removes an incomplete last line before more lines are appended.
        file.set_len(whole as u64).ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        journal.file = Some(file);
        journal.durable = true;
        Some(journal)
    }

    /// Removes the journal.
    pub(super) fn forget(&self) {
        match fs::remove_file(&self.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", self.journal.display());
            }
            _ => {}
        }
    }
}

/// How often a lock file may disappear while it is being locked.
const LOCK_ATTEMPTS: u32 = 100;

/// Opens and locks a file, and verifies that the file still has this name. A process that releases the lock removes the file, which
/// can happen between opening and locking. `read_back` reads the file by its name.
///
/// # Errors
/// If another process holds the lock, or the file cannot be opened, written or read back.
fn lock_file(
    path: &Path,
    read_back: impl Fn(&Path) -> io::Result<String>,
) -> Result<File, TryLockError> {
    for _ in 0..LOCK_ATTEMPTS {
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).write(true).truncate(false);
        let mut file = options.open(path).map_err(TryLockError::Error)?;
        FileExt::try_lock(&file)?;
        let token = format!("{:016x}", fastrand::u64(..));
        let written = file.set_len(0).and_then(|()| file.write_all(token.as_bytes()));
        written.map_err(TryLockError::Error)?;
        match read_back(path) {
            Ok(found) if found == token => return Ok(file),
            // Another file has this name now, or no file.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(TryLockError::Error(error)),
        }
    }
    Err(TryLockError::Error(io::Error::other("the lock file cannot be read back")))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Remove the file while it is locked, so that no other process's lock is removed.
        let _ = fs::remove_file(&self.lock);
        let _ = FileExt::unlock(&self.file);
    }
}

/// A journal in memory, for an import without a claim.
pub(super) fn in_memory(header: JournalHeader) -> Journal {
    Journal::new(header, None)
}

/// Warns that an interrupted import cannot be resumed.
pub(super) fn warn_unresumable(path: &Path, error: &io::Error) {
    tracing::warn!(
        "cannot write an upload journal in {} ({error}): an interrupted import starts again from the beginning",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_that_cannot_be_read_back_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let denied = lock_file(&path, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(
            matches!(denied, Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::PermissionDenied)
        );
        let altered = lock_file(&path, |_| Ok("something else".into()));
        assert!(matches!(altered, Err(TryLockError::Error(_))));
        assert!(lock_file(&path, |path| fs::read_to_string(path)).is_ok());
    }
}
