//! `tokenizer.json`, the file of the tokenizers library, parsed as data.
//!
//! The library does not expose merges and scores. It also builds tries and regular expressions from the file, which would be costly
//! for a hostile file. This module only parses.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::TokenizerError;
use crate::source::ModelFiles;

/// Name of the file.
pub(super) const NAME: &str = "tokenizer.json";

/// Number of characters of an expression that a message shows.
const SHOWN: usize = 60;

/// Algorithm that splits words into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    WordPiece,
    Bpe,
    Unigram,
    /// `WordLevel`, which Elasticsearch does not have.
    Other,
}

/// Content of the file.
#[derive(Debug, Deserialize)]
pub(super) struct TokenizerJson {
    /// Added tokens, in the order of the file.
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    pub(super) model: Model,
}

#[derive(Debug, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: usize,
    pub(super) content: String,
    /// Whether the token is found only as a whole word.
    #[serde(default)]
    pub(super) single_word: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type")]
    name: Option<String>,
    pub(super) vocab: Tokens,
    #[serde(default)]
    pub(super) merges: Vec<Merge>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<u64>,
    unk_token: Option<String>,
    unk_id: Option<usize>,
    /// Whether characters outside the vocabulary become bytes.
    #[serde(default)]
    pub(super) byte_fallback: bool,
}

/// Tokens of the model.
#[derive(Debug)]
pub(super) enum Tokens {
    /// Tokens with ids.
    Numbered(Vec<(String, usize)>),
    /// Tokens with scores, ordered by id.
    Scored(Vec<(String, f64)>),
}

/// Two tokens that are merged. Old files contain a line of `merges.txt` instead.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    /// The two tokens.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Pair(a, b) => Some((a, b)),
        }
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with ids, or a list of tokens with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tokens.push(entry);
                }
                Ok(Tokens::Numbered(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    tokens.push(entry);
                }
                Ok(Tokens::Scored(tokens))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Changes of a text before it is split into words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Normalization {
    pub(super) lowercase: bool,
    /// `None` if accents are removed exactly if text is lower-cased.
    pub(super) strip_accents: Option<bool>,
    pub(super) split_chinese: bool,
    /// Whether a SentencePiece table is applied.
    pub(super) charsmap: bool,
}

/// Tokens that are inserted before and after a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Template<'a> {
    pub(super) first: Option<&'a str>,
    pub(super) last: Option<&'a str>,
}

