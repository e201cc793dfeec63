//! Comparison of the saved and reloaded archive with the original model.

use tch::{Kind, Tensor};

use super::{Conversion, ConversionError, Traced};
use crate::torchscript::{Module, TorchError};

/// Tolerance relative to the largest output value, or to 1 if that is larger.
const TOLERANCE: f64 = 1e-5;

/// Rows and tokens of the test inputs. All lengths differ from the traced one, the last input has padding, and all are short, because
/// reading the weights dominates the time of such a pass.
const SHAPES: [(i64, i64); 3] = [(1, 2), (1, 7), (2, 12)];

impl Conversion {
    /// Runs a loaded archive on inputs of three lengths and compares it with the untraced model. The archive of a
    /// quantized model has different outputs, so it is compared with the traced module before saving;
    /// [`compare`](Self::compare) measures its difference from the model.
    ///
    /// # Errors
    /// If the outputs differ, or libtorch fails.
    pub fn verify(&self, traced: &Traced, loaded: &Module) -> Result<(), ConversionError> {
        let mut largest = 0f64;
        for (batch, tokens) in SHAPES {
            let tokens = tokens.min(self.limit.tokens.into());
            let inputs = self.inputs(&self.varied(batch, tokens))?;
            let expected = match traced.quantized {
                Some(_) => traced.module.forward_plainly(&inputs)?,
                None => self.forward(&inputs)?,
            };
            let found = loaded.forward_plainly(&inputs)?;
            let (difference, allowed) = distance(&found, &expected)?;
            if allowed.is_nan() {
                return Err(ConversionError::NotANumber { tokens });
            }
            if difference.is_nan() || difference > allowed {
                return Err(ConversionError::Verification { tokens, difference, allowed });
            }
            largest = largest.max(difference);
        }
        tracing::info!(
            "the saved archive computes the same values as the model: the largest difference is {largest:.1e}"
        );
        Ok(())
    }

    /// Rows of ids from the whole vocabulary, each as two texts followed by separators. The last of several rows is shorter.
    fn varied(&self, batch: i64, tokens: i64) -> Vec<Vec<i64>> {
        let special = self.tokenizer.special;
        let count = self.tokenizer.vocabulary.vocabulary.len();
        let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let id = |row: i64, place: i64, length: i64| match place {
            place if place == length - 1 || place == length / 2 => special.separator,
            // A stride that is coprime to every real vocabulary size.
            place => match (row * tokens + place + 1) * 7_919 % count {
                id if id == special.padding => special.separator,
                id => id,
            },
        };
        let row = |row: i64| {
            let length = if batch > 1 && row == batch - 1 { (tokens + 1) / 2 } else { tokens };
            (0..length).map(|place| id(row, place, length)).collect()
        };
        (0..batch).map(row).collect()
    }
}

/// Largest difference of two outputs, and the tolerance.
fn distance(found: &Tensor, expected: &Tensor) -> Result<(f64, f64), TorchError> {
    if found.size() != expected.size() {
        let sizes =
            format!("an output of the shape {:?} instead of {:?}", found.size(), expected.size());
        return Err(TorchError::Native(sizes));
    }
    let most = |tensor: &Tensor| -> Result<f64, TorchError> {
        Ok(f64::try_from(&tensor.f_abs()?.f_max()?.f_to_kind(Kind::Double)?)?)
    };
    let largest = most(expected)?;
    // `max` would hide NaN.
    let scale = if largest > 1. || largest.is_nan() { largest } else { 1. };
    Ok((most(&found.f_sub(expected)?)?, TOLERANCE * scale))
}
