//! WordPiece vocabularies: `vocab.txt`, otherwise `tokenizer.json` (`BertTokenizer` in Transformers and similar classes,
//! `MPNetTokenizer`).

use super::Reader;
use super::tokenizer_json::{TokenizerJson, Tokens};
use super::{Base, TokenizerError};

/// File of the slow tokenizers.
pub(super) const VOCABULARY: &str = "vocab.txt";

/// Reads `vocab.txt`, if the file exists.
pub(super) fn slow(reader: &Reader<'_>) -> Result<Option<Base>, TokenizerError> {
    let Some(text) = reader.files.text(VOCABULARY)? else { return Ok(None) };
    let tokens: Vec<_> = lines(&text).enumerate().collect();
    if tokens.is_empty() {
        return Err(TokenizerError::Empty(VOCABULARY));
    }
    Ok(Some(Base::of(tokens)))
}

/// Vocabulary of `tokenizer.json`.
pub(super) fn fast(json: &TokenizerJson) -> Result<Base, TokenizerError> {
    if !json.has_bert_s_prefix() {
        return Err(TokenizerError::Unsupported(
            "in tokenizer.json, WordPiece without the mark ## for inner pieces".into(),
        ));
    }
    let Tokens::Numbered(tokens) = &json.model.vocab else { return Ok(Base::default()) };
    Ok(Base::of(tokens.iter().map(|(token, id)| (*id, token.clone())).collect()))
}

/// Whether text is lower-cased, with warnings for differences from the server. A class of Transformers uses
/// `tokenizer_config.json` and its defaults and ignores `tokenizer.json`. Without a class, only `tokenizer.json` counts.
pub(super) fn do_lower_case(
    reader: &Reader<'_>,
    by_content: bool,
    warnings: &mut Vec<String>,
) -> bool {
    let config = reader.config;
    let normalization = reader.json.map(TokenizerJson::normalization);
    let (lower_case, strip_accents, split_chinese) = match &normalization {
        Some(json) if by_content => (json.lowercase, json.strip_accents, json.split_chinese),
        _ => (
            config.do_lower_case.unwrap_or(true),
            config.strip_accents,
            config.tokenize_chinese_chars.unwrap_or(true),
        ),
    };
    if let Some(json) = normalization.filter(|json| json.lowercase != lower_case) {
        warnings.push(format!(
            "the normalizer in tokenizer.json has lowercase {}, but Transformers reads do_lower_case from tokenizer_config.json (default true), so {lower_case} is uploaded",
            json.lowercase
        ));
    } else if let Some(asked) = config.do_lower_case.filter(|&asked| asked != lower_case) {
        warnings.push(format!(
            "tokenizer_config.json has do_lower_case {asked}, but Transformers reads the setting of this class from tokenizer.json, so {lower_case} is uploaded"
        ));
    }
    if let Some(strip_accents) = strip_accents.filter(|&strip| strip != lower_case) {
        warnings.push(format!(
            "the tokenizer has strip_accents {strip_accents} with do_lower_case {lower_case}; Elasticsearch removes accents exactly if it lower-cases text, so words with accents will be tokenized differently"
        ));
    }
    if !split_chinese {
        warnings.push(
            "the tokenizer keeps Chinese characters together, but Elasticsearch always separates them, so texts with them will be tokenized differently"
                .into(),
        );
    }
    if config.do_basic_tokenize == Some(false) {
        warnings.push(
            "the tokenizer does not split words at punctuation (do_basic_tokenize false); Elasticsearch always does".into(),
        );
    }
    if config.never_split.as_ref().is_some_and(|words| !words.is_empty()) {
        warnings.push("the tokenizer has words that it never splits (never_split); Elasticsearch has no such setting".into());
    }
    if by_content && reader.json.is_some_and(|json| !json.has_bert_s_words()) {
        warnings.push(
            "tokenizer.json does not split words as BERT does (BertPreTokenizer), but Elasticsearch does, so some texts will be tokenized differently"
                .into(),
        );
    }
    lower_case
}

/// Lines of a text file as in Python's text mode, which end with \n, \r\n or \r.
pub(super) fn lines(text: &str) -> impl Iterator<Item = String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let lines: Vec<String> =
        if text.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() };
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_match_python() {
        let read = |text| lines(text).collect::<Vec<_>>();
        assert_eq!(read("a\r\nb\rc\n"), ["a", "b", "c"]);
        assert_eq!(read("a\n\nb"), ["a", "", "b"]);
        assert_eq!(read("a \u{2028}\n"), ["a \u{2028}"]);
        assert!(read("").is_empty() && read("\n").is_empty());
    }
}
