//! Reasons why a model cannot be converted.

#[cfg(feature = "torch")]
use super::Quantization;
use super::{QuantizeScheme, TokenizerDifference};
use crate::checkpoint::CheckpointError;
use crate::hint::{Command, Hint, Setting, hint};
use crate::mapped_file::FileChanged;
#[cfg(feature = "torch")]
use crate::models::{ConfigError, WeightError};
use crate::source::SourceError;
#[cfg(feature = "torch")]
use crate::tasks::EmbedderError;
use crate::tasks::Task;
use crate::tokenizer::TokenizerError;
#[cfg(feature = "torch")]
use crate::torchscript::TorchError;
use crate::torchscript::operations::Refused;
use crate::version::{Target, Version};

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionError {
    /// A file could not be found or downloaded.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The build has no libtorch.
    #[cfg(not(feature = "torch"))]
    #[error("this build of rust-eland has no libtorch, so it cannot convert models")]
    NoLibtorch,
    /// `config.json` describes a model that cannot be built.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the model changed while it was read.
    #[error(transparent)]
    Changed(#[from] FileChanged),
    /// The weights do not match the model.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A sentence-transformers module cannot be built.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Embedder(#[from] EmbedderError),
    /// libtorch failed.
    #[cfg(feature = "torch")]
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The architecture is not supported.
    #[error("the model_type {found} in config.json is not supported; supported: {}", .known.join(", "))]
    ModelType {
        /// `model_type` in `config.json`.
        found: String,
        /// Supported values of `model_type`.
        known: Vec<&'static str>,
    },
    /// The architecture is defined by Python code in the repository.
    #[error(
        "this model needs Python code of its repository ({class}, auto_map in config.json), which is never run here, and \
         its model_type {found} is not supported; supported: {}", .known.join(", ")
    )]
    OwnCode {
        /// `model_type` in `config.json`.
        found: String,
        /// Class in the repository.
        class: String,
        /// Supported values of `model_type`.
        known: Vec<&'static str>,
    },
    /// The table of a static embedding model cannot be used. The field is the reason.
    #[error("the table of this static embedding model cannot be used: {0}")]
    StaticTable(String),
    /// The folder contains only an adapter, such as LoRA.
    #[error(
        "{folder} contains only an adapter (such as LoRA) without the weights of its base model, which is {}",
        .base.as_deref().unwrap_or("not named in adapter_config.json")
    )]
    Adapter {
        /// The folder.
        folder: std::path::PathBuf,
        /// Base model of the adapter.
        base: Option<String>,
    },
    /// Elasticsearch cannot serve this architecture. Fields: `model_type`, and the reason.
    #[error("the model_type {0} in config.json cannot be served: {1}")]
    Unservable(String, &'static str),
    /// Elasticsearch cannot serve this family of models.
    #[error("Elasticsearch cannot serve {family}: {reason}")]
    Family {
        /// The family, in the plural.
        family: &'static str,
        /// Why Elasticsearch cannot serve it.
        reason: &'static str,
    },
    /// The repository provides no model of the requested name, or several models and none by default.
    #[error("{}", no_part(.asked.as_deref(), .has))]
    Part {
        /// Requested name.
        asked: Option<String>,
        /// Names of the models that the repository provides; empty if it provides only one.
        has: Vec<String>,
    },
    /// The model has no LoRA adapter for the requested task.
    #[error("{}", no_lora_task(.asked, .has))]
    LoraTask {
        /// Requested task.
        asked: String,
        /// Tasks of the model's adapters; empty if it has none.
        has: Vec<String>,
    },
    /// The LoRA adapter of a task cannot be merged into the weights.
    #[error("the LoRA adapter for the task {task} cannot be merged into the weights: {reason}")]
    Lora {
        /// Task of the adapter.
        task: String,
        /// What is not supported or does not fit.
        reason: String,
    },
    /// A file with the weights of tokens is not usable.
    #[error("{file} cannot be used: {reason}; use the file that belongs to the model")]
    TokenWeights {
        /// Name of the file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The files do not determine the task.
    #[error("config.json does not determine the task of the model; it can serve {}", names(.can))]
    NoTask {
        /// The tasks for which the checkpoint has all weights.
        can: Vec<Task>,
    },
    /// The checkpoint has no weights or labels for the task.
    #[error("this model cannot serve {task}: {reason}\nIt can serve {}", names(.can))]
    WrongTask {
        /// The requested task.
        task: Task,
        /// What the model lacks.
        reason: String,
        /// The tasks for which the checkpoint has all weights.
        can: Vec<Task>,
    },
    /// The requested input length exceeds the model's position table.
    #[error("the maximum input length {asked} is more than the {positions} positions of the model")]
    Length {
        /// Requested length in tokens.
        asked: u32,
        /// Rows of the position table.
        positions: u32,
    },
    /// Embeddings cannot be cut to the requested number of dimensions.
    #[error("the embeddings of the model have {size} dimensions and cannot be cut to {asked}")]
    Dimensions {
        /// Requested number of dimensions.
        asked: u32,
        /// Number of dimensions of the model.
        size: i64,
    },
    /// The task returns no embeddings that could be cut.
    #[error("{task} returns no embeddings, so no dimensions can be cut")]
    NoEmbeddings {
        /// The task.
        task: Task,
    },
    /// The model declares no prompts for queries or documents.
    #[error(
        "config_sentence_transformers.json declares no prompt for queries or documents{}",
        others(.has)
    )]
    NoPrompts {
        /// Names of the declared prompts with other uses.
        has: Vec<String>,
    },
    /// The target version does not support the model.
    #[error("Elasticsearch {target} cannot serve this model, which needs {needed} for {what}")]
    Target {
        /// Target version of the conversion.
        target: Target,
        /// Oldest version that supports the model.
        needed: Version,
        /// Feature that needs this version.
        what: String,
    },
    /// The graph contains operations that Elasticsearch rejects.
    #[error("Elasticsearch would reject this model: {0}")]
    Refused(#[from] Refused),
    /// The checkpoint is quantized. The field is the name of the scheme.
    #[error("the checkpoint is quantized ({0}), so its tensors are not ordinary weights")]
    QuantizedCheckpoint(String),
    /// Elasticsearch's rows cannot be turned into the model's.
    #[error(
        "this model cannot serve {task}, because its tokenizer lays out texts in a way that cannot be built: {reason}"
    )]
    RowLayout {
        /// The requested task.
        task: Task,
        /// What is unusual.
        reason: String,
    },
    /// Elasticsearch's tokens differ too much from those of the model's own tokenizer.
    #[error(
        "Elasticsearch cannot follow this model's tokenizer exactly, so the model would read wrong tokens. In the built-in texts, {0}. At \
         most 0.1 % of the tokens may differ"
    )]
    InexactTokenizer(TokenizerDifference),
    /// Elasticsearch's tokens differ from those of the model's own tokenizer by an unknown share.
    #[error(
        "Elasticsearch cannot follow this model's tokenizer exactly, and the difference cannot be measured, because the model has no \
         tokenizer.json"
    )]
    UnmeasuredTokenizer,
    /// The model has no layer that the scheme quantizes.
    #[error("the model has no layer that the quantization scheme {scheme} can make smaller")]
    NothingToQuantize {
        /// The scheme.
        scheme: QuantizeScheme,
    },
    /// None of the calibration texts can be tokenized.
    #[error("Elasticsearch accepts none of the calibration texts for this task")]
    NoCalibrationText,
    /// The quantized model agrees too little with the original model.
    #[cfg(feature = "torch")]
    #[error(
        "the quantized model agrees too little with the original model: {}; required is {least}",
        report.below(*least)
    )]
    Agreement {
        /// The measured agreement.
        report: Box<Quantization>,
        /// Lowest accepted agreement.
        least: f64,
    },
    /// A model with all linear layers in float32 agrees too little with the original model.
    #[cfg(feature = "torch")]
    #[error(
        "the target cannot be reached, because the model with an 8-bit word embedding table and all linear layers in float32 agrees too \
         little with the original model: {}; the target is {target}",
        report.overall()
    )]
    TargetAgreement {
        /// The measured agreement.
        report: Box<Quantization>,
        /// Lowest accepted agreement.
        target: f64,
    },
    /// There are too few texts to compare the order of their similarities.
    #[error(
        "{texts} texts are too few to compare the nearest texts of each; at least {least} are needed"
    )]
    TooFewTexts {
        /// Number of compared texts.
        texts: usize,
        /// Number of texts that are needed.
        least: usize,
    },
    /// The model returns NaN.
    #[error("the model returns NaN for a text of {tokens} tokens, so its weights are damaged")]
    NotANumber {
        /// Length of the input in tokens.
        tokens: i64,
    },
    /// The saved archive computes other values than the model.
    #[error(
        "the saved archive computes other values than the model: at {tokens} tokens they differ by {difference:e}, and at most \
         {allowed:e} is allowed"
    )]
    Verification {
        /// Length of the input in tokens.
        tokens: i64,
        /// Largest difference.
        difference: f64,
        /// Largest accepted difference.
        allowed: f64,
    },
}

