//! What libtorch itself makes of an archive's parts, without loading it.

use std::ffi::CString;

use super::{TorchError, ffi};

/// Parses a file of TorchScript code.
///
/// # Errors
/// When it cannot be parsed, or holds what libtorch would run while it loads the archive: default arguments and values of class
/// attributes that are more than data.
pub fn check_code(text: &[u8]) -> Result<(), TorchError> {
    ffi::code_check(text)
}

/// Checks that libtorch finds these records in an archive, each with its offset and its length when unpacked, and no others. Names
/// are without the archive's folder.
///
/// # Errors
/// When it finds others: then it would load something else than what was looked at.
pub fn agrees(archive: &[u8], records: &[(CString, usize, usize)]) -> Result<(), TorchError> {
    ffi::archive_agrees(archive, records)
}
