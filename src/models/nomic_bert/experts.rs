//! Mixture of experts (Shazeer et al. 2017, arXiv:1701.06538): feed-forwards of which a router selects a few for each token.
//!
//! The graph computes all experts for every token, and adds those of the router with their shares. Elasticsearch accepts no operation
//! that selects experts, and the work is the same for every text.

use tch::{Kind, Tensor};

use super::config::NomicBertConfig;
use crate::models::activation::Activation;
use crate::models::layers::Linear;
use crate::models::weights::Weights;
use crate::torchscript::TorchError;

/// `NomicMoELayer`.
#[derive(Debug)]
pub(super) struct Experts {
    router: Linear,
    /// Of each expert, the layer to the inner width and the matrix back, `[inner, hidden]`.
    experts: Vec<(Linear, Tensor)>,
    activation: Activation,
    bias: Tensor,
    /// Number of experts that are added for a token.
    selected: i64,
}

impl Experts {
    pub(super) fn load(weights: &Weights<'_>, config: &NomicBertConfig) -> Self {
        let (hidden, inner, count) = (config.n_embd, config.inner(), config.num_experts);
        let matrices =
            |name: &str| weights.sub("experts.mlp").split(name, &[count * inner, hidden], count);
        let inner = matrices("w1").into_iter().map(|weight| Linear::new(weight, None));
        Self {
            router: Linear::without_bias(&weights.sub("router.layer"), hidden, count),
            experts: inner.zip(matrices("w2")).collect(),
            activation: config.function().of_layers(),
            bias: weights.sub("experts").tensor("bias", &[hidden]),
            selected: config.moe_top_k,
        }
    }

    /// Maps `[batch, tokens, hidden]` to `[batch, tokens, hidden]`.
    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor, TorchError> {
        let shares = self.shares(states)?;
        let mut sum = self.bias.shallow_clone();
        for (number, (inner, outer)) in (0..).zip(&self.experts) {
            let fed = self.activation.forward(&inner.forward(states)?)?.f_matmul(outer)?;
            sum = fed.f_mul(&shares.f_slice(-1, number, number + 1, 1)?)?.f_add(&sum)?;
        }
        Ok(sum)
    }

    /// The share of each expert, `[batch, tokens, experts]`. Those of experts that are not selected are 0, and the others are not scaled
    /// to a sum of 1.
    fn shares(&self, states: &Tensor) -> Result<Tensor, TorchError> {
        let shares = self.router.forward(states)?.f_softmax(-1, Kind::Float)?;
        let mut least = shares.f_max_dim(-1, true)?.0;
        for _ in 1..self.selected {
            let rest = shares.f_masked_fill(&shares.f_ge_tensor(&least)?, 0.)?;
            least = rest.f_max_dim(-1, true)?.0;
        }
        Ok(shares.f_mul(&shares.f_ge_tensor(&least)?)?)
    }
}
