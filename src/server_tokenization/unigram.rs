//! Unigram: a normalized text is cut at white space, and each word is cut into the pieces with the largest sum of scores.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::never_split::NeverSplit;
use super::normalization::{Placed, normalize};
use super::{Exception, Token, TokenizationError, java};

/// The beginning of every word.
const PREFIX: char = '▁';

/// How much lower than the lowest score of the vocabulary an unknown character scores.
const UNKNOWN_PENALTY: f64 = 10.0;

/// What an unknown character becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// One unknown token for all that are adjacent.
    Fused,
    /// A token `<0x00>` for each byte, or the unknown token where the vocabulary does not have that token.
    Bytes,
}

/// A Unigram tokenizer.
#[derive(Debug)]
pub(super) struct Unigram {
    pieces: Pieces,
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
    unknown_handling: Unknown,
    /// Ids of the tokens `<0x00>` to `<0xFF>`.
    bytes: HashMap<u8, u32>,
    never_split: NeverSplit,
}

/// The best way to a position: the beginning and the id of its last piece, and the sum of scores.
#[derive(Debug, Clone, Copy)]
struct Step {
    score: f64,
    from: usize,
    id: u32,
}

impl Unigram {
    /// Builds the tokenizer. `scores` has one score for each token of the vocabulary.
    pub(super) fn new(
        vocabulary: &Arc<Vec<String>>,
        scores: Vec<f64>,
        unknown: u32,
        unknown_handling: Unknown,
        never_split: &[&str],
    ) -> Self {
        let pieces = Pieces::new(vocabulary);
        let byte = |byte: u8| Some((byte, pieces.id(&format!("<0x{byte:02X}>"))?));
        Self {
            bytes: (0..=u8::MAX).filter_map(byte).collect(),
            pieces,
            unknown,
            unknown_score: scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY,
            scores,
            unknown_handling,
            never_split: NeverSplit::new(never_split),
        }
    }

    /// The tokens of a text. Each token counts as a word.
    ///
    /// # Errors
    /// For an empty text: the server's reader of the text fails.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<Token>, TokenizationError> {
        if text.is_empty() {
            return Err(Exception::ArrayIndexOutOfBounds.index(-1, 0));
        }
        let normalized = normalize(text);
        let mut tokens = Vec::new();
        for run in normalized.split(|(c, _)| java::is_whitespace(*c)).filter(|run| !run.is_empty())
        {
            let characters: Vec<char> = run.iter().map(|(c, _)| *c).collect();
            for section in self.never_split.sections(&characters) {
                let placed = &run[section.range.clone()];
                if section.is_token {
                    let token: String = characters[section.range].iter().collect();
                    let id = self.pieces.id(&token).unwrap_or(self.unknown);
                    tokens.push(Token { id, word: 0, place: place(placed) });
                } else {
                    self.push_word(placed, &mut tokens);
                }
            }
        }
        for (word, token) in tokens.iter_mut().enumerate() {
            token.word = word;
        }
        Ok(tokens)
    }

    /// Cuts a word into its best pieces.
    fn push_word(&self, word: &[Placed], tokens: &mut Vec<Token>) {
        let Some((_, first)) = word.first() else { return };
        let mut characters = vec![(PREFIX, first.start..first.start)];
        characters.extend_from_slice(word);
        let text: String = characters.iter().map(|(c, _)| c).collect();
        // The number of the character that begins at a byte.
        let mut numbers = vec![0; text.len() + 1];
        for (number, (at, _)) in text.char_indices().enumerate() {
            numbers[at] = number;
        }
        numbers[text.len()] = characters.len();

        for (id, range) in
            self.best_pieces(&text).chunk_by(|a, b| self.is_fused(a, b)).filter_map(joined)
        {
            let placed = &characters[numbers[range.start]..numbers[range.end]];
            let place = place(placed);
            if id == self.unknown && self.unknown_handling == Unknown::Bytes {
                for byte in text[range].bytes() {
                    let id = self.bytes.get(&byte).copied().unwrap_or(self.unknown);
                    tokens.push(Token { id, word: 0, place: place.clone() });
                }
            } else {
                tokens.push(Token { id, word: 0, place });
            }
        }
    }

    /// The pieces with the largest sum of scores, as ids with their ranges of bytes.
    fn best_pieces(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        let mut best: Vec<Option<Step>> = vec![None; text.len() + 1];
        for (from, c) in text.char_indices() {
            let score_here = best[from].map_or(0.0, |step| step.score);
            let single = from + c.len_utf8();
            let mut offer = |to: usize, id: u32, score: f64| {
                let score = score + score_here;
                if best[to].is_none_or(|step| score > step.score) {
                    best[to] = Some(Step { score, from, id });
                }
            };
            let mut has_single = false;
            for (length, id) in self.pieces.beginnings(&text.as_bytes()[from..]) {
                let score = self.scores.get(id as usize).copied().unwrap_or(self.unknown_score);
                offer(from + length, id, score);
                has_single |= from + length == single;
            }
            if !has_single {
                offer(single, self.unknown, self.unknown_score);
            }
        }
        let mut pieces = Vec::new();
        let mut to = text.len();
        while let Some(step) = best[to] {
            pieces.push((step.id, step.from..to));
            to = step.from;
        }
        pieces.reverse();
        pieces
    }

    /// Whether two adjacent pieces become one unknown token.
    fn is_fused(
        &self,
        (first, _): &(u32, Range<usize>),
        (second, _): &(u32, Range<usize>),
    ) -> bool {
        self.unknown_handling == Unknown::Fused && [*first, *second] == [self.unknown; 2]
    }
}

