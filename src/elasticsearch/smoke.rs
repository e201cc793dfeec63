//! [`SmokeTest`]: sends one text through a deployment and checks the result (contract 8).

use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::payload::Payload;
use super::{Client, ClientError, DeploymentError, ServedId};

/// Timeout of the first result, which takes longer than later ones.
const TIMEOUT: &str = "30s";

/// The text of a smoke test, and the result of the deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SmokeTest {
    /// The task of the model.
    pub task: String,
    /// The text that was sent.
    pub text: String,
    /// Settings of the request: the question, the labels, or the text to compare with.
    pub settings: Map<String, Value>,
    /// The complete result of the server.
    pub result: Value,
    /// The result in one line.
    pub summary: String,
}

impl SmokeTest {
    /// Sends a text that suits the task of the model.
    ///
    /// # Errors
    /// [`DeploymentError::SmokeTest`] if there is no result, or it does not match the task.
    pub async fn run(
        client: &Client,
        model_id: &ServedId,
        deployment_id: &ServedId,
    ) -> Result<Self, DeploymentError> {
        let configuration = client.configuration(model_id).await?;
        let failed = |reason: String| DeploymentError::SmokeTest {
            deployment_id: deployment_id.clone(),
            reason,
        };
        let inference = configuration["inference_config"].as_object();
        let (task, config) = inference
            .and_then(|tasks| tasks.iter().next())
            .ok_or_else(|| failed("the configuration of the model names no task".into()))?;
        let (text, settings) = question(task, config);
        let body = body(&configuration, task, &text, &settings);
        let id = deployment_id.segment();
        let path = format!("_ml/trained_models/{id}/_infer?timeout={TIMEOUT}");
        let body = Some(Payload::json(&body));
        let answer = client.call(Method::POST, &path, body, "answer").await;
        let mut answer = answer.map_err(|error| match error {
            ClientError::Refused { reason, .. } => failed(reason),
            other => other.into(),
        })?;
        let result = answer.pointer_mut("/inference_results/0").map(Value::take);
        let result = result.ok_or_else(|| failed("the answer contains no result".into()))?;
        let summary = summary(task, config, &result).map_err(failed)?;
        Ok(Self { task: task.clone(), text, settings, result, summary })
    }
}

/// The body of a request to `_infer` that matches the configuration of a model. `None` for a model without a task.
#[must_use]
pub fn example(configuration: &Map<String, Value>) -> Option<Value> {
    let (task, config) = configuration.get("inference_config")?.as_object()?.iter().next()?;
    let (text, settings) = question(task, config);
    Some(body(&Value::Object(configuration.clone()), task, &text, &settings))
}

fn body(configuration: &Value, task: &str, text: &str, settings: &Map<String, Value>) -> Value {
    let field = configuration["input"]["field_names"][0].as_str().unwrap_or("input");
    let mut body = json!({"docs": [{field: text}]});
    if !settings.is_empty() {
        body["inference_config"] = json!({task: settings});
    }
    body
}

/// A text for a task, and the settings of the request.
pub(super) fn question(task: &str, config: &Value) -> (String, Map<String, Value>) {
    let (text, settings) = match task {
        "fill_mask" => {
            return (format!("The capital of France is {}.", mask(config)), Map::new());
        }
        "ner" => ("Ada Lovelace lived in London.", json!({})),
        "question_answering" => (
            "Elasticsearch was first released in February 2010.",
            json!({"question": "When was Elasticsearch first released?"}),
        ),
        "text_similarity" => {
            ("Elasticsearch is a search engine.", json!({"text": "What is Elasticsearch?"}))
        }
        "text_classification" => ("I am very happy with this.", json!({"num_top_classes": 3})),
        "zero_shot_classification" => (
            "The home team won the match in the last minute.",
            json!({"labels": ["sport", "cooking"], "multi_label": false}),
        ),
        _ => ("Elasticsearch is a search engine.", json!({})),
    };
    (text.to_owned(), settings.as_object().cloned().unwrap_or_default())
}

/// The token for the missing word: the one in the configuration, or else the one of the tokenizer.
fn mask(config: &Value) -> &str {
    let tokenizer = config["tokenization"].as_object().and_then(|kinds| kinds.iter().next());
    config["mask_token"].as_str().unwrap_or(match tokenizer.map(|(name, it)| (name.as_str(), it)) {
        Some(("byte_level_bpe", settings)) => settings["mask_token"].as_str().unwrap_or("<mask>"),
        Some(("roberta" | "xlm_roberta" | "mpnet", _)) => "<mask>",
        _ => "[MASK]",
    })
}

