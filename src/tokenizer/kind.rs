//! The tokenizers of Elasticsearch.

use crate::version::Version;

/// A tokenizer of the server, under its name in `inference_config.*.tokenization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenizerKind {
    /// WordPiece.
    Bert,
    /// WordPiece on words that a Japanese analyser finds.
    BertJapanese,
    /// WordPiece with RoBERTa's special tokens.
    MpNet,
    /// Byte-level BPE.
    Roberta,
    /// Unigram.
    XlmRoberta,
    /// Unigram with BERT's special tokens.
    DebertaV2,
}

/// The tokens that a tokenizer of the server looks for in a vocabulary. All but the mask must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTokens {
    /// Fills short rows.
    pub padding: &'static str,
    /// Ends a text.
    pub separator: &'static str,
    /// Begins a row.
    pub class: &'static str,
    /// Stands for what the vocabulary does not have.
    pub unknown: &'static str,
    /// Stands for a missing word.
    pub mask: &'static str,
}

impl TokenizerKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bert,
        Self::BertJapanese,
        Self::MpNet,
        Self::Roberta,
        Self::XlmRoberta,
        Self::DebertaV2,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::BertJapanese => "bert_ja",
            Self::MpNet => "mpnet",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm_roberta",
            Self::DebertaV2 => "deberta_v2",
        }
    }

    /// How many tensors the server passes to the graph: input_ids, attention_mask, token_type_ids, position_ids, in this order.
    #[must_use]
    pub fn inputs(self) -> usize {
        match self {
            Self::Bert | Self::BertJapanese => 4,
            Self::DebertaV2 => 3,
            Self::MpNet | Self::Roberta | Self::XlmRoberta => 2,
        }
    }

    /// Number of separators that Elasticsearch puts between the texts of a pair (contract 3.3).
    #[must_use]
    pub fn separators(self) -> usize {
        match self {
            Self::Bert | Self::BertJapanese | Self::DebertaV2 => 1,
            Self::MpNet | Self::Roberta | Self::XlmRoberta => 2,
        }
    }

    /// The first Elasticsearch that has it.
    #[must_use]
    pub fn since(self) -> Version {
        match self {
            Self::Bert => Version::new(8, 0, 0),
            Self::MpNet | Self::Roberta => Version::new(8, 2, 0),
            Self::BertJapanese | Self::XlmRoberta => Version::new(8, 9, 0),
            Self::DebertaV2 => Version::new(8, 16, 0),
        }
    }

    /// The tokens that the server looks for.
    #[must_use]
    pub fn tokens(self) -> ServerTokens {
        let of = |[padding, separator, class, unknown, mask]: [&'static str; 5]| ServerTokens {
            padding,
            separator,
            class,
            unknown,
            mask,
        };
        match self {
            Self::Bert | Self::BertJapanese | Self::DebertaV2 => {
                of(["[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]"])
            }
            // The unknown token is BERT's: its vocabulary lies within this one.
            Self::MpNet => of(["<pad>", "</s>", "<s>", "[UNK]", "<mask>"]),
            Self::Roberta | Self::XlmRoberta => of(["<pad>", "</s>", "<s>", "<unk>", "<mask>"]),
        }
    }

    /// The token that stands for a missing word.
    #[must_use]
    pub fn mask_token(self) -> &'static str {
        self.tokens().mask
    }
}
