//! A model that is one table: a weight for each token (`SparseStaticEmbedding` in sentence-transformers).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::ConversionError;
use super::description::Loaded;
use super::parts::IDF;
use crate::checkpoint::{CheckpointError, WeightFiles};
use crate::models::{Dimensions, Output, WeightLoader};
use crate::source::{ModelFiles, SourceError};
use crate::tasks::{Task, TokenTable};
use crate::tokenizer::{ModelTokenizer, Tokenizer};

/// Longest text in tokens if the tokenizer sets no limit. A table has no position embeddings, so a longer text would only cost time.
const POSITIONS: i64 = 8192;

/// `config.json` of a SparseStaticEmbedding.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TableConfig {
    /// A JSON file with the weights.
    path: Option<String>,
}

/// The weights of a table.
#[derive(Debug, Clone)]
pub(super) enum TableWeights {
    /// The tensor `weight` in the weight files of the folder.
    Checkpoint,
    /// One weight for each token of the model.
    Json(Vec<f32>),
}

impl TableWeights {
    /// Finds the weights in the folder of the module, or else `idf.json` in the folder of the repository. In a repository without modules,
    /// the weight files belong to the model for documents.
    pub(super) fn read(
        files: &ModelFiles,
        folder: &ModelFiles,
        has_modules: bool,
        tokenizer: &Tokenizer,
    ) -> Result<Self, ConversionError> {
        let TableConfig { path } = folder.json("config.json")?.unwrap_or_default();
        let is_json = path.is_some_and(|path| path.ends_with(".json")) || !has_modules;
        if !is_json && !has_no_weights(folder) {
            return Ok(Self::Checkpoint);
        }
        for place in [folder, files] {
            if let Some(by_token) = place.json::<Map<String, Value>>(IDF)? {
                // NaN, which Python writes, would be read as a missing weight.
                let text = place.text(IDF)?.unwrap_or_default();
                let strict =
                    serde_json::from_str::<IgnoredAny>(text.trim_start_matches('\u{feff}'));
                if let Err(error) = strict {
                    let reason = format!("a weight is not a finite number ({error})");
                    return Err(ConversionError::TokenWeights { file: IDF, reason });
                }
                let invalid = |source| SourceError::Json { path: place.folder().join(IDF), source };
                let weight = |(token, weight)| Ok((token, f64::deserialize(weight)?));
                let by_token = by_token.into_iter().map(weight).collect::<Result<Vec<_>, _>>();
                return Ok(Self::Json(in_order(&by_token.map_err(invalid)?, folder, tokenizer)?));
            }
        }
        Ok(Self::Checkpoint)
    }

    /// Sizes of the model.
    pub(super) fn dimensions(tokenizer: &Tokenizer) -> Dimensions {
        let vocabulary = tokenizer.model_tokens();
        Dimensions { hidden: 1, output: Output::Row, vocabulary, positions: POSITIONS }
    }

    /// Builds the model. Only one task can use it.
    pub(super) fn load(
        &self,
        task: Task,
        tokenizer: &Tokenizer,
        checkpoint: &WeightLoader,
    ) -> Result<Loaded, ConversionError> {
        if task != Task::TextExpansion {
            let reason = "it is a table with one weight for each token";
            return Err(ConversionError::wrong_task(task, reason));
        }
        let padding = tokenizer.special.padding;
        let table = match self {
            Self::Checkpoint => TokenTable::load(checkpoint, tokenizer.model_tokens(), padding),
            Self::Json(weights) => {
                let file = IDF.to_owned();
                let (unused, bytes) = (Vec::new(), 4 * weights.len() as u64);
                let model = Box::new(TokenTable::new(weights, padding));
                return Ok(Loaded { model, file, unused, bytes });
            }
        };
        let (unused, bytes) = checkpoint.finish()?;
        Ok(Loaded { model: Box::new(table), file: checkpoint.file_name(), unused, bytes })
    }
}

/// Whether a folder has no weight files.
fn has_no_weights(folder: &ModelFiles) -> bool {
    matches!(WeightFiles::find(folder), Err(CheckpointError::NoWeights { .. }))
}

/// The weights in the order of the ids. As in the library, a name that is not a token stands for the unknown token.
fn in_order(
    by_token: &[(String, f64)],
    folder: &ModelFiles,
    tokenizer: &Tokenizer,
) -> Result<Vec<f32>, ConversionError> {
    // Tokens can have other names in the uploaded vocabulary.
    let own = ModelTokenizer::read(folder, usize::MAX >> 1)?;
    let uploaded: BTreeMap<&str, usize> =
        tokenizer.vocabulary.vocabulary.iter().map(String::as_str).zip(0..).collect();
    let unknown = uploaded.get(tokenizer.kind.tokens().unknown).copied();
    let invalid = |reason| ConversionError::TokenWeights { file: IDF, reason };
    let mut weights = vec![0.; usize::try_from(tokenizer.model_tokens()).unwrap_or_default()];
    let mut known = 0;
    for (token, weight) in by_token {
        if !(*weight as f32).is_finite() {
            return Err(invalid(format!(
                "the weight of the token {token:?} is not a finite number"
            )));
        }
        let id = match &own {
            Some(own) => own.id(token).and_then(|id| usize::try_from(id).ok()),
            None => uploaded.get(token.as_str()).copied(),
        };
        known += usize::from(id.is_some());
        if let Some(place) = id.or(unknown).and_then(|id| weights.get_mut(id)) {
            *place = *weight as f32;
        }
    }
    if 2 * known <= by_token.len() {
        let all = by_token.len();
        return Err(invalid(format!("{known} of its {all} names are tokens of the vocabulary")));
    }
    Ok(weights)
}
