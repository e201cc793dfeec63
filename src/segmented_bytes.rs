//! One sequence of bytes that consists of segments in different places, for example of an archive whose tensors stay in the model's files.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;
use crate::mapped_file::{FileChanged, MappedFile};

/// Bytes with their owner.
pub type Segment = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Segments, read as one sequence of bytes.
#[derive(Default)]
pub struct SegmentedBytes {
    segments: Vec<Segment>,
    /// End of each segment, counted from the first byte of the sequence.
    ends: Vec<usize>,
    /// Files that segments refer to.
    files: Vec<Arc<MappedFile>>,
}

impl SegmentedBytes {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a segment.
    pub fn push(&mut self, segment: Segment) {
        let length = (*segment).as_ref().len();
        if length > 0 {
            self.ends.push(self.len() + length);
            self.segments.push(segment);
        }
    }

    /// Adds files that segments refer to, for [`check_unchanged`](Self::check_unchanged).
    pub fn depend_on(&mut self, files: impl IntoIterator<Item = Arc<MappedFile>>) {
        self.files.extend(files);
    }

    /// Checks that no file that segments refer to changed since it was mapped.
    ///
    /// # Errors
    /// [`FileChanged`] for the first file that changed.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        self.files.iter().try_for_each(|file| file.check_unchanged())
    }

    /// SHA-256 in hexadecimal. `advance` receives the number of bytes that were hashed since its last call.
    #[must_use]
    pub fn sha256(&self, advance: &dyn Fn(u64)) -> String {
        const BLOCK: usize = 1 << 20;
        let mut hash = Sha256::new();
        for block in self.iter().flat_map(|segment| segment.chunks(BLOCK)) {
            hash.update(block);
            advance(block.len() as u64);
        }
        hexadecimal(&hash.finalize())
    }

    /// The bytes from `start` to the end of the segment that contains it. Empty if `start` is at the end or beyond.
    #[must_use]
    pub fn at(&self, start: usize) -> &[u8] {
        let index = self.ends.partition_point(|end| *end <= start);
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let segment = self.segments.get(index).map(|segment| (**segment).as_ref());
        segment.and_then(|segment| segment.get(start - begin..)).unwrap_or_default()
    }

    /// The bytes of a range, or `None` if it exceeds the end. Bytes are copied only if the range spans several segments.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let length = range.end.checked_sub(range.start)?;
        if range.end > self.len() {
            return None;
        }
        if let Some(bytes) = self.at(range.start).get(..length) {
            return Some(bytes.into());
        }
        let mut copy = Vec::with_capacity(length);
        while copy.len() < length {
            let bytes = self.at(range.start + copy.len());
            copy.extend_from_slice(&bytes[..bytes.len().min(length - copy.len())]);
        }
        Some(copy.into())
    }

    /// The segments in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(|segment| (**segment).as_ref())
    }
}

impl FromIterator<Segment> for SegmentedBytes {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        let mut bytes = Self::default();
        segments.into_iter().for_each(|segment| bytes.push(segment));
        bytes
    }
}

impl From<MappedFile> for SegmentedBytes {
    fn from(file: MappedFile) -> Self {
        struct Shared(Arc<MappedFile>);

        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes()
            }
        }

        let file = Arc::new(file);
        let mut bytes = Self::from_iter([Box::new(Shared(Arc::clone(&file))) as Segment]);
        bytes.depend_on([file]);
        bytes
    }
}

impl From<Vec<u8>> for SegmentedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_iter([Box::new(bytes) as Segment])
    }
}

/// Shows the number of bytes and segments, not the content.
impl fmt::Debug for SegmentedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} segments", self.len(), self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_across_segments_returns_the_bytes_of_the_sequence() {
        let bytes: SegmentedBytes = ["ab", "", "cde", "f"]
            .map(|text| Box::new(text.to_owned()) as Segment)
            .into_iter()
            .collect();
        let whole = b"abcdef";
        assert_eq!(bytes.len(), whole.len());
        for start in 0..=whole.len() {
            assert!(whole[start..].starts_with(bytes.at(start)));
            assert_eq!(bytes.at(start).is_empty(), start == whole.len());
            for end in start..=whole.len() {
                assert_eq!(bytes.get(start..end).unwrap(), &whole[start..end]);
            }
        }
        assert!(matches!(bytes.get(2..5), Some(Cow::Borrowed(_))));
        assert!(bytes.get(5..7).is_none() && bytes.get(7..7).is_none());
        assert!(bytes.at(100).is_empty());
        assert!(SegmentedBytes::default().is_empty());
        assert!(SegmentedBytes::default().get(0..0).is_some());
    }

    #[test]
    fn changed_file_of_a_segment_fails_the_check() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "definition").unwrap();
        let bytes = SegmentedBytes::from(MappedFile::open(file.path()).unwrap());
        bytes.check_unchanged().unwrap();
        std::fs::write(file.path(), "another definition").unwrap();
        assert_eq!(bytes.check_unchanged().unwrap_err().path, file.path());
    }
}
