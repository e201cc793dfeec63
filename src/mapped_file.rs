//! The one memory map.

use std::fs::File;
use std::io;
use std::path::Path;

/// A whole file, mapped read-only. Pages come in when they are read and may be dropped by the system at any time, so that a
/// checkpoint of any size costs no anonymous memory.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// Maps an open file.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only, and handed out as bytes that may hold anything. Another process that
        // truncates the file meanwhile makes a later read fault, as for every program that maps files; nothing is validated once
        // and trusted afterwards except the header, which is copied.
        Ok(Self(unsafe { memmap2::Mmap::map(file)? }))
    }

    /// Maps nothing but a page of zeros.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn of_nothing() -> io::Result<Self> {
        memmap2::MmapMut::map_anon(1)?.make_read_only().map(Self)
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
