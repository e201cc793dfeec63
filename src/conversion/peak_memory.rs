//! Memory of one pass of a model.

use tch::Tensor;

use super::Conversion;
use crate::torchscript::{Module, OneThread, TorchError};

/// Inputs for measuring the memory of a pass, which can run on any thread.
pub struct PeakMemory {
    longest: i64,
    /// Inputs with their lengths in tokens.
    inputs: Vec<(i64, Vec<Tensor>)>,
}

impl PeakMemory {
    /// Peak of live bytes in one pass over an input of the maximum length, without weights.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn measure(&self, module: &Module) -> Result<u64, TorchError> {
        let _one = OneThread::begin();
        let peaks = self.inputs.iter().map(|(tokens, inputs)| Ok((*tokens, module.peak(inputs)?)));
        let peaks = peaks.collect::<Result<Vec<_>, TorchError>>()?;
        let [first, second, third] = peaks[..] else {
            return Ok(peaks.first().map_or(0, |(_, bytes)| *bytes));
        };
        // Extrapolate the parabola through three equidistant points.
        let at = [first.1 as f64, second.1 as f64, third.1 as f64];
        let steps = (self.longest - first.0) as f64 / (second.0 - first.0) as f64;
        let curvature = at[2] - 2. * at[1] + at[0];
        let bytes = at[0] + steps * (at[1] - at[0]) + steps * (steps - 1.) / 2. * curvature;
        Ok(bytes.max(at[2]) as u64)
    }
}

impl Conversion {
    /// Inputs for measuring the peak of live bytes in a pass over one row of the maximum length.
    ///
    /// Up to 1,024 tokens the pass is measured. A pass over 8,192 would need minutes and, without fused attention, many gigabytes. The live
    /// tensors grow with the length or its square, so three shorter lengths determine the result. These lengths are above the
    /// length at which attention needs more memory than the feed-forward (256 in usual models), where the formula changes.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn peak_memory(&self) -> Result<PeakMemory, TorchError> {
        const LENGTHS: [i64; 3] = [512, 768, 1024];
        let longest = i64::from(self.limit.tokens);
        let lengths = if longest <= LENGTHS[2] { vec![longest] } else { LENGTHS.to_vec() };
        let inputs = lengths.into_iter().map(|tokens| Ok((tokens, self.example(tokens)?)));
        Ok(PeakMemory { longest, inputs: inputs.collect::<Result<_, TorchError>>()? })
    }
}
