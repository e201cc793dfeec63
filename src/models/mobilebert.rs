//! MobileBERT (Sun et al. 2020, arXiv:2004.02984; `transformers/models/mobilebert/modeling_mobilebert.py`): thin layers between
//! bottlenecks, norms that only scale and shift, and word embeddings that include neighbouring words.

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::activation::{Activation, ActivationLayer};
use super::heads::{PredictionHead, SequenceHead, TaskHead, decoder};
use super::layers::{
    CrossAttention, LayerNorm, Linear, attention_bias, embedding, token_type_embedding,
};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows, check_encoder,
    check_heads, check_sizes, read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, slice};

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("mobilebert") || evidence.is_untyped_with(&[".embedding_transformation."])
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["mobilebert"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &["pooler", "cls"],
};

/// `MobileBertConfig`, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct MobileBertConfig {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    embedding_size: i64,
    trigram_input: bool,
    use_bottleneck: bool,
    intra_bottleneck_size: i64,
    use_bottleneck_attention: bool,
    key_query_shared_bottleneck: bool,
    num_feedforward_networks: i64,
    normalization_type: NormalizationType,
    classifier_activation: bool,
    tie_word_embeddings: bool,
    /// See [`Blueprint`].
    #[serde(skip)]
    quantize: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NormalizationType {
    NoNorm,
    LayerNorm,
}

impl Default for MobileBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 512,
            num_hidden_layers: 24,
            num_attention_heads: 4,
            intermediate_size: 512,
            hidden_act: Activation::Relu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            embedding_size: 128,
            trigram_input: true,
            use_bottleneck: true,
            intra_bottleneck_size: 128,
            use_bottleneck_attention: false,
            key_query_shared_bottleneck: true,
            num_feedforward_networks: 4,
            normalization_type: NormalizationType::NoNorm,
            classifier_activation: true,
            tie_word_embeddings: true,
            quantize: false,
        }
    }
}

impl MobileBertConfig {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let config: Self = read_config(config)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
            ("embedding_size", config.embedding_size),
            ("intra_bottleneck_size", config.intra_bottleneck_size),
            ("num_feedforward_networks", config.num_feedforward_networks),
        ])?;
        let inner = config.inner();
        check_heads(
            ("true_hidden_size", inner),
            ("num_attention_heads", config.num_attention_heads),
        )?;
        if config.query_source() == Source::Hidden && inner != config.hidden_size {
            return Err(ConfigError::Value(format!(
                "without a bottleneck for query and key, intra_bottleneck_size {inner} must be hidden_size {}",
                config.hidden_size
            )));
        }
        Ok(config)
    }

    /// Width between the bottlenecks, `true_hidden_size` in Transformers.
    fn inner(&self) -> i64 {
        if self.use_bottleneck { self.intra_bottleneck_size } else { self.hidden_size }
    }

    /// Input of query and key.
    fn query_source(&self) -> Source {
        if self.use_bottleneck && self.use_bottleneck_attention {
            Source::Bottleneck
        } else if self.use_bottleneck && self.key_query_shared_bottleneck {
            Source::OwnBottleneck
        } else {
            Source::Hidden
        }
    }
}

/// Sizes of a MobileBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = MobileBertConfig::read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        output: Output::Tokens,
    })
}

/// Builds a MobileBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = MobileBertConfig {
        quantize: blueprint.quantize,
        ..MobileBertConfig::read(blueprint.config)?
    };
    let base = weights.base();
    let embeddings = Embeddings::load(&base.sub("embeddings"), &config);
    let layer = base.sub("encoder.layer");
    let layers = (0..config.num_hidden_layers).map(|i| Layer::load(&layer.sub(i), &config));
    let layers = layers.collect();
    let hidden = config.hidden_size;
    let classifier = || Linear::load(&weights.sub("classifier"), hidden, blueprint.labels);
    let head = match blueprint.head {
        Head::SequenceClassification if !config.classifier_activation => {
            TaskHead::First(classifier())
        }
        _ => TaskHead::load(
            weights,
            blueprint,
            hidden,
            || masked_lm(weights, &config, &embeddings.words),
            // MobileBertPooler and classifier.
            || SequenceHead {
                dense: Linear::load(&base.sub("pooler.dense"), hidden, hidden),
                activation: Activation::Tanh.into(),
                classifier: classifier(),
            },
        ),
    };
    Ok(Box::new(MobileBert { embeddings, layers, head }))
}

