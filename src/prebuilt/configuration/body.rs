//! The structure of a model's configuration, with exactly the keys that the server accepts.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::tokenizer::TokenizerKind;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub model_id: Option<String>,
    pub model_type: Option<String>,
    #[serde(rename = "description")]
    pub _description: Option<String>,
    pub tags: Option<Vec<String>>,
    pub metadata: Option<Map<String, Value>>,
    pub input: Option<Input>,
    pub inference_config: Inference,
    pub model_size_bytes: Option<i64>,
    pub estimated_heap_memory_usage_bytes: Option<i64>,
    pub estimated_operations: Option<i64>,
    pub default_field_map: Option<Map<String, Value>>,
    pub prefix_strings: Option<Prefixes>,
    #[serde(rename = "platform_architecture")]
    pub _platform_architecture: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub field_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prefixes {
    #[serde(rename = "ingest")]
    pub _ingest: Option<String>,
    #[serde(rename = "search")]
    pub _search: Option<String>,
}

/// An object with exactly one task.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Inference {
    FillMask(FillMask),
    Ner(Ner),
    PassThrough(PassThrough),
    QuestionAnswering(QuestionAnswering),
    TextClassification(TextClassification),
    TextEmbedding(TextEmbedding),
    TextExpansion(TextExpansion),
    TextSimilarity(TextSimilarity),
    ZeroShotClassification(ZeroShot),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FillMask {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    #[serde(rename = "num_top_classes")]
    pub _num_top_classes: Option<i32>,
    pub mask_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ner {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    pub classification_labels: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassThrough {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuestionAnswering {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    pub num_top_classes: Option<i32>,
    pub max_answer_length: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextClassification {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    #[serde(default)]
    pub classification_labels: Vec<String>,
    #[serde(rename = "num_top_classes")]
    pub _num_top_classes: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextEmbedding {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    pub embedding_size: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextExpansion {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    #[serde(rename = "expansion_type")]
    pub _expansion_type: Option<ExpansionType>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExpansionType {
    Elser,
    Splade,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextSimilarity {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    #[serde(rename = "span_score_combination_function")]
    pub _span_score_combination_function: Option<SpanScore>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SpanScore {
    Max,
    Mean,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZeroShot {
    #[serde(default)]
    pub tokenization: Tokenization,
    #[serde(rename = "results_field")]
    pub _results_field: Option<String>,
    #[serde(default)]
    pub classification_labels: Vec<String>,
    #[serde(rename = "hypothesis_template")]
    pub _hypothesis_template: Option<String>,
    #[serde(rename = "multi_label")]
    pub _multi_label: Option<bool>,
    pub labels: Option<Vec<String>>,
}

/// An object with exactly one tokenizer.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tokenization {
    Bert(Settings),
    BertJa(Settings),
    Mpnet(Settings),
    Roberta(Settings),
    XlmRoberta(Settings),
    DebertaV2(Settings),
}

impl Default for Tokenization {
    fn default() -> Self {
        Self::Bert(Settings::default())
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub do_lower_case: bool,
    pub with_special_tokens: bool,
    pub max_sequence_length: i32,
    pub truncate: Truncate,
    pub span: i32,
    pub add_prefix_space: Option<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            do_lower_case: false,
            with_special_tokens: true,
            max_sequence_length: 512,
            truncate: Truncate::First,
            span: NO_SPAN,
            add_prefix_space: None,
        }
    }
}

/// The value of `span` for texts that are not split into windows.
pub(super) const NO_SPAN: i32 = -1;

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Truncate {
    First,
    Second,
    None,
    Balanced,
}

impl Tokenization {
    pub fn kind(&self) -> TokenizerKind {
        match self {
            Self::Bert(_) => TokenizerKind::Bert,
            Self::BertJa(_) => TokenizerKind::BertJapanese,
            Self::Mpnet(_) => TokenizerKind::MpNet,
            Self::Roberta(_) => TokenizerKind::Roberta,
            Self::XlmRoberta(_) => TokenizerKind::XlmRoberta,
            Self::DebertaV2(_) => TokenizerKind::DebertaV2,
        }
    }

    pub fn named(self) -> (TokenizerKind, Settings) {
        let kind = self.kind();
        match self {
            Self::Bert(settings)
            | Self::BertJa(settings)
            | Self::Mpnet(settings)
            | Self::Roberta(settings)
            | Self::XlmRoberta(settings)
            | Self::DebertaV2(settings) => (kind, settings),
        }
    }
}
