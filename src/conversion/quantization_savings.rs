//! Size, memory and time of a quantized model, compared with the original.

use std::iter;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tch::Tensor;

use super::{Conversion, ConversionError};
use crate::bundle::required_memory;
use crate::byte_count::ByteCount;
use crate::torchscript::{Module, OneThread, TorchError};

/// Lengths in tokens of the inputs whose time is measured.
const LENGTHS: [i64; 4] = [8, 32, 128, 512];

/// Number of passes per length and module, unless they take longer than [`MOST_TIME`].
const PASSES: usize = 5;

/// Time after which no further pass of one length begins.
const MOST_TIME: Duration = Duration::from_millis(50);

/// A figure of the original and of the quantized model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Figure of the original model.
    pub original: u64,
    /// Figure of the quantized model.
    pub quantized: u64,
}

/// What quantization saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Savings {
    /// Size of the definition in bytes.
    pub definition_bytes: Change,
    /// Memory in bytes that Elasticsearch reserves on a node for the first allocation.
    pub required_memory_bytes: Change,
}

impl Conversion {
    /// Compares the sizes of the quantized module with those of the original, measures the time of both on this machine, and logs the
    /// results. `length` is the size of the quantized definition, `weights` the size of its tensors, and `peak` the memory of a pass, in
    /// bytes. The times are not part of the result, because they differ between runs.
    pub(super) fn measure_savings(
        &self,
        module: &Module,
        length: u64,
        weights: u64,
        peak: u64,
    ) -> Result<Savings, ConversionError> {
        let required = |length: u64, weights: u64, peak: u64| {
            let metadata = json!({"per_deployment_memory_bytes": weights, "per_allocation_memory_bytes": peak});
            required_memory(length, metadata.as_object())
        };
        let original = self.trace_float()?;
        let original_length = original.archive()?.len() as u64;
        let original_peak = match &self.sketch {
            Some(sketch) => sketch.curve_of_sketch()?.at(self.limit.tokens.into()),
            None => self.peak_memory()?.measure(&original)?,
        };
        let savings = Savings {
            definition_bytes: Change { original: original_length, quantized: length },
            required_memory_bytes: Change {
                original: required(original_length, self.parameter_bytes, original_peak),
                quantized: required(length, weights, peak),
            },
        };
        let Savings { definition_bytes, required_memory_bytes } = savings;
        tracing::info!(
            "the definition has {} instead of {}, and a node reserves {} instead of {} for the first allocation",
            ByteCount(definition_bytes.quantized),
            ByteCount(definition_bytes.original),
            ByteCount(required_memory_bytes.quantized),
            ByteCount(required_memory_bytes.original)
        );
        match self.times([&original, module]) {
            Ok(times) => tracing::info!(
                "milliseconds per text on one thread of this machine: {}",
                times.join("; ")
            ),
            Err(error) => tracing::warn!("the time of a pass could not be measured: {error}"),
        }
        Ok(savings)
    }

    /// The time of a text of each length with the original and the quantized module.
    fn times(&self, modules: [&Module; 2]) -> Result<Vec<String>, TorchError> {
        let _one = OneThread::begin();
        let most = i64::from(self.limit.tokens);
        let first = LENGTHS[0].min(most);
        let others = LENGTHS.into_iter().skip(1).filter(|tokens| *tokens <= most);
        // The first two passes optimize a graph. A pair of texts has no token at the shortest lengths.
        let short = self.example(first)?;
        for module in modules.iter().chain(&modules) {
            drop(module.forward(&short)?);
        }
        let describe = |tokens: i64| {
            let inputs = self.example(tokens)?;
            let [original, quantized] =
                fastest_passes(modules, &inputs)?.map(|time| time.as_secs_f64() * 1000.);
            let share = 100. * quantized / original;
            Ok(format!("{tokens} tokens {quantized:.2} instead of {original:.2} ({share:.0} %)"))
        };
        iter::once(first).chain(others).map(describe).collect()
    }
}

/// The time of the fastest pass of each module. The modules alternate, so that other work on the machine affects both.
fn fastest_passes(modules: [&Module; 2], inputs: &[Tensor]) -> Result<[Duration; 2], TorchError> {
    let mut fastest = [Duration::MAX; 2];
    let began = Instant::now();
    for pass in 0..PASSES {
        if pass > 0 && began.elapsed() > MOST_TIME {
            break;
        }
        for (module, fastest) in modules.iter().zip(&mut fastest) {
            let start = Instant::now();
            drop(module.forward(inputs)?);
            *fastest = (*fastest).min(start.elapsed());
        }
    }
    Ok(fastest)
}
