//! Feed-forward of a layer: two linear layers with an activation, or a gated linear unit (Shazeer 2020, arXiv:2002.05202).

use tch::Tensor;

use crate::models::activation::ActivationLayer;
use crate::models::layers::Linear;
use crate::torchscript::TorchError;

/// Inner layer of a feed-forward.
#[derive(Debug)]
pub enum Inner {
    /// `activation(inner(x))`.
    Plain(Linear),
    /// `activation(activated(x)) * gate(x)`.
    ///
    /// Checkpoints hold both layers in one tensor or in two, in either order. The wrong order computes plausible numbers, so each
    /// architecture states which half is which: `let [activated, gate] = Linear::packed(…)`.
    Gated {
        /// The linear layer before the activation.
        activated: Linear,
        /// The linear layer without activation.
        gate: Linear,
    },
}

/// Feed-forward without residual connection and norm.
#[derive(Debug)]
pub struct FeedForward {
    /// From the hidden states to the inner width.
    pub inner: Inner,
    /// Activation of the inner layer.
    pub activation: ActivationLayer,
    /// From the inner width to the hidden states.
    pub output: Linear,
}

impl FeedForward {
    /// Maps `[batch, tokens, hidden]` to `[batch, tokens, hidden]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, states: &Tensor) -> Result<Tensor, TorchError> {
        let activate = |x: &Tensor| self.activation.forward(x);
        let inner = match &self.inner {
            Inner::Plain(inner) => activate(&inner.forward(states)?)?,
            Inner::Gated { activated, gate } => {
                activate(&activated.forward(states)?)?.f_mul(&gate.forward(states)?)?
            }
        };
        self.output.forward(&inner)
    }
}
