//! libtorch's view of parts of an archive, without loading the archive.

use std::ffi::CString;

use super::{TorchError, ffi};

/// Parses a file of TorchScript code.
///
/// # Errors
/// If the code cannot be parsed, or contains code that libtorch would run while loading: default arguments and values of class
/// attributes that are more than data.
pub fn check_code(text: &[u8]) -> Result<(), TorchError> {
    ffi::code_check(text)
}

/// Checks that libtorch finds exactly these records in an archive, with the same offsets and uncompressed lengths. Names
/// do not include the archive's folder.
///
/// # Errors
/// If libtorch finds other records, because it would load something that was not inspected.
pub fn agrees(archive: &[u8], records: &[(CString, usize, usize)]) -> Result<(), TorchError> {
    ffi::archive_agrees(archive, records)
}
