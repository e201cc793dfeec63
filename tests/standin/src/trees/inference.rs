//! `inference_config` of tree models, and the form of their answers.

use serde_json::{Map, Value, json};

use super::definition::{Output, Target, best};
use crate::errors::ApiError;
use crate::json::Object;
use crate::version::Version;

/// The first release with learning to rank.
const LEARNING_TO_RANK: Version = Version::new(8, 12, 0);

#[derive(Debug, Clone)]
pub(super) enum InferenceConfig {
    Regression { results_field: Option<String>, importance: i32 },
    Classification(Classification),
    LearningToRank(Map<String, Value>),
}

#[derive(Debug, Clone)]
pub(super) struct Classification {
    results_field: Option<String>,
    importance: i32,
    num_top_classes: i32,
    top_classes_results_field: Option<String>,
    field_type: FieldType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldType {
    Text,
    Number,
    Boolean,
}

impl InferenceConfig {
    pub(super) fn parse(value: Value, version: Version) -> Result<Self, ApiError> {
        let mut outer = Object::new("inference_config", value)?;
        let Some((name, settings)) = outer.take_any() else {
            return Err(ApiError::parse("[1:1] [inference_config] expected a named configuration"));
        };
        outer.finish()?;
        match name.as_str() {
            "regression" => {
                let mut fields = Object::new("regression", settings)?;
                let config = Self::Regression {
                    results_field: fields.string("results_field")?,
                    importance: fields.int("num_top_feature_importance_values")?.unwrap_or(0),
                };
                fields.finish()?;
                Ok(config)
            }
            "classification" => {
                let mut fields = Object::new("classification", settings)?;
                let field_type = match fields.string("prediction_field_type")?.as_deref() {
                    None | Some("string") => FieldType::Text,
                    Some("number") => FieldType::Number,
                    Some("boolean") => FieldType::Boolean,
                    Some(other) => {
                        return Err(ApiError::illegal_argument(format!(
                            "No enum constant org.elasticsearch.xpack.core.ml.inference.trainedmodel.PredictionFieldType.{}",
                            other.to_ascii_uppercase()
                        )));
                    }
                };
                let config = Self::Classification(Classification {
                    results_field: fields.string("results_field")?,
                    importance: fields.int("num_top_feature_importance_values")?.unwrap_or(0),
                    num_top_classes: fields.int("num_top_classes")?.unwrap_or(0),
                    top_classes_results_field: fields.string("top_classes_results_field")?,
                    field_type,
                });
                fields.finish()?;
                Ok(config)
            }
            "learning_to_rank" if version >= LEARNING_TO_RANK => {
                let kept = settings.as_object().cloned().unwrap_or_default();
                let mut fields = Object::new("learning_to_rank", settings)?;
                fields.int("num_top_feature_importance_values")?;
                fields.object("default_params")?;
                let extractors = fields.take("feature_extractors");
                fields.finish()?;
                check_extractors(extractors)?;
                Ok(Self::LearningToRank(kept))
            }
            other => Err(ApiError::unknown_object("StrictlyParsedInferenceConfig", other)),
        }
    }

    pub(super) fn is_ranking(&self) -> bool {
        matches!(self, Self::LearningToRank(_))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Regression { .. } => "regression",
            Self::Classification(_) => "classification",
            Self::LearningToRank(_) => "learning_to_rank",
        }
    }

    pub(super) fn target(&self) -> Target {
        match self {
            Self::Classification(_) => Target::Classification,
            _ => Target::Regression,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Regression { results_field, importance } => json!({"regression": {
                "results_field": results_field.as_deref().unwrap_or("predicted_value"),
                "num_top_feature_importance_values": importance,
            }}),
            Self::Classification(config) => json!({"classification": {
                "num_top_classes": config.num_top_classes,
                "top_classes_results_field": config.top_classes_results_field.as_deref().unwrap_or("top_classes"),
                "results_field": config.results_field.as_deref().unwrap_or("predicted_value"),
                "num_top_feature_importance_values": config.importance,
                "prediction_field_type": match config.field_type {
                    FieldType::Text => "string",
                    FieldType::Number => "number",
                    FieldType::Boolean => "boolean",
                },
            }}),
            Self::LearningToRank(config) => json!({"learning_to_rank": config}),
        }
    }

    /// The configuration with the settings of one call.
    pub(super) fn updated(&self, update: Option<Value>) -> Result<Self, ApiError> {
        let mut updated = self.clone();
        let Some(update) = update else { return Ok(updated) };
        let mut outer = Object::new("inference_config", update)?;
        let Some((name, settings)) = outer.take_any() else { return Ok(updated) };
        outer.finish()?;
        if name != self.name() {
            return Err(ApiError::bad_request(format!(
                "Trained model is configured for [{}] but called with [{name}]",
                self.name()
            )));
        }
        let mut fields = Object::new("inference_config_update", settings)?;
        match &mut updated {
            Self::Regression { results_field, .. } => {
                *results_field = fields.string("results_field")?.or(results_field.take());
            }
            Self::Classification(config) => {
                config.results_field =
                    fields.string("results_field")?.or(config.results_field.take());
                if let Some(count) = fields.int("num_top_classes")? {
                    config.num_top_classes = count;
                }
            }
            Self::LearningToRank(_) => {}
        }
        fields.finish()?;
        Ok(updated)
    }

