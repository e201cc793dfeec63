//! WordPiece: words by white space, punctuation and Chinese characters, then the longest pieces in the vocabulary.

use std::collections::HashMap;
use std::ops::Range;

use icu_normalizer::{DecomposingNormalizer, DecomposingNormalizerBorrowed};
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};

use super::Token;
use super::java;

/// Words of more UTF-16 units become the unknown token.
const MAX_WORD_LENGTH: usize = 100;

/// Runs without white space are cut after this many characters.
const MAX_RUN_LENGTH: usize = 512;

/// The mark of a piece that continues a word.
const CONTINUATION: &str = "##";

/// A WordPiece tokenizer.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Ids of all tokens, for the beginning of a word.
    first: HashMap<String, u32>,
    /// Ids of the tokens that begin with `##`, without that mark.
    continuing: HashMap<String, u32>,
    lower_case: bool,
    split_chinese: bool,
    unknown: u32,
    mask: Vec<char>,
    /// The mask token, split at punctuation.
    mask_parts: Vec<Range<usize>>,
    decomposition: DecomposingNormalizerBorrowed<'static>,
}

/// A character and its place in the text, in bytes.
type Placed = (usize, char);

/// A word and its place in the text, in bytes.
struct Word {
    text: String,
    place: Range<usize>,
}

impl WordPiece {
    /// Builds the tokenizer. With `lower_case`, tokens and words are compared without regard to case, and accents are removed.
    pub(super) fn new(
        vocabulary: &[String],
        lower_case: bool,
        split_chinese: bool,
        unknown: u32,
        mask: &str,
    ) -> Self {
        let mut first = HashMap::with_capacity(vocabulary.len());
        let mut continuing = HashMap::new();
        // The last of several equal tokens counts.
        for (token, id) in vocabulary.iter().zip(0..) {
            let key = if lower_case { java::lower_case(token) } else { token.clone() };
            if let Some(rest) = key.strip_prefix(CONTINUATION) {
                continuing.insert(rest.to_owned(), id);
            }
            first.insert(key, id);
        }
        let mask: Vec<char> = mask.chars().collect();
        let mut tokenizer = Self {
            first,
            continuing,
            lower_case,
            split_chinese,
            unknown,
            mask: mask.clone(),
            mask_parts: Vec::new(),
            decomposition: DecomposingNormalizer::new_nfd(),
        };
        let placed: Vec<Placed> = mask.into_iter().enumerate().collect();
        tokenizer.mask_parts = tokenizer.split(&placed);
        tokenizer
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let mut words = Vec::new();
        for run in runs(text) {
            self.push_words(&run, &mut words);
        }
        self.encode(words)
    }

    /// The tokens of words that a morphological analyser found, as in `bert_ja`.
    pub(super) fn tokens_of_words<'a>(
        &self,
        segments: impl IntoIterator<Item = (usize, &'a str)>,
    ) -> Vec<Token> {
        let mut words = Vec::new();
        for (start, segment) in segments {
            let placed = segment.char_indices().map(|(at, c)| (start + at, c));
            let kept: Vec<Placed> = placed.filter(|(_, c)| !is_dropped(*c)).collect();
            self.push_words(&kept, &mut words);
        }
        self.encode(words)
    }

    fn encode(&self, words: Vec<Word>) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (word, found) in words.into_iter().enumerate() {
            for id in self.pieces(&found.text) {
                tokens.push(Token { id, word, place: found.place.clone() });
            }
        }
        tokens
    }

    /// The ids of a word's pieces, or the unknown token alone.
    fn pieces(&self, word: &str) -> Vec<u32> {
        let key = if self.lower_case { java::lower_case(word) } else { word.to_owned() };
        if word.chars().eq(self.mask.iter().copied()) {
            return vec![self.first.get(&key).copied().unwrap_or(self.unknown)];
        }
        if java::length(word) > MAX_WORD_LENGTH {
            return vec![self.unknown];
        }
        let mut pieces = Vec::new();
        let mut rest = key.as_str();
        while !rest.is_empty() {
            let ids = if pieces.is_empty() { &self.first } else { &self.continuing };
            let ends = rest.char_indices().rev().map(|(at, c)| at + c.len_utf8());
            let found = ends.into_iter().find_map(|end| Some((*ids.get(&rest[..end])?, end)));
            let Some((id, end)) = found else { return vec![self.unknown] };
            pieces.push(id);
            rest = &rest[end..];
        }
        pieces
    }

    /// Adds the words of a run without white space.
    fn push_words(&self, run: &[Placed], words: &mut Vec<Word>) {
        if same(run, &self.mask) {
            words.extend(word(run, str::to_owned));
            return;
        }
        for part in self.join_masks(run, self.split(run)) {
            let normalize = |text: &str| {
                if self.lower_case { self.without_accents(text) } else { text.to_owned() }
            };
            words.extend(word(&run[part], normalize));
        }
    }

    /// Splits a run before and after each punctuation mark and Chinese character.
    fn split(&self, run: &[Placed]) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut start = 0;
        for (at, (_, c)) in run.iter().enumerate() {
            if is_punctuation(*c) || self.split_chinese && is_chinese(*c) {
                parts.extend([start..at, at..at + 1]);
                start = at + 1;
            }
        }
        parts.push(start..run.len());
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Joins consecutive parts of a run that are the parts of the mask token.
    fn join_masks(&self, run: &[Placed], parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let mut joined: Vec<Range<usize>> = Vec::new();
        // How many of the last parts are the beginning of the mask token.
        let mut depth = 0;
        for part in parts {
            let continues = |depth: usize| {
                let wanted = self.mask_parts.get(depth);
                wanted.is_some_and(|wanted| same(&run[part.clone()], &self.mask[wanted.clone()]))
            };
            depth = if continues(depth) { depth + 1 } else { usize::from(continues(0)) };
            joined.push(part.clone());
            if depth == self.mask_parts.len() {
                let first = joined.len() - depth;
                let start = joined[first].start;
                joined.truncate(first);
                joined.push(start..part.end);
                depth = 0;
            }
        }
        joined
    }

    fn without_accents(&self, text: &str) -> String {
        let is_mark = |c: &char| java::category(*c) == GeneralCategory::NonspacingMark;
        self.decomposition.normalize(text).chars().filter(|c| !is_mark(c)).collect()
    }
}

