//! Hashes of a file's content. The hub lists a hash for every file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::hexadecimal::{hexadecimal, is_hexadecimal};

/// A file's hash, which is its name in the cache too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// SHA-256 of the content: files in LFS or Xet.
    Sha256(String),
    /// The blob id of git, for all other files.
    GitBlob(String),
}

impl Digest {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if is_hexadecimal(text, 64) {
            Some(Self::Sha256(text.to_owned()))
        } else {
            is_hexadecimal(text, 40).then(|| Self::GitBlob(text.to_owned()))
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::GitBlob(name) => name,
        }
    }

    /// Starts to hash a file of this many bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => {
                Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0").as_bytes()))
            }
        }
    }

    /// Whether a file has this content.
    pub(super) fn matches(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut hasher = self.hasher(size);
        hasher.read(&mut file, size)?;
        Ok(hasher.finish() == self.as_str())
    }

    /// Whether the name is the SHA-1 of a file's content without git's header.
    pub(super) fn is_plain_sha1(&self, path: &Path) -> io::Result<bool> {
        let Self::GitBlob(name) = self else { return Ok(false) };
        let mut hasher = Hasher::GitBlob(Sha1::new());
        hasher.read(&mut File::open(path)?, u64::MAX)?;
        Ok(hasher.finish() == *name)
    }
}

/// Hashes a file while it is received.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
        }
    }

    /// Hashes `length` bytes, or fewer at the end of the file.
    pub(super) fn read(&mut self, from: &mut impl Read, length: u64) -> io::Result<()> {
        let mut from = from.take(length);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.update(buffer.get(..read).unwrap_or_default());
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hexadecimal(&hash.finalize()),
            Self::GitBlob(hash) => hexadecimal(&hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_git_blob_ids_or_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "test content\n").unwrap();
        for name in [
            "d670460b4b4aece5915caf5c68d12f560a9fe3e4",
            "a1fff0ffefb9eace7230c24e50731f0a91c62f9cefdfe77121c2f607125dffae",
        ] {
            assert!(Digest::parse(name).unwrap().matches(&path).unwrap(), "{name}");
            let other = name.replace('a', "b");
            assert!(!Digest::parse(&other).unwrap().matches(&path).unwrap());
        }
        for name in ["", "main", "../../x", &"A".repeat(40), &"a".repeat(41)] {
            assert!(Digest::parse(name).is_none(), "{name}");
        }
    }
}
