//! What the graph of each task returns, and how two forms of a graph are compared.

use tch::{Kind, Tensor};

use super::agreement::{ANSWER, COSINES, FILLING, HEAVIEST, LABEL, LABELS, Measure, RANKING};
use super::{Embedder, Task};
use crate::models::Inputs;
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
    },
}

impl GraphOutput {
    /// The output of a task that makes no embedding. `vocabulary` is the number of uploaded tokens.
    #[must_use]
    pub fn of_task(task: Task, vocabulary: i64) -> Self {
        match task {
            Task::QuestionAnswering => Self::StartAndEnd,
            Task::TextExpansion => Self::TokenWeights { vocabulary },
            _ => Self::Head,
        }
    }

    /// The modules that make an embedding, if this output is one.
    #[must_use]
    pub fn embedder(&self) -> Option<&Embedder> {
        match self {
            Self::Embedding(embedder) => Some(embedder),
            _ => None,
        }
    }

    /// Computes the output of the graph from the output of the head.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, head_output: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        match self {
            Self::Head => Ok(head_output.shallow_clone()),
            Self::StartAndEnd => Ok(head_output.f_permute([2, 0, 1])?),
            Self::Embedding(embedder) => embedder.forward(head_output, inputs),
            Self::TokenWeights { vocabulary } => token_weights(head_output, inputs, *vocabulary),
        }
    }
}

/// Max over tokens of log(1 + relu(logits)), for the first `vocabulary` tokens (SPLADE, Formal et al. 2021, arXiv:2109.10086).
///
/// Elasticsearch takes one row as finished weights, so the pooling is part of the graph.
fn token_weights(logits: &Tensor, inputs: &Inputs, vocabulary: i64) -> Result<Tensor, TorchError> {
    // log(1 + relu(x)) never falls, so it can wait until one row is left. Padding becomes 0, the least that relu gives.
    let mask = inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?;
    let (most, _) = logits.f_mul(&mask)?.f_max_dim(1, false)?;
    let weights = most.f_relu()?.f_add_scalar(1.)?.f_log()?;
    // Many tables have more rows than there are tokens, and the server fails on a weight that has no token.
    match weights.size().last() {
        Some(&rows) if rows > vocabulary => Ok(weights.f_slice(1, 0, vocabulary, 1)?),
        _ => Ok(weights),
    }
}

impl Task {
    /// How two forms of a model are compared in what Elasticsearch makes of their outputs.
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
