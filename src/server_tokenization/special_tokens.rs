//! The special tokens of each tokenizer and their layout around texts (contract, 3.2 and 3.3).

use super::settings::{Kind, Settings};
use super::{Exception, TokenizationError};

/// The ids of a tokenizer's special tokens.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    pub(super) unknown: u32,
    pub(super) pad: u32,
    /// The tokens before and after a text; 0 without special tokens.
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
    /// Finds the ids in a vocabulary.
    ///
    /// # Errors
    /// When the vocabulary lacks a required token.
    pub(super) fn find(
        settings: &Settings,
        vocabulary: &[String],
    ) -> Result<Self, TokenizationError> {
        let (texts, separators) = match &settings.kind {
            Kind::Bert | Kind::BertJa | Kind::DebertaV2 => (BERT, 1),
            Kind::Mpnet => (MPNET, 2),
            Kind::Roberta { .. } | Kind::XlmRoberta => (ROBERTA, 2),
            Kind::ByteLevelBpe { special, .. } => (
                Texts {
                    unknown: &special.unknown,
                    pad: &special.pad,
                    begin: &special.begin,
                    end: &special.end,
                },
                2,
            ),
        };
        // The last of several equal tokens counts.
        let id = |text: &str| {
            let position = vocabulary.iter().rposition(|token| token == text)?;
            u32::try_from(position).ok()
        };
        let missing = |text: &str, ending: &str| {
            Exception::Conflict
                .error(format!("stored vocabulary is missing required [{text}] token{ending}"))
        };
        let unknown = id(texts.unknown).ok_or_else(|| missing(texts.unknown, ""))?;
        let pad = id(texts.pad).ok_or_else(|| missing(texts.pad, ""))?;
        let (mut begin, mut end) = (0, 0);
        if settings.with_special_tokens {
            match (id(texts.begin), id(texts.end)) {
                (Some(first), Some(last)) => (begin, end) = (first, last),
                (first, last) => {
                    let absent: Vec<_> = [(texts.end, last), (texts.begin, first)]
                        .into_iter()
                        .filter(|(_, id)| id.is_none())
                        .map(|(text, _)| text)
                        .collect();
                    return Err(missing(&absent.join(", "), "(s)"));
                }
            }
        }
        let mask_text = settings.kind.mask_token().to_owned();
        Ok(Self { unknown, pad, begin, end, mask: id(&mask_text), mask_text, separators })
    }
}
