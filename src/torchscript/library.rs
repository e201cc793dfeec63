//! Loads libtorch when the first of its functions is called, or before.
//!
//! libtorch registers its operators when it is loaded, which takes half a second. The program therefore does not link libtorch. The C++
//! files beside this module are a shared library that is part of the program, and calls.S calls the functions of that library.
//!
//! With `ffi.rs` and `mapped_file.rs`, only this module contains unsafe code.

use std::env;
use std::ffi::{CStr, CString, c_void};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use super::TorchError;
use crate::libtorch_environment::libtorch_environment;

/// The shared library with the C++ files, linked to libtorch.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rust_eland_torch"));

/// The folder with libtorch. `$ORIGIN` or `@loader_path` is the folder of the program.
const FOLDER: &str = env!("RUST_ELAND_RUN_PATH");

const LIBTORCH: &str =
    if cfg!(target_vendor = "apple") { "libtorch_cpu.dylib" } else { "libtorch_cpu.so" };

include!(concat!(env!("OUT_DIR"), "/functions.rs"));

unsafe extern "C" {
    /// The addresses of the library's functions, to which calls.S jumps.
    static re_slots: [AtomicPtr<c_void>; FUNCTIONS];
}

/// Whether libtorch is loaded, or why it cannot be loaded.
static LOADED: OnceLock<Result<(), String>> = OnceLock::new();

/// Sets the variables of [`libtorch_environment`] for this process. Call it before other threads exist, because they could read the
/// environment at the same time; on Linux, it does nothing if there are any.
pub fn set_environment() {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return;
    }
    for (name, value) in libtorch_environment() {
        // SAFETY: no other thread runs.
        unsafe { env::set_var(name, value) };
    }
}

/// Loads libtorch, unless it is loaded. Without this call, the first function of libtorch loads it, and ends the process if it cannot be
/// loaded.
///
/// # Errors
/// [`TorchError::NotLoaded`] if libtorch is missing or damaged.
pub fn load() -> Result<(), TorchError> {
    let loaded = LOADED.get_or_init(open).clone();
    loaded.map_err(|reason| TorchError::NotLoaded { folder: folder(), reason })
}

/// Begins to load libtorch on another thread. [`load`] waits for it, and reports errors.
pub fn load_in_background() {
    if LOADED.get().is_none() {
        // Without a thread, the first use of libtorch loads it.
        let _ = thread::Builder::new().name("libtorch".into()).spawn(load);
    }
}

/// Loads libtorch for a call of one of its functions.
#[unsafe(no_mangle)]
extern "C" fn re_load() {
    if let Err(error) = load() {
        let _ = writeln!(io::stderr(), "error: {error}");
        // SAFETY: ends the process without destructors, in the middle of a call that cannot return.
        unsafe { libc::_exit(1) };
    }
}

/// Loads libtorch and the library, and fills the slots.
fn open() -> Result<(), String> {
    let libtorch = folder().join(LIBTORCH);
    // Otherwise the loader searches the folders of the system, LD_LIBRARY_PATH, and on macOS the library's own run path.
    if libtorch.exists() {
        open_file(&libtorch)?;
    }
    let library = open_bytes(LIBRARY)?;
    // SAFETY: the library lives as long as the process, and the name is NUL-terminated.
    let table = unsafe { libc::dlsym(library, c"rust_eland_functions".as_ptr()) };
    if table.is_null() {
        return Err("the program's own library lacks its functions".into());
    }
    // SAFETY: the build script writes FUNCTIONS addresses to the table, which is constant.
    let functions = unsafe { &*table.cast::<[*mut c_void; FUNCTIONS]>() };
    // SAFETY: calls.S defines as many slots, and reads them as whole words.
    let slots = unsafe { &re_slots };
    for (slot, function) in slots.iter().zip(functions) {
        slot.store(*function, Ordering::Release);
    }
    Ok(())
}

/// The folder with libtorch.
fn folder() -> PathBuf {
    let beside = ["$ORIGIN/", "@loader_path/"].iter().find_map(|here| FOLDER.strip_prefix(here));
    match beside {
        Some(name) => {
            let program = env::current_exe().and_then(|path| path.canonicalize());
            let program = program.unwrap_or_default();
            program.parent().unwrap_or(Path::new(".")).join(name)
        }
        None => FOLDER.into(),
    }
}

/// Loads a shared library from memory.
fn open_bytes(bytes: &[u8]) -> Result<*mut c_void, String> {
    #[cfg(target_os = "linux")]
    if let Ok(file) = file_in_memory(bytes) {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        if let Ok(library) = open_file(Path::new(&path)) {
            return Ok(library);
        }
    }
    // Systems without /proc, and those that do not run files in memory.
    let written = tempfile::NamedTempFile::new().and_then(|mut file| {
        file.write_all(bytes)?;
        file.flush()?;
        Ok(file.into_temp_path())
    });
    let path = written.map_err(|error| {
        format!("cannot write a library to {}: {error}", env::temp_dir().display())
    })?;
    open_file(&path)
}

/// An unnamed file in memory.
#[cfg(target_os = "linux")]
fn file_in_memory(bytes: &[u8]) -> io::Result<std::fs::File> {
    use std::os::fd::FromRawFd;

    // SAFETY: the name is NUL-terminated.
    let descriptor = unsafe { libc::memfd_create(c"rust_eland_torch".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let mut file = unsafe { std::fs::File::from_raw_fd(descriptor) };
    file.write_all(bytes)?;
    Ok(file)
}

/// Loads a shared library, which stays loaded until the process ends.
fn open_file(path: &Path) -> Result<*mut c_void, String> {
    let name =
        CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the name is NUL-terminated. The libraries are this program's own and libtorch, whose constructors may run on any thread.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !library.is_null() {
        return Ok(library);
    }
    // SAFETY: returns null or a string that lives until this thread calls another function of the loader.
    let reason = unsafe { libc::dlerror() };
    if reason.is_null() {
        return Err("unknown reason".into());
    }
    // SAFETY: as above.
    Err(unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned())
}
