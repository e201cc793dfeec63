//! Japanese text (`BertJapaneseTokenizer` in Transformers): it is segmented into words, which are split into pieces or characters.

use super::{Reader, TokenizerError, TokenizerKind};

/// Chooses the server's settings, with warnings for differences.
pub(super) fn kind(
    reader: &Reader<'_>,
    warnings: &mut Vec<String>,
) -> Result<TokenizerKind, TokenizerError> {
    let config = reader.config;
    let unsupported =
        |what: String| Err(TokenizerError::Unsupported(format!("BertJapaneseTokenizer {what}")));
    match config.subword_tokenizer_type.as_deref().unwrap_or("wordpiece") {
        "wordpiece" => (),
        "character" => warnings.push(
            "the tokenizer splits words into single characters, but Elasticsearch runs WordPiece on words: a word of several characters becomes [UNK] unless the vocabulary contains its later characters with the prefix ##"
                .into(),
        ),
        other => return unsupported(format!("with subword_tokenizer_type {other}")),
    }
    if config.do_word_tokenize == Some(false) {
        return unsupported("without segmentation into words (do_word_tokenize false)".into());
    }
    match config.word_tokenizer_type.as_deref().unwrap_or("basic") {
        "mecab" => {
            warnings.push(
                "Elasticsearch segments Japanese text with Kuromoji (IPADIC, search mode), not with the MeCab dictionary of the \
                 tokenizer, so some words will be split differently"
                    .into(),
            );
            if config.do_lower_case == Some(true) {
                warnings.push(
                    "with do_lower_case, Elasticsearch also removes accents, including the voicing marks of kana (が becomes か)".into(),
                );
            }
            Ok(TokenizerKind::BertJapanese)
        }
        "basic" => {
            warnings.push(
                "the tokenizer splits words at white space and keeps Chinese characters together, but Elasticsearch always separates Chinese characters, so texts with them will be tokenized differently"
                    .into(),
            );
            Ok(TokenizerKind::Bert)
        }
        other => unsupported(format!("with word_tokenizer_type {other}")),
    }
}