struct MobileBert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: TaskHead,
}

impl Model for MobileBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut hidden_states = self.embeddings.forward(inputs)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            hidden_states = layer.forward(&hidden_states, &bias, rows, inputs)?;
        }
        self.head.forward(&hidden_states, inputs)
    }
}

/// Epsilon of the norms to which Transformers does not pass `layer_norm_eps`.
const EPSILON: f64 = 1e-5;

/// A norm: LayerNorm or NoNorm.
enum Norm {
    LayerNorm(LayerNorm),
    /// `NoNorm`: element-wise weight and bias, both `[size]`.
    NoNorm(Tensor, Tensor),
}

impl Norm {
    fn load(weights: &Weights<'_>, kind: NormalizationType, size: i64, epsilon: f64) -> Self {
        match kind {
            NormalizationType::LayerNorm => {
                Self::LayerNorm(LayerNorm::load(weights, size, epsilon))
            }
            NormalizationType::NoNorm => {
                Self::NoNorm(weights.tensor("weight", &[size]), weights.tensor("bias", &[size]))
            }
        }
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            Self::LayerNorm(norm) => norm.forward(input),
            Self::NoNorm(weight, bias) => Ok(input.f_mul(weight)?.f_add(bias)?),
        }
    }
}

/// A linear layer, an optional residual connection, and a norm.
enum NormalizedLinear {
    Apart(Linear, Norm),
    /// A norm that only scales and shifts is merged into the linear layer. Its weight is kept for the residual connection.
    Joined(Linear, Tensor),
}

impl NormalizedLinear {
    /// Reads `dense` and `LayerNorm`.
    fn load(
        weights: &Weights<'_>,
        config: &MobileBertConfig,
        inputs: i64,
        outputs: i64,
        epsilon: f64,
    ) -> Self {
        let dense = weights.sub("dense");
        let kind = config.normalization_type;
        match Norm::load(&weights.sub("LayerNorm"), kind, outputs, epsilon) {
            Norm::NoNorm(scale, shift) if !config.quantize => {
                let weight = dense.tensor("weight", &[outputs, inputs]);
                let bias = dense.tensor("bias", &[outputs]);
                let weight = weights.derived(|| Ok(weight.f_mul(&scale.f_unsqueeze(1)?)?));
                let bias = weights.derived(|| Ok(bias.f_mul(&scale)?.f_add(&shift)?));
                Self::Joined(Linear::new(weight, Some(bias)), scale)
            }
            norm => Self::Apart(Linear::load(&dense, inputs, outputs), norm),
        }
    }

    fn forward(&self, input: &Tensor, residual: Option<&Tensor>) -> Result<Tensor, TorchError> {
        match (self, residual) {
            (Self::Apart(linear, norm), Some(residual)) => {
                norm.forward(&linear.forward(input)?.f_add(residual)?)
            }
            (Self::Apart(linear, norm), None) => norm.forward(&linear.forward(input)?),
            (Self::Joined(linear, weight), Some(residual)) => {
                Ok(linear.forward(input)?.f_add(&residual.f_mul(weight)?)?)
            }
            (Self::Joined(linear, _), None) => linear.forward(input),
        }
    }
}

/// `MobileBertEmbeddings`.
struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    types: i64,
    trigram: bool,
    transformation: Option<Linear>,
    norm: Norm,
}

