//! The supported architectures, one file each.

pub mod activation;
mod bart;
pub mod bert;
mod compaction;
mod deberta_v2;
mod distance;
mod distilbert;
mod dpr;
mod electra;
pub mod encoder;
pub mod heads;
mod inputs;
pub mod layers;
mod mobilebert;
mod mpnet;
mod retribert;
mod roberta;
mod squeezebert;
mod weights;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::{Checkpoint, Spellings};
use crate::config::Head;
use crate::torchscript::TorchError;
pub use compaction::EntityLabels;
pub use inputs::{AttentionForm, Inputs, RowForm};
pub use weights::{WeightError, WeightLoader, Weights};

/// What a base model returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// One vector per token: `[batch, tokens, hidden]`.
    Tokens,
    /// One vector per row, which is the embedding that the model was trained for: `[batch, hidden]`.
    Row,
}

/// A loaded model: an architecture with a head.
pub trait Model {
    /// Returns the output of the head.
    ///
    /// # Errors
    /// Errors of libtorch.
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError>;
}

/// Settings for building a model.
#[derive(Debug, Clone, Copy)]
pub struct Blueprint<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// The requested head.
    pub head: Head,
    /// Number of labels, for classification heads.
    pub labels: i64,
    /// Whether linear layers will get 8-bit weights. Such a layer has one scale for the whole matrix, so no factor may be
    /// multiplied into single rows.
    pub quantize: bool,
}

/// Why a `config.json` does not describe a model that can be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A field has the wrong type or an unknown value.
    #[error("config.json: {0}; use the config.json that belongs to the weights")]
    Field(#[from] serde_json::Error),
    /// A value is not valid for the model.
    #[error("config.json: {0}")]
    Value(String),
    /// A variant that is not supported. Fields: the field of `config.json`, and the reason.
    #[error("{0} in config.json is not supported: {1}")]
    Unsupported(String, &'static str),
    /// Transformers does not have this head for the architecture.
    #[error("Transformers has no head of {0} for {1}")]
    NoHead(&'static str, Head),
}

/// Sizes that tasks and checks need from every architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of the vectors returned by the base model.
    pub hidden: i64,
    /// Meaning of the vectors returned by the base model.
    pub output: Output,
    /// Rows of the word embeddings.
    pub vocabulary: i64,
    /// Maximum input length in tokens, limited by the position table.
    pub positions: i64,
}

/// A supported architecture.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Parameter names in its files.
    pub spellings: &'static Spellings,
    /// Reads the sizes from `config.json`.
    pub dimensions: fn(&Value) -> Result<Dimensions, ConfigError>,
    /// Builds the model.
    pub load: Load,
}

/// Builds a model from weights and settings.
pub type Load = fn(&Weights<'_>, Blueprint<'_>) -> Result<Box<dyn Model>, ConfigError>;

