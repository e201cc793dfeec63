//! SqueezeBERT (Iandola et al. 2020, arXiv:2006.11316; `transformers/models/squeezebert/modeling_squeezebert.py`): BERT with
//! grouped convolutions of width one instead of linear layers.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::activation::ActivationLayer;
use super::bert::{self, BertConfig};
use super::distance::PositionEmbedding;
use super::encoder::{Embeddings, EncoderConfig};
use super::heads::TaskHead;
use super::layers::{Heads, LayerNorm, Linear, attend, attention_bias};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Inputs, Model, Rows, check_encoder, check_sizes,
    read_config_over,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("squeezebert") || evidence.is_untyped_with(&[".transformer.encoder.layers."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["transformer"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &["pooler", "cls"],
};

/// `SqueezeBertConfig`.
#[derive(Debug, Deserialize)]
struct SqueezeBertConfig {
    #[serde(flatten)]
    bert: BertConfig,
    embedding_size: i64,
    q_groups: i64,
    k_groups: i64,
    v_groups: i64,
    post_attention_groups: i64,
    intermediate_groups: i64,
    output_groups: i64,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(SqueezeBertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let defaults = json!({
        "embedding_size": 768,
        "q_groups": 4,
        "k_groups": 4,
        "v_groups": 4,
        "post_attention_groups": 1,
        "intermediate_groups": 4,
        "output_groups": 4,
    });
    let config: SqueezeBertConfig = read_config_over(defaults, config)?;
    // The class only supports absolute positions and ignores position_embedding_type.
    let position_embedding = PositionEmbedding::Absolute;
    let sizes = EncoderConfig { position_embedding, ..config.bert.sizes() };
    sizes.check()?;
    let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
    if config.embedding_size != hidden {
        return Err(ConfigError::Value(format!(
            "embedding_size {} must be hidden_size {hidden}",
            config.embedding_size
        )));
    }
    for (name, groups, widths) in [
        ("q_groups", config.q_groups, [hidden; 2]),
        ("k_groups", config.k_groups, [hidden; 2]),
        ("v_groups", config.v_groups, [hidden; 2]),
        ("post_attention_groups", config.post_attention_groups, [hidden; 2]),
        ("intermediate_groups", config.intermediate_groups, [hidden, inner]),
        ("output_groups", config.output_groups, [inner, hidden]),
    ] {
        check_sizes(&[(name, groups)])?;
        if let Some(width) = widths.into_iter().find(|width| width % groups != 0) {
            return Err(ConfigError::Value(format!(
                "{width} channels cannot be divided into {name} {groups}"
            )));
        }
    }
    Ok((config, sizes))
}

/// Sizes of a SqueezeBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds a SqueezeBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    let base = weights.base();
    let embeddings = Embeddings::load(&base, &sizes);
    let layer = base.sub("encoder.layers");
    let layers = (0..sizes.num_hidden_layers).map(|i| Layer::load(&layer.sub(i), &config, &sizes));
    let layers = layers.collect();
    let hidden = sizes.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || bert::lm_head(weights, &sizes, &embeddings.words, config.bert.tie_word_embeddings),
        || bert::pooled_head(weights, hidden, blueprint.labels),
    );
    Ok(Box::new(SqueezeBert { embeddings, layers, head }))
}

struct SqueezeBert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: TaskHead,
}

impl Model for SqueezeBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut hidden_states = self.embeddings.forward(inputs)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            hidden_states = layer.forward(&hidden_states, &bias, rows, inputs)?;
        }
        self.head.forward(&hidden_states, inputs)
    }
}

/// `torch.nn.Conv1d` of width one with groups: one linear layer per group of channels.
///
/// In measurements, linear layers on `[batch, tokens, channels]` were faster than the convolution on `[batch, channels, tokens]` for
/// short texts and equally fast for long ones. They can also be quantized.
struct GroupedLinear {
    groups: Vec<Linear>,
}

