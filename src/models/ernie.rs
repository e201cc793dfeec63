//! ERNIE 1 to 3 (Sun et al. 2021, arXiv:2107.02137; `transformers/models/ernie/modeling_ernie.py`).
//!
//! A BERT whose embeddings may depend on the type of a task. Elasticsearch sends no task types, and Transformers uses the first one then.

use serde::Deserialize;
use serde_json::{Value, json};

use super::bert::{self, BertConfig};
use super::encoder::EncoderConfig;
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Evidence, Model, check_encoder, check_sizes,
    read_config_over,
};
use crate::checkpoint::Spellings;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("ernie") || evidence.is_untyped_with(&[".ernie.", ".task_type_embeddings."])
}

/// Parameter names in its files, which are those of BERT after the prefix.
pub(super) static SPELLINGS: Spellings = Spellings { base: &["ernie"], ..bert::SPELLINGS };

/// `ErnieConfig`.
#[derive(Debug, Deserialize)]
struct ErnieConfig {
    #[serde(flatten)]
    bert: BertConfig,
    use_task_id: bool,
    task_type_vocab_size: i64,
}

/// Parses and validates `config.json`.
fn read(config: &Value) -> Result<(BertConfig, EncoderConfig), ConfigError> {
    check_encoder(config)?;
    let defaults = json!({ "use_task_id": false, "task_type_vocab_size": 3 });
    let ErnieConfig { bert, use_task_id, task_type_vocab_size } =
        read_config_over(defaults, config)?;
    let mut sizes = bert.sizes();
    if use_task_id {
        let types = [
            ("task_type_vocab_size", task_type_vocab_size),
            ("type_vocab_size", sizes.type_vocab_size),
        ];
        check_sizes(&types)?;
        sizes.task_type_vocab_size = task_type_vocab_size;
    }
    sizes.check()?;
    Ok((bert, sizes))
}

/// Sizes of an ERNIE.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(read(config)?.1.dimensions())
}

/// Builds an ERNIE with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let (config, sizes) = read(blueprint.config)?;
    Ok(bert::build(weights, blueprint, &sizes, config.tie_word_embeddings))
}
