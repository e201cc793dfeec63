//! Reads the central directory of a zip archive: the byte range of each entry. Never extracts anything.
//!
//! Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3 (Zip64).

use std::collections::BTreeMap;
use std::ops::Range;

/// Highest number of entries. A state dict has one entry per storage.
const MAX_ENTRIES: u64 = 1 << 18;

/// An entry of a zip archive.
#[derive(Debug, Clone)]
pub struct Record {
    /// Byte range of the data.
    pub data: Range<usize>,
    /// Uncompressed size in bytes.
    pub size: usize,
    /// Whether the data is compressed with deflate; otherwise it is stored.
    pub deflated: bool,
}

/// Byte ranges of the entries, by name.
///
/// # Errors
/// If the directory is damaged, or an entry is compressed, encrypted, beyond the end of the file, or has a path outside of the archive.
pub(super) fn entries(file: &[u8]) -> Result<BTreeMap<&str, Range<usize>>, String> {
    let records = records(file)?.into_iter().map(|(name, record)| {
        if record.deflated {
            return Err(format!(
                "the entry {name:?} is compressed, which PyTorch never does; save the model again"
            ));
        }
        Ok((name, record.data))
    });
    records.collect()
}

/// Entries by name.
///
/// # Errors
/// If the directory is damaged, or an entry is encrypted, beyond the end of the file, or compressed with another method than deflate.
pub fn records(file: &[u8]) -> Result<BTreeMap<&str, Record>, String> {
    let (mut at, count) =
        directory(file).ok_or("the central directory is missing; the file is truncated")?;
    if count > MAX_ENTRIES {
        return Err(format!("the file declares {count} entries"));
    }
    let mut records = BTreeMap::new();
    for _ in 0..count {
        let entry = DirectoryEntry::read(file, at).ok_or("the central directory is damaged")?;
        at = entry.next;
        let name = std::str::from_utf8(entry.name).map_err(|_| "an entry's name is not UTF-8")?;
        // Nothing is extracted here, but such a name is an attack on programs that extract.
        if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..")
        {
            return Err(format!("the entry {name:?} leads out of the archive, so it was not read"));
        }
        if name.ends_with('/') {
            continue;
        }
        if entry.flags & 1 != 0 {
            return Err(format!("the entry {name:?} is encrypted"));
        }
        let deflated = match entry.method {
            0 => false,
            8 => true,
            other => {
                return Err(format!(
                    "the entry {name:?} has the unsupported compression method {other}"
                ));
            }
        };
        let data = entry
            .data(file)
            .filter(|data| deflated || data.len() == entry.size)
            .ok_or_else(|| format!("the entry {name:?} is damaged"))?;
        if records.insert(name, Record { data, size: entry.size, deflated }).is_some() {
            return Err(format!("the file has two entries {name:?}"));
        }
    }
    Ok(records)
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    file.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    file.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    file.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Start of the central directory and number of its entries.
fn directory(file: &[u8]) -> Option<(usize, u64)> {
    /// The end record has 22 bytes and a comment.
    const END: usize = 22;
    const LONGEST_COMMENT: usize = 0xffff;
    let last = file.len().checked_sub(END)?;
    let end = (last.saturating_sub(LONGEST_COMMENT)..=last)
        .rev()
        .find(|&at| file.get(at..at + 4) == Some(b"PK\x05\x06"))?;
    let count = u16_at(file, end + 10)?;
    let start = u32_at(file, end + 16)?;
    // A Zip64 locator may precede the end record; PyTorch always writes one.
    let locator = end.checked_sub(20).filter(|&at| file.get(at..at + 4) == Some(b"PK\x06\x07"));
    if let Some(locator) = locator.filter(|_| count == u16::MAX || start == u32::MAX) {
        let record = usize::try_from(u64_at(file, locator + 8)?).ok()?;
        if file.get(record..record.checked_add(4)?) != Some(b"PK\x06\x06") {
            return None;
        }
        let start = usize::try_from(u64_at(file, record + 48)?).ok()?;
        return Some((start, u64_at(file, record + 32)?));
    }
    Some((start as usize, count.into()))
}

/// One record of the central directory.
struct DirectoryEntry<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    size: usize,
    compressed: usize,
    header: usize,
    next: usize,
}

impl<'a> DirectoryEntry<'a> {
    fn read(file: &'a [u8], at: usize) -> Option<Self> {
        const LENGTH: usize = 46;
        let record = file.get(at..at.checked_add(LENGTH)?)?;
        if !record.starts_with(b"PK\x01\x02") {
            return None;
        }
        let name_end = at + LENGTH + usize::from(u16_at(record, 28)?);
        let extra_end = name_end + usize::from(u16_at(record, 30)?);
        let mut size = u64::from(u32_at(record, 24)?);
        let mut header = u64::from(u32_at(record, 42)?);
        let mut compressed = u64::from(u32_at(record, 20)?);
        // Values above 32 bits are in an extra field, in this order.
        let extra = file.get(name_end..extra_end)?;
        let mut long = zip64(extra).unwrap_or_default();
        let mut next = || {
            let value = u64_at(long, 0);
            long = long.get(8..).unwrap_or_default();
            value
        };
        if size == u64::from(u32::MAX) {
            size = next()?;
        }
        if compressed == u64::from(u32::MAX) {
            compressed = next()?;
        }
        if header == u64::from(u32::MAX) {
            header = next()?;
        }
        Some(Self {
            name: file.get(at + LENGTH..name_end)?,
            flags: u16_at(record, 8)?,
            method: u16_at(record, 10)?,
            size: usize::try_from(size).ok()?,
            compressed: usize::try_from(compressed).ok()?,
            header: usize::try_from(header).ok()?,
            next: extra_end + usize::from(u16_at(record, 32)?),
        })
    }

    /// Byte range of the data, which follows a local header with its own lengths of name and extra field.
    fn data(&self, file: &[u8]) -> Option<Range<usize>> {
        const LENGTH: usize = 30;
        let header = file.get(self.header..self.header.checked_add(LENGTH)?)?;
        if !header.starts_with(b"PK\x03\x04") {
            return None;
        }
        let skipped = usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
        let start = self.header + LENGTH + skipped;
        let end = start.checked_add(self.compressed)?;
        (end <= file.len()).then_some(start..end)
    }
}

/// Finds the Zip64 field among the extra fields.
fn zip64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let field = extra.get(4..4 + length)?;
        if id == 1 {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
}
