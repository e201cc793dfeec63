//! Which special tokens a tokenizer needs in its vocabulary, and how it lays them around texts (contract, 3.2 and 3.3).

use crate::configuration::tokenization::{Tokenization, Tokenizer};
use crate::errors::ApiError;

/// The ids of a tokenizer's special tokens.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    pub(super) unknown: u32,
    pub(super) pad: u32,
    /// The first and the last token around a text, if there are special tokens at all.
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) mask: Option<u32>,
    pub(super) mask_text: String,
    /// How many `end` tokens stand between the texts of a pair.
    pub(super) separators: usize,
}

/// The texts of a tokenizer's special tokens.
struct Texts<'a> {
    unknown: &'a str,
    pad: &'a str,
    begin: &'a str,
    end: &'a str,
}

const BERT: Texts<'static> = Texts { unknown: "[UNK]", pad: "[PAD]", begin: "[CLS]", end: "[SEP]" };
const MPNET: Texts<'static> = Texts { unknown: "[UNK]", pad: "<pad>", begin: "<s>", end: "</s>" };
const ROBERTA: Texts<'static> = Texts { unknown: "<unk>", pad: "<pad>", begin: "<s>", end: "</s>" };

impl SpecialTokens {
    /// Finds the ids. What is missing is a conflict, in the server's words.
    pub(super) fn find(settings: &Tokenization, vocabulary: &[String]) -> Result<Self, ApiError> {
        let (texts, separators) = match &settings.tokenizer {
            Tokenizer::Bert | Tokenizer::BertJa | Tokenizer::DebertaV2 => (BERT, 1),
            Tokenizer::Mpnet => (MPNET, 2),
            Tokenizer::Roberta { .. } | Tokenizer::XlmRoberta => (ROBERTA, 2),
            Tokenizer::ByteLevelBpe { special, .. } => (
                Texts {
                    unknown: &special.unknown,
                    pad: &special.pad,
                    begin: &special.begin,
                    end: &special.end,
                },
                2,
            ),
        };
        // Of equal tokens the last one counts.
        let id = |text: &str| {
            let position = vocabulary.iter().rposition(|token| token == text)?;
            u32::try_from(position).ok()
        };
        let required = |text: &str| {
            id(text).ok_or_else(|| {
                ApiError::conflict(format!("stored vocabulary is missing required [{text}] token"))
            })
        };
        let unknown = required(texts.unknown)?;
        let pad = required(texts.pad)?;
        let (mut begin, mut end) = (0, 0);
        if settings.with_special_tokens {
            match (id(texts.begin), id(texts.end)) {
                (Some(first), Some(last)) => (begin, end) = (first, last),
                (first, last) => {
                    let missing: Vec<_> = [(texts.end, last), (texts.begin, first)]
                        .into_iter()
                        .filter(|(_, id)| id.is_none())
                        .map(|(text, _)| text)
                        .collect();
                    return Err(ApiError::conflict(format!(
                        "stored vocabulary is missing required [{}] token(s)",
                        missing.join(", ")
                    )));
                }
            }
        }
        let mask_text = settings.mask_token().to_owned();
        Ok(Self { unknown, pad, begin, end, mask: id(&mask_text), mask_text, separators })
    }
}