    /// The answer for one document.
    pub(super) fn result(
        &self,
        output: Output,
        labels: Option<&[String]>,
        weights: Option<&[f64]>,
    ) -> Result<Value, ApiError> {
        match (self, output) {
            (Self::Regression { results_field, .. }, Output::Value(value)) => {
                let field = results_field.as_deref().unwrap_or("predicted_value");
                Ok(json!({field: value}))
            }
            (Self::Classification(config), Output::Probabilities(probabilities)) => {
                config.result(&probabilities, labels, weights)
            }
            _ => Err(ApiError::server("the output does not fit the inference configuration")),
        }
    }
}

impl Classification {
    fn result(
        &self,
        probabilities: &[f64],
        labels: Option<&[String]>,
        weights: Option<&[f64]>,
    ) -> Result<Value, ApiError> {
        if labels.is_some_and(|labels| labels.len() != probabilities.len()) {
            return Err(ApiError::server(format!(
                "model returned classification probabilities of size [{}] which is not equal to classification labels size [{}]",
                probabilities.len(),
                labels.map_or(0, <[String]>::len)
            )));
        }
        if weights.is_some_and(|weights| weights.len() != probabilities.len()) {
            return Err(ApiError::server("classification weights do not fit the probabilities"));
        }
        let scores: Vec<f64> = match weights {
            Some(weights) => probabilities.iter().zip(weights).map(|(p, w)| p * w).collect(),
            None => probabilities.to_vec(),
        };
        let value = |class: usize| match labels {
            Some(labels) => self.field_type.value(&labels[class], class),
            None => self.field_type.value(&class.to_string(), class),
        };
        let winner = best(&scores);
        let field = self.results_field.as_deref().unwrap_or("predicted_value");
        let mut answer = Map::new();
        answer.insert(field.to_owned(), value(winner));
        if self.num_top_classes != 0 {
            let mut order: Vec<_> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let count = usize::try_from(self.num_top_classes).unwrap_or(usize::MAX);
            let top: Vec<_> = order
                .into_iter()
                .take(count)
                .map(|class| {
                    json!({"class_name": value(class), "class_probability": probabilities[class], "class_score": scores[class]})
                })
                .collect();
            let field = self.top_classes_results_field.as_deref().unwrap_or("top_classes");
            answer.insert(field.to_owned(), top.into());
        }
        answer.insert("prediction_probability".to_owned(), probabilities[winner].into());
        answer.insert("prediction_score".to_owned(), scores[winner].into());
        Ok(answer.into())
    }
}

impl FieldType {
    fn value(self, label: &str, class: usize) -> Value {
        match self {
            Self::Text => label.into(),
            Self::Number => {
                label.parse::<i64>().map_or_else(|_| (class as f64).into(), Value::from)
            }
            Self::Boolean => match label {
                "true" => true.into(),
                "false" => false.into(),
                _ => (class == 1).into(),
            },
        }
    }
}

fn check_extractors(extractors: Option<Value>) -> Result<(), ApiError> {
    let Some(extractors) = extractors else { return Ok(()) };
    let wrong = |reason: &str| ApiError::illegal_argument(reason.to_owned());
    let extractors =
        extractors.as_array().ok_or_else(|| wrong("[feature_extractors] must be an array"))?;
    let mut names = Vec::new();
    for extractor in extractors {
        let mut outer = Object::new("feature_extractors", extractor.clone())?;
        let Some(settings) = outer.take("query_extractor") else {
            return Err(wrong("unknown feature extractor"));
        };
        outer.finish()?;
        let mut fields = Object::new("query_extractor", settings)?;
        let name =
            fields.string("feature_name")?.ok_or_else(|| wrong("Required [feature_name]"))?;
        fields.object("query")?.ok_or_else(|| wrong("Required [query]"))?;
        let score = fields.take("default_score");
        fields.finish()?;
        if score.is_some_and(|score| !score.as_f64().is_some_and(|score| score >= 0.0)) {
            return Err(wrong("[default_score] must be positive"));
        }
        if names.contains(&name) {
            return Err(wrong("[feature_extractors] contains duplicate [feature_name] values"));
        }
        names.push(name);
    }
    Ok(())
}

/// The value at a path (the server's `MapHelper.dig`): anything but null, also an object. Of several values, the one under the longer
/// name.
pub(super) fn dig<'a>(document: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let parts: Vec<&str> = path.split('.').collect();
    let whole = document.get(path).filter(|value| !value.is_null());
    let mut pending = vec![(document, 0)];
    while let (None, Some((fields, start))) = (whole, pending.pop()) {
        for end in start + 1..=parts.len() {
            match fields.get(&parts[start..end].join(".")) {
                None | Some(Value::Null) => {}
                found if end == parts.len() => return found,
                Some(Value::Object(inner)) => pending.push((inner, end)),
                Some(_) => {}
            }
        }
    }
    whole
}

/// The number of a field: a JSON number, or a text that Java reads as a double. NaN and infinities are missing.
pub(super) fn to_double(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().trim_end_matches(['d', 'D', 'f', 'F']).parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The text that Java makes of a value.
pub(super) fn java_string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let plain = number == 0.0 || (number.abs() >= 1e-3 && number.abs() < 1e7);
            if plain {
                return format!("{number:?}");
            }
            let scientific = format!("{number:E}");
            if scientific.contains('.') { scientific } else { scientific.replacen('E', ".0E", 1) }
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(java_string).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| format!("{name}={}", java_string(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
