//! The tokenizers of Elasticsearch.

use crate::version::Version;

/// A tokenizer of Elasticsearch. Its name is a key of `inference_config.*.tokenization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenizerKind {
    /// WordPiece.
    Bert,
    /// WordPiece on words from a Japanese analyser.
    BertJapanese,
    /// WordPiece with RoBERTa's special tokens.
    MpNet,
    /// Byte-level BPE.
    Roberta,
    /// Byte-level BPE whose special tokens have any names.
    ByteLevelBpe,
    /// Unigram.
    XlmRoberta,
    /// Unigram with BERT's special tokens.
    DebertaV2,
}

/// Tokens that a tokenizer of Elasticsearch requires in the vocabulary. Only the mask is optional.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTokens {
    /// Fills rows that are shorter than the longest row.
    pub padding: &'static str,
    /// Ends a text.
    pub separator: &'static str,
    /// Starts a row.
    pub class: &'static str,
    /// Replaces text that the vocabulary does not contain.
    pub unknown: &'static str,
    /// Marks a missing word.
    pub mask: &'static str,
}

impl TokenizerKind {
    /// All tokenizers.
    pub const ALL: [Self; 7] = [
        Self::Bert,
        Self::BertJapanese,
        Self::MpNet,
        Self::Roberta,
        Self::ByteLevelBpe,
        Self::XlmRoberta,
        Self::DebertaV2,
    ];

    /// Name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::BertJapanese => "bert_ja",
            Self::MpNet => "mpnet",
            Self::Roberta => "roberta",
            Self::ByteLevelBpe => "byte_level_bpe",
            Self::XlmRoberta => "xlm_roberta",
            Self::DebertaV2 => "deberta_v2",
        }
    }

    /// Number of tensors that the server passes to the graph: input_ids, attention_mask, token_type_ids, position_ids, in this
    /// order.
    #[must_use]
    pub fn inputs(self) -> usize {
        match self {
            Self::Bert | Self::BertJapanese => 4,
            Self::DebertaV2 => 3,
            Self::MpNet | Self::Roberta | Self::ByteLevelBpe | Self::XlmRoberta => 2,
        }
    }

    /// Number of separators that Elasticsearch inserts between the texts of a pair (contract 3.3).
    #[must_use]
    pub fn separators(self) -> usize {
        match self {
            Self::Bert | Self::BertJapanese | Self::DebertaV2 => 1,
            Self::MpNet | Self::Roberta | Self::ByteLevelBpe | Self::XlmRoberta => 2,
        }
    }

    /// First Elasticsearch version with this tokenizer.
    #[must_use]
    pub fn since(self) -> Version {
        match self {
            Self::Bert => Version::new(8, 0, 0),
            Self::MpNet | Self::Roberta => Version::new(8, 2, 0),
            Self::BertJapanese | Self::XlmRoberta => Version::new(8, 9, 0),
            Self::DebertaV2 => Version::new(8, 16, 0),
            Self::ByteLevelBpe => Version::BYTE_LEVEL_BPE,
        }
    }

    /// Tokens that the server requires in the vocabulary.
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
            // The unknown token is that of BERT, whose vocabulary is part of MPNet's.
            Self::MpNet => of(["<pad>", "</s>", "<s>", "[UNK]", "<mask>"]),
            // The defaults of byte_level_bpe, whose settings can name other tokens.
            Self::Roberta | Self::ByteLevelBpe | Self::XlmRoberta => {
                of(["<pad>", "</s>", "<s>", "<unk>", "<mask>"])
            }
        }
    }

    /// Token that marks a missing word.
    #[must_use]
    pub fn mask_token(self) -> &'static str {
        self.tokens().mask
    }
}
