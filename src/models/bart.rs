//! BART (Lewis et al. 2019, arXiv:1910.13461; `transformers/models/bart/modeling_bart.py`).
//!
//! The encoder reads the text. The decoder reads the same text, shifted by one token; its hidden states are the output.

use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::activation::{Activation, ActivationLayer};
use super::layers::{CrossAttention, LayerNorm, Linear, attention_bias, causal_bias, embedding};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Head, Inputs, Model, Output, check_heads,
    check_sizes, read_config_by,
};
use crate::checkpoint::Spellings;
use crate::torchscript::{TorchError, arange, slice};

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("bart") || evidence.is_untyped_with(&[".self_attn.q_proj."])
}

/// Parameter names in its files. The word embeddings, which encoder and decoder share, are stored under up to three names. Old
/// files contain fairseq's version number and the head for generating text.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["model"],
    same: &[&["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]],
    leftover: &["encoder.version", "decoder.version", "final_logits_bias", "lm_head.weight"],
};

/// `BartConfig` with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct BartConfig {
    vocab_size: i64,
    max_position_embeddings: i64,
    d_model: i64,
    encoder_layers: i64,
    encoder_ffn_dim: i64,
    encoder_attention_heads: i64,
    decoder_layers: i64,
    decoder_ffn_dim: i64,
    decoder_attention_heads: i64,
    activation_function: Activation,
    scale_embedding: bool,
    eos_token_id: i64,
    decoder_start_token_id: i64,
    is_decoder: bool,
    tie_word_embeddings: bool,
}

impl Default for BartConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50265,
            max_position_embeddings: 1024,
            d_model: 1024,
            encoder_layers: 12,
            encoder_ffn_dim: 4096,
            encoder_attention_heads: 16,
            decoder_layers: 12,
            decoder_ffn_dim: 4096,
            decoder_attention_heads: 16,
            activation_function: Activation::Gelu,
            scale_embedding: false,
            eos_token_id: 2,
            decoder_start_token_id: 2,
            is_decoder: false,
            tie_word_embeddings: true,
        }
    }
}

/// `attribute_map` of `BartConfig`.
const ALIASES: [(&str, &str); 2] =
    [("num_attention_heads", "encoder_attention_heads"), ("hidden_size", "d_model")];

impl BartConfig {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        let config: Self = read_config_by(&ALIASES, config)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("d_model", config.d_model),
            ("encoder_layers", config.encoder_layers),
            ("encoder_ffn_dim", config.encoder_ffn_dim),
            ("encoder_attention_heads", config.encoder_attention_heads),
            ("decoder_layers", config.decoder_layers),
            ("decoder_ffn_dim", config.decoder_ffn_dim),
            ("decoder_attention_heads", config.decoder_attention_heads),
        ])?;
        for (name, heads) in [
            ("encoder_attention_heads", config.encoder_attention_heads),
            ("decoder_attention_heads", config.decoder_attention_heads),
        ] {
            check_heads(("d_model", config.d_model), (name, heads))?;
        }
        if !(0..config.vocab_size).contains(&config.decoder_start_token_id) {
            return Err(ConfigError::Value(format!(
                "decoder_start_token_id {} is not in the vocabulary of {} tokens",
                config.decoder_start_token_id, config.vocab_size
            )));
        }
        if config.is_decoder {
            return Err(ConfigError::Unsupported(
                "is_decoder".into(),
                "BART is supported only with both encoder and decoder",
            ));
        }
        Ok(config)
    }
}

/// Sizes of a BART.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = BartConfig::read(config)?;
    Ok(Dimensions {
        hidden: config.d_model,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        output: Output::Tokens,
    })
}