/// The id of equal adjacent pieces and the range of all.
fn joined(pieces: &[(u32, Range<usize>)]) -> Option<(u32, Range<usize>)> {
    let ((id, first), (_, last)) = (pieces.first()?, pieces.last()?);
    Some((*id, first.start..last.end))
}

/// The place of adjacent characters.
fn place(characters: &[Placed]) -> Range<usize> {
    match (characters.first(), characters.last()) {
        (Some((_, first)), Some((_, last))) => first.start..last.end,
        _ => 0..0,
    }
}

/// The tokens of a vocabulary by their first bytes.
#[derive(Debug)]
struct Pieces {
    vocabulary: Arc<Vec<String>>,
    /// Ids in the order of the bytes of their tokens, each token once.
    sorted: Vec<u32>,
}

impl Pieces {
    fn new(vocabulary: &Arc<Vec<String>>) -> Self {
        let mut tokens: Vec<(&[u8], u32)> =
            vocabulary.iter().map(String::as_bytes).zip(0..).collect();
        // The last of several equal tokens counts.
        tokens.sort_by(|(a, a_id), (b, b_id)| a.cmp(b).then(b_id.cmp(a_id)));
        tokens.dedup_by(|(a, _), (b, _)| a == b);
        let sorted = tokens.into_iter().map(|(_, id)| id).collect();
        Self { vocabulary: Arc::clone(vocabulary), sorted }
    }

    fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.get(id as usize).map_or(&[], |token| token.as_bytes())
    }

    fn id(&self, token: &str) -> Option<u32> {
        let at = self.sorted.binary_search_by(|id| self.bytes(*id).cmp(token.as_bytes())).ok()?;
        self.sorted.get(at).copied()
    }

    /// The length and id of each token that `text` begins with, the shortest first.
    fn beginnings(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut rest = &self.sorted[..];
        text.iter()
            .enumerate()
            .map_while(move |(depth, byte)| {
                // All of `rest` begin with the first `depth` bytes; the token of exactly these bytes sorts first.
                let at = |id: u32| self.bytes(id).get(depth).copied();
                let start = rest.partition_point(|id| at(*id) < Some(*byte));
                let end = rest.partition_point(|id| at(*id) <= Some(*byte));
                rest = &rest[start..end];
                let id = *rest.first()?;
                Some((self.bytes(id).len() == depth + 1).then_some((depth + 1, id)))
            })
            .flatten()
    }
}

