//! Byte-level BPE: `vocab.json` with `merges.txt`, otherwise `tokenizer.json` (`RobertaTokenizer` and `BartTokenizer` in Transformers).

use std::collections::{HashMap, HashSet};

use super::ids::some_of;
use super::tokenizer_json::{NAME, TokenizerJson, Tokens, WordSplit};
use super::wordpiece::lines;
use super::{Base, Reader, TokenizerError};
use crate::server_tokenization::byte_symbols;

/// Files of the slow tokenizers.
pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

/// Reads `vocab.json` and `merges.txt`, if both exist.
pub(super) fn slow(reader: &Reader<'_>) -> Result<Option<Base>, TokenizerError> {
    let files = reader.files;
    if files.find(VOCABULARY)?.is_none() {
        return Ok(None);
    }
    let Some(merges) = files.text(MERGES)? else { return Ok(None) };
    let ids: HashMap<String, usize> = files.json(VOCABULARY)?.unwrap_or_default();
    if ids.is_empty() {
        return Err(TokenizerError::Empty(VOCABULARY));
    }
    let (merges, mut notes) = ranked(&merges);
    let unknown = unknown(&merges, |token| ids.contains_key(token));
    if 2 * unknown.len() > merges.len() {
        return Err(TokenizerError::Merges { unknown: unknown.len(), merges: merges.len() });
    }
    notes.extend(some_of(&unknown).map(|some| {
        format!("merges.txt merges tokens into tokens that vocab.json does not contain ({some}); texts with such a merge get <unk>")
    }));
    let mut tokens: Vec<_> = ids.into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    Ok(Some(Base { merges: Some(merges), notes, ..Base::of(tokens) }))
}

/// Merges that `RobertaTokenizer` reads from `merges.txt`, in the order of their ranks: all lines except the first, which states a
/// version, and the text after the last line break. A merge that is listed twice has its later rank.
fn ranked(text: &str) -> (Vec<String>, Vec<String>) {
    let complete = text.ends_with(['\n', '\r']);
    let mut all: Vec<String> = lines(text).collect();
    if !complete {
        all.pop();
    }
    let version = !all.is_empty() && !all.remove(0).starts_with("#version");
    let mut broken = Vec::new();
    let mut merges: Vec<String> = Vec::new();
    for line in all {
        let parts: Vec<&str> = line.split_whitespace().collect();
        match parts.as_slice() {
            [] => (),
            [a, b] => merges.push(format!("{a} {b}")),
            _ => broken.push(format!("{line:?}")),
        }
    }
    let mut notes = Vec::new();
    if version {
        notes.push("merges.txt does not begin with a version line; Transformers skips its first line anyway".into());
    }
    if !complete {
        notes.push(
            "merges.txt does not end with a line break; Transformers skips its last line".into(),
        );
    }
    notes.extend(
        some_of(&broken)
            .map(|some| format!("merges.txt contains lines that are not merges: {some}")),
    );
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> =
        merges.iter().rev().map(|merge| seen.insert(merge.as_str())).collect();
    keep.reverse();
    let mut keep = keep.into_iter();
    merges.retain(|_| keep.next().unwrap_or_default());
    (merges, notes)
}

/// Merges with a part or a result that is not in the vocabulary.
pub(super) fn unknown(merges: &[String], known: impl Fn(&str) -> bool) -> Vec<String> {
    merges
        .iter()
        .filter(|merge| {
            let joined = merge.replacen(' ', "", 1);
            !(known(&joined) && merge.split(' ').all(&known))
        })
        .cloned()
        .collect()
}

