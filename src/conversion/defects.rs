//! Graphs with a known defect, to recognize the defect in a served model.

use std::fmt;

use tch::Tensor;

use super::{Conversion, ConversionError};
use crate::config::PoolingMode;
use crate::models::{Inputs, RowForm};
use crate::tasks::GraphOutput;
use crate::torchscript::{Module, OneThread, TorchError};

/// Padding id that no row contains.
const NO_PADDING: i64 = -1;

/// Tokens of the example that a graph is traced with.
const TOKENS: i64 = 16;

/// A mistake that a graph can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// All tokens of a pair have type 0, although the model was trained with type 1 for the second text.
    TokenTypes,
    /// Padding tokens take part in attention and pooling.
    Padding,
    /// The token vectors are pooled in another way.
    Pooling(PoolingMode),
    /// Embeddings keep their length, although the model scales them to length 1.
    Length,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenTypes => {
                "token types: all tokens of a pair have type 0, although the model was trained with type 1 for the second text"
            }
            Self::Padding => "padding: the graph reads padding tokens as if they were text",
            Self::Pooling(PoolingMode::Cls) => {
                "pooling: the graph returns the vector of the first token"
            }
            Self::Pooling(PoolingMode::Max) => {
                "pooling: the graph returns the maximum over the tokens"
            }
            Self::Pooling(PoolingMode::Mean) => {
                "pooling: the graph returns the mean over the tokens"
            }
            Self::Pooling(PoolingMode::MeanSqrtLen) => {
                "pooling: the graph divides the sum of the tokens by the root of their number"
            }
            Self::Pooling(PoolingMode::WeightedMean) => {
                "pooling: the graph weights the tokens by their position"
            }
            Self::Pooling(PoolingMode::LastToken) => {
                "pooling: the graph returns the vector of the last token"
            }
            Self::Length => "normalization: the graph does not scale embeddings to length 1",
        })
    }
}

impl Conversion {
    /// The mistakes that a graph of the model can contain.
    #[must_use]
    pub fn possible_defects(&self) -> Vec<Defect> {
        const MODES: [PoolingMode; 6] = [
            PoolingMode::Mean,
            PoolingMode::Cls,
            PoolingMode::Max,
            PoolingMode::MeanSqrtLen,
            PoolingMode::WeightedMean,
            PoolingMode::LastToken,
        ];
        let mut defects = Vec::new();
        if let RowForm::Pair { typed: true, .. } = self.network.form {
            defects.push(Defect::TokenTypes);
        }
        // The server fills the mask with the id of the padding token, so that 0 hides the padding.
        if self.network.special.padding != 0 {
            defects.push(Defect::Padding);
        }
        if let Some(embedder) = self.network.output.embedder() {
            if let Some(own) = embedder.pooling() {
                defects.extend(MODES.into_iter().filter(|mode| *mode != own).map(Defect::Pooling));
            }
            if embedder.is_normalized() {
                defects.push(Defect::Length);
            }
        }
        defects
    }

    /// Traces the graph with a defect.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn trace_with_defect(&self, defect: Defect) -> Result<Module, ConversionError> {
        let _one = OneThread::begin();
        let example = self.example(TOKENS.min(self.limit.tokens.into()))?;
        Ok(Module::trace(&example, |tensors| self.forward_with_defect(tensors, defect))?)
    }

    fn forward_with_defect(
        &self,
        tensors: &[Tensor],
        defect: Defect,
    ) -> Result<Tensor, TorchError> {
        let network = &self.network;
        let (mut form, mut special) = (network.form.clone(), network.special);
        match (defect, &mut form) {
            (Defect::TokenTypes, RowForm::Pair { typed, .. }) => *typed = false,
            (Defect::Padding, _) => special.padding = NO_PADDING,
            _ => {}
        }
        let inputs = Inputs::of_server(tensors, special, &form, network.attention)?
            .of_at_most(self.limit.tokens.into());
        let output = network.model.forward(&inputs)?;
        match (&network.output, defect) {
            (GraphOutput::Embedding(embedder), Defect::Pooling(mode)) => {
                embedder.forward_with(&output, &inputs, Some(mode), true)
            }
            (GraphOutput::Embedding(embedder), Defect::Length) => {
                embedder.forward_with(&output, &inputs, None, false)
            }
            (graph_output, _) => graph_output.forward(&output, &inputs),
        }
    }
}
