//! Writes a module's archive as libtorch does, without copying its tensors.
//!
//! libtorch's zip writer computes checksums without the special instructions of processors. It is configured to omit checksums, and
//! this module inserts them.

use std::io::Read;

use flate2::read::DeflateDecoder;

use super::TorchError;
use crate::segmented_bytes::{Segment, SegmentedBytes};

/// Compression method of an uncompressed record.
const STORED: u16 = 0;

/// Flag of a header whose checksum and sizes follow the record.
const HAS_DESCRIPTOR: u16 = 1 << 3;

/// Bytes of one write call of libtorch.
pub(super) enum Written {
    /// Bytes owned by this program.
    Own(Vec<u8>),
    /// Memory of a tensor.
    Held(Segment),
}

impl Written {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Held(piece) => (**piece).as_ref(),
        }
    }
}

/// Inserts the checksums into the descriptor after each record and into the central directory (APPNOTE.TXT 4.3.9 and 4.3.12).
///
/// # Errors
/// If the archive does not have the format of libtorch 2.7.
pub(super) fn seal(mut written: Vec<Written>) -> Result<SegmentedBytes, TorchError> {
    let unexpected = |what| TorchError::Native(format!("the archive is not as expected: {what}"));
    let mut checksums = Vec::new();
    let mut at = 0;
    while let Some(header) = written.get(at).map(Written::bytes)
        && header.starts_with(b"PK\x03\x04")
    {
        at += 1;
        let field = |at| u16_at(header, at).ok_or_else(|| unexpected("a short header"));
        let (flags, method, name, extra) = (field(6)?, field(8)?, field(26)?, field(28)?);
        // Name and extra field may be written with the header or after the header.
        let length = 30 + usize::from(name) + usize::from(extra);
        let mut before = length.checked_sub(header.len());
        while let Some(left @ 1..) = before {
            let length = written.get(at).map_or(usize::MAX, |piece| piece.bytes().len());
            before = left.checked_sub(length);
            at += 1;
        }
        if before != Some(0) {
            return Err(unexpected("a header that runs into its record"));
        }
        if flags & HAS_DESCRIPTOR == 0 {
            // An empty record is already complete.
            checksums.push([0; 4]);
            continue;
        }
        let start = at;
        let mut size = 0;
        while !written.get(at).is_some_and(|piece| is_descriptor(piece.bytes(), size, method)) {
            let piece = written.get(at).ok_or_else(|| unexpected("a record without end"))?;
            size += piece.bytes().len();
            at += 1;
        }
        let checksum = checksum(&written[start..at], method).to_le_bytes();
        if let Some(Written::Own(descriptor)) = written.get_mut(at) {
            descriptor[4..8].copy_from_slice(&checksum);
        }
        checksums.push(checksum);
        at += 1;
    }

    // The directory is one write call, with or without the end records.
    let Some(Written::Own(directory)) = written.get_mut(at) else {
        return Err(unexpected("no directory"));
    };
    let mut place = 0;
    for checksum in checksums {
        let entry = directory.get_mut(place..).filter(|entry| entry.starts_with(b"PK\x01\x02"));
        let entry = entry.filter(|entry| entry.len() >= 46);
        let entry = entry.ok_or_else(|| unexpected("a directory with too few entries"))?;
        entry[16..20].copy_from_slice(&checksum);
        let lengths = [28, 30, 32].map(|at| u16_at(entry, at).map_or(0, usize::from));
        place += 46 + lengths.iter().sum::<usize>();
    }
    if directory.get(place..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
        return Err(unexpected("a directory with too many entries"));
    }

    // Owned bytes between two tensors are adjacent.
    let mut chunks = SegmentedBytes::default();
    let mut own = Vec::new();
    for piece in written {
        match piece {
            Written::Own(bytes) => own.extend(bytes),
            Written::Held(piece) => {
                chunks.push(Box::new(std::mem::take(&mut own)));
                chunks.push(piece);
            }
        }
    }
    chunks.push(Box::new(own));
    Ok(chunks)
}

/// Checksum of a record after decompression; libtorch compresses code.
fn checksum(record: &[Written], method: u16) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    if method == STORED {
        record.iter().for_each(|piece| checksum.update(piece.bytes()));
    } else {
        let packed: Vec<u8> = record.iter().flat_map(Written::bytes).copied().collect();
        let mut unpacked = Vec::new();
        // Decompression of libtorch's own output cannot fail.
        let _ = DeflateDecoder::new(&packed[..]).read_to_end(&mut unpacked);
        checksum.update(&unpacked);
    }
    checksum.finalize()
}

/// Whether the bytes are the descriptor of a record of `size` bytes: signature, checksum, both sizes (32 or 64 bits each).
fn is_descriptor(bytes: &[u8], size: usize, method: u16) -> bool {
    let of = |width: usize| {
        let size = &(size as u64).to_le_bytes()[..width];
        bytes.len() == 8 + 2 * width
            && bytes[8..8 + width] == *size
            && (method != STORED || bytes[8 + width..] == *size)
    };
    bytes.starts_with(b"PK\x07\x08") && (of(4) || of(8))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}
