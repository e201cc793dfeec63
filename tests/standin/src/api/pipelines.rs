//! Ingest pipelines: create, read and delete calls, and the simulation with inference processors of tree models.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use serde_json::{Map, Value, json};

use super::models::unreadable;
use super::{Answer, Call};
use crate::cluster::{Cluster, is_matched};
use crate::errors::ApiError;
use crate::json::Object;

/// The processor's field in which the result is stored by default.
const TARGET_FIELD: &str = "ml.inference";

/// Processors that a stored pipeline may have beside `inference`. They are stored unread.
const OTHER_PROCESSORS: [&str; 12] = [
    "append", "convert", "date", "drop", "fail", "foreach", "gsub", "pipeline", "remove", "rename",
    "script", "set",
];

/// The file of all pipelines.
const FILE: &str = "pipelines.json";

/// All ingest pipelines of a cluster, by id. A restart loads them again.
#[derive(Debug)]
pub(crate) struct Pipelines {
    folder: PathBuf,
    pipelines: Mutex<BTreeMap<String, Value>>,
}

impl Pipelines {
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let stored = fs::read(folder.join(FILE)).ok();
        let pipelines = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self { folder, pipelines: Mutex::new(pipelines.unwrap_or_default()) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the pipelines, and writes them to the file.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, Value>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut pipelines = self.lock();
        let changed = change(&mut pipelines)?;
        fs::write(self.folder.join(FILE), json!(*pipelines).to_string()).map_err(unreadable)?;
        Ok(changed)
    }

    /// Number of pipelines with an inference processor of a model, also within other processors.
    pub(crate) fn with_model(&self, id: &str) -> usize {
        self.lock().values().filter(|pipeline| uses_model(pipeline, id)).count()
    }
}

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

/// `PUT /_ingest/pipeline/{id}`
pub(super) fn put(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    call.query.time("timeout")?;
    call.query.time("master_timeout")?;
    let body = call.required_json()?;
    call.query.finish()?;
    let mut fields = Object::new("pipeline", body.clone())?;
    fields.string("description")?;
    fields.long("version")?;
    fields.object("_meta")?;
    fields.boolean("deprecated")?;
    let processors = fields.take("processors");
    let on_failure = fields.take("on_failure");
    fields.finish()?;
    let missing = || ApiError::parse("[processors] required property is missing");
    check_processors(processors.as_ref().ok_or_else(missing)?, "processors")?;
    if let Some(on_failure) = &on_failure {
        check_processors(on_failure, "on_failure")?;
    }
    cluster.pipelines.change(|pipelines| Ok(pipelines.insert(id, body)))?;
    Ok(json!({"acknowledged": true}))
}

/// Checks the inference processors of a list.
fn check_processors(processors: &Value, property: &str) -> Result<(), ApiError> {
    let wrong = || ApiError::parse(format!("[{property}] property isn't a list"));
    for processor in processors.as_array().ok_or_else(wrong)? {
        let fields = processor.as_object().filter(|fields| fields.len() == 1);
        let (name, settings) = fields
            .and_then(|fields| fields.iter().next())
            .ok_or_else(|| ApiError::parse(format!("[{property}] processors must have one key")))?;
        match name.as_str() {
            "inference" => drop(InferenceProcessor::parse(settings)?),
            other if OTHER_PROCESSORS.contains(&other) => {}
            other => {
                return Err(ApiError::parse(format!(
                    "No processor type exists with name [{other}]"
                )));
            }
        }
    }
    Ok(())
}

/// `GET /_ingest/pipeline[/{id}]`
pub(super) fn get(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    call.query.time("master_timeout")?;
    call.query.boolean("summary")?;
    call.query.finish()?;
    let mut found = cluster.pipelines.lock().clone();
    found.retain(|name, _| id.is_empty() || is_matched(&id, name));
    if found.is_empty() && !id.is_empty() && !id.contains('*') {
        return Err(ApiError::not_found(format!("pipeline [{id}] is missing")));
    }
    Ok(json!(found))
}

