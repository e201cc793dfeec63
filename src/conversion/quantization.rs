//! Quantization of a traced model by a scheme.

use tch::Tensor;

use super::{Conversion, ConversionError, Quantize, QuantizeScheme, ServerRows};
use crate::tasks::Task;
use crate::torchscript::{Module, OneThread, Quantized, Replacement, TorchError, linear_layer};

/// Number of inputs of a layer that are multiplied in float32; at most one sixteenth of the inputs.
const FLOATING: i64 = 16;

/// A layer with fewer outputs than this share of its inputs, such as a classifier, stays in float32: its size is negligible.
const SMALL: i64 = 8;

/// Vocabularies with more tokens are a large part of their models.
const LARGE: u64 = 100_000;

/// Schemes that are suggested for a model with a large vocabulary, with the approximate size of its weights: `bytes` in float32, of
/// which `[rows, width]` numbers are the word embedding table.
pub(super) fn smaller_tables(
    task: Task,
    bytes: u64,
    [rows, width]: [u64; 2],
) -> Vec<(QuantizeScheme, u64)> {
    // These tasks can also multiply with the table.
    if rows <= LARGE || matches!(task, Task::FillMask | Task::TextExpansion) {
        return Vec::new();
    }
    let table = bytes.min(rows.saturating_mul(width).saturating_mul(4));
    [QuantizeScheme::Embeddings, QuantizeScheme::HalfEmbeddings]
        .map(|scheme| (scheme, scheme.estimated_bytes(bytes, table, width, false)))
        .to_vec()
}

impl Conversion {
    /// Quantizes a traced module.
    ///
    /// # Errors
    /// If there is nothing to quantize, a weight is not finite, or libtorch fails.
    pub(super) fn quantize(
        &self,
        module: Module,
        quantize: &Quantize,
    ) -> Result<(Module, Quantized), ConversionError> {
        let scheme = quantize.scheme;
        let (module, quantized) = match scheme {
            QuantizeScheme::Eland => module.quantize()?,
            _ => self.replace_layers(module, quantize)?,
        };
        if quantized.layers + quantized.tables == 0 {
            return Err(ConversionError::NothingToQuantize { scheme });
        }
        Ok((module, quantized))
    }

    /// Traces the model and quantizes it by a scheme with its default options.
    ///
    /// # Errors
    /// Same as [`trace`](Self::trace).
    pub fn trace_quantized(&self, scheme: QuantizeScheme) -> Result<Module, ConversionError> {
        let quantize = Quantize { scheme, ..Quantize::default() };
        Ok(self.quantize(self.trace_float()?, &quantize)?.0)
    }

    /// Logs how much memory a smaller table would save, if a model with a large vocabulary is not quantized.
    pub(super) fn log_smaller_tables(&self) {
        if self.options.quantize.is_some() {
            return;
        }
        let schemes = smaller_tables(self.task, self.parameter_bytes, self.word_table);
        for (scheme, bytes) in schemes {
            // The server reserves twice the size of a definition.
            let saved = 2 * self.parameter_bytes.saturating_sub(bytes) / 1_000_000;
            tracing::info!(
                "the vocabulary of {} tokens is a large part of the model; --quantize={scheme} would save about {saved} MB on a node",
                self.word_table[0]
            );
        }
    }

