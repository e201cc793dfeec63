//! Reasons why a model cannot be converted.

#[cfg(feature = "torch")]
use super::Quantization;
use crate::checkpoint::CheckpointError;
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
    /// Nobody knows the architecture.
    #[error("the model_type {found} in config.json is not one that can be served; supported: {}", .known.join(", "))]
    ModelType {
        /// `model_type` in `config.json`.
        found: String,
        /// Supported values of `model_type`.
        known: Vec<&'static str>,
    },
    /// The architecture is defined by Python code in the repository.
    #[error(
        "this model runs code of its repository ({class}, auto_map in config.json), which is never run here: it would need \
         the architecture {found} built in; built in are {}", .known.join(", ")
    )]
    OwnCode {
        /// `model_type` in `config.json`.
        found: String,
        /// Class in the repository.
        class: String,
        /// Supported values of `model_type`.
        known: Vec<&'static str>,
    },
    /// The folder contains only an adapter, such as LoRA.
    #[error(
        "{folder} holds an adapter (LoRA or another of PEFT's) and no whole model. Its base model is {}: import that, or merge \
         the two (merge_and_unload in PEFT), save the result and give its folder",
        .base.as_deref().unwrap_or("not named in adapter_config.json")
    )]
    Adapter {
        /// The folder.
        folder: std::path::PathBuf,
        /// Base model of the adapter.
        base: Option<String>,
    },
    /// The architecture is known, and known not to be servable.
    #[error(
        "the model_type {0} in config.json cannot be served: {1}. Take a model of another architecture"
    )]
    Unservable(String, &'static str),
    /// The files do not say what the model is for.
    #[error("cannot tell from config.json what the model is for: give --task-type; it can serve {}", names(.can))]
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
    /// A longer input than the model takes.
    #[error(
        "--max-model-input-length {asked} is more than the {positions} positions that the model has; give at most that"
    )]
    Length {
        /// Requested length in tokens.
        asked: u32,
        /// Rows of the position table.
        positions: u32,
    },
    /// The model declares no prompts for queries or documents.
    #[error(
        "--prompts: config_sentence_transformers.json declares no prompt for queries or documents{}. Leave it out, or give \
         --search-prefix and --ingest-prefix", others(.has)
    )]
    NoPrompts {
        /// Names of the declared prompts with other uses.
        has: Vec<String>,
    },
    /// The release that the model is made for lacks something that it needs.
    #[error(
        "Elasticsearch {target} cannot serve this model, which needs {needed} for {what}: make it for {needed} or later"
    )]
    Target {
        /// Target version of the conversion.
        target: Target,
        /// Oldest version that supports the model.
        needed: Version,
        /// Feature that needs this version.
        what: String,
    },
    /// Elasticsearch would not serve the graph.
    #[error("Elasticsearch would refuse this model: {0}")]
    Refused(#[from] Refused),
    /// The checkpoint was quantized before it was saved. The field is the name of the scheme.
    #[error(
        "the checkpoint was saved quantized ({0}), and its numbers are not weights as they are: import the unquantized checkpoint that \
         it was made from"
    )]
    QuantizedCheckpoint(String),
    /// The server's rows of two texts cannot be turned into the model's.
    #[error("this model cannot serve {task}, which puts two texts in a row: {reason}")]
    PairLayout {
        /// The requested task.
        task: Task,
        /// What differs.
        reason: String,
    },
    /// There is nothing to quantize.
    #[error("the model has no linear layer that could be quantized; leave out --quantize")]
    NothingToQuantize,
    /// The quantized model agrees too little with the original model.
    #[cfg(feature = "torch")]
    #[error(
        "the quantized model agrees too little with the float one: {report}; --quantize-min-agreement asks for {least}. Leave out \
         --quantize, or lower what is asked for"
    )]
    Agreement {
        /// The measured agreement.
        report: Quantization,
        /// Lowest accepted agreement.
        least: f64,
    },
    /// The model computes nothing.
    #[error(
        "the model gives no number (NaN) for a text of {tokens} tokens: its weights are damaged; fetch them again. --no-verify imports \
         it all the same"
    )]
    NotANumber {
        /// Length of the input in tokens.
        tokens: i64,
    },
    /// The saved archive computes other values than the model.
    #[error(
        "the saved archive does not compute what the model does: at {tokens} tokens they differ by {difference:e}, and {allowed:e} is \
         allowed. Please report it; --no-verify imports the model all the same"
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

fn names(tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return "no task: the folder holds no weights that any task could use".into();
    }
    tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(", ")
}

fn others(prompts: &[String]) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    format!(", only for {}", prompts.join(", "))
}
