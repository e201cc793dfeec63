//! Both sides of a comparison, computed in this process.

use serde_json::{Map, Value};

use super::causes::Texts;
use super::comparison::{agreement, both_embeddings, difference, some_numbers};
use super::{Cause, DifferentAnswer, DifferentSetting, Verification};
use crate::config::SentenceTransformers;
use crate::conversion::{Conversion, ConversionError, Options};
use crate::error::Error;
use crate::inference_results::{InferenceError, Input, Request};
use crate::server_tokenization::{Row, Settings, Token, Tokenizer};
use crate::source::ModelFiles;
use crate::tasks::agreement::Pair;
use crate::tasks::neighbours;
use crate::tokenizer::ModelTokenizer;
use crate::workflow::local_model::LocalModel;
use crate::workflow::token_comparison::server;

/// Numbers of all answers that a plot shows.
const NUMBERS: usize = 2000;

/// The model as its authors run it, and the model as the cluster should run it.
pub(super) struct Sides<'a> {
    pub(super) conversion: &'a Conversion,
    pub(super) files: &'a ModelFiles,
    pub(super) options: Options,
    /// The float32 graph with the settings of the model.
    pub(super) own: LocalModel,
    /// The request with the settings of the model.
    own_request: Request,
    /// The model's own tokenizer, if it has a `tokenizer.json`.
    pub(super) model_tokenizer: Option<ModelTokenizer>,
    /// Configuration in the cluster.
    pub(super) served: Map<String, Value>,
    /// The server's tokenizer with the settings in the cluster.
    pub(super) served_tokenizer: Tokenizer,
    /// The request with the settings in the cluster.
    pub(super) served_request: Request,
}

/// The rows of one text on both sides.
pub(super) struct Rows {
    pub(super) own: Result<Vec<Row>, InferenceError>,
    pub(super) served: Result<Vec<Row>, InferenceError>,
}

/// Result of a model for one text, or the error that prevents it.
pub(super) type Answer = Result<Value, InferenceError>;

impl<'a> Sides<'a> {
    pub(super) fn new(
        conversion: &'a Conversion,
        files: &'a ModelFiles,
        options: Options,
        served: Map<String, Value>,
        served_settings: Settings,
        overrides: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let own = LocalModel::of_conversion(conversion)?;
        let own_request = own.request(overrides)?;
        let folder =
            SentenceTransformers::read(files, conversion.part()).map_err(ConversionError::from)?;
        let folder = folder.map_or(String::new(), |modules| modules.transformer);
        let folder = files.sub(&folder).map_err(ConversionError::from)?;
        // Rows are truncated as the server truncates them, not by the library.
        let model_tokenizer =
            ModelTokenizer::read(&folder, usize::MAX >> 1).map_err(ConversionError::from)?;
        let model_tokenizer = model_tokenizer.map(|it| it.for_rows_of(conversion.tokenizer()));
        let config = served.get("inference_config").unwrap_or(&Value::Null);
        let served_request = Request::read(config, &served_settings, overrides)?;
        let vocabulary = conversion.tokenizer().vocabulary.clone();
        let served_tokenizer =
            server(served_settings, vocabulary).map_err(ConversionError::from)?;
        Ok(Self {
            conversion,
            files,
            options,
            own,
            own_request,
            model_tokenizer,
            served,
            served_tokenizer,
            served_request,
        })
    }

    /// The rows of a text. Where the graph reads the ids of the model's own tokenizer from the rows of the server, the own rows are those
    /// of the server, because they have its words and places.
    fn rows(&self, input: &Input<'_>) -> Result<Rows, Error> {
        let served = self.served_request.rows(&self.served_tokenizer, input);
        let by_server = self.own_request.rows(self.own.tokenizer(), input);
        let Some(tokenizer) = &self.model_tokenizer else {
            return Ok(Rows { own: by_server, served });
        };
        let tokens = |text: &str| self.own_tokens(tokenizer, text);
        let own = self.own_request.rows_of(self.own.tokenizer(), input, &tokens);
        let is_same = by_server.is_ok() && self.model_ids(&own) == self.model_ids(&by_server);
        Ok(Rows { own: if is_same { by_server } else { own }, served })
    }