/// Builds a BART with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = BartConfig::read(blueprint.config)?;
    let base = weights.base();
    let words = base.vocabulary_tensor("shared.weight", &[config.vocab_size, config.d_model]);
    let hidden = config.d_model;
    let head = match blueprint.head {
        Head::Base => BartHead::None,
        Head::MaskedLm => BartHead::Tokens(language_model(weights, &config, &words)),
        Head::TokenClassification => return Err(ConfigError::NoHead("BART", blueprint.head)),
        Head::QuestionAnswering => {
            BartHead::Tokens(Linear::load(&weights.sub("qa_outputs"), hidden, 2))
        }
        Head::SequenceClassification => {
            let head = weights.sub("classification_head");
            BartHead::Sequence {
                end: config.eos_token_id,
                dense: Linear::load(&head.sub("dense"), hidden, hidden),
                out: Linear::load(&head.sub("out_proj"), hidden, blueprint.labels),
            }
        }
    };
    let bart = Bart {
        embeddings: Embeddings {
            words,
            scale: config.scale_embedding.then(|| (hidden as f64).sqrt()),
        },
        start: config.decoder_start_token_id,
        encoder: Stack::load(&base.sub("encoder"), &config, Side::Encoder),
        decoder: Stack::load(&base.sub("decoder"), &config, Side::Decoder),
        head,
    };
    Ok(Box::new(bart))
}

/// Head of `BartForConditionalGeneration`.
fn language_model(weights: &Weights<'_>, config: &BartConfig, words: &Tensor) -> Linear {
    let weight = if config.tie_word_embeddings {
        words.shallow_clone()
    } else {
        weights.tensor("lm_head.weight", &[config.vocab_size, config.d_model])
    };
    const BIAS: &str = "final_logits_bias";
    let bias = weights.has(BIAS).then(|| {
        let bias = weights.tensor(BIAS, &[1, config.vocab_size]);
        weights.derived(|| Ok(bias.f_squeeze_dim(0)?))
    });
    Linear::new(weight, bias)
}

struct Bart {
    embeddings: Embeddings,
    /// Id of the token that the decoder reads before the first token of the text.
    start: i64,
    encoder: Stack,
    decoder: Stack,
    head: BartHead,
}

enum BartHead {
    None,
    /// A linear layer on every token.
    Tokens(Linear),
    /// `BartClassificationHead` on the last end-of-sentence token.
    Sequence {
        end: i64,
        dense: Linear,
        out: Linear,
    },
}

impl Model for Bart {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let ids = &inputs.input_ids;
        let mut encoded = self.encoder.embed(&self.embeddings.forward(ids)?, inputs)?;
        let bias = attention_bias(&inputs.attention_mask)?;
        for layer in &self.encoder.layers {
            encoded = layer.attention.forward(&encoded, &encoded, &bias, inputs)?;
            encoded = layer.feed_forward.forward(&encoded)?;
        }

        // Shift to the right by one token. The negative padding on the right removes the last token.
        let shifted = ids.f_pad([1i64, -1].as_slice(), "constant", self.start as f64)?;
        let mut decoded = self.decoder.embed(&self.embeddings.forward(&shifted)?, inputs)?;
        // As in Transformers, the decoder does not mask padding before a token; only the encoder does.
        let causal = causal_bias(inputs)?;
        for layer in &self.decoder.layers {
            decoded = layer.attention.forward_causal(&decoded, causal.as_ref(), inputs)?;
            if let Some(cross_attention) = &layer.cross_attention {
                decoded = cross_attention.forward(&decoded, &encoded, &bias, inputs)?;
            }
            decoded = layer.feed_forward.forward(&decoded)?;
        }

        match &self.head {
            BartHead::None => Ok(decoded),
            BartHead::Tokens(linear) => linear.forward(&decoded),
            BartHead::Sequence { end, dense, out } => {
                let sentence = last_of(*end, &decoded, inputs)?;
                out.forward(&dense.forward(&sentence)?.f_tanh()?)
            }
        }
    }
}

/// Hidden states at the last token `end` of each row: `[batch, tokens, hidden]` to `[batch, hidden]`.
fn last_of(end: i64, states: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
    let is_end = inputs.input_ids.f_eq(end)?.f_to_kind(Kind::Int64)?;
    let (last, _) = is_end.f_mul(&arange(&inputs.tokens)?)?.f_max_dim(1, true)?;
    let width = *states.size().last().unwrap_or(&0);
    let index = last.f_unsqueeze(-1)?.f_expand([-1, 1, width], false)?;
    Ok(states.f_gather(1, &index, false)?.f_squeeze_dim(1)?)
}

/// `BartScaledWordEmbedding`, shared by encoder and decoder.
struct Embeddings {
    words: Tensor,
    scale: Option<f64>,
}

