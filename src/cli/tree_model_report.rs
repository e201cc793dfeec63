//! The report of `inspect`, `import` and `export` for tree models.

use std::path::PathBuf;

use indicatif::HumanBytes;
use serde::Serialize;

use super::pipeline_report::PipelineReport;
use super::report::Report;
use super::tree_model::ReadTreeModel;
use crate::elasticsearch::KibanaSync;
use crate::trees::configuration::TreeModel;
use crate::trees::{FeatureKind, Target};

/// Report of a tree model, as text and JSON.
#[derive(Debug, Serialize)]
pub(super) struct TreeModelReport {
    model_id: String,
    /// Result of the command, if the command changes anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'static str>,
    format: String,
    library_version: Option<String>,
    objective: String,
    target: &'static str,
    aggregation: &'static str,
    trees: usize,
    nodes: usize,
    depth: usize,
    features: Vec<FeatureReport>,
    labels: Vec<String>,
    prediction_field_type: Option<&'static str>,
    preprocessors: usize,
    json_bytes: u64,
    compressed_bytes: usize,
    request_bytes: u64,
    definition_sha256: String,
    minimum_version: String,
    notes: Vec<String>,
    /// The body of `PUT _ingest/pipeline/NAME`.
    pipeline: Option<serde_json::Value>,
    /// The pipeline that was created, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_pipeline: Option<PipelineReport>,
    /// The synchronization of Kibana, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kibana: Option<KibanaSync>,
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct FeatureReport {
    name: String,
    kind: &'static str,
    /// Whether a tree tests the feature.
    used: bool,
    /// The number of tests of the feature.
    splits: u64,
    /// The number of tests that send missing values to the left child.
    missing_left: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
}

impl TreeModelReport {
    pub(super) fn of(read: &ReadTreeModel, model: &TreeModel) -> Self {
        let definition = &model.definition;
        let origin = &read.ensemble.origin;
        let mut splits = read.splits().into_iter();
        let features = read.ensemble.features.iter().zip(read.names()).map(|(feature, name)| {
            let (kind, categories) = match &feature.kind {
                _ if read.options.boolean_features.contains(&name) => ("boolean", Vec::new()),
                FeatureKind::Number => ("number", Vec::new()),
                FeatureKind::Boolean => ("number (true and false in training)", Vec::new()),
                FeatureKind::Category(None) => ("category code", Vec::new()),
                FeatureKind::Category(Some(names)) => {
                    ("category", names.iter().map(ToString::to_string).collect())
                }
            };
            let (splits, missing_left) = splits.next().unwrap_or_default();
            FeatureReport { used: splits > 0, splits, missing_left, name, kind, categories }
        });
        Self {
            model_id: model.model_id.to_string(),
            state: None,
            format: origin.format.clone(),
            library_version: origin.version.clone(),
            objective: origin.objective.clone(),
            target: definition.target.name(),
            aggregation: definition.aggregation,
            trees: read.totals.trees,
            nodes: definition.totals.nodes,
            depth: definition.totals.depth,
            features: features.collect(),
            labels: definition.labels.clone(),
            prediction_field_type: (definition.target == Target::Classification)
                .then(|| definition.label_type.name()),
            preprocessors: definition.preprocessors,
            json_bytes: definition.json_bytes,
            compressed_bytes: definition.compressed.len(),
            request_bytes: definition.body_bytes(),
            definition_sha256: definition.sha256.clone(),
            minimum_version: model.minimum_version.to_string(),
            notes: definition.notes.clone(),
            pipeline: model.pipeline(),
            created_pipeline: None,
            kibana: None,
            file: None,
        }
    }
}

/// The first names of a list, and the number of the others.
pub(super) fn first_names(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        others => format!("{first} and {others} others"),
    }
}

/// A name from a file, with visible line breaks.
fn on_one_line(name: &str) -> String {
    name.replace('\r', "\\r").replace('\n', "\\n")
}

impl Report for TreeModelReport {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        match (self.state, &self.file) {
            (Some(state), _) => lines.push(format!("{} {state}", self.model_id)),
            (None, Some(file)) => lines.push(file.display().to_string()),
            (None, None) => {}
        }
        let version = self.library_version.as_ref().map(|version| format!(", version {version}"));
        lines.push(format!("file         {}{}", self.format, version.unwrap_or_default()));
        lines.push(format!("objective    {}", self.objective));
        lines.push(format!("prediction   {} ({})", self.target, self.aggregation));
        if !self.labels.is_empty() {
            lines.push(format!("labels       {}", on_one_line(&self.labels.join(", "))));
        }
        lines.push(format!(
            "size         {} trees, {} nodes, depth {}",
            self.trees, self.nodes, self.depth
        ));
        lines.push(format!(
            "definition   {} of JSON (limit 1 GB or a tenth of the heap), {} in the request (limit 100 MB)",
            HumanBytes(self.json_bytes),
            HumanBytes(self.request_bytes)
        ));
        lines.push("features".to_owned());
        for feature in self.features.iter().filter(|feature| feature.used) {
            let mut line = format!("  {}: {}", on_one_line(&feature.name), feature.kind);
            if !feature.categories.is_empty() {
                line += &format!(" ({})", on_one_line(&first_names(&feature.categories)));
            }
            line += &format!(
                "; {} tests, of which {} send missing values left",
                feature.splits, feature.missing_left
            );
            lines.push(line);
        }
        let unused: Vec<_> =
            self.features.iter().filter(|it| !it.used).map(|it| on_one_line(&it.name)).collect();
        if !unused.is_empty() {
            lines.push(format!("  not used by any tree: {}", first_names(&unused)));
        }
        for note in &self.notes {
            lines.push(format!("note         {note}"));
        }
        if let Some(created) = &self.created_pipeline {
            lines.push(format!("pipeline     {}", created.line()));
            lines.extend(created.paragraphs());
        } else if let Some(pipeline) = &self.pipeline {
            lines.push("an ingest pipeline that adds the prediction to each document:".to_owned());
            lines.push(format!("PUT _ingest/pipeline/{}", self.model_id));
            // A map of texts always serializes.
            lines.push(serde_json::to_string_pretty(pipeline).unwrap_or_default());
        }
        lines.join("\n")
    }
}
