//! Architectures, one file each, and the inputs that they take.

pub mod bert;
mod distance;
mod distilbert;
mod electra;
pub mod encoder;
pub mod heads;
mod inputs;
pub mod layers;
mod mpnet;
mod roberta;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::Weights;
use crate::torchscript::TorchError;
pub use inputs::{AttentionForm, Inputs, SpecialTokens};

/// The part of a Transformers class that turns hidden states into a task's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// None: `[batch, tokens, hidden]`.
    Base,
    /// `…ForMaskedLM`: logits `[batch, tokens, vocabulary]`.
    MaskedLm,
    /// `…ForTokenClassification`: logits `[batch, tokens, labels]`.
    TokenClassification,
    /// `…ForSequenceClassification`: logits `[batch, labels]`.
    SequenceClassification,
    /// `…ForQuestionAnswering`: logits of start and end, `[batch, tokens, 2]`.
    QuestionAnswering,
}

/// A loaded model: an architecture under a head.
pub trait Model {
    /// The head's output.
    ///
    /// # Errors
    /// libtorch's own.
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError>;
}

/// What a model is made from.
#[derive(Debug, Clone, Copy)]
pub struct Blueprint<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// The head wanted.
    pub head: Head,
    /// Number of labels, for the heads that classify.
    pub labels: i64,
}

/// Why a `config.json` does not describe a model that can be built.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A field of the wrong type, or a value nobody knows.
    #[error("config.json: {0}")]
    Field(#[from] serde_json::Error),
    /// A value that makes no model.
    #[error("config.json: {0}")]
    Value(String),
    /// A variant that cannot be built.
    #[error("config.json says {0}, which cannot be served: {1}")]
    Unsupported(String, &'static str),
}

/// What sets an architecture's size: the numbers that tasks and checks need, whatever the architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of the hidden states that the base model returns.
    pub hidden: i64,
    /// Rows of the embedding table.
    pub vocabulary: i64,
    /// The longest input, in tokens, that the positions allow.
    pub positions: i64,
}

/// An architecture that can be built.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Its sizes.
    pub dimensions: fn(&Value) -> Result<Dimensions, ConfigError>,
    /// Builds it over the weights.
    pub load: Load,
}

/// Builds an architecture over its weights.
pub type Load = fn(&Weights<'_>, Blueprint<'_>) -> Result<Box<dyn Model>, ConfigError>;

/// All architectures. A new one is its own file and one line here.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture { model_type: "bert", dimensions: bert::dimensions, load: bert::load },
    Architecture { model_type: "camembert", dimensions: roberta::dimensions, load: roberta::load },
    Architecture {
        model_type: "distilbert",
        dimensions: distilbert::dimensions,
        load: distilbert::load,
    },
    Architecture { model_type: "electra", dimensions: electra::dimensions, load: electra::load },
    Architecture { model_type: "mpnet", dimensions: mpnet::dimensions, load: mpnet::load },
    Architecture { model_type: "roberta", dimensions: roberta::dimensions, load: roberta::load },
    Architecture {
        model_type: "xlm-roberta",
        dimensions: roberta::dimensions,
        load: roberta::load,
    },
];

impl Architecture {
    /// The architecture of a `model_type`.
    #[must_use]
    pub fn find(model_type: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|known| known.model_type == model_type)
    }

    /// The `model_type` of each.
    #[must_use]
    pub fn model_types() -> Vec<&'static str> {
        ARCHITECTURES.iter().map(|known| known.model_type).collect()
    }
}

/// Reads the fields of an architecture from `config.json`.
fn read_config<T: DeserializeOwned>(config: &Value) -> Result<T, ConfigError> {
    Ok(T::deserialize(config)?)
}

/// Reads the fields of an architecture that shares its struct with another and has `defaults` of its own.
fn read_config_over<T: DeserializeOwned>(
    mut defaults: Value,
    config: &Value,
) -> Result<T, ConfigError> {
    if let (Some(defaults), Some(given)) = (defaults.as_object_mut(), config.as_object()) {
        defaults.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    read_config(&defaults)
}

/// The largest size that any field may have: beyond every real model, small enough that products of a few do not overflow.
const MAX_SIZE: i64 = 1 << 24;

/// The most layers and positions: as far beyond every real model, and few enough that what is made of each costs little even where
/// `config.json` lies about the weights.
const MAX_LAYERS: i64 = 1 << 10;
const MAX_POSITIONS: i64 = 1 << 20;

/// Checks sizes, named as in `config.json`.
fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), ConfigError> {
    for &(name, value) in sizes {
        let most = match name {
            "max_position_embeddings" => MAX_POSITIONS,
            _ if name.ends_with("layers") => MAX_LAYERS,
            _ => MAX_SIZE,
        };
        if !(1..=most).contains(&value) {
            return Err(ConfigError::Value(format!("{name} is {value}, which no model has")));
        }
    }
    Ok(())
}

