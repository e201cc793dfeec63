//! The tokenizer of a `tokenizer.json` without the pieces that some texts do not need.
//!
//! The library builds a trie with a hash table for each byte, which takes seconds and hundreds of megabytes for the 250,000 pieces of a
//! multilingual vocabulary. A Unigram model only uses pieces that occur in the text, so the other pieces have no effect on its tokens.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::unigram::Unigram;
use tokenizers::{
    AddedToken, NormalizerWrapper, OffsetReferential, OffsetType, PostProcessorWrapper,
    PreTokenizer, PreTokenizerWrapper, Tokenizer as Library,
};

/// The file of a Unigram tokenizer.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    /// Pieces with their scores, ordered by id.
    vocab: Vec<(String, f64)>,
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
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

/// A tokenizer that returns the same ids for `texts`, without truncation. `None` if the file has no Unigram vocabulary, or cannot be
/// parsed. The library must be able to read the file's SentencePiece table.
///
/// Removed pieces become empty, so that the others keep their ids and the lowest score remains the same.
pub(super) fn excerpt(json: &[u8], texts: &[&str]) -> Option<Library> {
    let File { model, rest } = serde_json::from_slice(json).ok()?;
    let Model { kind, mut vocab, unk_id, byte_fallback } = model;
    if kind != "Unigram" {
        return None;
    }
    let library = library(&rest, Unigram::default())?;
    let mut inputs = Vec::new();
    for text in texts {
        inputs.extend(inputs_of_model(&library, text)?);
    }
    let runs = Runs::of(inputs);
    let added = library.get_added_vocabulary().get_vocab();
    for (id, (piece, _)) in vocab.iter_mut().enumerate() {
        let is_byte = piece.starts_with("<0x");
        if !(runs.may_contain(piece) || is_byte || unk_id == Some(id) || added.contains_key(piece))
        {
            *piece = String::new();
        }
    }
    self::library(&rest, Unigram::from(vocab, unk_id, byte_fallback).ok()?)
}

/// A tokenizer with the steps of a file before and after the model.
fn library(rest: &Map<String, Value>, model: Unigram) -> Option<Library> {
    let part = |name| rest.get(name).filter(|it| !it.is_null());
    let mut library = Library::new(model);
    if let Some(normalizer) = part("normalizer") {
        library.with_normalizer(Some(NormalizerWrapper::deserialize(normalizer).ok()?));
    }
    if let Some(splitter) = part("pre_tokenizer") {
        library.with_pre_tokenizer(Some(PreTokenizerWrapper::deserialize(splitter).ok()?));
    }
    if let Some(adder) = part("post_processor") {
        library.with_post_processor(Some(PostProcessorWrapper::deserialize(adder).ok()?));
    }
    if let Some(added) = part("added_tokens") {
        library.add_tokens(&Vec::<AddedToken>::deserialize(added).ok()?);
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
    use tokenizers::ModelWrapper;

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
            "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<unk>", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": {"<unk>": {"id": "<unk>", "ids": [0], "tokens": ["<unk>"]}}},
            "decoder": null,
            "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": vocabulary},
        });
        json.to_string().into_bytes()
    }

    fn ids(library: &Library, text: &str) -> Vec<u32> {
        library.encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn excerpt_returns_the_same_ids_with_fewer_pieces() {
        let texts = ["ONE none", "one <mask> A", "B"];
        let full = Library::from_bytes(file()).unwrap();
        let excerpt = excerpt(&file(), &texts).unwrap();
        for text in texts {
            assert_eq!(ids(&excerpt, text), ids(&full, text), "{text}");
        }
        let pieces: Vec<_> = (0..9).map(|id| excerpt.id_to_token(id).unwrap()).collect();
        assert_eq!(pieces, ["<unk>", "▁", "▁one", "one", "", "no", "e", "<0x41>", ""]);
        let ModelWrapper::Unigram(model) = excerpt.get_model() else { panic!() };
        assert_eq!(model.iter().last().unwrap().1, -30.25);
    }

    #[test]
    fn other_models_have_no_excerpt() {
        let word_piece = br#"{"model": {"type": "WordPiece", "vocab": {"a": 0}}}"#;
        assert!(excerpt(word_piece, &["a"]).is_none());
        assert!(excerpt(b"{", &["a"]).is_none());
    }
}
