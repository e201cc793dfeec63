//! Building blocks of encoders newer than BERT: rotary or linear positions, gated feed-forwards, sliding windows, and norms and linear
//! layers without bias. Shapes are `[batch, tokens, hidden]` unless stated otherwise.
//!
//! An architecture file composes the blocks as its paper does:
//!
//! 1. `load` reads the weights. [`Linear`](super::layers::Linear) and [`LayerNorm`] have the constructors `load` (with bias),
//!    `without_bias` and `with_bias_if`; `Linear::packed` reads several layers from one tensor without a copy. Blocks have public
//!    fields, so that the file states which tensor is which part: [`Attention`] with an optional [`QueryKeyNorm`], and
//!    [`FeedForward`] with an [`Inner`], plain or gated.
//! 2. `forward` of the model computes what all layers share, once per pass: the bias of the attention scores from
//!    [`attention_bias`](super::layers::attention_bias), passed on to [`AttentionScope::window`] or [`Alibi::bias`], and the
//!    [`Angles`] of a [`Rotary`].
//! 3. `forward` of a layer states the order of norms and residual connections, and passes its bias and angles to
//!    [`Attention::forward`], or its scope to [`Attention::forward_within`]. [`Rows`](super::Rows) states whether the output is read for all
//!    tokens; [`Rows::by_layer`](super::Rows::by_layer) returns them for each layer:
//!
//! ```ignore
//! // Norms before attention and feed-forward (ModernBERT).
//! let attended = self.attention.forward_within(&self.attention_norm.forward(states)?, scope, Some(angles), rows, inputs)?;
//! let states = rows.of_states(states)?.f_add(&attended)?;
//! states.f_add(&self.feed_forward.forward(&self.feed_forward_norm.forward(&states)?)?)
//! // Norms after the residual connections (GTE, nomic).
//! let attended = self.attention.forward(states, bias, Some(angles), rows, inputs)?;
//! let states = self.attention_norm.forward(&rows.of_states(states)?.f_add(&attended)?)?;
//! self.feed_forward_norm.forward(&states.f_add(&self.feed_forward.forward(&states)?)?)
//! ```
//!
//! Angles, biases and slopes are float32. The graphs run on any number of rows and tokens.

mod alibi;
mod attention;
mod feed_forward;
mod masks;
mod norm;
mod rotary;
mod scope;

pub use alibi::Alibi;
pub use attention::{Attention, QueryKeyNorm};
pub use feed_forward::{FeedForward, Inner};
pub use masks::{sliding_window_bias, token_distances, window_bias};
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{Angles, Rotary};
pub use scope::{AttentionScope, WindowBlocks, block_length};

#[cfg(test)]
mod tests;
