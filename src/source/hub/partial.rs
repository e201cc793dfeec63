//! Files that are being downloaded: `blobs/HASH.XXXXXXXX.incomplete`.
//!
//! No two processes ever write the same partial file. Python (huggingface_hub 1.18 and later) draws the eight digits at random. Here they
//! identify the running kernel, so that the next run on this machine continues the file: the lock on the blob rules out a second writer
//! there. Where locks have no effect, the digits are random. Bytes in the partial files of other writers are copied, never appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::HubError;
use super::cache::RepositoryCache;
use super::digest::{Digest, Hasher};
use crate::hexadecimal::hexadecimal;

const SUFFIX: &str = ".incomplete";

/// How long a partial file of another writer must be unchanged before it is deleted. Waits for the hub's rate limit are shorter.
const ABANDONED_AFTER: Duration = Duration::from_secs(15 * 60);

/// A partial file of this process.
pub(super) struct PartialFile {
    path: PathBuf,
    file: File,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    /// Bytes in the file, all of which the hasher has seen.
    length: u64,
}

impl PartialFile {
    /// Opens the partial file of a blob of `size` bytes, with the bytes that earlier downloads have left.
    pub(super) fn open(
        cache: &RepositoryCache,
        digest: &Digest,
        size: u64,
        is_lock_reliable: bool,
    ) -> Result<Self, HubError> {
        let suffix = kernel_suffix().filter(|_| is_lock_reliable);
        let suffix = suffix.map_or_else(|| format!("{:08x}", fastrand::u32(..)), str::to_owned);
        let path = cache.blobs().join(format!("{}.{suffix}{SUFFIX}", digest.as_str()));
        let error = || HubError::io("write", &path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(error())?;
        let mut length = file.metadata().map_err(error())?.len();
        if length > size {
            file.set_len(0).map_err(error())?;
            length = 0;
        }
        if let Some(other) = longest_other(cache, digest, &path, length, size) {
            length = copy_beginning(&other, &mut file, size).map_err(error())?;
            file.seek(SeekFrom::Start(0)).map_err(error())?;
        }
        let mut hasher = digest.hasher(size);
        hasher.read(&mut file, length).map_err(error())?;
        file.seek(SeekFrom::Start(length)).map_err(error())?;
        Ok(Self { digest: digest.clone(), path, file, size, hasher, length })
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that the file lacks.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.length
    }

    /// Appends bytes. They are written at once, so that a process that is killed loses none of them.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // The hasher has not seen the bytes that were written before the error.
            let _ = self.file.set_len(self.length);
        }
        written.map_err(HubError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Removes all bytes.
    pub(super) fn clear(&mut self) -> Result<(), HubError> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(HubError::io("write", &self.path))?;
        self.hasher = self.digest.hasher(self.size);
        self.length = 0;
        Ok(())
    }

    /// Whether the bytes have the hash that they must have.
    pub(super) fn is_valid(&self) -> bool {
        self.length == self.size && self.hasher.clone().finish() == self.digest.as_str()
    }

    /// Renames the file to the blob, and deletes partial files of the same blob that other writers have abandoned.
    pub(super) fn finish(self, cache: &RepositoryCache) -> Result<(), HubError> {
        let blob = cache.blob(&self.digest);
        fs::rename(&self.path, &blob).map_err(HubError::io("write", &blob))?;
        for path in partial_files(cache, &self.digest) {
            if is_abandoned(&path) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Deletes the file.
    pub(super) fn discard(self) {
        // The next run does not need it to be gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a file or folder has not changed for so long that no process writes it any more.
pub(super) fn is_abandoned(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|data| data.modified()).ok();
    modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > ABANDONED_AFTER)
}

/// Bytes from earlier downloads of a blob, at most `size`.
pub(super) fn partial_length(cache: &RepositoryCache, digest: &Digest, size: u64) -> u64 {
    let lengths = partial_files(cache, digest).into_iter().filter_map(|path| length(&path));
    lengths.filter(|length| *length <= size).max().unwrap_or_default()
}

/// The longest partial file of another writer, if it is longer than `length` and not longer than `size`.
fn longest_other(
    cache: &RepositoryCache,
    digest: &Digest,
    own: &Path,
    own_length: u64,
    size: u64,
) -> Option<PathBuf> {
    let others = partial_files(cache, digest).into_iter().filter(|path| path != own);
    let others = others.filter_map(|path| Some((length(&path)?, path)));
    let longest = others.filter(|(length, _)| *length <= size).max()?;
    (longest.0 > own_length).then_some(longest.1)
}

/// All partial files of a blob: `HASH.XXXXXXXX.incomplete`, and `HASH.incomplete` of older programs.
fn partial_files(cache: &RepositoryCache, digest: &Digest) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.blobs()).into_iter().flatten().flatten();
    let is_partial = |name: &str| {
        let rest = name.strip_prefix(digest.as_str()).and_then(|rest| rest.strip_suffix(SUFFIX));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_partial))
        .map(|file| file.path())
        .collect()
}

