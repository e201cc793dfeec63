//! Tree models: creation, storage and inference (tree-models.md, section 2).
//!
//! The evaluation is written from the contract and shares no code with the program.

mod definition;
mod inference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use serde_json::{Map, Value, json};

use crate::configuration::{identifier, milliseconds_now};
use crate::errors::ApiError;
use crate::json::Object;
use crate::version::Version;
use definition::{Definition, Target};
use inference::InferenceConfig;

const PARSER: &str = "trained_model_config";

/// The first version in which a model for learning to rank has no fields.
const RANKING_WITHOUT_FIELDS: Version = Version::new(8, 15, 0);

/// A stored tree model.
#[derive(Debug)]
pub(crate) struct TreeModel {
    /// The configuration as `GET` returns it.
    pub(crate) document: Map<String, Value>,
    /// The definition as it was sent: base64 of gzip.
    pub(crate) compressed: String,
    fields: Vec<String>,
    field_map: BTreeMap<String, String>,
    inference: InferenceConfig,
    definition: Definition,
}

/// All tree models of a cluster. The body of each creation is kept in a file, from which a restart creates the model again.
#[derive(Debug)]
pub(crate) struct TreeModels {
    folder: PathBuf,
    models: Mutex<BTreeMap<String, Arc<TreeModel>>>,
}

impl TreeModels {
    /// Loads the models of a folder.
    pub(crate) fn open(folder: PathBuf, version: Version, heap: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut models = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            match read(&path, id, version, heap) {
                Ok(model) => drop(models.insert(id.to_owned(), Arc::new(model))),
                Err(reason) => tracing::warn!("tree model {id} was not loaded: {reason}"),
            }
        }
        Ok(Self { folder, models: Mutex::new(models) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<TreeModel>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<TreeModel>> {
        self.lock().get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<TreeModel>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        self.lock().remove(id);
        fs::remove_file(self.file(id))
    }

    /// Stores a model with the body of its creation. Returns false if the id is taken.
    pub(crate) fn add(&self, id: &str, model: TreeModel, body: &Value) -> io::Result<bool> {
        let mut models = self.lock();
        if models.contains_key(id) {
            return Ok(false);
        }
        let stored = json!({"create_time": model.document["create_time"], "body": body});
        fs::write(self.file(id), stored.to_string())?;
        models.insert(id.to_owned(), Arc::new(model));
        Ok(true)
    }
}

/// Creates a model again from the file of an earlier stand-in.
fn read(path: &Path, id: &str, version: Version, heap: u64) -> Result<TreeModel, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let mut stored: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let model = TreeModel::create(id, stored["body"].take(), version, false, heap);
    let mut model = model.map_err(|error| error.reason().to_owned())?;
    model.document.insert("create_time".to_owned(), stored["create_time"].take());
    Ok(model)
}

/// Whether the body of a creation is that of a tree model.
pub(crate) fn is_tree_model(body: &Value) -> bool {
    body.get("definition").is_some()
        || body.get("compressed_definition").is_some()
        || body.get("model_type").and_then(Value::as_str) == Some("tree_ensemble")
}

impl TreeModel {
    /// Parses and validates a new model. `heap` is the size of the JVM heap in bytes.
    pub(crate) fn create(
        id: &str,
        body: Value,
        version: Version,
        defer: bool,
        heap: u64,
    ) -> Result<Self, ApiError> {
        let mut fields = Object::new(PARSER, body)?;
        if let Some(other) = fields.string("model_id")?.filter(|other| other != id) {
            return Err(ApiError::illegal_argument(format!(
                "Inconsistent model_id; '{other}' specified in the body differs from '{id}' specified as a URL argument"
            )));
        }
        let mut complaints = Vec::new();
        let model_type = fields.string("model_type")?;
        let description = fields.string("description")?;
        let tags = fields.strings("tags")?.unwrap_or_default();
        let metadata = fields.object("metadata")?;
        let input = fields.object("input")?;
        let inference_config = fields.take("inference_config");
        let field_map = fields.object("default_field_map")?;
        let size = fields.long("model_size_bytes")?;
        let operations = fields.long("estimated_operations")?;
        let plain = fields.take("definition");
        let compressed = fields.string("compressed_definition")?;
        for name in
            ["version", "created_by", "create_time", "license_level", "location", "model_package"]
        {
            if fields.take(name).is_some() {
                complaints.push(format!("illegal to set [{name}] at inference model creation"));
            }
        }
        fields.finish()?;
        for name in ["total_feature_importance", "model_aliases"] {
            if metadata.as_ref().is_some_and(|metadata| metadata.contains_key(name)) {
                complaints
                    .push(format!("illegal to set [metadata.{name}] at inference model creation"));
            }
        }
        if plain.is_some() && compressed.is_some() {
            complaints
                .push("both [compressed_definition] and [definition] cannot be set.".to_owned());
        }
        complaints.extend(identifier::complaints(id));
        complaints.extend(identifier::tag_complaints(id, &tags));
        if size.is_some_and(|size| size < 0) || operations.is_some_and(|operations| operations < 0)
        {
            complaints.push("[model_size_bytes] must be greater than or equal to 0".to_owned());
        }
        if !complaints.is_empty() {
            return Err(ApiError::validation(&complaints));
        }
        if let Some(other) = model_type.filter(|name| name != "tree_ensemble") {
            return Err(ApiError::bad_request(format!(
                "model_type [{other}] does not match the model definition type [tree_ensemble]"
            )));
        }
        let Some(inference_config) = inference_config else {
            return Err(ApiError::illegal_argument("[inference_config] must not be null."));
        };
        let inference = InferenceConfig::parse(inference_config, version)
            .map_err(|error| error.while_parsing(PARSER, "inference_config"))?;
        let names = match &input {
            Some(input) => strings(input.get("field_names")),
            None => None,
        };
        let names = match (inference.is_ranking(), names) {
            // Before 8.15 the fields are required for every model.
            (true, None) if version < RANKING_WITHOUT_FIELDS => {
                return Err(ApiError::validation(&["[input] must not be null".to_owned()]));
            }
            (true, names) => names.unwrap_or_default(),
            (false, Some(names)) if !names.is_empty() => names,
            (false, _) => {
                return Err(ApiError::validation(&[
                    "[input.field_names] must not be empty".to_owned()
                ]));
            }
        };
        if inference.is_ranking() && !names.is_empty() && version >= RANKING_WITHOUT_FIELDS {
            return Err(ApiError::validation(&[
                "[input.field_names] must be empty for learning_to_rank".to_owned(),
            ]));
        }
        let sent = match (plain, compressed) {
            (Some(plain), _) => definition::compress(&plain),
            (None, Some(compressed)) => (compressed, None),
            (None, None) => {
                return Err(ApiError::illegal_argument(
                    "[model_type] must be set if [definition] is not defined.",
                ));
            }
        };
        if defer {
            return Err(ApiError::not_implemented("the stand-in parses every definition at once"));
        }
        let (compressed, plain) = sent;
        let strict = plain.is_some();
        let json = match plain {
            Some(plain) => plain,
            None => definition::inflate(&compressed, (heap / 10).min(1 << 30))?,
        };
        let parsed = Definition::parse(&json, strict)?;
        parsed.validate().map_err(|complaint| {
            ApiError::bad_request(format!("Definition for [{id}] has validation failures."))
                .caused(ApiError::validation(&[complaint]))
        })?;
        if parsed.target() != inference.target() {
            return Err(ApiError::bad_request(format!(
                "Model [{id}] inference config type [{}] does not support the target type [{}]",
                inference.name(),
                parsed.target().name()
            )));
        }
        let mapped = field_map.unwrap_or_default();
        if mapped.values().any(|value| !value.is_string()) {
            return Err(ApiError::parse(format!(
                "[1:1] [{PARSER}] failed to parse field [default_field_map]"
            )));
        }
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put("model_id", id.into());
        put("model_type", "tree_ensemble".into());
        put("created_by", "api_user".into());
        put("version", "12.0.0".into());
        put("create_time", milliseconds_now().into());
        put("model_size_bytes", (parsed.nodes() as u64 * 60).into());
        put("estimated_operations", (parsed.nodes() as u64).into());
        put("license_level", if inference.is_ranking() { "enterprise" } else { "platinum" }.into());
        if let Some(description) = description {
            put("description", description.into());
        }
        put("tags", tags.into());
        if let Some(metadata) = metadata {
            put("metadata", metadata.into());
        }
        if !mapped.is_empty() {
            put("default_field_map", mapped.clone().into());
        }
        put("input", json!({"field_names": names}));
        put("inference_config", inference.to_json());
        let field_map = mapped
            .into_iter()
            .filter_map(|(from, to)| Some((from, to.as_str()?.to_owned())))
            .collect();
        Ok(Self { document, compressed, fields: names, field_map, inference, definition: parsed })
    }

