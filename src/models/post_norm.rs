//! An encoder with rotary or absolute positions, whose norms follow the residual connections (GTE, jina-embeddings-v3).

use tch::Tensor;

use super::blocks::{Angles, Attention, FeedForward, Rotary};
use super::encoder::Embeddings;
use super::heads::TaskHead;
use super::layers::{LayerNorm, attention_bias};
use super::{Inputs, Model, Rows};
use crate::torchscript::TorchError;

/// The encoder with a head.
pub(super) struct PostNormEncoder {
    pub(super) embeddings: Embeddings,
    /// Rotary positions; `None` if the embeddings contain the positions.
    pub(super) rotary: Option<Rotary>,
    pub(super) layers: Vec<PostNormLayer>,
    pub(super) head: TaskHead,
}

impl Model for PostNormEncoder {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let bias = attention_bias(&inputs.attention_mask)?;
        let angles = self.rotary.as_ref().map(|rotary| rotary.angles(inputs)).transpose()?;
        let mut states = self.embeddings.forward(inputs)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            states = layer.forward(&states, &bias, angles.as_ref(), rows, inputs)?;
        }
        self.head.forward(&states, inputs)
    }
}

/// A layer with norms after the residual connections.
pub(super) struct PostNormLayer {
    pub(super) attention: Attention,
    pub(super) attention_norm: LayerNorm,
    pub(super) feed_forward: FeedForward,
    pub(super) feed_forward_norm: LayerNorm,
}

impl PostNormLayer {
    fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        angles: Option<&Angles>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let attended = self.attention.forward(states, bias, angles, rows, inputs)?;
        let states = self.attention_norm.forward(&rows.of_states(states)?.f_add(&attended)?)?;
        let fed = self.feed_forward.forward(&states)?;
        self.feed_forward_norm.forward(&states.f_add(&fed)?)
    }
}
