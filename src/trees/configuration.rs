//! The body of the request that creates a tree model: configuration and definition.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Value, json};
use sha2::{Digest, Sha256};

use super::definition::{Definition, Target};
use super::ensemble::Ensemble;
use super::{DefinitionOptions, TreeError};
use crate::hexadecimal::hexadecimal;
use crate::model_id::ModelId;
use crate::version::{Target as Release, Version};

/// The first release with learning to rank, as a preview.
pub const LEARNING_TO_RANK: Version = Version::new(8, 12, 0);

/// The release from which on learning to rank is generally available, and the field names of such a model must be empty.
pub const LEARNING_TO_RANK_GENERAL: Version = Version::new(8, 15, 0);

/// Key of the metadata for the SHA-256 of the definition's JSON.
const DEFINITION_SHA256: &str = "definition_sha256";

/// Key of the metadata for the SHA-256 of definition and configuration.
const BUNDLE_SHA256: &str = "bundle_sha256";

/// Key of the metadata for the library's objective, or the estimator's class.
pub const OBJECTIVE: &str = "objective";

/// Key of the metadata for the number of trees.
pub const TREES: &str = "trees";

/// Key of the metadata for the number of nodes of all trees.
pub const NODES: &str = "nodes";

/// What the configuration says beside the definition.
#[derive(Debug, Clone, Default)]
pub struct ConfigurationOptions {
    /// A description. Default: the library, the objective and the size of the model.
    pub description: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// The field of the answer that holds the prediction. Default: `predicted_value`.
    pub results_field: Option<String>,
    /// Classes in the answer, best first; -1 for all.
    pub num_top_classes: Option<i32>,
    /// Features in the answer, with their influence. Needs sample counts in the definition.
    pub feature_importance: Option<u32>,
    /// Document field to feature name.
    pub default_field_map: BTreeMap<String, String>,
    /// Hub id and commit of the file, if it comes from the hub.
    pub hub: Option<(String, String)>,
    /// Feature extractors, for learning to rank.
    pub ranking: Option<RankingConfiguration>,
}

/// The configuration of learning to rank.
#[derive(Debug, Clone, PartialEq)]
pub struct RankingConfiguration {
    /// The object that Elasticsearch stores.
    object: JsonMap<String, Value>,
    /// The features that the extractors compute, in their order.
    pub features: Vec<String>,
}

impl RankingConfiguration {
    /// Reads a configuration file: an object with `feature_extractors`, or one within `learning_to_rank`.
    ///
    /// # Errors
    /// When it is not what Elasticsearch accepts.
    pub fn read(path: &Path) -> Result<Self, TreeError> {
        let text = std::fs::read(path)
            .map_err(|source| TreeError::Io { path: path.to_owned(), source })?;
        let value = serde_json::from_slice(&text)
            .map_err(|error| TreeError::Options(format!("{}: {error}", path.display())))?;
        Self::parse(value)
            .map_err(|reason| TreeError::Options(format!("{}: {reason}", path.display())))
    }

    /// Checks a configuration.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(value: Value) -> Result<Self, String> {
        let Value::Object(mut object) = value else {
            return Err("expected a JSON object".to_owned());
        };
        for wrapper in ["inference_config", "learning_to_rank"] {
            if let Some(Value::Object(inner)) = object.get(wrapper).cloned() {
                object = inner;
            }
        }
        for key in object.keys() {
            if !["feature_extractors", "default_params", "num_top_feature_importance_values"]
                .contains(&key.as_str())
            {
                return Err(format!("unknown key {key:?}"));
            }
        }
        let extractors = object.get("feature_extractors").and_then(Value::as_array);
        let extractors = extractors.ok_or("feature_extractors is missing or not a list")?;
        let mut features = Vec::new();
        for extractor in extractors {
            let settings = extractor.get("query_extractor").and_then(Value::as_object);
            let settings = settings.ok_or("a feature extractor is not a query_extractor")?;
            if let Some(key) = settings
                .keys()
                .find(|key| !["feature_name", "query", "default_score"].contains(&key.as_str()))
            {
                return Err(format!("a query_extractor has the unknown key {key:?}"));
            }
            let name = settings.get("feature_name").and_then(Value::as_str);
            let name = name.ok_or("a query_extractor has no feature_name")?;
            if features.iter().any(|other| other == name) {
                return Err(format!("two extractors have the feature_name {name:?}"));
            }
            let query = settings.get("query").filter(|query| query.is_object());
            let query = query.ok_or_else(|| format!("the extractor of {name:?} has no query"))?;
            check_templates(query).map_err(|reason| format!("the query of {name:?}: {reason}"))?;
            if let Some(score) = settings.get("default_score")
                && !score.as_f64().is_some_and(|score| score >= 0.0)
            {
                return Err(format!("the default_score of {name:?} is not a number of at least 0"));
            }
            features.push(name.to_owned());
        }
        Ok(Self { object, features })
    }
}

