//! Comparison of a served model with its source: the model's own tokenizer and float32 graph, run in this process.
//!
//! For each text whose answers differ, the graph is run again on the tokens that the server computes. Equal answers mean that the tokens
//! are the cause; other answers mean that the graph, its numbers or the vocabulary are.

mod comparison;
mod served;
mod texts;

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::local_model::LocalModel;
use super::resolve::ResolvedSource;
use super::token_comparison::{server, settings, tokenization};
use crate::bundle::DEFINITION_SHA256;
use crate::config::SentenceTransformers;
use crate::conversion::{Conversion, ConversionError, Options};
use crate::elasticsearch::{Client, DeployedModel, DeploymentError};
use crate::error::Error;
use crate::inference_results::{InferenceError, Input, Request};
use crate::observer::Progress;
use crate::server_tokenization::{Row, Settings, Token, Tokenizer};
use crate::source::ModelFiles;
use crate::tasks::Task;
use crate::tasks::agreement::{Figure, Pair};
use crate::tokenizer::ModelTokenizer;
use crate::version::Target;

use comparison::{agreement, difference};

/// Answers that differ by at most this much, relative like the tolerance, count as equal when the cause of a difference is determined.
const ROUNDING: f64 = 1e-4;

/// A comparison to run.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The source of the model.
    pub source: ResolvedSource,
    /// Texts, or pairs; built-in texts by default.
    pub texts: Option<Vec<Input<'static>>>,
    /// Largest accepted difference, relative to the largest number of an answer, or to 1.
    pub tolerance: f64,
    /// Longest input in tokens, for a model whose limit was changed on purpose; the model's own limit by default.
    pub max_length: Option<u32>,
}

/// Why an answer differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The cluster rejects the text.
    Rejected,
    /// Elasticsearch computes other tokens than the model's own tokenizer.
    Tokens,
    /// The cluster truncates the text, and the model does not.
    Truncation,
    /// A setting of the configuration in the cluster differs from the model's.
    Settings,
    /// The graph in the cluster has 8-bit weights.
    Quantization,
    /// The graph in the cluster has a known defect.
    Graph,
    /// The numbers of the graph, or the vocabulary, differ.
    Numbers,
}

impl Cause {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Tokens => "tokens",
            Self::Truncation => "truncation",
            Self::Settings => "settings",
            Self::Quantization => "quantization",
            Self::Graph => "graph",
            Self::Numbers => "numbers",
        }
    }
}

/// A text whose answers differ by more than the tolerance.
#[derive(Debug, Serialize)]
pub struct DifferentAnswer {
    /// The first text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The text.
    pub text: String,
    /// The difference; none if the cluster rejects the text.
    pub difference: Option<f64>,
    /// The cause.
    pub cause: Cause,
    /// The message of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tokens that Elasticsearch computes, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_tokens: Option<Vec<String>>,
    /// Tokens of the model's own tokenizer, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_tokens: Option<Vec<String>>,
}

/// A setting whose value in the cluster differs from the value that an import would store.
#[derive(Debug, Serialize)]
pub struct DifferentSetting {
    /// Path of the setting, such as `text_embedding.tokenization.bert.max_sequence_length`.
    pub name: String,
    /// Value in the cluster.
    pub cluster: Value,
    /// Value for the model.
    pub model: Value,
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Id of the model in the cluster.
    pub model_id: String,
    /// Source of the model.
    pub source: String,
    /// Task of the model.
    pub task: String,
    /// Number of texts.
    pub texts: usize,
    /// Number of texts whose answers differ by at most the tolerance.
    pub equal: usize,
    /// The tolerance.
    pub tolerance: f64,
    /// Largest difference of all answers.
    pub largest_difference: f64,
    /// Agreement of the cluster and the float model, with the figures of quantization.
    #[serde(serialize_with = "figures")]
    pub agreement: [Figure; 2],
    /// Whether the configuration says that the model is quantized.
    pub is_quantized: bool,
    /// Settings that differ.
    pub settings: Vec<DifferentSetting>,
    /// What is wrong with the model in the cluster.
    pub findings: Vec<String>,
    /// Texts whose answers differ, largest difference first.
    pub different: Vec<DifferentAnswer>,
}

