//! Memory of one pass of a model, and the longest input by default.

use tch::Tensor;

use super::description::{Description, Limit};
use super::{Conversion, ConversionError, Options};
use crate::models::blocks::block_length;
use crate::models::{AttentionForm, WeightLoader};
use crate::source::ModelFiles;
use crate::tasks::Task;
use crate::torchscript::{Module, OneThread, TorchError};
use crate::version::{Target, Version};

/// Inputs for measuring the memory of a pass, which can run on any thread.
pub struct PeakMemory {
    longest: i64,
    /// Inputs with their lengths in tokens.
    inputs: Vec<(i64, Vec<Tensor>)>,
}

/// Peak of live bytes in one pass over one row, without weights, by the length of the row.
#[derive(Debug, Clone)]
pub(super) struct MemoryCurve {
    /// Measured lengths in tokens, and bytes.
    points: Vec<(i64, u64)>,
}

impl PeakMemory {
    /// Peak of live bytes in one pass over an input of the maximum length, without weights.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn measure(&self, module: &Module) -> Result<u64, TorchError> {
        Ok(self.curve(module)?.at(self.longest))
    }

    /// Measures the memory of a module.
    pub(super) fn curve(&self, module: &Module) -> Result<MemoryCurve, TorchError> {
        let _one = OneThread::begin();
        let peaks = self.inputs.iter().map(|(tokens, inputs)| Ok((*tokens, module.peak(inputs)?)));
        Ok(MemoryCurve { points: peaks.collect::<Result<_, TorchError>>()? })
    }
}

impl MemoryCurve {
    /// The bytes for a length: measured, or extrapolated by the parabola through the last three lengths, which are equidistant.
    pub(super) fn at(&self, tokens: i64) -> u64 {
        let measured = self.points.iter().find(|(length, _)| *length == tokens);
        if let Some((_, bytes)) = measured {
            return *bytes;
        }
        let [.., first, second, third] = self.points[..] else {
            return self.points.last().map_or(0, |(_, bytes)| *bytes);
        };
        let at = [first.1 as f64, second.1 as f64, third.1 as f64];
        let steps = (tokens - first.0) as f64 / (second.0 - first.0) as f64;
        let curvature = at[2] - 2. * at[1] + at[0];
        let bytes = at[0] + steps * (at[1] - at[0]) + steps * (steps - 1.) / 2. * curvature;
        let least = if tokens > third.0 { at[2] } else { 0. };
        bytes.max(least) as u64
    }
}

/// Lengths that are measured for inputs above the last of them. They are above the length at which attention needs more memory than the
/// feed-forward (256 in usual models), where the formula changes.
const LENGTHS: [i64; 3] = [512, 768, 1024];

/// Longest input by default of a model that needs more than [`MOST_BYTES`] for the longest input that its files allow.
pub(super) const DEFAULT_LENGTH: u32 = 512;

/// Memory of one allocation up to which a model gets the longest input that its files allow: 1 GiB.
const MOST_BYTES: u64 = 1 << 30;