impl ConfigurationOptions {
    /// Checks that the options have an effect on a model with this target and these features.
    ///
    /// # Errors
    /// The first option that does not.
    pub fn check(
        &self,
        target: Target,
        has_sample_counts: bool,
        features: &[String],
    ) -> Result<(), TreeError> {
        let refuse = |reason: &str| Err(TreeError::Options(reason.to_owned()));
        if self.feature_importance.is_some() && !has_sample_counts {
            return refuse(
                "feature importance needs the sample counts of the nodes in the definition",
            );
        }
        if let Some(count) = self.num_top_classes {
            if target != Target::Classification {
                return refuse("only a classification has top classes");
            }
            if count < -1 {
                return refuse(
                    "the number of top classes must be at least 0, or -1 for all classes",
                );
            }
        }
        if target == Target::Ranking {
            if self.results_field.is_some() {
                return refuse("a model for learning to rank has no results field");
            }
            if !self.default_field_map.is_empty() {
                return refuse(
                    "a model for learning to rank reads no document fields, so a field map has no effect",
                );
            }
        }
        if let Some(field) = &self.results_field {
            check_results_field(field)?;
        }
        self.tags.iter().try_for_each(|tag| check_tag(tag))?;
        check_field_map(&self.default_field_map, features)
    }
}

/// Checks that each entry of the field map leads to a feature, and at most one entry to each.
fn check_field_map(map: &BTreeMap<String, String>, features: &[String]) -> Result<(), TreeError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (field, feature) in map {
        let refuse = |reason: String| Err(TreeError::Options(reason));
        if field.is_empty() {
            return refuse(format!("the field that is mapped to {feature:?} has no name"));
        }
        if !features.contains(feature) {
            return refuse(format!(
                "the field {field:?} is mapped to {feature:?}, but the model has no feature of that name"
            ));
        }
        if let Some(other) = seen.insert(feature, field) {
            return refuse(format!(
                "the fields {other:?} and {field:?} are both mapped to {feature:?}; map one field to each feature"
            ));
        }
    }
    Ok(())
}

/// Fields that Elasticsearch puts beside the prediction.
const RESULT_FIELDS: [&str; 7] = [
    "prediction_probability",
    "prediction_score",
    "top_classes",
    "feature_importance",
    "model_id",
    "is_truncated",
    "warning",
];

/// Checks a tag, which follows the rules of model ids.
///
/// # Errors
/// The rule that it breaks.
pub fn check_tag(tag: &str) -> Result<(), TreeError> {
    match tag.parse::<ModelId>() {
        Ok(_) => Ok(()),
        Err(error) => Err(TreeError::Options(format!(
            "{tag:?} cannot be a tag, which follows the rules of model ids: {}",
            error.reason()
        ))),
    }
}

/// Checks the name of the field that holds the prediction.
fn check_results_field(field: &str) -> Result<(), TreeError> {
    let refuse = |reason: &str| {
        Err(TreeError::Options(format!("{field:?} cannot hold the prediction: {reason}")))
    };
    if field.split('.').any(|part| part.trim().is_empty()) {
        return refuse("a part of the name is empty");
    }
    if field.trim() != field || field.chars().any(char::is_control) {
        return refuse("the name starts or ends with a space, or has control characters");
    }
    if RESULT_FIELDS.contains(&field) {
        return refuse("Elasticsearch uses a field of that name for another result");
    }
    Ok(())
}

/// Checks that each `{{` has its `}}`, with a name between.
fn check_templates(query: &Value) -> Result<(), String> {
    let mut pending = vec![query];
    while let Some(value) = pending.pop() {
        match value {
            Value::String(text) => {
                let mut rest = text.as_str();
                while let Some((_, after)) = rest.split_once("{{") {
                    let (name, after) = after
                        .split_once("}}")
                        .ok_or_else(|| format!("{text:?} has {{{{ without }}}}"))?;
                    if name.trim().is_empty() {
                        return Err(format!("{text:?} has a parameter without a name"));
                    }
                    rest = after;
                }
            }
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => pending.extend(fields.values()),
            _ => {}
        }
    }
    Ok(())
}

/// A tree model, ready for Elasticsearch.
#[derive(Debug, Clone)]
pub struct TreeModel {
    /// Its id.
    pub model_id: ModelId,
    /// The definition.
    pub definition: Definition,
    /// The oldest Elasticsearch that can serve it.
    pub minimum_version: Version,
    /// The configuration without the definition and without what depends on the release.
    configuration: JsonMap<String, Value>,
}

impl Ensemble {
    /// Gives features without names in the file the names of the extractors, which have the same order.
    #[must_use]
    pub fn named_by_extractors(&self, ranking: &RankingConfiguration) -> Option<Vec<String>> {
        (self.has_default_names() && ranking.features.len() == self.features.len())
            .then(|| ranking.features.clone())
    }
}

