//! The result of an import.

use indicatif::HumanBytes;
use serde::Serialize;
use serde_json::Value;

use super::bundle_report::BundleReport;
use super::page::Page;
use super::pipeline_report::PipelineReport;
use super::plan_report::million;
use super::report::Report;
use super::sheet::Sheet;
use super::suggestions::Suggestions;
use super::timings::TimingReport;
use crate::elasticsearch::{EndpointId, EndpointOutcome, KibanaSync, Outcome};
use crate::model_id::ModelId;
use crate::tasks::AgreementSamples;
use crate::version::Target;
use crate::workflow::{Imported, Started};

/// Result of an import.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    #[serde(flatten)]
    bundle: Option<BundleReport>,
    /// `stored`, or `unchanged` if the cluster already had the model.
    state: &'static str,
    /// The number of parameters; unknown for bundles.
    parameters: Option<u64>,
    /// How much the quantized model agrees with the original on single texts.
    #[serde(skip)]
    agreement: Option<&'a AgreementSamples>,
    /// The number of parts that were uploaded.
    parts: Option<usize>,
    /// The deployment, if one was requested.
    deployment: Option<&'a Started>,
    /// The inference endpoint, if one was requested.
    endpoint: Option<NamedEndpoint<'a>>,
    /// The ingest pipeline, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineReport>,
    /// The synchronization of Kibana, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kibana: Option<KibanaSync>,
    /// Suggested next steps.
    next: Suggestions,
    /// Durations of the stages.
    timings: TimingReport,
    /// The comparison with the model's source, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Value>,
    /// The comparison in one line.
    #[serde(skip)]
    verified: Option<String>,
    #[serde(skip)]
    model_id: &'a ModelId,
}

/// An inference endpoint.
#[derive(Debug, Serialize)]
struct NamedEndpoint<'a> {
    inference_id: &'a EndpointId,
    task_type: &'static str,
    state: EndpointOutcome,
}

impl Report for Summary<'_> {
    fn text(&self) -> String {
        match self.deployment {
            Some(started) => started.text(),
            None => format!("{} {}", self.model_id, self.state),
        }
    }
}

impl<'a> Summary<'a> {
    pub(super) fn of(imported: &'a Imported, target: Target, timings: TimingReport) -> Self {
        let (state, parts) = match imported.outcome {
            Outcome::Stored { parts } => ("stored", Some(parts)),
            Outcome::Unchanged => ("unchanged", None),
        };
        let deployment_id =
            imported.started.as_ref().map(|it| it.deployment.deployment_id.as_str());
        let next = Suggestions::of(
            &imported.model_id,
            imported.bundle.as_ref().map(|bundle| &bundle.configuration),
            deployment_id,
            imported.endpoint.as_ref().map(|(endpoint, _)| endpoint),
            target,
        );
        Self {
            bundle: imported.bundle.as_ref().map(BundleReport::of),
            state,
            parameters: imported.parameters,
            agreement: imported.agreement.as_ref(),
            parts,
            deployment: imported.started.as_ref(),
            endpoint: imported.endpoint.as_ref().map(|(endpoint, state)| NamedEndpoint {
                inference_id: &endpoint.id,
                task_type: endpoint.task.name(),
                state: *state,
            }),
            pipeline: imported.pipeline.clone().map(PipelineReport::of),
            kibana: None,
            next,
            timings,
            verification: None,
            verified: None,
            model_id: &imported.model_id,
        }
    }

    /// Adds a comparison with the model's source: one line, and the whole report.
    #[cfg(feature = "torch")]
    pub(super) fn verify(&mut self, line: String, report: Value) {
        (self.verified, self.verification) = (Some(line), Some(report));
    }

    /// The summary as a page, with the figures of a quantized model.
    pub(super) fn page(&self) -> Page {
        let mut page = Page::of_text(&self.for_people());
        let Some(bundle) = &self.bundle else { return page };
        let figures = bundle.metadata.as_ref().and_then(|it| it.get("quantization")?.as_object());
        if let Some(figures) = figures {
            let mut sheet = Sheet::new("");
            sheet.heading("Quantization");
            for (name, value) in figures {
                add_figure(&mut sheet, name, value);
            }
            page.sections(&sheet);
        }
        if let Some(samples) = self.agreement {
            page.heading("Quantized and original model");
            page.agreement(samples, ["original", "quantized"]);
        }
        page
    }