/// Vocabulary and merges of `tokenizer.json`.
pub(super) fn fast(json: &TokenizerJson) -> Result<Base, TokenizerError> {
    let Tokens::Numbered(tokens) = &json.model.vocab else { return Ok(Base::default()) };
    let broken = |reason: String| TokenizerError::Broken { file: NAME, reason };
    let known: HashSet<&str> = tokens.iter().map(|(token, _)| token.as_str()).collect();
    let mut merges = Vec::with_capacity(json.model.merges.len());
    for merge in &json.model.merges {
        let (a, b) = merge
            .pair()
            .ok_or_else(|| broken(format!("{merge:?} is not a merge of two tokens")))?;
        if a.contains(' ') || b.contains(' ') {
            return Err(broken(format!(
                "the merge of {a:?} and {b:?} contains a space, which is not the symbol of any byte"
            )));
        }
        merges.push(format!("{a} {b}"));
    }
    if let Some(some) = some_of(&unknown(&merges, |token| known.contains(token))) {
        return Err(broken(format!(
            "its merges name tokens that its vocabulary does not contain: {some}"
        )));
    }
    Ok(Base {
        merges: Some(merges),
        ..Base::of(tokens.iter().map(|(token, id)| (*id, token.clone())).collect())
    })
}

/// Whether a vocabulary has a token for each byte, so that no text is unknown.
pub(super) fn has_all_bytes(tokens: &[String]) -> bool {
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut buffer = [0; 4];
    byte_symbols().all(|symbol| known.contains(&*symbol.encode_utf8(&mut buffer)))
}

/// Notes on the steps before the merges that Elasticsearch approximates.
pub(super) fn notes_of_steps(json: &TokenizerJson) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(WordSplit::Similar(model)) = json.word_split() {
        notes.push(format!(
            "the tokenizer splits words with the expression of {model}, but Elasticsearch always splits them with that of GPT-2, so texts are tokenized differently, mostly at punctuation inside of words"
        ));
    }
    if json.composes() {
        notes.push(
            "the tokenizer composes characters (NFC), but Elasticsearch does not, so texts with decomposed characters are tokenized differently"
                .into(),
        );
    }
    notes
}

/// Whether texts are treated as if they started with a space. `tokenizer_config.json` decides, and `tokenizer.json` only if the step is
/// one of several, which Transformers does not change.
pub(super) fn add_prefix_space(
    reader: &Reader<'_>,
    by_content: bool,
    warnings: &mut Vec<String>,
) -> bool {
    if let Some(add) = reader.json.filter(|json| by_content && json.has_several_splitters()) {
        return add.add_prefix_space().unwrap_or(false);
    }
    let add = reader.config.add_prefix_space.unwrap_or(false);
    if let Some(other) =
        reader.json.and_then(TokenizerJson::add_prefix_space).filter(|&other| other != add)
    {
        warnings.push(format!(
            "tokenizer.json has add_prefix_space {other}, but Transformers reads the setting from tokenizer_config.json (default false), so {add} is uploaded"
        ));
    }
    add
}

/// Different merges with the same result, which the server cannot distinguish. Files converted from SentencePiece list all merges to a
/// token one after another, where the rank of the last one is in the same order with the ranks of other tokens.
pub(super) fn ambiguous(merges: &[String]) -> Vec<String> {
    let mut by_result: HashMap<String, (usize, &str)> = HashMap::new();
    let mut ambiguous = Vec::new();
    for (rank, merge) in merges.iter().enumerate() {
        let earlier = by_result.insert(merge.replacen(' ', "", 1), (rank, merge));
        if let Some((_, other)) = earlier.filter(|(other, _)| other + 1 < rank) {
            ambiguous.push(format!("{other:?} and {merge:?}"));
        }
    }
    ambiguous
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_ranks_match_python() {
        let (merges, notes) = ranked("#version: 0.2\na b\nc d\na b\n\nab cd\n");
        assert_eq!(merges, ["c d", "a b", "ab cd"]);
        assert!(notes.is_empty());
        let (merges, notes) = ranked("a b\nc d\nabc\ne f");
        assert_eq!(merges, ["c d"]);
        assert_eq!(notes.len(), 3);
        assert!(ranked("").0.is_empty());
    }

    #[test]
    fn merges_to_the_same_token_are_detected() {
        let merges = ["a bc", "d e", "ab c", "f gh", "fg h"].map(str::to_owned);
        assert_eq!(ambiguous(&merges), [r#""a bc" and "ab c""#]);
    }
}