/// How a byte-level BPE model splits a text into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordSplit<'a> {
    /// With GPT-2's expression, which Elasticsearch implements.
    Gpt2,
    /// With the expression of the named model, whose words are similar to GPT-2's.
    Similar(&'static str),
    /// With another expression, or in several steps.
    Other(&'a str),
}

/// The expressions that split words, with their models. Elasticsearch approximates all of them with the first.
const EXPRESSIONS: [(&str, WordSplit<'static>); 3] = [
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        WordSplit::Gpt2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordSplit::Similar("Llama 3"),
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        WordSplit::Similar("Qwen 2"),
    ),
];

impl TokenizerJson {
    /// Parses the file, if it exists.
    pub(super) fn read(files: &ModelFiles) -> Result<Option<Self>, TokenizerError> {
        let Some(bytes) = super::bytes(files, NAME)? else { return Ok(None) };
        Self::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let broken = |reason: String| TokenizerError::Broken { file: NAME, reason };
        let json: Self =
            serde_json::from_slice(without_mark(bytes)).map_err(|e| broken(e.to_string()))?;
        match (json.algorithm(), &json.model.vocab) {
            (Algorithm::Unigram, Tokens::Numbered(_))
            | (Algorithm::WordPiece | Algorithm::Bpe, Tokens::Scored(_)) => Err(broken(
                "its vocabulary does not have the form that its model type requires".into(),
            )),
            _ => Ok(json),
        }
    }

    /// Algorithm of the model. Old files do not name it, so it is recognized by their content.
    pub(super) fn algorithm(&self) -> Algorithm {
        let model = &self.model;
        match model.name.as_deref() {
            Some("WordPiece") => Algorithm::WordPiece,
            Some("BPE") => Algorithm::Bpe,
            Some("Unigram") => Algorithm::Unigram,
            Some(_) => Algorithm::Other,
            None if matches!(model.vocab, Tokens::Scored(_)) => Algorithm::Unigram,
            None if !model.merges.is_empty() => Algorithm::Bpe,
            None if model.max_input_chars_per_word.is_some() => Algorithm::WordPiece,
            None => Algorithm::Other,
        }
    }

    /// Whether a token is in the vocabulary.
    pub(super) fn has(&self, token: &str) -> bool {
        self.added_tokens.iter().any(|added| added.content == token)
            || match &self.model.vocab {
                Tokens::Numbered(tokens) => tokens.iter().any(|(other, _)| other == token),
                Tokens::Scored(tokens) => tokens.iter().any(|(other, _)| other == token),
            }
    }

    /// Short description for messages.
    pub(super) fn describe(&self) -> String {
        let of = match self.algorithm() {
            Algorithm::WordPiece => "WordPiece",
            Algorithm::Bpe if self.is_byte_level() => "byte-level BPE",
            Algorithm::Bpe => match self.word_split() {
                Some(WordSplit::Other(expression)) => {
                    let shown: String = expression.chars().take(SHOWN).collect();
                    return format!(
                        "in tokenizer.json (byte-level BPE on words that Elasticsearch does not split in this way: {shown})"
                    );
                }
                _ => "BPE of another kind than RoBERTa's",
            },
            Algorithm::Unigram => "Unigram",
            Algorithm::Other => self.model.name.as_deref().unwrap_or("an unknown model"),
        };
        let around = self.template().map(|template| {
            let token = |token: Option<&str>| token.unwrap_or("nothing").to_owned();
            format!(
                " with {} before and {} after a text",
                token(template.first),
                token(template.last)
            )
        });
        format!("in tokenizer.json ({of}{})", around.unwrap_or_default())
    }

    /// Whether the model is GPT-2's BPE: over bytes, without marks at the ends of words, on words as GPT-2 splits them or similar ones.
    pub(super) fn is_byte_level(&self) -> bool {
        let marked = |mark: &Option<String>| mark.as_ref().is_some_and(|mark| !mark.is_empty());
        matches!(self.word_split(), Some(WordSplit::Gpt2 | WordSplit::Similar(_)))
            && !marked(&self.model.continuing_subword_prefix)
            && !marked(&self.model.end_of_word_suffix)
    }

    /// Whether the model is SentencePiece BPE as Gemma has: over characters, with bytes for those outside of the vocabulary, on whole
    /// texts whose spaces are replaced by `▁`.
    pub(super) fn is_sentencepiece_bpe(&self) -> bool {
        let text = |part: &Value, name: &str, key: &str| {
            part.get(name)?.get(key).and_then(Value::as_str).map(str::to_owned)
        };
        let is_space = |part: &Value| text(part, "pattern", "String").as_deref() == Some(" ");
        let normalizers = parts(&self.normalizer, "normalizers");
        let replaces_spaces = match normalizers.as_slice() {
            [part] => {
                is(part, "Replace")
                    && is_space(part)
                    && part.get("content").and_then(Value::as_str) == Some("▁")
            }
            _ => false,
        };
        // No spaces are left for this step.
        let splits_at_spaces =
            |part: &&Value| part.is_null() || is(part, "Split") && is_space(part);
        self.algorithm() == Algorithm::Bpe
            && self.model.byte_fallback
            && replaces_spaces
            && parts(&self.pre_tokenizer, "pretokenizers").iter().all(splits_at_spaces)
    }

    /// How a byte-level model splits words; `None` for other models.
    pub(super) fn word_split(&self) -> Option<WordSplit<'_>> {
        let parts = parts(&self.pre_tokenizer, "pretokenizers");
        let bytes = parts.iter().find(|part| is(part, "ByteLevel"))?;
        let uses_gpt2 = bytes.get("use_regex") != Some(&Value::Bool(false));
        let mut splits = parts.iter().filter(|part| is(part, "Split"));
        Some(match (splits.next(), splits.next(), uses_gpt2) {
            (None, _, true) => WordSplit::Gpt2,
            (None, _, false) => WordSplit::Other("whole texts"),
            (Some(split), None, false) => {
                match split.get("pattern").and_then(|it| it.get("Regex")).and_then(Value::as_str) {
                    Some(expression) => EXPRESSIONS
                        .iter()
                        .find(|(known, _)| *known == expression)
                        .map_or(WordSplit::Other(expression), |(_, split)| *split),
                    None => WordSplit::Other("Split"),
                }
            }
            _ => WordSplit::Other("several steps"),
        })
    }

    /// The token for text outside of the vocabulary, if the model has one.
    pub(super) fn unknown(&self) -> Option<&str> {
        match (&self.model.vocab, self.model.unk_id) {
            (Tokens::Scored(tokens), Some(id)) => tokens.get(id).map(|(token, _)| token.as_str()),
            _ => self.model.unk_token.as_deref(),
        }
    }

    /// The token that fills short rows, if the file names one.
    pub(super) fn pad(&self) -> Option<&str> {
        self.padding.get("pad_token")?.as_str()
    }

    /// Whether texts are composed to NFC.
    pub(super) fn composes(&self) -> bool {
        parts(&self.normalizer, "normalizers").iter().any(|part| is(part, "NFC"))
    }

    /// Whether a WordPiece model marks inner pieces of words as BERT does.
    pub(super) fn has_bert_s_prefix(&self) -> bool {
        self.model.continuing_subword_prefix.as_deref().is_none_or(|prefix| prefix == "##")
    }

    /// Whether words are split as in BERT: at white space and punctuation.
    pub(super) fn has_bert_s_words(&self) -> bool {
        parts(&self.pre_tokenizer, "pretokenizers").iter().any(|part| is(part, "BertPreTokenizer"))
    }

    /// Whether the file has the steps that Elasticsearch's tokenizer of this algorithm always takes.
    pub(super) fn has_steps_of_the_server(&self) -> bool {
        match self.algorithm() {
            Algorithm::WordPiece => self.has_bert_s_words(),
            Algorithm::Unigram => {
                let Normalization { charsmap, lowercase, .. } = self.normalization();
                charsmap && !lowercase
            }
            Algorithm::Bpe | Algorithm::Other => true,
        }
    }

    /// Whether a text is treated as if it started with a space; `None` if the file does not define this.
    pub(super) fn add_prefix_space(&self) -> Option<bool> {
        parts(&self.pre_tokenizer, "pretokenizers")
            .iter()
            .find(|part| is(part, "ByteLevel"))?
            .get("add_prefix_space")?
            .as_bool()
    }

    /// Whether several steps split a text into words.
    pub(super) fn has_several_splitters(&self) -> bool {
        self.pre_tokenizer.get("pretokenizers").is_some()
    }

    /// Changes of a text before it is split into words.
    pub(super) fn normalization(&self) -> Normalization {
        let mut all = Normalization::default();
        for part in parts(&self.normalizer, "normalizers") {
            let flag = |name: &str| part.get(name).and_then(Value::as_bool);
            match part.get("type").and_then(Value::as_str) {
                Some("BertNormalizer") => {
                    all.lowercase |= flag("lowercase").unwrap_or(true);
                    all.strip_accents = all.strip_accents.or(flag("strip_accents"));
                    all.split_chinese |= flag("handle_chinese_chars").unwrap_or(true);
                }
                Some("Lowercase") => all.lowercase = true,
                Some("StripAccents") => all.strip_accents = Some(true),
                Some("Precompiled") => all.charsmap = true,
                _ => (),
            }
        }
        // Only in BertNormalizer does `strip_accents` depend on `lowercase`.
        let coupled =
            parts(&self.normalizer, "normalizers").iter().any(|part| is(part, "BertNormalizer"));
        all.strip_accents = all.strip_accents.or((!coupled).then_some(false));
        all
    }

    /// The steps before the algorithm that Elasticsearch's tokenizer does not have, by their names. Those with a warning of their own
    /// are left out.
    pub(super) fn unusual_steps(&self) -> Vec<&str> {
        let known: &[&str] = match self.algorithm() {
            Algorithm::WordPiece => {
                &["BertNormalizer", "Lowercase", "StripAccents", "BertPreTokenizer"]
            }
            // Split and NFC have warnings of their own.
            Algorithm::Bpe => &["ByteLevel", "Split", "NFC"],
            Algorithm::Unigram => &[
                "Precompiled",
                "Nmt",
                "NFKC",
                "Strip",
                "Lowercase",
                "Metaspace",
                "WhitespaceSplit",
                "Punctuation",
            ],
            Algorithm::Other => &[],
        };
        let strips = self.normalization().strip_accents == Some(true);
        let is_usual = |part: &&Value| {
            let decomposes = strips && (is(part, "NFD") || is(part, "NFKD"));
            // XLM-R's step for runs of spaces, which is part of SentencePiece.
            let joins_spaces = self.algorithm() == Algorithm::Unigram
                && is(part, "Replace")
                && part.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str())
                    == Some(" {2,}");
            decomposes || joins_spaces || known.iter().any(|name| is(part, name))
        };
        if self.is_sentencepiece_bpe() {
            return Vec::new();
        }
        let normalizers = parts(&self.normalizer, "normalizers");
        let splitters = parts(&self.pre_tokenizer, "pretokenizers");
        let all = normalizers.into_iter().chain(splitters);
        all.filter(|part| !is_usual(part)).filter_map(|part| part.get("type")?.as_str()).collect()
    }

    /// The component that inserts special tokens.
    pub(super) fn post_processor(&self) -> &Value {
        &self.post_processor
    }

    /// Whether the file truncates long texts at the beginning.
    pub(super) fn truncates_left(&self) -> bool {
        self.truncation.get("direction").and_then(Value::as_str) == Some("Left")
    }

    /// Number of tokens to which the file truncates texts, if it does.
    pub(super) fn truncates_to(&self) -> Option<u32> {
        let length = self.truncation.get("max_length")?.as_u64()?;
        u32::try_from(length).ok().filter(|length| *length > 0)
    }

    /// Tokens that are inserted before and after a single text; `None` if there are none.
    pub(super) fn template(&self) -> Option<Template<'_>> {
        parts(&self.post_processor, "processors").into_iter().find_map(|part| {
            let token = |name: &str| part.get(name)?.get(0)?.as_str();
            if let (Some(first), Some(last)) = (token("cls"), token("sep")) {
                return Some(Template { first: Some(first), last: Some(last) });
            }
            let single = part.get("single")?.as_array()?;
            Some(Template {
                first: single.first().and_then(special_token),
                last: single.last().and_then(special_token),
            })
        })
    }
}

