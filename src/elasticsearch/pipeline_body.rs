//! The body of an ingest pipeline for a model: which processor suits the task and the version of the cluster, and a document to try it on.

use serde_json::{Map, Value, json};

use super::ServedId;
use super::pipeline::PipelineRequest;
use super::smoke::question;
use crate::hint::{Hint, Setting, hint};
use crate::version::{Target, Version};

/// The field with the text of a document, by default.
const INPUT_FIELD: &str = "body";

/// The field of a result, within the output field.
const RESULT: &str = "predicted_value";

/// Why there can be no pipeline.
#[derive(Debug)]
pub(super) struct NoPipeline {
    pub(super) reason: String,
    pub(super) hint: Option<Hint>,
}

/// A pipeline, and what is needed to try it.
#[derive(Debug)]
pub(super) struct Definition {
    /// The body of `PUT _ingest/pipeline/ID`.
    pub(super) body: Value,
    /// The field with the text; `None` for tree models.
    pub(super) input_field: Option<String>,
    /// The field that contains the result.
    pub(super) result_field: String,
    /// The field for the reason of a failed inference.
    pub(super) error_field: String,
    /// The type of the result's field, if Elasticsearch would not choose the right one.
    pub(super) mapping: Option<Value>,
    /// A document for the model.
    document: Value,
    /// The object with the result.
    output: String,
}

impl Definition {
    /// The pipeline for a model with this configuration. `id` is the model or a deployment of the model.
    pub(super) fn of(
        request: &PipelineRequest,
        id: &ServedId,
        configuration: &Value,
        target: Target,
    ) -> Result<Self, NoPipeline> {
        let without_hint = |reason: &str| NoPipeline { reason: reason.to_owned(), hint: None };
        let (task, config) = configuration["inference_config"]
            .as_object()
            .and_then(|tasks| tasks.iter().next())
            .ok_or_else(|| without_hint("the configuration of the model names no task"))?;
        let output = output_field(request, id);
        let is_tree_model = configuration["model_type"] == "tree_ensemble";
        if is_tree_model && request.input_field.is_some() {
            return Err(NoPipeline {
                reason: "a tree model reads the fields of its features, not a text".into(),
                hint: Some(hint!("Leave out ", Setting::InputField, ".")),
            });
        }
        let update = update(request, task, config)?;
        let input = request.input_field.as_ref().map_or(INPUT_FIELD, |field| field.as_str());
        let mut document = json!({});
        let (mut settings, result) = if is_tree_model {
            document = of_features(configuration);
            let result = config["results_field"].as_str().unwrap_or(RESULT);
            (json!({"model_id": id.as_str(), "target_field": output}), result)
        } else {
            set(&mut document, input, question(task, config).0.into());
            let is_pytorch = configuration["model_type"] == "pytorch";
            if is_pytorch && target.has(Version::INPUT_OUTPUT) {
                (of_input_output(id, input, &output), RESULT)
            } else {
                let field = configuration["input"]["field_names"][0].as_str().unwrap_or("input");
                (of_field_map(id, input, field, &output), RESULT)
            }
        };
        if let Some(update) = update {
            settings["inference_config"] = json!({ task: update });
        }
        let error_field = error_field(&output);
        settings["on_failure"] = json!([
            {"set": {"field": error_field, "value": "{{{ _ingest.on_failure_message }}}"}}
        ]);
        // The inference processor appends its result to an existing one.
        let remove = json!({"field": [output, error_field], "ignore_missing": true});
        let body = json!({
            "description": format!("Adds the result of the model {id} to each document"),
            "processors": [{"remove": remove}, {"inference": settings}],
            "_meta": {"created_by": concat!("rust-eland ", env!("CARGO_PKG_VERSION"))},
        });
        let mapping = mapping(task, config, configuration, target);
        Ok(Self {
            body,
            input_field: (!is_tree_model).then(|| input.to_owned()),
            result_field: format!("{output}.{result}"),
            error_field,
            mapping,
            document,
            output,
        })
    }

    /// Whether an existing pipeline does the same. Its description and the fields that a server adds do not count.
    pub(super) fn is_same(&self, existing: &Value) -> bool {
        let does = |pipeline: &Value, name: &str| pipeline.get(name).cloned().unwrap_or_default();
        ["processors", "on_failure"]
            .iter()
            .all(|name| does(existing, name) == does(&self.body, name))
    }

