//! The rows of the last hidden states that a graph reads.
//!
//! If a graph reads the first token only, the last layer computes queries, the output of attention and the feed-forward for that token
//! alone. Keys and values are those of all tokens, so the values do not change.

use tch::Tensor;

use crate::torchscript::TorchError;

/// The tokens whose last hidden states are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// All tokens.
    #[default]
    All,
    /// The first token of each text, for example by CLS pooling or a classifier.
    First,
}

impl Rows {
    /// Pairs each layer with the tokens whose output is read: all tokens, except in the last layer.
    pub fn by_layer<T>(
        self,
        layers: impl IntoIterator<Item = T>,
    ) -> impl Iterator<Item = (T, Self)> {
        let mut layers = layers.into_iter().peekable();
        std::iter::from_fn(move || {
            let layer = layers.next()?;
            Some((layer, if layers.peek().is_some() { Self::All } else { self }))
        })
    }

    /// The states of these tokens: `[batch, tokens, width]` or `[batch, 1, width]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn of_states(self, states: &Tensor) -> Result<Tensor, TorchError> {
        self.along(1, states)
    }

    /// The scores of the queries of these tokens, or a bias on them: `[batch, heads, tokens, tokens]` or `[batch, heads, 1, tokens]`. Axes of
    /// size 1 are kept.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn of_scores(self, scores: &Tensor) -> Result<Tensor, TorchError> {
        self.along(2, scores)
    }

    fn along(self, axis: i64, tensor: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            Self::All => Ok(tensor.shallow_clone()),
            Self::First => Ok(tensor.f_slice(axis, 0, 1, 1)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Head;
    use crate::models::tests::{loaded_with_random_weights, variants};
    use crate::models::{AttentionForm, Inputs, RowForm};
    use crate::special_tokens::SpecialTokens;

    #[test]
    fn only_the_last_layer_computes_the_first_token_alone() {
        let of = |layers: usize| Rows::First.by_layer(0..layers).collect::<Vec<_>>();
        assert_eq!(of(3), [(0, Rows::All), (1, Rows::All), (2, Rows::First)]);
        assert_eq!(of(1), [(0, Rows::First)]);
        assert_eq!(Rows::All.by_layer(0..2).collect::<Vec<_>>(), [(0, Rows::All), (1, Rows::All)]);
    }

    #[test]
    fn first_token_alone_has_the_states_that_it_has_among_all_tokens() {
        let ids = Tensor::from_slice2(&[[3i64, 4, 5, 6, 2], [3, 7, 2, 0, 0]]);
        let special =
            SpecialTokens { padding: 0, separator: 2, appended: None, without_embedding: None };
        for (model_type, config) in variants() {
            let model = loaded_with_random_weights(model_type, &config, Head::Base);
            for form in [AttentionForm::Plain, AttentionForm::Fused] {
                let states = |rows: Rows| {
                    let tensors = [ids.shallow_clone(), ids.ones_like()];
                    let inputs = Inputs::of_server(&tensors, special, &RowForm::Single, form);
                    model.forward(&inputs.unwrap().reading(rows)).unwrap()
                };
                let (all, first) = (states(Rows::All), states(Rows::First));
                if all.dim() == 2 || model_type == "bart" {
                    // One vector for each text, or a decoder.
                    assert_eq!(all.size(), first.size());
                    continue;
                }
                let width = all.size()[2];
                assert_eq!(first.size(), [2, 1, width], "{config}");
                let difference = (all.narrow(1, 0, 1) - &first).abs().max().double_value(&[]);
                let spread = (all.max() - all.min()).double_value(&[]);
                assert!(difference < 1e-4 && spread > 0.1, "{difference} {spread} {config}");
            }
        }
    }
}
