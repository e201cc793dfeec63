//! The body of `_infer`: documents, and what one call asks for beyond the configuration (contract, 8).

use serde_json::{Map, Value};

use crate::configuration::Configuration;
use crate::configuration::task::{InferenceConfig, SpanScore, Task, check_answers};
use crate::errors::ApiError;
use crate::json::Object;
use crate::version::Version;

/// What one call asks for.
#[derive(Debug)]
pub(crate) struct InferRequest {
    pub(crate) texts: Vec<String>,
    pub(crate) inference: InferenceConfig,
    /// The question, or the text that documents are compared with.
    pub(crate) first_text: Option<String>,
}

impl InferRequest {
    pub(crate) fn parse(
        model: &Configuration,
        body: Value,
        version: Version,
    ) -> Result<Self, ApiError> {
        let mut fields = Object::new("infer_trained_model_request", body)?;
        let docs = fields.take("docs");
        let update = fields.take("inference_config");
        fields.finish()?;

        let mut inference = model.inference.clone();
        let mut first_text = None;
        if let Some(update) = update {
            let mut outer = Object::new("inference_config", update)?;
            if let Some((task, settings)) = outer.take_any() {
                outer.finish()?;
                let configured = inference.task.name();
                if task != configured {
                    return Err(ApiError::bad_request(format!(
                        "Trained model [{}] is configured for task [{configured}] but called with task [{task}]",
                        model.model_id
                    )));
                }
                first_text = apply(&mut inference, settings, version)?;
            }
        }
        let missing_text = match inference.task {
            Task::QuestionAnswering { .. } => Some(
                "please provide configuration update for question_answering task including the desired [question]",
            ),
            Task::TextSimilarity { .. } => Some(
                "please provide configuration update for text_similarity task including the desired [text]",
            ),
            _ => None,
        };
        if let Some(missing) = missing_text.filter(|_| first_text.is_none()) {
            return Err(ApiError::bad_request(missing));
        }
        if let Task::ZeroShotClassification(zero_shot) = &inference.task
            && zero_shot.labels.as_ref().is_none_or(Vec::is_empty)
        {
            return Err(ApiError::bad_request(
                "zero_shot_classification requires non-empty [labels]",
            ));
        }
        let Some(Value::Array(docs)) = docs else {
            return Err(ApiError::illegal_argument("Required [docs]"));
        };
        if docs.is_empty() {
            return Err(ApiError::validation(&["[docs] must not be empty".to_owned()]));
        }
        let texts =
            docs.iter().map(|doc| input_text(doc, &model.inputs)).collect::<Result<_, _>>()?;
        Ok(Self { texts, inference, first_text })
    }
}

