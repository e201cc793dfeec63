//! The configuration of a prebuilt definition: the body of the request that creates the model, parsed as strictly as by the server (contract
//! 2.1 to 2.4, 3.1, 3.2).

mod body;

use serde_json::{Map, Value};

use super::DefinitionError;
use crate::tasks::Task;
use crate::tokenizer::TokenizerKind;
use crate::version::Version;
use body::{Body, Inference, NO_SPAN, Settings, Tokenization, Truncate};

/// Fields set by the server only.
const ILLEGAL: [&str; 6] =
    ["version", "created_by", "create_time", "license_level", "location", "model_package"];

/// Fields of other model types.
const OF_TREES: [&str; 2] = ["definition", "compressed_definition"];

/// Keys of `metadata` set by the server only.
const ILLEGAL_METADATA: [&str; 2] = ["total_feature_importance", "model_aliases"];

/// A configuration that the server would accept.
#[derive(Debug)]
pub struct Configuration {
    /// Body of the request.
    pub body: Map<String, Value>,
    /// Model id in the configuration.
    pub model_id: Option<String>,
    /// Task.
    pub task: Task,
    /// Tokenizer.
    pub kind: TokenizerKind,
    /// Whether special tokens are added to texts.
    pub with_special_tokens: bool,
    /// Longest input in tokens.
    pub max_sequence_length: u32,
    /// Required size of the output's last axis, if the task or a setting determines it, and the name of its source.
    pub width: Option<(usize, String)>,
    /// Oldest Elasticsearch version that supports the required parts of the configuration.
    pub minimum_version: Version,
}

impl Configuration {
    /// Parses and validates a configuration.
    ///
    /// # Errors
    /// The reason why the server would reject the configuration.
    pub fn read(json: &[u8]) -> Result<Self, DefinitionError> {
        Self::checked(json).map_err(DefinitionError::Configuration)
    }

    fn checked(json: &[u8]) -> Result<Self, String> {
        let mut body: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let has = |name: &&&str| body.contains_key(**name);
        if let Some(name) = ILLEGAL.iter().find(has) {
            return Err(format!("only Elasticsearch sets {name}; remove it"));
        }
        if let Some(name) = OF_TREES.iter().find(has) {
            return Err(format!("a PyTorch model has no {name} in its configuration; remove it"));
        }
        if let Some(task) = body.get("inference_config").and_then(Value::as_object)
            && task.values().any(|settings| settings.get("vocabulary").is_some())
        {
            return Err("only Elasticsearch sets vocabulary in inference_config; remove it".into());
        }
        let read: Body = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        check_body(&read)?;
        // The path of the request contains the model id.
        body.shift_remove("model_id");
        body.entry("model_type").or_insert_with(|| "pytorch".into());

        let Inferred { task, tokenization, width } = read.inference_config.checked()?;
        let (kind, settings) = tokenization.named();
        check_tokenization(task, kind, &settings)?;
        let minimum_version = [
            Some(Version::OLDEST),
            Some(kind.since()),
            task.since_with(kind),
            read.prefix_strings.map(|_| Version::PREFIX_STRINGS),
            (settings.truncate == Truncate::Balanced).then_some(Version::BALANCED_TRUNCATION),
        ];
        Ok(Self {
            body,
            model_id: read.model_id,
            task,
            kind,
            with_special_tokens: settings.with_special_tokens,
            max_sequence_length: settings.max_sequence_length.unsigned_abs(),
            width,
            minimum_version: minimum_version.into_iter().flatten().max().unwrap_or(Version::OLDEST),
        })
    }
}

fn check_body(body: &Body) -> Result<(), String> {
    if let Some(other) = body.model_type.as_deref().filter(|name| *name != "pytorch") {
        return Err(format!("model_type is {other}, but TorchScript needs the model_type pytorch"));
    }
    let metadata = body.metadata.iter().flat_map(Map::keys);
    if let Some(name) = metadata.into_iter().find(|name| ILLEGAL_METADATA.contains(&name.as_str()))
    {
        return Err(format!("only Elasticsearch sets {name} in metadata; remove it"));
    }
    for tag in body.tags.iter().flatten() {
        if let Err(error) = tag.parse::<crate::model_id::ModelId>() {
            return Err(format!("the tag {tag:?} is not valid: {}", error.reason()));
        }
        if body.model_id.as_ref() == Some(tag) {
            return Err(format!("the tag {tag:?} must not be the id of the model"));
        }
    }
    if let Some(input) = &body.input {
        if input.field_names.is_empty() {
            return Err("input.field_names is empty".into());
        }
        if input.field_names.iter().any(|name| name.split('.').any(str::is_empty)) {
            return Err("input.field_names contains a value that is not a field name".into());
        }
    }
    let sizes = [
        ("model_size_bytes", body.model_size_bytes),
        ("estimated_heap_memory_usage_bytes", body.estimated_heap_memory_usage_bytes),
        ("estimated_operations", body.estimated_operations),
    ];
    if let Some((name, _)) = sizes.iter().find(|(_, size)| size.is_some_and(|size| size < 0)) {
        return Err(format!("{name} is negative"));
    }
    if body.default_field_map.iter().flat_map(Map::values).any(|name| !name.is_string()) {
        return Err("default_field_map maps to a value that is not a text".into());
    }
    Ok(())
}