impl ConversionError {
    /// A [`ConversionError::WrongTask`] that names no other tasks.
    #[cfg(feature = "torch")]
    pub(super) fn wrong_task(task: Task, reason: impl Into<String>) -> Self {
        Self::WrongTask { task, reason: reason.into(), can: Vec::new() }
    }

    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Tokenizer(error) => return error.hint(),
            Self::ModelType { .. }
            | Self::OwnCode { .. }
            | Self::Unservable(..)
            | Self::Family { .. } => {
                hint!("Choose a model of a supported architecture.")
            }
            Self::Adapter { .. } => hint!(
                "Import the base model, or merge the adapter into it (merge_and_unload in PEFT), save the result and import its folder."
            ),
            Self::Part { has, .. } if has.is_empty() => hint!("Remove ", Setting::Part, "."),
            Self::Part { has, .. } => {
                hint!("Set ", Setting::Part, format!(" to {}.", has.join(" or ")))
            }
            Self::LoraTask { has, .. } if has.is_empty() => {
                hint!("Remove ", Setting::LoraTask, ".")
            }
            Self::LoraTask { has, .. } => {
                hint!("Set ", Setting::LoraTask, format!(" to {}.", has.join(", ")))
            }
            Self::Lora { .. } => hint!("Remove ", Setting::LoraTask, ", or choose another task."),
            Self::NoTask { .. } => hint!("Set ", Setting::Task, "."),
            Self::Length { positions, .. } => {
                hint!("Set ", Setting::MaxInputLength, format!(" to at most {positions}."))
            }
            Self::Dimensions { size, .. } => {
                hint!("Set ", Setting::Dimensions, format!(" to a number from 1 to {size}."))
            }
            Self::NoEmbeddings { .. } => hint!(
                "Remove ",
                Setting::Dimensions,
                ", or set ",
                Setting::Task,
                " to text_embedding."
            ),
            Self::NoPrompts { .. } => hint!(
                "Remove ",
                Setting::Prompts,
                ", or set ",
                Setting::SearchPrefix,
                " and ",
                Setting::IngestPrefix,
                "."
            ),
            Self::Target { needed, .. } => hint!(
                format!("Upgrade the cluster to {needed} or later, or set "),
                Setting::TargetVersion,
                " to such a version."
            ),
            Self::QuantizedCheckpoint(_) => {
                hint!("Import the original checkpoint, from before the quantization.")
            }
            Self::UnmeasuredTokenizer => hint!(
                "If the model is for texts that its tokenizer does not change, set ",
                Setting::AllowInexactTokenizer,
                "."
            ),
            Self::InexactTokenizer(_) => hint!(
                "Compare your own texts with ",
                Command::Tokenize,
                ". If the difference is acceptable, set ",
                Setting::AllowInexactTokenizer,
                "."
            ),
            Self::NothingToQuantize { .. } => {
                hint!("Remove ", Setting::Quantize, ", or choose another scheme.")
            }
            Self::NoCalibrationText => {
                hint!("Use longer texts in ", Setting::CalibrationTexts, ".")
            }
            Self::TooFewTexts { .. } => hint!(
                "Use more texts in ",
                Setting::CalibrationTexts,
                ", of which every other pair of lines is compared."
            ),
            #[cfg(feature = "torch")]
            Self::TargetAgreement { .. } => {
                hint!("Lower ", Setting::TargetAgreement, ", or remove ", Setting::Quantize, ".")
            }
            #[cfg(feature = "torch")]
            Self::Torch(TorchError::NotFinite(_)) => {
                hint!("Download the model again, or import it without ", Setting::Quantize, ".")
            }
            #[cfg(feature = "torch")]
            Self::Agreement { .. } => hint!(
                "Remove ",
                Setting::Quantize,
                ", or lower ",
                Setting::QuantizeMinAgreement,
                "."
            ),
            Self::NotANumber { .. } => hint!(
                "Download the model again. To import it as it is, set ",
                Setting::NoVerify,
                "."
            ),
            Self::Verification { .. } => hint!(
                "Report this as a bug. To import the model anyway, set ",
                Setting::NoVerify,
                "."
            ),
            _ => return None,
        })
    }
}

fn no_part(asked: Option<&str>, has: &[String]) -> String {
    let provides = format!("the repository provides {}", has.join(" and "));
    match asked {
        Some(asked) if has.is_empty() => {
            format!("the repository provides one model, and no model {asked:?}")
        }
        Some(asked) => format!("{provides}, and no model {asked:?}"),
        None => format!("{provides}, and declares none of them as the default"),
    }
}

fn no_lora_task(asked: &str, has: &[String]) -> String {
    if has.is_empty() {
        return format!("the model has no LoRA adapters, so it has no task {asked:?}");
    }
    format!("the model has LoRA adapters for the tasks {}, and none for {asked:?}", has.join(", "))
}

fn names(tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return "no task, because each lacks weights or labels".into();
    }
    tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(", ")
}

fn others(prompts: &[String]) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    format!(", only for {}", prompts.join(", "))
}