    /// The tokens of a text as the model's own tokenizer returns them, grouped into words as the server groups them.
    pub(super) fn own_tokens(
        &self,
        tokenizer: &ModelTokenizer,
        text: &str,
    ) -> Result<Vec<Token>, InferenceError> {
        let tokens = if self.own.tokenizer().has_words() {
            tokenizer.tokens(text)
        } else {
            tokenizer.tokens_as_words(text)
        };
        tokens.map_err(|error| InferenceError::Input(error.to_string()))
    }

    /// The ids that the graph passes to the model for each row.
    pub(super) fn model_ids(&self, rows: &Result<Vec<Row>, InferenceError>) -> Vec<Vec<u32>> {
        let appended = self.conversion.tokenizer().special.appended;
        let of_row = |row: &Row| match appended {
            Some(appended) => appended.model_ids(&row.ids),
            None => row.ids.clone(),
        };
        rows.iter().flatten().map(of_row).collect()
    }

    /// Answers of a graph to the rows of texts.
    pub(super) fn answers<'r>(
        &self,
        model: &LocalModel,
        request: &Request,
        tokenizer: &Tokenizer,
        inputs: &[Input<'_>],
        rows: impl Iterator<Item = &'r Result<Vec<Row>, InferenceError>>,
    ) -> Vec<Answer> {
        let answer = |input: &Input<'_>, rows: &[Row]| {
            let failed = |error: String| InferenceError::Output(error);
            let mut outputs =
                model.outputs(&[rows]).map_err(|error| failed(error.to_string()))?.into_iter();
            let output = outputs.next().ok_or_else(|| failed("it is missing".into()))?;
            request.result(tokenizer, input, rows, &output)
        };
        let rows = inputs.iter().zip(rows);
        rows.map(|(input, rows)| answer(input, rows.as_ref().map_err(Clone::clone)?)).collect()
    }

    pub(super) fn compare(
        &self,
        inputs: &[Input<'_>],
        cluster: &[Value],
        tolerance: f64,
    ) -> Result<Verification, Error> {
        let task = self.conversion.task();
        let rows: Vec<Rows> =
            inputs.iter().map(|input| self.rows(input)).collect::<Result<_, _>>()?;
        let expected = self.answers(
            &self.own,
            &self.own_request,
            self.own.tokenizer(),
            inputs,
            rows.iter().map(|it| &it.own),
        );
        let (mut pairs, mut shown): (Vec<Pair>, Vec<[f64; 2]>) = Default::default();
        let mut embeddings = Vec::new();
        let per_text = (NUMBERS / inputs.len().max(1)).max(1);
        let mut largest: f64 = 0.;
        let mut different = Vec::new();
        for (at, (expected, found)) in expected.iter().zip(cluster).enumerate() {
            let off = expected.as_ref().ok().and_then(|expected| difference(task, expected, found));
            if let (Ok(expected), Some(_)) = (expected, off) {
                pairs.extend(agreement(task, expected, found));
                embeddings.extend(both_embeddings(task, expected, found));
                shown.extend(some_numbers(task, expected, found, per_text));
            }
            // A text that both sides reject does not differ.
            let both_reject = expected.is_err() && found.get("error").is_some();
            match off {
                Some(off) if off <= tolerance => {}
                None if both_reject => {}
                off => different.push((at, off)),
            }
            largest = off.map_or(largest, |off| largest.max(off));
        }
        let texts =
            Texts { inputs, cluster, rows: &rows, expected: &expected, different: &different };
        let mut findings = Vec::from_iter(self.left_out_texts(inputs));
        let causes = self.causes(&texts, tolerance, &mut findings)?;
        let mut answers: Vec<DifferentAnswer> = different
            .iter()
            .zip(causes)
            .filter_map(|((at, off), cause)| self.different_answer(&texts, *at, *off, cause))
            .collect();
        answers.sort_by(|a, b| {
            let size = |it: &DifferentAnswer| it.difference.unwrap_or(f64::INFINITY);
            size(b).total_cmp(&size(a))
        });
        let metadata = self.served.get("metadata").unwrap_or(&Value::Null);
        let mut figures = Vec::new();
        if !pairs.is_empty() {
            figures.extend(neighbours::figures(&embeddings).into_iter().flatten());
            figures.extend(task.agreement().summarize(&pairs));
        }
        Ok(Verification {
            model_id: String::new(),
            source: String::new(),
            task: task.name().to_owned(),
            texts: inputs.len(),
            equal: inputs.len() - answers.len(),
            tolerance,
            largest_difference: largest,
            samples: task.agreement().samples(&pairs, "number of an answer", &shown),
            agreement: figures,
            is_quantized: metadata.get("quantization").is_some(),
            settings: self.different_settings(),
            findings,
            different: answers,
        })
    }

    /// Whether a text has characters of scripts whose tokens are left out.
    pub(super) fn is_left_out(&self, input: &Input<'_>) -> bool {
        self.options.scripts.as_ref().is_some_and(|scripts| {
            !scripts.contain(&input.text) || input.first.iter().any(|first| !scripts.contain(first))
        })
    }

    /// What the comparison means for texts with characters of scripts whose tokens are left out, if there are any.
    fn left_out_texts(&self, inputs: &[Input<'_>]) -> Option<String> {
        let names = self.options.scripts.as_ref()?.names().collect::<Vec<_>>().join(", ");
        let count = inputs.iter().filter(|input| self.is_left_out(input)).count();
        (count > 0).then(|| {
            format!(
                "scripts: both sides have only the tokens of {names}, so neither understands {count} of the texts, which have letters of other scripts"
            )
        })
    }

    fn different_answer(
        &self,
        texts: &Texts<'_>,
        at: usize,
        off: Option<f64>,
        cause: Cause,
    ) -> Option<DifferentAnswer> {
        let (input, answer, rows) =
            (texts.inputs.get(at)?, texts.cluster.get(at)?, texts.rows.get(at)?);
        let own = self.model_ids(&rows.own).concat();
        let served = self.model_ids(&rows.served).concat();
        let has_both = rows.own.is_ok() && rows.served.is_ok();
        let shows_tokens = has_both && own != served && cause != Cause::Rejected;
        let server_name = |id: &u32| self.served_tokenizer.stored(*id as usize).map(str::to_owned);
        let name = |id: &u32| {
            let own = self.model_tokenizer.as_ref().and_then(|tokenizer| tokenizer.token(*id));
            own.or_else(|| server_name(id))
        };
        let named = |ids: &[u32], name: &dyn Fn(&u32) -> Option<String>| {
            ids.iter().map(|id| name(id).unwrap_or_else(|| format!("#{id}"))).collect()
        };
        let model_error = texts.expected.get(at)?.as_ref().err();
        Some(DifferentAnswer {
            first: input.first.as_deref().map(str::to_owned),
            text: input.text.clone().into_owned(),
            difference: off,
            cause,
            error: answer["error"].as_str().map(str::to_owned),
            model_error: model_error.map(ToString::to_string),
            server_tokens: shows_tokens.then(|| named(&served, &server_name)),
            model_tokens: shows_tokens.then(|| named(&own, &name)),
        })
    }

    /// Settings of the task and its tokenizer that differ from those of an import.
    fn different_settings(&self) -> Vec<DifferentSetting> {
        let mut different = Vec::new();
        let config =
            |of: &Map<String, Value>| of.get("inference_config").cloned().unwrap_or_default();
        let (own, served) = (config(self.own.configuration()), config(&self.served));
        walk(&own, &served, "", &mut different);
        different
    }
}

/// Collects the members that an import would set and that have another value in the cluster.
fn walk(own: &Value, served: &Value, path: &str, different: &mut Vec<DifferentSetting>) {
    if let Value::Object(members) = own {
        for (name, own) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(own, &served[name.as_str()], &path, different);
        }
    } else if own != served {
        let (name, cluster) = (path.to_owned(), served.clone());
        different.push(DifferentSetting { name, cluster, model: own.clone() });
    }
}
