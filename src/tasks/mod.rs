//! Tasks: what a model does for Elasticsearch. Each file says which head it takes, what the graph returns and which
//! `inference_config` goes with it.

#[cfg(feature = "torch")]
pub mod agreement;
#[cfg(feature = "torch")]
mod embedder;
mod fill_mask;
#[cfg(feature = "torch")]
mod graph_output;
mod guess;
mod labels;
mod ner;
mod pass_through;
#[cfg(feature = "torch")]
mod pooling;
mod question_answering;
mod text_classification;
mod text_embedding;
mod text_expansion;
mod text_similarity;
mod zero_shot_classification;

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::config::{Head, Labels};
use crate::tokenizer::{Cut, Encoder, Row, TokenizerError};
#[cfg(feature = "torch")]
pub use embedder::{Embedder, EmbedderError};
#[cfg(feature = "torch")]
pub use graph_output::GraphOutput;
pub use guess::guess;
pub use labels::ServedLabels;

/// A task, by its name in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// The missing word.
    FillMask,
    /// Named entities.
    Ner,
    /// The hidden states as they are.
    PassThrough,
    /// Where in a text the answer to a question stands.
    QuestionAnswering,
    /// The class of a text.
    TextClassification,
    /// A dense vector.
    TextEmbedding,
    /// A sparse vector over the vocabulary.
    TextExpansion,
    /// How well a text answers a query.
    TextSimilarity,
    /// The class of a text among labels given with the request.
    ZeroShotClassification,
}

impl Task {
    /// All of them, in the order of their names.
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

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name()
    }

    /// The head that it takes.
    #[must_use]
    pub fn head(self) -> Head {
        self.definition().head()
    }

    /// Whether the server puts two texts in a row.
    #[must_use]
    pub fn pair(self) -> bool {
        self.definition().pair()
    }

    /// The model's labels in the form that Elasticsearch takes for this task.
    ///
    /// # Errors
    /// The reason why Elasticsearch would refuse the labels, for a task that needs them.
    pub fn served_labels(self, labels: &Labels) -> Result<ServedLabels, String> {
        match self.head() {
            Head::SequenceClassification | Head::TokenClassification => {
                self.definition().served_labels(labels.names()?)
            }
            _ => Ok(ServedLabels::default()),
        }
    }

    /// Checks that Elasticsearch takes labels as they are.
    ///
    /// # Errors
    /// The reason why it would refuse them.
    pub fn check_labels(self, labels: &[String]) -> Result<(), String> {
        let served = self.served_labels(&Labels::new(labels.to_vec()))?;
        if served.names.is_empty() || served.names == labels {
            return Ok(());
        }
        Err(format!(
            "Elasticsearch takes the labels {} for such a model, not {}",
            served.names.join(", "),
            labels.join(", ")
        ))
    }

    /// The `inference_config` to send.
    #[must_use]
    pub fn inference_config(self, facts: &Facts<'_>) -> Value {
        let definition = self.definition();
        // The order is eland's: what all tokenizers have, then the tokenizer's own.
        let mut tokenization = Map::new();
        tokenization.insert("max_sequence_length".into(), facts.max_sequence_length.into());
        definition.tokenize(facts.max_sequence_length, &mut tokenization);
        tokenization.extend(facts.tokenization.clone());
        let mut config = Map::new();
        config.insert("tokenization".into(), json!({ facts.tokenizer: tokenization }));
        definition.configure(facts, &mut config);
        json!({ self.name(): config })
    }

    /// The longest input, in tokens, that is sent for this task although the model would take more.
    #[must_use]
    pub fn max_sequence_length(self) -> Option<u32> {
        self.definition().max_sequence_length()
    }

    /// The rows that the server would make of texts: one for each, in pairs with the next where the task takes pairs.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn rows(self, texts: &[String], encoder: &Encoder) -> Result<Vec<Row>, TokenizerError> {
        self.definition().rows(texts, encoder)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = String;

    /// Reads a name; hyphens may stand for underscores.
    fn from_str(name: &str) -> Result<Self, String> {
        let wanted = name.replace('-', "_");
        Self::ALL.into_iter().find(|task| task.name() == wanted).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|task| task.name()).collect();
            format!(
                "there is no task {name:?}; the tasks are {}. Use 'text_similarity' for rerank tasks",
                names.join(", ")
            )
        })
    }
}

/// What an `inference_config` is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The server's tokenizer.
    pub tokenizer: &'static str,
    /// Its own settings.
    pub tokenization: &'a Map<String, Value>,
    /// The longest input in tokens.
    pub max_sequence_length: u32,
    /// The labels that are sent, in the order of the graph's logits.
    pub labels: &'a [String],
    /// Width of the embedding, for the task that has one.
    pub embedding_size: Option<i64>,
}

/// What sets a task apart.
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

    /// The rows that texts make.
    fn rows(&self, texts: &[String], encoder: &Encoder) -> Result<Vec<Row>, TokenizerError> {
        texts.iter().map(|text| encoder.single(text)).collect()
    }

    /// Adds to the tokenization settings.
    fn tokenize(&self, _max_sequence_length: u32, _tokenization: &mut Map<String, Value>) {}

    /// Adds to the task's own settings.
    fn configure(&self, _facts: &Facts<'_>, _config: &mut Map<String, Value>) {}
}

/// The labels as they are sent: the server reads `B_PER`, not `B-PER`.
fn classification_labels(facts: &Facts<'_>, config: &mut Map<String, Value>) {
    let labels: Vec<_> = facts.labels.iter().map(|label| label.replace('-', "_")).collect();
    config.insert("classification_labels".into(), labels.into());
}

/// Each text with the next; the second one is cut if both are too long.
fn neighbours(texts: &[String], encoder: &Encoder) -> Result<Vec<Row>, TokenizerError> {
    let next = texts.iter().cycle().skip(1);
    texts.iter().zip(next).map(|(a, b)| encoder.pair(a, b, Cut::Second)).collect()
}
