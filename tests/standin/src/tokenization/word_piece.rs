//! BERT's tokenization: words by white space, punctuation and Chinese characters, then the longest pieces that the vocabulary has.

use std::collections::HashMap;
use std::ops::Range;

use icu_normalizer::{DecomposingNormalizer, DecomposingNormalizerBorrowed};
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

use super::Token;

/// Words of more characters are unknown.
const LONGEST_WORD: usize = 100;

/// Runs without white space are cut after so many characters.
const LONGEST_RUN: usize = 512;

/// A word-piece tokenizer.
pub(super) struct WordPiece {
    ids: HashMap<String, u32>,
    lower_case: bool,
    unknown: u32,
    mask: String,
    categories: CodePointMapDataBorrowed<'static, GeneralCategory>,
    decomposition: DecomposingNormalizerBorrowed<'static>,
}

/// A word with its place in the text.
struct Word {
    text: String,
    place: Range<usize>,
}

impl WordPiece {
    pub(super) fn new(vocabulary: &[String], lower_case: bool, unknown: u32, mask: &str) -> Self {
        // Without regard to case both sides of a look-up are lower-cased, and a later token replaces an earlier one.
        let key = |token: &String| if lower_case { lower_cased(token) } else { token.clone() };
        Self {
            ids: vocabulary.iter().map(key).zip(0..).collect(),
            lower_case,
            unknown,
            mask: mask.to_owned(),
            categories: CodePointMapData::<GeneralCategory>::new(),
            decomposition: DecomposingNormalizer::new_nfd(),
        }
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (word, found) in self.words(text).into_iter().enumerate() {
            for id in self.pieces(&found.text) {
                tokens.push(Token { id, word, place: found.place.clone() });
            }
        }
        tokens
    }

    /// The ids of a word's pieces, or the unknown token alone.
    fn pieces(&self, word: &str) -> Vec<u32> {
        if word == self.mask {
            return vec![self.id(word).unwrap_or(self.unknown)];
        }
        let characters: Vec<char> = word.chars().collect();
        if characters.len() > LONGEST_WORD {
            return vec![self.unknown];
        }
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < characters.len() {
            let found = (start + 1..=characters.len()).rev().find_map(|end| {
                let mut piece = String::from(if start > 0 { "##" } else { "" });
                piece.extend(&characters[start..end]);
                Some((self.id(&piece)?, end))
            });
            let Some((id, end)) = found else { return vec![self.unknown] };
            pieces.push(id);
            start = end;
        }
        pieces
    }

    fn id(&self, piece: &str) -> Option<u32> {
        if self.lower_case {
            self.ids.get(&lower_cased(piece)).copied()
        } else {
            self.ids.get(piece).copied()
        }
    }

    /// Splits a text into words.
    fn words(&self, text: &str) -> Vec<Word> {
        let mut words = Vec::new();
        let mut run: Vec<(usize, char)> = Vec::new();
        for (at, character) in text.char_indices().filter(|(_, c)| !self.is_dropped(*c)) {
            if self.is_space(character) {
                self.split(&run, &mut words);
                run.clear();
            } else {
                run.push((at, character));
                if run.len() == LONGEST_RUN {
                    self.split(&run, &mut words);
                    run.clear();
                }
            }
        }
        self.split(&run, &mut words);
        words
    }

    /// Splits a run without white space at punctuation and Chinese characters, but for the mask token.
    fn split(&self, run: &[(usize, char)], words: &mut Vec<Word>) {
        let mask: Vec<char> = self.mask.chars().collect();
        let is_mask = |at: usize| {
            run.len() >= at + mask.len()
                && run[at..].iter().zip(&mask).all(|((_, c), wanted)| c == wanted)
        };
        let mut start = 0;
        let mut at = 0;
        while at < run.len() {
            let length = if is_mask(at) {
                mask.len()
            } else if is_chinese(run[at].1) || self.is_punctuation(run[at].1) {
                1
            } else {
                at += 1;
                continue;
            };
            self.push_word(&run[start..at], words);
            self.push_word(&run[at..at + length], words);
            at += length;
            start = at;
        }
        self.push_word(&run[start..], words);
    }

    fn push_word(&self, characters: &[(usize, char)], words: &mut Vec<Word>) {
        let (Some((start, _)), Some((end, last))) = (characters.first(), characters.last()) else {
            return;
        };
        let text: String = characters.iter().map(|(_, c)| c).collect();
        let text = if self.lower_case { self.without_accents(&text) } else { text };
        if !text.is_empty() {
            words.push(Word { text, place: *start..end + last.len_utf8() });
        }
    }

