//! NomicBERT (Nussbaum et al. 2024, arXiv:2402.01613; `modeling_hf_nomic_bert.py` of nomic-ai/nomic-bert-2048, and
//! `transformers/models/nomic_bert/modeling_nomic_bert.py`): BERT with rotary positions, a gated feed-forward, and in version 2 a
//! mixture of experts in every other layer (Nussbaum and Duderstadt 2025, arXiv:2502.07972).

mod config;
mod experts;

use serde_json::Value;
use tch::Tensor;

use super::bert;
use super::blocks::{Angles, Attention, FeedForward, Inner, Rotary};
use super::heads::{PredictionHead, TaskHead};
use super::layers::{Heads, LayerNorm, Linear, attention_bias, embedding, token_type_embedding};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Evidence, Head, Inputs, Model, Rows};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, slice};
pub(super) use config::dimensions;
use config::{ActivationFunction, NomicBertConfig};
use experts::Experts;

/// Whether a folder contains a NomicBERT.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("nomic_bert") || evidence.is_untyped_with(&[".attn.out_proj."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["bert", "nomic_bert"],
    same: &[&["cls.predictions.decoder.bias", "cls.predictions.bias"]],
    leftover: &["pooler", "cls"],
};

/// Builds a NomicBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = NomicBertConfig::read(blueprint.config)?;
    let is_untied = blueprint.config.get("tie_word_embeddings") == Some(&Value::Bool(false));
    if blueprint.head == Head::MaskedLm && is_untied {
        return Err(ConfigError::Unsupported(
            "tie_word_embeddings".into(),
            "nomic's class ties the decoder to the word embeddings in any case",
        ));
    }
    let base = weights.base();
    let (hidden, epsilon) = (config.n_embd, config.layer_norm_epsilon);
    let table =
        |name: &str, rows: i64| base.sub("embeddings").sub(name).tensor("weight", &[rows, hidden]);
    let words = base.sub("embeddings.word_embeddings");
    let words = words.vocabulary_tensor("weight", &[config.vocabulary(), hidden]);
    let types = config.type_vocab_size;
    let layers = base.sub("encoder.layers");
    let layers = (0..config.n_layer).map(|i| Layer::load(&layers.sub(i), &config, i)).collect();
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        // NomicBertLMPredictionHead.
        || {
            let head = weights.sub("cls.predictions");
            let transform = head.sub("transform");
            head.ignore("decoder.weight");
            let bias =
                config.head_bias().then(|| head.tensor("decoder.bias", &[config.vocabulary()]));
            PredictionHead {
                dense: Linear::with_bias_if(
                    config.head_bias(),
                    &transform.sub("dense"),
                    hidden,
                    hidden,
                ),
                activation: config.function().of_head().into(),
                norm: LayerNorm::load(&transform.sub("layer_norm"), hidden, epsilon),
                decoder: Linear::new(words.shallow_clone(), bias),
            }
        },
        || bert::pooled_head(weights, hidden, blueprint.labels),
    );
    Ok(Box::new(NomicBert {
        positions: (config.rotated() == 0)
            .then(|| table("position_embeddings", config.n_positions)),
        token_types: (types > 0).then(|| table("token_type_embeddings", types)),
        types,
        norm: LayerNorm::load(&base.sub("emb_ln"), hidden, epsilon),
        rotary: (config.rotated() > 0).then(|| config.rotary(&base)),
        words,
        layers,
        head,
    }))
}

/// `NomicBertModel` with a head.
struct NomicBert {
    words: Tensor,
    positions: Option<Tensor>,
    token_types: Option<Tensor>,
    types: i64,
    norm: LayerNorm,
    rotary: Option<Rotary>,
    layers: Vec<Layer>,
    head: TaskHead,
}

impl Model for NomicBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut states = embedding(&self.words, &inputs.input_ids)?;
        if let Some(table) = &self.token_types {
            states = states.f_add(&token_type_embedding(table, self.types, inputs)?)?;
        }
        if let Some(table) = &self.positions {
            states = states.f_add(&slice(table, 0, &inputs.tokens)?)?;
        }
        states = self.norm.forward(&states)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        let angles = self.rotary.as_ref().map(|rotary| rotary.angles(inputs)).transpose()?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            states = layer.forward(&states, &bias, angles.as_ref(), rows, inputs)?;
        }
        self.head.forward(&states, inputs)
    }
}

/// `NomicBertBlock`: norms after the residual connections.
struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

/// `mlp` of a layer.
enum Mlp {
    One(FeedForward),
    Mixture(Experts),
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &NomicBertConfig, index: i64) -> Self {
        let hidden = config.n_embd;
        let (attention, mlp, bias) =
            (weights.sub("attn"), weights.sub("mlp"), config.qkv_proj_bias);
        let norm =
            |name: &str| LayerNorm::load(&weights.sub(name), hidden, config.layer_norm_epsilon);
        Self {
            attention: Attention {
                query_key_value: Linear::packed(bias, &attention.sub("Wqkv"), hidden, hidden),
                norm: None,
                heads: Heads::of(hidden, config.n_head),
                output: Linear::with_bias_if(bias, &attention.sub("out_proj"), hidden, hidden),
            },
            attention_norm: norm("norm1"),
            mlp: if config.has_experts(index) {
                Mlp::Mixture(Experts::load(&mlp, config))
            } else {
                Mlp::One(feed_forward(&mlp, config))
            },
            mlp_norm: norm("norm2"),
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        angles: Option<&Angles>,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let attended = self.attention.forward(states, bias, angles, rows, inputs)?;
        let states = self.attention_norm.forward(&rows.of_states(states)?.f_add(&attended)?)?;
        let fed = match &self.mlp {
            Mlp::One(feed_forward) => feed_forward.forward(&states)?,
            Mlp::Mixture(experts) => experts.forward(&states)?,
        };
        self.mlp_norm.forward(&states.f_add(&fed)?)
    }
}

/// `NomicBertMLP` and `NomciBertGatedMLP`, in which `fc12` is activated.
fn feed_forward(weights: &Weights<'_>, config: &NomicBertConfig) -> FeedForward {
    let (hidden, inner) = (config.n_embd, config.inner());
    let linear =
        |name: &str| Linear::with_bias_if(config.mlp_fc1_bias, &weights.sub(name), hidden, inner);
    FeedForward {
        inner: match config.function() {
            ActivationFunction::Gelu => Inner::Plain(linear("fc1")),
            _ => Inner::Gated { activated: linear("fc12"), gate: linear("fc11") },
        },
        activation: config.function().of_layers().into(),
        output: Linear::with_bias_if(config.mlp_fc2_bias, &weights.sub("fc2"), inner, hidden),
    }
}
