//! EuroBERT (Boizard et al. 2025, arXiv:2503.05500; `transformers/models/eurobert/modeling_eurobert.py`), also as the base of
//! jina-embeddings-v5-text-nano: Llama's layers, in which all tokens attend to all others.

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use super::activation::{Activation, ActivationLayer};
use super::blocks::{Angles, Attention, FeedForward, Inner, RmsNorm, Rotary};
use super::heads::{SequencePooling, TaskHead};
use super::layers::{Heads, Linear, attention_bias, embedding};
use super::rope_parameters::{RopeParameters, RopeScaling};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, Rows, check_encoder,
    check_heads, check_rotation, check_sizes, read_config_over,
};
use crate::checkpoint::Spellings;
use crate::torchscript::TorchError;

/// Whether a folder contains a EuroBERT. jina-embeddings-v5-text-small has the same `model_type` as nano and is a decoder.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    let is_encoder = evidence.config.get("is_decoder") == Some(&Value::Bool(false));
    evidence.is("eurobert") || evidence.is("jina_embeddings_v5") && is_encoder
}

/// Parameter names in its files.
pub(super) static SPELLINGS: Spellings =
    Spellings { base: &["model"], same: &[], leftover: &["lm_head"] };

/// `EuroBertConfig`.
#[derive(Debug, Deserialize)]
struct EuroBertConfig {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    hidden_act: Activation,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    attention_bias: bool,
    mlp_bias: bool,
    tie_word_embeddings: bool,
    /// Name of the field in EuroBERT's own code.
    clf_pooling: Option<ClassifierPooling>,
    /// Name of the field in Transformers 5.
    classifier_pooling: Option<ClassifierPooling>,
}

/// Which vector the classifier of a row reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClassifierPooling {
    /// The first token.
    Bos,
    /// The mean over the logits of all tokens.
    Late,
    /// The mean over all tokens.
    Mean,
}

/// Parses and validates `config.json`. Also returns the base and the factor of the rotary positions.
fn read(config: &Value) -> Result<(EuroBertConfig, f64, f64), ConfigError> {
    check_encoder(config)?;
    let rope = RopeParameters::read(config)?;
    let factor = match rope.scaling {
        None => 1.,
        Some(RopeScaling::Linear { factor }) => factor,
        Some(RopeScaling::Ntk { .. }) => {
            return Err(ConfigError::Unsupported(
                "rope_scaling".into(),
                "EuroBERT's class does not have NTK scaling",
            ));
        }
    };
    let defaults = json!({
        "vocab_size": 128_256, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "silu",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "attention_bias": false,
        "mlp_bias": false, "tie_word_embeddings": false,
    });
    let config: EuroBertConfig = read_config_over(defaults, config)?;
    check_sizes(&[
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.key_heads()),
        ("head_dim", config.head_dim.unwrap_or(1)),
        ("max_position_embeddings", config.max_position_embeddings),
    ])?;
    let heads = ("num_attention_heads", config.num_attention_heads);
    check_heads(("hidden_size", config.hidden_size), heads)?;
    check_heads(heads, ("num_key_value_heads", config.key_heads()))?;
    check_rotation(config.heads().size)?;
    Ok((config, rope.theta.unwrap_or(10_000.), factor))
}

impl EuroBertConfig {
    fn key_heads(&self) -> i64 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn heads(&self) -> Heads {
        let count = self.num_attention_heads;
        Heads { count, size: self.head_dim.unwrap_or(self.hidden_size / count) }
    }

    fn pooling(&self) -> Result<ClassifierPooling, ConfigError> {
        match (self.clf_pooling, self.classifier_pooling) {
            (Some(own), Some(native)) if own != native => Err(ConfigError::Value(
                "clf_pooling and classifier_pooling contradict each other; keep the value that the model was trained with".into(),
            )),
            (own, native) => Ok(own.or(native).unwrap_or(ClassifierPooling::Late)),
        }
    }

    fn norm(&self, weights: &Weights<'_>) -> RmsNorm {
        RmsNorm::load(weights, self.hidden_size, self.rms_norm_eps)
    }
}

/// Sizes of a EuroBERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let (config, ..) = read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        output: Output::Tokens,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
    })
}

