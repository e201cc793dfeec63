//! SentencePiece's unigram tokenization, for XLM-RoBERTa and DeBERTa: a normalized text is cut at white space, and of all ways to cut a
//! word into pieces the one with the best sum of scores is taken.

use std::collections::HashMap;
use std::ops::Range;

use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};
use icu_properties::CodePointMapData;
use icu_properties::CodePointMapDataBorrowed;
use icu_properties::props::{CanonicalCombiningClass, GeneralCategory, GeneralCategoryGroup};

use super::Token;

/// Stands before every word.
const PREFIX: char = '▁';

/// How much worse than the worst piece an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// What becomes of characters that the vocabulary does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Neighbours together become one unknown token.
    Fused,
    /// Each byte becomes a token `<0x00>`, unknown if the vocabulary does not have it.
    Bytes,
}

/// A unigram tokenizer.
pub(super) struct Unigram {
    ids: HashMap<String, u32>,
    scores: Vec<f64>,
    /// The length of the longest token in characters.
    longest: usize,
    unknown: u32,
    unknown_score: f64,
    unknown_handling: Unknown,
    never_split: Vec<String>,
    composition: ComposingNormalizerBorrowed<'static>,
    categories: CodePointMapDataBorrowed<'static, GeneralCategory>,
    combining: CodePointMapDataBorrowed<'static, CanonicalCombiningClass>,
}

/// A character of the normalized text with its place in the text.
type Placed = (char, Range<usize>);

/// The best way to a position: where its last piece begins, and which it is.
#[derive(Debug, Clone, Copy)]
struct Step {
    score: f64,
    from: usize,
    id: u32,
}

impl Unigram {
    pub(super) fn new(
        vocabulary: &[String],
        scores: &[f64],
        unknown: u32,
        unknown_handling: Unknown,
        never_split: &[&str],
    ) -> Self {
        Self {
            ids: vocabulary.iter().cloned().zip(0..).collect(),
            scores: scores.to_vec(),
            longest: vocabulary.iter().map(|token| token.chars().count()).max().unwrap_or(0),
            unknown,
            unknown_score: scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY,
            unknown_handling,
            never_split: never_split.iter().map(|token| (*token).to_owned()).collect(),
            composition: ComposingNormalizer::new_nfkc(),
            categories: CodePointMapData::<GeneralCategory>::new(),
            combining: CodePointMapData::<CanonicalCombiningClass>::new(),
        }
    }

    /// The tokens of a text. Each counts as a word, for the server does not join the pieces of this algorithm.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let normalized = self.normalize(text);
        let mut tokens = Vec::new();
        for run in normalized.split(|(c, _)| self.is_space(*c)).filter(|run| !run.is_empty()) {
            let mut rest = run;
            let mut start = 0;
            while start < rest.len() {
                if let Some((id, length)) = self.never_split_at(&rest[start..]) {
                    self.push_word(&rest[..start], &mut tokens);
                    let place = place(&rest[start..start + length]);
                    tokens.push(Token { id, word: 0, place });
                    rest = &rest[start + length..];
                    start = 0;
                } else {
                    start += 1;
                }
            }
            self.push_word(rest, &mut tokens);
        }
        for (word, token) in tokens.iter_mut().enumerate() {
            token.word = word;
        }
        tokens
    }

    /// The token that must not be split and its length in characters, if `characters` begin with one.
    fn never_split_at(&self, characters: &[Placed]) -> Option<(u32, usize)> {
        self.never_split.iter().find_map(|token| {
            let length = token.chars().count();
            let found = characters.get(..length)?;
            let same = found.iter().map(|(c, _)| *c).eq(token.chars());
            same.then(|| (self.ids.get(token).copied().unwrap_or(self.unknown), length))
        })
    }

    /// Cuts one word into its best pieces.
    fn push_word(&self, word: &[Placed], tokens: &mut Vec<Token>) {
        let Some((_, first)) = word.first() else { return };
        let mut characters = vec![(PREFIX, first.start..first.start)];
        characters.extend_from_slice(word);
        let mut best: Vec<Option<Step>> = vec![None; characters.len() + 1];
        for from in 0..characters.len() {
            let here = best[from].map_or(0.0, |step| step.score);
            let mut offer = |to: usize, id: u32, score: f64| {
                if best[to].is_none_or(|step| here + score > step.score) {
                    best[to] = Some(Step { score: here + score, from, id });
                }
            };
            let mut piece = String::new();
            let mut has_single = false;
            for to in from + 1..=characters.len().min(from + self.longest) {
                piece.push(characters[to - 1].0);
                if let Some(id) = self.ids.get(&piece) {
                    let score =
                        self.scores.get(*id as usize).copied().unwrap_or(self.unknown_score);
                    offer(to, *id, score);
                    has_single |= to == from + 1;
                }
            }
            if !has_single {
                offer(from + 1, self.unknown, self.unknown_score);
            }
        }

        let mut pieces = Vec::new();
        let mut to = characters.len();
        while let Some(step) = best[to] {
            pieces.push((step.id, step.from..to));
            to = step.from;
        }
        pieces.reverse();
        for same in pieces.chunk_by(|a, b| {
            a.0 == self.unknown && b.0 == self.unknown && self.unknown_handling == Unknown::Fused
        }) {
            let range = same[0].1.start..same[same.len() - 1].1.end;
            let found = &characters[range];
            let place = place(found);
            if same[0].0 == self.unknown && self.unknown_handling == Unknown::Bytes {
                let text: String = found.iter().map(|(c, _)| *c).collect();
                for byte in text.bytes() {
                    let id = self.ids.get(&format!("<0x{byte:02X}>")).copied();
                    let id = id.unwrap_or(self.unknown);
                    tokens.push(Token { id, word: 0, place: place.clone() });
                }
            } else {
                tokens.push(Token { id: same[0].0, word: 0, place });
            }
        }
    }

    /// The built-in normalization, nmt_nfkc: control characters vanish, odd spaces become blanks, the rest is composed.
    fn normalize(&self, text: &str) -> Vec<Placed> {
        let mut normalized = Vec::new();
        let mut characters = text.char_indices().peekable();
        while let Some((start, first)) = characters.next() {
            let mut end = start + first.len_utf8();
            // What combines with the character before it is composed with it.
            while let Some((at, next)) = characters.next_if(|(_, c)| self.combines(*c)) {
                end = at + next.len_utf8();
            }
            let place = start..end;
            let mut push = |c: char| normalized.push((c, place.clone()));
            match u32::from(first) {
                0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0x8F | 0x9F => {}
                0x09
                | 0x0A
                | 0x0C
                | 0x0D
                | 0x1680
                | 0x200B..=0x200F
                | 0x2028
                | 0x2029
                | 0x2581
                | 0xFEFF
                | 0xFFFD => push(' '),
                0xFF5E => push(first),
                _ => self.composition.normalize(&text[place.clone()]).chars().for_each(push),
            }
        }
        normalized
    }

    /// Whether a character can join the one before it: combining marks, and the later parts of Hangul syllables.
    fn combines(&self, c: char) -> bool {
        self.combining.get(c) != CanonicalCombiningClass::NotReordered
            || matches!(u32::from(c), 0x1160..=0x11FF)
    }

    /// Java's `Character.isWhitespace`.
    fn is_space(&self, c: char) -> bool {
        match c {
            '\t'..='\r' | '\u{1C}'..='\u{1F}' => true,
            '\u{A0}' | '\u{2007}' | '\u{202F}' => false,
            _ => GeneralCategoryGroup::Separator.contains(self.categories.get(c)),
        }
    }
}

