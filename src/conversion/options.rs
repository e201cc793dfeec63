//! What the user chooses about a conversion.

use std::sync::Arc;

#[cfg(feature = "torch")]
use super::ConversionError;
#[cfg(feature = "torch")]
use crate::config::Usage;
use crate::source::Origin;
use crate::tasks::Task;
use crate::version::Target;

/// What the user chooses.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The task; guessed from the files where absent.
    pub task: Option<Task>,
    /// The longest input in tokens, instead of what the files say.
    pub max_length: Option<u32>,
    /// Put before every text at ingest.
    pub ingest_prefix: Option<String>,
    /// Put before every text at search.
    pub search_prefix: Option<String>,
    /// Put before texts what the model's own files declare, where no other prefix is given.
    pub prompts: bool,
    /// The Elasticsearch that it is for.
    pub target: Target,
    /// Where the files come from, if that is known.
    pub origin: Option<Origin>,
    /// Whether and how linear layers get 8-bit weights.
    pub quantize: Option<Quantize>,
    /// Do not compare the saved archive with the model.
    pub no_verify: bool,
}

#[cfg(feature = "torch")]
impl Options {
    /// Fills in the prefixes that are not given.
    pub(super) fn take_prompts(&mut self, usage: &Usage) -> Result<(), ConversionError> {
        let (query, document) = (usage.query(), usage.document());
        if query.is_none() && document.is_none() {
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

/// What the user chooses of quantizing.
#[derive(Debug, Clone, Default)]
pub struct Quantize {
    /// What both forms of the model are run on, instead of the built-in texts.
    pub texts: Option<Arc<[String]>>,
    /// The least agreement, from 0 to 1: below it the model is refused.
    pub min_agreement: Option<f64>,
}