    /// The type of the result's field, with the number of dimensions of a result. The configuration of a model lacks that number before 8.8.
    pub(super) fn mapping_for(&self, result: &Value) -> Option<Value> {
        let mut mapping = self.mapping.clone()?;
        if mapping["type"] == "dense_vector"
            && mapping.get("dims").is_none()
            && let Some(vector) = result.as_array()
        {
            mapping["dims"] = vector.len().into();
        }
        Some(mapping)
    }

    /// The body of `_simulate`.
    pub(super) fn simulation(&self) -> Value {
        json!({"pipeline": self.body, "docs": [{"_source": self.document}]})
    }

    /// Reads the result from the response of `_simulate`. The error is the reason of the failure.
    pub(super) fn result(&self, answer: &Value) -> Result<Value, String> {
        let document = &answer["docs"][0];
        let reason = |error: &Value| error["reason"].as_str().unwrap_or("no reason").to_owned();
        if let Some(error) = document.get("error") {
            return Err(reason(error));
        }
        let source = &document["doc"]["_source"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let error = get(source, &self.error_field).and_then(text);
        let warning = || get(source, &self.output).and_then(|result| text(&result["warning"]));
        if let Some(reason) = error.or_else(warning) {
            return Err(reason);
        }
        get(source, &self.result_field)
            .cloned()
            .ok_or_else(|| format!("the document has no field {} afterwards", self.result_field))
    }
}

/// The field for the result.
fn output_field(request: &PipelineRequest, id: &ServedId) -> String {
    match &request.output_field {
        Some(field) => field.as_str().to_owned(),
        None => format!("ml.{}", id.as_str().trim_start_matches('.').replace('.', "_")),
    }
}

/// The field for the reason of a failed inference.
fn error_field(output: &str) -> String {
    format!("{output}_error")
}

/// An input field that the pipeline would remove or replace, and the field of the result. `features` are the fields that a tree model reads;
/// other models read one text.
pub(super) fn overlapping_fields(
    request: &PipelineRequest,
    id: &ServedId,
    features: Option<&[String]>,
) -> Option<(String, String)> {
    let output = output_field(request, id);
    let error = error_field(&output);
    let text = request.input_field.as_ref().map_or(INPUT_FIELD, |field| field.as_str());
    let text = features.is_none().then_some(text);
    let mut inputs = features.unwrap_or_default().iter().map(String::as_str).chain(text);
    let input = inputs.find(|input| overlap(input, &output) || overlap(input, &error))?;
    Some((input.to_owned(), output))
}

/// Settings of the task that differ from those of the model.
pub(super) fn update(
    request: &PipelineRequest,
    task: &str,
    config: &Value,
) -> Result<Option<Map<String, Value>>, NoPipeline> {
    let needs = |what: &str| NoPipeline {
        reason: format!(
            "a model for {task} needs {what} beside each text, which the documents of a pipeline do not have"
        ),
        hint: Some(hint!("Use the model in searches, or through an inference endpoint.")),
    };
    match task {
        "text_similarity" => return Err(needs("a query")),
        "question_answering" => return Err(needs("a question")),
        "learning_to_rank" => return Err(needs("a search")),
        _ => {}
    }
    if task == "zero_shot_classification" {
        let has_labels = config["labels"].as_array().is_some_and(|labels| !labels.is_empty());
        if request.labels.is_empty() {
            return if has_labels {
                Ok(None)
            } else {
                Err(NoPipeline {
                    reason: "a model for zero_shot_classification needs labels to choose from"
                        .into(),
                    hint: Some(hint!("Set ", Setting::Labels, " of the command pipeline create.")),
                })
            };
        }
        return Ok(Some([("labels".to_owned(), json!(request.labels))].into_iter().collect()));
    }
    if request.labels.is_empty() {
        return Ok(None);
    }
    Err(NoPipeline {
        reason: format!(
            "a model for {task} does not choose from labels that you set; a model for zero_shot_classification does"
        ),
        hint: Some(hint!("Leave out ", Setting::Labels, ".")),
    })
}

/// A processor that reads and writes named fields (8.11 and later). The last part of `output_field` is the field of the result; the server
/// writes the other fields of the result beside it.
fn of_input_output(id: &ServedId, input: &str, output: &str) -> Value {
    let output = format!("{output}.{RESULT}");
    json!({
        "model_id": id.as_str(),
        "input_output": [{"input_field": input, "output_field": output}],
    })
}

/// A processor that copies the text to the field of the model.
fn of_field_map(id: &ServedId, input: &str, field: &str, output: &str) -> Value {
    json!({"model_id": id.as_str(), "target_field": output, "field_map": {input: field}})
}

/// A document that has a number in each field of a tree model.
fn of_features(configuration: &Value) -> Value {
    let names = configuration["input"]["field_names"].as_array().into_iter().flatten();
    let fields: Map<String, Value> =
        names.filter_map(|name| Some((name.as_str()?.to_owned(), 0.into()))).collect();
    fields.into()
}

/// The type of a vector's field. Elasticsearch would map the numbers as floats.
fn mapping(task: &str, config: &Value, configuration: &Value, target: Target) -> Option<Value> {
    match task {
        "text_embedding" => {
            let similarity = configuration["metadata"]["similarity"].as_str();
            Some(embedding_field(config.get("embedding_size"), similarity, target))
        }
        // The type sparse_vector does not exist in 8.0 to 8.10.
        "text_expansion" if target.has(Version::INPUT_OUTPUT) => {
            Some(json!({"type": "sparse_vector"}))
        }
        "text_expansion" => Some(json!({"type": "rank_features"})),
        _ => None,
    }
}

/// The type of a field for embeddings. `size` is their number of dimensions, if known; the similarity is cosine by default.
pub(crate) fn embedding_field(
    size: Option<&Value>,
    similarity: Option<&str>,
    target: Target,
) -> Value {
    let mut field = json!({"type": "dense_vector"});
    if let Some(size) = size {
        field["dims"] = size.clone();
    }
    // Before 8.11, a field is indexed for searches only if its mapping says so, and then the similarity is required.
    if !target.has(Version::OPTIONAL_DIMS) {
        field["index"] = true.into();
    }
    field["similarity"] = similarity.unwrap_or("cosine").into();
    field
}

/// Whether a version accepts an embedding field: before 8.11, its number of dimensions is required.
pub(crate) fn is_complete_embedding_field(field: &Value, target: Target) -> bool {
    target.has(Version::OPTIONAL_DIMS) || field.get("dims").is_some()
}

/// Whether two fields are the same, or one is a field of the other.
fn overlap(one: &str, other: &str) -> bool {
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    is_within(one, other) || is_within(other, one)
}

/// The value at a path of names separated by dots.
fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

/// Sets the value at a path of names separated by dots, in nested objects.
pub(super) fn set(value: &mut Value, path: &str, new: Value) {
    match path.split_once('.') {
        None => value[path] = new,
        Some((first, rest)) => {
            if !value[first].is_object() {
                value[first] = json!({});
            }
            set(&mut value[first], rest, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(input: Option<&str>, output: Option<&str>) -> PipelineRequest {
        let mut request = PipelineRequest::new("p".parse().unwrap());
        request.input_field = input.map(|field| field.parse().unwrap());
        request.output_field = output.map(|field| field.parse().unwrap());
        request
    }

    fn model(task: &str) -> Value {
        json!({"model_type": "pytorch", "input": {"field_names": ["text_field"]},
            "inference_config": {task: {"tokenization": {"bert": {}}}}})
    }

    fn definition(
        request: &PipelineRequest,
        task: &str,
        version: &str,
    ) -> Result<Definition, String> {
        let id = "my.model".parse().unwrap();
        Definition::of(request, &id, &model(task), version.parse().unwrap())
            .map_err(|error| error.reason)
    }

    fn processor(definition: &Definition) -> &Value {
        &definition.body["processors"][1]["inference"]
    }

    #[test]
    fn processor_suits_the_version() {
        let plain = request(None, None);
        let vector = definition(&plain, "text_embedding", "9.0").unwrap();
        assert_eq!(
            processor(&vector)["input_output"],
            json!([{"input_field": "body", "output_field": "ml.my_model.predicted_value"}])
        );
        assert_eq!(vector.result_field, "ml.my_model.predicted_value");
        assert_eq!(vector.mapping.as_ref().unwrap()["type"], "dense_vector");
        let old = definition(&plain, "text_embedding", "8.10").unwrap();
        assert_eq!(processor(&old)["target_field"], "ml.my_model");
        assert_eq!(processor(&old)["field_map"], json!({"body": "text_field"}));
        assert_eq!(old.result_field, vector.result_field);
        let named = request(Some("page.text"), Some("label"));
        let classes = definition(&named, "text_classification", "9.0").unwrap();
        assert_eq!(classes.document, json!({"page": {"text": "I am very happy with this."}}));
        assert_eq!(
            (classes.result_field.as_str(), &classes.mapping),
            ("label.predicted_value", &None)
        );
        let failure = &processor(&classes)["on_failure"][0]["set"];
        assert_eq!(failure["field"], "label_error");
        assert_eq!(failure["value"], "{{{ _ingest.on_failure_message }}}");
        let remove = &classes.body["processors"][0]["remove"];
        assert_eq!(remove["field"], json!(["label", "label_error"]));
    }

    #[test]
    fn embedding_field_has_what_old_versions_require() {
        let plain = request(None, None);
        let old = definition(&plain, "text_embedding", "8.7").unwrap();
        let vector = json!([0.5, 1., 2.]);
        let field =
            json!({"type": "dense_vector", "dims": 3, "index": true, "similarity": "cosine"});
        assert_eq!(old.mapping_for(&vector), Some(field));
        let new = definition(&plain, "text_embedding", "8.11").unwrap();
        let field = json!({"type": "dense_vector", "dims": 3, "similarity": "cosine"});
        assert_eq!(new.mapping_for(&vector), Some(field));
    }

    #[test]
    fn overlapping_fields_are_found() {
        let found = |input, output, features: Option<&[&str]>| {
            let features =
                features.map(|it| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
            let (request, id) = (request(input, output), "m".parse().unwrap());
            overlapping_fields(&request, &id, features.as_deref()).map(|(input, _)| input)
        };
        for (input, output) in [
            (Some("ml.text"), Some("ml")),
            (None, Some("body")),
            (None, Some("body.x")),
            (Some("ml.m.text"), None),
            (Some("ml"), None),
            (Some("x_error"), Some("x")),
        ] {
            let expected = input.unwrap_or("body").to_owned();
            assert_eq!(found(input, output, None), Some(expected), "{output:?}");
        }
        for (input, output) in
            [(None, None), (Some("ml.text"), None), (Some("bodyguard"), Some("body"))]
        {
            assert_eq!(found(input, output, None), None, "{input:?} {output:?}");
        }
        assert_eq!(found(None, Some("age"), Some(&["size", "age"])), Some("age".into()));
        assert_eq!(found(None, Some("body"), Some(&["size", "age"])), None);
    }

    #[test]
    fn task_that_needs_more_than_a_text_is_refused() {
        let plain = request(None, None);
        for task in ["text_similarity", "question_answering", "zero_shot_classification"] {
            let error = definition(&plain, task, "9.0").unwrap_err();
            assert!(error.contains(task) && error.contains("needs"), "{error}");
        }
        let labelled = PipelineRequest { labels: vec!["a".into(), "b".into()], ..plain };
        let zero_shot = definition(&labelled, "zero_shot_classification", "9.0").unwrap();
        assert_eq!(
            processor(&zero_shot)["inference_config"]["zero_shot_classification"]["labels"],
            json!(["a", "b"])
        );
        assert!(
            definition(&labelled, "ner", "9.0")
                .unwrap_err()
                .contains("does not choose from labels")
        );
    }

    #[test]
    fn tree_model_reads_the_fields_of_its_features() {
        let trees = json!({"model_type": "tree_ensemble", "input": {"field_names": ["age", "a.b"]},
            "inference_config": {"regression": {"results_field": "price"}}});
        let id = "t".parse().unwrap();
        let target: Target = "9.0".parse().unwrap();
        let definition = Definition::of(&request(None, None), &id, &trees, target).unwrap();
        assert_eq!(processor(&definition)["target_field"], "ml.t");
        assert_eq!(definition.result_field, "ml.t.price");
        assert_eq!(definition.document, json!({"age": 0, "a.b": 0}));
        assert!(Definition::of(&request(Some("x"), None), &id, &trees, target).is_err());
        let warned = json!({"docs": [{"doc": {"_source": {"ml": {"t": {"warning": "none of the fields"}}}}}]});
        assert!(definition.result(&warned).unwrap_err().contains("none of the"));
    }

    #[test]
    fn result_and_reasons_of_a_simulation_are_found() {
        let ner = definition(&request(None, Some("x")), "ner", "9.0").unwrap();
        let answer = |source: Value| json!({"docs": [{"doc": {"_source": source}}]});
        let done = answer(json!({"x": {"predicted_value": "a"}}));
        assert_eq!(ner.result(&done), Ok("a".into()));
        let failed = answer(json!({"x_error": "not deployed"}));
        assert_eq!(ner.result(&failed), Err("not deployed".into()));
        assert!(ner.result(&answer(json!({}))).is_err());
        let error = json!({"docs": [{"error": {"reason": "no"}}]});
        assert_eq!(ner.result(&error), Err("no".into()));
        let mut stored = ner.body.clone();
        stored["modified_date_millis"] = 1.into();
        stored["description"] = "another".into();
        assert!(ner.is_same(&stored));
        stored["processors"][1]["inference"]["model_id"] = "other".into();
        assert!(!ner.is_same(&stored));
    }
}
