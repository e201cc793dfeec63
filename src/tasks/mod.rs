//! Tasks of Elasticsearch. Each task has a file that defines its head, the output of the graph and the `inference_config`.

#[cfg(feature = "torch")]
pub mod agreement;
mod agreement_samples;
#[cfg(feature = "torch")]
mod embedder;
mod fill_mask;
#[cfg(feature = "torch")]
mod graph_output;
mod guess;
mod labels;
#[cfg(feature = "torch")]
pub mod neighbours;
mod ner;
mod pass_through;
mod pipeline_tag;
#[cfg(feature = "torch")]
mod pooling;
mod question_answering;
mod text_classification;
mod text_embedding;
mod text_expansion;
mod text_similarity;
#[cfg(feature = "torch")]
mod token_weights;
mod zero_shot_classification;

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::config::{Head, Labels};
use crate::tokenizer::TokenizerKind;
use crate::version::Version;
pub use agreement_samples::AgreementSamples;
#[cfg(feature = "torch")]
pub use embedder::{Embedder, EmbedderError};
#[cfg(feature = "torch")]
pub use graph_output::GraphOutput;
pub use guess::guess;
pub use labels::ServedLabels;
#[cfg(feature = "torch")]
pub use token_weights::{OccurringTokens, TokenTable};

/// A task, with its name in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Predict a masked word.
    FillMask,
    /// Find named entities.
    Ner,
    /// Return the hidden states unchanged.
    PassThrough,
    /// Find the answer to a question in a text.
    QuestionAnswering,
    /// Classify a text.
    TextClassification,
    /// Compute a dense vector.
    TextEmbedding,
    /// Compute a sparse vector over the vocabulary.
    TextExpansion,
    /// Score a text for a query.
    TextSimilarity,
    /// Classify a text with labels from the request.
    ZeroShotClassification,
}

impl Task {
    /// All tasks, ordered by name.
    pub const ALL: [Self; 9] = [
        Self::FillMask,
        Self::Ner,
        Self::PassThrough,
        Self::QuestionAnswering,
        Self::TextClassification,
        Self::TextEmbedding,
        Self::TextExpansion,
        Self::TextSimilarity,
        Self::ZeroShotClassification,
    ];

    fn definition(self) -> &'static dyn Definition {
        match self {
            Self::FillMask => &fill_mask::FillMask,
            Self::Ner => &ner::Ner,
            Self::PassThrough => &pass_through::PassThrough,
            Self::QuestionAnswering => &question_answering::QuestionAnswering,
            Self::TextClassification => &text_classification::TextClassification,
            Self::TextEmbedding => &text_embedding::TextEmbedding,
            Self::TextExpansion => &text_expansion::TextExpansion,
            Self::TextSimilarity => &text_similarity::TextSimilarity,
            Self::ZeroShotClassification => &zero_shot_classification::ZeroShotClassification,
        }
    }

    /// Name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name()
    }

    /// Head of the model.
    #[must_use]
    pub fn head(self) -> Head {
        self.definition().head()
    }

    /// Whether a row contains two texts.
    #[must_use]
    pub fn pair(self) -> bool {
        self.definition().pair()
    }

    /// First version that serves the task with a tokenizer, if older versions have both but refuse them together.
    #[must_use]
    pub fn since_with(self, kind: TokenizerKind) -> Option<Version> {
        let is_refused = self == Self::TextExpansion && kind != TokenizerKind::Bert;
        is_refused.then_some(Version::TEXT_EXPANSION_TOKENIZERS)
    }

    /// Whether the result has one part for each token: logits of labels or words, positions of an answer, or hidden states.
    #[must_use]
    pub fn answers_tokens(self) -> bool {
        matches!(self, Self::FillMask | Self::Ner | Self::PassThrough | Self::QuestionAnswering)
    }

    /// The model's labels in the form that Elasticsearch accepts for this task.
    ///
    /// # Errors
    /// The reason why Elasticsearch would reject the labels, if the task needs labels.
    pub fn served_labels(self, labels: &Labels) -> Result<ServedLabels, String> {
        match self.head() {
            Head::SequenceClassification | Head::TokenClassification => {
                self.definition().served_labels(labels.names()?)
            }
            _ => Ok(ServedLabels::default()),
        }
    }

    /// Checks that Elasticsearch accepts labels without changes.
    ///
    /// # Errors
    /// The reason why Elasticsearch would reject them.
    pub fn check_labels(self, labels: &[String]) -> Result<(), String> {
        let served = self.served_labels(&Labels::new(labels.to_vec()))?;
        if served.names.is_empty() || served.names == labels {
            return Ok(());
        }
        Err(format!(
            "Elasticsearch uses the labels {} for such a model, but the model has {}",
            served.names.join(", "),
            labels.join(", ")
        ))
    }

    /// The `inference_config` to upload.
    #[must_use]
    pub fn inference_config(self, facts: &Facts<'_>) -> Value {
        let definition = self.definition();
        // The order is that of eland: first the settings of all tokenizers, then those of this tokenizer.
        let mut tokenization = Map::new();
        tokenization.insert("max_sequence_length".into(), facts.max_sequence_length.into());
        definition.tokenize(facts.max_sequence_length, &mut tokenization);
        tokenization.extend(facts.tokenization.clone());
        let mut config = Map::new();
        config.insert("tokenization".into(), json!({ facts.tokenizer: tokenization }));
        definition.configure(facts, &mut config);
        json!({ self.name(): config })
    }

    /// Maximum input length in tokens that the task allows, if it is lower than the model's.
    #[must_use]
    pub fn max_sequence_length(self) -> Option<u32> {
        self.definition().max_sequence_length()
    }

    /// How example texts are combined for the task.
    #[must_use]
    pub fn text_form(self) -> TextForm {
        self.definition().text_form()
    }
}

