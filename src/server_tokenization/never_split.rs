//! Tokens that stay whole wherever they occur in a text, such as the mask token.

use std::ops::Range;

/// A set of tokens that are not split.
#[derive(Debug)]
pub(super) struct NeverSplit {
    tokens: Vec<Vec<char>>,
}

/// A part of a text, as a range of its characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) range: Range<usize>,
    /// Whether the part is one of the tokens.
    pub(super) is_token: bool,
}

impl NeverSplit {
    pub(super) fn new(tokens: &[&str]) -> Self {
        Self { tokens: tokens.iter().map(|token| token.chars().collect()).collect() }
    }

    /// Splits a text before and after every token.
    ///
    /// The server walks over the text once, without returning to a character. After a mismatch it tries only that character as a new
    /// beginning. A token that begins another token is never found.
    pub(super) fn sections(&self, text: &[char]) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        let mut text_start = 0;
        let (mut start, mut depth) = (0, 0);
        for (at, &c) in text.iter().enumerate() {
            if depth == 0 {
                start = at;
            }
            if !self.continues(&text[start..start + depth], c) {
                // Only this character can begin another token.
                start = at;
                depth = usize::from(depth > 0 && self.continues(&[], c));
            } else if self.is_longest(&text[start..=at]) {
                self.push(text, text_start..start, &mut sections);
                self.push(text, start..at + 1, &mut sections);
                text_start = at + 1;
                depth = 0;
            } else {
                depth += 1;
            }
        }
        self.push(text, text_start..text.len(), &mut sections);
        sections
    }

    /// The token that a section is, as text.
    pub(super) fn contains(&self, text: &[char]) -> bool {
        self.tokens.iter().any(|token| token == text)
    }

    fn push(&self, text: &[char], range: Range<usize>, sections: &mut Vec<Section>) {
        if !range.is_empty() {
            let is_token = self.contains(&text[range.clone()]);
            sections.push(Section { range, is_token });
        }
    }

    fn continues(&self, prefix: &[char], next: char) -> bool {
        self.tokens
            .iter()
            .any(|token| token.starts_with(prefix) && token.get(prefix.len()) == Some(&next))
    }

    /// Whether no token is longer than `found` and begins with `found`.
    fn is_longest(&self, found: &[char]) -> bool {
        !self.tokens.iter().any(|token| token.len() > found.len() && token.starts_with(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(tokens: &[&str], text: &str) -> Vec<String> {
        let text: Vec<char> = text.chars().collect();
        let found = NeverSplit::new(tokens).sections(&text);
        found.into_iter().map(|section| text[section.range].iter().collect()).collect()
    }

    #[test]
    fn tokens_become_sections() {
        let tokens = ["[MASK]", "[SEP]"];
        assert_eq!(sections(&tokens, "a[MASK]b[SEP]"), ["a", "[MASK]", "b", "[SEP]"]);
        assert_eq!(sections(&tokens, "[[MASK]]"), ["[", "[MASK]", "]"]);
        assert_eq!(sections(&tokens, "[MA[MASK"), ["[MA[MASK"]);
        assert!(sections(&tokens, "").is_empty());
    }

    #[test]
    fn overlapping_beginning_hides_a_token() {
        assert_eq!(sections(&["aab"], "aab"), ["aab"]);
        assert_eq!(sections(&["aab"], "aaab"), ["aaab"]);
        assert_eq!(sections(&["ab", "abc"], "ab"), ["ab"]);
        assert_eq!(sections(&["ab", "abc"], "abx"), ["abx"]);
    }
}
