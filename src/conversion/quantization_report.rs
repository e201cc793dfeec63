//! Measures how quantization changes the outputs of a model.

use std::fmt;

use super::{Conversion, ConversionError, Quantize, ServerRows};
use crate::tasks::agreement::{Figure, Sample};
use crate::torchscript::{Module, Quantized, TorchError};
use serde::{Serialize, Serializer};

/// Ordinary sentences in many languages; adjacent sentences form pairs.
const TEXTS: &str = include_str!("texts.txt");

impl Quantize {
    fn texts(&self) -> Vec<String> {
        match &self.texts {
            Some(texts) => texts.to_vec(),
            None => TEXTS.lines().map(str::to_owned).collect(),
        }
    }
}

/// Report of a quantization and its effect on the outputs.
#[derive(Debug, Clone, Serialize)]
pub struct Quantization {
    /// Number of linear layers with 8-bit weights.
    pub layers: usize,
    /// Number of linear layers and convolutions without 8-bit weights.
    pub layers_kept: usize,
    /// Number of compared texts.
    pub texts: usize,
    /// Agreement of the quantized and the float model. The first figure is the overall agreement, with 1 as the best value.
    #[serde(serialize_with = "figures")]
    pub agreement: [Figure; 2],
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.agreement;
        write!(
            f,
            "{} {:.4} and {} {:.4} over {} texts",
            first.name, first.value, second.name, second.value, self.texts
        )
    }
}

/// Formats the figures as an object with significant digits only.
fn figures<S: Serializer>(figures: &[Figure; 2], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(figures.map(|figure| (figure.name, (figure.value * 1e6).round() / 1e6)))
}

/// Platform of the 8-bit kernels, with Elasticsearch's name. Clusters run on Linux.
#[must_use]
pub fn platform_architecture() -> String {
    format!("linux-{}", std::env::consts::ARCH)
}

impl Conversion {
    /// Runs the quantized module and the float model on texts, and returns their agreement.
    ///
    /// # Errors
    /// If the agreement is too low, a text cannot be tokenized, or libtorch fails.
    pub fn compare(
        &self,
        quantize: &Quantize,
        quantized: Quantized,
        module: &Module,
    ) -> Result<Quantization, ConversionError> {
        let rows = ServerRows::new(&self.tokenizer, self.limit.tokens)?;
        let mut texts = quantize.texts();
        if let Some(prefix) = &self.options.ingest_prefix {
            texts.iter_mut().for_each(|text| text.insert_str(0, prefix));
        }
        let measure = self.task.agreement();
        let mut pairs = Vec::new();
        let rows = rows.of_task(self.task, &texts);
        let texts = rows.len();
        for row in rows {
            let inputs = self.inputs(&[&row.ids])?;
            let (reference, output) = (self.forward(&inputs)?, module.forward_plainly(&inputs)?);
            let finite =
                output.f_isfinite().and_then(|all| all.f_all()).map_err(TorchError::from)?;
            if bool::try_from(&finite).map_err(TorchError::from)? {
                pairs.extend(measure.compare(&Sample { row, reference, output })?);
            } else {
                pairs.push([f64::NAN; 2]);
            }
        }
        let agreement = measure.summarize(&pairs);
        let Quantized { layers, kept } = quantized;
        let report = Quantization { layers, layers_kept: kept, texts, agreement };
        let others = match kept {
            0 => String::new(),
            kept => format!(", and {kept} other layers are unchanged"),
        };
        tracing::info!("{layers} linear layers were quantized to 8 bits{others}");
        tracing::info!("agreement with the original model: {report}");
        tracing::info!(
            "measured on the processor architecture {}, for which the definition is built",
            platform_architecture()
        );
        if let Some(least) = quantize.min_agreement
            // NaN is not sufficient either.
            && !report.agreement.first().is_some_and(|figure| figure.value >= least)
        {
            return Err(ConversionError::Agreement { report, least });
        }
        Ok(report)
    }
}