    /// The summary for the log.
    pub(super) fn for_people(&self) -> String {
        let model_id = self.model_id;
        let mut lines = vec![match self.state {
            "unchanged" => format!("{model_id} is already up to date"),
            _ => format!("{model_id} is imported"),
        }];
        let mut line = |name: &str, value: String| lines.push(format!("  {name:<11} {value}"));
        if let Some(parameters) = self.parameters {
            line("parameters", million(parameters));
        }
        let parts = match self.parts {
            Some(1) => " in one part".to_owned(),
            Some(parts) => format!(" in {parts} parts"),
            None => String::new(),
        };
        if let Some(BundleReport { sha256, size, .. }) = &self.bundle {
            line("definition", format!("{}{parts}, sha256 {sha256}", HumanBytes(*size)));
        }
        let deployment = match self.deployment {
            Some(Started { deployment, .. }) => format!(
                "{} {}, {} of {} allocations",
                deployment.deployment_id,
                deployment.state.name(),
                deployment.allocations,
                deployment.target_allocations
            ),
            None if self.endpoint.is_some() => "managed by the endpoint".to_owned(),
            None => "not started".to_owned(),
        };
        line("deployment", deployment);
        if let Some(NamedEndpoint { inference_id, task_type, state }) = &self.endpoint {
            let state = match state {
                EndpointOutcome::Created => "created",
                EndpointOutcome::Unchanged => "already exists",
            };
            line("endpoint", format!("{inference_id} ({task_type}) {state}"));
        }
        if let Some(pipeline) = &self.pipeline {
            line("pipeline", pipeline.line());
        }
        line("took", took(&self.timings));
        if let Some(verified) = &self.verified {
            lines.push(format!("  verified: {verified}"));
        }
        let mut text = lines.join("\n");
        let of_pipeline = self.pipeline.iter().flat_map(PipelineReport::paragraphs);
        for paragraph in self.next.paragraphs().into_iter().chain(of_pipeline) {
            text = format!("{text}\n{paragraph}");
        }
        let when = match &self.kibana {
            Some(KibanaSync { synchronized: true, .. }) => "",
            _ => " after you synchronize saved objects on that page",
        };
        format!("{text}\nKibana lists the model (Machine Learning, Trained Models){when}")
    }
}

/// The total time, and the stages that took at least a tenth of a second. Stages within other stages are omitted.
fn took(timings: &TimingReport) -> String {
    const NOTICED: f64 = 0.1;
    let mut stages = Vec::new();
    let mut over = 0.;
    for stage in &timings.stages {
        let Some(took) = stage.took else { continue };
        if took >= NOTICED && stage.begun + took > over {
            stages.push(format!("{} {took:.1} s", stage.name));
            over = stage.begun + took;
        }
    }
    let all = format!("{:.1} s", timings.total);
    if stages.is_empty() { all } else { format!("{all}: {}", stages.join(", ")) }
}

/// Adds a figure of a quantization: a change of a size, the agreement, or a single value.
fn add_figure(sheet: &mut Sheet, name: &str, value: &Value) {
    let size = |of: &str| value.get(of).and_then(Value::as_u64).map(HumanBytes);
    let in_words = |name: &str| name.trim_end_matches("_bytes").replace('_', " ");
    match (size("original"), size("quantized"), value) {
        (Some(original), Some(quantized), _) => {
            sheet.line(&in_words(name), format!("{quantized} instead of {original}"));
        }
        (_, _, Value::Object(figures)) => {
            for (name, figure) in figures {
                sheet.line(&in_words(name), figure);
            }
        }
        (_, _, Value::String(text)) => sheet.line(&in_words(name), text),
        _ => sheet.line(&in_words(name), value),
    }
}
