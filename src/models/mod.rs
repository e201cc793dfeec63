//! The supported architectures, one file each.

pub mod activation;
mod albert;
mod bart;
pub mod bert;
pub mod blocks;
mod compaction;
mod composed_rows;
mod deberta;
mod deberta_v2;
mod detection;
mod distance;
mod distilbert;
mod dpr;
mod electra;
pub mod encoder;
mod ernie;
mod eurobert;
mod gemma3;
mod gte;
pub mod heads;
mod inputs;
mod jina_bert;
mod layer_kinds;
pub mod layers;
mod longformer;
mod mobilebert;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod post_norm;
mod refusals;
mod retribert;
mod roberta;
mod rope_parameters;
mod rows;
mod squeezebert;
pub mod static_embedding;
mod t5;
mod weights;
mod xlm_roberta_flash;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::Spellings;
use crate::config::Head;
use crate::torchscript::TorchError;
pub use compaction::EntityLabels;
pub use detection::{Evidence, TensorShapes, tensor_shapes};
pub use inputs::{AttentionForm, Inputs, RowForm};
pub use refusals::{Declared, Refusal};
pub use rows::Rows;
pub use weights::{Lora, WeightError, WeightLoader, Weights};

/// What a base model returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// One vector per token: `[batch, tokens, hidden]`.
    Tokens,
    /// One vector per row, which is the embedding that the model was trained for: `[batch, hidden]`.
    Row,
}

/// A loaded model: an architecture with a head.
pub trait Model: Send {
    /// Returns the output of the head.
    ///
    /// # Errors
    /// Errors of libtorch.
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError>;