impl TreeModel {
    /// Puts definition and configuration together.
    ///
    /// # Errors
    /// When the options do not fit the model.
    pub fn new(
        model_id: ModelId,
        ensemble: &Ensemble,
        definition: Definition,
        options: &DefinitionOptions,
        settings: &ConfigurationOptions,
    ) -> Result<Self, TreeError> {
        let ranks = definition.target == Target::Ranking;
        let refuse = |reason: String| Err(TreeError::Options(reason));
        match (&settings.ranking, ranks) {
            (None, true) => {
                return Err(TreeError::NoExtractors {
                    objective: ensemble.origin.objective.clone(),
                });
            }
            (Some(_), false) => {
                return refuse(
                    "feature extractors belong to learning to rank; set the target to ranking"
                        .to_owned(),
                );
            }
            (Some(ranking), true) => {
                for feature in &definition.fields {
                    if !ranking.features.contains(feature) {
                        return refuse(format!("no extractor computes the feature {feature:?}"));
                    }
                }
                let known: Vec<_> = match &options.feature_names {
                    Some(names) => names.iter().map(String::as_str).collect(),
                    None => ensemble.features.iter().map(|feature| feature.name.as_str()).collect(),
                };
                if let Some(name) =
                    ranking.features.iter().find(|name| !known.contains(&name.as_str()))
                {
                    return refuse(format!(
                        "the model has no feature {name:?}, which an extractor computes"
                    ));
                }
            }
            (None, false) => {}
        }
        settings.check(definition.target, options.sample_counts, &definition.fields)?;
        if settings.tags.iter().any(|tag| tag == model_id.as_str()) {
            return refuse(format!(
                "{:?} is the model's id, so it cannot be a tag",
                model_id.as_str()
            ));
        }
        let mut inference = match &settings.ranking {
            Some(ranking) => ranking.object.clone(),
            None => JsonMap::new(),
        };
        if let Some(count) = settings.feature_importance {
            inference.insert("num_top_feature_importance_values".to_owned(), count.into());
        }
        if let Some(field) = &settings.results_field {
            inference.insert("results_field".to_owned(), field.as_str().into());
        }
        if definition.target == Target::Classification {
            inference
                .insert("prediction_field_type".to_owned(), definition.label_type.name().into());
            if let Some(count) = settings.num_top_classes {
                inference.insert("num_top_classes".to_owned(), count.into());
            }
        }
        let description = settings.description.clone().unwrap_or_else(|| {
            let origin = &ensemble.origin;
            let version =
                origin.version.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
            format!(
                "{} of {}{version}, {} trees",
                origin.objective,
                origin.format,
                ensemble.trees.len()
            )
        });
        let mut configuration = JsonMap::new();
        configuration.insert("description".to_owned(), description.into());
        if !settings.tags.is_empty() {
            configuration.insert("tags".to_owned(), settings.tags.clone().into());
        }
        if !settings.default_field_map.is_empty() {
            configuration.insert("default_field_map".to_owned(), json!(settings.default_field_map));
        }
        configuration
            .insert("inference_config".to_owned(), json!({definition.target.name(): inference}));
        let mut hash = Sha256::new();
        hash.update(&definition.sha256);
        hash.update(json!([configuration, definition.fields]).to_string());
        let origin = &ensemble.origin;
        let mut metadata = json!({
            DEFINITION_SHA256: definition.sha256,
            BUNDLE_SHA256: hexadecimal(&hash.finalize()),
            OBJECTIVE: origin.objective,
            TREES: ensemble.trees.len(),
            NODES: definition.totals.nodes,
        });
        if let Some((id, commit)) = &settings.hub {
            metadata["hub_model_id"] = id.as_str().into();
            metadata["hub_commit"] = commit.as_str().into();
        }
        configuration.insert("metadata".to_owned(), metadata);
        let minimum_version = if ranks { LEARNING_TO_RANK } else { Version::OLDEST };
        Ok(Self { model_id, definition, minimum_version, configuration })
    }

    /// SHA-256 of definition and configuration.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.configuration["metadata"][BUNDLE_SHA256].as_str().unwrap_or_default()
    }

    /// The body of the request that creates the model on a release.
    #[must_use]
    pub fn body(&self, release: Release) -> JsonMap<String, Value> {
        let mut body = self.configuration.clone();
        if self.definition.target != Target::Ranking || !release.has(LEARNING_TO_RANK_GENERAL) {
            body.insert("input".to_owned(), json!({"field_names": self.definition.fields}));
        }
        let encoded = STANDARD.encode(&self.definition.compressed);
        body.insert("compressed_definition".to_owned(), encoded.into());
        body
    }

    /// A pipeline that adds the model's prediction to each document. `None` for learning to rank, which needs a search.
    #[must_use]
    pub fn pipeline(&self) -> Option<Value> {
        (self.definition.target != Target::Ranking).then(|| {
            json!({"processors": [{"inference": {
                "model_id": self.model_id.to_string(),
                "target_field": format!("ml.{}", self.model_id.to_string().replace('.', "_"))
            }}]})
        })
    }
}