/// Formats the figures as an object.
fn figures<S: Serializer>(figures: &[Figure; 2], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(figures.map(|figure| (figure.name, (figure.value * 1e6).round() / 1e6)))
}

impl Verification {
    /// Whether all answers are equal within the tolerance.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.equal == self.texts
    }

    /// The result in one line, such as `verified: 64 of 64 texts within 1e-5`.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} of {} texts within {:e}", self.equal, self.texts, self.tolerance)
    }
}

/// Settings of a request that make answers comparable in full.
fn overrides(task: Task) -> Map<String, Value> {
    let settings = match task {
        Task::ZeroShotClassification => json!({"labels": texts::LABELS, "multi_label": true}),
        Task::TextClassification => json!({"num_top_classes": -1}),
        Task::FillMask | Task::QuestionAnswering => json!({"num_top_classes": 5}),
        _ => json!({}),
    };
    settings.as_object().cloned().unwrap_or_default()
}

impl VerifyRequest {
    /// Compares the answers of a deployed model with those of its source.
    ///
    /// # Errors
    /// When the cluster or the source cannot be used. Different answers are part of the result.
    pub async fn run(
        self,
        client: &Client,
        model_id: &str,
        model: &DeployedModel,
        progress: &Progress,
    ) -> Result<Verification, Error> {
        let configuration = model.configuration();
        let not_served = |reason: String| DeploymentError::NotServed { reason, hint: None };
        let task: Task = model.task().parse().map_err(not_served)?;
        let served = configuration.as_object().cloned().unwrap_or_default();
        let served_settings =
            tokenization(&served).map_or_else(|| settings(&json!({"bert": {}})), settings);
        let served_settings = served_settings.map_err(ConversionError::from)?;
        let mut inputs = match self.texts {
            Some(texts) => texts,
            None => texts::built_in(task, served_settings.kind.mask_token()),
        };
        // `_infer` adds no prefix, so both sides get the text with the prefix.
        if let Some(prefix) = configuration["prefix_strings"]["ingest"].as_str() {
            for input in &mut inputs {
                input.text = Cow::Owned(format!("{prefix}{}", input.text));
            }
        }
        let overrides = overrides(task);
        let answers = served::answers(client, model, &inputs, &overrides, progress).await?;
        let files = self.source.files(progress).await?;
        let source = match (self.source.origin(), &self.source) {
            (Some(origin), _) => format!("{}@{}", origin.model_id, origin.commit),
            (None, ResolvedSource::Folder(folder)) => folder.display().to_string(),
            (None, ResolvedSource::Hub(_)) => String::new(),
        };
        let options = Options {
            task: Some(task),
            target: client.target(),
            origin: self.source.origin(),
            max_length: self.max_length,
            ..Options::default()
        };
        let conversion = Conversion::read(&files, options.clone(), progress)?;
        let sides = Sides::new(&conversion, &files, options, served, served_settings, &overrides)?;
        let mut verification = sides.compare(&inputs, &answers, self.tolerance)?;
        verification.model_id = model_id.to_owned();
        verification.source = source;
        Ok(verification)
    }
}

/// Both sides of a comparison in this process: the model as its authors run it, and the model as the cluster should run it.
struct Sides<'a> {
    conversion: &'a Conversion,
    files: &'a ModelFiles,
    options: Options,
    /// The float32 graph with the settings of the model.
    own: LocalModel,
    /// The request with the settings of the model.
    own_request: Request,
    /// The model's own tokenizer, if it has a `tokenizer.json`.
    model_tokenizer: Option<ModelTokenizer>,
    /// Configuration in the cluster.
    served: Map<String, Value>,
    /// The server's tokenizer with the settings in the cluster.
    served_tokenizer: Tokenizer,
    /// The request with the settings in the cluster.
    served_request: Request,
}

/// Answers of a graph to the texts that differ.
type Run<'r> = dyn Fn(&LocalModel) -> Vec<Option<Value>> + 'r;

