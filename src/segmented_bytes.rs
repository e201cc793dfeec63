//! Bytes that lie in several places, as one: an archive whose tensors stay in the files that they come from.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::mapped_file::MappedFile;

/// Bytes that somebody keeps.
pub type Piece = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Pieces, one behind the other.
#[derive(Default)]
pub struct SegmentedBytes {
    pieces: Vec<Piece>,
    /// Where each ends, counted from the first byte of all.
    ends: Vec<usize>,
}

impl SegmentedBytes {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, piece: Piece) {
        let length = (*piece).as_ref().len();
        if length > 0 {
            self.ends.push(self.len() + length);
            self.pieces.push(piece);
        }
    }

    /// The bytes from `start` on that lie in one place; none at the end and beyond.
    #[must_use]
    pub fn at(&self, start: usize) -> &[u8] {
        let place = self.ends.partition_point(|end| *end <= start);
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        let piece = self.pieces.get(place).map(|piece| (**piece).as_ref());
        piece.and_then(|piece| piece.get(start - begin..)).unwrap_or_default()
    }

    /// A range, or nothing where it goes beyond the end. Copied only where it lies in several places.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<Cow<'_, [u8]>> {
        let length = range.end.checked_sub(range.start)?;
        if range.end > self.len() {
            return None;
        }
        if let Some(piece) = self.at(range.start).get(..length) {
            return Some(piece.into());
        }
        let mut copy = Vec::with_capacity(length);
        while copy.len() < length {
            let piece = self.at(range.start + copy.len());
            copy.extend_from_slice(&piece[..piece.len().min(length - copy.len())]);
        }
        Some(copy.into())
    }

    /// The pieces in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| (**piece).as_ref())
    }
}

impl FromIterator<Piece> for SegmentedBytes {
    fn from_iter<I: IntoIterator<Item = Piece>>(pieces: I) -> Self {
        let mut chunks = Self::default();
        pieces.into_iter().for_each(|piece| chunks.push(piece));
        chunks
    }
}

impl From<MappedFile> for SegmentedBytes {
    fn from(map: MappedFile) -> Self {
        Self::from_iter([Box::new(map) as Piece])
    }
}

impl From<Vec<u8>> for SegmentedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_iter([Box::new(bytes) as Piece])
    }
}

/// Says how much there is, not what.
impl fmt::Debug for SegmentedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pieces", self.len(), self.pieces.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_wherever_they_lie() {
        let chunks: SegmentedBytes = ["ab", "", "cde", "f"]
            .map(|text| Box::new(text.to_owned()) as Piece)
            .into_iter()
            .collect();
        let whole = b"abcdef";
        assert_eq!(chunks.len(), whole.len());
        for start in 0..=whole.len() {
            assert!(whole[start..].starts_with(chunks.at(start)));
            assert_eq!(chunks.at(start).is_empty(), start == whole.len());
            for end in start..=whole.len() {
                assert_eq!(chunks.get(start..end).unwrap(), &whole[start..end]);
            }
        }
        assert!(matches!(chunks.get(2..5), Some(Cow::Borrowed(_))));
        assert!(chunks.get(5..7).is_none() && chunks.get(7..7).is_none());
        assert!(chunks.at(100).is_empty());
        assert!(
            SegmentedBytes::default().is_empty() && SegmentedBytes::default().get(0..0).is_some()
        );
    }
}