impl Embeddings {
    fn forward(&self, ids: &Tensor) -> Result<Tensor, TorchError> {
        let words = embedding(&self.words, ids)?;
        Ok(match self.scale {
            Some(scale) => words.f_mul_scalar(scale)?,
            None => words,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Encoder,
    Decoder,
}

/// `BartEncoder` or `BartDecoder`.
struct Stack {
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// Epsilon of all norms, the default of `torch.nn.LayerNorm`.
const EPSILON: f64 = 1e-5;

impl Stack {
    fn load(weights: &Weights<'_>, config: &BartConfig, side: Side) -> Self {
        /// Number of rows of the position table before the row of the first token.
        const OFFSET: i64 = 2;
        let (hidden, positions) = (config.d_model, config.max_position_embeddings);
        let table = weights.tensor("embed_positions.weight", &[positions + OFFSET, hidden]);
        let (layers, heads, inner) = match side {
            Side::Encoder => {
                (config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim)
            }
            Side::Decoder => {
                (config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim)
            }
        };
        let layer = |i| {
            let weights = weights.sub("layers").sub(i);
            let attention = |name: &str| Attention::load(&weights, name, hidden, heads);
            Layer {
                attention: attention("self_attn"),
                cross_attention: (side == Side::Decoder).then(|| attention("encoder_attn")),
                feed_forward: FeedForward::load(&weights, config, inner),
            }
        };
        Self {
            positions: weights.derived(|| Ok(table.f_slice(0, OFFSET, None, 1)?)),
            norm: LayerNorm::load(&weights.sub("layernorm_embedding"), hidden, EPSILON),
            layers: (0..layers).map(layer).collect(),
        }
    }

    /// Adds position embeddings to word embeddings. Positions count from 0 in every row.
    fn embed(&self, words: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        self.norm.forward(&words.f_add(&slice(&self.positions, 0, &inputs.tokens)?)?)
    }
}

/// `BartEncoderLayer` or `BartDecoderLayer`.
struct Layer {
    attention: Attention,
    /// Attention of the decoder to the encoder's output.
    cross_attention: Option<Attention>,
    feed_forward: FeedForward,
}

/// `BartAttention`, followed by a residual connection and a LayerNorm.
struct Attention {
    attention: CrossAttention,
    output: Linear,
    norm: LayerNorm,
}

impl Attention {
    fn load(weights: &Weights<'_>, name: &str, hidden: i64, heads: i64) -> Self {
        let attention = weights.sub(name);
        let names = ["q_proj", "k_proj", "v_proj"];
        Self {
            attention: CrossAttention::load(&attention, names, [hidden; 3], hidden, heads),
            output: Linear::load(&attention.sub("out_proj"), hidden, hidden),
            norm: LayerNorm::load(&weights.sub(format!("{name}_layer_norm")), hidden, EPSILON),
        }
    }

    fn forward(
        &self,
        states: &Tensor,
        others: &Tensor,
        bias: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        self.close(self.attention.forward([states, others, others], bias, inputs)?, states)
    }

    fn forward_causal(
        &self,
        states: &Tensor,
        causal: Option<&Tensor>,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        self.close(self.attention.forward_causal([states; 3], causal, inputs)?, states)
    }

    fn close(&self, context: Tensor, states: &Tensor) -> Result<Tensor, TorchError> {
        self.norm.forward(&self.output.forward(&context)?.f_add(states)?)
    }
}

struct FeedForward {
    inner: Linear,
    activation: ActivationLayer,
    outer: Linear,
    norm: LayerNorm,
}

impl FeedForward {
    fn load(weights: &Weights<'_>, config: &BartConfig, inner: i64) -> Self {
        let hidden = config.d_model;
        Self {
            inner: Linear::load(&weights.sub("fc1"), hidden, inner),
            activation: ActivationLayer::load(
                config.activation_function,
                &weights.sub("activation_fn"),
            ),
            outer: Linear::load(&weights.sub("fc2"), inner, hidden),
            norm: LayerNorm::load(&weights.sub("final_layer_norm"), hidden, EPSILON),
        }
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor, TorchError> {
        let inner = self.activation.forward(&self.inner.forward(states)?)?;
        self.norm.forward(&self.outer.forward(&inner)?.f_add(states)?)
    }
}
