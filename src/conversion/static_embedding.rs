//! A model that is a table of static embeddings, without a transformer: `StaticEmbedding` of sentence-transformers, or model2vec.

use serde_json::Value;

use super::ConversionError;
use super::description::{Limit, Loaded};
use crate::config::{ModelConfig, SentenceTransformers};
use crate::models::static_embedding::{FACTORS, ROWS, StaticEmbedding, StaticTensors, TABLES};
use crate::models::{ConfigError, Dimensions, Output, TensorShapes, WeightLoader};
use crate::tasks::Task;
use crate::tokenizer::Tokenizer;

/// Longest text in tokens of a model without a limit. Longer texts would only cost time.
pub(super) const POSITIONS: i64 = 8192;

/// Longest text in tokens of model2vec, if config.json sets none.
const MODEL2VEC_LENGTH: u32 = 512;

/// What the files declare about a table of static embeddings.
#[derive(Debug, Clone)]
pub(super) struct StaticTable {
    tensors: StaticTensors,
    /// Whether the model belongs to model2vec, which leaves out unknown tokens. sentence-transformers counts them.
    pub(super) is_model2vec: bool,
    /// Whether config.json of model2vec scales vectors to length 1.
    pub(super) is_normalized: bool,
    /// Limit of the library.
    pub(super) limit: Option<Limit>,
}

/// Whether a model is a table of static embeddings.
pub(super) fn is_static(config: &ModelConfig, modules: Option<&SentenceTransformers>) -> bool {
    match modules {
        Some(modules) => modules.is_static_embedding(),
        None => config.is_model2vec(),
    }
}

impl StaticTable {
    /// Reads the declarations, and the sizes of the table from the `shapes` of the tensors.
    pub(super) fn read(
        config: &ModelConfig,
        shapes: Option<&TensorShapes>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, ConversionError> {
        let refused = |reason: &str| ConversionError::StaticTable(reason.to_owned());
        let shapes = shapes
            .ok_or_else(|| refused("its size is unknown until its weights are downloaded"))?;
        // sentence-transformers has neither factors nor shared rows.
        let is_model2vec =
            config.is_model2vec() || [FACTORS, ROWS].iter().any(|name| shapes.contains_key(*name));
        let mut names = TABLES;
        if is_model2vec {
            // Each library prefers its own name.
            names.reverse();
        }
        let found = names
            .into_iter()
            .find_map(|name| Some((name, <[i64; 2]>::try_from(&shapes.get(name)?[..]).ok()?)));
        let (table, [rows, width]) = found.ok_or_else(|| {
            refused("the weights contain no matrix embedding.weight or embeddings")
        })?;
        if width < 1 {
            return Err(refused("its vectors have no components"));
        }
        let tokens = shapes.get(ROWS).map_or(rows, |shape| shape.iter().product());
        let limit = match config.json.get("max_length") {
            _ if !is_model2vec => tokenizer
                .max_length
                .map(|tokens| Limit { tokens, by: "truncation in tokenizer.json" }),
            None => Some(Limit { tokens: MODEL2VEC_LENGTH, by: "the default of model2vec" }),
            Some(Value::Null) => None,
            Some(length) => {
                let tokens = length.as_u64().and_then(|length| u32::try_from(length).ok());
                let tokens = tokens.filter(|length| *length > 0).ok_or_else(|| {
                    ConfigError::Value(format!(
                        "max_length is {length}, which is not a number of tokens"
                    ))
                })?;
                Some(Limit { tokens, by: "max_length in config.json" })
            }
        };
        let is_normalized = match config.json.get("normalize") {
            Some(Value::Bool(normalizes)) => is_model2vec && *normalizes,
            Some(other) if is_model2vec => {
                let problem = format!("normalize is {other}, which is neither true nor false");
                return Err(ConfigError::Value(problem).into());
            }
            _ => false,
        };
        Ok(Self {
            tensors: StaticTensors {
                table,
                rows,
                width,
                tokens,
                has_factors: is_model2vec && shapes.contains_key(FACTORS),
                shares_rows: is_model2vec && shapes.contains_key(ROWS),
            },
            is_model2vec,
            is_normalized,
            limit,
        })
    }

    /// Number of tokens with a row.
    pub(super) fn tokens(&self) -> i64 {
        self.tensors.tokens
    }

    /// Sizes of the model.
    pub(super) fn dimensions(&self) -> Dimensions {
        let StaticTensors { rows, width, .. } = self.tensors;
        let output = Output::Row;
        Dimensions { hidden: width, output, vocabulary: rows, positions: POSITIONS }
    }

    /// Builds the model. Only one task can use it.
    pub(super) fn load(
        &self,
        task: Task,
        tokenizer: &Tokenizer,
        checkpoint: &WeightLoader,
    ) -> Result<Loaded, ConversionError> {
        if task != Task::TextEmbedding {
            let reason = "it is a table with one vector for each token";
            return Err(ConversionError::wrong_task(task, reason));
        }
        if let Some(rows) = checkpoint.checkpoint().tensors().get(ROWS)
            && self.tensors.shares_rows
            && rows.slice.dtype.is_float()
        {
            let kind = rows.slice.dtype.name();
            let reason = format!("mapping has the type {kind}, but rows are whole numbers");
            return Err(ConversionError::StaticTable(reason));
        }
        let unknown = self.is_model2vec.then(|| tokenizer.unknown_id()).flatten();
        let (known, padding) = (tokenizer.model_tokens(), tokenizer.special.padding);
        let weights = checkpoint.weights().with_rows(tokenizer.kept_rows());
        let model = StaticEmbedding::load(&weights, self.tensors, known, padding, unknown);
        let (unused, bytes) = checkpoint.finish()?;
        if !model.has_all_rows()? {
            let reason = "mapping names rows that the table does not have";
            return Err(ConversionError::StaticTable(reason.to_owned()));
        }
        Ok(Loaded { model: Box::new(model), file: checkpoint.file_name(), unused, bytes })
    }
}
