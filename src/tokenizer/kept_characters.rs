//! The characters that a tokenizer can look up in its vocabulary for texts of some scripts.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use icu_normalizer::DecomposingNormalizerBorrowed;

use crate::scripts::Scripts;
use crate::server_tokenization::{byte_symbols, nmt_nfkc};

/// Blocks of Unicode with all characters that are composed of several, except Hangul syllables, whose parts are of the same script.
const COMPOSED: [RangeInclusive<char>; 5] = [
    '\u{C0}'..='\u{31FF}',
    '\u{FB00}'..='\u{FB4F}',
    '\u{11000}'..='\u{11FFF}',
    '\u{16000}'..='\u{16FFF}',
    '\u{1D100}'..='\u{1D1FF}',
];

/// The characters of texts of some scripts, before and after the changes that tokenizers make to texts.
///
/// For example, `µ` (micro sign) belongs to no script, so that every text may contain it, but SentencePiece's table replaces it by the Greek
/// letter `μ`. Tokens that consist of kept characters are kept.
pub(super) struct KeptCharacters<'a> {
    scripts: &'a Scripts,
    /// Characters of other scripts that replace characters of the texts.
    replacements: BTreeSet<char>,
    /// The byte that each printable character of a byte-level vocabulary stands for.
    symbols: Vec<char>,
}

impl<'a> KeptCharacters<'a> {
    /// The characters of texts of `scripts`.
    pub(super) fn of(scripts: &'a Scripts) -> Self {
        let decomposition = DecomposingNormalizerBorrowed::new_nfd();
        let mut replacements = BTreeSet::new();
        let mut buffer = [0; 4];
        let mut new: Vec<char> = scripts.characters().collect();
        while let Some(c) = new.pop() {
            let text: &str = c.encode_utf8(&mut buffer);
            let decomposed = decomposition.normalize(text);
            let changed = nmt_nfkc(text);
            let changed = changed.chars().chain(decomposed.chars()).chain(c.to_lowercase());
            new.extend(changed.filter(|c| !scripts.contains(*c) && replacements.insert(*c)));
        }
        let mut kept = Self { scripts, replacements, symbols: byte_symbols().collect() };
        // Tokenizers compose, for example, the mark U+0342 and U+00A8 to a Greek character.
        let composed = COMPOSED.into_iter().flatten().filter(|c| {
            let parts = decomposition.normalize(c.encode_utf8(&mut buffer)).into_owned();
            parts.chars().nth(1).is_some() && kept.contain(&parts)
        });
        let composed: Vec<char> = composed.collect();
        kept.replacements.extend(composed);
        kept
    }

    fn contain(&self, text: &str) -> bool {
        text.chars().all(|c| self.scripts.contains(c) || self.replacements.contains(&c))
    }

    /// Whether all characters of a token are kept. Incomplete characters of a token of bytes are kept, too.
    pub(super) fn make_up(&self, token: &str, is_byte_level: bool) -> bool {
        match self.bytes(token).filter(|_| is_byte_level) {
            // UTF-8 is self-synchronizing: a character within the bytes of a token is a character of every text that contains the bytes.
            Some(bytes) => bytes.utf8_chunks().all(|chunk| self.contain(chunk.valid())),
            None => self.contain(token),
        }
    }

    /// The bytes of a token of a byte-level vocabulary. `None` for other tokens.
    fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        let byte = |c: char| {
            let byte = self.symbols.iter().position(|symbol| *symbol == c)?;
            u8::try_from(byte).ok()
        };
        token.chars().map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(list: &str) -> Scripts {
        list.parse().unwrap()
    }

    #[test]
    fn replacements_of_characters_are_kept() {
        let latin = scripts("latin");
        let kept = KeptCharacters::of(&latin);
        for token in ["▁word", "naïve", "½", "😀", "μ", "ℵ", "株", "##ing", "<0xC3>"] {
            assert!(kept.make_up(token, false), "{token}");
        }
        for token in ["▁слово", "aд", "語", "한"] {
            assert!(!kept.make_up(token, false), "{token}");
        }
    }

    #[test]
    fn incomplete_characters_of_byte_tokens_are_kept() {
        let symbols: Vec<char> = byte_symbols().collect();
        let token = |bytes: &[u8]| bytes.iter().map(|byte| symbols[usize::from(*byte)]).collect();
        let latin = scripts("latin");
        let kept = KeptCharacters::of(&latin);
        let keeps = |bytes: &[u8]| {
            let token: String = token(bytes);
            kept.make_up(&token, true)
        };
        assert!(keeps(" the".as_bytes()) && keeps("é".as_bytes()) && keeps(&[0xD0]));
        assert!(keeps(&[0xB6, b' ']) && keeps("…".as_bytes()));
        assert!(!keeps("ж".as_bytes()) && !keeps(&[0x81, 0xD0, 0xB6, 0xD0]));
        // A special token has characters that stand for no byte.
        assert!(!kept.make_up("<слово>", true) && kept.make_up("<▁>", true));
    }

    /// A text can contain a character in several parts, which the tokenizer composes. The whole must be kept if the parts are.
    #[test]
    fn composed_characters_belong_to_the_scripts_of_their_parts() {
        let decomposition = DecomposingNormalizerBorrowed::new_nfd();
        let mut composed = Vec::new();
        for c in '\0'..=char::MAX {
            let parts = decomposition.normalize(c.encode_utf8(&mut [0; 4])).into_owned();
            if parts.chars().nth(1).is_some() {
                composed.push((c, parts));
            }
        }
        assert!(composed.len() > 10_000);
        for list in ["latin", "greek", "cyrillic", "hebrew,arabic", "jpan", "hangul", "devanagari"]
        {
            let scripts = scripts(list);
            let kept = KeptCharacters::of(&scripts);
            for (c, parts) in composed.iter().filter(|(_, parts)| scripts.contain(parts)) {
                assert!(kept.contain(&c.to_string()), "{c} {parts}");
            }
        }
    }
}
