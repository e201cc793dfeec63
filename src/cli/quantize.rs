//! Options of quantizing.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::conversion::Quantize;

/// Whether to quantize, and what must come out of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct QuantizeArguments {
    /// Store the weights of linear layers as 8-bit integers, and tell how far the model's answers move
    #[arg(long)]
    quantize: bool,
    /// Refuse the quantized model where it agrees less with the float one: by the first figure of the report, of which 1 is the best
    #[arg(long, value_name = "X", requires = "quantize", value_parser = agreement)]
    quantize_min_agreement: Option<f64>,
    /// What the quantized model and the float one are run on, a text a line, instead of 64 built-in sentences
    #[arg(long, value_name = "FILE", requires = "quantize",
        value_parser = PathBufValueParser::new().try_map(|path| texts(&path)))]
    calibration_texts: Option<Arc<[String]>>,
}

impl QuantizeArguments {
    pub(super) fn options(&self) -> Option<Quantize> {
        self.quantize.then(|| Quantize {
            texts: self.calibration_texts.clone(),
            min_agreement: self.quantize_min_agreement,
        })
    }
}

/// Reads `--quantize-min-agreement`.
fn agreement(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(least) if (0. ..=1.).contains(&least) => Ok(least),
        _ => Err("give a number from 0 to 1".into()),
    }
}

/// Reads `--calibration-texts`: its lines that are not empty.
fn texts(path: &Path) -> Result<Arc<[String]>, String> {
    /// Every text is run twice; this many take minutes already.
    const MOST: usize = 10_000;
    const MOST_BYTES: u64 = 16 << 20;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes; give fewer or shorter texts"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text; convert it")?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    match lines.len() {
        0 => Err("it holds no text; give one a line".into()),
        count if count > MOST => Err(format!("{count} texts are too many: give {MOST} at most")),
        _ => Ok(lines.into()),
    }
}
