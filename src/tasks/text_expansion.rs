//! text_expansion: a weight for every token of the vocabulary (SPLADE, Formal et al. 2021, arXiv:2109.10086).

use tch::{Kind, Tensor};

use super::Definition;
use super::agreement::{HEAVIEST, Measure};
use crate::models::{Head, Inputs};
use crate::torchscript::TorchError;

/// `[batch, vocabulary]`: max over tokens of log(1 + relu(logits)), for the tokens that are uploaded.
///
/// The server takes one row as finished weights, so the pooling is part of the graph.
pub(super) struct TextExpansion;

impl Definition for TextExpansion {
    fn name(&self) -> &'static str {
        "text_expansion"
    }

    fn head(&self) -> Head {
        Head::MaskedLm
    }

    fn output(
        &self,
        logits: &Tensor,
        inputs: &Inputs,
        vocabulary: i64,
    ) -> Result<Tensor, TorchError> {
        // log(1 + relu(x)) never falls, so it can wait until one row is left; padding becomes 0, the least that relu gives.
        let mask = inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(-1)?;
        let (most, _) = logits.f_mul(&mask)?.f_max_dim(1, false)?;
        let weights = most.f_relu()?.f_add_scalar(1.)?.f_log()?;
        // Many tables have more rows than there are tokens, and the server fails on a weight that it has no token for.
        match weights.size().last() {
            Some(&rows) if rows > vocabulary => Ok(weights.f_slice(1, 0, vocabulary, 1)?),
            _ => Ok(weights),
        }
    }

    fn agreement(&self) -> &'static Measure {
        &HEAVIEST
    }
}