/// Refuses a decoder, which every class of BERT's kind can be made into.
fn check_encoder(config: &Value) -> Result<(), ConfigError> {
    let flags = ["is_decoder", "add_cross_attention"];
    match flags.into_iter().find(|flag| config.get(flag) == Some(&Value::Bool(true))) {
        Some(flag) => Err(ConfigError::Unsupported(
            flag.into(),
            "a decoder attends to the left only, and Elasticsearch serves encoders",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointError};

    const HEADS: [Head; 5] = [
        Head::Base,
        Head::MaskedLm,
        Head::TokenClassification,
        Head::SequenceClassification,
        Head::QuestionAnswering,
    ];

    /// A checkpoint of zeros.
    fn checkpoint(tensors: &[(String, Vec<i64>)]) -> Checkpoint {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += 4 * shape.iter().product::<i64>();
            let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
            header.insert(name.clone(), entry);
        }
        let mut header = serde_json::to_vec(&header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.resize(bytes.len() + usize::try_from(end).unwrap(), 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Checkpoint::open(file.path()).unwrap()
    }

    fn load(
        architecture: &Architecture,
        config: &Value,
        head: Head,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<String>, CheckpointError> {
        let blueprint = Blueprint { config, head, labels: 3 };
        (architecture.load)(&checkpoint.weights(), blueprint).unwrap();
        Ok(checkpoint.finish()?.0)
    }

    /// The names and shapes of all tensors that a model wants.
    fn wanted(architecture: &Architecture, config: &Value, head: Head) -> Vec<(String, Vec<i64>)> {
        match load(architecture, config, head, &checkpoint(&[])) {
            Err(CheckpointError::Weights { problems, .. }) => problems
                .iter()
                .map(|problem| {
                    let (name, shape) = problem.split_once(' ').unwrap();
                    let shape = shape.strip_suffix(" is missing").unwrap();
                    (name.to_owned(), serde_json::from_str(shape).unwrap())
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn tiny(model_type: &str, more: Value) -> Value {
        let tiny = json!({
            "model_type": model_type,
            "vocab_size": 11,
            "hidden_size": 6,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 5,
            "embedding_size": 4,
            "hidden_dim": 5,
            "max_position_embeddings": 8,
        });
        read_config_over(tiny, &more).unwrap()
    }

    const RELATIVE: &str = "relative_key_query";

    #[test]
    fn what_a_model_wants_is_all_that_is_read_and_missing_tensors_are_no_panic() {
        for architecture in ["bert", "roberta", "electra", "distilbert", "mpnet"] {
            let architecture = Architecture::find(architecture).unwrap();
            let relative = json!({ "position_embedding_type": RELATIVE, "hidden_act": "prelu" });
            for more in [json!({}), relative, json!({ "tie_word_embeddings": false })] {
                let config = tiny(architecture.model_type, more);
                for head in HEADS {
                    let wanted = wanted(architecture, &config, head);
                    let unused = load(architecture, &config, head, &checkpoint(&wanted)).unwrap();
                    assert_eq!(unused, Vec::<String>::new());
                }
            }
        }
    }

    /// Files of old releases: the base model below its name, what is tied written out, buffers, poolers and pre-training heads in every
    /// file, biases under their second name.
    #[test]
    fn what_old_releases_wrote_is_read_or_known() {
        type Old = (&'static str, &'static str, &'static [&'static str], [&'static str; 2]);
        let old: &[Old] = &[
            (
                "bert",
                "bert",
                &[
                    "bert.embeddings.position_ids",
                    "bert.pooler.dense.weight",
                    "bert.pooler.dense.bias",
                    "cls.predictions.decoder.weight",
                    "cls.seq_relationship.weight",
                ],
                ["cls.predictions.bias", "cls.predictions.decoder.bias"],
            ),
            (
                "camembert",
                "roberta",
                &[
                    "roberta.embeddings.position_ids",
                    "roberta.pooler.dense.weight",
                    "lm_head.decoder.weight",
                    "lm_head.dense.weight",
                ],
                ["lm_head.bias", "lm_head.decoder.bias"],
            ),
            (
                "distilbert",
                "distilbert",
                &[
                    "distilbert.embeddings.position_ids",
                    "vocab_projector.weight",
                    "vocab_transform.bias",
                    "vocab_layer_norm.weight",
                ],
                ["", ""],
            ),
            (
                "electra",
                "electra",
                &[
                    "electra.embeddings.position_ids",
                    "generator_lm_head.weight",
                    "generator_predictions.dense.bias",
                    "discriminator_predictions.dense.weight",
                ],
                ["", ""],
            ),
            (
                "mpnet",
                "mpnet",
                &[
                    "mpnet.embeddings.position_ids",
                    "mpnet.pooler.dense.weight",
                    "lm_head.decoder.weight",
                    "lm_head.dense.weight",
                ],
                ["lm_head.bias", "lm_head.decoder.bias"],
            ),
        ];
        for (model_type, prefix, extra, [bias, old_bias]) in old {
            let architecture = Architecture::find(model_type).unwrap();
            let config = tiny(model_type, json!({}));
            for head in HEADS {
                let base: Vec<_> = wanted(architecture, &config, Head::Base);
                let in_base = |name: &str| {
                    name.starts_with("pooler") || base.iter().any(|(known, _)| known == name)
                };
                let mut tensors: Vec<_> = wanted(architecture, &config, head)
                    .into_iter()
                    .map(|(name, shape)| match name.as_str() {
                        name if in_base(name) => (format!("{prefix}.{name}"), shape),
                        name if name == *bias => ((*old_bias).to_owned(), shape),
                        _ => (name, shape),
                    })
                    .collect();
                for name in *extra {
                    if tensors.iter().all(|(known, _)| known != name) {
                        tensors.push(((*name).to_owned(), vec![1]));
                    }
                }
                let unused = load(architecture, &config, head, &checkpoint(&tensors)).unwrap();
                assert_eq!(unused, Vec::<String>::new(), "{model_type} {head:?}");
            }
        }
    }

    #[test]
    fn configurations_that_make_no_model_are_refused() {
        let refused = |model_type: &str, more: Value| {
            let architecture = Architecture::find(model_type).unwrap();
            let config = tiny(model_type, more.clone());
            assert!((architecture.dimensions)(&config).is_err(), "{model_type} {more}");
        };
        for model_type in ["bert", "roberta", "electra", "distilbert", "mpnet"] {
            for size in [-1, 0, i64::MAX] {
                for field in [
                    "vocab_size",
                    "hidden_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "max_position_embeddings",
                ] {
                    refused(model_type, json!({ field: size }));
                }
            }
            refused(model_type, json!({ "num_attention_heads": 4 }));
            refused(model_type, json!({ "is_decoder": true }));
            refused(model_type, json!({ "add_cross_attention": true }));
            refused(model_type, json!({ "vocab_size": "many" }));
        }
        for model_type in ["bert", "roberta", "electra"] {
            refused(model_type, json!({ "hidden_act": "xielu" }));
            refused(model_type, json!({ "position_embedding_type": "rotary" }));
            refused(model_type, json!({ "type_vocab_size": -1 }));
        }
        for padding in [-1, 7, i64::MAX] {
            refused("roberta", json!({ "pad_token_id": padding }));
        }
        refused("mpnet", json!({ "relative_attention_num_buckets": 31 }));
        refused("electra", json!({ "embedding_size": 0 }));
    }

    #[test]
    fn positions_are_those_that_tokens_can_have() {
        let positions = |model_type: &str, more: Value| {
            let architecture = Architecture::find(model_type).unwrap();
            (architecture.dimensions)(&tiny(model_type, more)).unwrap().positions
        };
        assert_eq!(positions("bert", json!({})), 8);
        assert_eq!(positions("xlm-roberta", json!({})), 6);
        assert_eq!(positions("roberta", json!({ "pad_token_id": 0 })), 7);
        assert_eq!(positions("roberta", json!({ "position_embedding_type": RELATIVE })), 8);
        assert_eq!(positions("mpnet", json!({ "pad_token_id": 0 })), 6);
    }
}