/// Which answers equal those of the cluster, up to a difference.
type Explain<'r> = dyn Fn(&[Option<Value>], f64) -> Vec<bool> + 'r;

/// The rows of one text on both sides.
struct Rows {
    own: Result<Vec<Row>, InferenceError>,
    served: Result<Vec<Row>, InferenceError>,
}

/// The tokens of a text as the model's own tokenizer returns them.
fn own_tokens(tokenizer: &ModelTokenizer, text: &str) -> Result<Vec<Token>, InferenceError> {
    tokenizer.tokens(text).map_err(|error| InferenceError::Input(error.to_string()))
}

fn ids(rows: &Result<Vec<Row>, InferenceError>) -> Vec<&[u32]> {
    rows.iter().flatten().map(|row| row.ids.as_slice()).collect()
}

impl<'a> Sides<'a> {
    fn new(
        conversion: &'a Conversion,
        files: &'a ModelFiles,
        options: Options,
        served: Map<String, Value>,
        served_settings: Settings,
        overrides: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let own = LocalModel::of_conversion(conversion)?;
        let own_request = own.request(overrides)?;
        let folder = SentenceTransformers::read(files).map_err(ConversionError::from)?;
        let folder = folder.map_or(String::new(), |modules| modules.transformer);
        let folder = files.sub(&folder).map_err(ConversionError::from)?;
        // Rows are truncated as the server truncates them, not by the library.
        let model_tokenizer =
            ModelTokenizer::read(&folder, usize::MAX >> 1).map_err(ConversionError::from)?;
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

    /// The rows of a text. Where both tokenizers return the same ids, the rows of the server are used, because they have the places of
    /// the server.
    fn rows(&self, input: &Input<'_>) -> Result<Rows, Error> {
        let served = self.served_request.rows(&self.served_tokenizer, input);
        let by_server = self.own_request.rows(self.own.tokenizer(), input);
        let Some(tokenizer) = &self.model_tokenizer else {
            return Ok(Rows { own: by_server, served });
        };
        let tokens = |text: &str| own_tokens(tokenizer, text);
        let own = self.own_request.rows_of(self.own.tokenizer(), input, &tokens);
        let own = if ids(&own) == ids(&by_server) && by_server.is_ok() { by_server } else { own };
        Ok(Rows { own, served })
    }

    /// Answers of a graph to rows; none for texts that have no rows or whose output does not fit.
    fn answers<'r>(
        &self,
        model: &LocalModel,
        request: &Request,
        tokenizer: &Tokenizer,
        inputs: &[Input<'_>],
        rows: impl Iterator<Item = &'r Result<Vec<Row>, InferenceError>>,
    ) -> Vec<Option<Value>> {
        let answer = |input: &Input<'_>, rows: &[Row]| {
            let output = model.outputs(&[rows]).ok()?.pop()?;
            request.result(tokenizer, input, rows, &output).ok()
        };
        let rows = inputs.iter().zip(rows);
        rows.map(|(input, rows)| answer(input, rows.as_deref().ok()?)).collect()
    }

    fn compare(
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
        let mut pairs: Vec<Pair> = Vec::new();
        let mut largest: f64 = 0.;
        let mut different = Vec::new();
        for (at, (expected, found)) in expected.iter().zip(cluster).enumerate() {
            let off = expected.as_ref().and_then(|expected| difference(task, expected, found));
            if let (Some(expected), Some(_)) = (expected, off) {
                pairs.extend(agreement(task, expected, found));
            }
            // A text that both sides reject does not differ.
            let both_reject = expected.is_none() && found.get("error").is_some();
            match off {
                Some(off) if off <= tolerance => {}
                None if both_reject => {}
                off => different.push((at, off)),
            }
            largest = off.map_or(largest, |off| largest.max(off));
        }
        let settings = self.different_settings();
        let mut findings = Vec::new();
        let causes = self.causes(inputs, cluster, &rows, &different, tolerance, &mut findings)?;
        let mut answers: Vec<DifferentAnswer> = different
            .iter()
            .zip(causes)
            .filter_map(|((at, off), cause)| {
                let (input, rows) = (inputs.get(*at)?, rows.get(*at)?);
                Some(self.different_answer(input, cluster.get(*at)?, rows, *off, cause))
            })
            .collect();
        answers.sort_by(|a, b| {
            let size = |it: &DifferentAnswer| it.difference.unwrap_or(f64::INFINITY);
            size(b).total_cmp(&size(a))
        });
        let metadata = self.served.get("metadata").unwrap_or(&Value::Null);
        Ok(Verification {
            model_id: String::new(),
            source: String::new(),
            task: task.name().to_owned(),
            texts: inputs.len(),
            equal: inputs.len() - answers.len(),
            tolerance,
            largest_difference: largest,
            agreement: task.agreement().summarize(&pairs),
            is_quantized: metadata.get("quantization").is_some(),
            settings,
            findings,
            different: answers,
        })
    }

