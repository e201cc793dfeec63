//! Why the answers of the cluster differ from those of the model.

use serde_json::Value;

use super::Cause;
use super::comparison::difference;
use super::sides::{Answer, Rows, Sides};
use crate::bundle::DEFINITION_SHA256;
use crate::conversion::{Conversion, ConversionError, Options, QuantizeScheme};
use crate::error::Error;
use crate::inference_results::Input;
use crate::observer::Progress;
use crate::torchscript::Module;
use crate::version::Target;
use crate::workflow::local_model::LocalModel;

/// Answers that differ by at most this much, relative like the tolerance, count as equal when the cause of a difference is determined.
const ROUNDING: f64 = 1e-4;

/// The kernels of other processors round 8-bit products in another way, so that answers of one quantized graph differ by this much.
const QUANTIZED_ROUNDING: f64 = 5e-3;

/// The texts of a comparison with their answers.
pub(super) struct Texts<'a> {
    pub(super) inputs: &'a [Input<'a>],
    /// Answers of the cluster.
    pub(super) cluster: &'a [Value],
    pub(super) rows: &'a [Rows],
    /// Answers of the model's own side.
    pub(super) expected: &'a [Answer],
    /// Positions of the texts whose answers differ, with the differences.
    pub(super) different: &'a [(usize, Option<f64>)],
}

/// The texts whose cause is not known yet, among those that differ.
struct Open<'a> {
    texts: &'a Texts<'a>,
    /// The cause of each text that differs.
    causes: Vec<Option<Cause>>,
    /// Difference between the cluster and the float32 graph on the server's tokens, for each text that differs.
    floating: Vec<Option<f64>>,
}

impl Open<'_> {
    fn count(&self) -> usize {
        self.causes.iter().filter(|cause| cause.is_none()).count()
    }

    /// How many of the open texts are explained.
    fn explained(&self, explained: &[bool]) -> usize {
        self.causes.iter().zip(explained).filter(|(cause, is)| cause.is_none() && **is).count()
    }

    /// Whether more than half of the open texts are explained. A single text can be close by chance.
    fn is_majority(&self, explained: &[bool]) -> bool {
        2 * self.explained(explained) > self.count()
    }

    /// Sets the cause of the open texts that are explained.
    fn settle(&mut self, explained: &[bool], cause: Cause) {
        for (place, _) in
            self.causes.iter_mut().zip(explained).filter(|(place, is)| place.is_none() && **is)
        {
            *place = Some(cause);
        }
    }
}