/// Builds a EuroBERT with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, theta, factor) = read(blueprint.config)?;
    let (base, hidden) = (weights.base(), config.hidden_size);
    let shape = [config.vocab_size, hidden];
    let words = base.sub("embed_tokens").vocabulary_tensor("weight", &shape);
    let classifier = || Linear::load(&weights.sub("classifier"), hidden, blueprint.labels);
    let head = match blueprint.head {
        Head::Base => EuroBertHead::Task(TaskHead::None),
        Head::MaskedLm => {
            let head = weights.sub("lm_head");
            let bias = config.mlp_bias.then(|| head.tensor("bias", &shape[..1]));
            let weight = if config.tie_word_embeddings {
                head.ignore("weight");
                words.shallow_clone()
            } else {
                head.tensor("weight", &shape)
            };
            EuroBertHead::Task(TaskHead::Tokens(Linear::new(weight, bias)))
        }
        Head::TokenClassification => EuroBertHead::Task(TaskHead::Tokens(classifier())),
        Head::SequenceClassification => EuroBertHead::Sequence {
            pooling: config.pooling()?,
            dense: Linear::load(&weights.sub("dense"), hidden, hidden),
            classifier: classifier(),
        },
        Head::QuestionAnswering => return Err(ConfigError::NoHead("EuroBERT", blueprint.head)),
    };
    let layers = base.sub("layers");
    Ok(Box::new(EuroBert {
        layers: (0..config.num_hidden_layers)
            .map(|i| Layer::load(&layers.sub(i), &config))
            .collect(),
        norm: config.norm(&base.sub("norm")),
        rotary: Rotary::with_linear(&base, config.heads().size, theta, factor),
        words,
        head,
    }))
}

/// `EuroBertModel` with a head.
struct EuroBert {
    words: Tensor,
    rotary: Rotary,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: EuroBertHead,
}

enum EuroBertHead {
    Task(TaskHead),
    /// `EuroBertForSequenceClassification`.
    Sequence {
        pooling: ClassifierPooling,
        dense: Linear,
        classifier: Linear,
    },
}

impl EuroBertHead {
    /// The tokens whose hidden states are read.
    fn rows(&self, inputs: &Inputs) -> Rows {
        match self {
            Self::Task(head) => head.rows(inputs),
            Self::Sequence { pooling: ClassifierPooling::Bos, .. } => Rows::First,
            Self::Sequence { .. } => Rows::All,
        }
    }
}

impl Model for EuroBert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let bias = attention_bias(&inputs.attention_mask)?;
        let angles = self.rotary.angles(inputs)?;
        let mut states = embedding(&self.words, &inputs.input_ids)?;
        for (layer, rows) in self.head.rows(inputs).by_layer(&self.layers) {
            states = layer.forward(&states, &bias, &angles, rows, inputs)?;
        }
        let states = self.norm.forward(&states)?;
        match &self.head {
            EuroBertHead::Task(head) => head.forward(&states, inputs),
            EuroBertHead::Sequence { pooling, dense, classifier } => {
                let activated = |states: &Tensor| -> Result<Tensor, TorchError> {
                    Ok(dense.forward(states)?.f_gelu("none")?)
                };
                classifier.forward(&match pooling {
                    ClassifierPooling::Bos => {
                        activated(&SequencePooling::Cls.forward(&states, inputs)?)?
                    }
                    ClassifierPooling::Mean => {
                        activated(&SequencePooling::Mean.forward(&states, inputs)?)?
                    }
                    // The mean of the logits equals the logits of the mean, because the classifier is linear.
                    ClassifierPooling::Late => {
                        SequencePooling::Mean.forward(&activated(&states)?, inputs)?
                    }
                })
            }
        }
    }
}

/// `EuroBertDecoderLayer`: norms before attention and feed-forward.
struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &EuroBertConfig) -> Self {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let (attention, mlp) = (weights.sub("self_attn"), weights.sub("mlp"));
        let attention = |name: &str, inputs: i64, outputs: i64| {
            Linear::with_bias_if(config.attention_bias, &attention.sub(name), inputs, outputs)
        };
        let mlp_linear = |name: &str, inputs: i64, outputs: i64| {
            Linear::with_bias_if(config.mlp_bias, &mlp.sub(name), inputs, outputs)
        };
        let key_width = config.key_heads() * heads.size;
        Self {
            attention_norm: config.norm(&weights.sub("input_layernorm")),
            attention: Attention {
                query_key_value: [
                    attention("q_proj", hidden, heads.width()),
                    attention("k_proj", hidden, key_width),
                    attention("v_proj", hidden, key_width),
                ],
                norm: None,
                heads,
                output: attention("o_proj", heads.width(), hidden),
            },
            feed_forward_norm: config.norm(&weights.sub("post_attention_layernorm")),
            feed_forward: FeedForward {
                inner: Inner::Gated {
                    activated: mlp_linear("gate_proj", hidden, inner),
                    gate: mlp_linear("up_proj", hidden, inner),
                },
                activation: ActivationLayer::load(config.hidden_act, &mlp.sub("act_fn")),
                output: mlp_linear("down_proj", inner, hidden),
            },
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        bias: &Tensor,
        angles: &Angles,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let normed = self.attention_norm.forward(states)?;
        let attended = self.attention.forward(&normed, bias, Some(angles), rows, inputs)?;
        let states = rows.of_states(states)?.f_add(&attended)?;
        let normed = self.feed_forward_norm.forward(&states)?;
        Ok(states.f_add(&self.feed_forward.forward(&normed)?)?)
    }
}
