//! Output of the graph of each task, and the comparison of two versions of a graph.

use tch::Tensor;

use super::agreement::{ANSWER, COSINES, FILLING, HEAVIEST, LABEL, LABELS, Measure, RANKING};
use super::token_weights::{OccurringTokens, splade_weights, uploaded_tokens};
use super::{Embedder, Task};
use crate::config::SpladeConfig;
use crate::models::{Inputs, Rows};
use crate::torchscript::TorchError;

/// The last step of a graph: from the output of the head to what Elasticsearch reads.
#[derive(Debug)]
pub enum GraphOutput {
    /// The output of the head, unchanged.
    Head,
    /// Logits of start and end, `[2, batch, tokens]`.
    StartAndEnd,
    /// One vector per row, `[batch, embedding_size]`.
    Embedding(Embedder),
    /// Token weights, `[batch, vocabulary]`.
    TokenWeights {
        /// Number of uploaded tokens.
        vocabulary: i64,
        /// Pooling of the token weights.
        splade: SpladeConfig,
    },
    /// Weights of the tokens that the text contains, `[batch, vocabulary]`.
    OccurringTokens(OccurringTokens),
    /// Logits of tokens, `[batch, tokens, logits]`.
    Tokens,
    /// Logits of the uploaded tokens, `[batch, tokens, vocabulary]`.
    Vocabulary {
        /// Number of uploaded tokens.
        vocabulary: i64,
    },
    /// Logits of tokens, `[batch, tokens, labels]`, for labels that stand for several of the model's: first the greatest logit of each
    /// group, then all others. Their softmax has the probabilities of the model.
    GroupedLabels {
        /// Indexes of the model's logits for each label.
        groups: Vec<Vec<i64>>,
        /// Whether a label follows that the model does not have.
        adds_outside: bool,
    },
    /// Logits of entailment, neutral and contradiction, `[batch, 3]`, computed from two logits. The logit at `entailment` belongs
    /// to entailment.
    InferenceOfTwo {
        /// Index of the entailment logit.
        entailment: i64,
    },
}

/// Logit of a label that must never be chosen. Beside any real logit, its probability is 0 in float32.
const NEVER: f64 = -10_000.;

impl GraphOutput {
    /// Output of a task other than an embedding. `vocabulary` is the number of uploaded tokens.
    #[must_use]
    pub fn of_task(task: Task, vocabulary: i64) -> Self {
        match task {
            Task::QuestionAnswering => Self::StartAndEnd,
            Task::TextExpansion => {
                Self::TokenWeights { vocabulary, splade: SpladeConfig::default() }
            }
            Task::FillMask | Task::Ner => Self::Tokens,
            _ => Self::Head,
        }
    }

    /// The modules that compute the embedding, if the output is an embedding.
    #[must_use]
    pub fn embedder(&self) -> Option<&Embedder> {
        match self {
            Self::Embedding(embedder) => Some(embedder),
            _ => None,
        }
    }

    /// The tokens whose hidden states are read from a model without a head.
    #[must_use]
    pub fn rows(&self) -> Rows {
        self.embedder().map_or(Rows::All, Embedder::rows)
    }

    /// Computes the output of the graph from the output of the head.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, head_output: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        match self {
            Self::Head => Ok(head_output.shallow_clone()),
            Self::StartAndEnd => inputs.restore_tokens(&head_output.f_permute([2, 0, 1])?),
            Self::Embedding(embedder) => embedder.forward(head_output, inputs),
            Self::TokenWeights { vocabulary, splade } => {
                splade_weights(head_output, inputs, *vocabulary, *splade)
            }
            Self::OccurringTokens(weights) => weights.forward(head_output, inputs),
            Self::Tokens => inputs.restore_rows(head_output),
            Self::Vocabulary { vocabulary } => {
                inputs.restore_rows(&uploaded_tokens(head_output.shallow_clone(), *vocabulary)?)
            }
            Self::GroupedLabels { groups, adds_outside } => {
                let logits = inputs.restore_rows(head_output)?;
                let column = |index: &i64| logits.f_slice(2, *index, index + 1, 1);
                let (mut greatest, mut others) = (Vec::new(), Vec::new());
                for group in groups {
                    let mut columns = group.iter().map(column);
                    let Some(mut most) = columns.next().transpose()? else { continue };
                    for next in columns {
                        let next = next?;
                        others.push(most.f_min_other(&next)?);
                        most = most.f_max_other(&next)?;
                    }
                    greatest.push(most);
                }
                greatest.append(&mut others);
                if *adds_outside {
                    greatest.push(column(&0)?.f_full_like(NEVER)?);
                }
                Ok(Tensor::f_cat(&greatest, 2)?)
            }
            Self::InferenceOfTwo { entailment } => {
                let column = |index: i64| head_output.f_slice(1, index, index + 1, 1);
                let entailed = column(*entailment)?;
                let neutral = entailed.f_full_like(NEVER)?;
                Ok(Tensor::f_cat(&[entailed, neutral, column(1 - *entailment)?], 1)?)
            }
        }
    }
}

impl Task {
    /// Comparison of two versions of a model, by the result that Elasticsearch computes from their outputs.
    #[must_use]
    pub fn agreement(self) -> &'static Measure {
        match self {
            Self::FillMask => &FILLING,
            Self::Ner => &LABELS,
            Self::PassThrough | Self::TextEmbedding => &COSINES,
            Self::QuestionAnswering => &ANSWER,
            Self::TextClassification | Self::ZeroShotClassification => &LABEL,
            Self::TextExpansion => &HEAVIEST,
            Self::TextSimilarity => &RANKING,
        }
    }
}