/// The text of a piece without the mark of a word's beginning.
pub(super) fn decoded(token: &str) -> String {
    token.strip_prefix(PREFIX).unwrap_or(token).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: [(&str, f64); 15] = [
        ("<s>", 0.0),
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -4.0),
        ("▁he", -3.0),
        ("llo", -3.0),
        ("▁hello", -5.0),
        ("l", -8.0),
        ("o", -8.0),
        ("é", -6.0),
        ("fi", -5.0),
        ("<0xC3>", -20.0),
        ("<0xBC>", -20.0),
        ("<mask>", 0.0),
    ];

    fn pieces(text: &str, handling: Unknown) -> Vec<&'static str> {
        let (tokens, scores): (Vec<String>, Vec<f64>) =
            VOCABULARY.map(|(token, score)| (token.to_owned(), score)).into_iter().unzip();
        let tokenizer = Unigram::new(&tokens.into(), scores, 3, handling, &["<mask>"]);
        let tokens = tokenizer.tokens(text).unwrap();
        tokens.iter().map(|token| VOCABULARY[token.id as usize].0).collect()
    }

    #[test]
    fn largest_sum_of_scores_wins() {
        assert_eq!(pieces("hello  hell", Unknown::Fused), ["▁hello", "▁he", "l", "l"]);
        assert_eq!(pieces("o", Unknown::Fused), ["▁", "o"]);
        assert_eq!(pieces("\u{FB01}", Unknown::Fused), ["▁", "fi"]);
    }

    #[test]
    fn unknown_characters_are_fused_or_become_bytes() {
        assert_eq!(pieces("üxo", Unknown::Fused), ["▁", "<unk>", "o"]);
        assert_eq!(pieces("üxo", Unknown::Bytes), ["▁", "<0xC3>", "<0xBC>", "<unk>", "o"]);
    }

    #[test]
    fn mask_is_not_split_and_the_text_after_it_is_a_new_word() {
        assert_eq!(
            pieces("o<mask>o <mask>", Unknown::Fused),
            ["▁", "o", "<mask>", "▁", "o", "<mask>"]
        );
    }

    #[test]
    fn empty_text_is_an_error_and_blank_text_is_not() {
        let tokenizer =
            Unigram::new(&vec!["a".to_owned()].into(), vec![0.0], 0, Unknown::Fused, &[]);
        assert!(tokenizer.tokens("").is_err());
        assert_eq!(tokenizer.tokens(" \n").unwrap(), []);
    }

    #[test]
    fn last_of_equal_tokens_counts() {
        let pieces = Pieces::new(&Arc::new(["a", "ab", "a", "b"].map(str::to_owned).to_vec()));
        assert_eq!(pieces.id("a"), Some(2));
        assert_eq!(pieces.beginnings(b"abc").collect::<Vec<_>>(), [(1, 2), (2, 1)]);
        assert_eq!(pieces.beginnings(b"c").next(), None);
    }

    #[test]
    fn places_refer_to_the_original_text() {
        let tokens = ["▁", "<unk>", "fi", "é"].map(str::to_owned);
        let tokenizer =
            Unigram::new(&tokens.to_vec().into(), vec![-1.0; 4], 1, Unknown::Fused, &[]);
        let found = tokenizer.tokens("\u{FB01} e\u{301}").unwrap();
        let places: Vec<_> = found.iter().map(|token| (token.id, token.place.clone())).collect();
        assert_eq!(places, [(0, 0..0), (2, 0..3), (0, 4..4), (3, 4..7)]);
        assert_eq!(found.iter().map(|token| token.word).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