/// The length of a partial file that was written from its beginning to its end. hf_xet writes in any order and leaves holes.
fn length(path: &Path) -> Option<u64> {
    let data = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let has_holes = data.blocks() * 512 < data.len();
        (!has_holes).then_some(())?;
    }
    Some(data.len())
}

/// Copies at most `size` bytes of another file to the beginning of this one, and returns how many this file holds then.
fn copy_beginning(from: &Path, to: &mut File, size: u64) -> io::Result<u64> {
    to.set_len(0)?;
    to.seek(SeekFrom::Start(0))?;
    match File::open(from) {
        Ok(file) => io::copy(&mut file.take(size), to),
        // Its writer may have finished or deleted it.
        Err(_) => Ok(0),
    }
}

/// Eight digits that identify the running kernel. `None` if the system does not provide such an identifier.
fn kernel_suffix() -> Option<&'static str> {
    static SUFFIX: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        Some(hexadecimal(Sha256::digest(id).get(..4)?))
    };
    SUFFIX.get_or_init(read).as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"test content\n";

    fn cache() -> (tempfile::TempDir, RepositoryCache, Digest) {
        let root = tempfile::tempdir().unwrap();
        let cache = RepositoryCache::new(root.path(), &"org/name".parse().unwrap(), true);
        cache.create_folders().unwrap();
        (root, cache, Digest::parse("d670460b4b4aece5915caf5c68d12f560a9fe3e4").unwrap())
    }

    fn open(cache: &RepositoryCache, digest: &Digest, is_lock_reliable: bool) -> PartialFile {
        PartialFile::open(cache, digest, CONTENT.len() as u64, is_lock_reliable).unwrap()
    }

    #[test]
    fn next_run_on_this_machine_continues_the_file() {
        let (_root, cache, digest) = cache();
        let mut first = open(&cache, &digest, true);
        first.append(&CONTENT[..5]).unwrap();
        let path = first.path.clone();
        drop(first);
        let mut second = open(&cache, &digest, true);
        assert_eq!((second.length(), &second.path), (5, &path));
        second.append(&CONTENT[5..]).unwrap();
        assert!(second.is_valid());
        second.finish(&cache).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read(cache.blob(&digest)).unwrap(), CONTENT);
    }

    #[test]
    fn unreliable_lock_gives_every_writer_its_own_file() {
        let (_root, cache, digest) = cache();
        let mut first = open(&cache, &digest, false);
        first.append(&CONTENT[..5]).unwrap();
        let mut second = open(&cache, &digest, false);
        assert!(second.path != first.path && second.length() == 5);
        // Both write at the same time.
        first.append(b"xyz").unwrap();
        second.append(&CONTENT[5..]).unwrap();
        second.finish(&cache).unwrap();
        assert_eq!(fs::read(cache.blob(&digest)).unwrap(), CONTENT);
        first.append(b"more").unwrap();
        assert_eq!(fs::read(cache.blob(&digest)).unwrap(), CONTENT);
    }

    #[test]
    fn partial_file_of_another_writer_is_copied_and_not_changed() {
        for name in [
            "d670460b4b4aece5915caf5c68d12f560a9fe3e4.0123abcd.incomplete",
            "d670460b4b4aece5915caf5c68d12f560a9fe3e4.incomplete",
        ] {
            let (_root, cache, digest) = cache();
            let other = cache.blobs().join(name);
            fs::write(&other, &CONTENT[..7]).unwrap();
            assert_eq!(partial_length(&cache, &digest, 13), 7);
            let mut own = open(&cache, &digest, true);
            assert_eq!(own.length(), 7);
            own.append(&CONTENT[7..]).unwrap();
            assert!(own.is_valid());
            own.finish(&cache).unwrap();
            // The other writer may still be running, unless the file is old.
            assert_eq!(fs::read(&other).unwrap(), &CONTENT[..7]);
            let old = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
            File::options().write(true).open(&other).unwrap().set_modified(old).unwrap();
            let mut own = open(&cache, &digest, true);
            own.append(&CONTENT[7..]).unwrap();
            own.finish(&cache).unwrap();
            assert!(!other.exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn partial_file_with_holes_is_not_used() {
        let (_root, cache, digest) = cache();
        let other = cache.blobs().join(format!("{}.0123abcd.incomplete", digest.as_str()));
        File::create(&other).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(partial_length(&cache, &digest, 1 << 20), 0);
        assert_eq!(PartialFile::open(&cache, &digest, 1 << 20, true).unwrap().length(), 0);
    }
}
