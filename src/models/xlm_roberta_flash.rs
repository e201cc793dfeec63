//! jina-embeddings-v3 and jina-reranker-v2 (Sturua et al. 2024, arXiv:2409.10173; `modeling_xlm_roberta.py` of
//! jinaai/xlm-roberta-flash-implementation): XLM-RoBERTa with rotary or absolute positions and packed projections.
//!
//! The `model_type` is that of XLM-RoBERTa. The positions in `config.json` and the names of the weights tell them apart.

use serde::Deserialize;
use serde_json::{Value, json};

use super::activation::Activation;
use super::bert::BertConfig;
use super::blocks::{Attention, FeedForward, Inner, Rotary};
use super::distance::PositionEmbedding;
use super::encoder::{Counting, Embeddings, EncoderConfig};
use super::heads::{SequenceHead, TaskHead};
use super::layers::{Heads, LayerNorm, Linear};
use super::post_norm::{PostNormEncoder, PostNormLayer};
use super::roberta::lm_head;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, check_rotation,
    read_config_over,
};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    let positions = evidence.config.get("position_embedding_type");
    let parts = [".mixer.Wqkv."];
    evidence.is_untyped_with(&parts)
        || evidence.is("xlm-roberta")
            && (positions.is_some_and(|positions| positions == "rotary")
                || parts.iter().any(|part| evidence.has_tensor(part)))
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["roberta"],
    same: &[
        &["embeddings.LayerNorm.weight", "emb_ln.weight"],
        &["embeddings.LayerNorm.bias", "emb_ln.bias"],
        &["lm_head.bias", "lm_head.decoder.bias"],
    ],
    leftover: &["pooler", "lm_head"],
};

/// `XLMRobertaFlashConfig`.
#[derive(Debug, Deserialize)]
struct FlashConfig {
    #[serde(flatten)]
    bert: BertConfig,
    positions: Positions,
    rotary_emb_base: f64,
    pad_token_id: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Positions {
    Absolute,
    Rotary,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(FlashConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    // BERT's field of this name has no value for rotary positions.
    let mut fields = config.as_object().cloned().unwrap_or_default();
    let positions = fields.remove("position_embedding_type");
    fields.insert("positions".into(), positions.unwrap_or_else(|| "absolute".into()));
    let defaults = json!({ "rotary_emb_base": 10_000, "pad_token_id": 1 });
    let config: FlashConfig = read_config_over(defaults, &fields.into())?;
    let sizes = EncoderConfig {
        position_embedding: match config.positions {
            Positions::Absolute => PositionEmbedding::Absolute,
            Positions::Rotary => PositionEmbedding::None,
        },
        counting: Counting::AfterPadding(config.pad_token_id),
        ..config.bert.sizes()
    };
    sizes.check()?;
    if config.positions == Positions::Rotary {
        check_rotation(sizes.hidden_size / sizes.num_attention_heads)?;
    }
    if config.rotary_emb_base.is_nan() || config.rotary_emb_base <= 0. {
        return Err(ConfigError::Value(format!(
            "rotary_emb_base is {}, which is not a valid base of angles",
            config.rotary_emb_base
        )));
    }
    Ok((config, sizes))
}

/// Sizes of the model. `max_position_embeddings` counts the unused positions of XLM-RoBERTa for rotary positions, too.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let (config, sizes) = read(config)?;
    let positions = sizes.max_position_embeddings - config.pad_token_id - 1;
    Ok(Dimensions { positions, ..sizes.dimensions() })
}

/// Builds the model with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let (base, hidden) = (weights.base(), sizes.hidden_size);
    let embeddings = Embeddings::load(&base, &sizes);
    let layers = base.sub("encoder.layers");
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || lm_head(weights, &sizes, &embeddings.words, config.bert.tie_word_embeddings),
        || SequenceHead::load(weights, hidden, blueprint.labels, Activation::Tanh.into()),
    );
    let head_size = hidden / sizes.num_attention_heads;
    Ok(Box::new(PostNormEncoder {
        rotary: (config.positions == Positions::Rotary)
            .then(|| Rotary::new(&base, head_size, config.rotary_emb_base)),
        layers: (0..sizes.num_hidden_layers).map(|i| layer(&layers.sub(i), &sizes)).collect(),
        embeddings,
        head,
    }))
}

/// `Block`.
fn layer(weights: &Weights<'_>, sizes: &EncoderConfig) -> PostNormLayer {
    let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
    let (mixer, mlp) = (weights.sub("mixer"), weights.sub("mlp"));
    let norm = |name: &str| LayerNorm::load(&weights.sub(name), hidden, sizes.layer_norm_eps);
    PostNormLayer {
        attention: Attention {
            query_key_value: Linear::packed(true, &mixer.sub("Wqkv"), hidden, hidden),
            norm: None,
            heads: Heads::of(hidden, sizes.num_attention_heads),
            output: Linear::load(&mixer.sub("out_proj"), hidden, hidden),
        },
        attention_norm: norm("norm1"),
        feed_forward: FeedForward {
            inner: Inner::Plain(Linear::load(&mlp.sub("fc1"), hidden, inner)),
            activation: sizes.hidden_act.into(),
            output: Linear::load(&mlp.sub("fc2"), inner, hidden),
        },
        feed_forward_norm: norm("norm2"),
    }
}