/// The runs of a text without white space. Dropped characters do not end a run.
fn runs(text: &str) -> Vec<Vec<Placed>> {
    let mut runs = vec![Vec::new()];
    for (at, c) in text.char_indices().filter(|(_, c)| !is_dropped(*c)) {
        let last = runs.len() - 1;
        if java::is_whitespace(c) {
            runs.push(Vec::new());
        } else if runs[last].len() == MAX_RUN_LENGTH {
            runs.push(vec![(at, c)]);
        } else {
            runs[last].push((at, c));
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The word that some characters are, unless nothing remains of them.
fn word(characters: &[Placed], normalize: impl Fn(&str) -> String) -> Option<Word> {
    let ((start, _), (end, last)) = (characters.first()?, characters.last()?);
    let text: String = characters.iter().map(|(_, c)| c).collect();
    let text = normalize(&text);
    (!text.is_empty()).then(|| Word { text, place: *start..end + last.len_utf8() })
}

fn same(characters: &[Placed], wanted: &[char]) -> bool {
    characters.iter().map(|(_, c)| c).eq(wanted)
}

/// Whether the server removes the character first: control characters, and the surrogates of all characters beyond U+FFFF.
fn is_dropped(c: char) -> bool {
    let is_control = || {
        matches!(
            java::category(c),
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        )
    };
    !matches!(c, '\n' | '\r' | '\t') && (!java::is_one_unit(c) || is_control())
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || GeneralCategoryGroup::Punctuation.contains(java::category(c))
}

/// The blocks of Chinese characters up to U+FFFF. Characters beyond are dropped before.
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

    fn tokenizer(lower_case: bool) -> WordPiece {
        WordPiece::new(&VOCABULARY.map(str::to_owned), lower_case, true, 1, "[MASK]")
    }

    fn pieces(text: &str, lower_case: bool) -> Vec<&'static str> {
        let tokens = tokenizer(lower_case).tokens(text);
        tokens.iter().map(|token| VOCABULARY[token.id as usize]).collect()
    }

    #[test]
    fn words_become_their_longest_pieces() {
        assert_eq!(pieces("UNwantéd,running", true), ["[UNK]", ",", "runn", "##ing"]);
        assert_eq!(pieces("unaffable  wanted", true), ["un", "##aff", "##able", "want", "##ed"]);
        assert_eq!(pieces("unaffablex", true), ["[UNK]"]);
        assert_eq!(pieces("Unaffable", false), ["[UNK]"]);
    }

    #[test]
    fn lower_case_strips_accents() {
        assert_eq!(pieces("Résumé RÉSUMÉ", true), ["resume", "resume"]);
        assert_eq!(pieces("résumé", false), ["[UNK]"]);
        // U+2260 decomposes into an equals sign and a mark, after the split at punctuation.
        assert_eq!(pieces("\u{301}", true), [""; 0]);
    }

    #[test]
    fn chinese_punctuation_and_mask_are_separate_words() {
        assert_eq!(pieces("中文want!", false), ["中", "文", "want", "!"]);
        assert_eq!(pieces("want[MASK]!want", false), ["want", "[MASK]", "!", "want"]);
        assert_eq!(pieces("[[MASK]]", false), ["[UNK]", "[MASK]", "[UNK]"]);
        assert_eq!(pieces("[MASK", false), ["[UNK]", "[UNK]"]);
        assert_eq!(pieces("[mask]", true), ["[UNK]", "[UNK]", "[UNK]"]);
    }

    #[test]
    fn control_characters_are_removed_and_no_break_spaces_do_not_split() {
        assert_eq!(pieces("wa\u{200B}nt\u{0}\tun 😀", false), ["want", "un"]);
        assert_eq!(pieces("want\u{3000}want", false), ["want", "want"]);
        assert_eq!(pieces("want\u{A0}want", false), ["[UNK]"]);
    }

    #[test]
    fn long_words_are_unknown_and_long_runs_are_cut() {
        assert_eq!(pieces(&"un".repeat(51), false), ["[UNK]"]);
        assert_eq!(pieces(&"x".repeat(600), false), ["[UNK]", "[UNK]"]);
        assert_eq!(pieces(&"x".repeat(512), false), ["[UNK]"]);
    }

    #[test]
    fn pieces_have_the_place_of_their_word() {
        let tokens = tokenizer(true).tokens("é wanted, 中");
        let found: Vec<_> = tokens.iter().map(|token| (token.word, token.place.clone())).collect();
        assert_eq!(found, [(0, 0..2), (1, 3..9), (1, 3..9), (2, 9..10), (3, 11..14)]);
    }
}