/// The place of neighbouring characters.
fn place(characters: &[Placed]) -> Range<usize> {
    match (characters.first(), characters.last()) {
        (Some((_, first)), Some((_, last))) => first.start..last.end,
        _ => 0..0,
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
        let tokenizer = Unigram::new(&tokens, &scores, 3, handling, &["<mask>"]);
        tokenizer.tokens(text).iter().map(|token| VOCABULARY[token.id as usize].0).collect()
    }

    #[test]
    fn the_best_sum_of_scores_wins() {
        assert_eq!(pieces("hello  hell", Unknown::Fused), ["▁hello", "▁he", "l", "l"]);
        assert_eq!(pieces("o", Unknown::Fused), ["▁", "o"]);
    }

    #[test]
    fn unknown_characters_are_fused_or_become_bytes() {
        assert_eq!(pieces("üxo", Unknown::Fused), ["▁", "<unk>", "o"]);
        assert_eq!(pieces("üxo", Unknown::Bytes), ["▁", "<0xC3>", "<0xBC>", "<unk>", "o"]);
    }

    #[test]
    fn text_is_normalized_before() {
        assert_eq!(pieces("\u{FB01}", Unknown::Fused), ["▁", "fi"]);
        assert_eq!(pieces("e\u{301}", Unknown::Fused), ["▁", "é"]);
        assert_eq!(pieces("\u{FF48}ello", Unknown::Fused), ["▁hello"]);
        assert_eq!(
            pieces("hello\u{200B}\u{A0}\u{7}hello\r\n", Unknown::Fused),
            ["▁hello", "▁hello"]
        );
    }

    #[test]
    fn the_mask_is_not_split_and_starts_a_new_word() {
        assert_eq!(
            pieces("o<mask>o <mask>", Unknown::Fused),
            ["▁", "o", "<mask>", "▁", "o", "<mask>"]
        );
    }

    #[test]
    fn places_point_into_the_text_as_it_was() {
        let tokens = ["▁", "<unk>", "fi", "é"].map(str::to_owned);
        let tokenizer = Unigram::new(&tokens, &[-1.0; 4], 1, Unknown::Fused, &[]);
        let found = tokenizer.tokens("\u{FB01} e\u{301}");
        let places: Vec<_> = found.iter().map(|token| (token.id, token.place.clone())).collect();
        assert_eq!(places, [(0, 0..0), (2, 0..3), (0, 4..4), (3, 4..7)]);
        assert_eq!(found.iter().map(|token| token.word).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
