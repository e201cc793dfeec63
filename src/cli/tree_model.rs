//! Options of tree models, and functions that several commands share.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use super::command_error::CommandError;
use super::option_value::{SetOption, Unset, Value};
use crate::mapped_file::MappedFile;
use crate::model_id::ModelId;
use crate::observer::Progress;
use crate::source::Origin;
use crate::source::hub::{Hub, HubName, HubOptions, HubSettings, RepositoryId, Revision};
use crate::trees::configuration::{
    ConfigurationOptions, RankingConfiguration, TreeModel, check_tag,
};
use crate::trees::ensemble::{Node, Side};
use crate::trees::{
    self, Classes, DefinitionOptions, Ensemble, Feature, LabelType, ReadOptions, Target, Totals,
    TreeError, check,
};

/// Options that select a tree model and control its definition.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct TreeModelArguments {
    /// Tree model of XGBoost, LightGBM, scikit-learn or ONNX: a file, or ID/FILE on the hub
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
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
    /// What the model predicts [default: from the file]
    #[arg(long, value_name = "TARGET", requires = "tree_model",
        value_parser = PossibleValuesParser::new(TARGETS).try_map(|name| name.parse::<Target>()))]
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
    /// Type of the predicted label [default: the type of the labels in the file]
    #[arg(long, value_name = "TYPE", requires = "tree_model",
        value_parser = PossibleValuesParser::new(LABEL_TYPES).try_map(|name| name.parse::<LabelType>()))]
    prediction_field_type: Option<LabelType>,
    /// Number of classes to return with their probabilities; -1 for all
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "tree_model",
        value_parser = clap::value_parser!(i32).range(-1..))]
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
    #[arg(long, value_name = "TAG", value_parser = tag, requires = "tree_model")]
    tag: Vec<String>,
    /// Feature extractors for learning to rank: a JSON file in the format of Elasticsearch
    #[arg(long, value_name = "FILE", requires = "tree_model")]
    ltr_config: Option<PathBuf>,
}

/// The heading of the options in the help.
pub(super) const HEADING: &str = "Tree model";

/// Values of `--target`.
const TARGETS: [&str; 3] = ["regression", "classification", "ranking"];

/// Values of `--prediction-field-type`.
const LABEL_TYPES: [&str; 3] = ["string", "number", "boolean"];

/// The field of an answer that holds the prediction, unless the configuration names another one.
pub(super) const RESULTS_FIELD: &str = "predicted_value";

/// Options of text models that do not apply to tree models.
pub(super) const TREE_MODEL_CONFLICTS: [&str; 12] = [
    "task_type",
    "part",
    "lora_task",
    "ingest_prefix",
    "search_prefix",
    "max_model_input_length",
    "dimensions",
    "scripts",
    "languages",
    "quantize",
    "prompts",
    "allow_inexact_tokenizer",
];

/// The hub, and the revision that an option names.
pub(super) struct TreeSource<'a> {
    pub(super) revision: Option<&'a Revision>,
    pub(super) hub: Box<dyn Fn() -> Result<Hub, CommandError> + 'a>,
}

impl TreeSource<'_> {
    /// The hub with the settings of the environment.
    pub(super) fn from_environment() -> Self {
        let hub = || Ok(Hub::new(HubSettings::from_environment(HubOptions::default())?)?);
        Self { revision: None, hub: Box::new(hub) }
    }
}

/// Where the file of a tree model is.
enum Place {
    File(PathBuf),
    Hub { id: RepositoryId, revision: Option<Revision>, file: String },
}

impl SetOption for TreeModelArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "tree-model" => self.tree_model = Some(value.parsed()?),
            "feature-names" => self.feature_names = Some(texts(value)?),
            "feature-names-file" => self.feature_names_file = Some(value.parsed()?),
            "classification-labels" => self.classification_labels = Some(texts(value)?),
            "classification-weights" => {
                let weights = texts(value)?;
                let weights = weights.into_iter().map(|text| Value::Text(text).parsed());
                self.classification_weights = Some(weights.collect::<Result<_, _>>()?);
            }
            "target" => self.target = Some(value.parsed()?),
            "output-class" => self.output_class = Some(value.parsed()?),
            "all-rounds" => self.all_rounds = value.switch()?,
            "with-sample-counts" => self.with_sample_counts = value.switch()?,
            "boolean-fields" => self.boolean_fields = texts(value)?,
            "prediction-field-type" => self.prediction_field_type = Some(value.parsed()?),
            "num-top-classes" => self.num_top_classes = Some(value.parsed()?),
            "feature-importance" => self.feature_importance = Some(value.parsed()?),
            "results-field" => self.results_field = Some(value.parsed()?),
            "default-field-map" => {
                let maps = list(value)?.into_iter().map(|text| field_map(&text));
                self.default_field_map = maps.collect::<Result<_, _>>()?;
            }
            "description" => self.description = Some(value.parsed()?),
            "tag" => {
                let tags = list(value)?.into_iter().map(|text| tag(&text));
                self.tag = tags.collect::<Result<_, _>>()?;
            }
            "ltr-config" => self.ltr_config = Some(value.parsed()?),
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

/// The items of a list; one text is one item.
fn list(value: &Value) -> Result<Vec<String>, Unset> {
    match value {
        Value::List(items) => Ok(items.clone()),
        one => Ok(vec![one.text()?.to_owned()]),
    }
}

/// The items of a list; one text may hold several, separated by commas.
fn texts(value: &Value) -> Result<Vec<String>, Unset> {
    match value {
        Value::List(items) => Ok(items.clone()),
        one => Ok(one.text()?.split(',').map(str::to_owned).collect()),
    }
}

