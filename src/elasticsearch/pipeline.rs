//! [`PipelineRequest`]: an ingest pipeline that adds the result of a model to each document. The pipeline is tried on one document before
//! it is stored. A document whose inference fails is indexed nevertheless, with the reason in the field `OUTPUT_error`.

use std::fmt;
use std::str::FromStr;

use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use super::payload::Payload;
use super::pipeline_body::{Definition, NoPipeline, overlapping_fields, update};
use super::{Client, ClientError, DeploymentError, ServedId};
use crate::hint::{Command, Setting, hint};
use crate::model_id::ModelId;

/// The id of an ingest pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PipelineId(String);

/// The name of a field of documents, such as `body` or `page.text`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FieldName(String);

/// An ingest pipeline to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PipelineRequest {
    /// The id of the pipeline.
    pub id: PipelineId,
    /// The field with the text; `body` by default. Tree models read the fields of their features instead.
    pub input_field: Option<FieldName>,
    /// The object for the result; `ml.` and the id of the model by default.
    pub output_field: Option<FieldName>,
    /// Labels for zero-shot classification.
    pub labels: Vec<String>,
    /// Whether to replace a pipeline with this id that does something else.
    pub force: bool,
}

/// What happened to a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum PipelineOutcome {
    /// The pipeline was created.
    Created,
    /// Another pipeline had the id and was replaced.
    Replaced,
    /// The same pipeline existed.
    Unchanged,
}

/// A pipeline that was created and tried.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CreatedPipeline {
    /// The id of the pipeline.
    pub pipeline_id: PipelineId,
    /// The model or deployment that the pipeline uses.
    pub model_id: String,
    /// What happened to the pipeline.
    pub state: PipelineOutcome,
    /// The field with the text; `None` for tree models.
    pub input_field: Option<String>,
    /// The field of documents that contains the result.
    pub result_field: String,
    /// The type of the result's field in a mapping, if Elasticsearch would not choose the right one itself.
    pub mapping: Option<Value>,
    /// The field of documents for the reason of a failed inference.
    pub error_field: String,
    /// The result for the document that was tried.
    pub tried: Value,
}

impl PipelineId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn path(&self) -> String {
        // A pipeline's id follows the rule for ids in paths.
        let segment = self.0.parse::<ServedId>().map(|id| id.segment());
        format!("_ingest/pipeline/{}", segment.unwrap_or_else(|_| self.0.clone()))
    }
}

impl FromStr for PipelineId {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        match id.parse::<ServedId>() {
            Ok(_) if !id.starts_with('_') => Ok(Self(id.to_owned())),
            _ => Err("it is not the id of one pipeline: use letters, digits, hyphens, underscores and dots".into()),
        }
    }
}

impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FieldName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_odd = |c: char| c.is_control() || c.is_whitespace() || "{}*,".contains(c);
        if name.split('.').any(str::is_empty) || name.contains(is_odd) || name.starts_with('_') {
            return Err("use names separated by dots, such as page.text, that do not start with an underscore".into());
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PipelineRequest {
    /// A pipeline with default fields, which replaces no other pipeline.
    #[must_use]
    pub fn new(id: PipelineId) -> Self {
        Self { id, input_field: None, output_field: None, labels: Vec::new(), force: false }
    }

    /// Checks before an import that no pipeline of another model has the id.
    ///
    /// # Errors
    /// [`DeploymentError::PipelineTaken`], or another [`DeploymentError`] if the cluster does not respond.
    pub async fn check(&self, client: &Client, model_id: &ModelId) -> Result<(), DeploymentError> {
        match self.existing(client).await? {
            Some(existing) if !self.force && !uses_model(&existing, model_id.as_str()) => {
                Err(self.taken())
            }
            _ => Ok(()),
        }
    }

    /// Checks that the pipeline does not remove or replace the fields that the model reads. `features` are the fields that a tree model reads;
    /// other models read one text.
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] if it does.
    pub fn check_fields(
        &self,
        id: &ServedId,
        features: Option<&[String]>,
    ) -> Result<(), DeploymentError> {
        let Some((input, output)) = overlapping_fields(self, id, features) else {
            return Ok(());
        };
        Err(DeploymentError::settings(
            format!(
                "the ingest pipeline {} cannot store its result in the field {output}, because it would remove or replace the field {input}, \
                 which the model reads",
                self.id
            ),
            hint!("Set another field with ", Setting::OutputField, "."),
        ))
    }

    /// Checks before an import that a pipeline can use a model for a task. `model_id` is the model or its deployment, and `settings` are those of
    /// the task, as far as they are known.
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] if the pipeline would remove or replace the text, or [`DeploymentError::NoPipeline`] if a model for the
    /// task needs more than a text.
    pub fn check_task(
        &self,
        model_id: &ServedId,
        task: &str,
        settings: &Value,
    ) -> Result<(), DeploymentError> {
        self.check_fields(model_id, None)?;
        update(self, task, settings).map(drop).map_err(|error| self.failed(model_id, error))
    }

    /// Tries the pipeline on one document, and stores it. `id` is a model or a deployment.
    ///
    /// # Errors
    /// [`DeploymentError::PipelineTaken`] if another pipeline has the id, [`DeploymentError::NoPipeline`] if the pipeline cannot be created
    /// or does not work, or another [`DeploymentError`] if the cluster does not respond.
    pub async fn create(
        &self,
        client: &Client,
        id: &ServedId,
    ) -> Result<CreatedPipeline, DeploymentError> {
        let model = client.report(id).await?;
        let model_id: ServedId = match model.model_id.parse() {
            Ok(model_id) => model_id,
            Err(_) => id.clone(),
        };
        let configuration = client.configuration(&model_id).await?;
        let features = || {
            let names = configuration["input"]["field_names"].as_array().into_iter().flatten();
            names.filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>()
        };
        let is_tree_model = configuration["model_type"] == "tree_ensemble";
        self.check_fields(id, is_tree_model.then(features).as_deref())?;
        let definition = Definition::of(self, id, &configuration, client.target())
            .map_err(|error| self.failed(id, error))?;
        let existing = self.existing(client).await?;
        let is_same = existing.as_ref().is_some_and(|it| definition.is_same(it));
        if existing.is_some() && !is_same && !self.force {
            return Err(self.taken());
        }
        if model.needs_deployment() && !model.deployments.iter().any(super::Deployment::answers) {
            return Err(self.failed(
                id,
                NoPipeline {
                    reason: "the model is not started, so that every document would fail".into(),
                    hint: Some(hint!(
                        "Start the model with ",
                        Command::Start(Some(model.model_id)),
                        ", and create the pipeline again."
                    )),
                },
            ));
        }
        let tried = self.simulate(client, &definition).await?;
        let tried = tried.map_err(|reason| {
            self.failed(
                id,
                NoPipeline { reason: format!("it fails for a document: {reason}"), hint: None },
            )
        })?;
        let mapping = definition.mapping_for(&tried);
        let state = match existing {
            Some(_) if is_same => PipelineOutcome::Unchanged,
            existing => {
                let body = Some(Payload::json(&definition.body));
                let path = self.id.path();
                let stored = client.call(Method::PUT, &path, body, "create the pipeline").await;
                stored.map_err(|error| match error {
                    ClientError::Refused { kind: Some(_), reason, .. } => {
                        self.failed(id, NoPipeline { reason, hint: None })
                    }
                    other => other.into(),
                })?;
                match existing {
                    Some(_) => PipelineOutcome::Replaced,
                    None => PipelineOutcome::Created,
                }
            }
        };
        Ok(CreatedPipeline {
            pipeline_id: self.id.clone(),
            model_id: id.to_string(),
            state,
            input_field: definition.input_field,
            result_field: definition.result_field,
            mapping,
            error_field: definition.error_field,
            tried,
        })
    }

    /// The pipeline with this id, if there is one.
    async fn existing(&self, client: &Client) -> Result<Option<Value>, DeploymentError> {
        let path = self.id.path();
        match client.call(Method::GET, &path, None, "show the pipeline").await {
            Ok(mut answer) => Ok(answer.get_mut(self.id.as_str()).map(Value::take)),
            // The body is an empty object, without an error.
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the pipeline on its example. The inner error is the reason why the pipeline does not work.
    async fn simulate(
        &self,
        client: &Client,
        definition: &Definition,
    ) -> Result<Result<Value, String>, DeploymentError> {
        let body = Some(Payload::json(&definition.simulation()));
        let path = "_ingest/pipeline/_simulate";
        match client.call(Method::POST, path, body, "try the pipeline").await {
            Ok(answer) => Ok(definition.result(&answer)),
            Err(ClientError::Refused { kind: Some(_), reason, .. }) => Ok(Err(reason)),
            Err(error) => Err(error.into()),
        }
    }

    fn taken(&self) -> DeploymentError {
        DeploymentError::PipelineTaken { id: self.id.clone() }
    }

    fn failed(&self, model_id: &ServedId, error: NoPipeline) -> DeploymentError {
        let NoPipeline { reason, hint } = error;
        DeploymentError::NoPipeline {
            id: self.id.clone(),
            model_id: model_id.clone(),
            reason,
            hint,
        }
    }
}

/// Whether a pipeline has an inference processor of a model.
fn uses_model(value: &Value, id: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.get("inference").is_some_and(|it| it["model_id"] == id)
                || fields.values().any(|value| uses_model(value, id))
        }
        Value::Array(items) => items.iter().any(|item| uses_model(item, id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_fields_are_validated() {
        for id in ["my-pipeline", "e5.small_2"] {
            assert_eq!(id.parse::<PipelineId>().unwrap().as_str(), id);
        }
        for id in ["", "a/b", "a*", "_simulate", "a,b", "a b"] {
            assert!(id.parse::<PipelineId>().is_err(), "{id}");
        }
        assert_eq!("ü".parse::<PipelineId>().unwrap().path(), "_ingest/pipeline/%C3%BC");
        for field in ["body", "page.text", "ml.my-model"] {
            assert!(field.parse::<FieldName>().is_ok(), "{field}");
        }
        for field in ["", "a..b", ".a", "_id", "{{x}}", "a b", "a\n"] {
            assert!(field.parse::<FieldName>().is_err(), "{field}");
        }
    }

    #[test]
    fn pipeline_of_a_model_is_recognized() {
        let pipeline =
            json!({"processors": [{"foreach": {"processor": {"inference": {"model_id": "m"}}}}]});
        assert!(uses_model(&pipeline, "m") && !uses_model(&pipeline, "n"));
    }
}
