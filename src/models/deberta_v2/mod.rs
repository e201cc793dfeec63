//! DeBERTa v2 and v3 (He et al. 2020 and 2021, arXiv:2006.03654 and arXiv:2111.09543;
//! `transformers/models/deberta_v2/modeling_deberta_v2.py`): attention between contents and relative positions.

mod attention;
mod config;
mod relative_positions;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::activation::{Activation, ActivationLayer};
use super::encoder::{FeedForward, Names, PostAttention};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{LayerNorm, Linear, embedding, token_type_embedding};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Inputs, Model, Rows};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, slice};
use attention::DisentangledAttention;
pub(super) use config::DebertaV2Config;
use relative_positions::{Distances, Places, Relative};

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("deberta-v2") || evidence.is_untyped_with(&[".rel_embeddings."])
}

/// Parameter names in its files. The files contain absolute positions that the input does not use, and heads of other tasks, among them
/// the discriminator that v3 was trained with.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["deberta"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &[
        "pooler",
        "cls",
        "lm_predictions",
        "mask_predictions",
        "embeddings.position_embeddings",
    ],
};

/// Sizes of a DeBERTa v2 or v3.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(DebertaV2Config::read(config)?.dimensions())
}

/// Builds a DeBERTa v2 or v3 with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    Ok(build(weights, blueprint, &DebertaV2Config::read(blueprint.config)?))
}

/// Builds a DeBERTa of any version with the requested head.
pub(super) fn build(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
    config: &DebertaV2Config,
) -> Box<dyn Model> {
    let base = weights.base();
    let embeddings = Embeddings::load(&base.sub("embeddings"), config);
    let encoder = Encoder::load(&base.sub("encoder"), config);
    let hidden = config.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || masked_lm(weights, config, &embeddings.words),
        // ContextPooler and classifier.
        || SequenceHead {
            dense: Linear::load(&weights.sub("pooler.dense"), hidden, hidden),
            activation: config.pooler_hidden_act.into(),
            classifier: Linear::load(&weights.sub("classifier"), hidden, blueprint.labels),
        },
    );
    Box::new(Deberta { embeddings, encoder, head })
}

struct Deberta {
    embeddings: Embeddings,
    encoder: Encoder,
    head: TaskHead,
}

impl Model for Deberta {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        // [batch, tokens, 1]
        let mask = inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(2)?;
        let embedded = self.embeddings.forward(inputs)?.f_mul(&mask)?;
        let rows = self.head.rows(inputs);
        let hidden_states = self.encoder.forward(&embedded, &mask, rows, inputs)?;
        self.head.forward(&hidden_states, inputs)
    }
}

/// `DebertaV2Embeddings`, without the mask.
struct Embeddings {
    words: Tensor,
    positions: Option<Tensor>,
    token_types: Option<Tensor>,
    types: i64,
    projection: Option<Linear>,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let (width, types) = (config.embedding_size(), config.type_vocab_size);
        let table = |name: &str, rows| weights.sub(name).tensor("weight", &[rows, width]);
        Self {
            words: weights
                .sub("word_embeddings")
                .vocabulary_tensor("weight", &[config.vocab_size, width]),
            positions: config
                .position_biased_input
                .then(|| table("position_embeddings", config.max_position_embeddings)),
            token_types: (types > 0).then(|| table("token_type_embeddings", types)),
            types,
            projection: (width != config.hidden_size).then(|| {
                Linear::without_bias(&weights.sub("embed_proj"), width, config.hidden_size)
            }),
            norm: config.norm(weights),
        }
    }

    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut states = embedding(&self.words, &inputs.input_ids)?;
        if let Some(positions) = &self.positions {
            states = states.f_add(&slice(positions, 0, &inputs.tokens)?)?;
        }
        if let Some(token_types) = &self.token_types {
            states = states.f_add(&token_type_embedding(token_types, self.types, inputs)?)?;
        }
        if let Some(projection) = &self.projection {
            states = projection.forward(&states)?;
        }
        self.norm.forward(&states)
    }
}

/// `DebertaV2Encoder`.
struct Encoder {
    /// Relative positions, if attention uses them.
    distances: Option<Distances>,
    layers: Vec<Layer>,
    convolution: Option<Convolution>,
}

