//! Ingest pipelines: create, read and delete calls, and the simulation with the processors inference, remove and set.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::deployments::infer_text_field;
use super::models::unreadable;
use super::{Answer, Call};
use crate::cluster::{Cluster, is_matched};
use crate::errors::ApiError;
use crate::json::Object;
use crate::version::Version;

/// First version whose inference processor has `input_output`.
const INPUT_OUTPUT: Version = Version::new(8, 11, 0);

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
    let version = cluster.options.version;
    check_processors(processors.as_ref().ok_or_else(missing)?, "processors", version)?;
    if let Some(on_failure) = &on_failure {
        check_processors(on_failure, "on_failure", version)?;
    }
    cluster.pipelines.change(|pipelines| Ok(pipelines.insert(id, body)))?;
    Ok(json!({"acknowledged": true}))
}

/// Checks the inference processors of a list.
fn check_processors(processors: &Value, property: &str, version: Version) -> Result<(), ApiError> {
    let wrong = || ApiError::parse(format!("[{property}] property isn't a list"));
    for processor in processors.as_array().ok_or_else(wrong)? {
        let fields = processor.as_object().filter(|fields| fields.len() == 1);
        let (name, settings) = fields
            .and_then(|fields| fields.iter().next())
            .ok_or_else(|| ApiError::parse(format!("[{property}] processors must have one key")))?;
        match name.as_str() {
            "inference" => drop(InferenceProcessor::parse(settings, version)?),
            "remove" if settings.get("field").is_none() => {
                return Err(ApiError::parse("[field] required property is missing"));
            }
            "set" if settings.get("field").is_none() || settings.get("value").is_none() => {
                return Err(ApiError::parse("[value] required property is missing"));
            }
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
    if found.is_empty() && !id.is_empty() {
        // The server answers with an empty object instead of an error.
        return Err(ApiError::empty_object(StatusCode::NOT_FOUND));
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
    let version = cluster.options.version;
    check_processors(&pipeline["processors"], "processors", version)?;
    let processors = pipeline["processors"].as_array().cloned().unwrap_or_default();
    let documents = documents.as_array().cloned();
    let documents = documents
        .ok_or_else(|| ApiError::illegal_argument("[docs] required property is missing"))?;
    let answers = documents.into_iter().map(|document| {
        let source = document["_source"].as_object().cloned().unwrap_or_default();
        match run_all(cluster, &processors, source) {
            Ok(source) => {
                json!({"doc": {"_index": "_index", "_id": "_id", "_version": "-3", "_source": source}})
            }
            Err(error) => json!({"error": {"root_cause": [{"type": "exception", "reason": error.reason()}],
                "type": "exception", "reason": error.reason()}}),
        }
    });
    Ok(json!({"docs": answers.collect::<Vec<_>>()}))
}

/// Runs processors on a document. A processor that fails runs the processors of its `on_failure` instead.
fn run_all(
    cluster: &Cluster,
    processors: &[Value],
    mut source: Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    for processor in processors {
        let before = source.clone();
        let Err(error) = run(cluster, processor, &mut source, None) else { continue };
        source = before;
        let settings = processor.as_object().and_then(|fields| fields.values().next());
        let handlers = settings.and_then(|settings| settings["on_failure"].as_array());
        let Some(handlers) = handlers else { return Err(error) };
        for handler in handlers {
            run(cluster, handler, &mut source, Some(error.reason()))?;
        }
    }
    Ok(source)
}

/// Runs one processor. `failure` is the message of the processor that failed before.
fn run(
    cluster: &Cluster,
    processor: &Value,
    source: &mut Map<String, Value>,
    failure: Option<&str>,
) -> Result<(), ApiError> {
    if processor.get("inference").is_some() {
        return infer(cluster, processor, source);
    }
    if let Some(settings) = processor.get("remove") {
        let fields = match &settings["field"] {
            Value::Array(fields) => fields.clone(),
            one => vec![one.clone()],
        };
        for field in fields.iter().filter_map(Value::as_str) {
            if !remove_field(source, field) && settings["ignore_missing"] != true {
                return Err(ApiError::illegal_argument(format!(
                    "field [{field}] not present as part of path [{field}]"
                )));
            }
        }
        return Ok(());
    }
    if let Some(settings) = processor.get("set") {
        let field = settings["field"].as_str().unwrap_or_default();
        let template = settings["value"].as_str().unwrap_or_default();
        let message = failure.unwrap_or_default();
        let value = template.replace("{{{ _ingest.on_failure_message }}}", message);
        set_field(source, field, value.into());
        return Ok(());
    }
    Err(ApiError::not_implemented("the stand-in does not simulate this processor"))
}

fn remove_field(source: &mut Map<String, Value>, name: &str) -> bool {
    match name.split_once('.') {
        None => source.remove(name).is_some(),
        Some((first, rest)) => source
            .get_mut(first)
            .and_then(Value::as_object_mut)
            .is_some_and(|inner| remove_field(inner, rest)),
    }
}

fn infer(
    cluster: &Cluster,
    processor: &Value,
    source: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let settings = &processor["inference"];
    let parsed = InferenceProcessor::parse(settings, cluster.options.version)?;
    let InferenceProcessor { id, target, map, update, input_output } = parsed;
    if let Some(model) = cluster.trees.get(&id) {
        let document = mapped(source, &map);
        let mut result = model.ingest(&document.into(), update)?;
        result["model_id"] = id.into();
        set_field(source, &target, result);
        return Ok(());
    }
    let Some(inputs) = input_output else {
        let document = Value::Object(mapped(source, &map));
        let mut result = infer_text_field(cluster, &id, document, update)?;
        result["model_id"] = id.into();
        set_field(source, &target, result);
        return Ok(());
    };
    for (index, (input, output)) in inputs.iter().enumerate() {
        let text = dig(source, input).ok_or_else(|| {
            ApiError::illegal_argument(format!(
                "field [{input}] not present as part of path [{input}]"
            ))
        })?;
        let text = text.as_str().ok_or_else(|| {
            ApiError::illegal_argument(format!(
                "input field [{input}] cannot be processed because it is not a text field"
            ))
        })?;
        let field = cluster.input_field(&id)?;
        let result = infer_text_field(cluster, &id, json!({ field: text }), update.clone())?;
        // The name of the result is the last part of the output field; the rest of the result is stored beside it.
        let (base, name) = match output.rsplit_once('.') {
            Some((base, name)) => (format!("{base}."), name),
            None => (String::new(), output.as_str()),
        };
        for (key, value) in result.as_object().cloned().unwrap_or_default() {
            let key = if key == "predicted_value" { name.to_owned() } else { key };
            set_field(source, &format!("{base}{key}"), value);
        }
        if index == 0 {
            set_field(source, &format!("{base}model_id"), id.clone().into());
        }
    }
    Ok(())
}

/// The document with the fields of a field map.
fn mapped(source: &Map<String, Value>, map: &Map<String, Value>) -> Map<String, Value> {
    let mut document = source.clone();
    for (from, to) in map {
        if let (Some(value), Some(to)) = (dig(source, from), to.as_str()) {
            document.insert(to.to_owned(), value.clone());
        }
    }
    document
}

/// The value of a dotted name in nested objects.
fn dig<'a>(source: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => source.get(name),
        Some((first, rest)) => dig(source.get(first)?.as_object()?, rest),
    }
}

/// The settings of an inference processor.
struct InferenceProcessor {
    id: String,
    target: String,
    map: Map<String, Value>,
    update: Option<Value>,
    /// Input and output fields.
    input_output: Option<Vec<(String, String)>>,
}

impl InferenceProcessor {
    fn parse(settings: &Value, version: Version) -> Result<Self, ApiError> {
        let mut fields = Object::new("inference", settings.clone())?;
        let id = fields.string("model_id")?;
        let id = id.ok_or_else(|| ApiError::parse("[model_id] required property is missing"))?;
        let target = fields.string("target_field")?;
        let input_output = match version >= INPUT_OUTPUT {
            true => fields.take("input_output").map(|value| inputs(&value)).transpose()?,
            false => None,
        };
        if input_output.is_some() && target.is_some() {
            return Err(ApiError::parse(
                "[target_field] option is incompatible with [input_output]. Use the [output_field] option to specify where to write the inference results to.",
            ));
        }
        let map = fields.object("field_map")?.unwrap_or_default();
        let update = fields.take("inference_config");
        for name in ["tag", "description", "if"] {
            fields.string(name)?;
        }
        fields.boolean("ignore_failure")?;
        fields.take("on_failure");
        fields.finish()?;
        let target = target.unwrap_or_else(|| TARGET_FIELD.to_owned());
        Ok(Self { id, target, map, update, input_output })
    }
}

/// The fields of `input_output`, which is an object or a list of objects.
fn inputs(value: &Value) -> Result<Vec<(String, String)>, ApiError> {
    let list = match value {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let read = |entry: Value| {
        let mut fields = Object::new("input_output", entry)?;
        let mut name = |name: &str| -> Result<String, ApiError> {
            let missing = || ApiError::parse(format!("[{name}] required property is missing"));
            fields.string(name)?.ok_or_else(missing)
        };
        let pair = (name("input_field")?, name("output_field")?);
        fields.finish()?;
        Ok(pair)
    };
    let pairs: Vec<_> = list.into_iter().map(read).collect::<Result<_, ApiError>>()?;
    if pairs.is_empty() {
        return Err(ApiError::parse("[input_output] property cannot be empty"));
    }
    Ok(pairs)
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
