//! Quantization of a traced model by a scheme.

use tch::Tensor;

use super::{Conversion, ConversionError, Quantize, QuantizeScheme};
use crate::tasks::Task;
use crate::torchscript::{Module, Quantized, Replacement, TorchError, linear_layer};

/// Number of inputs of a layer that are multiplied in float32. More inputs make a layer slower, and hardly more exact.
const FEW: i64 = 4;

/// Number of such inputs of layers with large errors.
const MANY: i64 = 16;

/// Layers have at least this number of inputs for each input that is multiplied in float32.
const INPUTS_PER_FLOAT: i64 = 16;

/// A layer with fewer outputs than this share of its inputs, such as a classifier, stays in float32: its size is negligible.
const SMALL: i64 = 8;

/// Vocabularies with more tokens are a large part of their models.
pub(super) const LARGE: u64 = 100_000;

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

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinearForm {
    /// As in the model.
    Float,
    /// 8 bits.
    Int8,
    /// 8 bits; the few largest inputs are multiplied in float32.
    FewFloats,
    /// 8 bits; many of the largest inputs are multiplied in float32.
    ManyFloats,
}

/// The layers of a traced graph with constant weights, in the order of their first use.
pub(super) struct Layers {
    layers: Vec<(Tensor, bool)>,
    words: Vec<Tensor>,
}

impl Layers {
    /// The layers of a module, whose vocabulary has `tokens` tokens.
    pub(super) fn of(module: &mut Module, tokens: usize) -> Result<Self, TorchError> {
        let mut layers = Vec::new();
        module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
            layers.push((weight.shallow_clone(), is_linear));
            Ok(None)
        })?;
        let words = word_tables(&layers, tokens);
        Ok(Self { layers, words })
    }

    /// Weights of the linear layers.
    pub(super) fn linear(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().filter(|(_, is_linear)| *is_linear).map(|(weight, _)| weight)
    }

    /// Forms of the linear layers in a scheme.
    pub(super) fn forms(&self, scheme: QuantizeScheme) -> Result<Vec<LinearForm>, TorchError> {
        let form = |weight: &Tensor| {
            let (outputs, inputs) = weight.size2()?;
            Ok(match scheme {
                // The decoder would otherwise need a float32 copy of the table, which makes the model larger than before.
                QuantizeScheme::Embeddings if self.is_word_table(weight) => LinearForm::Int8,
                QuantizeScheme::All | QuantizeScheme::Auto if outputs * SMALL >= inputs => {
                    LinearForm::FewFloats
                }
                _ => LinearForm::Float,
            })
        };
        self.linear().map(form).collect()
    }

    fn is_word_table(&self, weight: &Tensor) -> bool {
        self.words.iter().any(|it| it.data_ptr() == weight.data_ptr())
    }

    /// Replaces the word embedding table and, by their forms, the linear layers of a module that was traced like the one of these
    /// layers. `observed` is the result of [`Conversion::observe`].
    pub(super) fn replace(
        &self,
        module: &mut Module,
        table: Option<TableForm>,
        forms: &[LinearForm],
        observed: Option<&Tensor>,
    ) -> Result<Quantized, TorchError> {
        let is_tied = self.linear().any(|weight| self.is_word_table(weight));
        let mut done = Quantized::default();
        let (mut start, mut forms) = (0, forms.iter());
        let others = module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
            if !is_linear {
                let replacement = match table {
                    Some(TableForm::Half) if is_tied => None,
                    Some(table) if self.is_word_table(weight) => Some(table.of(weight)?),
                    _ => None,
                };
                done.tables += usize::from(replacement.is_some());
                return Ok(replacement);
            }
            let (_, inputs) = weight.size2()?;
            let largest = match observed {
                Some(observed) => Some(observed.f_narrow(0, start, inputs)?),
                None => None,
            };
            start += inputs;
            let floating = match forms.next() {
                Some(LinearForm::Int8) => 0,
                Some(LinearForm::FewFloats) => FEW.min(inputs / INPUTS_PER_FLOAT),
                Some(LinearForm::ManyFloats) => MANY.min(inputs / INPUTS_PER_FLOAT),
                Some(LinearForm::Float) | None => {
                    done.kept += 1;
                    return Ok(None);
                }
            };
            done.layers += 1;
            linear_layer(weight, largest.as_ref(), floating).map(Some)
        })?;
        done.kept += others;
        Ok(done)
    }
}

