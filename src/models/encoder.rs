//! The encoder of the BERT family: embeddings, and layers of attention and feed-forward, each followed by a residual connection and
//! a LayerNorm. The architectures differ in the names of their weights and in the numbering of positions.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, Tensor};

use super::activation::{Activation, ActivationLayer};
use super::distance::PositionEmbedding;
use super::heads::TaskHead;
use super::layers::{
    Heads, LayerNorm, Linear, SelfAttention, attention_bias, embedding, token_type_embedding,
};
use super::weights::Weights;
use super::{ConfigError, Dimensions, Inputs, Model, Output, Rows, check_heads, check_sizes};
use crate::torchscript::{TorchError, slice};

/// Sizes of an encoder, with the names of BERT's `config.json`.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// Rows of the word embeddings.
    pub vocab_size: i64,
    /// Width of the embeddings.
    pub embedding_size: i64,
    /// Width of the hidden states.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of attention heads.
    pub num_attention_heads: i64,
    /// Width of the feed-forward's inner layer.
    pub intermediate_size: i64,
    /// Activation of the feed-forward's inner layer.
    pub hidden_act: Activation,
    /// Rows of the position embeddings.
    pub max_position_embeddings: i64,
    /// Type of position embeddings.
    pub position_embedding: PositionEmbedding,
    /// Numbering of positions.
    pub counting: Counting,
    /// Rows of the token type embeddings; 0 for architectures without token types.
    pub type_vocab_size: i64,
    /// Rows of the task type embeddings of ERNIE, whose first row is added to every token; 0 for other architectures.
    pub task_type_vocab_size: i64,
    /// Name of the linear layer from embeddings to hidden states, if there is one.
    pub projection: Option<&'static str>,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Attention heads that were removed from each layer.
    pub pruned_heads: PrunedHeads,
}

/// `pruned_heads` in `config.json`: the attention heads that were removed, by the number of the layer.
pub type PrunedHeads = BTreeMap<String, BTreeSet<i64>>;

/// Numbering of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Positions start at 0.
    FromZero,
    /// As in fairseq: padding has the id of the padding token as its position, and the first token has the next number
    /// (`create_position_ids_from_input_ids` of RoBERTa).
    AfterPadding(i64),
}

impl EncoderConfig {
    /// Checks that the sizes form a valid model.
    ///
    /// # Errors
    /// [`ConfigError`] for the first invalid size.
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
        for (layer, heads) in &self.pruned_heads {
            if heads.iter().any(|head| !(0..self.num_attention_heads).contains(head))
                || heads.len() as i64 >= self.num_attention_heads
            {
                return Err(ConfigError::Value(format!(
                    "pruned_heads removes {heads:?} from the {} heads of layer {layer}",
                    self.num_attention_heads
                )));
            }
        }
        match self.counting {
            Counting::AfterPadding(padding)
                if !(0..self.max_position_embeddings - 1).contains(&padding) =>
            {
                Err(ConfigError::Value(format!(
                    "pad_token_id {padding} leaves no usable position of {}",
                    self.max_position_embeddings
                )))
            }
            _ => Ok(()),
        }
    }

    /// The attention heads of a layer.
    fn heads(&self, layer: i64) -> Heads {
        let heads = Heads::of(self.hidden_size, self.num_attention_heads);
        let pruned = self.pruned_heads.get(&layer.to_string()).map_or(0, BTreeSet::len) as i64;
        Heads { count: heads.count - pruned, ..heads }
    }

    /// Sizes of the part of a layer after attention.
    pub(super) fn feed_forward(&self, heads: Heads) -> FeedForward {
        FeedForward {
            hidden: self.hidden_size,
            attention: heads.width(),
            intermediate: self.intermediate_size,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
        }
    }

    /// Sizes for tasks and checks.
    #[must_use]
    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden: self.hidden_size,
            vocabulary: self.vocab_size,
            positions: match (self.position_embedding, self.counting) {
                (PositionEmbedding::Absolute, Counting::AfterPadding(padding)) => {
                    self.max_position_embeddings - padding - 1
                }
                _ => self.max_position_embeddings,
            },
            output: Output::Tokens,
        }
    }
}