impl Embeddings {
    fn load(weights: &Weights<'_>, config: &MobileBertConfig) -> Self {
        let (width, hidden) = (config.embedding_size, config.hidden_size);
        let table = |name: &str, rows| weights.sub(name).tensor("weight", &[rows, hidden]);
        let neighbours = if config.trigram_input { 3 } else { 1 };
        let transformation = if config.trigram_input || width != hidden {
            let weights = weights.sub("embedding_transformation");
            Some(Linear::load(&weights, neighbours * width, hidden))
        } else {
            weights.ignore_all("embedding_transformation");
            None
        };
        let kind = config.normalization_type;
        Self {
            words: weights
                .sub("word_embeddings")
                .vocabulary_tensor("weight", &[config.vocab_size, width]),
            positions: table("position_embeddings", config.max_position_embeddings),
            token_types: table("token_type_embeddings", config.type_vocab_size),
            types: config.type_vocab_size,
            trigram: config.trigram_input,
            transformation,
            norm: Norm::load(&weights.sub("LayerNorm"), kind, hidden, EPSILON),
        }
    }

    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut words = embedding(&self.words, &inputs.input_ids)?;
        if self.trigram {
            // Next word, word, previous word; zeros beyond both ends.
            let padded = words.f_pad([0i64, 0, 1, 1].as_slice(), "constant", 0.)?;
            let (next, last) = (padded.f_slice(1, 2, None, 1)?, padded.f_slice(1, 0, -2, 1)?);
            words = Tensor::f_cat(&[&next, &words, &last], 2)?;
        }
        if let Some(transformation) = &self.transformation {
            words = transformation.forward(&words)?;
        }
        let positions = slice(&self.positions, 0, &inputs.tokens)?;
        let types = token_type_embedding(&self.token_types, self.types, inputs)?;
        self.norm.forward(&words.f_add(&types)?.f_add(&positions)?)
    }
}

/// Input of query and key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The hidden states.
    Hidden,
    /// The input bottleneck of the layer.
    Bottleneck,
    /// A separate bottleneck for query and key.
    OwnBottleneck,
}

/// `MobileBertLayer`.
struct Layer {
    bottlenecks: Option<Bottlenecks>,
    attention: CrossAttention,
    attention_output: NormalizedLinear,
    /// Feed-forwards in order; the output bottleneck follows the last one.
    feed_forwards: Vec<FeedForward>,
}

/// `Bottleneck` and `OutputBottleneck`.
struct Bottlenecks {
    entrance: NormalizedLinear,
    query: Source,
    own: Option<NormalizedLinear>,
    exit: NormalizedLinear,
}