/// All architectures. To add one, add a file and an entry here.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture {
        model_type: "bart",
        spellings: &bart::SPELLINGS,
        dimensions: bart::dimensions,
        load: bart::load,
    },
    Architecture {
        model_type: "bert",
        spellings: &bert::SPELLINGS,
        dimensions: bert::dimensions,
        load: bert::load,
    },
    Architecture {
        model_type: "camembert",
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
    Architecture {
        model_type: "deberta-v2",
        spellings: &deberta_v2::SPELLINGS,
        dimensions: deberta_v2::dimensions,
        load: deberta_v2::load,
    },
    Architecture {
        model_type: "distilbert",
        spellings: &distilbert::SPELLINGS,
        dimensions: distilbert::dimensions,
        load: distilbert::load,
    },
    Architecture {
        model_type: "dpr",
        spellings: &dpr::SPELLINGS,
        dimensions: dpr::dimensions,
        load: dpr::load,
    },
    Architecture {
        model_type: "electra",
        spellings: &electra::SPELLINGS,
        dimensions: electra::dimensions,
        load: electra::load,
    },
    Architecture {
        model_type: "mobilebert",
        spellings: &mobilebert::SPELLINGS,
        dimensions: mobilebert::dimensions,
        load: mobilebert::load,
    },
    Architecture {
        model_type: "mpnet",
        spellings: &mpnet::SPELLINGS,
        dimensions: mpnet::dimensions,
        load: mpnet::load,
    },
    Architecture {
        model_type: "retribert",
        spellings: &retribert::SPELLINGS,
        dimensions: retribert::dimensions,
        load: retribert::load,
    },
    Architecture {
        model_type: "roberta",
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
    Architecture {
        model_type: "squeezebert",
        spellings: &squeezebert::SPELLINGS,
        dimensions: squeezebert::dimensions,
        load: squeezebert::load,
    },
    Architecture {
        model_type: "xlm-roberta",
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
];

/// Known values of `model_type` that Elasticsearch cannot serve, with the reasons.
const UNSERVABLE: &[(&[&str], &str)] = &[
    (
        &["deberta"],
        "Elasticsearch has no tokenizer for DeBERTa v1; DeBERTa v2 and v3 (model_type deberta-v2) are supported",
    ),
    (
        &["albert", "big_bird", "xlm", "xlnet"],
        "Elasticsearch has no tokenizer for it; XLM-RoBERTa and DeBERTa v2 and v3 are supported",
    ),
    (
        &[
            "bloom", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox", "llama", "mistral", "qwen2",
            "qwen3",
        ],
        "it is a decoder that generates text, and Elasticsearch only serves encoders",
    ),
    (
        &["marian", "mbart", "mt5", "pegasus", "t5"],
        "Elasticsearch has no tokenizer for it; the only supported encoder-decoder is BART",
    ),
    (&["blip", "clip", "siglip", "vit"], "Elasticsearch passes text to models, not images"),
];

impl Architecture {
    /// The architecture of a `config.json` with this `model_type` and these Transformers classes in `architectures`.
    #[must_use]
    pub fn find(model_type: &str, classes: &[String]) -> Option<&'static Self> {
        // Some DPR encoders have the model_type bert, but only DPR's class can read their weights.
        let is_dpr = classes.iter().any(|class| dpr::ENCODERS.contains(&class.as_str()));
        let model_type = if model_type == "bert" && is_dpr { "dpr" } else { model_type };
        ARCHITECTURES.iter().find(|known| known.model_type == model_type)
    }

    /// The `model_type` of a Transformers class, such as `BertForMaskedLM`.
    #[must_use]
    pub fn type_of_class(class: &str) -> Option<&'static str> {
        const CLASSES: [(&str, &str); 13] = [
            ("XLMRoberta", "xlm-roberta"),
            ("DistilBert", "distilbert"),
            ("MobileBert", "mobilebert"),
            ("SqueezeBert", "squeezebert"),
            ("RetriBert", "retribert"),
            ("DebertaV2", "deberta-v2"),
            ("Camembert", "camembert"),
            ("Roberta", "roberta"),
            ("Electra", "electra"),
            ("MPNet", "mpnet"),
            ("Bart", "bart"),
            ("DPR", "dpr"),
            ("Bert", "bert"),
        ];
        let follows = |rest: &str| {
            ["For", "Model", "Context", "Question", "Pre", "LM"]
                .iter()
                .any(|part| rest.starts_with(part))
        };
        let known = |(name, _): &&(&str, &str)| class.strip_prefix(name).is_some_and(follows);
        CLASSES.iter().find(known).map(|&(_, model_type)| model_type)
    }

    /// The `model_type` that the names of a checkpoint's tensors suggest.
    #[must_use]
    pub fn type_of_tensors(checkpoint: &Checkpoint) -> Option<&'static str> {
        let tensors = checkpoint.tensors();
        let has = |part: &str| tensors.keys().any(|name| format!(".{name}").contains(part));
        const PARTS: [(&str, &str); 12] = [
            (".ctx_encoder.", "dpr"),
            (".question_encoder.", "dpr"),
            (".bert_query.", "retribert"),
            (".electra.", "electra"),
            (".discriminator_predictions.", "electra"),
            (".embeddings_project.", "electra"),
            (".q_lin.", "distilbert"),
            (".attention.attn.q.", "mpnet"),
            (".rel_embeddings.", "deberta-v2"),
            (".self_attn.q_proj.", "bart"),
            (".embedding_transformation.", "mobilebert"),
            (".transformer.encoder.layers.", "squeezebert"),
        ];
        if let Some((_, model_type)) = PARTS.iter().find(|(part, _)| has(part)) {
            return Some(model_type);
        }
        if !has(".attention.self.query.") {
            return None;
        }
        // The RoBERTa family has one token type, BERT has two.
        let types = tensors
            .iter()
            .find(|(name, _)| name.ends_with("token_type_embeddings.weight"))
            .and_then(|(_, stored)| stored.slice.shape.first());
        Some(if has(".roberta.") || types == Some(&1) { "roberta" } else { "bert" })
    }

    /// The reason why Elasticsearch cannot serve a `model_type`, if it is a known one.
    #[must_use]
    pub fn why_not(model_type: &str) -> Option<&'static str> {
        let known = UNSERVABLE.iter().find(|(types, _)| types.contains(&model_type));
        known.map(|&(_, reason)| reason)
    }

    /// The supported values of `model_type`.
    #[must_use]
    pub fn model_types() -> Vec<&'static str> {
        ARCHITECTURES.iter().map(|known| known.model_type).collect()
    }
}