impl Sides<'_> {
    /// The cause of each different answer, and what is wrong with the model in the cluster.
    pub(super) fn causes(
        &self,
        texts: &Texts<'_>,
        tolerance: f64,
        findings: &mut Vec<String>,
    ) -> Result<Vec<Cause>, Error> {
        if texts.different.is_empty() {
            return Ok(Vec::new());
        }
        let rounding = tolerance.max(ROUNDING);
        let floating = self.differences(texts, &self.own);
        let cause = |at: usize, off: Option<f64>| {
            let Rows { own, served } = texts.rows.get(at)?;
            match () {
                () if texts.cluster.get(at)?.get("error").is_some() => Some(Cause::Rejected),
                () if texts.expected.get(at)?.is_err() => Some(Cause::Model),
                () if !off.is_some_and(|off| off <= rounding) => None,
                () if self.model_ids(own) == self.model_ids(served) => Some(Cause::Settings),
                () if self.is_left_out(texts.inputs.get(at)?) => Some(Cause::Scripts),
                () if self.is_truncation(texts.inputs.get(at)?, texts.rows.get(at)?) => {
                    Some(Cause::Truncation)
                }
                () => Some(Cause::Tokens),
            }
        };
        let causes = texts.different.iter().zip(&floating).map(|((at, _), off)| cause(*at, *off));
        let mut open = Open { texts, causes: causes.collect(), floating };
        if open.count() > 0 {
            if self.is_own_definition()? {
                findings.push(
                    "vocabulary: the definition in the cluster is that of the model, so the vocabulary differs"
                        .into(),
                );
            } else {
                self.graph_causes(&mut open, rounding, findings)?;
                findings.extend(unexplained(&open));
            }
        }
        Ok(open.causes.into_iter().map(|cause| cause.unwrap_or(Cause::Numbers)).collect())
    }

    /// Difference between the cluster and a graph on the server's tokens, for each text that differs.
    fn differences(&self, texts: &Texts<'_>, model: &LocalModel) -> Vec<Option<f64>> {
        let chosen = || texts.different.iter().map(|(at, _)| *at);
        let inputs: Vec<Input<'_>> =
            chosen().filter_map(|at| texts.inputs.get(at).cloned()).collect();
        let rows = chosen().filter_map(|at| Some(&texts.rows.get(at)?.served));
        let answers =
            self.answers(model, &self.served_request, &self.served_tokenizer, &inputs, rows);
        let task = self.conversion.task();
        let answers = answers.into_iter().zip(chosen());
        answers
            .map(|(answer, at)| difference(task, &answer.ok()?, texts.cluster.get(at)?))
            .collect()
    }

    /// Finds the causes that lie in the graph: a known defect, or else 8-bit weights. The defect that explains the most texts counts.
    fn graph_causes(
        &self,
        open: &mut Open<'_>,
        rounding: f64,
        findings: &mut Vec<String>,
    ) -> Result<(), Error> {
        let differences = |module: Module, texts: &Texts<'_>| -> Result<Vec<Option<f64>>, Error> {
            let vocabulary = self.conversion.tokenizer().vocabulary.clone();
            let model = LocalModel::new(module, self.own.configuration().clone(), vocabulary)?;
            Ok(self.differences(texts, &model))
        };
        let mut best: Option<(String, Vec<bool>)> = None;
        for defect in self.conversion.possible_defects() {
            let found = differences(self.conversion.trace_with_defect(defect)?, open.texts)?;
            let explained: Vec<bool> =
                found.iter().map(|off| off.is_some_and(|off| off <= rounding)).collect();
            let most = best.as_ref().map_or(0, |(_, best)| open.explained(best));
            if open.is_majority(&explained) && open.explained(&explained) > most {
                best = Some((defect.to_string(), explained));
            }
        }
        if let Some((finding, explained)) = best {
            findings.push(finding);
            open.settle(&explained, Cause::Graph);
            return Ok(());
        }
        // Models whose layers cannot be quantized are not.
        let metadata = self.served.get("metadata").unwrap_or(&Value::Null);
        let scheme = metadata["quantization"]["scheme"].as_str();
        let scheme = scheme.and_then(|name| name.parse().ok()).unwrap_or(QuantizeScheme::Eland);
        let Ok(module) = self.conversion.trace_quantized(scheme) else { return Ok(()) };
        let found = differences(module, open.texts)?;
        // The answers of a float32 graph can be close to those of the quantized graph, but then they are closer to the float32 model.
        let is_closer = |off: f64, floating: f64| off <= rounding || 2. * off < floating;
        let explained: Vec<bool> = found
            .iter()
            .zip(&open.floating)
            .map(|pair| match pair {
                (Some(off), Some(floating)) => {
                    *off <= rounding.max(QUANTIZED_ROUNDING) && is_closer(*off, *floating)
                }
                (off, None) => off.is_some_and(|off| off <= rounding),
                (None, _) => false,
            })
            .collect();
        if open.is_majority(&explained) {
            findings.push("quantization: the graph in the cluster has 8-bit weights".into());
            open.settle(&explained, Cause::Quantization);
        }
        Ok(())
    }

    /// Whether only truncation separates the rows of the server from the model's tokens.
    fn is_truncation(&self, input: &Input<'_>, rows: &Rows) -> bool {
        let Rows { own, served } = rows;
        let Some(tokenizer) = &self.model_tokenizer else {
            return served.iter().flatten().any(|row| row.is_truncated);
        };
        let served_ids = self.model_ids(served);
        // Tokens that the graph drops leave less room for the text in a row of the server.
        if let ([served], [own], Ok([row])) =
            (&served_ids[..], &self.model_ids(own)[..], served.as_deref())
            && let Some((_, served)) = served.split_last()
            && row.is_truncated
            && own.starts_with(served)
        {
            return true;
        }
        let tokens = |text: &str| self.own_tokens(tokenizer, text);
        let cut = self.served_request.rows_of(&self.served_tokenizer, input, &tokens);
        self.model_ids(&cut) == served_ids
    }

    /// Whether the definition in the cluster is the one that an import of the model would store.
    fn is_own_definition(&self) -> Result<bool, Error> {
        let stored = self.served.get("metadata").and_then(|it| it.get(DEFINITION_SHA256));
        let Some(stored) = stored.and_then(Value::as_str) else { return Ok(false) };
        let is_stored = |conversion: &Conversion| -> Result<bool, ConversionError> {
            Ok(conversion.trace()?.module.archive()?.sha256(&|_| ()) == stored)
        };
        if is_stored(self.conversion)? {
            return Ok(true);
        }
        // A bundle for any release of Elasticsearch has another graph than an import into this cluster.
        let options = Options { target: Target::Any, ..self.options.clone() };
        Ok(is_stored(&Conversion::read(self.files, options, &Progress::quiet())?)?)
    }
}

/// What is known about the texts that no cause explains.
fn unexplained(open: &Open<'_>) -> Option<String> {
    let others = open.texts.different.len() - open.count();
    match open.count() {
        0 => None,
        _ if others == 0 => Some(
            "numbers: the weights, the graph or the vocabulary in the cluster differ from those of the model"
                .into(),
        ),
        count => Some(format!(
            "numbers: for {count} texts, the weights, the graph or the vocabulary in the cluster differ from those of the model"
        )),
    }
}