/// `FFNLayer`.
struct FeedForward {
    intermediate: Linear,
    activation: ActivationLayer,
    output: NormalizedLinear,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &MobileBertConfig) -> Self {
        let (hidden, inner) = (config.hidden_size, config.inner());
        let linear = |weights: &Weights<'_>, inputs, outputs, epsilon| {
            NormalizedLinear::load(weights, config, inputs, outputs, epsilon)
        };
        let query = config.query_source();
        let bottlenecks = config.use_bottleneck.then(|| {
            let bottleneck = weights.sub("bottleneck");
            let own = (query == Source::OwnBottleneck).then(|| {
                linear(&bottleneck.sub("attention"), hidden, inner, config.layer_norm_eps)
            });
            // Transformers creates this bottleneck but ignores it if use_bottleneck_attention is set too.
            bottleneck.ignore_all("attention");
            let exit = weights.sub("output.bottleneck");
            Bottlenecks {
                entrance: linear(&bottleneck.sub("input"), hidden, inner, config.layer_norm_eps),
                query,
                own,
                exit: linear(&exit, inner, hidden, config.layer_norm_eps),
            }
        });
        let feed_forward = |weights: &Weights<'_>, epsilon| FeedForward {
            intermediate: Linear::load(
                &weights.sub("intermediate.dense"),
                inner,
                config.intermediate_size,
            ),
            activation: ActivationLayer::load(
                config.hidden_act,
                &weights.sub("intermediate.intermediate_act_fn"),
            ),
            output: linear(&weights.sub("output"), config.intermediate_size, inner, epsilon),
        };
        let mut feed_forwards: Vec<_> = (0..config.num_feedforward_networks - 1)
            .map(|i| feed_forward(&weights.sub("ffn").sub(i), config.layer_norm_eps))
            .collect();
        feed_forwards.push(feed_forward(weights, EPSILON));
        let attention = weights.sub("attention");
        let value = if query == Source::Bottleneck { inner } else { hidden };
        Self {
            bottlenecks,
            attention: CrossAttention::load(
                &attention.sub("self"),
                ["query", "key", "value"],
                [inner, inner, value],
                inner,
                config.num_attention_heads,
            ),
            attention_output: linear(&attention.sub("output"), inner, inner, config.layer_norm_eps),
            feed_forwards,
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let own_states = rows.of_states(hidden_states)?;
        // Attention and feed-forwards. `key` is also the input of the query; `residual` bypasses the attention.
        let inside = |key: &Tensor, value: &Tensor, residual: &Tensor| {
            let (query, bias) = (rows.of_states(key)?, rows.of_scores(bias)?);
            let context = self.attention.forward([&query, key, value], &bias, inputs)?;
            self.after_attention(&context, residual)
        };
        let Some(bottlenecks) = &self.bottlenecks else {
            return inside(hidden_states, hidden_states, &own_states);
        };
        let narrow = |states: &Tensor| bottlenecks.entrance.forward(states, None);
        let narrow = match (bottlenecks.query, &bottlenecks.own) {
            (Source::Bottleneck, _) => {
                let narrow = narrow(hidden_states)?;
                inside(&narrow, &narrow, &rows.of_states(&narrow)?)?
            }
            (Source::OwnBottleneck, Some(own)) => {
                let key = own.forward(hidden_states, None)?;
                inside(&key, hidden_states, &narrow(&own_states)?)?
            }
            _ => inside(hidden_states, hidden_states, &narrow(&own_states)?)?,
        };
        bottlenecks.exit.forward(&narrow, Some(&own_states))
    }

    /// The output of attention and the feed-forwards. `residual` bypasses the attention.
    fn after_attention(&self, context: &Tensor, residual: &Tensor) -> Result<Tensor, TorchError> {
        let mut states = self.attention_output.forward(context, Some(residual))?;
        for feed_forward in &self.feed_forwards {
            let inner = feed_forward.intermediate.forward(&states)?;
            let inner = feed_forward.activation.forward(&inner)?;
            states = feed_forward.output.forward(&inner, Some(&states))?;
        }
        Ok(states)
    }
}

/// `MobileBertLMPredictionHead`.
fn masked_lm(weights: &Weights<'_>, config: &MobileBertConfig, words: &Tensor) -> PredictionHead {
    let head = weights.sub("cls.predictions");
    let transform = head.sub("transform");
    let (vocabulary, hidden, width) =
        (config.vocab_size, config.hidden_size, config.embedding_size);
    let words = if config.tie_word_embeddings {
        words.shallow_clone()
    } else {
        head.sub("decoder").tensor("weight", &[vocabulary, width])
    };
    // The word embeddings decode the first part of the hidden states, a separate table decodes the rest.
    let whole = if width < hidden {
        let rest = head.sub("dense").tensor("weight", &[hidden - width, vocabulary]);
        head.derived(|| Ok(Tensor::f_cat(&[&words, &rest.f_transpose(0, 1)?], 1)?))
    } else {
        words
    };
    let shape = [vocabulary, hidden];
    PredictionHead {
        dense: Linear::load(&transform.sub("dense"), hidden, hidden),
        activation: ActivationLayer::load(config.hidden_act, &transform.sub("transform_act_fn")),
        norm: LayerNorm::load(&transform.sub("LayerNorm"), hidden, config.layer_norm_eps),
        decoder: decoder(&head, "decoder", "bias", &whole, shape, true),
    }
}
