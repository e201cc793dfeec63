//! A model that runs in this process as Elasticsearch would run it: the graph that would be uploaded, with the server's tokens.

use std::sync::OnceLock;

use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::resolve::ResolvedSource;
use super::token_comparison::{server, settings, tokenization};
use crate::bundle::Bundle;
use crate::conversion::{Conversion, ConversionError, Options, Saved};
use crate::error::Error;
use crate::inference_results::{InferenceError, Input, Output, Request};
use crate::observer::Progress;
use crate::prebuilt::Inspected;
use crate::server_tokenization::{Kind as TokenizerKind, Row, TokenizationError, Tokenizer};
use crate::torchscript::{Module, TorchError, load_in_background, server_inputs_of_width};
use crate::vocabulary::Vocabulary;

/// Tokens in one pass of the graph.
const BATCH_TOKENS: usize = 2048;

/// Rows in one pass of the graph.
const BATCH_ROWS: usize = 64;

/// Number of rows from which the graph is optimized. Optimizing takes the time of some passes.
const OPTIMIZED_FROM: usize = 32;

/// Difference of a row's outputs, alone and in a batch, that counts as rounding; relative to the largest number, or to 1.
const ROUNDING: f64 = 1e-5;

/// A model in this process.
#[derive(Debug)]
pub struct LocalModel {
    module: Module,
    tokenizer: Tokenizer,
    configuration: Map<String, Value>,
    stacks_answers: bool,
    /// Whether rows can share a pass of the graph, once it is known.
    batches: OnceLock<bool>,
}

/// One row of a text, padded to the longest row of that text.
struct Job<'a> {
    text: usize,
    row: usize,
    width: usize,
    ids: &'a [u32],
}

/// The output of the graph for one row: the sizes of its axes and its numbers.
type Piece = (Vec<usize>, Vec<f64>);

