//! Outputs of the original model, with which those of quantized models are compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tch::Tensor;

use super::verify::accepted_difference;
use super::{Conversion, ConversionError, Quantize, ServerRows};
use crate::tasks::agreement::{Measure, Pair, Row, Sample, some_numbers, vectors};
use crate::tasks::{Task, neighbours::LEAST_TEXTS};
use crate::torchscript::{Module, TorchError, in_parallel, server_inputs};

/// Maximum number of tokens of a group of rows. Reading the weights takes most of the time of a pass over fewer tokens.
const GROUP_TOKENS: usize = 256;

/// Rows of equal length, which one pass computes without padding, each with its place among all rows.
pub(super) struct RowGroup(Vec<(usize, Row)>);

impl RowGroup {
    /// All rows in groups of at most `tokens` tokens or of one row, with the longest rows first.
    fn all(rows: Vec<Row>, tokens: usize) -> Vec<Self> {
        let mut by_length = BTreeMap::<usize, Vec<(usize, Row)>>::new();
        for (place, row) in rows.into_iter().enumerate() {
            by_length.entry(row.ids.len()).or_default().push((place, row));
        }
        let mut groups = Vec::new();
        for (length, rows) in by_length.into_iter().rev() {
            let count = (tokens / length.max(1)).max(1);
            groups.extend(rows.chunks(count).map(|rows| Self(rows.to_vec())));
        }
        groups
    }

    fn ids(&self) -> Vec<&[i64]> {
        self.0.iter().map(|(_, row)| row.ids.as_slice()).collect()
    }
}

/// How rows of ids become the inputs of a graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct InputForm {
    /// Id of the padding token.
    pub(super) padding: i64,
    /// Number of inputs of the graph.
    pub(super) count: usize,
}

impl InputForm {
    /// Inputs of rows of token ids, as Elasticsearch passes them to the graph.
    pub(super) fn inputs(self, rows: &[impl AsRef<[i64]>]) -> Result<Vec<Tensor>, TorchError> {
        server_inputs(rows, self.padding, self.count)
    }
}

/// Numbers of the rows of a comparison, in the order of the texts.
#[derive(Default)]
pub(super) struct Compared {
    /// Numbers for the figures of the task.
    pub(super) pairs: Vec<Pair>,
    /// Both embeddings of each text, if the task is text embedding.
    pub(super) embeddings: Vec<[Vec<f64>; 2]>,
    /// Some numbers of the outputs of the original and of the other model, if the task is another one.
    pub(super) numbers: Vec<[f64; 2]>,
}

/// Numbers of an output that a plot shows.
const NUMBERS: usize = 16;

/// The texts of a comparison with the original model, which computes its output when it is first needed.
pub(super) struct ReferenceOutputs {
    original: Module,
    groups: Vec<(RowGroup, Mutex<Option<Tensor>>)>,
    form: InputForm,
    task: Task,
    measure: &'static Measure,
}

impl ReferenceOutputs {
    /// Number of texts.
    pub(super) fn texts(&self) -> usize {
        self.groups.iter().map(|(group, _)| group.0.len()).sum()
    }

    /// Runs a module on the texts, each alone as in Elasticsearch, and compares its outputs with those of the original model.
    ///
    /// # Errors
    /// Errors of libtorch, or an output without the shape of the task.
    pub(super) fn compare(&self, module: &Module) -> Result<Compared, TorchError> {
        let groups = in_parallel(&self.groups, |(group, output)| {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            let reference = match output.take() {
                Some(reference) => reference,
                None => self.original.forward_plainly(&self.form.inputs(&group.ids())?)?,
            };
            let rows = group.0.iter().zip(0..).map(|((place, row), at)| {
                let reference = reference.f_narrow(self.row_axis(), at, 1)?;
                Ok((*place, self.compare_row(module, row.clone(), reference)?))
            });
            let rows = rows.collect::<Result<Vec<_>, TorchError>>();
            if !has_large_outputs(self.task) {
                *output = Some(reference);
            }
            rows
        })?;
        let mut rows: Vec<_> = groups.into_iter().flatten().collect();
        rows.sort_by_key(|(place, _)| *place);
        let mut all = Compared::default();
        for (_, row) in rows {
            all.pairs.extend(row.pairs);
            all.embeddings.extend(row.embeddings);
            all.numbers.extend(row.numbers);
        }
        Ok(all)
    }

