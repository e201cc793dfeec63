//! Heads, which map the hidden states of an encoder `[batch, tokens, hidden]` to the output of a task.

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::activation::ActivationLayer;
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, Head, Inputs, Rows};
use crate::torchscript::TorchError;

/// A head that most architectures have.
#[derive(Debug)]
pub enum TaskHead {
    /// The unchanged hidden states.
    None,
    /// Logits of every token of the vocabulary, or of every label, for each token.
    Prediction(PredictionHead),
    /// Logits of every label, for one vector per row.
    Pooled(SequencePooling, PredictionHead),
    /// A linear layer on every token.
    Tokens(Linear),
    /// Two layers on the first token.
    Sequence(SequenceHead),
    /// A linear layer on the first token.
    First(Linear),
}

impl TaskHead {
    /// Loads the head of the blueprint. Heads on every token have the same names in all architectures, `classifier` and `qa_outputs`; the others
    /// are specific to the architecture.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        blueprint: Blueprint<'_>,
        hidden: i64,
        masked_lm: impl FnOnce() -> PredictionHead,
        sequence: impl FnOnce() -> SequenceHead,
    ) -> Self {
        let tokens = |name, outputs| Linear::load(&weights.sub(name), hidden, outputs);
        match blueprint.head {
            Head::Base => Self::None,
            Head::MaskedLm => Self::Prediction(masked_lm()),
            Head::TokenClassification => Self::Tokens(tokens("classifier", blueprint.labels)),
            Head::QuestionAnswering => Self::Tokens(tokens("qa_outputs", 2)),
            Head::SequenceClassification => Self::Sequence(sequence()),
        }
    }

    /// The tokens whose hidden states the head reads, or the graph after it if there is no head.
    #[must_use]
    pub fn rows(&self, inputs: &Inputs) -> Rows {
        match self {
            Self::None => inputs.rows,
            Self::Pooled(pooling, _) => pooling.rows(),
            Self::Sequence(_) | Self::First(_) => Rows::First,
            Self::Prediction(_) | Self::Tokens(_) => Rows::All,
        }
    }

    /// Returns the output described by [`Head`]. Outputs per token have the places of Elasticsearch's tokens.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, hidden_states: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let hidden_states = inputs.at_server_places(hidden_states)?;
        match self {
            Self::None => Ok(hidden_states),
            Self::Prediction(head) => head.forward(&hidden_states),
            Self::Pooled(pooling, head) => head.forward(&pooling.forward(&hidden_states, inputs)?),
            Self::Tokens(classifier) => classifier.forward(&hidden_states),
            Self::Sequence(head) => head.forward(&hidden_states),
            Self::First(classifier) => classifier.forward(&hidden_states.f_select(1, 0)?),
        }
    }
}

/// Vector of a row from the vectors of its tokens (`classifier_pooling` in `config.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequencePooling {
    /// The first token.
    Cls,
    /// The mean of all tokens without padding.
    Mean,
}

impl SequencePooling {
    /// The tokens that are read.
    pub(super) fn rows(self) -> Rows {
        match self {
            Self::Cls => Rows::First,
            Self::Mean => Rows::All,
        }
    }

    /// Maps `[batch, tokens, hidden]` to `[batch, hidden]`.
    pub(super) fn forward(
        self,
        hidden_states: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        match self {
            Self::Cls => Ok(hidden_states.f_select(1, 0)?),
            Self::Mean => {
                let weights = inputs.attention_mask.f_to_kind(Kind::Float)?;
                let sum = weights.f_unsqueeze(1)?.f_matmul(hidden_states)?.f_squeeze_dim(1)?;
                Ok(sum.f_div(&weights.f_sum_dim_intlist([1i64].as_slice(), true, None)?)?)
            }
        }
    }
}

/// Dense layer, activation, LayerNorm and decoder, which maps `[…, hidden]` to `[…, vocabulary]`, or to labels in the classifiers of
/// ModernBERT.
#[derive(Debug)]
pub struct PredictionHead {
    /// Dense layer.
    pub dense: Linear,
    /// Activation after the dense layer.
    pub activation: ActivationLayer,
    /// LayerNorm after the activation.
    pub norm: LayerNorm,
    /// Linear layer from hidden states to the vocabulary or to the labels.
    pub decoder: Linear,
}

impl PredictionHead {
    fn forward(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        let transformed = self.activation.forward(&self.dense.forward(hidden_states)?)?;
        self.decoder.forward(&self.norm.forward(&transformed)?)
    }
}

/// The layer `name` from hidden states to the vocabulary, with `shape` `[vocabulary, width]`, and its `bias` if there is one. A tied layer uses the word embeddings
/// and ignores its weight in the file, because Transformers ties weights after loading.
#[must_use]
pub fn decoder<'a>(
    weights: &Weights<'_>,
    name: &str,
    bias: impl Into<Option<&'a str>>,
    words: &Tensor,
    shape: [i64; 2],
    tied: bool,
) -> Linear {
    let bias = bias.into().map(|bias| weights.tensor(bias, &shape[..1]));
    let weight = if tied {
        weights.ignore(&format!("{name}.weight"));
        words.shallow_clone()
    } else {
        weights.sub(name).tensor("weight", &shape)
    };
    Linear::new(weight, bias)
}

/// Dense layer and activation on the first token, then the classifier, with the output `[batch, labels]`.
#[derive(Debug)]
pub struct SequenceHead {
    /// Dense layer.
    pub dense: Linear,
    /// Activation after the dense layer.
    pub activation: ActivationLayer,
    /// Linear layer from the hidden states to the labels.
    pub classifier: Linear,
}

impl SequenceHead {
    /// `…ClassificationHead` of RoBERTa, ELECTRA and MPNet: `classifier.dense` and `classifier.out_proj`.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        hidden: i64,
        labels: i64,
        activation: ActivationLayer,
    ) -> Self {
        let weights = weights.sub("classifier");
        Self {
            dense: Linear::load(&weights.sub("dense"), hidden, hidden),
            activation,
            classifier: Linear::load(&weights.sub("out_proj"), hidden, labels),
        }
    }

    fn forward(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        let first = self.dense.forward(&hidden_states.f_select(1, 0)?)?;
        self.classifier.forward(&self.activation.forward(&first)?)
    }
}
