//! SentencePiece BPE with byte fallback (Gemma) as byte-level BPE, which Elasticsearch implements.
//!
//! Both algorithms merge pairs by rank. SentencePiece BPE starts with characters, and byte-level BPE with bytes. Therefore the uploaded
//! vocabulary has the bytes of each token, and merges that join the bytes of each character precede those of the model. UTF-8 is
//! self-synchronizing, so that these merges never cross characters. The tokens are equal if no token contains a border at which
//! Elasticsearch splits words, except in two cases:
//!
//! - Runs of one character, for which Elasticsearch does not distinguish merges with the same result, and runs of white space.
//! - Characters outside of the vocabulary. If one begins with the same bytes as a character of the vocabulary, these bytes are merged to
//!   a token that the vocabulary does not contain.

use std::collections::{BTreeSet, HashSet};

use super::ids::{filler, some_of};
use crate::server_tokenization::{byte_symbols, is_one_word};

/// Replaces spaces in tokens.
const SPACE: char = '▁';

/// Largest number of bytes of a character.
const LONGEST: usize = 4;

/// Converts the tokens, ordered by id, and the merges, each of two tokens separated by a space. Returns notes on tokens that
/// Elasticsearch never returns.
pub(super) fn to_byte_level(tokens: &mut [String], merges: &mut Vec<String>) -> Vec<String> {
    let symbols: Vec<char> = byte_symbols().collect();
    let mut split = Vec::new();
    let mut ascii = HashSet::new();
    let mut prefixes: [BTreeSet<Vec<u8>>; LONGEST - 1] = Default::default();
    for token in tokens.iter() {
        let text = token.replace(SPACE, " ");
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) if character.is_ascii() => {
                ascii.insert(character as u8);
            }
            (Some(_), None) => {
                for (length, known) in (2..=text.len()).zip(&mut prefixes) {
                    known.insert(text.as_bytes()[..length].to_vec());
                }
            }
            (Some(_), Some(_)) if !is_markup(&text) && !is_one_word(&text) => {
                split.push(token.clone());
            }
            _ => (),
        }
    }
    let letters = |text: &str| -> String {
        let mut letters = String::with_capacity(text.len());
        let mut bytes = [0; LONGEST];
        for character in text.chars() {
            let character = if character == SPACE { ' ' } else { character };
            let bytes = character.encode_utf8(&mut bytes).bytes();
            letters.extend(bytes.map(|byte| symbols[usize::from(byte)]));
        }
        letters
    };
    for (id, token) in tokens.iter_mut().enumerate() {
        *token = match byte(token) {
            // The character is another token.
            Some(byte) if ascii.contains(&byte) => filler(id),
            Some(byte) => symbols[usize::from(byte)].into(),
            None => letters(token),
        };
    }
    let of_characters = prefixes.iter().flatten().filter_map(|prefix| {
        let (last, first) = prefix.split_last()?;
        let first: String = first.iter().map(|byte| symbols[usize::from(*byte)]).collect();
        Some(format!("{first} {}", symbols[usize::from(*last)]))
    });
    let mut all =
        Vec::with_capacity(merges.len() + prefixes.iter().map(BTreeSet::len).sum::<usize>());
    all.extend(of_characters);
    for merge in merges.drain(..) {
        let (left, right) = merge.split_once(' ').unwrap_or((&merge, ""));
        all.push(format!("{} {}", letters(left), letters(right)));
    }
    *merges = all;
    let note = some_of(&split).map(|some| {
        format!(
            "Elasticsearch splits words inside of {} tokens of the vocabulary, most of which have combining marks of scripts such as Devanagari and Thai, and never returns these tokens: {some}",
            split.len()
        )
    });
    note.into_iter().collect()
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_byte)
}

/// Whether a token is a tag or a control token, such as `<table>` or `<unused0>`. These are added tokens, about which another warning
/// informs.
fn is_markup(text: &str) -> bool {
    text.len() > 2 && text.starts_with(['<', '[']) && text.ends_with(['>', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_merges_are_written_in_bytes() {
        let mut tokens: Vec<String> =
            ["<pad>", "<0x61>", "<0xC3>", "a", "▁", "é", "▁aé", "aé", "😀", "का"]
                .map(str::to_owned)
                .into();
        let mut merges: Vec<String> = ["a é", "▁ aé"].map(str::to_owned).into();
        let notes = to_byte_level(&mut tokens, &mut merges);
        assert_eq!(
            tokens,
            ["<pad>", "[unused id 1]", "Ã", "a", "Ġ", "Ã©", "ĠaÃ©", "aÃ©", "ðŁĺĢ", "à¤ķà¤¾"]
        );
        assert_eq!(merges, ["Ã ©", "ð Ł", "ðŁ ĺ", "ðŁĺ Ģ", "a Ã©", "Ġ aÃ©"]);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("1 tokens") && notes[0].ends_with(": का"), "{notes:?}");
    }

    #[test]
    fn names_of_bytes_are_read() {
        assert_eq!([byte("<0x0A>"), byte("<0xff>")], [Some(10), Some(255)]);
        assert_eq!([byte("<0x+1>"), byte("<0x0>"), byte("0x0A")], [None, None, None]);
    }
}