    fn compare_row(
        &self,
        module: &Module,
        row: Row,
        reference: Tensor,
    ) -> Result<Compared, TorchError> {
        let output = module.forward_plainly(&self.form.inputs(&[&row.ids])?)?;
        if !bool::try_from(&output.f_isfinite()?.f_all()?)? {
            return Ok(Compared { pairs: vec![[f64::NAN; 2]], ..Compared::default() });
        }
        let sample = Sample { row, reference, output };
        let (embeddings, numbers) = match self.task {
            Task::TextEmbedding => (Vec::from_iter(vectors(&sample)?), Vec::new()),
            _ => (Vec::new(), some_numbers(&sample, NUMBERS)?),
        };
        Ok(Compared { pairs: self.measure.compare(&sample)?, embeddings, numbers })
    }

    /// Axis of the rows in an output. Start and end logits are `[2, rows, tokens]`.
    fn row_axis(&self) -> i64 {
        i64::from(self.task == Task::QuestionAnswering)
    }
}

/// Whether a model computes a number for each token of the vocabulary, so that outputs of many texts are too large to keep.
fn has_large_outputs(task: Task) -> bool {
    matches!(task, Task::FillMask | Task::TextExpansion)
}

impl Conversion {
    /// Texts in the form that the task reads.
    ///
    /// # Errors
    /// If Elasticsearch could not create its tokenizer.
    pub(super) fn task_rows(&self, texts: Vec<String>) -> Result<Vec<Row>, ConversionError> {
        let rows = ServerRows::new(&self.tokenizer, self.limit.tokens)?;
        Ok(rows.of_task(self.task, &self.with_prefix(texts)))
    }

    /// The rows of texts in groups.
    fn row_groups(&self, texts: Vec<String>) -> Result<Vec<RowGroup>, ConversionError> {
        let rows = self.task_rows(texts)?;
        Ok(RowGroup::all(rows, if has_large_outputs(self.task) { 1 } else { GROUP_TOKENS }))
    }

    /// The largest absolute value of each input of each linear layer of `observing`, a module made by [`Module::observe`].
    ///
    /// # Errors
    /// If there is no text, or libtorch fails.
    pub(super) fn largest_inputs(
        &self,
        observing: &Module,
        texts: Vec<String>,
    ) -> Result<Tensor, ConversionError> {
        let form = self.input_form();
        let groups = self.row_groups(texts)?;
        let found =
            in_parallel(&groups, |group| observing.forward_plainly(&form.inputs(&group.ids())?))?;
        let mut found = found.into_iter();
        let first = found.next().ok_or(ConversionError::NoCalibrationText)?;
        let largest = found.try_fold(first, |one, other| one.f_maximum(&other));
        Ok(largest.map_err(TorchError::from)?)
    }

    /// The texts on which a quantized model is compared.
    ///
    /// # Errors
    /// If the traced model computes other values than the model, Elasticsearch could not create its tokenizer, or libtorch fails.
    pub(super) fn reference_outputs(
        &self,
        quantize: &Quantize,
    ) -> Result<ReferenceOutputs, ConversionError> {
        let [rows, width] = self.word_table;
        let layers =
            self.parameter_bytes.saturating_sub(rows.saturating_mul(width).saturating_mul(4));
        let groups = self.row_groups(quantize.compared_texts(layers))?;
        let texts = groups.iter().map(|group| group.0.len()).sum();
        // The order of the similarities decides on embeddings.
        if self.task == Task::TextEmbedding && quantize.requires_agreement() && texts < LEAST_TEXTS
        {
            return Err(ConversionError::TooFewTexts { texts, least: LEAST_TEXTS });
        }
        let original = self.trace_float()?;
        // The graph of a quantized model is not compared with the model itself, so this comparison replaces it.
        if let Some((_, row)) = groups.iter().flat_map(|group| &group.0).next() {
            let inputs = self.inputs(&[&row.ids])?;
            let (found, expected) = (original.forward_plainly(&inputs)?, self.forward(&inputs)?);
            let tokens = i64::try_from(row.ids.len()).unwrap_or(i64::MAX);
            accepted_difference(&found, &expected, tokens)?;
        }
        Ok(ReferenceOutputs {
            original,
            groups: groups.into_iter().map(|group| (group, Mutex::new(None))).collect(),
            form: self.input_form(),
            task: self.task,
            measure: self.task.agreement(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_contain_every_row_once_with_rows_of_one_length() {
        let row = |length: usize| Row { ids: vec![1; length], text: 0..length };
        let groups = RowGroup::all([2, 5, 2, 9, 2, 0].map(row).to_vec(), 5);
        let places: Vec<Vec<usize>> =
            groups.iter().map(|group| group.0.iter().map(|(place, _)| *place).collect()).collect();
        assert_eq!(places, [vec![3], vec![1], vec![0, 2], vec![4], vec![5]]);
    }
}
