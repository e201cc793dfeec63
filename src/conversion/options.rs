//! Options of a conversion.

use std::fmt;
use std::str::FromStr;
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
    /// Quantization of weights; none by default.
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

    /// Whether linear layers are quantized.
    #[must_use]
    pub fn quantizes_linear_layers(&self) -> bool {
        self.quantize.as_ref().is_some_and(|quantize| quantize.scheme.has_linear_layers())
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

/// The weights that are quantized, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum QuantizeScheme {
    /// The word embedding table and the linear layers to 8 bits, calibrated on texts.
    #[default]
    All,
    /// As [`All`](Self::All), with as many linear layers in float32 as a target agreement needs.
    Auto,
    /// The word embedding table to 8 bits.
    Embeddings,
    /// The word embedding table to float16.
    HalfEmbeddings,
    /// The linear layers to 8 bits with one scale per layer, as eland and PyTorch's `quantize_dynamic` do.
    Eland,
}

impl QuantizeScheme {
    /// All schemes.
    pub const ALL: [Self; 5] =
        [Self::All, Self::Auto, Self::Embeddings, Self::HalfEmbeddings, Self::Eland];

    /// Name of the scheme in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Auto => "auto",
            Self::Embeddings => "embeddings",
            Self::HalfEmbeddings => "half-embeddings",
            Self::Eland => "eland",
        }
    }

    /// Whether linear layers are quantized.
    #[must_use]
    pub fn has_linear_layers(self) -> bool {
        matches!(self, Self::All | Self::Auto | Self::Eland)
    }

    /// Whether texts determine how weights are stored.
    #[must_use]
    pub fn is_calibrated(self) -> bool {
        matches!(self, Self::All | Self::Auto)
    }

    /// Approximate size of a model whose weights have `bytes` in float32, of which `table` bytes are the word embedding table, with
    /// rows of `width` numbers. The decoder uses the table too if it `is_tied`.
    #[must_use]
    pub fn estimated_bytes(self, bytes: u64, table: u64, width: u64, is_tied: bool) -> u64 {
        let rest = bytes.saturating_sub(table);
        // One scale for each row.
        let int8 = table / 4 + table / width.max(1);
        let copy = if is_tied { int8 } else { 0 };
        match self {
            Self::All | Self::Auto => int8 + copy + rest / 4 + rest / 64,
            Self::Embeddings => int8 + copy + rest,
            Self::HalfEmbeddings if is_tied => bytes,
            Self::HalfEmbeddings => table / 2 + rest,
            Self::Eland => table + rest / 4,
        }
    }
}

impl fmt::Display for QuantizeScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for QuantizeScheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|scheme| scheme.name() == name);
        found.ok_or_else(|| format!("unknown scheme; use one of {}", names()))
    }
}

/// Options of quantization.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Quantize {
    /// The weights that are quantized, and how.
    pub scheme: QuantizeScheme,
    /// Texts for the calibration and the comparison of both models; the built-in texts by default.
    pub texts: Option<Arc<[String]>>,
    /// Lowest accepted agreement, from 0 to 1: of the first figure of the report and, for embeddings, also of the overlap of the nearest
    /// texts.
    pub min_agreement: Option<f64>,
    /// Agreement that [`QuantizeScheme::Auto`] reaches on texts that are not used for calibration; 0.999 by default. It is the first
    /// figure of the report.
    pub target_agreement: Option<f64>,
}
