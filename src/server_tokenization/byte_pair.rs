//! Byte-level byte-pair encoding: words as GPT-2 splits them, their bytes as printable characters, merged pair by pair.

use std::collections::HashMap;
use std::ops::Range;

use super::Token;
use super::java;
use super::never_split::NeverSplit;

/// A byte-pair tokenizer.
#[derive(Debug)]
pub(super) struct BytePair {
    ids: HashMap<String, u32>,
    /// Ranks by the merged text: the server does not distinguish `a bc` from `ab c`.
    ranks: HashMap<String, usize>,
    add_prefix_space: bool,
    unknown: u32,
    never_split: NeverSplit,
}

impl BytePair {
    pub(super) fn new(
        vocabulary: &[String],
        merges: &[String],
        add_prefix_space: bool,
        unknown: u32,
        mask: &str,
    ) -> Self {
        Self {
            ids: vocabulary.iter().cloned().zip(0..).collect(),
            ranks: merges.iter().map(|merge| merge.replace(' ', "")).zip(0..).collect(),
            add_prefix_space,
            unknown,
            never_split: NeverSplit::new(&[mask]),
        }
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let characters: Vec<char> = text.chars().collect();
        // The place of each character in bytes, and the length of the text.
        let mut places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        places.push(text.len());
        let sections = self.never_split.sections(&characters);
        let mut tokens = Vec::new();
        let (mut word, mut masks) = (0, 0);
        for section in &sections {
            let place = places[section.range.start]..places[section.range.end];
            if section.is_token {
                let id = self.ids.get(&text[place.clone()]).copied().unwrap_or(self.unknown);
                tokens.push(Token { id, word, place });
                word += 1;
                masks += 1;
                continue;
            }
            // One blank before a mask belongs to the mask. The server's condition also holds for the end of a text with masks.
            let found = &text[place.clone()];
            let blank = if masks + 1 < sections.len() { found.strip_suffix(' ') } else { None };
            let found = blank.unwrap_or(found);
            for range in words(found) {
                let add_space =
                    self.add_prefix_space && word == 0 && !found[range.clone()].starts_with(' ');
                let range = place.start + range.start..place.start + range.end;
                self.push_pieces(text, range, add_space, word, &mut tokens);
                word += 1;
            }
        }
        tokens
    }

    /// Adds the pieces of the word at `range`.
    fn push_pieces(
        &self,
        text: &str,
        range: Range<usize>,
        add_space: bool,
        word: usize,
        tokens: &mut Vec<Token>,
    ) {
        let found = &text[range.clone()];
        let bytes = add_space.then_some(b' ').into_iter().chain(found.bytes());
        for (number, piece) in self.merge(bytes.map(printable).collect()).into_iter().enumerate() {
            // The place of a word's first piece excludes the blank before the word, unless the piece is only that blank.
            let is_spaced = number == 0 && found.starts_with(' ') && piece.chars().count() > 1;
            let id = self.ids.get(&piece).copied().unwrap_or(self.unknown);
            tokens.push(Token { id, word, place: range.start + usize::from(is_spaced)..range.end });
        }
    }

    /// A word's pieces, after all merges.
    fn merge(&self, characters: Vec<char>) -> Vec<String> {
        let mut pieces: Vec<String> = characters.into_iter().map(String::from).collect();
        let rank = |left: &str, right: &str| self.ranks.get(&[left, right].concat()).copied();
        let mut ranks: Vec<Option<usize>> =
            pieces.windows(2).map(|pair| rank(&pair[0], &pair[1])).collect();
        // The first of the pairs with the lowest rank.
        while let Some((_, at)) =
            ranks.iter().zip(0..).filter_map(|(rank, at)| Some(((*rank)?, at))).min()
        {
            let right = pieces.remove(at + 1);
            pieces[at].push_str(&right);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = rank(&pieces[at - 1], &pieces[at]);
            }
            if at < ranks.len() {
                ranks[at] = rank(&pieces[at], &pieces[at + 1]);
            }
        }
        pieces
    }
}

/// The kind of a character in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Space,
    Symbol,
}

fn class(c: char) -> Class {
    if java::is_letter(c) {
        Class::Letter
    } else if java::is_digit(c) {
        Class::Digit
    } else if java::is_whitespace(c) {
        Class::Space
    } else {
        Class::Symbol
    }
}

/// The words of a text, as ranges of bytes that cover the text.
///
/// The server's reader approximates GPT-2's pattern: an apostrophe never begins a run of symbols, only decimal digits are numbers, and a
/// run of white space ends before its last character only if that is a blank.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = 0;
    while let Some(length) = word_length(&text[start..]) {
        words.push(start..start + length);
        start += length;
    }
    words
}

/// Whether a byte-pair tokenizer of the server keeps a text together before merges.
#[must_use]
pub fn is_one_word(text: &str) -> bool {
    word_length(text) == Some(text.len())
}