/// The file without the byte order mark.
pub(super) fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

fn special_token(piece: &Value) -> Option<&str> {
    piece.get("SpecialToken")?.get("id")?.as_str()
}

pub(super) fn is(part: &Value, name: &str) -> bool {
    part.get("type").and_then(Value::as_str) == Some(name)
}

/// Components of a `Sequence`, or the component itself. `within` is the name of the list.
pub(super) fn parts<'a>(value: &'a Value, within: &str) -> Vec<&'a Value> {
    let mut parts = Vec::new();
    // The parser limits the depth, so the loop ends.
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value.get(within).and_then(Value::as_array) {
            Some(list) => rest.extend(list.iter().rev()),
            None => parts.push(value),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> TokenizerJson {
        TokenizerJson::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn sequence_of_normalizers_is_parsed() {
        let json = json(
            r#"{"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Sequence",
                "normalizers": [{"type": "Lowercase"}, {"type": "StripAccents"}]}]},
                "model": {"type": "WordPiece", "vocab": {"a": 0}}}"#,
        );
        let wanted = Normalization {
            lowercase: true,
            strip_accents: Some(true),
            ..Normalization::default()
        };
        assert_eq!(json.normalization(), wanted);
    }

    #[test]
    fn algorithm_of_old_files_is_recognized() {
        let algorithm = |model: &str| json(&format!(r#"{{"model": {model}}}"#)).algorithm();
        assert_eq!(algorithm(r#"{"vocab": [["a", -1.5]], "unk_id": 0}"#), Algorithm::Unigram);
        assert_eq!(algorithm(r#"{"vocab": {"a": 0}, "merges": ["a b"]}"#), Algorithm::Bpe);
        assert_eq!(
            algorithm(r#"{"vocab": {"a": 0}, "max_input_chars_per_word": 100}"#),
            Algorithm::WordPiece
        );
    }

    #[test]
    fn merges_are_lines_or_pairs() {
        let json = json(
            r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b", ["c", "d e"]]}}"#,
        );
        let pairs: Vec<_> = json.model.merges.iter().filter_map(Merge::pair).collect();
        assert_eq!(pairs, [("a", "b"), ("c", "d e")]);
    }
}