/// How the word embedding table is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableForm {
    Half,
    Int8,
}

impl TableForm {
    fn of(self, weight: &Tensor) -> Result<Replacement, TorchError> {
        match self {
            Self::Half => Replacement::half_table(weight),
            Self::Int8 => Replacement::int8_table(weight),
        }
    }
}

/// The lookup tables with a row for each of the `tokens`, or else the largest table.
fn word_tables(layers: &[(Tensor, bool)], tokens: usize) -> Vec<Tensor> {
    let tables = || layers.iter().filter(|(_, is_linear)| !is_linear).map(|(table, _)| table);
    let rows =
        |table: &Tensor| table.size().first().map_or(0, |rows| usize::try_from(*rows).unwrap_or(0));
    let words: Vec<Tensor> =
        tables().filter(|table| rows(table) >= tokens).map(Tensor::shallow_clone).collect();
    if words.is_empty() {
        let largest = tables().max_by_key(|table| table.numel());
        return largest.map(Tensor::shallow_clone).into_iter().collect();
    }
    words
}

impl Conversion {
    /// Quantizes a traced module.
    ///
    /// # Errors
    /// If there is nothing to quantize, a weight is not finite, the target of [`QuantizeScheme::Auto`] cannot be reached, or libtorch
    /// fails.
    pub(super) fn quantize(
        &self,
        mut module: Module,
        quantize: &Quantize,
    ) -> Result<(Module, Quantized), ConversionError> {
        let scheme = quantize.scheme;
        let (module, quantized) = if scheme == QuantizeScheme::Eland {
            module.quantize()?
        } else {
            let layers = self.layers(&mut module)?;
            let mut forms = layers.forms(scheme)?;
            let is_calibrated = scheme.is_calibrated() && !forms.is_empty();
            let observed = is_calibrated.then(|| self.observe(quantize)).transpose()?;
            if let (QuantizeScheme::Auto, Some(observed)) = (scheme, &observed) {
                forms = self.search(&layers, forms, observed, quantize)?;
            }
            let table = match scheme {
                QuantizeScheme::HalfEmbeddings => TableForm::Half,
                _ => TableForm::Int8,
            };
            let done = layers.replace(&mut module, Some(table), &forms, observed.as_ref())?;
            (module, done)
        };
        if quantized.layers + quantized.tables == 0 {
            return Err(ConversionError::NothingToQuantize { scheme });
        }
        Ok((module, quantized))
    }

    /// The layers of a module that was traced from this model.
    pub(super) fn layers(&self, module: &mut Module) -> Result<Layers, TorchError> {
        Layers::of(module, self.tokenizer.vocabulary.vocabulary.len())
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

    /// Runs the float32 model on the calibration texts and returns the largest absolute value of each input of each linear layer, in
    /// the order of the layers, as one tensor.
    fn observe(&self, quantize: &Quantize) -> Result<Tensor, ConversionError> {
        let observing = self.trace_float()?.observe()?;
        let largest = self.largest_inputs(&observing, quantize.calibration_texts())?;
        let is_finite =
            largest.f_isfinite().and_then(|all| all.f_all()).map_err(TorchError::from)?;
        if !bool::try_from(&is_finite).map_err(TorchError::from)? {
            let damaged = "an input of a linear layer is infinite or not a number, so the weights are damaged";
            return Err(TorchError::NotFinite(damaged).into());
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
        assert_eq!(QuantizeScheme::ALL.map(of), [23, 23, 55, 67, 57]);
    }
}
