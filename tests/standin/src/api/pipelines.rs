//! `POST /_ingest/pipeline/_simulate` with inference processors of tree models.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Answer, Call};
use crate::cluster::Cluster;
use crate::errors::ApiError;
use crate::json::Object;

/// The processor's field in which the result is stored by default.
const TARGET_FIELD: &str = "ml.inference";

/// `POST /_ingest/pipeline/_simulate`
pub(super) fn simulate(cluster: &Arc<Cluster>, mut call: Call) -> Answer {
    call.query.boolean("verbose")?;
    let body = call.required_json()?;
    call.query.finish()?;
    let mut fields = Object::new("simulate", body)?;
    let pipeline = fields.take("pipeline").unwrap_or_default();
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
    let mut fields = Object::new("inference", settings.clone())?;
    let id = fields.string("model_id")?;
    let id = id.ok_or_else(|| ApiError::parse("[model_id] required property is missing"))?;
    let target = fields.string("target_field")?.unwrap_or_else(|| TARGET_FIELD.to_owned());
    let map = fields.object("field_map")?.unwrap_or_default();
    let update = fields.take("inference_config");
    fields.string("tag")?;
    fields.finish()?;
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
    put(source, &target, result);
    Ok(())
}

/// Stores a value under a dotted name.
fn put(source: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            source.insert(name.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = source.entry(first).or_insert_with(|| Map::new().into());
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}
