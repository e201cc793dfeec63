//! Options of tree models, and functions that several commands share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;
use serde_json::Value;

use super::command_error::CommandError;
use super::report::Report;
use crate::mapped_file::MappedFile;
use crate::model_id::ModelId;
use crate::observer::Progress;
use crate::source::hub::{Hub, HubName, Revision};
use crate::trees::configuration::{ConfigurationOptions, RankingConfiguration, TreeModel};
use crate::trees::{
    self, DefinitionOptions, Ensemble, FeatureKind, LabelType, ReadOptions, Target, Totals,
    TreeError, check,
};

/// Options that select a tree model and control its definition.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tree model")]
pub(super) struct TreeModelArguments {
    /// Tree model of XGBoost, LightGBM or scikit-learn: a file, or ID/FILE on the hub
    #[arg(long, value_name = "FILE")]
    tree_model: Option<String>,
    /// Names of the document fields, in the order of the training columns [default: the names in the file]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "tree_model")]
    feature_names: Option<Vec<String>>,
    /// File with the names of the document fields, one per line
    #[arg(long, value_name = "FILE", requires = "tree_model", conflicts_with = "feature_names")]
    feature_names_file: Option<PathBuf>,
    /// Labels of the classes, in their order [default: the labels in the file, or 0, 1, …]
    #[arg(long, value_name = "LABELS", value_delimiter = ',', requires = "tree_model")]
    classification_labels: Option<Vec<String>>,
    /// Numbers by which the probabilities of the classes are multiplied before the best class is chosen
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "tree_model")]
    classification_weights: Option<Vec<f64>>,
    /// What the model predicts: regression, classification or ranking [default: from the file]
    #[arg(long, value_name = "TARGET", requires = "tree_model")]
    target: Option<Target>,
    /// Import the exact probability of this class as a regression, for forests of scikit-learn
    #[arg(long, value_name = "LABEL", requires = "tree_model")]
    output_class: Option<String>,
    /// Use all trees of a model that was trained with early stopping
    #[arg(long, requires = "tree_model")]
    all_rounds: bool,
    /// Store the number of training samples of each node, which feature importance needs
    #[arg(long, requires = "tree_model")]
    with_sample_counts: bool,
    /// Features whose document fields are booleans, which Elasticsearch would otherwise treat as missing values
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "tree_model")]
    boolean_fields: Vec<String>,
    /// Type of the predicted label: string, number or boolean [default: the type of the labels in the file]
    #[arg(long, value_name = "TYPE", requires = "tree_model")]
    prediction_field_type: Option<LabelType>,
    /// Number of classes to return with their probabilities; -1 for all
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "tree_model")]
    num_top_classes: Option<i32>,
    /// Number of features whose influence on the prediction is returned; needs --with-sample-counts
    #[arg(long, value_name = "N", requires = "tree_model")]
    feature_importance: Option<u32>,
    /// Field of the result that contains the prediction [default: predicted_value]
    #[arg(long, value_name = "NAME", requires = "tree_model")]
    results_field: Option<String>,
    /// Read a feature from another document field; can be repeated
    #[arg(long, value_name = "FIELD=FEATURE", value_parser = field_map, requires = "tree_model")]
    default_field_map: Vec<(String, String)>,
    /// Description of the model [default: library, objective and number of trees]
    #[arg(long, value_name = "TEXT", requires = "tree_model")]
    description: Option<String>,
    /// Tag of the model; can be repeated
    #[arg(long, value_name = "TAG", requires = "tree_model")]
    tag: Vec<String>,
    /// Feature extractors for learning to rank: a JSON file in the format of Elasticsearch
    #[arg(long, value_name = "FILE", requires = "tree_model")]
    ltr_config: Option<PathBuf>,
}

/// Options of text models that do not apply to tree models.
pub(super) const TREE_MODEL_CONFLICTS: [&str; 6] = [
    "task_type",
    "ingest_prefix",
    "search_prefix",
    "max_model_input_length",
    "quantize",
    "prompts",
];

fn field_map(text: &str) -> Result<(String, String), String> {
    let (field, feature) = text.split_once('=').ok_or("write FIELD=FEATURE")?;
    Ok((field.to_owned(), feature.to_owned()))
}

/// A tree model from a file, with its options.
pub(super) struct ReadTreeModel {
    pub(super) ensemble: Ensemble,
    pub(super) totals: Totals,
    pub(super) options: DefinitionOptions,
    settings: ConfigurationOptions,
}

impl TreeModelArguments {
    /// Whether a tree model is selected.
    pub(super) fn is_set(&self) -> bool {
        self.tree_model.is_some()
    }

    /// The id in Elasticsearch: the one that the user set, or one derived from the file's name.
    pub(super) fn model_id(&self, set: Option<&ModelId>) -> Result<ModelId, CommandError> {
        if let Some(id) = set {
            return Ok(id.clone());
        }
        let name = self.tree_model.as_deref().unwrap_or_default();
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        Ok(ModelId::derive(stem)?)
    }

