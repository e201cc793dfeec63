//! Comparison of the saved and reloaded archive with the original model.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::{Conversion, ConversionError, Saved, Traced};
use crate::observer::Stage;
use crate::segmented_bytes::SegmentedBytes;
use crate::torchscript::{Module, OneThread, TorchError};

/// Tolerance relative to the largest output value, or to 1 if that is larger.
const TOLERANCE: f64 = 1e-5;

/// Tokens of the rows of the test input. The number of rows and the longest row differ from those of the trace, the other row has padding,
/// and both are short. Reading the weights takes most of the time of such a pass, so one pass serves both lengths.
const LENGTHS: [i64; 2] = [9, 4];

impl Conversion {
    /// Loads the saved archive of a traced module as the cluster does, and compares its output with the model's.
    ///
    /// # Errors
    /// [`ConversionError`] if the output differs, or the quantized model agrees too little with the original.
    pub fn check(
        &self,
        traced: &Traced,
        archive: Arc<SegmentedBytes>,
    ) -> Result<Saved, ConversionError> {
        let (loaded, per_deployment_memory_bytes) = Module::load_mapped(archive)?;
        if !self.options.no_verify {
            let _one = OneThread::begin();
            self.progress.run(Stage::Verify, || self.verify(traced, &loaded))?;
        }
        let quantization = match (&self.options.quantize, traced.quantized) {
            (Some(quantize), Some(done)) => {
                let compare = || self.compare(quantize, done, &loaded);
                Some(self.progress.run(Stage::CompareQuantized, compare)?)
            }
            _ => None,
        };
        Ok(Saved { per_deployment_memory_bytes, quantization })
    }

    /// Runs a loaded archive on rows of two lengths and compares it with the untraced model. The archive of a
    /// quantized model has different outputs, so it is compared with the traced module before saving;
    /// [`compare`](Self::compare) measures its difference from the model.
    ///
    /// # Errors
    /// If the outputs differ, or libtorch fails.
    pub fn verify(&self, traced: &Traced, loaded: &Module) -> Result<(), ConversionError> {
        let most = self.limit.tokens.into();
        let lengths = LENGTHS.map(|tokens| tokens.min(most));
        let tokens = lengths[0];
        let inputs = self.inputs(&self.varied(&lengths))?;
        let expected = match traced.quantized {
            Some(_) => traced.module.forward_plainly(&inputs)?,
            None => self.forward(&inputs)?,
        };
        let found = loaded.forward_plainly(&inputs)?;
        let difference = accepted_difference(&found, &expected, tokens)?;
        tracing::info!(
            "the saved archive computes the same values as the model: the largest difference is {difference:.1e}"
        );
        Ok(())
    }

    /// Rows of ids from the whole vocabulary, each as two texts followed by separators.
    fn varied(&self, lengths: &[i64]) -> Vec<Vec<i64>> {
        let special = self.tokenizer.special;
        let count = self.tokenizer.vocabulary.vocabulary.len();
        let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let mut number = 0;
        let mut id = |place: i64, length: i64| {
            number += 1;
            if place == length - 1 || place == length / 2 {
                return special.separator;
            }
            // A stride that is coprime to every real vocabulary size.
            match number * 7_919 % count {
                id if id == special.padding => special.separator,
                id => id,
            }
        };
        lengths.iter().map(|&length| (0..length).map(|place| id(place, length)).collect()).collect()
    }
}

/// Largest difference of two outputs for rows of at most `tokens` tokens.
///
/// # Errors
/// If the outputs differ by more than the tolerance, or libtorch fails.
pub(super) fn accepted_difference(
    found: &Tensor,
    expected: &Tensor,
    tokens: i64,
) -> Result<f64, ConversionError> {
    let (difference, allowed) = distance(found, expected)?;
    if allowed.is_nan() {
        return Err(ConversionError::NotANumber { tokens });
    }
    if difference.is_nan() || difference > allowed {
        return Err(ConversionError::Verification { tokens, difference, allowed });
    }
    Ok(difference)
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
