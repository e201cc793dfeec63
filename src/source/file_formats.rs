//! Facts about file formats that are needed before a file is parsed.

/// Maximum length of a safetensors header in bytes, without the length field. The reference implementation has the same limit.
pub(crate) const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;

/// Why the first bytes of a file are not the start of a safetensors file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderLengthError {
    /// There are fewer than eight bytes.
    Truncated,
    /// The header would be longer than [`MAX_SAFETENSORS_HEADER`].
    TooLong(u64),
}

/// Whether a file is a Git LFS pointer: the small text that a clone without Git LFS contains in place of a large file.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// Length of a safetensors file's header in bytes, including the eight bytes of the length field. `start` contains the first bytes
/// of the file.
pub(crate) fn safetensors_header_length(start: &[u8]) -> Result<u64, HeaderLengthError> {
    let (length, _) = start.split_first_chunk::<8>().ok_or(HeaderLengthError::Truncated)?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_SAFETENSORS_HEADER {
        return Err(HeaderLengthError::TooLong(length));
    }
    Ok(8 + length)
}