    fn without_accents(&self, text: &str) -> String {
        let marks = |c: &char| self.categories.get(*c) == GeneralCategory::NonspacingMark;
        self.decomposition.normalize(text).chars().filter(|c| !marks(c)).collect()
    }

    /// Control characters vanish, and with them all that Java writes as two surrogates.
    fn is_dropped(&self, c: char) -> bool {
        if matches!(c, '\n' | '\r' | '\t') {
            return false;
        }
        let category = self.categories.get(c);
        u32::from(c) > 0xFFFF
            || matches!(
                category,
                GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
            )
    }

    /// Java's `Character.isWhitespace`: spaces that forbid a line break are none.
    fn is_space(&self, c: char) -> bool {
        match c {
            '\n' | '\r' | '\t' => true,
            '\u{00A0}' | '\u{2007}' | '\u{202F}' => false,
            _ => GeneralCategoryGroup::Separator.contains(self.categories.get(c)),
        }
    }

    fn is_punctuation(&self, c: char) -> bool {
        c.is_ascii_punctuation()
            || GeneralCategoryGroup::Punctuation.contains(self.categories.get(c))
    }
}

/// Character by character, as Java's `Character.toLowerCase` does.
fn lower_cased(text: &str) -> String {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// The Chinese blocks of the basic plane; the others are dropped before.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c), 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: [&str; 17] = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "want", "##ed",
        "runn", "##ing", ",", "中", "文", "resume", "!",
    ];

    fn pieces(text: &str, lower_case: bool) -> Vec<String> {
        let vocabulary = VOCABULARY.map(str::to_owned);
        let tokenizer = WordPiece::new(&vocabulary, lower_case, 1, "[MASK]");
        tokenizer.tokens(text).iter().map(|token| vocabulary[token.id as usize].clone()).collect()
    }

    #[test]
    fn words_become_their_longest_pieces() {
        assert_eq!(
            pieces("UNwantéd,running", true),
            ["un", "[UNK]"].map(str::to_owned)[1..]
                .iter()
                .cloned()
                .chain([",".to_owned(), "runn".to_owned(), "##ing".to_owned()])
                .collect::<Vec<_>>()
        );
        assert_eq!(pieces("unaffable  wanted", true), ["un", "##aff", "##able", "want", "##ed"]);
        assert_eq!(pieces("unaffablex", true), ["[UNK]"]);
        assert_eq!(pieces("Unaffable", false), ["[UNK]"]);
    }

    #[test]
    fn lower_case_also_strips_accents() {
        assert_eq!(pieces("Résumé RÉSUMÉ", true), ["resume", "resume"]);
        assert_eq!(pieces("résumé", false), ["[UNK]"]);
    }

    #[test]
    fn chinese_punctuation_and_mask_are_words_of_their_own() {
        assert_eq!(pieces("中文want!", false), ["中", "文", "want", "!"]);
        assert_eq!(pieces("want[MASK]!want", false), ["want", "[MASK]", "!", "want"]);
        assert_eq!(pieces("[mask]", true), ["[UNK]", "[UNK]", "[UNK]"]);
    }

    #[test]
    fn control_characters_vanish_and_only_breaking_spaces_split() {
        assert_eq!(pieces("wa\u{200B}nt\u{0}\tun 😀", false), ["want", "un"]);
        assert_eq!(pieces("want\u{3000}want", false), ["want", "want"]);
        assert_eq!(pieces("want\u{A0}want", false), ["[UNK]"]);
    }

    #[test]
    fn very_long_words_are_unknown() {
        assert_eq!(pieces(&"un".repeat(51), false), ["[UNK]"]);
        assert_eq!(pieces(&"x".repeat(600), false), ["[UNK]", "[UNK]"]);
    }

    #[test]
    fn a_piece_has_the_place_of_its_word() {
        let vocabulary = VOCABULARY.map(str::to_owned);
        let tokens = WordPiece::new(&vocabulary, true, 1, "[MASK]").tokens("é wanted, 中");
        let found: Vec<_> = tokens.iter().map(|token| (token.word, token.place.clone())).collect();
        assert_eq!(found, [(0, 0..2), (1, 3..9), (1, 3..9), (2, 9..10), (3, 11..14)]);
    }
}