fn tag(text: &str) -> Result<String, String> {
    check_tag(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

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

    /// The id of the model. If the user does not set one, it is derived from the name of the file; `org/name/model.ubj` on the hub becomes
    /// `org__name__model`.
    pub(super) fn model_id(&self, set: Option<&ModelId>) -> Result<ModelId, CommandError> {
        if let Some(id) = set {
            return Ok(id.clone());
        }
        let stem = |path: &Path| {
            path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned()
        };
        Ok(ModelId::derive(&match self.place() {
            Place::File(path) => stem(&path),
            Place::Hub { id, file, .. } => format!("{id}/{}", stem(Path::new(&file))),
        })?)
    }

    /// Where the file is. An existing file or folder takes precedence over the hub.
    fn place(&self) -> Place {
        let name = self.tree_model.as_deref().unwrap_or_default();
        let path = PathBuf::from(name);
        if !path.exists()
            && let Ok(HubName { id, revision, file: Some(file) }) = name.parse()
        {
            return Place::Hub { id, revision, file };
        }
        Place::File(path)
    }

    /// Reads the model from a file or from the hub.
    pub(super) async fn read(
        &self,
        source: &TreeSource<'_>,
        progress: &Progress,
    ) -> Result<ReadTreeModel, CommandError> {
        let (path, origin) = self.path(source, progress).await?;
        if path.is_dir() {
            return Err(CommandError::Usage(format!(
                "{} is a folder; set --tree-model to the model's file in it",
                path.display()
            )));
        }
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
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
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
            default_field_map: self.field_map()?,
            ranking,
            hub: origin.map(|origin| (origin.model_id, origin.commit)),
        };
        Ok(ReadTreeModel { ensemble, totals, options, settings })
    }

    /// The feature of each document field.
    fn field_map(&self) -> Result<BTreeMap<String, String>, CommandError> {
        let mut map = BTreeMap::new();
        for (field, feature) in &self.default_field_map {
            if map.insert(field.clone(), feature.clone()).is_some() {
                return Err(CommandError::Usage(format!(
                    "--default-field-map maps the field {field:?} twice"
                )));
            }
        }
        Ok(map)
    }

    /// The file on this machine, downloaded if it is on the hub, and its origin there.
    async fn path(
        &self,
        source: &TreeSource<'_>,
        progress: &Progress,
    ) -> Result<(PathBuf, Option<Origin>), CommandError> {
        let (id, own, file) = match self.place() {
            Place::File(path) => {
                if source.revision.is_some() && path.exists() {
                    return Err(CommandError::Usage(format!(
                        "--revision selects a revision of a hub repository, but {} is a file; remove --revision",
                        path.display()
                    )));
                }
                return Ok((path, None));
            }
            Place::Hub { id, revision, file } => (id, revision, file),
        };
        let revision = match (own, source.revision) {
            (Some(one), Some(other)) if one != *other => {
                return Err(CommandError::Usage(format!(
                    "--tree-model names the revision {one}, and --revision names {other}; remove one of them"
                )));
            }
            (one, other) => one.or_else(|| other.cloned()).unwrap_or_default(),
        };
        let plan = (source.hub)()?.plan_file(&id, &revision, &file).await?;
        let snapshot = plan.download(progress).await?;
        Ok((snapshot.folder.join(file), Some(snapshot.origin)))
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

    /// Checks the options without writing the definition. Returns the classes and what the model predicts.
    pub(super) fn check_options(&self) -> Result<(Classes, Target), CommandError> {
        let (classes, target) = self.ensemble.check_options(&self.options)?;
        self.settings.check(target, self.options.sample_counts, &self.names())?;
        Ok((classes, target))
    }

    /// For each feature, the number of tests in all trees, and how many of them send missing values to the left child.
    pub(super) fn splits(&self) -> Vec<(u64, u64)> {
        let mut splits = vec![(0, 0); self.ensemble.features.len()];
        for node in self.ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Split { feature, missing, .. } = node
                && let Some((all, left)) = splits.get_mut(*feature as usize)
            {
                *all += 1;
                *left += u64::from(*missing == Side::Left);
            }
        }
        splits
    }

    /// The field that a feature is read from if the document has no field with the feature's name.
    pub(super) fn mapped_fields(&self) -> HashMap<&str, &str> {
        let fields = self.settings.default_field_map.iter();
        fields.map(|(field, feature)| (feature.as_str(), field.as_str())).collect()
    }

    /// The field of the answer that holds the prediction.
    pub(super) fn results_field(&self) -> &str {
        self.settings.results_field.as_deref().unwrap_or(RESULTS_FIELD)
    }

    /// The number of classes in an answer; negative for all.
    pub(super) fn top_classes(&self) -> i32 {
        self.settings.num_top_classes.unwrap_or(0)
    }

    /// Whether the file or the options name the features.
    pub(super) fn has_names(&self) -> bool {
        let is_default = |(index, feature): (usize, &Feature)| {
            [format!("f{index}"), format!("Column_{index}")].contains(&feature.name)
        };
        self.options.feature_names.is_some()
            || !self.ensemble.features.iter().enumerate().all(is_default)
    }

    /// Names of the document fields, in the order of the features.
    pub(super) fn names(&self) -> Vec<String> {
        match &self.options.feature_names {
            Some(names) => names.clone(),
            None => self.ensemble.features.iter().map(|feature| feature.name.clone()).collect(),
        }
    }
}
