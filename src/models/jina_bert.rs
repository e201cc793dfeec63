//! JinaBERT v2 (Günther et al. 2023, arXiv:2310.19923; `modeling_bert.py` of jinaai/jina-bert-implementation and of
//! jinaai/jina-bert-v2-qk-post-norm): BERT with linear biases on the attention instead of positions, and a gated feed-forward.
//!
//! Both classes have the `model_type` bert and equal fields in `config.json`. The names of the weights tell them apart.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::activation::Activation;
use super::bert::{self, BertConfig};
use super::blocks::{Alibi, Attention, FeedForward, Inner, QueryKeyNorm};
use super::distance::PositionEmbedding;
use super::encoder::{Embeddings, EncoderConfig};
use super::heads::TaskHead;
use super::layers::{Heads, LayerNorm, Linear, attention_bias};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Inputs, Model, Rows, check_encoder,
    read_config_over,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Whether a folder contains a JinaBERT v2.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    let positions = evidence.config.get("position_embedding_type");
    let parts = [".mlp.gated_layers.", ".mlp.up_gated_layer."];
    evidence.is_untyped_with(&parts)
        || evidence.is("bert")
            && (positions.is_some_and(|positions| positions == "alibi")
                || parts.iter().any(|part| evidence.has_tensor(part)))
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["bert"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &["pooler", "cls"],
};

/// `JinaBertConfig`.
#[derive(Debug, Deserialize)]
struct JinaBertConfig {
    #[serde(flatten)]
    bert: BertConfig,
    position_embedding_type: Positions,
    feed_forward_type: FeedForwardType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Positions {
    Absolute,
    Alibi,
}

/// Gated feed-forwards. `original`, which is BERT's, is the default of the class, but no published model has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FeedForwardType {
    Geglu,
    Original,
    Reglu,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(JinaBertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let defaults =
        json!({ "position_embedding_type": "absolute", "feed_forward_type": "original" });
    let config: JinaBertConfig = read_config_over(defaults, config)?;
    if config.feed_forward_type == FeedForwardType::Original {
        return Err(ConfigError::Unsupported(
            "feed_forward_type original (the default)".into(),
            "only the gated forms of JinaBERT, geglu and reglu, are known",
        ));
    }
    let position_embedding = match config.position_embedding_type {
        Positions::Absolute => PositionEmbedding::Absolute,
        Positions::Alibi => PositionEmbedding::None,
    };
    let sizes = EncoderConfig { position_embedding, ..config.bert.sizes() };
    sizes.check()?;
    Ok((config, sizes))
}

/// Sizes of a JinaBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a JinaBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let embeddings = Embeddings::load(&base, &sizes);
    let layers = base.sub("encoder.layer");
    let is_post_norm = is_post_norm(&layers.sub(0), blueprint.config);
    let is_gelu = config.feed_forward_type != FeedForwardType::Reglu;
    let activation = if is_gelu { Activation::Gelu } else { Activation::Relu };
    let layers = (0..sizes.num_hidden_layers)
        .map(|i| Layer::load(&layers.sub(i), &sizes, activation, is_post_norm))
        .collect();
    let tied = config.bert.tie_word_embeddings;
    let head = TaskHead::load(
        weights,
        blueprint,
        sizes.hidden_size,
        || bert::lm_head(weights, &sizes, &embeddings.words, tied),
        || bert::pooled_head(weights, sizes.hidden_size, blueprint.labels),
    );
    let alibi = (config.position_embedding_type == Positions::Alibi)
        .then(|| Alibi::new(&base, sizes.num_attention_heads));
    Ok(Box::new(JinaBert { embeddings, alibi, layers, head }))
}

/// Whether the class is that of jina-bert-v2-qk-post-norm. `auto_map` decides if there are no weights to look at.
fn is_post_norm(layer: &Weights<'_>, config: &Value) -> bool {
    let attention = layer.sub("attention.self");
    attention.has("layer_norm_q.weight")
        || !attention.has("query.weight")
            && config.get("auto_map").is_some_and(|map| map.to_string().contains("qk-post-norm"))
}

/// `JinaBertModel` with a head.
struct JinaBert {
    embeddings: Embeddings,
    alibi: Option<Alibi>,
    layers: Vec<Layer>,
    head: TaskHead,
}

impl Model for JinaBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut bias = attention_bias(&inputs.attention_mask)?;
        if let Some(alibi) = &self.alibi {
            bias = alibi.bias(&bias, inputs)?;
        }
        let mut states = self.embeddings.forward(inputs)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            states = layer.forward(&states, &bias, rows, inputs)?;
        }
        self.head.forward(&states, inputs)
    }
}

/// `JinaBertLayer`: norms after the residual connections.
struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    /// In jina-bert-v2-qk-post-norm, a further norm after a second residual connection around the attention.
    second_norm: Option<LayerNorm>,
    feed_forward: FeedForward,
    feed_forward_norm: LayerNorm,
}

impl Layer {
    fn load(
        weights: &Weights<'_>,
        sizes: &EncoderConfig,
        activation: Activation,
        is_post_norm: bool,
    ) -> Self {
        let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let norm = |weights: &Weights<'_>, name: &str| {
            LayerNorm::load(&weights.sub(name), hidden, sizes.layer_norm_eps)
        };
        let (attention, mlp) = (weights.sub("attention.self"), weights.sub("mlp"));
        let output = weights.sub("attention.output");
        // The first class activates the first half of the inner layer, and the second class the second half.
        let (activated, gate, outer) = if is_post_norm {
            let [gate, activated] =
                Linear::packed(false, &mlp.sub("up_gated_layer"), hidden, inner);
            (activated, gate, "down_layer")
        } else {
            let [activated, gate] = Linear::packed(false, &mlp.sub("gated_layers"), hidden, inner);
            (activated, gate, "wo")
        };
        Self {
            attention: Attention {
                query_key_value: ["query", "key", "value"]
                    .map(|name| Linear::load(&attention.sub(name), hidden, hidden)),
                norm: is_post_norm.then(|| QueryKeyNorm::AllHeads {
                    query: norm(&attention, "layer_norm_q"),
                    key: norm(&attention, "layer_norm_k"),
                }),
                heads: Heads::of(hidden, sizes.num_attention_heads),
                output: Linear::load(&output.sub("dense"), hidden, hidden),
            },
            attention_norm: norm(&output, "LayerNorm"),
            second_norm: is_post_norm.then(|| norm(weights, "layer_norm_1")),
            feed_forward: FeedForward {
                inner: Inner::Gated { activated, gate },
                activation: activation.into(),
                output: Linear::load(&mlp.sub(outer), inner, hidden),
            },
            feed_forward_norm: if is_post_norm {
                norm(weights, "layer_norm_2")
            } else {
                norm(&mlp, "layernorm")
            },
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let attended = self.attention.forward(states, bias, None, rows, inputs)?;
        let states = rows.of_states(states)?;
        let mut attended = self.attention_norm.forward(&states.f_add(&attended)?)?;
        if let Some(norm) = &self.second_norm {
            attended = norm.forward(&states.f_add(&attended)?)?;
        }
        let fed = self.feed_forward.forward(&attended)?;
        self.feed_forward_norm.forward(&attended.f_add(&fed)?)
    }
}