impl Encoder {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let relative = Relative::load(weights, config);
        let layer = weights.sub("layer");
        Self {
            distances: relative.is_some().then(|| Distances::load(weights, config)),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(&layer.sub(i), config, relative.as_ref()))
                .collect(),
            convolution: (config.conv_kernel_size > 0)
                .then(|| Convolution::load(&weights.sub("conv"), config)),
        }
    }

    fn forward(
        &self,
        embedded: &Tensor,
        mask: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        // Padding attends to nothing: all of its scores are equal. [batch, 1, tokens, tokens]
        let both = mask.f_mul(&mask.f_transpose(1, 2)?)?.f_unsqueeze(1)?;
        let bias = both.f_sub_scalar(1.)?.f_mul_scalar(f64::from(f32::MAX))?;
        let places = match (&self.distances, self.layers.first()) {
            (Some(distances), Some(layer)) => {
                Some(distances.places(layer.attention.heads.count, inputs)?)
            }
            _ => None,
        };
        let mut states = embedded.shallow_clone();
        for (i, (layer, rows)) in rows.by_layer(&self.layers).enumerate() {
            let convolution = self.convolution.as_ref().filter(|_| i == 0);
            // The convolution reads the output of the first layer for all tokens.
            let rows = if convolution.is_some() { Rows::All } else { rows };
            let output = layer.forward(&states, &bias, places.as_ref(), rows, inputs)?;
            states = match convolution {
                Some(convolution) => convolution.forward(&states, &output, mask)?,
                None => output,
            };
        }
        Ok(states)
    }
}

/// `DebertaV2Layer`.
struct Layer {
    attention: DisentangledAttention,
    rest: PostAttention,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config, relative: Option<&Relative>) -> Self {
        let names = Names::BERT;
        let sizes = FeedForward {
            hidden: config.hidden_size,
            attention: config.hidden_size,
            intermediate: config.intermediate_size,
            activation: config.hidden_act,
            epsilon: config.layer_norm_eps,
        };
        Self {
            attention: DisentangledAttention::load(&weights.sub(names.attention), config, relative),
            rest: PostAttention::load(weights, &names, sizes),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        places: Option<&Places<'_>>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let context = self.attention.forward(hidden_states, bias, places, rows, inputs)?;
        self.rest.forward(&context, &rows.of_states(hidden_states)?)
    }
}

/// `ConvLayer`: a convolution over the embeddings, parallel to the first layer.
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
    groups: i64,
    activation: Activation,
    norm: LayerNorm,
}

impl Convolution {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let (hidden, kernel, groups) =
            (config.hidden_size, config.conv_kernel_size, config.conv_groups);
        let convolution = weights.sub("conv");
        Self {
            weight: convolution.tensor("weight", &[hidden, hidden / groups, kernel]),
            bias: convolution.tensor("bias", &[hidden]),
            padding: (kernel - 1) / 2,
            groups,
            activation: config.conv_act,
            norm: config.norm(weights),
        }
    }

    /// `embedded` is the input of the layer and `output` its output.
    fn forward(
        &self,
        embedded: &Tensor,
        output: &Tensor,
        mask: &Tensor,
    ) -> Result<Tensor, TorchError> {
        let channels = embedded.f_transpose(1, 2)?;
        let bias = Some(&self.bias);
        let convolved = channels.f_conv1d(&self.weight, bias, 1, self.padding, 1, self.groups)?;
        let convolved = self.activation.forward(&convolved.f_transpose(1, 2)?)?;
        // Transformers also sets the convolution's output at padding to 0. This product has the same effect.
        Ok(self.norm.forward(&output.f_add(&convolved)?)?.f_mul(mask)?)
    }
}

/// `LegacyDebertaV2LMPredictionHead` or `DebertaV2LMPredictionHead`.
fn masked_lm(weights: &Weights<'_>, config: &DebertaV2Config, words: &Tensor) -> PredictionHead {
    let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
    let activation = |weights: &Weights<'_>| {
        ActivationLayer::load(config.hidden_act, &weights.sub("transform_act_fn"))
    };
    let (old, new) = (weights.sub("cls.predictions"), weights.sub("lm_predictions.lm_head"));
    // Microsoft's files contain the new head, but config.json does not state it, so the parameters in the file decide.
    let (in_old, in_new) = (old.has("transform.dense.weight"), new.has("dense.weight"));
    if in_new && !(in_old && config.legacy.unwrap_or(true)) {
        return PredictionHead {
            dense: Linear::load(&new.sub("dense"), hidden, hidden),
            activation: activation(&new),
            norm: config.norm(&new),
            decoder: decoder(&new, "decoder", "bias", words, [vocabulary, hidden], true),
        };
    }
    let (transform, width) = (old.sub("transform"), config.embedding_size());
    let shape = [vocabulary, width];
    let tied = config.tie_word_embeddings;
    PredictionHead {
        dense: Linear::load(&transform.sub("dense"), hidden, width),
        activation: activation(&transform),
        norm: LayerNorm::load(&transform.sub("LayerNorm"), width, config.layer_norm_eps),
        decoder: decoder(&old, "decoder", "bias", words, shape, tied),
    }
}
