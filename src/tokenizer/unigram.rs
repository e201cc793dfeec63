//! Unigram vocabularies with scores: a SentencePiece model, otherwise `tokenizer.json` (`XLMRobertaTokenizer`, `CamembertTokenizer`,
//! `T5Tokenizer`, `AlbertTokenizer` and `DebertaV2Tokenizer` in Transformers).

use super::class::Class;
use super::sentencepiece::SentencePieceModel;
use super::tokenizer_json::{NAME, TokenizerJson, Tokens};
use super::{Base, Reader, TokenizerError};

/// File names of SentencePiece models in repositories.
const FILES: [&str; 3] = ["sentencepiece.bpe.model", "spm.model", "spiece.model"];

/// File name that Transformers uses for a tokenizer class.
pub(super) fn own_file(class: Class) -> &'static str {
    let [fairseq, deberta, others] = FILES;
    match class {
        Class::DebertaV2 => deberta,
        Class::T5 | Class::Albert => others,
        _ => fairseq,
    }
}

/// Reads the SentencePiece model that Transformers would read, if the file exists.
pub(super) fn slow(reader: &Reader<'_>, class: Class) -> Result<Option<Base>, TokenizerError> {
    named(reader, class, own_file(class))
}

/// Reads the SentencePiece model under any of its names.
pub(super) fn by_any_name(
    reader: &Reader<'_>,
    class: Class,
) -> Result<Option<Base>, TokenizerError> {
    for name in FILES {
        if let Some(base) = named(reader, class, name)? {
            return Ok(Some(base));
        }
    }
    Ok(None)
}

fn named(
    reader: &Reader<'_>,
    class: Class,
    name: &'static str,
) -> Result<Option<Base>, TokenizerError> {
    let Some(bytes) = super::bytes(reader.files, name)? else { return Ok(None) };
    let model = SentencePieceModel::parse(name, &bytes)?;
    if model.algorithm() != "UNIGRAM" {
        return Err(TokenizerError::Unsupported(format!(
            "of {name}, SentencePiece's {} (Elasticsearch has Unigram only)",
            model.algorithm()
        )));
    }
    let pieces = model.pieces.iter().map(|piece| piece.text.clone());
    // Tokens that fairseq inserts before SentencePiece's ids, and the offset of these ids.
    let (tokens, offset) = match class {
        Class::XlmRoberta => {
            let first = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned);
            // SentencePiece's <unk>, <s> and </s> are replaced.
            let all = first.into_iter().chain(pieces.skip(3)).chain(["<mask>".to_owned()]);
            (all.enumerate().collect(), 1)
        }
        // The first five tokens are added tokens.
        Class::Camembert => (pieces.enumerate().map(|(id, piece)| (id + 4, piece)).collect(), 4),
        Class::T5 => {
            let count = reader.config.extra_ids().unwrap_or(EXTRA_IDS);
            let extra = (0..count).rev().map(|number| format!("<extra_id_{number}>"));
            (pieces.chain(extra).enumerate().collect(), 0)
        }
        _ => (pieces.enumerate().collect::<Vec<_>>(), 0),
    };
    let last = tokens.last().map_or(0, |(id, _)| *id);
    let mut scores: Vec<f64> = (0..=last)
        .map(|id| id.checked_sub(offset).and_then(|id| model.score(id)).unwrap_or(0.))
        .collect();
    if class == Class::Albert {
        // The class splits these pieces, and the fast tokenizer avoids them with such scores.
        for ((_, token), score) in tokens.iter().zip(&mut scores) {
            if ends_with_number_and_comma(token) {
                *score -= 100.;
            }
        }
    }
    let mut notes = model.peculiarities();
    notes.extend(bytes_note(class, model.byte_fallback()));
    Ok(Some(Base { scores: Some(scores), notes, ..Base::of(tokens) }))
}

/// Number of tokens that `T5Tokenizer` adds after those of SentencePiece (`extra_ids`).
const EXTRA_IDS: usize = 100;

