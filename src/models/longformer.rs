//! Longformer (Beltagy et al. 2020, arXiv:2004.05150; `transformers/models/longformer/modeling_longformer.py`).
//!
//! A RoBERTa whose tokens attend to a window around them and to global tokens. Global tokens attend to all tokens, with projections of
//! their own. The graph computes all scores and masks those outside of the windows.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::activation::Activation;
use super::bert::BertConfig;
use super::blocks::{token_distances, window_bias};
use super::distance::PositionEmbedding;
use super::encoder::{Embeddings, EncoderConfig, Names, PostAttention};
use super::heads::{SequenceHead, TaskHead};
use super::layers::{Heads, Linear, attend, attention_bias};
use super::roberta::{self, lm_head};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Rows, read_config_over,
};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, arange};

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("longformer") || evidence.is_untyped_with(&[".attention.self.query_global."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings { base: &["longformer"], ..roberta::SPELLINGS };

/// Fields of `LongformerConfig` that RoBERTa does not have.
#[derive(Debug, Deserialize)]
struct LongformerConfig {
    attention_window: Windows,
    sep_token_id: i64,
}

/// Number of tokens in a window, for all layers or for each.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Windows {
    All(i64),
    Each(Vec<i64>),
}

/// Parses and validates `config.json`. Returns the largest distance of two tokens that attend to each other, for each layer.
fn read(
    config: &Value,
) -> Result<(BertConfig, EncoderConfig, Vec<i64>, LongformerConfig), ConfigError> {
    let (bert, sizes) = roberta::read(config)?;
    let defaults = json!({ "attention_window": 512, "sep_token_id": 2 });
    let longformer: LongformerConfig = read_config_over(defaults, config)?;
    let layers = usize::try_from(sizes.num_hidden_layers).unwrap_or_default();
    let windows = match &longformer.attention_window {
        Windows::All(window) => vec![*window; layers],
        Windows::Each(windows) => windows.clone(),
    };
    if windows.len() != layers || windows.iter().any(|&window| window < 2 || window % 2 != 0) {
        return Err(ConfigError::Value(format!(
            "attention_window must be an even number of tokens for each of the {layers} layers"
        )));
    }
    // The class has no other positions.
    let sizes = EncoderConfig { position_embedding: PositionEmbedding::Absolute, ..sizes };
    Ok((bert, sizes, windows.iter().map(|window| window / 2).collect(), longformer))
}

/// Sizes of a Longformer.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a Longformer with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (bert, sizes, reaches, longformer) = read(blueprint.config)?;
    let (base, hidden) = (weights.base(), sizes.hidden_size);
    let global = match blueprint.head {
        Head::SequenceClassification => GlobalTokens::First,
        Head::QuestionAnswering => {
            GlobalTokens::BeforeSeparator { separator: longformer.sep_token_id }
        }
        Head::Base | Head::MaskedLm | Head::TokenClassification => GlobalTokens::None,
    };
    let embeddings = Embeddings::load(&base, &sizes);
    let layers = base.sub("encoder.layer");
    let layer = |(index, &reach)| Layer::load(&layers.sub(index), &sizes, reach, global);
    let layers = reaches.iter().enumerate().map(layer).collect();
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || lm_head(weights, &sizes, &embeddings.words, bert.tie_word_embeddings),
        || SequenceHead::load(weights, hidden, blueprint.labels, Activation::Tanh.into()),
    );
    Ok(Box::new(Longformer { embeddings, layers, global, head }))
}

/// The tokens with global attention, which the class of each task selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GlobalTokens {
    /// None (`LongformerModel`, `…ForMaskedLM`, `…ForTokenClassification`).
    None,
    /// The first token (`…ForSequenceClassification`).
    First,
    /// The tokens before the first separator, which are those of the question (`…ForQuestionAnswering`).
    BeforeSeparator {
        /// Id of the separator.
        separator: i64,
    },
}

impl GlobalTokens {
    /// 1 at global tokens, otherwise 0, float32 `[batch or 1, tokens]`.
    fn flags(self, inputs: &Inputs) -> Result<Option<Tensor>, TorchError> {
        let is_global = match self {
            Self::None => return Ok(None),
            Self::First => arange(&inputs.tokens)?.f_unsqueeze(0)?.f_eq(0)?,
            Self::BeforeSeparator { separator } => {
                inputs.input_ids.f_eq(separator)?.f_cumsum(1, Kind::Int64)?.f_eq(0)?
            }
        };
        Ok(Some(is_global.f_to_kind(Kind::Float)?))
    }
}

