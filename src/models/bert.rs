//! BERT (Devlin et al. 2018, arXiv:1810.04805; `transformers/models/bert/modeling_bert.py`).

use serde::Deserialize;
use serde_json::Value;
use tch::Tensor;

use super::layers::{Activation, LayerNorm, Linear, SelfAttention, attention_bias, embedding};
use super::{Blueprint, ConfigError, Dimensions, Head, Inputs, Model, check_sizes, read_config};
use crate::checkpoint::Weights;
use crate::torchscript::{TorchError, slice};

/// `BertConfig`, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct BertConfig {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    position_embedding_type: String,
    is_decoder: bool,
    add_cross_attention: bool,
    tie_word_embeddings: bool,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".into(),
            is_decoder: false,
            add_cross_attention: false,
            tie_word_embeddings: true,
        }
    }
}

impl BertConfig {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        let config: Self = read_config(config)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ])?;
        if config.hidden_size % config.num_attention_heads != 0 {
            return Err(ConfigError::Value(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                config.hidden_size, config.num_attention_heads
            )));
        }
        if config.is_decoder || config.add_cross_attention {
            return Err(ConfigError::Unsupported(
                "is_decoder or add_cross_attention".into(),
                "a decoder attends to the left only, and Elasticsearch serves encoders",
            ));
        }
        if config.position_embedding_type != "absolute" {
            return Err(ConfigError::Unsupported(
                format!("position_embedding_type {}", config.position_embedding_type),
                "only absolute positions are understood so far",
            ));
        }
        Ok(config)
    }
}

/// The sizes of a BERT.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = BertConfig::read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
    })
}

/// Builds a BERT under the head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = BertConfig::read(blueprint.config)?;
    let base = weights.base("bert");
    let encoder = Encoder::load(&base, &config);
    let hidden = config.hidden_size;
    let head = match blueprint.head {
        Head::Base => BertHead::None,
        Head::MaskedLm => {
            BertHead::MaskedLm(MaskedLmHead::load(weights, &config, encoder.words.shallow_clone()))
        }
        Head::TokenClassification => {
            BertHead::Tokens(Linear::load(&weights.sub("classifier"), hidden, blueprint.labels))
        }
        Head::QuestionAnswering => {
            BertHead::Tokens(Linear::load(&weights.sub("qa_outputs"), hidden, 2))
        }
        Head::SequenceClassification => BertHead::Sequence {
            pooler: Linear::load(&base.sub("pooler.dense"), hidden, hidden),
            classifier: Linear::load(&weights.sub("classifier"), hidden, blueprint.labels),
        },
    };
    // Known, and rightly left out: the buffer of positions, the pooler and the pre-training heads of tasks that have none.
    base.ignore("embeddings.position_ids");
    base.ignore_all("pooler");
    weights.ignore_all("cls");
    Ok(Box::new(Bert { encoder, head }))
}

struct Bert {
    encoder: Encoder,
    head: BertHead,
}

enum BertHead {
    None,
    MaskedLm(MaskedLmHead),
    /// One linear layer over every token.
    Tokens(Linear),
    /// The first token, through the pooler.
    Sequence {
        pooler: Linear,
        classifier: Linear,
    },
}

impl Model for Bert {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let hidden_states = self.encoder.forward(inputs)?;
        match &self.head {
            BertHead::None => Ok(hidden_states),
            BertHead::MaskedLm(head) => head.forward(&hidden_states),
            BertHead::Tokens(classifier) => classifier.forward(&hidden_states),
            BertHead::Sequence { pooler, classifier } => {
                let first = hidden_states.f_select(1, 0)?;
                classifier.forward(&pooler.forward(&first)?.f_tanh()?)
            }
        }
    }
}

/// `BertEmbeddings` and `BertEncoder`.
struct Encoder {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    types: i64,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Encoder {
    fn load(weights: &Weights<'_>, config: &BertConfig) -> Self {
        let embeddings = weights.sub("embeddings");
        let table =
            |name: &str, rows| embeddings.sub(name).tensor("weight", &[rows, config.hidden_size]);
        let layer = weights.sub("encoder.layer");
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions: table("position_embeddings", config.max_position_embeddings),
            token_types: table("token_type_embeddings", config.type_vocab_size),
            types: config.type_vocab_size,
            norm: LayerNorm::load(
                &embeddings.sub("LayerNorm"),
                config.hidden_size,
                config.layer_norm_eps,
            ),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(&layer.sub(i), config))
                .collect(),
        }
    }

    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let words = embedding(&self.words, &inputs.input_ids)?;
        // Positions count from 0 in every row, as the server's position_ids do: a slice of the table needs no look-up.
        let positions = slice(&self.positions, 0, &inputs.tokens)?;
        let types = match inputs.token_type_ids(self.types)? {
            Some(ids) => embedding(&self.token_types, &ids)?,
            None => self.token_types.f_select(0, 0)?,
        };
        let mut hidden_states = self.norm.forward(&words.f_add(&types)?.f_add(&positions)?)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        for layer in &self.layers {
            hidden_states = layer.forward(&hidden_states, &bias, inputs)?;
        }
        Ok(hidden_states)
    }
}

/// `BertLayer`: attention and feed-forward, each with a residual connection and a norm behind it.
struct Layer {
    attention: SelfAttention,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &BertConfig) -> Self {
        let hidden = config.hidden_size;
        let attention = weights.sub("attention");
        let norm = |weights: &Weights<'_>| {
            LayerNorm::load(&weights.sub("output.LayerNorm"), hidden, config.layer_norm_eps)
        };
        Self {
            attention: SelfAttention::load(
                &attention.sub("self"),
                ["query", "key", "value"],
                hidden,
                config.num_attention_heads,
            ),
            attention_output: Linear::load(&attention.sub("output.dense"), hidden, hidden),
            attention_norm: norm(&attention),
            intermediate: Linear::load(
                &weights.sub("intermediate.dense"),
                hidden,
                config.intermediate_size,
            ),
            activation: config.hidden_act,
            output: Linear::load(&weights.sub("output.dense"), config.intermediate_size, hidden),
            norm: norm(weights),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let context = self.attention.forward(hidden_states, bias, inputs)?;
        let attended = self
            .attention_norm
            .forward(&self.attention_output.forward(&context)?.f_add(hidden_states)?)?;
        let inner = self.activation.forward(&self.intermediate.forward(&attended)?)?;
        self.norm.forward(&self.output.forward(&inner)?.f_add(&attended)?)
    }
}

/// `BertLMPredictionHead`.
struct MaskedLmHead {
    dense: Linear,
    activation: Activation,
    norm: LayerNorm,
    decoder: Linear,
}

impl MaskedLmHead {
    fn load(weights: &Weights<'_>, config: &BertConfig, words: Tensor) -> Self {
        let head = weights.sub("cls.predictions");
        let transform = head.sub("transform");
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let weight = if config.tie_word_embeddings {
            words
        } else {
            head.sub("decoder").tensor("weight", &[vocabulary, hidden])
        };
        Self {
            dense: Linear::load(&transform.sub("dense"), hidden, hidden),
            activation: config.hidden_act,
            norm: LayerNorm::load(&transform.sub("LayerNorm"), hidden, config.layer_norm_eps),
            decoder: Linear::new(weight, Some(head.tensor("bias", &[vocabulary]))),
        }
    }

    fn forward(&self, hidden_states: &Tensor) -> Result<Tensor, TorchError> {
        let transformed = self.activation.forward(&self.dense.forward(hidden_states)?)?;
        self.decoder.forward(&self.norm.forward(&transformed)?)
    }
}