    /// Reads the model from a file or from the hub.
    pub(super) async fn read(
        &self,
        hub: impl FnOnce() -> Result<Hub, CommandError>,
        progress: &Progress,
    ) -> Result<ReadTreeModel, CommandError> {
        let name = self.tree_model.clone().unwrap_or_default();
        let path = self.path(&name, hub, progress).await?;
        let file = MappedFile::open(&path)
            .map_err(|source| TreeError::Io { path: path.clone(), source })?;
        let read = ReadOptions { all_rounds: self.all_rounds, ..ReadOptions::default() };
        let ensemble = trees::read(file.as_ref(), &read)?;
        let totals = ensemble.check("tree model")?;
        let ranking = self.ltr_config.as_deref().map(RankingConfiguration::read).transpose()?;
        let names = match (&self.feature_names, &self.feature_names_file) {
            (Some(names), _) => Some(names.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| TreeError::Io { path: path.clone(), source })?;
                Some(
                    text.lines()
                        .map(str::trim)
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned)
                        .collect(),
                )
            }
            (None, None) => {
                ranking.as_ref().and_then(|ranking| ensemble.named_by_extractors(ranking))
            }
        };
        let options = DefinitionOptions {
            feature_names: names,
            labels: self.classification_labels.clone(),
            weights: self.classification_weights.clone(),
            target: self.target.or(ranking.as_ref().map(|_| Target::Ranking)),
            output_class: self.output_class.clone(),
            sample_counts: self.with_sample_counts,
            boolean_features: self.boolean_fields.clone(),
            label_type: self.prediction_field_type,
        };
        let settings = ConfigurationOptions {
            description: self.description.clone(),
            tags: self.tag.clone(),
            results_field: self.results_field.clone(),
            num_top_classes: self.num_top_classes,
            feature_importance: self.feature_importance,
            default_field_map: self.default_field_map.iter().cloned().collect::<BTreeMap<_, _>>(),
            ranking,
        };
        Ok(ReadTreeModel { ensemble, totals, options, settings })
    }

    async fn path(
        &self,
        name: &str,
        hub: impl FnOnce() -> Result<Hub, CommandError>,
        progress: &Progress,
    ) -> Result<PathBuf, CommandError> {
        let path = PathBuf::from(name);
        if path.exists() {
            return Ok(path);
        }
        let missing =
            || TreeError::Io { path: path.clone(), source: std::io::ErrorKind::NotFound.into() };
        let Ok(HubName { id, revision, file: Some(file) }) = name.parse::<HubName>() else {
            return Err(missing().into());
        };
        let revision: Revision = revision.unwrap_or_default();
        let plan = hub()?.plan_file(&id, &revision, &file).await?;
        Ok(plan.download(progress).await?.folder.join(file))
    }
}

impl ReadTreeModel {
    /// Creates the definition, checks it if requested, and adds the configuration.
    pub(super) fn model(
        &self,
        model_id: ModelId,
        is_checked: bool,
    ) -> Result<TreeModel, CommandError> {
        let definition = self.ensemble.define(&self.options)?;
        definition.check_limits()?;
        if is_checked {
            let checked = check::check(&self.ensemble, &definition, &self.options)?;
            tracing::info!(
                "self-check: the definition agrees with the file in {} decisions and {} predictions",
                checked.leaves,
                checked.predictions
            );
        }
        for note in &definition.notes {
            tracing::warn!("{note}");
        }
        Ok(TreeModel::new(model_id, &self.ensemble, definition, &self.options, &self.settings)?)
    }

    /// Names of the document fields, in the order of the features.
    pub(super) fn names(&self) -> Vec<String> {
        match &self.options.feature_names {
            Some(names) => names.clone(),
            None => self.ensemble.features.iter().map(|feature| feature.name.clone()).collect(),
        }
    }
}

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
    pipeline: Option<Value>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
}

impl TreeModelReport {
    pub(super) fn of(read: &ReadTreeModel, model: &TreeModel) -> Self {
        let definition = &model.definition;
        let origin = &read.ensemble.origin;
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
            FeatureReport { used: definition.fields.contains(&name), name, kind, categories }
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
            file: None,
        }
    }
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
            lines.push(format!("labels       {}", self.labels.join(", ")));
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
        for feature in &self.features {
            let unused = if feature.used { "" } else { ", not used by any tree" };
            let mut line = format!("  {}: {}{unused}", feature.name, feature.kind);
            if !feature.categories.is_empty() {
                const SHOWN: usize = 8;
                let names: Vec<_> = feature.categories.iter().take(SHOWN).cloned().collect();
                let more = if feature.categories.len() > SHOWN { ", …" } else { "" };
                line += &format!(" ({}{more})", names.join(", "));
            }
            lines.push(line);
        }
        for note in &self.notes {
            lines.push(format!("note         {note}"));
        }
        if let Some(pipeline) = &self.pipeline {
            lines.push(format!("pipeline     PUT _ingest/pipeline/{} {pipeline}", self.model_id));
        }
        lines.join("\n")
    }
}
