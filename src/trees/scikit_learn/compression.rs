//! The compressions of joblib: zlib, gzip, bzip2, xz, lzma and lz4, recognised by their first bytes.

use std::io::{self, Read};

use crate::trees::TreeError;

/// A whole file's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Zlib,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Lz4,
}

impl Compression {
    fn of(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x42, 0x5a, 0x68, ..] => Self::Bzip2,
            [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => Self::Xz,
            [0x5d, 0x00, ..] => Self::Lzma,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            // The header of zlib is a multiple of 31.
            [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0 => Self::Zlib,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
        }
    }
}

/// Whether the bytes are compressed in a way that joblib writes.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    Compression::of(bytes).is_some()
}

/// Memory that an lzma decoder may use, in KiB. The largest preset of xz takes 65 MB.
const LZMA_MEMORY: u32 = 128 << 10;

/// Inflates a file.
///
/// # Errors
/// When it is damaged, or inflates to more than `limit` bytes.
pub(crate) fn inflate(bytes: &[u8], limit: u64) -> Result<Vec<u8>, TreeError> {
    let compression = Compression::of(bytes);
    let mut inflated = Vec::new();
    let mut read = |reader: &mut dyn Read| -> io::Result<()> {
        reader.take(limit.saturating_add(1)).read_to_end(&mut inflated).map(|_| ())
    };
    let result = match compression {
        None => return Err(TreeError::malformed("joblib", "unknown compression")),
        Some(Compression::Zlib) => read(&mut flate2::read::ZlibDecoder::new(bytes)),
        Some(Compression::Gzip) => read(&mut flate2::read::MultiGzDecoder::new(bytes)),
        Some(Compression::Bzip2) => read(&mut bzip2::read::MultiBzDecoder::new(bytes)),
        Some(Compression::Xz) => {
            read(&mut lzma_rust2::XzReader::new_mem_limit(bytes, false, LZMA_MEMORY))
        }
        Some(Compression::Lzma) => lzma_rust2::LzmaReader::new_mem_limit(bytes, LZMA_MEMORY, None)
            .and_then(|mut reader| read(&mut reader)),
        Some(Compression::Lz4) => read(&mut lz4_flex::frame::FrameDecoder::new(bytes)),
    };
    let name = compression.map_or("", Compression::name);
    if let Err(error) = result {
        return Err(TreeError::malformed("compressed", format!("{name}: {error}")));
    }
    if inflated.len() as u64 > limit {
        return Err(TreeError::Limit(format!(
            "the {name} file inflates to more than {limit} bytes, which is out of proportion to its size; if you trust the file, save the model without compression"
        )));
    }
    Ok(inflated)
}