/// `DELETE /_ingest/pipeline/{id}`
pub(super) fn delete(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    call.query.time("timeout")?;
    call.query.time("master_timeout")?;
    call.query.finish()?;
    cluster.pipelines.change(|pipelines| {
        let before = pipelines.len();
        pipelines.retain(|name, _| !is_matched(&id, name));
        if pipelines.len() == before && !id.contains('*') {
            return Err(ApiError::not_found(format!("pipeline [{id}] is missing")));
        }
        Ok(())
    })?;
    Ok(json!({"acknowledged": true}))
}

/// `POST /_ingest/pipeline[/{id}]/_simulate`
pub(super) fn simulate(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    let id = call.path("id").to_owned();
    call.query.boolean("verbose")?;
    let body = call.required_json()?;
    call.query.finish()?;
    let mut fields = Object::new("simulate", body)?;
    let pipeline = if id.is_empty() {
        fields.take("pipeline").unwrap_or_default()
    } else {
        let stored = cluster.pipelines.lock().get(&id).cloned();
        let missing = || ApiError::illegal_argument(format!("pipeline [{id}] does not exist"));
        stored.ok_or_else(missing)?
    };
    let documents = fields.take("docs").unwrap_or_default();
    fields.finish()?;
    let processors = pipeline["processors"].as_array().cloned().unwrap_or_default();
    let documents = documents.as_array().cloned();
    let documents = documents
        .ok_or_else(|| ApiError::illegal_argument("[docs] required property is missing"))?;
    let mut answers = Vec::new();
    for document in documents {
        let mut source = document["_source"].as_object().cloned().unwrap_or_default();
        for processor in &processors {
            infer(cluster, processor, &mut source)?;
        }
        answers.push(json!({"doc": {"_index": "_index", "_id": "_id", "_source": source}}));
    }
    Ok(json!({"docs": answers}))
}

fn infer(
    cluster: &Cluster,
    processor: &Value,
    source: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let Some(settings) = processor.get("inference") else {
        return Err(ApiError::not_implemented("the stand-in simulates inference processors only"));
    };
    let InferenceProcessor { id, target, map, update } = InferenceProcessor::parse(settings)?;
    let Some(model) = cluster.trees.get(&id) else {
        return Err(ApiError::not_found(format!("Could not find trained model [{id}]")));
    };
    let mut document = source.clone();
    for (from, to) in map {
        if let (Some(value), Some(to)) = (source.get(&from), to.as_str()) {
            document.insert(to.to_owned(), value.clone());
        }
    }
    let mut result = model.ingest(&document.into(), update)?;
    result["model_id"] = id.into();
    set_field(source, &target, result);
    Ok(())
}

/// The settings of an inference processor.
struct InferenceProcessor {
    id: String,
    target: String,
    map: Map<String, Value>,
    update: Option<Value>,
}

impl InferenceProcessor {
    fn parse(settings: &Value) -> Result<Self, ApiError> {
        let mut fields = Object::new("inference", settings.clone())?;
        let id = fields.string("model_id")?;
        let id = id.ok_or_else(|| ApiError::parse("[model_id] required property is missing"))?;
        let target = fields.string("target_field")?.unwrap_or_else(|| TARGET_FIELD.to_owned());
        let map = fields.object("field_map")?.unwrap_or_default();
        let update = fields.take("inference_config");
        for name in ["tag", "description", "if"] {
            fields.string(name)?;
        }
        fields.boolean("ignore_failure")?;
        fields.take("on_failure");
        fields.finish()?;
        Ok(Self { id, target, map, update })
    }
}

/// Stores a value under a dotted name.
fn set_field(source: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            source.insert(name.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = source.entry(first).or_insert_with(|| Map::new().into());
            if let Some(inner) = inner.as_object_mut() {
                set_field(inner, rest, value);
            }
        }
    }
}
