//! Measures how quantization changes the outputs of a model.

use std::fmt;

use super::reference_outputs::{Compared, ReferenceOutputs};
use super::{Conversion, ConversionError, Quantize, QuantizeScheme, Savings};
use crate::tasks::agreement::Figure;
use crate::tasks::{AgreementSamples, Task, neighbours};
use crate::torchscript::{Module, Quantized, TorchError};
use serde::{Serialize, Serializer};

/// Ordinary sentences in many languages, for calibration; adjacent sentences form pairs.
const CALIBRATION_TEXTS: &str = include_str!("texts.txt");

/// Other sentences, for the comparison of both models; adjacent sentences form pairs.
const HELD_OUT_TEXTS: &str = include_str!("held_out_texts.txt");

/// Target of [`QuantizeScheme::Auto`] by default.
const DEFAULT_TARGET: f64 = 0.999;

/// Size in bytes of the layers of a model whose passes take so long that every other pair of the built-in texts is compared. It is between
/// the sizes of small and base models.
const LARGE_LAYERS: u64 = 200 << 20;

/// Fewer compared texts cause a warning. With at most eleven, for example, the ten nearest texts of a text are always the same.
const FEW_TEXTS: usize = 30;

impl Quantize {
    /// The texts that calibrate the quantization: every other pair of adjacent texts of the user, or built-in ones.
    pub(super) fn calibration_texts(&self) -> Vec<String> {
        match &self.texts {
            Some(texts) if self.reuses_texts() => texts.to_vec(),
            Some(texts) => texts.chunks(2).step_by(2).flatten().cloned().collect(),
            None => CALIBRATION_TEXTS.lines().map(str::to_owned).collect(),
        }
    }

    /// Whether the user's texts are too few to calibrate with some and compare others.
    fn reuses_texts(&self) -> bool {
        self.texts.as_ref().is_some_and(|texts| texts.len() < 4)
    }

    /// Whether the conversion fails if the agreement is too low.
    pub(super) fn requires_agreement(&self) -> bool {
        self.min_agreement.is_some() || self.scheme == QuantizeScheme::Auto
    }

    /// The agreement that [`QuantizeScheme::Auto`] reaches.
    pub(super) fn target(&self) -> f64 {
        self.target_agreement.unwrap_or(DEFAULT_TARGET)
    }

    /// The texts on which both models are compared. They are not those of the calibration, unless there are fewer than four texts.
    /// `layer_bytes` is the size of the weights without the word embedding table.
    pub(super) fn compared_texts(&self, layer_bytes: u64) -> Vec<String> {
        let held_out = || HELD_OUT_TEXTS.lines().map(str::to_owned);
        match &self.texts {
            Some(texts) if self.reuses_texts() || !self.scheme.is_calibrated() => texts.to_vec(),
            Some(texts) => texts.chunks(2).skip(1).step_by(2).flatten().cloned().collect(),
            None if layer_bytes > LARGE_LAYERS && self.scheme != QuantizeScheme::Auto => {
                held_out().collect::<Vec<_>>().chunks(2).step_by(2).flatten().cloned().collect()
            }
            None => held_out().collect(),
        }
    }
}

/// Report of a quantization and its effect on the outputs.
#[derive(Debug, Clone, Serialize)]
pub struct Quantization {
    /// The scheme.
    #[serde(serialize_with = "name")]
    pub scheme: QuantizeScheme,
    /// Number of linear layers with 8-bit weights.
    pub layers: usize,
    /// Number of linear layers and convolutions without 8-bit weights.
    pub layers_kept: usize,
    /// Number of lookup tables with 8-bit or float16 numbers.
    pub tables: usize,
    /// Number of compared texts.
    pub texts: usize,
    /// Agreement of the quantized and the float model. The first figure is the overall agreement, with 1 as the best value.
    #[serde(serialize_with = "figures")]
    pub agreement: Vec<Figure>,
    /// The agreement on single texts, for plots.
    #[serde(skip)]
    pub samples: AgreementSamples,
    /// Sizes; `None` if no bundle was created.
    #[serde(flatten)]
    pub savings: Option<Savings>,
}

impl Quantization {
    /// Whether the overall agreement is at least `least`.
    pub(super) fn reaches(&self, least: f64) -> bool {
        self.agreement.first().is_some_and(|figure| figure.value >= least)
    }

    /// The overall agreement and, for embeddings, the overlap of the nearest texts, if they are not at least `least`.
    fn misses(&self, least: f64) -> impl Iterator<Item = &Figure> {
        let judged =
            |(at, figure): &(usize, &Figure)| *at == 0 || figure.name == neighbours::OVERLAP;
        let figures = self.agreement.iter().enumerate().filter(judged);
        // NaN is not sufficient.
        figures
            .map(|(_, figure)| figure)
            .filter(move |figure| figure.value.is_nan() || figure.value < least)
    }