impl GroupedLinear {
    fn load(weights: &Weights<'_>, inputs: i64, outputs: i64, groups: i64) -> Self {
        let weight = weights.tensor("weight", &[outputs, inputs / groups, 1]);
        let bias = weights.tensor("bias", &[outputs]);
        let part = |tensor: &Tensor, group: i64| -> Result<Tensor, TorchError> {
            let rows = outputs / groups;
            // A copy, because the archive would contain the whole tensor once per group.
            Ok(tensor.f_slice_copy(0, group * rows, (group + 1) * rows, 1)?)
        };
        let group = |group| {
            let weight = weights.derived(|| Ok(part(&weight, group)?.f_squeeze_dim(-1)?));
            Linear::new(weight, Some(weights.derived(|| part(&bias, group))))
        };
        Self { groups: (0..groups).map(group).collect() }
    }

    /// Maps `[batch, tokens, inputs]` to `[batch, tokens, outputs]`.
    fn forward(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        if let [whole] = self.groups.as_slice() {
            return whole.forward(input);
        }
        let parts = input.f_chunk(self.groups.len() as i64, -1)?;
        let outputs = self.groups.iter().zip(&parts).map(|(linear, part)| linear.forward(part));
        Ok(Tensor::f_cat(&outputs.collect::<Result<Vec<_>, _>>()?, -1)?)
    }
}

/// `SqueezeBertModule`.
struct Layer {
    query: GroupedLinear,
    key: GroupedLinear,
    value: GroupedLinear,
    heads: Heads,
    post_attention: GroupedLinear,
    attention_norm: LayerNorm,
    intermediate: GroupedLinear,
    activation: ActivationLayer,
    output: GroupedLinear,
    norm: LayerNorm,
}

/// Epsilon of the norms in the layers, which ignore `layer_norm_eps`.
const EPSILON: f64 = 1e-12;

impl Layer {
    fn load(weights: &Weights<'_>, config: &SqueezeBertConfig, sizes: &EncoderConfig) -> Self {
        let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let projection = |name: &str, groups| {
            GroupedLinear::load(&weights.sub("attention").sub(name), hidden, hidden, groups)
        };
        let convolution = |name: &str, inputs, outputs, groups| {
            GroupedLinear::load(&weights.sub(name).sub("conv1d"), inputs, outputs, groups)
        };
        let norm =
            |name: &str| LayerNorm::load(&weights.sub(name).sub("layernorm"), hidden, EPSILON);
        Self {
            query: projection("query", config.q_groups),
            key: projection("key", config.k_groups),
            value: projection("value", config.v_groups),
            heads: Heads::of(hidden, sizes.num_attention_heads),
            post_attention: convolution(
                "post_attention",
                hidden,
                hidden,
                config.post_attention_groups,
            ),
            attention_norm: norm("post_attention"),
            intermediate: convolution("intermediate", hidden, inner, config.intermediate_groups),
            activation: ActivationLayer::load(sizes.hidden_act, &weights.sub("intermediate.act")),
            output: convolution("output", inner, hidden, config.output_groups),
            norm: norm("output"),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let by_head = |projection: &GroupedLinear, states: &Tensor| {
            self.heads.split(&projection.forward(states)?, inputs)
        };
        let queries = rows.of_states(hidden_states)?;
        let query = by_head(&self.query, &queries)?;
        let (key, value) =
            (by_head(&self.key, hidden_states)?, by_head(&self.value, hidden_states)?);
        let bias = rows.of_scores(bias)?;
        let context = attend([&query, &key, &value], &bias, self.heads.scale(), inputs)?;
        let context = self.heads.join(&context, inputs)?;

        let attended = self.post_attention.forward(&context)?.f_add(&queries)?;
        let attended = self.attention_norm.forward(&attended)?;
        let inner = self.activation.forward(&self.intermediate.forward(&attended)?)?;
        self.norm.forward(&self.output.forward(&inner)?.f_add(&attended)?)
    }
}
