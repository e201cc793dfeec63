//! Tree ensembles of XGBoost, LightGBM and scikit-learn, read from their files and written as Elasticsearch `tree_ensemble` models.
//!
//! [`read`] recognises the format of a file and returns a neutral [`Ensemble`], which repeats the library's predictions
//! ([`Ensemble::predict`]). [`Ensemble::define`] writes the definition that Elasticsearch stores. [`check::check`] compares the two.

mod category_sets;
pub mod check;
mod comparison;
pub mod configuration;
pub mod definition;
pub mod ensemble;
mod error;
pub mod evaluate;
mod java_values;
mod json_tokens;
pub mod lightgbm;
pub mod onnx;
pub mod scikit_learn;
pub mod served;
mod ubjson;
pub mod xgboost;

pub use configuration::{ConfigurationOptions, RankingConfiguration, TreeModel};
pub use definition::{Classes, Definition, DefinitionOptions, LabelType, Target};
pub use ensemble::{Ensemble, Feature, FeatureKind, Label, Prediction, Totals};
pub use error::TreeError;
pub use evaluate::Predicted;
pub use served::Served;

/// How to read a model file.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Use all trees of a model that was trained with early stopping, rather than those up to the best iteration.
    pub all_rounds: bool,
    /// Bytes to which a compressed file may inflate, whatever its size. A small file may inflate to less: 64 MiB and 32 times its size.
    pub max_inflated: u64,
}

/// Bytes to which every compressed file may inflate.
const INFLATED_BASE: u64 = 64 << 20;

/// Bytes to which each byte of a compressed file may inflate beyond [`INFLATED_BASE`]. Forests with many classes come near: most of
/// their class fractions are zero.
const INFLATED_PER_BYTE: u64 = 32;

impl ReadOptions {
    /// Bytes to which a compressed file of `size` bytes may inflate.
    fn inflated_limit(&self, size: usize) -> u64 {
        (size as u64)
            .saturating_mul(INFLATED_PER_BYTE)
            .saturating_add(INFLATED_BASE)
            .min(self.max_inflated)
    }
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { all_rounds: false, max_inflated: 4 << 30 }
    }
}

/// Reads a model from the bytes of a file whose format is recognised from its first bytes.
///
/// # Errors
/// When the format is not supported, the file is malformed, or Elasticsearch cannot serve the model.
pub fn read(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let mut ensemble = read_format(bytes, options)?;
    // Other libraries do not save rounds after the best iteration.
    if options.all_rounds && !ensemble.origin.format.starts_with("XGBoost") {
        ensemble.notes.push(NO_FURTHER_ROUNDS.to_owned());
    }
    Ok(ensemble)
}

/// The note for a model without rounds that [`ReadOptions::all_rounds`] could add.
const NO_FURTHER_ROUNDS: &str = "The file has no trees after a best iteration of early stopping, so the option to use all rounds has no effect.";

fn read_format(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    // Editors on Windows write a byte order mark before text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if scikit_learn::is_compressed(bytes) {
        let inflated = scikit_learn::inflate(bytes, options.inflated_limit(bytes.len()))?;
        if scikit_learn::is_compressed(&inflated) {
            return Err(unrecognized("the file is compressed twice"));
        }
        return read_format(&inflated, options);
    }
    if scikit_learn::is_pickle(bytes) {
        return scikit_learn::read_pickle(bytes, options);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return scikit_learn::read_skops(bytes, options);
    }
    // The version of the format, which is the first field.
    if matches!(bytes, [0x08, 1..=30, ..]) {
        return onnx::read(bytes);
    }
    let start = bytes.trim_ascii_start();
    // A key follows, with a marker of the type of its length. JSON has a quotation mark there.
    if matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'#' | b'$', ..]) {
        return xgboost::read_ubjson(bytes, options);
    }
    if bytes.starts_with(b"tree\n") || bytes.starts_with(b"tree\r\n") {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| TreeError::malformed("LightGBM", "the text is not UTF-8"))?;
        return lightgbm::read_text(text);
    }
    if let Some(rest) = start.strip_prefix(b"{") {
        return match first_key(rest) {
            Some(b"learner" | b"version") if has_key(start, b"\"learner\"") => {
                xgboost::read_json(bytes, options)
            }
            _ if has_key(start, b"\"tree_info\"") => lightgbm::read_json(bytes),
            _ => Err(unrecognized(
                "the JSON is neither a model saved by XGBoost's save_model nor one of LightGBM's dump_model",
            )),
        };
    }
    if start.starts_with(b"[") {
        return Err(unrecognized(
            "this looks like a dump of XGBoost's trees, which lacks the objective and the base score; save the model with save_model(\"model.json\")",
        ));
    }
    if start.starts_with(b"booster[") {
        return Err(unrecognized(
            "this is a text dump of XGBoost's trees, which lacks the objective and the base score; save the model with save_model(\"model.json\")",
        ));
    }
    if bytes.starts_with(b"binf") || bytes.starts_with(&0.5_f32.to_le_bytes()) {
        return Err(unrecognized(
            "this is a model in XGBoost's old binary format; load it with XGBoost 1.3 to 3.0 (Booster().load_model(FILE)) and save it with save_model(\"model.json\")",
        ));
    }
    if scikit_learn::is_text_pickle(bytes) {
        return Err(unrecognized(
            "this is a Python pickle of protocol 0 or 1; load it in Python and save the model again with pickle.dump(model, file, protocol=4)",
        ));
    }
    Err(unrecognized(
        "the file is not a model of XGBoost (JSON or UBJSON), LightGBM (text or JSON), scikit-learn (pickle, joblib or skops) or ONNX",
    ))
}

fn unrecognized(reason: &str) -> TreeError {
    TreeError::Unrecognized { reason: reason.to_owned() }
}

/// The first key of a JSON object, after its brace.
fn first_key(rest: &[u8]) -> Option<&[u8]> {
    let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
    rest.split(|&byte| byte == b'"').next()
}

/// Whether the bytes of a JSON document contain a key.
fn has_key(bytes: &[u8], key: &[u8]) -> bool {
    memchr::memmem::find(bytes, key).is_some()
}