    /// The overall agreement, with the number of texts.
    pub(super) fn overall(&self) -> String {
        self.listed(self.agreement.iter().take(1))
    }

    /// The figures that are not at least `least`, with the number of texts.
    pub(super) fn below(&self, least: f64) -> String {
        self.listed(self.misses(least))
    }

    /// Figures with all digits, because six may be equal to what is required.
    fn listed<'a>(&self, figures: impl Iterator<Item = &'a Figure>) -> String {
        let figures: Vec<_> = figures.map(|it| format!("{} {}", it.name, it.value)).collect();
        format!("{} over {} texts", figures.join(" and "), self.texts)
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = match self.texts {
            1 => "1 text".to_owned(),
            texts => format!("{texts} texts"),
        };
        let figures: Vec<_> =
            self.agreement.iter().map(|it| format!("{} {:.4}", it.name, it.value)).collect();
        match figures.split_last() {
            Some((last, others)) if !others.is_empty() => {
                write!(f, "{} and {last} over {texts}", others.join(", "))
            }
            _ => write!(f, "{} over {texts}", figures.concat()),
        }
    }
}

/// Formats the figures as an object with significant digits only.
fn figures<S: Serializer>(figures: &[Figure], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(figures.iter().map(|figure| (figure.name, (figure.value * 1e6).round() / 1e6)))
}

fn name<S: Serializer>(scheme: &QuantizeScheme, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(scheme.name())
}

/// Platform of the 8-bit kernels, with Elasticsearch's name. Clusters run on Linux.
#[must_use]
pub fn platform_architecture() -> String {
    format!("linux-{}", std::env::consts::ARCH)
}

impl Conversion {
    /// Compares the quantized module with the float model, and logs their agreement.
    ///
    /// # Errors
    /// If the agreement is too low, a text cannot be tokenized, or libtorch fails.
    pub fn compare(
        &self,
        quantize: &Quantize,
        quantized: Quantized,
        module: &Module,
    ) -> Result<Quantization, ConversionError> {
        if quantize.scheme.is_calibrated() && quantize.reuses_texts() {
            tracing::warn!(
                "the calibration texts are so few that the same texts are compared; use at least four"
            );
        }
        let references = self.reference_outputs(quantize)?;
        let report = self.quantization_report(quantize.scheme, quantized, module, &references)?;
        let Quantized { layers, kept, tables } = quantized;
        let tables = match (tables, quantize.scheme) {
            (0, _) => String::new(),
            (_, QuantizeScheme::HalfEmbeddings) => {
                "the word embedding table was converted to float16; ".into()
            }
            _ => "the word embedding table was quantized to 8 bits; ".into(),
        };
        let others = match kept {
            0 => String::new(),
            1 => ", and 1 other layer is unchanged".to_owned(),
            kept => format!(", and {kept} other layers are unchanged"),
        };
        let layers_were = if layers == 1 { "layer was" } else { "layers were" };
        tracing::info!("{tables}{layers} linear {layers_were} quantized to 8 bits{others}");
        tracing::info!("agreement with the original model: {report}");
        if report.texts < FEW_TEXTS {
            tracing::warn!(
                "figures of {} texts say little about other texts; use more texts for the comparison",
                report.texts
            );
        }
        if layers > 0 {
            tracing::info!(
                "measured on the processor architecture {}, for which the definition is built",
                platform_architecture()
            );
        }
        match quantize.min_agreement {
            Some(least) if report.misses(least).next().is_some() => {
                Err(ConversionError::Agreement { report: Box::new(report), least })
            }
            _ => Ok(report),
        }
    }

    /// Runs the quantized module on the texts of the references, and returns its agreement with the original model.
    ///
    /// # Errors
    /// Errors of libtorch, or an output without the shape of the task.
    pub(super) fn quantization_report(
        &self,
        scheme: QuantizeScheme,
        quantized: Quantized,
        module: &Module,
        references: &ReferenceOutputs,
    ) -> Result<Quantization, TorchError> {
        let Compared { pairs, embeddings, numbers } = references.compare(module)?;
        let measure = self.task.agreement();
        let mut agreement = measure.summarize(&pairs).to_vec();
        let is_finite = agreement.iter().all(|figure| figure.value.is_finite());
        if let (Some(figures), true) = (neighbours::figures(&embeddings), is_finite) {
            agreement.splice(0..0, figures);
        }
        let samples = if self.task == Task::TextEmbedding {
            let points = neighbours::similarities_of_pairs(&embeddings);
            measure.samples(&pairs, "cosine similarity of two texts", &points)
        } else {
            measure.samples(&pairs, "number of the output for a text", &numbers)
        };
        let Quantized { layers, kept, tables } = quantized;
        Ok(Quantization {
            scheme,
            layers,
            layers_kept: kept,
            tables,
            texts: references.texts(),
            agreement,
            samples,
            savings: None,
        })
    }
}