    /// Largest distance of two tokens that attend to each other in the layers with a sliding window, if a long input is computed in blocks.
    fn window_reach(&self) -> Option<i64> {
        None
    }
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
    /// A field has the wrong type or an unknown value. The source names its path.
    #[error("config.json: {0}; use the config.json that belongs to the weights")]
    Field(#[from] serde_path_to_error::Error<serde_json::Error>),
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
    /// Name, which is the `model_type` in `config.json` unless another architecture has the same `model_type`.
    pub name: &'static str,
    /// First part of the names of its classes in Transformers, for a `config.json` without `model_type`.
    pub class: &'static str,
    /// Whether a folder contains this architecture.
    pub detects: fn(&Evidence<'_>) -> bool,
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
///
/// The first entry that detects a folder reads it. An architecture precedes those whose `model_type` or tensor names it shares.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "dpr",
        class: "DPR",
        detects: dpr::detects,
        spellings: &dpr::SPELLINGS,
        dimensions: dpr::dimensions,
        load: dpr::load,
    },
    Architecture {
        name: "retribert",
        class: "RetriBert",
        detects: retribert::detects,
        spellings: &retribert::SPELLINGS,
        dimensions: retribert::dimensions,
        load: retribert::load,
    },
    Architecture {
        name: "electra",
        class: "Electra",
        detects: electra::detects,
        spellings: &electra::SPELLINGS,
        dimensions: electra::dimensions,
        load: electra::load,
    },
    Architecture {
        name: "distilbert",
        class: "DistilBert",
        detects: distilbert::detects,
        spellings: &distilbert::SPELLINGS,
        dimensions: distilbert::dimensions,
        load: distilbert::load,
    },
    Architecture {
        name: "eurobert",
        class: "EuroBert",
        detects: eurobert::detects,
        spellings: &eurobert::SPELLINGS,
        dimensions: eurobert::dimensions,
        load: eurobert::load,
    },
    Architecture {
        name: "modernbert",
        class: "ModernBert",
        detects: modernbert::detects,
        spellings: &modernbert::SPELLINGS,
        dimensions: modernbert::dimensions,
        load: modernbert::load,
    },
    Architecture {
        name: "mpnet",
        class: "MPNet",
        detects: mpnet::detects,
        spellings: &mpnet::SPELLINGS,
        dimensions: mpnet::dimensions,
        load: mpnet::load,
    },
    Architecture {
        name: "deberta",
        class: "Deberta",
        detects: deberta::detects,
        spellings: &deberta::SPELLINGS,
        dimensions: deberta::dimensions,
        load: deberta::load,
    },
    Architecture {
        name: "deberta-v2",
        class: "DebertaV2",
        detects: deberta_v2::detects,
        spellings: &deberta_v2::SPELLINGS,
        dimensions: deberta_v2::dimensions,
        load: deberta_v2::load,
    },
    Architecture {
        name: "bart",
        class: "Bart",
        detects: bart::detects,
        spellings: &bart::SPELLINGS,
        dimensions: bart::dimensions,
        load: bart::load,
    },
    Architecture {
        name: "t5",
        class: "T5",
        detects: t5::detects,
        spellings: &t5::SPELLINGS,
        dimensions: t5::dimensions,
        load: t5::load,
    },
    Architecture {
        name: "longformer",
        class: "Longformer",
        detects: longformer::detects,
        spellings: &longformer::SPELLINGS,
        dimensions: longformer::dimensions,
        load: longformer::load,
    },
    Architecture {
        name: "albert",
        class: "Albert",
        detects: albert::detects,
        spellings: &albert::SPELLINGS,
        dimensions: albert::dimensions,
        load: albert::load,
    },
    Architecture {
        name: "mobilebert",
        class: "MobileBert",
        detects: mobilebert::detects,
        spellings: &mobilebert::SPELLINGS,
        dimensions: mobilebert::dimensions,
        load: mobilebert::load,
    },
    Architecture {
        name: "squeezebert",
        class: "SqueezeBert",
        detects: squeezebert::detects,
        spellings: &squeezebert::SPELLINGS,
        dimensions: squeezebert::dimensions,
        load: squeezebert::load,
    },
    Architecture {
        name: "camembert",
        class: "Camembert",
        detects: roberta::detects_camembert,
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
    Architecture {
        name: "xlm-roberta-flash",
        class: "XLMRobertaLoRA",
        detects: xlm_roberta_flash::detects,
        spellings: &xlm_roberta_flash::SPELLINGS,
        dimensions: xlm_roberta_flash::dimensions,
        load: xlm_roberta_flash::load,
    },
    Architecture {
        name: "xlm-roberta",
        class: "XLMRoberta",
        detects: roberta::detects_xlm_roberta,
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
    Architecture {
        name: "roberta",
        class: "Roberta",
        detects: roberta::detects,
        spellings: &roberta::SPELLINGS,
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
    Architecture {
        name: "gte",
        class: "Gte",
        detects: gte::detects,
        spellings: &gte::SPELLINGS,
        dimensions: gte::dimensions,
        load: gte::load,
    },
    Architecture {
        name: "nomic_bert",
        class: "NomicBert",
        detects: nomic_bert::detects,
        spellings: &nomic_bert::SPELLINGS,
        dimensions: nomic_bert::dimensions,
        load: nomic_bert::load,
    },
    Architecture {
        name: "gemma3_text",
        class: "Gemma3Text",
        detects: gemma3::detects,
        spellings: &gemma3::SPELLINGS,
        dimensions: gemma3::dimensions,
        load: gemma3::load,
    },
    Architecture {
        name: "jina_bert",
        class: "JinaBert",
        detects: jina_bert::detects,
        spellings: &jina_bert::SPELLINGS,
        dimensions: jina_bert::dimensions,
        load: jina_bert::load,
    },
    Architecture {
        name: "ernie",
        class: "Ernie",
        detects: ernie::detects,
        spellings: &ernie::SPELLINGS,
        dimensions: ernie::dimensions,
        load: ernie::load,
    },
    Architecture {
        name: "bert",
        class: "Bert",
        detects: bert::detects,
        spellings: &bert::SPELLINGS,
        dimensions: bert::dimensions,
        load: bert::load,
    },
];

/// Why decoders are refused.
const DECODER: &str = "it is a decoder that generates text, and Elasticsearch only serves encoders";

/// Known values of `model_type` that are not supported, with the reasons.
const UNSERVABLE: &[(&[&str], &str)] = &[
    (
        &["big_bird", "xlm", "xlnet"],
        "Elasticsearch has no tokenizer for it; XLM-RoBERTa and DeBERTa v2 and v3 are supported",
    ),
    (&["bloom", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_neox", "llama"], DECODER),
    (
        &["marian", "mbart", "pegasus"],
        "Elasticsearch has no tokenizer for it; the supported encoder-decoders are BART and, for its encoder, T5",
    ),
    (&["blip", "clip", "siglip", "vit"], "Elasticsearch passes text to models, not images"),
];

impl Architecture {
    /// The reason why Elasticsearch cannot serve a `model_type`, if it is a known one.
    #[must_use]
    pub fn why_not(model_type: &str) -> Option<&'static str> {
        let known = UNSERVABLE.iter().find(|(types, _)| types.contains(&model_type));
        known.map(|&(_, reason)| reason)
    }

    /// Whether the architecture was supported before graphs cut logits and before differences of tokenizers were measured. Its graphs
    /// and its tokenizers stay as they are.
    #[must_use]
    pub fn is_established(&self) -> bool {
        const ESTABLISHED: [&str; 13] = [
            "bart",
            "bert",
            "camembert",
            "deberta-v2",
            "distilbert",
            "dpr",
            "electra",
            "mobilebert",
            "mpnet",
            "retribert",
            "roberta",
            "squeezebert",
            "xlm-roberta",
        ];
        ESTABLISHED.contains(&self.name)
    }

    /// Whether the logits of table rows without a token are cut for fill_mask, because the server fails if it chooses one of them.
    #[must_use]
    pub fn cuts_logits(&self) -> bool {
        !self.is_established() && self.name != "modernbert"
    }

    /// The names of the supported architectures, sorted.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = ARCHITECTURES.iter().map(|known| known.name).collect();
        names.sort_unstable();
        names
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
    Ok(serde_path_to_error::deserialize(config)?)
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
            "max_position_embeddings" | "n_positions" => MAX_POSITIONS,
            "n_layer" | "num_hidden_groups" | "inner_group_num" => MAX_LAYERS,
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

/// Checks that heads of a size can be rotated in two halves.
fn check_rotation(head_size: i64) -> Result<(), ConfigError> {
    if head_size % 2 == 0 {
        return Ok(());
    }
    Err(ConfigError::Value("heads of an odd size cannot be rotated".into()))
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