    /// The cause of each different answer.
    fn causes(
        &self,
        inputs: &[Input<'_>],
        cluster: &[Value],
        rows: &[Rows],
        different: &[(usize, Option<f64>)],
        tolerance: f64,
        findings: &mut Vec<String>,
    ) -> Result<Vec<Cause>, Error> {
        let task = self.conversion.task();
        if different.is_empty() {
            return Ok(Vec::new());
        }
        let chosen: Vec<usize> = different.iter().map(|(at, _)| *at).collect();
        let texts: Vec<Input<'_>> = chosen.iter().map(|at| inputs[*at].clone()).collect();
        let run = |model: &LocalModel| {
            self.answers(
                model,
                &self.served_request,
                &self.served_tokenizer,
                &texts,
                chosen.iter().map(|at| &rows[*at].served),
            )
        };
        let explains = |answers: &[Option<Value>], allowed: f64| -> Vec<bool> {
            let close = |(answer, at): (&Option<Value>, &usize)| {
                let off = difference(task, answer.as_ref()?, &cluster[*at])?;
                Some(off <= allowed)
            };
            answers.iter().zip(&chosen).map(|pair| close(pair).unwrap_or(false)).collect()
        };
        let rounding = tolerance.max(ROUNDING);
        let same_graph = explains(&run(&self.own), rounding);
        let mut causes: Vec<Option<Cause>> = Vec::new();
        for ((at, is_same), text) in chosen.iter().zip(&same_graph).zip(&texts) {
            let Rows { own, served } = &rows[*at];
            causes.push(match () {
                () if cluster[*at].get("error").is_some() => Some(Cause::Rejected),
                () if !is_same => None,
                () if ids(own) == ids(served) => Some(Cause::Settings),
                () if self.is_truncation(text, served) => Some(Cause::Truncation),
                () => Some(Cause::Tokens),
            });
        }
        let is_open = |causes: &[Option<Cause>]| causes.iter().any(Option::is_none);
        if is_open(&causes) {
            self.graph_causes(&mut causes, &run, &explains, rounding, findings)?;
        }
        if is_open(&causes) {
            findings.push(self.unexplained()?);
        }
        Ok(causes.into_iter().map(|cause| cause.unwrap_or(Cause::Numbers)).collect())
    }

    /// Finds the causes that lie in the graph: 8-bit weights, or a known defect. The one that explains the most texts comes first.
    fn graph_causes(
        &self,
        causes: &mut [Option<Cause>],
        run: &Run<'_>,
        explains: &Explain<'_>,
        rounding: f64,
        findings: &mut Vec<String>,
    ) -> Result<(), Error> {
        let vocabulary = || self.conversion.tokenizer().vocabulary.clone();
        let model =
            |module| LocalModel::new(module, self.own.configuration().clone(), vocabulary());
        let open = |causes: &[Option<Cause>], explained: &[bool]| {
            causes.iter().zip(explained).filter(|(cause, is)| cause.is_none() && **is).count()
        };
        let mut best: Option<(usize, String, Vec<bool>)> = None;
        for defect in self.conversion.possible_defects() {
            let module = self.conversion.trace_with_defect(defect)?;
            let explained = explains(&run(&model(module)?), rounding);
            let count = open(causes, &explained);
            if count > best.as_ref().map_or(0, |(most, ..)| *most) {
                best = Some((count, defect.to_string(), explained));
            }
        }
        if let Some((_, finding, explained)) = best {
            findings.push(finding);
            settle(causes, &explained, Cause::Graph);
        }
        if causes.iter().any(Option::is_none) {
            let traced = self.conversion.trace()?;
            // Models whose layers cannot be quantized are not.
            if let Ok((module, _)) = traced.module.quantize() {
                // The kernels of other processors round in another way.
                let explained = explains(&run(&model(module)?), rounding.max(5e-3));
                if open(causes, &explained) > 0 {
                    findings
                        .push("quantization: the graph in the cluster has 8-bit weights".into());
                    settle(causes, &explained, Cause::Quantization);
                }
            }
        }
        Ok(())
    }

    /// Whether only truncation separates the rows of the server from the model's tokens.
    fn is_truncation(&self, input: &Input<'_>, served: &Result<Vec<Row>, InferenceError>) -> bool {
        let Some(tokenizer) = &self.model_tokenizer else {
            return served.iter().flatten().any(|row| row.is_truncated);
        };
        let tokens = |text: &str| own_tokens(tokenizer, text);
        let cut = self.served_request.rows_of(&self.served_tokenizer, input, &tokens);
        ids(&cut) == ids(served)
    }

    /// What is known when no cause explains the numbers.
    fn unexplained(&self) -> Result<String, Error> {
        let stored = self.served.get("metadata").and_then(|it| it.get(DEFINITION_SHA256));
        let sha256 = |conversion: &Conversion| -> Result<String, ConversionError> {
            Ok(conversion.trace()?.module.archive()?.sha256(&|_| ()))
        };
        let is_stored = |own: String| stored.and_then(Value::as_str) == Some(own.as_str());
        // A bundle for any release of Elasticsearch has another graph than an import into this cluster.
        let options = Options { target: Target::Any, ..self.options.clone() };
        let portable = || Conversion::read(self.files, options, &Progress::quiet());
        let is_own = stored.is_some()
            && (is_stored(sha256(self.conversion)?) || is_stored(sha256(&portable()?)?));
        Ok(if is_own {
            "vocabulary: the definition in the cluster is that of the model, so the vocabulary differs".into()
        } else {
            "numbers: the weights, the graph or the vocabulary in the cluster differ from those of the model".into()
        })
    }

    fn different_answer(
        &self,
        input: &Input<'_>,
        answer: &Value,
        rows: &Rows,
        off: Option<f64>,
        cause: Cause,
    ) -> DifferentAnswer {
        let own = ids(&rows.own).concat();
        let served = ids(&rows.served).concat();
        let shows_tokens = own != served && cause != Cause::Rejected;
        let name = |id: &u32| {
            let own = self.model_tokenizer.as_ref().and_then(|tokenizer| tokenizer.token(*id));
            own.or_else(|| self.served_tokenizer.stored(*id as usize).map(str::to_owned))
        };
        let server_name = |id: &u32| self.served_tokenizer.stored(*id as usize).map(str::to_owned);
        let named = |ids: &[u32], name: &dyn Fn(&u32) -> Option<String>| {
            ids.iter().map(|id| name(id).unwrap_or_else(|| format!("#{id}"))).collect()
        };
        DifferentAnswer {
            first: input.first.as_deref().map(str::to_owned),
            text: input.text.clone().into_owned(),
            difference: off,
            cause,
            error: answer["error"].as_str().map(str::to_owned),
            server_tokens: shows_tokens.then(|| named(&served, &server_name)),
            model_tokens: shows_tokens.then(|| named(&own, &name)),
        }
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

/// Sets the cause of the texts that are explained and have none.
fn settle(causes: &mut [Option<Cause>], explained: &[bool], cause: Cause) {
    for (place, _) in causes.iter_mut().zip(explained).filter(|(place, is)| place.is_none() && **is)
    {
        *place = Some(cause);
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
