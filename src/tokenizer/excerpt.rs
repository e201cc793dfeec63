//! `tokenizer.json` without the pieces that some texts do not need.
//!
//! The library builds a trie with a hash table for each byte, which takes seconds and hundreds of megabytes for the 250,000 pieces of a
//! multilingual vocabulary. A Unigram model only uses pieces that occur in the text, so the other pieces have no effect on its tokens.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenizers::models::unigram::Unigram;
use tokenizers::{
    AddedToken, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizer,
    PreTokenizerWrapper, Tokenizer as Library,
};

/// The file of a Unigram tokenizer.
#[derive(Deserialize, Serialize)]
struct File {
    model: Model,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize, Serialize)]
struct Model {
    /// Pieces with their scores, ordered by id.
    vocab: Vec<(String, f64)>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The longest runs of characters that are looked up.
const CHARACTERS: usize = 3;

/// Runs of at most [`CHARACTERS`] characters in texts.
struct Runs(HashSet<String>);

impl Runs {
    fn of(texts: impl IntoIterator<Item = String>) -> Self {
        let mut runs = HashSet::new();
        for text in texts {
            let characters: Vec<char> = text.chars().collect();
            for length in 1..=CHARACTERS {
                runs.extend(characters.windows(length).map(String::from_iter));
            }
        }
        Self(runs)
    }

    /// Whether each run of a piece occurs, as it does if the piece occurs.
    fn may_contain(&self, piece: &str) -> bool {
        let characters: Vec<char> = piece.chars().collect();
        let mut windows = characters.windows(characters.len().clamp(1, CHARACTERS));
        windows.all(|window| self.0.contains(&String::from_iter(window)))
    }
}

/// A file with which the library returns the same ids for `texts`. `None` if the file has no Unigram vocabulary, or cannot be parsed. The
/// library must be able to read the file's SentencePiece table.
///
/// Removed pieces become empty, so that the others keep their ids and the lowest score remains the same.
pub(super) fn excerpt(json: &[u8], texts: &[&str]) -> Option<Vec<u8>> {
    let mut file: File = serde_json::from_slice(json).ok()?;
    let library = without_pieces(&file.rest)?;
    let mut inputs = Vec::new();
    for text in texts {
        inputs.extend(inputs_of_model(&library, text)?);
    }
    let runs = Runs::of(inputs);
    let added = file.rest.get("added_tokens").and_then(Value::as_array);
    let added: HashSet<&str> =
        added.into_iter().flatten().filter_map(|token| token.get("content")?.as_str()).collect();
    let unknown = file.model.rest.get("unk_id").and_then(Value::as_u64);
    for (id, (piece, _)) in (0..).zip(&mut file.model.vocab) {
        let is_byte = piece.starts_with("<0x");
        if !(runs.may_contain(piece)
            || is_byte
            || unknown == Some(id)
            || added.contains(piece.as_str()))
        {
            *piece = String::new();
        }
    }
    serde_json::to_vec(&file).ok()
}

/// The tokenizer with its steps before the model.
fn without_pieces(rest: &Map<String, Value>) -> Option<Library> {
    let part = |name| rest.get(name).filter(|it| !it.is_null());
    let mut library = Library::new(Unigram::default());
    if let Some(normalizer) = part("normalizer") {
        library.with_normalizer(Some(NormalizerWrapper::deserialize(normalizer).ok()?));
    }
    if let Some(splitter) = part("pre_tokenizer") {
        library.with_pre_tokenizer(Some(PreTokenizerWrapper::deserialize(splitter).ok()?));
    }
    if let Some(added) = part("added_tokens") {
        let added = Vec::<AddedToken>::deserialize(added).ok()?;
        library.add_tokens(&added);
    }
    Some(library)
}

/// The strings that a model receives for a text.
fn inputs_of_model(library: &Library, text: &str) -> Option<Vec<String>> {
    let added = library.get_added_vocabulary();
    let mut pieces = added.extract_and_normalize(library.get_normalizer(), text);
    if let Some(splitter) = library.get_pre_tokenizer() {
        splitter.pre_tokenize(&mut pieces).ok()?;
    }
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Some(splits.into_iter().map(|(input, ..)| input.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Vec<u8> {
        let vocabulary = json!([
            ["<unk>", 0.0],
            ["▁", -2.0],
            ["▁one", -3.0],
            ["one", -3.5],
            ["▁two", -3.0],
            ["no", -4.0],
            ["e", -5.0],
            ["<0x41>", -9.0],
            ["zzz", -30.25],
        ]);
        let json = json!({
            "added_tokens": [{"id": 9, "content": "<mask>", "special": true, "single_word": false, "lstrip": true, "rstrip": false,
                              "normalized": false}],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": vocabulary},
        });
        json.to_string().into_bytes()
    }

    fn ids(json: &[u8], text: &str) -> Vec<u32> {
        Library::from_bytes(json).unwrap().encode(text, false).unwrap().get_ids().to_vec()
    }

    #[test]
    fn excerpt_returns_the_same_ids_and_is_smaller() {
        let texts = ["ONE none", "one <mask> A", "B"];
        let full = file();
        let excerpt = excerpt(&full, &texts).unwrap();
        for text in texts {
            assert_eq!(ids(&excerpt, text), ids(&full, text), "{text}");
        }
        let file: File = serde_json::from_slice(&excerpt).unwrap();
        let pieces: Vec<_> = file.model.vocab.iter().map(|(piece, _)| piece.as_str()).collect();
        assert_eq!(pieces, ["<unk>", "▁", "▁one", "one", "", "no", "e", "<0x41>", ""]);
        assert_eq!(file.model.vocab.last().unwrap().1, -30.25);
    }

    #[test]
    fn other_models_have_no_excerpt() {
        assert_eq!(
            excerpt(br#"{"model": {"type": "WordPiece", "vocab": {"a": 0}}}"#, &["a"]),
            None
        );
        assert_eq!(excerpt(b"{", &["a"]), None);
    }
}