/// Names of the weights of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Module of the projections `query`, `key` and `value`.
    pub attention: &'static str,
    /// Names of the projections.
    pub query_key_value: [&'static str; 3],
    /// Linear layer after attention.
    pub attention_output: &'static str,
    /// LayerNorm after the attention's linear layer.
    pub attention_norm: &'static str,
    /// First linear layer of the feed-forward.
    pub intermediate: &'static str,
    /// Activation of the feed-forward, for activations with parameters.
    pub activation: &'static str,
    /// Second linear layer of the feed-forward.
    pub output: &'static str,
    /// LayerNorm after the feed-forward.
    pub norm: &'static str,
}

impl Names {
    /// Names in `BertLayer`.
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

/// An encoder: embeddings and layers.
#[derive(Debug)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    /// Indexes of the layers in the order of their use. ALBERT uses a layer several times.
    order: Vec<usize>,
}

impl Encoder {
    /// Reads `embeddings` and the layers. `layers` is the prefix of the layers, usually `encoder.layer`; `names` are the names of their weights.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        layers: &str,
        names: &Names,
        config: &EncoderConfig,
    ) -> Self {
        let embeddings = Embeddings::load(weights, config);
        let layers = weights.sub(layers);
        let layers: Vec<_> = (0..config.num_hidden_layers)
            .map(|i| EncoderLayer::load(&layers.sub(i), names, config, config.heads(i)))
            .collect();
        Self { embeddings, order: (0..layers.len()).collect(), layers }
    }

    /// Loads an encoder that uses a layer several times. `layers` are the modules of the layers, and `order` their indexes in the order of
    /// their use.
    #[must_use]
    pub fn shared(
        weights: &Weights<'_>,
        layers: &[String],
        order: Vec<usize>,
        names: &Names,
        config: &EncoderConfig,
    ) -> Self {
        let heads = Heads::of(config.hidden_size, config.num_attention_heads);
        let load = |name: &String| EncoderLayer::load(&weights.sub(name), names, config, heads);
        let embeddings = Embeddings::load(weights, config);
        Self { embeddings, layers: layers.iter().map(load).collect(), order }
    }

    /// Word embeddings, for a tied decoder.
    pub fn words(&self) -> &Tensor {
        &self.embeddings.words
    }

    /// Returns the hidden states of `rows`, `[batch, rows, hidden]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, rows: Rows, inputs: &Inputs) -> Result<Tensor, TorchError> {
        self.forward_with(&attention_bias(&inputs.attention_mask)?, rows, inputs)
    }

    /// Returns the hidden states of `rows`, `[batch, rows, hidden]`. `bias` is added to the attention scores of every layer and includes the
    /// mask.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward_with(
        &self,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let mut hidden_states = self.embeddings.forward(inputs)?;
        let layers = self.order.iter().filter_map(|&index| self.layers.get(index));
        for (layer, rows) in rows.by_layer(layers) {
            hidden_states = layer.forward(&hidden_states, bias, rows, inputs)?;
        }
        Ok(hidden_states)
    }
}

