//! GTE v1.5 and mGTE (Zhang et al. 2024, arXiv:2407.19669; `modeling.py` of Alibaba-NLP/new-impl, which Snowflake copied, and
//! `transformers/models/gte/modeling_gte.py`): BERT with rotary positions and a gated feed-forward.

use serde::Deserialize;
use serde_json::{Value, json};

use super::activation::{Activation, ActivationLayer};
use super::bert::{self, BertConfig};
use super::blocks::{Attention, FeedForward, Inner, Rotary};
use super::distance::PositionEmbedding;
use super::encoder::{Embeddings, EncoderConfig};
use super::heads::{PredictionHead, TaskHead, decoder};
use super::layers::{Heads, LayerNorm, Linear};
use super::post_norm::{PostNormEncoder, PostNormLayer};
use super::rope_parameters::{RopeParameters, RopeScaling};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Model, check_encoder, check_rotation,
    read_config_over,
};
use crate::checkpoint::Spellings;

/// Whether a folder contains a GTE. Alibaba's files have the `model_type` new, Snowflake's and those of Transformers 5 have gte.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("new")
        || evidence.is("gte")
        || evidence.is_untyped_with(&[".attention.qkv_proj.", ".mlp.up_gate_proj."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["new", "gte"],
    // Transformers 5 saves heads with the prefix of the base model, too.
    same: &[
        &["classifier.weight", "new.classifier.weight"],
        &["classifier.bias", "new.classifier.bias"],
        &["lm_head.dense.weight", "new.lm_head.dense.weight"],
        &["lm_head.dense.bias", "new.lm_head.dense.bias"],
        &["lm_head.norm.weight", "new.lm_head.norm.weight"],
        &["lm_head.norm.bias", "new.lm_head.norm.bias"],
        &["lm_head.decoder.bias", "new.lm_head.decoder.bias"],
    ],
    leftover: &["pooler", "lm_head"],
};

/// `NewConfig`.
#[derive(Debug, Deserialize)]
struct GteConfig {
    #[serde(flatten)]
    bert: BertConfig,
    model_type: String,
    layer_norm_type: String,
    position_embedding_type: Positions,
    pack_qkv: bool,
    logn_attention_scale: bool,
    logn_attention_clip1: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Positions {
    Absolute,
    Rope,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(GteConfig, EncoderConfig, RopeParameters), ConfigError> {
    check_encoder(config)?;
    let rope = RopeParameters::read(config)?;
    let defaults = json!({
        "model_type": "new",
        "vocab_size": 30528,
        "max_position_embeddings": 2048,
        "type_vocab_size": 1,
        "layer_norm_type": "layer_norm",
        "position_embedding_type": "rope",
        "pack_qkv": true,
        "logn_attention_scale": false,
        "logn_attention_clip1": false,
    });
    let config: GteConfig = read_config_over(defaults, config)?;
    if config.layer_norm_type != "layer_norm" {
        return Err(ConfigError::Unsupported("layer_norm_type".into(), "only layer_norm is known"));
    }
    if config.logn_attention_scale || config.logn_attention_clip1 {
        return Err(ConfigError::Unsupported(
            "logn_attention_scale".into(),
            "it scales queries by the length of the text, which is not supported",
        ));
    }
    let is_rotary = config.position_embedding_type == Positions::Rope;
    if config.model_type == "gte" && is_rotary && rope.theta.is_none() {
        return Err(ConfigError::Value(
            "rope_theta is missing, and Snowflake's and Transformers' classes have different defaults; add the rope_theta that the model was trained with".into(),
        ));
    }
    let position_embedding = match config.position_embedding_type {
        Positions::Absolute => PositionEmbedding::Absolute,
        Positions::Rope => PositionEmbedding::None,
    };
    let sizes = EncoderConfig { position_embedding, ..config.bert.sizes() };
    sizes.check()?;
    if is_rotary {
        check_rotation(sizes.hidden_size / sizes.num_attention_heads)?;
    }
    Ok((config, sizes, rope))
}

/// Sizes of a GTE.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a GTE with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes, rope) = read(blueprint.config)?;
    let is_ambiguous = config.model_type == "gte" && sizes.hidden_act != Activation::Gelu;
    if blueprint.head == Head::MaskedLm && is_ambiguous {
        return Err(ConfigError::Unsupported(
            "hidden_act".into(),
            "the masked LM heads of Snowflake's and Transformers' classes have different activations",
        ));
    }
    let base = weights.base();
    let hidden = sizes.hidden_size;
    let heads = Heads::of(hidden, sizes.num_attention_heads);
    let embeddings = Embeddings::load(&base, &sizes);
    let layers = base.sub("encoder.layer");
    let layers = (0..sizes.num_hidden_layers)
        .map(|i| layer(&layers.sub(i), &sizes, config.pack_qkv))
        .collect();
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        // NewLMPredictionHead.
        || {
            let head = weights.sub("lm_head");
            let (shape, tied) = ([sizes.vocab_size, hidden], config.bert.tie_word_embeddings);
            PredictionHead {
                dense: Linear::load(&head.sub("dense"), hidden, hidden),
                activation: sizes.hidden_act.into(),
                norm: LayerNorm::load(&head.sub("norm"), hidden, sizes.layer_norm_eps),
                decoder: decoder(&head, "decoder", "decoder.bias", &embeddings.words, shape, tied),
            }
        },
        || bert::pooled_head(weights, hidden, blueprint.labels),
    );
    let rotary = (config.position_embedding_type == Positions::Rope)
        .then(|| rotary(&base, heads.size, &rope));
    Ok(Box::new(PostNormEncoder { embeddings, rotary, layers, head }))
}

/// `RotaryEmbedding` and `NTKScalingRotaryEmbedding`, which scales texts of every length. Transformers 5 saves the latter as linear
/// scaling of a larger base.
fn rotary(weights: &Weights<'_>, width: i64, rope: &RopeParameters) -> Rotary {
    let base = rope.theta.unwrap_or(10_000.);
    match rope.scaling {
        None => Rotary::new(weights, width, base),
        Some(RopeScaling::Linear { factor }) => Rotary::with_linear(weights, width, base, factor),
        Some(RopeScaling::Ntk { factor, mixed_b: None }) => {
            Rotary::with_ntk(weights, width, base, factor)
        }
        Some(RopeScaling::Ntk { factor, mixed_b: Some(b) }) => {
            Rotary::with_mixed_ntk(weights, width, base, factor, b)
        }
    }
}

/// `NewLayer`.
fn layer(weights: &Weights<'_>, sizes: &EncoderConfig, is_packed: bool) -> PostNormLayer {
    let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let attention = weights.sub("attention");
    let linear = |name: &str| Linear::load(&attention.sub(name), hidden, hidden);
    let norm = |name: &str| LayerNorm::load(&weights.sub(name), hidden, sizes.layer_norm_eps);
    // The first half is the gate, and the second half is activated.
    let [gate, activated] = Linear::packed(false, &weights.sub("mlp.up_gate_proj"), hidden, inner);
    PostNormLayer {
        attention: Attention {
            query_key_value: if is_packed {
                Linear::packed(true, &attention.sub("qkv_proj"), hidden, hidden)
            } else {
                ["q_proj", "k_proj", "v_proj"].map(linear)
            },
            norm: None,
            heads: Heads::of(hidden, sizes.num_attention_heads),
            output: linear("o_proj"),
        },
        attention_norm: norm("attn_ln"),
        feed_forward: FeedForward {
            inner: Inner::Gated { activated, gate },
            activation: ActivationLayer::load(sizes.hidden_act, &weights.sub("mlp.act_fn")),
            output: Linear::load(&weights.sub("mlp.down_proj"), inner, hidden),
        },
        feed_forward_norm: norm("mlp_ln"),
    }
}
