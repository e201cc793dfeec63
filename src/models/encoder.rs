//! The encoder of BERT and its relatives: embeddings, and layers of attention and feed-forward, each with a residual connection and
//! a norm behind it. What sets the relatives apart are the names of their weights and how they count positions.

use tch::{Kind, Tensor};

use super::activation::{Activation, ActivationLayer};
use super::distance::PositionEmbedding;
use super::heads::TaskHead;
use super::layers::{
    LayerNorm, Linear, SelfAttention, attention_bias, embedding, token_type_embedding,
};
use super::weights::Weights;
use super::{ConfigError, Dimensions, Inputs, Model, Output, check_heads, check_sizes};
use crate::torchscript::{TorchError, slice};

/// What sets an encoder's size, in the words of BERT's `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Rows of the table of words.
    pub vocab_size: i64,
    /// Width of the embeddings.
    pub embedding_size: i64,
    /// Width of the hidden states.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of attention heads.
    pub num_attention_heads: i64,
    /// Width between the two linear layers of the feed-forward.
    pub intermediate_size: i64,
    /// Between them.
    pub hidden_act: Activation,
    /// Rows of the table of positions.
    pub max_position_embeddings: i64,
    /// How positions make themselves felt.
    pub position_embedding: PositionEmbedding,
    /// How positions are counted.
    pub counting: Counting,
    /// Rows of the table of token types; 0 where the architecture has none.
    pub type_vocab_size: i64,
    /// Of all norms.
    pub layer_norm_eps: f64,
}

/// How positions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// From 0.
    FromZero,
    /// As fairseq does: padding stands at the id of the padding token, and the first token right behind that
    /// (`create_position_ids_from_input_ids` of RoBERTa).
    BehindPadding(i64),
}

impl EncoderConfig {
    /// Checks that the sizes make a model.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("embedding_size", self.embedding_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        if self.type_vocab_size != 0 {
            check_sizes(&[("type_vocab_size", self.type_vocab_size)])?;
        }
        check_heads(
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
        )?;
        match self.counting {
            Counting::BehindPadding(padding)
                if !(0..self.max_position_embeddings - 1).contains(&padding) =>
            {
                Err(ConfigError::Value(format!(
                    "pad_token_id {padding} leaves none of the {} positions",
                    self.max_position_embeddings
                )))
            }
            _ => Ok(()),
        }
    }

    fn feed_forward(&self) -> FeedForward {
        FeedForward {
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
        }
    }

    /// The sizes that tasks and checks need.
    #[must_use]
    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden: self.hidden_size,
            vocabulary: self.vocab_size,
            positions: match (self.position_embedding, self.counting) {
                (PositionEmbedding::Absolute, Counting::BehindPadding(padding)) => {
                    self.max_position_embeddings - padding - 1
                }
                _ => self.max_position_embeddings,
            },
            output: Output::Tokens,
        }
    }
}

/// The names of a layer's weights.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The module that holds `query`, `key` and `value`.
    pub attention: &'static str,
    /// The projections.
    pub query_key_value: [&'static str; 3],
    /// Behind attention.
    pub attention_output: &'static str,
    /// Behind that.
    pub attention_norm: &'static str,
    /// The first layer of the feed-forward.
    pub intermediate: &'static str,
    /// Its activation, for the few that learn something.
    pub activation: &'static str,
    /// The second layer of the feed-forward.
    pub output: &'static str,
    /// Behind that.
    pub norm: &'static str,
}

impl Names {
    /// `BertLayer`'s.
    pub const BERT: Self = Self {
        attention: "attention.self",
        query_key_value: ["query", "key", "value"],
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        intermediate: "intermediate.dense",
        activation: "intermediate.intermediate_act_fn",
        output: "output.dense",
        norm: "output.LayerNorm",
    };
}

/// Embeddings and layers.
#[derive(Debug)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// Reads `embeddings` and the layers, which `names` calls as `layers` does: `encoder.layer` in most.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        layers: &str,
        names: &Names,
        config: &EncoderConfig,
    ) -> Self {
        let embeddings = Embeddings::load(weights, config);
        let layers = weights.sub(layers);
        let layers = (0..config.num_hidden_layers)
            .map(|i| EncoderLayer::load(&layers.sub(i), names, config))
            .collect();
        Self { embeddings, layers }
    }

    /// The table of words, for a decoder that is tied to it.
    pub fn words(&self) -> &Tensor {
        &self.embeddings.words
    }

    /// The hidden states, `[batch, tokens, hidden]`.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        self.forward_with(inputs, &attention_bias(&inputs.attention_mask)?)
    }

    /// The hidden states, with a bias of the architecture's own on the attention scores of every layer, padding included.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn forward_with(&self, inputs: &Inputs, bias: &Tensor) -> Result<Tensor, TorchError> {
        let mut hidden_states = self.embeddings.forward(inputs)?;
        for layer in &self.layers {
            hidden_states = layer.forward(&hidden_states, bias, inputs)?;
        }
        Ok(hidden_states)
    }
}

/// The sum of the embeddings of words, positions and token types under a norm (`BertEmbeddings`), widened where the layers are wider
/// (`embeddings_project` of ELECTRA).
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) words: Tensor,
    positions: Option<Tensor>,
    counting: Counting,
    /// None where there is but one type, which every position then holds already.
    token_types: Option<Tensor>,
    types: i64,
    norm: LayerNorm,
    projection: Option<Linear>,
}

