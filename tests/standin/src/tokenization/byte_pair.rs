//! RoBERTa's tokenization: words by GPT-2's pattern, their bytes as printable characters, merged pair by pair.
//!
//! The pattern is `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, in which Java's `\s` is ASCII only.

use std::collections::HashMap;

use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};

use super::Token;

/// A byte-level BPE tokenizer.
pub(super) struct BytePair {
    ids: HashMap<String, u32>,
    /// By the merged text: the server does not tell `a bc` from `ab c`.
    ranks: HashMap<String, usize>,
    add_prefix_space: bool,
    unknown: u32,
    mask: String,
    categories: CodePointMapDataBorrowed<'static, GeneralCategory>,
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
            mask: mask.to_owned(),
            categories: CodePointMapData::<GeneralCategory>::new(),
        }
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut word = 0;
        let sections = split_at(text, &self.mask);
        let mut masks = 0;
        for (start, section) in &sections {
            if *section == self.mask {
                let id = self.ids.get(&self.mask).copied().unwrap_or(self.unknown);
                tokens.push(Token { id, word, place: *start..start + section.len() });
                word += 1;
                masks += 1;
                continue;
            }
            // White space before a mask belongs to the mask; as the server counts, also that at the end of a text with masks.
            let section = if masks + 1 < sections.len() { section.trim_end() } else { section };
            let mut at = 0;
            while at < section.len() {
                let length = self.word_length(&section[at..]);
                let found = &section[at..at + length];
                let starts_text = tokens.is_empty() && masks == 0;
                let has_space = found.starts_with(' ');
                let adds_space = starts_text && self.add_prefix_space && !has_space;
                let first = start + at + usize::from(has_space);
                let spaced = if adds_space { format!(" {found}") } else { found.to_owned() };
                for (number, piece) in self.pieces(&spaced).into_iter().enumerate() {
                    // Only the first piece can begin with the blank that does not count.
                    let from = if number == 0 { first } else { start + at };
                    tokens.push(Token { id: piece, word, place: from..start + at + length });
                }
                word += 1;
                at += length;
            }
        }
        tokens
    }

    /// The ids of a word's pieces.
    fn pieces(&self, word: &str) -> Vec<u32> {
        let mut pieces: Vec<String> =
            word.bytes().map(|byte| printable(byte).to_string()).collect();
        loop {
            let best = pieces
                .windows(2)
                .enumerate()
                .filter_map(|(at, pair)| Some((self.ranks.get(&pair.concat())?, at)))
                .min();
            let Some((_, at)) = best else { break };
            let right = pieces.remove(at + 1);
            pieces[at].push_str(&right);
        }
        pieces.iter().map(|piece| self.ids.get(piece).copied().unwrap_or(self.unknown)).collect()
    }

    /// How long the pattern's match at the start of `text` is, in bytes.
    fn word_length(&self, text: &str) -> usize {
        const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        if let Some(found) = CONTRACTIONS.iter().find(|end| text.starts_with(**end)) {
            return found.len();
        }
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\u{B}' | '\u{C}' | '\r');
        let group = |c: char| {
            let category = self.categories.get(c);
            if GeneralCategoryGroup::Letter.contains(category) {
                'L'
            } else if GeneralCategoryGroup::Number.contains(category) {
                'N'
            } else if is_space(c) {
                's'
            } else {
                'o'
            }
        };
        let blank = usize::from(text.starts_with(' '));
        if let Some(kind) = text[blank..].chars().next().map(group).filter(|kind| *kind != 's') {
            let run = text[blank..].chars().take_while(|c| group(*c) == kind);
            return blank + run.map(char::len_utf8).sum::<usize>();
        }
        let run = text.chars().take_while(|c| is_space(*c)).count();
        // The last blank of several goes with what follows.
        if run > 1 && run < text.len() { run - 1 } else { run }
    }
}

/// Cuts a text at every occurrence of `mask`, which becomes a section of its own; empty sections are left out.
fn split_at<'a>(text: &'a str, mask: &str) -> Vec<(usize, &'a str)> {
    let mut sections = Vec::new();
    let mut from = 0;
    for (at, found) in text.match_indices(mask) {
        sections.push((from, &text[from..at]));
        sections.push((at, found));
        from = at + found.len();
    }
    sections.push((from, &text[from..]));
    sections.retain(|(_, section)| !section.is_empty());
    sections
}

/// The character that stands for a byte: itself where it is printable, else one from U+0100 on, in order.
fn printable(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !is_printable(*byte)).count();
    u32::try_from(before).ok().and_then(|n| char::from_u32(0x100 + n)).unwrap_or_default()
}

/// The text that a token's printable characters stand for, without blanks around it.
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
    fn bytes_are_printable() {
        assert_eq!((printable(b' '), printable(b'\n'), printable(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!(decoded("ĠÃ©t"), "ét");
        let all: std::collections::HashSet<char> = (0..=u8::MAX).map(printable).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn pairs_are_merged_best_first() {
        assert_eq!(pieces("low lower", false), ["lo", "w", "Ġlow", "er"]);
        assert_eq!(pieces("low", true), ["Ġlow"]);
        assert_eq!(pieces("é's!", false), ["Ã©", "'s", "!"]);
        assert_eq!(pieces("x", false), ["<unk>"]);
    }

    #[test]
    fn words_are_found_as_by_the_pattern() {
        let words = |text: &'static str| {
            let tokenizer = tokenizer(false);
            let (mut found, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let length = tokenizer.word_length(&text[at..]);
                found.push(&text[at..at + length]);
                at += length;
            }
            found
        };
        assert_eq!(
            words("I'll go,  42 times\n"),
            ["I", "'ll", " go", ",", " ", " 42", " times", "\n"]
        );
        assert_eq!(words("a \n b"), ["a", " \n", " b"]);
        assert_eq!(words("a\nb   "), ["a", "\n", "b", "   "]);
        assert_eq!(words("a\u{A0}b 'tis"), ["a", "\u{A0}", "b", " '", "tis"]);
        assert_eq!(words("é²x"), ["é", "²", "x"]);
    }

    #[test]
    fn a_mask_takes_the_blanks_before_it() {
        assert_eq!(pieces("low <mask> low", false), ["lo", "w", "<mask>", "Ġlow"]);
        assert_eq!(pieces("<mask>low", true), ["<mask>", "lo", "w"]);
    }

    #[test]
    fn pieces_have_the_place_of_their_word() {
        let tokens = tokenizer(true).tokens("low lower é");
        let places: Vec<_> = tokens.iter().map(|token| (token.word, token.place.clone())).collect();
        assert_eq!(places, [(0, 0..3), (1, 4..9), (1, 3..9), (2, 10..12), (2, 9..12)]);
    }
}