/// Settings of a task.
struct Inferred {
    task: Task,
    tokenization: Tokenization,
    width: Option<(usize, String)>,
}

impl Inference {
    fn checked(self) -> Result<Inferred, String> {
        let labelled = |task: Task, labels: &[String]| -> Result<_, String> {
            task.check_labels(labels)
                .map_err(|reason| format!("classification_labels: {reason}"))?;
            Ok(Some((labels.len(), format!("{} classification_labels", labels.len()))))
        };
        let inferred = |task, tokenization, width| Inferred { task, tokenization, width };
        Ok(match self {
            Self::FillMask(read) => {
                let mask = read.tokenization.kind().mask_token();
                if let Some(other) = read.mask_token.filter(|given| given != mask) {
                    return Err(format!("mask_token is {other}, but the tokenizer's is {mask}"));
                }
                inferred(Task::FillMask, read.tokenization, None)
            }
            Self::Ner(read) => {
                let width = match &read.classification_labels {
                    Some(labels) if !labels.is_empty() => labelled(Task::Ner, labels)?,
                    _ => Some((9, "the 9 default labels".to_owned())),
                };
                inferred(Task::Ner, read.tokenization, width)
            }
            Self::PassThrough(read) => inferred(Task::PassThrough, read.tokenization, None),
            Self::QuestionAnswering(read) => {
                if read.num_top_classes.is_some_and(|n| n < 0) {
                    return Err("num_top_classes is negative".into());
                }
                if read.max_answer_length.is_some_and(|n| n <= 0) {
                    return Err("max_answer_length is not positive".into());
                }
                inferred(Task::QuestionAnswering, read.tokenization, None)
            }
            Self::TextClassification(read) => {
                let width = labelled(Task::TextClassification, &read.classification_labels)?;
                inferred(Task::TextClassification, read.tokenization, width)
            }
            Self::TextEmbedding(read) => {
                let size = read.embedding_size;
                let width = match size.map(usize::try_from) {
                    None => None,
                    Some(Ok(n)) if n > 0 => Some((n, format!("an embedding_size of {n}"))),
                    Some(_) => return Err("embedding_size is not positive".into()),
                };
                inferred(Task::TextEmbedding, read.tokenization, width)
            }
            Self::TextExpansion(read) => inferred(Task::TextExpansion, read.tokenization, None),
            Self::TextSimilarity(read) => {
                inferred(Task::TextSimilarity, read.tokenization, Some((1, "one score".into())))
            }
            Self::ZeroShotClassification(read) => {
                if read.labels.is_some_and(|labels| labels.is_empty()) {
                    return Err("labels is empty".into());
                }
                let width = labelled(Task::ZeroShotClassification, &read.classification_labels)?;
                inferred(Task::ZeroShotClassification, read.tokenization, width)
            }
        })
    }
}

