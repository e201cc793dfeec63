//! Read-only memory maps of files. Only this module maps files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A whole file, mapped read-only.
///
/// The operating system loads pages when they are read and may drop them at any time, so a checkpoint of any size takes no anonymous
/// memory. Another process can change or shorten the file while it is mapped; [`check_unchanged`](Self::check_unchanged) reports that.
#[derive(Debug)]
pub struct MappedFile {
    /// Dropped before the map, because it refers to the map's addresses.
    _guard: Option<truncation::Guard>,
    map: memmap2::Mmap,
    path: PathBuf,
    source: Option<Source>,
}

/// The file at the time it was mapped.
#[derive(Debug)]
struct Source {
    file: File,
    length: u64,
    modified: Option<SystemTime>,
}

/// A mapped file was changed or shortened after it was mapped.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} changed while it was being read. Run the command again when no other program writes to the file"
)]
pub struct FileChanged {
    /// The file.
    pub path: PathBuf,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// The operating system's error if the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(File::open(path)?, path)
    }

    /// Maps an open file. Errors name the file by `path`.
    ///
    /// # Errors
    /// The operating system's error if the file cannot be mapped.
    pub fn from_file(file: File, path: &Path) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // SAFETY: the map is private and read-only. Its bytes may hold anything at any time: another process may change them, and
        // `truncation` replaces pages that another process cuts off with zeros. Readers copy what they validate.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let source = Source { file, length: metadata.len(), modified: metadata.modified().ok() };
        Ok(Self {
            _guard: truncation::Guard::new(&map),
            map,
            path: path.to_owned(),
            source: Some(source),
        })
    }

    /// A map of one page of zeros, without a file.
    ///
    /// # Errors
    /// The operating system's error if there is no memory.
    pub(crate) fn empty() -> io::Result<Self> {
        let map = memmap2::MmapMut::map_anon(1)?.make_read_only()?;
        Ok(Self { _guard: None, map, path: PathBuf::new(), source: None })
    }

    /// The bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares the file's size and modification time with those at the time it was mapped.
    ///
    /// # Errors
    /// [`FileChanged`] if they differ, or if the file's metadata can no longer be read.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        let Some(Source { file, length, modified }) = &self.source else { return Ok(()) };
        match file.metadata() {
            Ok(now) if now.len() == *length && now.modified().ok() == *modified => Ok(()),
            _ => Err(FileChanged { path: self.path.clone() }),
        }
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Keeps the process alive when a mapped file becomes shorter.
///
/// Reading a page beyond the new end raises SIGBUS, which ends a process. The handler here puts a page of zeros in its place, but only
/// in maps of this module; any other SIGBUS goes to the handler that was installed before. The size of the file then no longer matches,
/// so that [`MappedFile::check_unchanged`] fails. At most [`SLOTS`](truncation::SLOTS) maps are protected at a time.
#[cfg(unix)]
mod truncation {
    use std::ptr;
    use std::sync::Once;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    /// Maps that are protected at the same time. A checkpoint has at most a few hundred files.
    const SLOTS: usize = 512;

    /// Start address of a slot that is being filled. No map starts here.
    const RESERVED: usize = 1;

    struct Slot {
        /// 0 if the slot is free.
        start: AtomicUsize,
        end: AtomicUsize,
    }

    static RANGES: [Slot; SLOTS] =
        [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; SLOTS];
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
    static INSTALL: Once = Once::new();

    /// Protects a map until it is dropped.
    #[derive(Debug)]
    pub(super) struct Guard(usize);

    impl Guard {
        /// Returns `None` if all slots are in use.
        pub(super) fn new(map: &[u8]) -> Option<Self> {
            INSTALL.call_once(install);
            let range = map.as_ptr_range();
            let free = |slot: &Slot| {
                slot.start
                    .compare_exchange(0, RESERVED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            };
            let slot = RANGES.iter().position(free)?;
            RANGES[slot].end.store(range.end as usize, Ordering::Relaxed);
            RANGES[slot].start.store(range.start as usize, Ordering::Release);
            Some(Self(slot))
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            if let Some(slot) = RANGES.get(self.0) {
                slot.start.store(0, Ordering::Release);
            }
        }
    }

    fn install() {
        // SAFETY: sysconf only reads a constant.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE.store(usize::try_from(page).unwrap_or(0), Ordering::Relaxed);
        // SAFETY: a zeroed sigaction is a valid value of the C struct.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: as above.
        let previous = Box::into_raw(Box::new(unsafe { std::mem::zeroed() }));
        // SAFETY: both structs are valid; `handle` has the signature that SA_SIGINFO requires.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, previous) } == 0 {
            // Never freed: the handler may use it at any time.
            PREVIOUS.store(previous, Ordering::Release);
        }
    }

    /// Runs on the thread that faulted. It only uses atomics and system calls.
    extern "C" fn handle(
        _signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        // SAFETY: the system passes a valid siginfo_t, and si_addr is set for SIGBUS.
        let address = unsafe { (*info).si_addr() } as usize;
        let page = PAGE.load(Ordering::Relaxed);
        let is_mapped = RANGES.iter().any(|slot| {
            let start = slot.start.load(Ordering::Acquire);
            start > RESERVED && (start..slot.end.load(Ordering::Relaxed)).contains(&address)
        });
        if is_mapped && page > 0 {
            // SAFETY: the page belongs to a map of this module, which only readers use.
            let zeros = unsafe {
                libc::mmap(
                    (address & !(page - 1)) as *mut libc::c_void,
                    page,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            if zeros != libc::MAP_FAILED {
                return;
            }
        }
        // The fault is outside the maps of this module: restore the previous handler, under which the access faults again.
        let previous = PREVIOUS.load(Ordering::Acquire);
        // SAFETY: `previous` is null or was filled by sigaction and is never freed; `zeroed` is SIG_DFL.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            let previous = if previous.is_null() { &raw const default } else { previous };
            libc::sigaction(libc::SIGBUS, previous, ptr::null_mut());
        }
    }
}

/// Other systems refuse to shorten a mapped file.
#[cfg(not(unix))]
mod truncation {
    #[derive(Debug)]
    pub(super) struct Guard;

    impl Guard {
        pub(super) fn new(_map: &[u8]) -> Option<Self> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn mapped(content: &[u8]) -> (tempfile::NamedTempFile, MappedFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let map = MappedFile::open(file.path()).unwrap();
        (file, map)
    }

    #[test]
    fn unchanged_file_passes_the_check() {
        let (file, map) = mapped(b"weights");
        assert_eq!(map.bytes(), b"weights");
        map.check_unchanged().unwrap();
        std::fs::remove_file(file.path()).unwrap();
        map.check_unchanged().unwrap();
        MappedFile::empty().unwrap().check_unchanged().unwrap();
    }

    #[test]
    fn changed_file_fails_the_check() {
        let (mut file, map) = mapped(b"weights");
        file.write_all(b" and more").unwrap();
        assert!(map.check_unchanged().unwrap_err().to_string().contains("changed while"));

        let (file, map) = mapped(b"weights");
        let written = OpenOptions::new().write(true).open(file.path()).unwrap();
        written.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(map.check_unchanged().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn shortened_file_reads_as_zeros_and_fails_the_check() {
        const LENGTH: usize = 1 << 20;
        let (file, map) = mapped(&[7; LENGTH]);
        file.as_file().set_len(1).unwrap();
        assert_eq!((map.bytes()[0], map.bytes()[LENGTH - 1]), (7, 0));
        assert!(map.bytes()[LENGTH / 2..].iter().all(|byte| *byte == 0));
        assert!(map.check_unchanged().is_err());
    }
}