    fn replace_layers(
        &self,
        mut module: Module,
        quantize: &Quantize,
    ) -> Result<(Module, Quantized), ConversionError> {
        let mut layers = Vec::new();
        module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
            layers.push((weight.shallow_clone(), is_linear));
            Ok(None)
        })?;
        let words = self.word_tables(&layers);
        let is_word_table = |weight: &Tensor| words.iter().any(|it| is_same(it, weight));
        let has_linear = layers.iter().any(|(_, is_linear)| *is_linear);
        let observed = match quantize.scheme {
            QuantizeScheme::All if has_linear => Some(self.observe(quantize)?),
            _ => None,
        };
        // A float32 copy of the table for a decoder would make the model larger than before.
        let is_tied = layers.iter().any(|(weight, is_linear)| *is_linear && is_word_table(weight));
        drop(layers);
        let mut done = Quantized { layers: 0, kept: 0, tables: 0 };
        let mut start = 0;
        let others = module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
            if !is_linear {
                if !is_word_table(weight) {
                    return Ok(None);
                }
                let table = match quantize.scheme {
                    QuantizeScheme::HalfEmbeddings if is_tied => return Ok(None),
                    QuantizeScheme::HalfEmbeddings => Replacement::half_table(weight)?,
                    _ => Replacement::int8_table(weight)?,
                };
                done.tables += 1;
                return Ok(Some(table));
            }
            let (outputs, inputs) = weight.size2()?;
            let largest = match &observed {
                Some(observed) => Some(observed.f_narrow(0, start, inputs)?),
                None => None,
            };
            start += inputs;
            let is_chosen = match quantize.scheme {
                QuantizeScheme::Embeddings => is_word_table(weight),
                QuantizeScheme::All => outputs * SMALL >= inputs,
                _ => false,
            };
            if !is_chosen {
                done.kept += 1;
                return Ok(None);
            }
            let floating = FLOATING.min(inputs / FLOATING);
            let layer = linear_layer(weight, largest.as_ref(), floating)?;
            done.layers += 1;
            Ok(Some(layer))
        })?;
        done.kept += others;
        Ok((module, done))
    }

    /// The lookup tables with a row for each token of the vocabulary, or else the largest table.
    fn word_tables(&self, layers: &[(Tensor, bool)]) -> Vec<Tensor> {
        let tokens = self.tokenizer.vocabulary.vocabulary.len();
        let tables = || layers.iter().filter(|(_, is_linear)| !is_linear).map(|(table, _)| table);
        let rows = |table: &Tensor| {
            table.size().first().map_or(0, |rows| usize::try_from(*rows).unwrap_or(0))
        };
        let words: Vec<Tensor> =
            tables().filter(|table| rows(table) >= tokens).map(Tensor::shallow_clone).collect();
        if words.is_empty() {
            let largest = tables().max_by_key(|table| table.numel());
            return largest.map(Tensor::shallow_clone).into_iter().collect();
        }
        words
    }

    /// Runs the float32 model on the calibration texts and returns the largest absolute value of each input of each linear layer, in
    /// the order of the layers, as one tensor.
    fn observe(&self, quantize: &Quantize) -> Result<Tensor, ConversionError> {
        let module = self.trace_float()?.observe()?;
        // One thread, because the results of several depend on their number.
        let _one = OneThread::begin();
        let rows = ServerRows::new(&self.tokenizer, self.limit.tokens)?;
        let texts = self.with_prefix(quantize.calibration_texts());
        let mut largest: Option<Tensor> = None;
        for row in rows.of_task(self.task, &texts) {
            let found = module.forward_plainly(&self.inputs(&[&row.ids])?)?;
            largest = Some(match largest {
                Some(largest) => largest.f_maximum(&found).map_err(TorchError::from)?,
                None => found,
            });
        }
        let largest = largest.ok_or(ConversionError::NoCalibrationText)?;
        let is_finite =
            largest.f_isfinite().and_then(|all| all.f_all()).map_err(TorchError::from)?;
        if !bool::try_from(&is_finite).map_err(TorchError::from)? {
            return Err(
                TorchError::Native("an input of a linear layer is not finite".into()).into()
            );
        }
        Ok(largest)
    }

    /// Texts with the prefix that Elasticsearch prepends at ingest time.
    pub(super) fn with_prefix(&self, mut texts: Vec<String>) -> Vec<String> {
        if let Some(prefix) = &self.options.ingest_prefix {
            texts.iter_mut().for_each(|text| text.insert_str(0, prefix));
        }
        texts
    }
}

/// Whether two tensors start at the same address.
fn is_same(one: &Tensor, other: &Tensor) -> bool {
    one.data_ptr() == other.data_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_for_the_table_are_suggested_for_large_vocabularies() {
        // multilingual-e5-small: 118 million weights.
        let words = [250_037, 384];
        let found = smaller_tables(Task::TextEmbedding, 470_616_000, words);
        let schemes: Vec<_> = found.iter().map(|(scheme, _)| *scheme).collect();
        assert_eq!(schemes, [QuantizeScheme::Embeddings, QuantizeScheme::HalfEmbeddings]);
        assert!((182_000_000..184_000_000).contains(&found[0].1), "{found:?}");
        assert!((278_000_000..279_000_000).contains(&found[1].1), "{found:?}");
        assert_eq!(smaller_tables(Task::FillMask, 470_616_000, words), []);
        assert_eq!(smaller_tables(Task::TextEmbedding, 90_000_000, [30_522, 384]), []);
    }

    #[test]
    fn size_estimates_of_minilm_are_close_to_the_archives() {
        let of = |scheme: QuantizeScheme| {
            scheme.estimated_bytes(90_852_864, 30_522 * 384 * 4, 384, false) / 1_000_000
        };
        assert_eq!(QuantizeScheme::ALL.map(of), [23, 55, 67, 57]);
    }
}
