//! WordPiece vocabularies: `vocab.txt`, else `tokenizer.json` (`BertTokenizer` in Transformers and the classes that inherit from it).

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::models::ModelWrapper;

use super::{TokenizerError, in_order};
use crate::config::TokenizerConfig;
use crate::source::ModelFiles;

/// The classes in Transformers that tokenize as BERT does, without the suffix Fast. PreTrainedTokenizer is what a bare tokenizer.json
/// is saved under; its content decides.
pub(super) const CLASSES: &[&str] = &[
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
    "RetriBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "PreTrainedTokenizer",
];

/// More ids than any vocabulary has.
const MAX_TOKENS: usize = 1 << 24;

pub(super) struct WordPiece {
    pub(super) tokens: Vec<String>,
    pub(super) do_lower_case: bool,
    pub(super) warnings: Vec<String>,
}

/// What `tokenizer.json`'s `BertNormalizer` says.
#[derive(Debug, Default, Deserialize)]
struct Normalizer {
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    handle_chinese_chars: Option<bool>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    normalizer: Option<Normalizer>,
}

pub(super) fn read(
    files: &ModelFiles,
    config: &TokenizerConfig,
) -> Result<WordPiece, TokenizerError> {
    let (mut by_id, normalizer) = if let Some(text) = files.text("vocab.txt")? {
        (lines(&text).enumerate().collect(), Normalizer::default())
    } else if let Some(text) = files.text("tokenizer.json")? {
        (tokenizer_json(&text)?, bert_normalizer(&text)?)
    } else {
        let advice = "one of them holds the vocabulary; fetch the tokenizer files too";
        return Err(files.missing("vocab.txt and no tokenizer.json", advice).into());
    };
    if by_id.is_empty() {
        let name = if files.find("vocab.txt")?.is_some() { "vocab.txt" } else { "tokenizer.json" };
        return Err(TokenizerError::Empty(name));
    }
    for (id, token) in added_tokens(files, config)? {
        by_id.entry(id).or_insert(token);
    }

    // BertTokenizer lower-cases unless told otherwise.
    let do_lower_case = config.do_lower_case.or(normalizer.lowercase).unwrap_or(true);
    let strip_accents = config.strip_accents.or(normalizer.strip_accents);
    let chinese = config.tokenize_chinese_chars.or(normalizer.handle_chinese_chars);
    let mut warnings = Vec::new();
    if let Some(strip_accents) = strip_accents.filter(|&strip| strip != do_lower_case) {
        warnings.push(format!(
            "the tokenizer has strip_accents {strip_accents} with do_lower_case {do_lower_case}; Elasticsearch strips accents \
             just when it lower-cases, so words with accents will be tokenized differently"
        ));
    }
    if chinese == Some(false) {
        warnings.push(
            "the tokenizer keeps Chinese characters together; Elasticsearch always splits them, so such text will be tokenized \
             differently"
                .into(),
        );
    }
    Ok(WordPiece { tokens: in_order(by_id), do_lower_case, warnings })
}

/// The lines of `vocab.txt` as Python's text mode sees them: ended by \n, \r\n or \r.
fn lines(text: &str) -> impl Iterator<Item = String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let lines: Vec<String> =
        if text.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() };
    lines.into_iter()
}

fn tokenizer_json(text: &str) -> Result<BTreeMap<usize, String>, TokenizerError> {
    let tokenizer: tokenizers::Tokenizer = text
        .parse()
        .map_err(|e: tokenizers::Error| TokenizerError::TokenizerJson(e.to_string()))?;
    if !matches!(tokenizer.get_model(), ModelWrapper::WordPiece(_)) {
        return Err(TokenizerError::TokenizerJson("its model is not WordPiece".into()));
    }
    tokenizer.get_vocab(true).into_iter().map(|(token, id)| checked(id as usize, token)).collect()
}

fn bert_normalizer(text: &str) -> Result<Normalizer, TokenizerError> {
    serde_json::from_str::<TokenizerJson>(text)
        .map(|json| json.normalizer.unwrap_or_default())
        .map_err(|e| TokenizerError::TokenizerJson(e.to_string()))
}

/// Tokens added behind the vocabulary, from `tokenizer_config.json` and `added_tokens.json`.
fn added_tokens(
    files: &ModelFiles,
    config: &TokenizerConfig,
) -> Result<BTreeMap<usize, String>, TokenizerError> {
    let mut added = BTreeMap::new();
    for (id, token) in &config.added_tokens_decoder {
        let id = id.parse().map_err(|_| {
            TokenizerError::TokenizerJson(format!("added_tokens_decoder: {id:?} is not an id"))
        })?;
        added.extend([checked(id, token.content.clone())?]);
    }
    let old: BTreeMap<String, usize> = files.json("added_tokens.json")?.unwrap_or_default();
    for (token, id) in old {
        added.extend([checked(id, token)?]);
    }
    Ok(added)
}

fn checked(id: usize, token: String) -> Result<(usize, String), TokenizerError> {
    if id < MAX_TOKENS {
        Ok((id, token))
    } else {
        Err(TokenizerError::TokenizerJson(format!("the token {token:?} has the id {id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_in_python() {
        let read = |text| lines(text).collect::<Vec<_>>();
        assert_eq!(read("a\r\nb\rc\n"), ["a", "b", "c"]);
        assert_eq!(read("a\n\nb"), ["a", "", "b"]);
        assert_eq!(read("a \u{2028}\n"), ["a \u{2028}"]);
        assert!(read("").is_empty() && read("\n").is_empty());
    }
}