/// Reads the fields of an architecture from a `config.json` that may use other names for some of them, as `attribute_map` in
/// Transformers allows. If both names are present, the other name takes precedence, as in Transformers.
fn read_config_by<T: DeserializeOwned>(
    aliases: &[(&str, &str)],
    config: &Value,
) -> Result<T, ConfigError> {
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        for (alias, name) in aliases {
            if let Some(value) = fields.remove(*alias) {
                fields.insert((*name).to_owned(), value);
            }
        }
    }
    read_config(&config)
}

/// Reads the fields of an architecture from `config.json`.
fn read_config<T: DeserializeOwned>(config: &Value) -> Result<T, ConfigError> {
    Ok(T::deserialize(config)?)
}

/// Reads the fields of an architecture that shares its struct with another but has different `defaults`.
fn read_config_over<T: DeserializeOwned>(
    mut defaults: Value,
    config: &Value,
) -> Result<T, ConfigError> {
    if let (Some(defaults), Some(given)) = (defaults.as_object_mut(), config.as_object()) {
        defaults.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    read_config(&defaults)
}

/// Maximum of every size. It is above every real model, and products of a few sizes do not overflow.
const MAX_SIZE: i64 = 1 << 24;

/// Maximum number of layers and positions. It is above every real model, and limits the work for a `config.json` that does not
/// match the weights.
const MAX_LAYERS: i64 = 1 << 10;
const MAX_POSITIONS: i64 = 1 << 20;

/// Checks sizes. Their names are those in `config.json`.
fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), ConfigError> {
    for &(name, value) in sizes {
        let most = match name {
            "max_position_embeddings" => MAX_POSITIONS,
            _ if name.ends_with("layers") => MAX_LAYERS,
            _ => MAX_SIZE,
        };
        if !(1..=most).contains(&value) {
            return Err(ConfigError::Value(format!(
                "{name} is {value}, which is not a valid size"
            )));
        }
    }
    Ok(())
}

/// Checks that a width can be divided into heads of equal size. The names are those in `config.json`.
fn check_heads(
    (name, width): (&str, i64),
    (heads_name, heads): (&str, i64),
) -> Result<(), ConfigError> {
    if width % heads == 0 {
        return Ok(());
    }
    Err(ConfigError::Value(format!("{name} {width} is not a multiple of {heads_name} {heads}")))
}

/// Rejects decoders. Every class of the BERT family can be configured as one.
fn check_encoder(config: &Value) -> Result<(), ConfigError> {
    let flags = ["is_decoder", "add_cross_attention"];
    match flags.into_iter().find(|flag| config.get(flag) == Some(&Value::Bool(true))) {
        Some(flag) => Err(ConfigError::Unsupported(
            flag.into(),
            "a decoder only attends to earlier tokens, and Elasticsearch only serves encoders",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