impl Conversion {
    /// Inputs for measuring the peak of live bytes in a pass over one row of the maximum length.
    ///
    /// Up to 1,024 tokens the pass is measured. A pass over 8,192 would need minutes and, without fused attention, many gigabytes. The live
    /// tensors grow with the length or its square, so three shorter lengths determine the result. If sliding windows are computed in
    /// blocks, these are rows of two, three and four whole blocks.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn peak_memory(&self) -> Result<PeakMemory, TorchError> {
        self.peak_memory_at(self.measured_lengths())
    }

    /// Inputs like those of [`peak_memory`](Self::peak_memory), and one of the default length.
    pub(super) fn peak_memory_by_length(&self) -> Result<PeakMemory, TorchError> {
        let (mut lengths, default) = (self.measured_lengths(), i64::from(DEFAULT_LENGTH));
        if lengths.first().is_some_and(|first| *first > default) {
            lengths.insert(0, default);
        }
        self.peak_memory_at(lengths)
    }

    fn measured_lengths(&self) -> Vec<i64> {
        let longest = i64::from(self.limit.tokens);
        let reach = self.network.model.window_reach();
        let block = reach.and_then(|reach| block_length(reach, longest));
        let lengths = block.map_or(LENGTHS, |block| [2, 3, 4].map(|blocks| blocks * block));
        if longest <= lengths[2] { vec![longest] } else { lengths.to_vec() }
    }

    fn peak_memory_at(&self, lengths: Vec<i64>) -> Result<PeakMemory, TorchError> {
        let longest = i64::from(self.limit.tokens);
        let inputs = lengths.into_iter().map(|tokens| Ok((tokens, self.example(tokens)?)));
        Ok(PeakMemory { longest, inputs: inputs.collect::<Result<_, TorchError>>()? })
    }

    /// A model without weights, with three layers of each stack. Its passes take as much memory as those of the model, in less time.
    pub(super) fn sketch(
        mut description: Description,
        task: Task,
        options: &Options,
    ) -> Result<Self, ConversionError> {
        description.reduce_layers();
        let loaded = description.load(task, false, &WeightLoader::sketch())?;
        let open = |_: &ModelFiles| Ok(WeightLoader::sketch());
        let mut sketch = Self::of(description, task, loaded, options.clone(), &open)?;
        sketch.store_scores();
        Ok(sketch)
    }

    /// The memory of a pass of a [`sketch`](Self::sketch) by the length of the row.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub(super) fn curve_of_sketch(&self) -> Result<MemoryCurve, TorchError> {
        self.peak_memory()?.curve(&self.trace_float()?)
    }

    /// Whether the longest input depends on its memory: the user sets none, and the model's files allow more than the default.
    pub(super) fn limits_memory(&self) -> bool {
        self.options.max_length.is_none() && self.limit.tokens > DEFAULT_LENGTH
    }

    /// Computes attention in plain operations, whose memory is measured, where fused attention needs as much: the libtorch that measures
    /// is newer than that of the cluster.
    pub(super) fn store_scores(&mut self) {
        if self.options.target != Target::Any
            && !self.options.target.has(Version::FUSED_ATTENTION_WITHOUT_SCORES)
        {
            self.network.attention = AttentionForm::Plain;
        }
    }

    /// Lowers the longest input to the default length if the memory for it is too large.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub(super) fn limit_memory(&mut self) -> Result<(), TorchError> {
        let limits = self.limits_memory();
        if let Some(mut sketch) = self.sketch.take_if(|_| limits) {
            self.limit_memory_to(&sketch.curve_of_sketch()?);
            sketch.limit = self.limit;
            self.sketch = Some(sketch);
        }
        Ok(())
    }

    /// Like [`limit_memory`](Self::limit_memory), for a measured curve.
    pub(super) fn limit_memory_to(&mut self, curve: &MemoryCurve) {
        let Limit { tokens, by } = self.limit;
        let bytes = curve.at(tokens.into());
        if !self.limits_memory() || bytes <= MOST_BYTES {
            return;
        }
        self.limit = Limit { tokens: DEFAULT_LENGTH, by: "memory" };
        self.notes.push(format!(
            "inputs are truncated to {DEFAULT_LENGTH} tokens: one allocation would need {:.1} GiB for the {tokens} tokens that the model \
             allows ({by}). --max-model-input-length raises the limit",
            bytes as f64 / f64::from(1 << 30)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_longer_inputs_follows_the_parabola_of_measured_ones() {
        let bytes = |n: i64| (3 * n * n + 1000 * n + 7) as u64;
        let curve = MemoryCurve { points: LENGTHS.map(|n| (n, bytes(n))).to_vec() };
        for n in [512, 1024, 2048, 8192] {
            assert_eq!(curve.at(n), bytes(n), "{n}");
        }
        let one = MemoryCurve { points: vec![(40, 5)] };
        assert_eq!(one.at(40), 5);
    }
}