    /// Answers a call of `_infer`.
    pub(crate) fn infer(&self, body: Value) -> Result<Value, ApiError> {
        let mut fields = Object::new("infer_trained_model_request", body)?;
        let documents = fields.take("docs");
        let update = fields.take("inference_config");
        fields.finish()?;
        let Some(Value::Array(documents)) = documents else {
            return Err(ApiError::illegal_argument("Required [docs]"));
        };
        if documents.is_empty() {
            return Err(ApiError::validation(&["[docs] must not be empty".to_owned()]));
        }
        let inference = self.inference.updated(update)?;
        let results: Vec<_> = documents
            .into_iter()
            .map(|document| self.answer(&document, &inference))
            .collect::<Result<_, _>>()?;
        Ok(json!({"inference_results": results}))
    }

    /// The answer for a document of an ingest pipeline.
    pub(crate) fn ingest(
        &self,
        document: &Value,
        update: Option<Value>,
    ) -> Result<Value, ApiError> {
        let inference = self.inference.updated(update)?;
        self.answer(document, &inference)
    }

    fn answer(&self, document: &Value, inference: &InferenceConfig) -> Result<Value, ApiError> {
        if inference.is_ranking() {
            return Err(ApiError::bad_request(
                "learning_to_rank models can only be used in the rescorer of a search",
            ));
        }
        let Value::Object(document) = document else {
            return Err(ApiError::illegal_argument("Required [docs]"));
        };
        let mut document = document.clone();
        for (from, to) in &self.field_map {
            if let Some(value) = inference::dig(&document, from).cloned()
                && inference::dig(&document, to).is_none()
            {
                document.insert(to.clone(), value);
            }
        }
        let value = |name: &String| Some((name.clone(), inference::dig(&document, name)?.clone()));
        let mut values: BTreeMap<_, _> = self.fields.iter().filter_map(value).collect();
        if values.is_empty() {
            let id = self.document["model_id"].as_str().unwrap_or_default();
            return Ok(json!({
                "warning": format!("Model [{id}] could not be inferred as all fields were missing")
            }));
        }
        self.definition.preprocess(&mut values);
        let output = self.definition.evaluate(&values)?;
        inference.result(output, self.definition.labels(), self.definition.class_weights())
    }
}

fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    value?.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Classification => "classification",
        }
    }
}
