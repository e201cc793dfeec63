//! Heads: from the hidden states of an encoder, `[batch, tokens, hidden]`, to a task's numbers.

use tch::Tensor;

use super::activation::ActivationLayer;
use super::layers::{LayerNorm, Linear};
use super::weights::Weights;
use super::{Blueprint, Head};
use crate::torchscript::TorchError;

/// One of the heads that nearly every architecture has.
#[derive(Debug)]
pub enum TaskHead {
    /// The hidden states as they are.
    None,
    /// Logits for every token of the vocabulary.
    MaskedLm(MaskedLmHead),
    /// One linear layer over every token.
    Tokens(Linear),
    /// Two layers over the first token.
    Sequence(SequenceHead),
    /// One linear layer over the first token.
    First(Linear),
}

impl TaskHead {
    /// Loads the blueprint's head. Those over every token are called alike everywhere, `classifier` and `qa_outputs`; the others
    /// are the architecture's own.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        blueprint: Blueprint<'_>,
        hidden: i64,
        masked_lm: impl FnOnce() -> MaskedLmHead,
        sequence: impl FnOnce() -> SequenceHead,
    ) -> Self {
        let tokens = |name, outputs| Linear::load(&weights.sub(name), hidden, outputs);
        match blueprint.head {
            Head::Base => Self::None,
            Head::MaskedLm => Self::MaskedLm(masked_lm()),
            Head::TokenClassification => Self::Tokens(tokens("classifier", blueprint.labels)),
            Head::QuestionAnswering => Self::Tokens(tokens("qa_outputs", 2)),
            Head::SequenceClassification => Self::Sequence(sequence()),
        }
    }

    /// The head's output, as [`Head`] says.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            Self::None => Ok(hidden_states.shallow_clone()),
            Self::MaskedLm(head) => head.forward(hidden_states),
            Self::Tokens(classifier) => classifier.forward(hidden_states),
            Self::Sequence(head) => head.forward(hidden_states),
            Self::First(classifier) => classifier.forward(&hidden_states.f_select(1, 0)?),
        }
    }
}

/// A dense layer with activation and norm, then the decoder: `[batch, tokens, vocabulary]`.
#[derive(Debug)]
pub struct MaskedLmHead {
    /// The dense layer.
    pub dense: Linear,
    /// Behind it.
    pub activation: ActivationLayer,
    /// Behind that.
    pub norm: LayerNorm,
    /// To the vocabulary.
    pub decoder: Linear,
}

impl MaskedLmHead {
    fn forward(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        let transformed = self.activation.forward(&self.dense.forward(hidden_states)?)?;
        self.decoder.forward(&self.norm.forward(&transformed)?)
    }
}

/// The layer `name` from hidden states to the vocabulary, of `shape` `[vocabulary, width]`. Where it is tied its weight is that of
/// the word embeddings, whatever the file holds, as Transformers ties them after loading.
#[must_use]
pub fn decoder(
    weights: &Weights<'_>,
    name: &str,
    bias: &str,
    words: &Tensor,
    shape: [i64; 2],
    tied: bool,
) -> Linear {
    let bias = Some(weights.tensor(bias, &shape[..1]));
    let weight = if tied {
        weights.ignore(&format!("{name}.weight"));
        words.shallow_clone()
    } else {
        weights.sub(name).tensor("weight", &shape)
    };
    Linear::new(weight, bias)
}

/// A dense layer with activation over the first token, then the classifier: `[batch, labels]`.
#[derive(Debug)]
pub struct SequenceHead {
    /// The dense layer.
    pub dense: Linear,
    /// Behind it.
    pub activation: ActivationLayer,
    /// To the labels.
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