/// The result in one line, or the reason why it is not a result of the task.
fn summary(task: &str, config: &Value, result: &Value) -> Result<String, String> {
    for problem in ["error", "warning"] {
        if let Some(text) = result[problem].as_str() {
            return Err(text.to_owned());
        }
    }
    let field = config["results_field"].as_str().unwrap_or("predicted_value");
    let predicted = &result[field];
    let probability = result["prediction_probability"].as_f64();
    let odd =
        || format!("the result does not fit the task {task}: {}", shortened(&result.to_string()));
    match task {
        "text_embedding" => {
            let numbers: Vec<f64> =
                predicted.as_array().ok_or_else(odd)?.iter().filter_map(Value::as_f64).collect();
            if numbers.is_empty() || Some(numbers.len()) != predicted.as_array().map(Vec::len) {
                return Err(odd());
            }
            let first: Vec<_> = numbers.iter().take(4).map(|n| format!("{n:.4}")).collect();
            let more = if numbers.len() > 4 { ", …" } else { "" };
            Ok(format!("{} dimensions: {}{more}", numbers.len(), first.join(", ")))
        }
        "text_expansion" => {
            let weights = predicted.as_object().ok_or_else(odd)?;
            let mut weights: Vec<(&str, f64)> = weights
                .iter()
                .filter_map(|(token, weight)| Some((token.as_str(), weight.as_f64()?)))
                .collect();
            weights.sort_by(|a, b| b.1.total_cmp(&a.1));
            let first: Vec<_> =
                weights.iter().take(4).map(|(token, w)| format!("{token} {w:.3}")).collect();
            let more = if weights.len() > 4 { ", …" } else { "" };
            Ok(format!("{} tokens: {}{more}", weights.len(), first.join(", ")))
        }
        "text_similarity" => {
            predicted.as_f64().map(|score| format!("score {score:.4}")).ok_or_else(odd)
        }
        "ner" => {
            let entities = result["entities"].as_array().ok_or_else(odd)?;
            let found: Vec<_> = entities
                .iter()
                .filter_map(|entity| {
                    let (name, class) =
                        (entity["entity"].as_str()?, entity["class_name"].as_str()?);
                    let p = entity["class_probability"].as_f64()?;
                    Some(format!("{name} ({class} {p:.3})"))
                })
                .collect();
            Ok(if found.is_empty() { "no entities".to_owned() } else { found.join(", ") })
        }
        "pass_through" => {
            let rows = predicted.as_array().ok_or_else(odd)?;
            let width = rows.first().and_then(Value::as_array).map_or(0, Vec::len);
            Ok(format!("{} × {width} numbers", rows.len()))
        }
        _ => {
            let label = predicted.as_str().ok_or_else(odd)?;
            let classes = result["top_classes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let classes: Vec<_> = classes
                .iter()
                .filter_map(|class| {
                    let name = class["class_name"].as_str()?;
                    Some(format!("{name} {:.3}", class["class_probability"].as_f64()?))
                })
                .collect();
            Ok(match (classes.len(), probability) {
                (2.., _) => shortened(&classes.join(", ")),
                (_, Some(p)) => format!("{label:?}, probability {p:.3}"),
                _ => format!("{label:?}"),
            })
        }
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_token_depends_on_the_tokenizer() {
        for (config, token) in [
            (json!({"tokenization": {"bert": {}}}), "[MASK]"),
            (json!({"tokenization": {"deberta_v2": {}}}), "[MASK]"),
            (json!({"tokenization": {"xlm_roberta": {}}}), "<mask>"),
            (json!({"tokenization": {"bert": {}}, "mask_token": "<m>"}), "<m>"),
        ] {
            assert_eq!(
                question("fill_mask", &config).0,
                format!("The capital of France is {token}.")
            );
        }
    }

    #[test]
    fn result_that_does_not_fit_the_task_is_an_error() {
        let check = |task: &str, result: Value| summary(task, &Value::Null, &result);
        let embedding = check("text_embedding", json!({"predicted_value": [0.5, 1, 2, 3, 4]}));
        assert_eq!(embedding.unwrap(), "5 dimensions: 0.5000, 1.0000, 2.0000, 3.0000, …");
        for value in [json!([]), json!(["NaN"]), json!("NaN"), json!(null)] {
            assert!(check("text_embedding", json!({"predicted_value": value})).is_err());
        }
        let warning = check("ner", json!({"warning": "too long"}));
        assert_eq!(warning.unwrap_err(), "too long");
        let classes = json!({"predicted_value": "a", "top_classes": [
            {"class_name": "a", "class_probability": 0.75}, {"class_name": "b", "class_probability": 0.25}]});
        assert_eq!(check("text_classification", classes).unwrap(), "a 0.750, b 0.250");
        let answer = json!({"predicted_value": "in 2010", "prediction_probability": 0.5});
        assert_eq!(check("question_answering", answer).unwrap(), "\"in 2010\", probability 0.500");
        assert!(check("fill_mask", json!({})).is_err());
        let expansion = json!({"predicted_value": {"a": 0.5, "b": 1.5}});
        assert_eq!(check("text_expansion", expansion).unwrap(), "2 tokens: b 1.500, a 0.500");
    }
}
