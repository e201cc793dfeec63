//! Options of quantization.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};

use super::command_error::CommandError;
use super::option_value::{SetOption, Unset, Value};
use crate::conversion::{Quantize, QuantizeScheme};

/// Whether to quantize, and how much the model may change.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct QuantizeArguments {
    /// Store weights as 8-bit integers, and report how much the model's results change; --quantize=SCHEME selects the weights:
    /// all, auto, embeddings, half-embeddings, eland [without SCHEME: all]
    #[arg(long, value_name = "SCHEME", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        hide_possible_values = true)]
    quantize: Option<QuantizeScheme>,
    /// Lowest agreement with the original model to accept, from 0 to 1. It is compared with the first figure of the report and, for
    /// embeddings, with top_10_overlap, too
    #[arg(long, value_name = "X", requires = "quantize", value_parser = agreement)]
    quantize_min_agreement: Option<f64>,
    /// Agreement for which --quantize=auto stores linear layers as float32, from 0 to 1. It is the first figure of the report
    /// [default: 0.999]
    #[arg(long, value_name = "X", requires = "quantize", value_parser = agreement)]
    target_agreement: Option<f64>,
    /// File of texts, one per line, on which to calibrate the quantized model and compare it with the original [default: built-in sentences]
    #[arg(long, value_name = "FILE", requires = "quantize",
        value_parser = PathBufValueParser::new().try_map(|path| texts(&path)))]
    calibration_texts: Option<Arc<[String]>>,
}

impl SetOption for QuantizeArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "quantize" => {
                self.quantize = value.read(|text| match text {
                    "true" => Ok(Some(QuantizeScheme::default())),
                    "false" => Ok(None),
                    scheme => scheme.parse().map(Some),
                })?;
            }
            "quantize-min-agreement" => self.quantize_min_agreement = Some(value.read(agreement)?),
            "target-agreement" => self.target_agreement = Some(value.read(agreement)?),
            "calibration-texts" => {
                self.calibration_texts = Some(value.read(|path| texts(Path::new(path)))?);
            }
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl QuantizeArguments {
    pub(super) fn options(&self) -> Option<Quantize> {
        self.quantize.map(|scheme| Quantize {
            scheme,
            texts: self.calibration_texts.clone(),
            min_agreement: self.quantize_min_agreement,
            target_agreement: self.target_agreement,
        })
    }

    /// Checks that the scheme supports the other options.
    ///
    /// # Errors
    /// [`CommandError::Usage`] if it does not.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        match self.quantize {
            Some(scheme) if scheme != QuantizeScheme::Auto && self.target_agreement.is_some() => {
                Err(CommandError::Usage(format!(
                    "--target-agreement cannot be used with --quantize={scheme}; use --quantize=auto, or --quantize-min-agreement to reject \
                     a model"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Reads `--quantize-min-agreement`.
fn agreement(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(least) if (0. ..=1.).contains(&least) => Ok(least),
        _ => Err("the value must be a number from 0 to 1".into()),
    }
}

/// Reads the non-empty lines of the file `--calibration-texts`.
fn texts(path: &Path) -> Result<Arc<[String]>, String> {
    /// Maximum number of texts. The model runs twice on each text, so this number already takes minutes.
    const MOST: usize = 10_000;
    const MOST_BYTES: u64 = 16 << 20;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!(
            "the file is larger than {MOST_BYTES} bytes; use fewer or shorter texts"
        ));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text; convert it to UTF-8")?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    match lines.len() {
        0 => Err("the file contains no text; write one text per line".into()),
        count if count > MOST => {
            Err(format!("the file contains {count} texts; use at most {MOST}"))
        }
        _ => Ok(lines.into()),
    }
}
