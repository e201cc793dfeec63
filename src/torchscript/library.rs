//! Loads libtorch when the first of its functions is called, or before.
//!
//! libtorch registers its operators when it is loaded, which takes half a second. The program therefore does not link libtorch. The C++
//! files beside this module are a shared library that is part of the program, and calls.S calls the functions of that library.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::{process, thread};

use super::TorchError;
use super::ffi::{self, SharedLibrary};
use crate::libtorch_environment::libtorch_environment;

/// The shared library with the C++ files, linked to libtorch.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rust_eland_torch"));

/// The folder with libtorch. `$ORIGIN` or `@loader_path` is the folder of the program.
const FOLDER: &str = env!("RUST_ELAND_RUN_PATH");

const LIBTORCH: &str =
    if cfg!(target_vendor = "apple") { "libtorch_cpu.dylib" } else { "libtorch_cpu.so" };

/// Whether libtorch is loaded, or why it cannot be loaded.
static LOADED: OnceLock<Result<(), String>> = OnceLock::new();

/// Sets the variables of [`libtorch_environment`] for this process. Call it before other threads exist, because they could read the
/// environment at the same time; on Linux, it does nothing if there are any.
pub fn set_environment() {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return;
    }
    for (name, value) in libtorch_environment() {
        ffi::set_variable(name, &value);
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

/// Begins to load libtorch on another thread, once. [`load`] waits for it, and reports errors.
///
/// glibc holds a lock while it loads a library. New threads wait for this lock before they do anything, and so does a thread that first
/// uses a thread-local variable with a destructor, as the log has. Therefore a thread for blocking work is started first, which does that of
/// the caller meanwhile, and it writes to the log.
pub async fn load_in_background() {
    static BEGUN: Once = Once::new();
    if BEGUN.is_completed() {
        return;
    }
    let _ = tokio::task::spawn_blocking(|| tracing::info!("loading libtorch")).await;
    BEGUN.call_once(|| {
        // Without a thread, the first use of libtorch loads it.
        let _ = thread::Builder::new().name("libtorch".into()).spawn(load);
    });
}

/// Loads libtorch for a call of one of its functions, which cannot return an error: ends the process instead, with the exit code of
/// [`TorchError::NotLoaded`] in the command line.
pub(super) fn load_for_a_call() {
    if let Err(error) = load() {
        let _ = writeln!(io::stderr(), "error: {error}");
        process::exit(3);
    }
}

/// Loads libtorch and the library, and connects the entry points to its functions.
fn open() -> Result<(), String> {
    let libtorch = folder().join(LIBTORCH);
    // Otherwise the loader searches the folders of the system, LD_LIBRARY_PATH, and on macOS the library's own run path.
    if libtorch.exists() {
        SharedLibrary::open(&libtorch)?;
    }
    open_bytes(LIBRARY)?.connect()
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
fn open_bytes(bytes: &[u8]) -> Result<SharedLibrary, String> {
    #[cfg(target_os = "linux")]
    if let Ok(mut file) = ffi::file_in_memory()
        && file.write_all(bytes).is_ok()
    {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        if let Ok(library) = SharedLibrary::open(Path::new(&path)) {
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
    SharedLibrary::open(&path)
}