/// How example texts are combined to the inputs of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// Each text alone.
    Single,
    /// Each text alone, with one masked token.
    Masked,
    /// Each text with the next one.
    Neighbours,
    /// Each text with the server's hypothesis about one of the topics.
    Hypotheses(&'static [&'static str]),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = String;

    /// Parses a name or one of Hugging Face's pipeline tags. Hyphens are accepted instead of underscores, and vice versa.
    fn from_str(name: &str) -> Result<Self, String> {
        let wanted = name.replace('-', "_");
        if let Some(task) = Self::ALL.into_iter().find(|task| task.name() == wanted) {
            return Ok(task);
        }
        pipeline_tag::task_of_tag(name).unwrap_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|task| task.name()).collect();
            Err(format!(
                "unknown task {name:?}; the tasks are {}. Use 'text_similarity' for rerank tasks",
                names.join(", ")
            ))
        })
    }
}

/// Facts about a model for its `inference_config`.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Name of the server's tokenizer.
    pub tokenizer: &'static str,
    /// Settings of this tokenizer.
    pub tokenization: &'a Map<String, Value>,
    /// Maximum input length in tokens.
    pub max_sequence_length: u32,
    /// Whether the model's own tokenizer lower-cases texts, which Elasticsearch's tokenizer does not.
    pub lower_cases: bool,
    /// Uploaded labels, in the order of the graph's logits.
    pub labels: &'a [String],
    /// Width of the embedding; `None` for other tasks.
    pub embedding_size: Option<i64>,
}

/// Properties of a task.
trait Definition: Sync {
    fn name(&self) -> &'static str;

    fn head(&self) -> Head;

    fn pair(&self) -> bool {
        false
    }

    fn max_sequence_length(&self) -> Option<u32> {
        None
    }

    fn served_labels(&self, labels: &[String]) -> Result<ServedLabels, String> {
        Ok(ServedLabels::unchanged(labels))
    }

    fn text_form(&self) -> TextForm {
        TextForm::Single
    }

    /// Adds settings of the task to the tokenization.
    fn tokenize(&self, _max_sequence_length: u32, _tokenization: &mut Map<String, Value>) {}

    /// Adds settings of the task to the `inference_config`.
    fn configure(&self, _facts: &Facts<'_>, _config: &mut Map<String, Value>) {}
}

/// Uploaded labels. Hyphens become underscores, because the server reads `B_PER`, not `B-PER`.
fn classification_labels(facts: &Facts<'_>, config: &mut Map<String, Value>) {
    let labels: Vec<_> = facts.labels.iter().map(|label| label.replace('-', "_")).collect();
    config.insert("classification_labels".into(), labels.into());
}