/// The length of the first word in bytes, or nothing at the end.
fn word_length(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if first == '\'' {
        return Some(apostrophe_length(text));
    }
    let blank = usize::from(first == ' ');
    let rest = &text[blank..];
    Some(match rest.chars().next().map(class) {
        None => blank,
        Some(Class::Space) => {
            let run = text.find(|c| class(c) != Class::Space);
            match run {
                // The last blank of several characters begins the next word.
                Some(end) if end > 1 && text[..end].ends_with(' ') => end - 1,
                Some(end) => end,
                None => text.len(),
            }
        }
        Some(kind) => blank + rest.find(|c| class(c) != kind).unwrap_or(rest.len()),
    })
}

/// The length of a word that begins with an apostrophe: with the ending of a contraction, or alone.
fn apostrophe_length(text: &str) -> usize {
    match text.as_bytes() {
        [_, b's' | b't' | b'm' | b'd', ..] => 2,
        // Both letters are checked apart, so that 'le counts too.
        [_, b'r' | b'v' | b'l', b'e' | b'l', ..] => 3,
        _ => 1,
    }
}

/// The character that stands for a byte: the byte itself where it is printable, else one from U+0100, in order.
fn printable(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !is_printable(*byte)).count();
    u32::try_from(before).ok().and_then(|n| char::from_u32(0x100 + n)).unwrap_or_default()
}

/// The characters that stand for the bytes, in the order of the bytes.
pub fn byte_symbols() -> impl Iterator<Item = char> {
    (0..=u8::MAX).map(printable)
}

/// The text that a token's printable characters stand for, without white space around it.
pub(super) fn decoded(token: &str) -> String {
    let byte = |c: char| (0..=u8::MAX).find(|byte| printable(*byte) == c);
    let bytes: Vec<u8> = token.chars().filter_map(byte).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: [&str; 14] = [
        "<s>", "<pad>", "</s>", "<unk>", "<mask>", "lo", "w", "Ġlow", "er", "Ġ", "Ã©", "'s", "!",
        "low",
    ];
    const MERGES: [&str; 6] = ["l o", "Ġ lo", "Ġlo w", "e r", "Ã ©", "' s"];

    fn tokenizer(add_prefix_space: bool) -> BytePair {
        let owned =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        BytePair::new(&owned(&VOCABULARY), &owned(&MERGES), add_prefix_space, 3, "<mask>")
    }

    fn pieces(text: &str, add_prefix_space: bool) -> Vec<&'static str> {
        let tokens = tokenizer(add_prefix_space).tokens(text);
        tokens.iter().map(|token| VOCABULARY[token.id as usize]).collect()
    }

    #[test]
    fn every_byte_has_a_printable_character() {
        assert_eq!((printable(b' '), printable(b'\n'), printable(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!(decoded("ĠÃ©t"), "ét");
        let all: std::collections::HashSet<char> = (0..=u8::MAX).map(printable).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn pairs_are_merged_by_rank() {
        assert_eq!(pieces("low lower", false), ["lo", "w", "Ġlow", "er"]);
        assert_eq!(pieces("low", true), ["Ġlow"]);
        assert_eq!(pieces("é's!", false), ["Ã©", "'s", "!"]);
        assert_eq!(pieces("x", false), ["<unk>"]);
    }

    #[test]
    fn words_follow_the_servers_reader() {
        let words = |text: &'static str| {
            words(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>()
        };
        assert_eq!(
            words("I'll go,  42 times\n"),
            ["I", "'ll", " go", ",", " ", " 42", " times", "\n"]
        );
        assert_eq!(words("a \n b"), ["a", " \n", " b"]);
        assert_eq!(words("a\n\nb   "), ["a", "\n\n", "b", "   "]);
        assert_eq!(words("a \nb"), ["a", " \n", "b"]);
        assert_eq!(words("a\u{A0}b 'tis"), ["a", "\u{A0}", "b", " '", "tis"]);
        assert_eq!(words("'%s'."), ["'", "%", "s", "'", "."]);
        assert_eq!(words("%'."), ["%'."]);
        assert_eq!(words("'le 'rx"), ["'le", " '", "rx"]);
        assert_eq!(words("é²x5Ⅳ"), ["é", "²", "x", "5", "Ⅳ"]);
    }

    #[test]
    fn one_blank_before_a_mask_is_removed() {
        assert_eq!(pieces("low <mask> low", false), ["lo", "w", "<mask>", "Ġlow"]);
        assert_eq!(pieces("low  <mask> low ", false), ["lo", "w", "Ġ", "<mask>", "Ġlow"]);
        assert_eq!(pieces("<mask>low", true), ["<mask>", "lo", "w"]);
    }

    #[test]
    fn pieces_have_the_place_of_their_word() {
        let tokens = tokenizer(true).tokens("low lower é");
        let places: Vec<_> = tokens.iter().map(|token| (token.word, token.place.clone())).collect();
        assert_eq!(places, [(0, 0..3), (1, 4..9), (1, 3..9), (2, 9..12), (2, 9..12)]);
    }
}