impl LocalModel {
    /// Downloads and converts a model.
    ///
    /// # Errors
    /// When the model cannot be downloaded, read or converted.
    pub async fn of_source(
        source: &ResolvedSource,
        options: Options,
        progress: &Progress,
    ) -> Result<Self, Error> {
        load_in_background().await;
        let files = source.files(progress).await?;
        let options = Options { origin: source.origin(), ..options };
        let progress = progress.clone();
        let conversion = tokio::task::spawn_blocking(move || {
            let conversion = Conversion::read(&files, options, &progress)?;
            conversion.log_notes_beside_results();
            Self::of_conversion(&conversion)
        });
        match conversion.await {
            Ok(model) => Ok(model?),
            // Nobody cancels the task, so it can only have panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Traces a model that is read already.
    ///
    /// # Errors
    /// When the model cannot be traced, or Elasticsearch could not tokenize with its vocabulary.
    pub fn of_conversion(conversion: &Conversion) -> Result<Self, ConversionError> {
        let module = conversion.trace()?.module;
        let saved = Saved { per_deployment_memory_bytes: 0, quantization: None };
        let configuration = conversion.configuration("", &saved, 0);
        Self::new(module, configuration, conversion.tokenizer().vocabulary.clone())
    }

    /// The model of a bundle. Its definition is inspected before it is loaded.
    ///
    /// # Errors
    /// When the definition cannot be loaded, or Elasticsearch could not tokenize with the vocabulary.
    pub fn of_bundle(bundle: Bundle) -> Result<Self, Error> {
        let module = Inspected::of_bundle(&bundle)?.into_module();
        let vocabulary = bundle.vocabulary.unwrap_or_default();
        Ok(Self::new(module, bundle.configuration, vocabulary)?)
    }

    /// A graph with the configuration and the vocabulary of its model.
    ///
    /// # Errors
    /// When Elasticsearch could not tokenize with the vocabulary.
    pub fn new(
        module: Module,
        configuration: Map<String, Value>,
        vocabulary: Vocabulary,
    ) -> Result<Self, ConversionError> {
        // The server's default.
        let default = serde_json::json!({"bert": {}});
        let settings = settings(tokenization(&configuration).unwrap_or(&default))?;
        let tokenizer = server(settings, vocabulary)?;
        // A quantized layer derives the scale of its input from all rows of a pass.
        let is_quantized = module.operations()?.contains_key("quantized::linear_dynamic");
        let batches = if is_quantized { OnceLock::from(false) } else { OnceLock::new() };
        let tasks = configuration.get("inference_config").and_then(Value::as_object);
        let stacks_answers = tasks.is_some_and(|tasks| tasks.contains_key("question_answering"));
        Ok(Self { module, tokenizer, configuration, stacks_answers, batches })
    }

    /// The body of the request that creates the model in Elasticsearch.
    #[must_use]
    pub fn configuration(&self) -> &Map<String, Value> {
        &self.configuration
    }

    /// The server's tokenizer of the model.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A request with settings that replace those of the configuration. They have the names of the API.
    ///
    /// # Errors
    /// [`InferenceError::Settings`] if a setting is missing or not valid; [`InferenceError::Text`] if the tokens of the model cannot be
    /// computed here.
    pub fn request(&self, overrides: &Map<String, Value>) -> Result<Request, InferenceError> {
        if self.tokenizer.settings().kind == TokenizerKind::BertJa {
            return Err(TokenizationError::NoJapaneseAnalyser.into());
        }
        let config = self.configuration.get("inference_config").unwrap_or(&Value::Null);
        Request::read(config, self.tokenizer.settings(), overrides)
    }

    /// The result objects that Elasticsearch would return for some texts, in order.
    ///
    /// # Errors
    /// When libtorch fails, or the model returns NaN. A text that Elasticsearch would reject has an error of its own in the list.
    pub fn infer(
        &self,
        request: &Request,
        inputs: &[Input<'_>],
    ) -> Result<Vec<Result<Value, InferenceError>>, ConversionError> {
        let rows: Vec<_> =
            inputs.iter().map(|input| request.rows(&self.tokenizer, input)).collect();
        let tokenized: Vec<&[Row]> = rows.iter().filter_map(|rows| rows.as_deref().ok()).collect();
        let outputs = self.outputs(&tokenized)?;
        let is_nan = |output: &Output| output.values.iter().any(|value| value.is_nan());
        if let Some((rows, _)) = tokenized.iter().zip(&outputs).find(|(_, output)| is_nan(output)) {
            let tokens = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
            let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
            return Err(ConversionError::NotANumber { tokens });
        }
        let mut outputs = outputs.into_iter();
        let results = inputs.iter().zip(&rows).map(|(input, rows)| {
            let rows = rows.as_ref().map_err(Clone::clone)?;
            let output =
                outputs.next().ok_or_else(|| InferenceError::Output("it is missing".into()));
            request.result(&self.tokenizer, input, rows, &output?)
        });
        Ok(results.collect())
    }

    /// The output of the graph for the rows of each text, as the server reads it.
    ///
    /// Rows of the same length share a pass, if the graph returns the same numbers for each of them as for the row alone.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn outputs(&self, texts: &[&[Row]]) -> Result<Vec<Output>, TorchError> {
        let mut jobs = Vec::new();
        let mut pieces: Vec<Vec<Option<Piece>>> = Vec::new();
        for (text, rows) in texts.iter().enumerate() {
            let width = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
            pieces.push(rows.iter().map(|_| None).collect());
            jobs.extend(rows.iter().enumerate().map(|(row, it)| Job {
                text,
                row,
                width,
                ids: &it.ids,
            }));
        }
        jobs.sort_by_key(|job| job.width);
        let optimize = jobs.len() >= OPTIMIZED_FROM;
        for equal in jobs.chunk_by(|a, b| a.width == b.width) {
            let width = equal.first().map_or(1, |job| job.width).max(1);
            let most = (BATCH_TOKENS / width).clamp(1, BATCH_ROWS);
            for batch in equal.chunks(most) {
                for (job, piece) in batch.iter().zip(self.pieces(batch, optimize)?) {
                    if let Some(place) = pieces.get_mut(job.text).and_then(|it| it.get_mut(job.row))
                    {
                        *place = Some(piece);
                    }
                }
            }
        }
        pieces.into_iter().map(joined).collect()
    }

    /// The outputs of rows of one length.
    fn pieces(&self, batch: &[Job<'_>], optimize: bool) -> Result<Vec<Piece>, TorchError> {
        let alone = |job: &Job<'_>| piece(&self.forward(std::slice::from_ref(job), optimize)?);
        let known = self.batches.get().copied();
        let ([first, _, ..], None | Some(true)) = (batch, known) else {
            return batch.iter().map(alone).collect();
        };
        let together =
            self.forward(batch, optimize).and_then(|output| self.split(&output, batch.len()));
        if known == Some(true) {
            return together;
        }
        // Graphs of other tools may accept one row only.
        let first = alone(first)?;
        let agrees = matches!(&together, Ok(pieces) if pieces.first().is_some_and(|it| is_equal(it, &first)));
        if *self.batches.get_or_init(|| agrees) {
            return together;
        }
        batch.iter().map(alone).collect()
    }

    /// One pass of the graph over rows of one length, with the inputs of the server (contract, 3.4).
    fn forward(&self, batch: &[Job<'_>], optimize: bool) -> Result<Tensor, TorchError> {
        let width = batch.first().map_or(0, |job| job.width);
        let padding = i64::from(self.tokenizer.pad_id());
        let ids = |job: &Job<'_>| job.ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
        let rows: Vec<_> = batch.iter().map(ids).collect();
        let count = self.tokenizer.inputs().count();
        let tensors = server_inputs_of_width(&rows, width, padding, count)?;
        if optimize { self.module.forward(&tensors) } else { self.module.forward_plainly(&tensors) }
    }

    /// The output of each row of a batch.
    fn split(&self, output: &Tensor, rows: usize) -> Result<Vec<Piece>, TorchError> {
        let size = output.size();
        let count = i64::try_from(rows).unwrap_or(i64::MAX);
        let axis = if self.stacks_answers { 1 } else { 0 };
        if size.len() < 2 || size.get(axis) != Some(&count) {
            return Err(TorchError::Native(format!("an output of {size:?} for {rows} rows")));
        }
        let axis = i64::from(self.stacks_answers);
        (0..count).map(|row| piece(&output.f_narrow(axis, row, 1)?)).collect()
    }
}

/// The sizes and numbers of a tensor.
fn piece(output: &Tensor) -> Result<Piece, TorchError> {
    let sizes = output.size().into_iter().map(|size| usize::try_from(size).unwrap_or(0)).collect();
    let values = output.f_to_kind(Kind::Double)?.f_contiguous()?.f_view([-1])?;
    Ok((sizes, Vec::<f64>::try_from(&values)?))
}

/// Whether two outputs differ by no more than rounding.
fn is_equal((sizes, values): &Piece, (other_sizes, others): &Piece) -> bool {
    let scale = others.iter().fold(1f64, |largest, value| largest.max(value.abs()));
    let close =
        |(a, b): (&f64, &f64)| (a - b).abs() <= ROUNDING * scale || (a.is_nan() && b.is_nan());
    sizes == other_sizes && values.iter().zip(others).all(close)
}

/// Concatenates the outputs of the rows of a text on the first axis, as the server does.
fn joined(pieces: Vec<Option<Piece>>) -> Result<Output, TorchError> {
    let missing = || TorchError::Native("the graph returned no output for a row".into());
    let mut joined: Option<Piece> = None;
    for piece in pieces {
        let (mut sizes, values) = piece.ok_or_else(missing)?;
        if sizes.is_empty() {
            // The server reads a number as a row of one number.
            sizes = vec![1, 1];
        }
        match &mut joined {
            None => joined = Some((sizes, values)),
            Some((all, numbers)) if all.get(1..) == sizes.get(1..) => {
                if let (Some(first), Some(more)) = (all.first_mut(), sizes.first()) {
                    *first += more;
                }
                numbers.extend(values);
            }
            Some((all, _)) => {
                let reason = format!("outputs of {all:?} and {sizes:?} for one text");
                return Err(TorchError::Native(reason));
            }
        }
    }
    let (sizes, values) = joined.ok_or_else(missing)?;
    let sizes = match sizes[..] {
        [n] => [1, 1, n],
        [m, n] => [1, m, n],
        [l, m, n] => [l, m, n],
        _ => {
            return Err(TorchError::Native(format!(
                "an output of {sizes:?}, of which Elasticsearch reads 1 to 3 axes"
            )));
        }
    };
    Ok(Output { sizes, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_rows_are_joined_on_the_first_axis() {
        let join = |pieces: Vec<Piece>| joined(pieces.into_iter().map(Some).collect());
        let output = join(vec![(vec![1, 2], vec![1., 2.]), (vec![1, 2], vec![3., 4.])]).unwrap();
        assert_eq!(output, Output { sizes: [1, 2, 2], values: vec![1., 2., 3., 4.] });
        let output =
            join(vec![(vec![2, 1, 2], vec![0.; 4]), (vec![2, 1, 2], vec![1.; 4])]).unwrap();
        assert_eq!(output.sizes, [4, 1, 2]);
        assert_eq!(join(vec![(vec![], vec![1.])]).unwrap().sizes, [1, 1, 1]);
        assert!(join(vec![(vec![1, 2], vec![0.; 2]), (vec![1, 3], vec![0.; 3])]).is_err());
        assert!(join(vec![(vec![1, 1, 1, 1], vec![0.])]).is_err());
        assert!(join(Vec::new()).is_err());
    }

    #[test]
    fn outputs_are_equal_up_to_rounding() {
        let piece = |value: f64| (vec![2], vec![value, 100.]);
        assert!(is_equal(&piece(1.), &piece(1.0001)));
        assert!(!is_equal(&piece(1.), &piece(1.01)));
        assert!(!is_equal(&piece(1.), &(vec![1, 2], vec![1., 100.])));
    }
}