impl Embeddings {
    pub(super) fn load(weights: &Weights<'_>, config: &EncoderConfig) -> Self {
        let embeddings = weights.sub("embeddings");
        let width = config.embedding_size;
        let table = |name: &str, rows| embeddings.sub(name).tensor("weight", &[rows, width]);
        let mut positions = None;
        if config.position_embedding == PositionEmbedding::Absolute {
            positions = Some(table("position_embeddings", config.max_position_embeddings));
        } else {
            // In the file all the same.
            embeddings.ignore_all("position_embeddings");
        }
        let types = config.type_vocab_size;
        let mut token_types = (types > 0).then(|| table("token_type_embeddings", types));
        if types == 0 {
            embeddings.ignore_all("token_type_embeddings");
        }
        if types == 1
            && let (Some(places), Some(kinds)) = (&positions, &token_types)
        {
            positions = Some(weights.derived(|| Ok(places.f_add(kinds)?)));
            token_types = None;
        }
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions,
            counting: config.counting,
            token_types,
            types,
            norm: LayerNorm::load(&embeddings.sub("LayerNorm"), width, config.layer_norm_eps),
            projection: (width != config.hidden_size).then(|| {
                Linear::load(&weights.sub("embeddings_project"), width, config.hidden_size)
            }),
        }
    }

    pub(super) fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut sum = embedding(&self.words, &inputs.input_ids)?;
        if let Some(table) = &self.token_types {
            sum = sum.f_add(&token_type_embedding(table, self.types, inputs)?)?;
        }
        if let Some(table) = &self.positions {
            let positions = match self.counting {
                // Alike in every row, as the server's position_ids are: a slice of the table needs no look-up.
                Counting::FromZero => slice(table, 0, &inputs.tokens)?,
                Counting::BehindPadding(padding) => {
                    embedding(table, &behind_padding(&inputs.input_ids, padding)?)?
                }
            };
            sum = sum.f_add(&positions)?;
        }
        let normed = self.norm.forward(&sum)?;
        match &self.projection {
            Some(projection) => projection.forward(&normed),
            None => Ok(normed),
        }
    }
}

/// `[batch, tokens]`: `padding` at padding, elsewhere the number of the token in its row, from `padding + 1` on.
fn behind_padding(input_ids: &Tensor, padding: i64) -> Result<Tensor, TorchError> {
    let real = input_ids.f_ne(padding)?;
    Ok(real.f_cumsum(1, Kind::Int64)?.f_mul(&real)?.f_add_scalar(padding)?)
}

/// `BertLayer` and its many copies.
#[derive(Debug)]
struct EncoderLayer {
    attention: SelfAttention,
    rest: PostAttention,
}

impl EncoderLayer {
    fn load(weights: &Weights<'_>, names: &Names, config: &EncoderConfig) -> Self {
        let (hidden, positions) = (config.hidden_size, config.max_position_embeddings);
        let attention = weights.sub(names.attention);
        Self {
            attention: SelfAttention::load(
                &attention,
                names.query_key_value,
                hidden,
                config.num_attention_heads,
            )
            .with_distances(&attention, config.position_embedding, positions),
            rest: PostAttention::load(weights, names, config.feed_forward()),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        self.rest.forward(&self.attention.forward(hidden_states, bias, inputs)?, hidden_states)
    }
}

/// Sizes of what follows the attention in a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedForward {
    /// Width of the hidden states.
    pub(super) hidden: i64,
    /// Width between the two linear layers.
    pub(super) intermediate: i64,
    /// Activation between the two linear layers.
    pub(super) activation: Activation,
    /// Epsilon of both norms.
    pub(super) epsilon: f64,
}

/// What follows the attention in a layer: its output projection and the feed-forward, each with a residual connection and a norm.
#[derive(Debug)]
pub(super) struct PostAttention {
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: ActivationLayer,
    output: Linear,
    norm: LayerNorm,
}

impl PostAttention {
    pub(super) fn load(weights: &Weights<'_>, names: &Names, sizes: FeedForward) -> Self {
        let FeedForward { hidden, intermediate, activation, epsilon } = sizes;
        let linear = |name, inputs, outputs| Linear::load(&weights.sub(name), inputs, outputs);
        let norm = |name| LayerNorm::load(&weights.sub(name), hidden, epsilon);
        Self {
            attention_output: linear(names.attention_output, hidden, hidden),
            attention_norm: norm(names.attention_norm),
            intermediate: linear(names.intermediate, hidden, intermediate),
            activation: ActivationLayer::load(activation, &weights.sub(names.activation)),
            output: linear(names.output, intermediate, hidden),
            norm: norm(names.norm),
        }
    }

    /// `context` is what the attention returns for `hidden_states`; both and the result are `[batch, tokens, hidden]`.
    pub(super) fn forward(
        &self,
        context: &Tensor,
        hidden_states: &Tensor,
    ) -> Result<Tensor, TorchError> {
        let attended = self
            .attention_norm
            .forward(&self.attention_output.forward(context)?.f_add(hidden_states)?)?;
        let inner = self.activation.forward(&self.intermediate.forward(&attended)?)?;
        self.norm.forward(&self.output.forward(&inner)?.f_add(&attended)?)
    }
}

/// An encoder under a head: all that most of BERT's relatives are.
#[derive(Debug)]
pub struct EncoderModel {
    /// The encoder.
    pub encoder: Encoder,
    /// The head.
    pub head: TaskHead,
}

impl Model for EncoderModel {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        self.head.forward(&self.encoder.forward(inputs)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_positions_equal_padding_id_and_tokens_follow() {
        let ids = Tensor::from_slice(&[0i64, 7, 7, 2, 1, 1, 0, 1, 9, 2, 1, 1]).view([2, 6]);
        let positions = behind_padding(&ids, 1).unwrap();
        // A padding token within the text too, as in Transformers.
        let expected = Tensor::from_slice(&[2i64, 3, 4, 5, 1, 1, 2, 1, 3, 4, 1, 1]).view([2, 6]);
        assert_eq!(positions, expected);
        assert_eq!(positions.kind(), Kind::Int64);
    }
}