/// Normalized sum of word, position and token type embeddings (`BertEmbeddings`), and its projection where the architecture has one
/// (`embeddings_project` of ELECTRA, `embedding_hidden_mapping_in` of ALBERT).
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) words: Tensor,
    positions: Option<Tensor>,
    counting: Counting,
    /// `None` if there is only one token type, which is then part of the position embeddings.
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
            // The file contains this tensor although the model does not use it.
            embeddings.ignore_all("position_embeddings");
        }
        let types = config.type_vocab_size;
        let mut token_types = (types > 0).then(|| table("token_type_embeddings", types));
        if config.task_type_vocab_size > 0
            && let Some(kinds) = &mut token_types
        {
            let tasks = table("task_type_embeddings", config.task_type_vocab_size);
            *kinds = weights.derived(|| Ok(kinds.f_add(&tasks.f_narrow(0, 0, 1)?)?));
        }
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
            words: embeddings
                .sub("word_embeddings")
                .vocabulary_tensor("weight", &[config.vocab_size, width]),
            positions,
            counting: config.counting,
            token_types,
            types,
            norm: LayerNorm::load(&embeddings.sub("LayerNorm"), width, config.layer_norm_eps),
            projection: config
                .projection
                .map(|name| Linear::load(&weights.sub(name), width, config.hidden_size)),
        }
    }

    pub(super) fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut sum = embedding(&self.words, &inputs.input_ids)?;
        if let Some(table) = &self.token_types {
            sum = sum.f_add(&token_type_embedding(table, self.types, inputs)?)?;
        }
        if let Some(table) = &self.positions {
            let positions = match self.counting {
                // Positions are the same in every row, as in the server's position_ids, so a slice replaces the look-up.
                Counting::FromZero => slice(table, 0, &inputs.tokens)?,
                Counting::AfterPadding(padding) => {
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

/// Position ids `[batch, tokens]`: `padding` at padding, otherwise the index of the token in its row, starting at `padding + 1`.
fn behind_padding(input_ids: &Tensor, padding: i64) -> Result<Tensor, TorchError> {
    let real = input_ids.f_ne(padding)?;
    Ok(real.f_cumsum(1, Kind::Int64)?.f_mul(&real)?.f_add_scalar(padding)?)
}

/// `BertLayer`.
#[derive(Debug)]
struct EncoderLayer {
    attention: SelfAttention,
    rest: PostAttention,
}

impl EncoderLayer {
    fn load(weights: &Weights<'_>, names: &Names, config: &EncoderConfig, heads: Heads) -> Self {
        let (hidden, positions) = (config.hidden_size, config.max_position_embeddings);
        let attention = weights.sub(names.attention);
        Self {
            attention: SelfAttention::load(&attention, names.query_key_value, hidden, heads)
                .with_distances(&attention, config.position_embedding, positions),
            rest: PostAttention::load(weights, names, config.feed_forward(heads)),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let context = self.attention.forward(hidden_states, bias, rows, inputs)?;
        self.rest.forward(&context, &rows.of_states(hidden_states)?)
    }
}

/// Sizes of [`LayerOutput`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedForward {
    /// Width of the hidden states.
    pub(super) hidden: i64,
    /// Width of the output of the attention.
    pub(super) attention: i64,
    /// Width of the inner layer.
    pub(super) intermediate: i64,
    /// Activation between the two linear layers.
    pub(super) activation: Activation,
    /// Epsilon of both norms.
    pub(super) epsilon: f64,
}

/// The part of a layer after attention: output projection and feed-forward, each followed by a residual connection and a LayerNorm.
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
        let FeedForward { hidden, attention, intermediate, activation, epsilon } = sizes;
        let linear = |name, inputs, outputs| Linear::load(&weights.sub(name), inputs, outputs);
        let norm = |name| LayerNorm::load(&weights.sub(name), hidden, epsilon);
        Self {
            attention_output: linear(names.attention_output, attention, hidden),
            attention_norm: norm(names.attention_norm),
            intermediate: linear(names.intermediate, hidden, intermediate),
            activation: ActivationLayer::load(activation, &weights.sub(names.activation)),
            output: linear(names.output, intermediate, hidden),
            norm: norm(names.norm),
        }
    }

    /// `context` is the result of attention for the tokens of `hidden_states`. Both and the result are `[batch, rows, hidden]`.
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

/// An encoder with a head, which is the complete model for most of the BERT family.
#[derive(Debug)]
pub struct EncoderModel {
    /// Encoder.
    pub encoder: Encoder,
    /// Head.
    pub head: TaskHead,
}

impl Model for EncoderModel {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let rows = self.head.rows(inputs);
        self.head.forward(&self.encoder.forward(rows, inputs)?, inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_positions_equal_padding_id_and_tokens_follow() {
        let ids = Tensor::from_slice(&[0i64, 7, 7, 2, 1, 1, 0, 1, 9, 2, 1, 1]).view([2, 6]);
        let positions = behind_padding(&ids, 1).unwrap();
        // This includes a padding token within the text, as in Transformers.
        let expected = Tensor::from_slice(&[2i64, 3, 4, 5, 1, 1, 2, 1, 3, 4, 1, 1]).view([2, 6]);
        assert_eq!(positions, expected);
        assert_eq!(positions.kind(), Kind::Int64);
    }
}