struct Longformer {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    global: GlobalTokens,
    head: TaskHead,
}

impl Model for Longformer {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let bias = attention_bias(&inputs.attention_mask)?;
        let flags = self.global.flags(inputs)?;
        let mut distances = token_distances(inputs)?;
        if let Some(flags) = &flags {
            // Global tokens are near to all tokens. [batch or 1, 1, tokens, tokens]
            let others = flags.f_rsub_scalar(1.)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
            distances = distances.f_mul(&others)?;
        }
        let mut windows: Vec<(i64, Tensor)> = Vec::new();
        for reach in self.layers.iter().map(|layer| layer.reach) {
            if !windows.iter().any(|(known, _)| *known == reach) {
                windows.push((reach, window_bias(&bias, &distances, reach)?));
            }
        }
        let pass = Pass {
            bias,
            mask: inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(2)?,
            global: flags.map(|flags| flags.f_unsqueeze(2)).transpose()?,
        };
        let mut states = self.embeddings.forward(inputs)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            let window = windows.iter().find(|(reach, _)| *reach == layer.reach);
            let window = window.map_or(&pass.bias, |(_, bias)| bias);
            states = layer.forward(&states, window, &pass, rows, inputs)?;
        }
        self.head.forward(&states, inputs)
    }
}

/// What all layers share in a pass.
struct Pass {
    /// Bias of attention to all tokens but padding, `[batch, 1, 1, tokens]`.
    bias: Tensor,
    /// 1 at tokens, 0 at padding, float32 `[batch, tokens, 1]`.
    mask: Tensor,
    /// 1 at global tokens, otherwise 0, float32 `[batch or 1, tokens, 1]`.
    global: Option<Tensor>,
}

/// `LongformerLayer`.
struct Layer {
    local: [Linear; 3],
    global: Option<[Linear; 3]>,
    attends_from_first: bool,
    heads: Heads,
    /// Largest distance of two tokens that attend to each other.
    reach: i64,
    rest: PostAttention,
}

impl Layer {
    fn load(
        weights: &Weights<'_>,
        sizes: &EncoderConfig,
        reach: i64,
        global: GlobalTokens,
    ) -> Self {
        let (names, hidden) = (Names::BERT, sizes.hidden_size);
        let heads = Heads::of(hidden, sizes.num_attention_heads);
        let attention = weights.sub(names.attention);
        let linear = |name: String| Linear::load(&attention.sub(name), hidden, hidden);
        let global_names = names.query_key_value.map(|name| format!("{name}_global"));
        let has_global = global != GlobalTokens::None;
        if !has_global {
            // Every file contains them.
            global_names.iter().for_each(|name| attention.ignore_all(name));
        }
        Self {
            local: names.query_key_value.map(|name| linear(name.to_owned())),
            global: has_global.then(|| global_names.map(linear)),
            attends_from_first: global == GlobalTokens::First,
            heads,
            reach,
            rest: PostAttention::load(weights, &names, sizes.feed_forward(heads)),
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        window: &Tensor,
        pass: &Pass,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let by_head = |projection: &Linear, states: &Tensor| {
            self.heads.split(&projection.forward(states)?, inputs)
        };
        let attention = |projections: &[Linear; 3], bias: &Tensor, rows: Rows| {
            let [query, key, value] = projections;
            let query = by_head(query, &rows.of_states(states)?)?;
            let (key, value) = (by_head(key, states)?, by_head(value, states)?);
            let bias = rows.of_scores(bias)?;
            let context = attend([&query, &key, &value], &bias, self.heads.scale(), inputs)?;
            self.heads.join(&context, inputs)
        };
        // The class sets the attention of padding to 0.
        let local = || -> Result<Tensor, TorchError> {
            let mask = rows.of_states(&pass.mask)?;
            Ok(attention(&self.local, window, rows)?.f_mul(&mask)?)
        };
        let context = match (&self.global, &pass.global) {
            (Some(global), Some(_)) if self.attends_from_first => {
                let first = attention(global, &pass.bias, Rows::First)?;
                match rows {
                    Rows::First => first,
                    Rows::All => Tensor::f_cat(&[first, local()?.f_slice(1, 1, i64::MAX, 1)?], 1)?,
                }
            }
            (Some(global), Some(flags)) => {
                let attended = attention(global, &pass.bias, rows)?;
                attended.f_where_self(&rows.of_states(flags)?.f_gt(0.5)?, &local()?)?
            }
            _ => local()?,
        };
        self.rest.forward(&context, &rows.of_states(states)?)
    }
}