/// Applies the settings of one call; returns the question or the text to compare with.
fn apply(
    inference: &mut InferenceConfig,
    settings: Value,
    version: Version,
) -> Result<Option<String>, ApiError> {
    let mut fields = Object::new(inference.task.name(), settings)?;
    if let Some(field) = fields.string("results_field")? {
        inference.results_field = Some(field);
    }
    if let Some(value) = fields.take("tokenization") {
        inference.tokenization = inference.tokenization.updated(value, version)?;
    }
    let mut first_text = None;
    let mut required = |fields: &mut Object, name: &str| -> Result<(), ApiError> {
        first_text = fields.string(name)?;
        if first_text.is_none() {
            return Err(ApiError::illegal_argument(format!("Required [{name}]")));
        }
        Ok(())
    };
    match &mut inference.task {
        Task::FillMask { num_top_classes } => {
            set(num_top_classes, fields.int("num_top_classes")?);
            let mask = inference.tokenization.mask_token();
            if let Some(given) = fields.string("mask_token")?.filter(|given| given != mask) {
                return Err(ApiError::bad_request(format!(
                    "Mask token requested was [{given}] but must be [{mask}] for this model"
                )));
            }
        }
        Task::QuestionAnswering { num_top_classes, max_answer_length } => {
            required(&mut fields, "question")?;
            set(num_top_classes, fields.int("num_top_classes")?);
            set(max_answer_length, fields.int("max_answer_length")?);
            check_answers(*num_top_classes, *max_answer_length).map_err(ApiError::bad_request)?;
        }
        Task::TextClassification { labels, num_top_classes } => {
            set(num_top_classes, fields.int("num_top_classes")?);
            if let Some(given) = fields.strings("classification_labels")? {
                if given.len() != labels.len() {
                    return Err(ApiError::bad_request(format!(
                        "The number of [classification_labels] the model is defined with [{}] does not match the number in the update [{}]",
                        labels.len(),
                        given.len()
                    )));
                }
                *labels = given;
            }
        }
        Task::TextSimilarity { span_score } => {
            required(&mut fields, "text")?;
            if let Some(text) = fields.string("span_score_combination_function")? {
                *span_score = SpanScore::parse(&text)?;
            }
        }
        Task::ZeroShotClassification(zero_shot) => {
            set(&mut zero_shot.multi_label, fields.boolean("multi_label")?);
            if let Some(labels) = fields.strings("labels")? {
                if labels.is_empty() {
                    return Err(ApiError::bad_request("[labels] must not be empty"));
                }
                zero_shot.labels = Some(labels);
            }
        }
        Task::Ner { .. }
        | Task::PassThrough
        | Task::TextEmbedding { .. }
        | Task::TextExpansion { .. } => {}
    }
    fields.finish()?;
    Ok(first_text)
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

/// The text in the model's input field, which may be a path.
fn input_text(doc: &Value, inputs: &[String]) -> Result<String, ApiError> {
    let field = inputs.first().map_or("input", String::as_str);
    let found = doc
        .as_object()
        .and_then(|fields: &Map<String, Value>| fields.get(field))
        .or_else(|| field.split('.').try_fold(doc, |value, name| value.get(name)));
    match found {
        None | Some(Value::Null) => Err(ApiError::bad_request(format!(
            "Input field [{field}] does not exist in the source document"
        ))),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(ApiError::bad_request(format!(
            "Input value [{other}] for field [{field}] is not a string"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(task: Value) -> Configuration {
        let body = json!({"model_type": "pytorch", "inference_config": task,
            "input": {"field_names": ["text_field"]}});
        Configuration::create("m", body, Version::default()).unwrap()
    }

    fn complaint(task: Value, body: Value) -> String {
        InferRequest::parse(&model(task), body, Version::default()).unwrap_err().everything()
    }

    #[test]
    fn documents_and_overrides_are_read() {
        let body = json!({"docs": [{"text_field": "a"}, {"text_field": "b", "more": 1}],
            "inference_config": {"question_answering": {"question": "q", "num_top_classes": 2,
                "results_field": "r", "tokenization": {"bert": {"truncate": "second"}}}}});
        let request = InferRequest::parse(
            &model(json!({"question_answering": {}})),
            body,
            Version::default(),
        )
        .unwrap();
        assert_eq!(request.texts, ["a", "b"]);
        assert_eq!(request.first_text.as_deref(), Some("q"));
        assert_eq!(request.inference.results_field.as_deref(), Some("r"));
        assert_eq!(
            request.inference.task,
            Task::QuestionAnswering { num_top_classes: 2, max_answer_length: 15 }
        );
    }

    #[test]
    fn rules_are_the_contracts() {
        let doc = json!([{"text_field": "a"}]);
        let zero_shot = json!({"zero_shot_classification":
            {"classification_labels": ["entailment", "neutral", "contradiction"]}});
        let classification = json!({"text_classification": {"classification_labels": ["a", "b"]}});
        for (task, body, text) in [
            (
                json!({"ner": {}}),
                json!({"docs": [{"text": "a"}]}),
                "Input field [text_field] does not exist in the source document",
            ),
            (json!({"ner": {}}), json!({"docs": [{"text_field": 1}]}), "is not a string"),
            (json!({"ner": {}}), json!({}), "Required [docs]"),
            (json!({"ner": {}}), json!({"docs": doc, "timeout": "1s"}), "unknown field [timeout]"),
            (
                json!({"pass_through": {}}),
                json!({"docs": doc, "inference_config": {"ner": {}}}),
                "Trained model [m] is configured for task [pass_through] but called with task [ner]",
            ),
            (
                json!({"ner": {}}),
                json!({"docs": doc, "inference_config": {"ner": {"labels": []}}}),
                "unknown field [labels]",
            ),
            (json!({"text_similarity": {}}), json!({"docs": doc}), "including the desired [text]"),
            (
                json!({"question_answering": {}}),
                json!({"docs": doc}),
                "including the desired [question]",
            ),
            (
                zero_shot,
                json!({"docs": doc}),
                "zero_shot_classification requires non-empty [labels]",
            ),
            (
                classification,
                json!({"docs": doc, "inference_config": {"text_classification":
                    {"classification_labels": ["x"]}}}),
                "does not match the number in the update [1]",
            ),
        ] {
            let complaint = complaint(task, body);
            assert!(complaint.contains(text), "{complaint}");
        }
    }
}