fn ends_with_number_and_comma(piece: &str) -> bool {
    piece.strip_suffix(',').and_then(|rest| rest.chars().last()).is_some_and(char::is_numeric)
}

/// Changes of texts before SentencePiece that Elasticsearch does not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextChanges {
    pub(super) lower_cases: bool,
    pub(super) removes_accents: bool,
}

/// How ALBERT's tokenizer changes texts. The other classes have no such settings, or ignore them.
pub(super) fn text_changes(reader: &Reader<'_>, class: Class, from_json: bool) -> TextChanges {
    if class != Class::Albert {
        return TextChanges { lower_cases: false, removes_accents: false };
    }
    if let Some(json) = reader.json.filter(|_| from_json) {
        let normalization = json.normalization();
        let removes_accents = normalization.strip_accents == Some(true);
        return TextChanges { lower_cases: normalization.lowercase, removes_accents };
    }
    TextChanges {
        lower_cases: reader.config.do_lower_case != Some(false),
        removes_accents: reader.config.keep_accents != Some(true),
    }
}

/// Vocabulary and scores of `tokenizer.json`.
pub(super) fn fast(json: &TokenizerJson, class: Class) -> Result<Base, TokenizerError> {
    let Tokens::Scored(tokens) = &json.model.vocab else { return Ok(Base::default()) };
    if tokens.iter().any(|(token, _)| token.is_empty()) {
        return Err(TokenizerError::Broken { file: NAME, reason: "a token is empty".into() });
    }
    let mut scores: Vec<f64> = tokens.iter().map(|(_, score)| *score).collect();
    if class == Class::Camembert {
        // The converted file has a score that prevents the use of <unk>NOTUSED; the slow tokenizer has SentencePiece's score of <unk>.
        for ((token, _), score) in tokens.iter().zip(&mut scores) {
            if token == "<unk>NOTUSED" {
                *score = 0.;
            }
        }
    }
    let normalization = json.normalization();
    let mut notes = Vec::new();
    if normalization.lowercase {
        notes.push(lower_case_note(class));
    }
    if !normalization.charsmap {
        notes.push("tokenizer.json does not normalize text with a SentencePiece table; Elasticsearch always uses nmt_nfkc".into());
    }
    notes.extend(bytes_note(class, json.model.byte_fallback));
    let tokens = tokens.iter().enumerate().map(|(id, (token, _))| (id, token.clone())).collect();
    Ok(Base { scores: Some(scores), notes, ..Base::of(tokens) })
}

/// Warnings for settings that the server does not support.
pub(super) fn check_settings(
    reader: &Reader<'_>,
    class: Class,
    from_json: bool,
    warnings: &mut Vec<String>,
) {
    let config = reader.config;
    match class {
        Class::DebertaV2 => {
            if config.do_lower_case == Some(true) {
                warnings.push(lower_case_note(class));
            }
            if config.split_by_punct == Some(true) {
                warnings.push("the tokenizer splits words at punctuation first (split_by_punct); Elasticsearch does not".into());
            }
        }
        Class::Albert => {
            let changes = text_changes(reader, class, from_json);
            // Notes on `tokenizer.json` include this one.
            if changes.lower_cases && !from_json {
                warnings.push(lower_case_note(class));
            }
            if changes.removes_accents {
                warnings.push("the tokenizer removes accents, but Elasticsearch's xlm_roberta tokenizer cannot; remove them before you send texts".into());
            }
        }
        // The other classes ignore these.
        _ => (),
    }
}

pub(super) fn lower_case_note(class: Class) -> String {
    format!(
        "the tokenizer lower-cases text, but Elasticsearch's {} tokenizer cannot; convert texts to lower case before you send them",
        class.kind().name()
    )
}

/// Warns if the server treats unknown characters differently. For DeBERTa, the graph undoes the difference.
fn bytes_note(class: Class, byte_fallback: bool) -> Option<String> {
    (byte_fallback && class != Class::DebertaV2).then(|| {
        format!(
            "the tokenizer splits unknown characters into bytes (byte_fallback); Elasticsearch's {} tokenizer does not",
            class.kind().name()
        )
    })
}
