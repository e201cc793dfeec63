//! Options of a conversion.

use std::sync::Arc;

#[cfg(feature = "torch")]
use super::ConversionError;
#[cfg(feature = "torch")]
use crate::config::Usage;
use crate::scripts::Scripts;
use crate::source::Origin;
use crate::tasks::Task;
use crate::version::Target;

/// Options of a conversion.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Task; guessed from the files by default.
    pub task: Option<Task>,
    /// The model to convert, if the repository provides several; the default model without it.
    pub part: Option<String>,
    /// The task whose LoRA adapter is merged into the weights; the plain weights without it.
    pub lora_task: Option<String>,
    /// Longest input in tokens; read from the files by default.
    pub max_length: Option<u32>,
    /// Number of leading components of each embedding to keep (Matryoshka); all by default.
    pub dimensions: Option<u32>,
    /// Scripts of the texts that the model reads: tokens of other scripts are left out of the vocabulary and of the word embeddings. All
    /// tokens are kept by default.
    pub scripts: Option<Scripts>,
    /// Text to prepend to each document at ingest time.
    pub ingest_prefix: Option<String>,
    /// Text to prepend to each query at search time.
    pub search_prefix: Option<String>,
    /// Use the prompts declared by the model for any prefix that is not set.
    pub prompts: bool,
    /// Elasticsearch version that the model is converted for.
    pub target: Target,
    /// Origin of the files, if it is known.
    pub origin: Option<Origin>,
    /// Quantization of linear layers; none by default.
    pub quantize: Option<Quantize>,
    /// Skip the comparison of the saved archive with the model.
    pub no_verify: bool,
    /// Convert the model although Elasticsearch cannot follow its tokenizer exactly.
    pub allow_inexact_tokenizer: bool,
}

impl Options {
    /// Options with this task, and the defaults of all others.
    #[must_use]
    pub fn of_task(task: Task) -> Self {
        Self { task: Some(task), ..Self::default() }
    }
}

#[cfg(feature = "torch")]
impl Options {
    /// Sets prefixes that are not set to the declared prompts.
    pub(super) fn take_prompts(&mut self, usage: &Usage) -> Result<(), ConversionError> {
        let (query, document) = (usage.query(), usage.document());
        if query.is_none() && document.is_none() {
            // The prompt of some adapters is empty.
            if self.lora_task.is_some() && usage.has_empty_prompts() {
                return Ok(());
            }
            let declared = usage.prompts.iter().filter(|(_, prompt)| !prompt.is_empty());
            let has = declared.map(|(name, _)| name.clone()).collect();
            return Err(ConversionError::NoPrompts { has });
        }
        let prefixes = [(&mut self.search_prefix, query), (&mut self.ingest_prefix, document)];
        for (prefix, prompt) in prefixes {
            if prefix.is_none() {
                *prefix = prompt.map(str::to_owned);
            }
        }
        Ok(())
    }
}

/// Options of quantization.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Quantize {
    /// Texts for the comparison of both models; the built-in texts by default.
    pub texts: Option<Arc<[String]>>,
    /// Lowest accepted agreement, from 0 to 1.
    pub min_agreement: Option<f64>,
}
