//! SentencePiece's normalization `nmt_nfkc`, which the server applies for `xlm_roberta` and `deberta_v2` whatever the model declares.
//!
//! `nmt_nfkc.charsmap.gz` is SentencePiece's compiled table (Apache-2.0), byte for byte the table of XLM-RoBERTa, as the crate
//! `spm_precompiled` carries it for its tests. Elasticsearch ships the same table.

use std::io::Read;
use std::ops::Range;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use spm_precompiled::Precompiled;
use unicode_segmentation::UnicodeSegmentation;

/// A character of the normalized text and the place in the original text, in bytes.
pub(super) type Placed = (char, Range<usize>);

/// Grapheme clusters of this many bytes or more are normalized character by character only.
const LONG_GRAPHEME: usize = 6;

static NMT_NFKC: LazyLock<Option<Precompiled>> = LazyLock::new(|| {
    let mut table = Vec::new();
    let compressed: &[u8] = include_bytes!("nmt_nfkc.charsmap.gz");
    GzDecoder::new(compressed).read_to_end(&mut table).ok()?;
    Precompiled::from(&table).ok()
});

/// Normalizes a text.
///
/// A short grapheme cluster is replaced by the entry of its first bytes, so that marks after a replaced character are lost. Where the
/// cluster has no entry, each of its characters is replaced alone.
pub(super) fn normalize(text: &str) -> Vec<Placed> {
    let entry = |part: &str| NMT_NFKC.as_ref().and_then(|table| table.transform(part));
    let mut normalized = Vec::with_capacity(text.len());
    for (start, grapheme) in text.grapheme_indices(true) {
        let place = start..start + grapheme.len();
        if grapheme.len() < LONG_GRAPHEME
            && let Some(replacement) = entry(grapheme)
        {
            normalized.extend(replacement.chars().map(|c| (c, place.clone())));
            continue;
        }
        for (at, c) in grapheme.char_indices() {
            let place = start + at..start + at + c.len_utf8();
            match entry(&text[place.clone()]) {
                Some(replacement) => {
                    normalized.extend(replacement.chars().map(|c| (c, place.clone())));
                }
                None => normalized.push((c, place)),
            }
        }
    }
    normalized
}

/// A text as the server normalizes it for `xlm_roberta` and `deberta_v2`.
#[must_use]
pub fn nmt_nfkc(text: &str) -> String {
    normalize(text).into_iter().map(|(c, _)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_characters_and_spaces_are_replaced() {
        assert_eq!(nmt_nfkc("\u{FB01} \u{FF48}i\u{A0}x\u{200B}y"), "fi hi x y");
        assert_eq!(nmt_nfkc("a\u{7}\r\nb\u{2581}c"), "a b c");
        assert_eq!(nmt_nfkc("e\u{301} 한 ﷺ"), "é 한 صلى الله عليه وسلم");
    }

    #[test]
    fn marks_after_a_replaced_character_are_lost() {
        assert_eq!(nmt_nfkc("\u{FB01}\u{301}"), "fi");
        assert_eq!(nmt_nfkc("²\u{301}"), "2");
        assert_eq!(nmt_nfkc("e\u{301}\u{301}"), "é");
        assert_eq!(nmt_nfkc("e\u{301}\u{301}\u{301}"), "e\u{301}\u{301}\u{301}");
    }
}