fn check_tokenization(task: Task, kind: TokenizerKind, settings: &Settings) -> Result<(), String> {
    /// Tasks that read long texts in windows.
    const WINDOWS: [Task; 4] = [
        Task::PassThrough,
        Task::QuestionAnswering,
        Task::TextClassification,
        Task::TextSimilarity,
    ];
    let &Settings { max_sequence_length, truncate, span, .. } = settings;
    let name = kind.name();
    let no_lower_case = matches!(kind, TokenizerKind::Roberta | TokenizerKind::XlmRoberta);
    if settings.do_lower_case && no_lower_case {
        return Err(format!("do_lower_case cannot be true for {name}"));
    }
    if settings.add_prefix_space.is_some() && kind != TokenizerKind::Roberta {
        return Err(format!("add_prefix_space is not a setting of {name}"));
    }
    if !settings.with_special_tokens && task.pair() {
        return Err(format!("{task} reads pairs of texts, which needs with_special_tokens"));
    }
    if max_sequence_length <= 0 {
        return Err("max_sequence_length is not positive".into());
    }
    if span < NO_SPAN {
        return Err("span is negative; -1 disables windows".into());
    }
    if span != NO_SPAN && truncate != Truncate::None {
        return Err("span is allowed only with truncate none".into());
    }
    if span > max_sequence_length {
        return Err("span is greater than max_sequence_length".into());
    }
    if span != NO_SPAN && !WINDOWS.contains(&task) && task != Task::TextExpansion {
        return Err(format!("{task} does not split long texts into windows; remove span"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(body: &Value) -> String {
        Configuration::read(body.to_string().as_bytes())
            .err()
            .map_or(String::new(), |e| e.to_string())
    }

    #[test]
    fn valid_configuration_is_accepted() {
        let body = json!({
            "description": "d", "model_type": "pytorch", "tags": ["a"], "metadata": {"x": 1},
            "input": {"field_names": ["text_field"]},
            "inference_config": {"text_classification": {
                "classification_labels": ["yes", "no"], "num_top_classes": 2, "results_field": "r",
                "tokenization": {"roberta": {"add_prefix_space": true, "max_sequence_length": 128,
                    "truncate": "none", "span": 32}}}},
            "prefix_strings": {"search": "query: "},
        });
        let read = Configuration::read(body.to_string().as_bytes()).unwrap();
        assert_eq!((read.task, read.kind), (Task::TextClassification, TokenizerKind::Roberta));
        assert_eq!(read.minimum_version, Version::PREFIX_STRINGS);
        assert_eq!((read.max_sequence_length, read.width.unwrap().0), (128, 2));
        let least = Configuration::read(br#"{"inference_config": {"ner": {}}}"#).unwrap();
        assert_eq!((least.kind, least.max_sequence_length), (TokenizerKind::Bert, 512));
        assert_eq!(least.body["model_type"], "pytorch");
    }

    #[test]
    fn invalid_configuration_is_rejected_by_field() {
        let task = |task: Value| json!({ "inference_config": task });
        let tokenized = |tokenization: Value| task(json!({"ner": {"tokenization": tokenization}}));
        for (body, part) in [
            (json!([]), "invalid type"),
            (json!({}), "inference_config"),
            (
                json!({"inference_config": {"ner": {}}, "version": "9"}),
                "only Elasticsearch sets version",
            ),
            (json!({"inference_config": {"ner": {}}, "definition": {}}), "no definition"),
            (json!({"inference_config": {"ner": {}}, "colour": 1}), "colour"),
            (json!({"inference_config": {"ner": {}}, "model_type": "lang_ident"}), "lang_ident"),
            (json!({"inference_config": {"ner": {}}, "tags": ["A"]}), "tag \"A\""),
            (
                json!({"inference_config": {"ner": {}}, "model_id": "a", "tags": ["a"]}),
                "must not be the id of the model",
            ),
            (json!({"inference_config": {"ner": {}}, "input": {"field_names": []}}), "field_names"),
            (
                json!({"inference_config": {"ner": {}}, "metadata": {"model_aliases": []}}),
                "model_aliases",
            ),
            (json!({"inference_config": {"ner": {}}, "prefix_strings": {"index": ""}}), "index"),
            (task(json!({})), "expected"),
            (task(json!({"ner": {}, "fill_mask": {}})), "expected"),
            (task(json!({"translation": {}})), "translation"),
            (task(json!({"ner": {"vocabulary": {}}})), "only Elasticsearch sets vocabulary"),
            (task(json!({"ner": {"num_top_classes": 1}})), "num_top_classes"),
            (task(json!({"ner": {"classification_labels": ["O", "X"]}})), "uses the labels O, I-X"),
            (task(json!({"text_classification": {}})), "two labels"),
            (
                task(json!({"zero_shot_classification": {"classification_labels": ["a"]}})),
                "neutral",
            ),
            (task(json!({"text_embedding": {"embedding_size": 0}})), "embedding_size"),
            (task(json!({"question_answering": {"max_answer_length": 0}})), "max_answer_length"),
            (task(json!({"text_similarity": {"text": "a"}})), "text"),
            (task(json!({"fill_mask": {"mask_token": "<mask>"}})), "[MASK]"),
            (tokenized(json!({"gpt": {}})), "gpt"),
            (tokenized(json!({"bert": {"add_prefix_space": true}})), "add_prefix_space"),
            (tokenized(json!({"roberta": {"do_lower_case": true}})), "do_lower_case"),
            (tokenized(json!({"bert": {"max_sequence_length": 0}})), "max_sequence_length"),
            (tokenized(json!({"bert": {"truncate": "last"}})), "last"),
            (tokenized(json!({"bert": {"span": 3}})), "truncate none"),
            (tokenized(json!({"bert": {"span": 3, "truncate": "none"}})), "windows"),
            (tokenized(json!({"bert": {"span": -2, "truncate": "none"}})), "negative"),
            (
                task(
                    json!({"text_similarity": {"tokenization": {"bert": {"with_special_tokens": false}}}}),
                ),
                "with_special_tokens",
            ),
        ] {
            assert!(reason(&body).contains(part), "{body}: {}", reason(&body));
        }
    }
}
