//! Task of a configuration: `inference_config` (contract, 2.4).

use rust_eland::server_tokenization::Kind;
use serde_json::{Map, Value, json};

use super::tokenization::{NO_SPAN, Tokenization, not_built};
use crate::errors::ApiError;
use crate::json::Object;
use crate::version::{Version, since};

/// Task, tokenization and result field of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InferenceConfig {
    pub(crate) task: Task,
    pub(crate) tokenization: Tokenization,
    pub(crate) results_field: Option<String>,
}

/// A task with all settings, including defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    FillMask { num_top_classes: i32 },
    Ner { labels: Option<Vec<String>> },
    PassThrough,
    QuestionAnswering { num_top_classes: i32, max_answer_length: i32 },
    TextClassification { labels: Vec<String>, num_top_classes: i32 },
    TextEmbedding { embedding_size: Option<i32> },
    TextExpansion { expansion: Expansion },
    TextSimilarity { span_score: SpanScore },
    ZeroShotClassification(ZeroShot),
}

/// Settings of zero-shot classification.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ZeroShot {
    pub(crate) classification_labels: Vec<String>,
    pub(crate) hypothesis_template: String,
    pub(crate) multi_label: bool,
    pub(crate) labels: Option<Vec<String>>,
}

/// Component that pools the model's output into sparse weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expansion {
    /// The model: row 0 contains the pooled weights.
    Elser,
    /// The server: maximum over the tokens of log(1 + relu(x)).
    Splade,
}

/// How the scores of a document's windows are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanScore {
    Max,
    Mean,
}

impl SpanScore {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        match text.to_ascii_lowercase().as_str() {
            "max" => Ok(Self::Max),
            "mean" => Ok(Self::Mean),
            _ => Err(ApiError::illegal_argument(format!(
                "No enum constant org.elasticsearch.xpack.core.ml.inference.trainedmodel.TextSimilarityConfig.SpanScoreFunction.{}",
                text.to_ascii_uppercase()
            ))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }
}

/// Default labels of named entity recognition.
pub(crate) const DEFAULT_NER_LABELS: [&str; 9] =
    ["O", "B_MISC", "I_MISC", "B_PER", "I_PER", "B_ORG", "I_ORG", "B_LOC", "I_LOC"];

const DEFAULT_TEMPLATE: &str = "This example is {}.";

impl InferenceConfig {
    /// Parses an object with exactly one named task.
    pub(crate) fn parse(value: Value, version: Version) -> Result<Self, ApiError> {
        let mut outer = Object::new("inference_config", value)?;
        let Some((name, settings)) = outer.take_any() else {
            return Err(ApiError::parse("[1:1] [inference_config] expected a named task"));
        };
        outer.finish()?;
        Self::named(&name, settings, version)
    }

    fn named(name: &str, settings: Value, version: Version) -> Result<Self, ApiError> {
        let unknown = || ApiError::unknown_object("StrictlyParsedInferenceConfig", name);
        let (parser, first_release) = known_task(name).ok_or_else(unknown)?;
        if version < first_release {
            return Err(unknown());
        }
        let mut fields = Object::new(parser, settings)?;
        if fields.has("vocabulary") {
            return Err(ApiError::illegal_argument(
                "illegal setting [vocabulary] on inference model creation",
            )
            .while_parsing(parser, "vocabulary"));
        }
        let tokenization = match fields.take("tokenization") {
            Some(value) => Tokenization::parse(value, version)
                .map_err(|error| error.while_parsing(parser, "tokenization"))?,
            None => Tokenization::default(),
        };
        let results_field = fields.string("results_field")?;
        let mut read = TaskReader { fields: &mut fields, tokenization: &tokenization, version };
        let task = match name {
            "fill_mask" => read.fill_mask()?,
            "ner" => read.ner()?,
            "pass_through" => Task::PassThrough,
            "question_answering" => read.question_answering()?,
            "text_classification" => read.text_classification()?,
            "text_embedding" => read.text_embedding()?,
            "text_expansion" => read.text_expansion()?,
            "text_similarity" => read.text_similarity()?,
            _ => read.zero_shot_classification()?,
        };
        fields.finish()?;
        Ok(Self { task, tokenization, results_field })
    }

    /// Configuration as returned by the server.
    pub(crate) fn to_json(&self, vocabulary_index: &str) -> Value {
        let mut settings = Map::new();
        settings.insert("vocabulary".into(), json!({"index": vocabulary_index}));
        settings.insert("tokenization".into(), self.tokenization.to_json());
        self.task.echo(&mut settings);
        if let Some(field) = &self.results_field {
            settings.insert("results_field".into(), field.clone().into());
        }
        json!({ self.task.name(): settings })
    }
}

/// Parser name of a task, and the first version that has the task.
fn known_task(name: &str) -> Option<(&'static str, Version)> {
    let always = Version::new(8, 0, 0);
    Some(match name {
        "fill_mask" => ("fill_mask", always),
        "ner" => ("ner", always),
        "pass_through" => ("pass_through", always),
        "question_answering" => ("question_answering", since::QUESTION_ANSWERING),
        "text_classification" => ("text_classification", always),
        "text_embedding" => ("text_embedding", always),
        "text_expansion" => ("text_expansion", since::TEXT_EXPANSION),
        "text_similarity" => ("text_similarity", since::TEXT_SIMILARITY),
        "zero_shot_classification" => ("zero_shot_classification", always),
        _ => return None,
    })
}

impl Task {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::FillMask { .. } => "fill_mask",
            Self::Ner { .. } => "ner",
            Self::PassThrough => "pass_through",
            Self::QuestionAnswering { .. } => "question_answering",
            Self::TextClassification { .. } => "text_classification",
            Self::TextEmbedding { .. } => "text_embedding",
            Self::TextExpansion { .. } => "text_expansion",
            Self::TextSimilarity { .. } => "text_similarity",
            Self::ZeroShotClassification(_) => "zero_shot_classification",
        }
    }

    fn echo(&self, settings: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| settings.insert(name.to_owned(), value);
        match self {
            Self::PassThrough => {}
            Self::FillMask { num_top_classes } => {
                put("num_top_classes", (*num_top_classes).into());
            }
            Self::Ner { labels } => {
                if let Some(labels) = labels {
                    put("classification_labels", labels.clone().into());
                }
            }
            Self::QuestionAnswering { num_top_classes, max_answer_length } => {
                put("num_top_classes", (*num_top_classes).into());
                put("max_answer_length", (*max_answer_length).into());
            }
            Self::TextClassification { labels, num_top_classes } => {
                put("classification_labels", labels.clone().into());
                put("num_top_classes", (*num_top_classes).into());
            }
            Self::TextEmbedding { embedding_size } => {
                if let Some(size) = embedding_size {
                    put("embedding_size", (*size).into());
                }
            }
            Self::TextExpansion { expansion } => {
                if *expansion == Expansion::Splade {
                    put("expansion_type", "splade".into());
                }
            }
            Self::TextSimilarity { span_score } => {
                put("span_score_combination_function", span_score.name().into());
            }
            Self::ZeroShotClassification(zero_shot) => {
                put("classification_labels", zero_shot.classification_labels.clone().into());
                put("hypothesis_template", zero_shot.hypothesis_template.clone().into());
                put("multi_label", zero_shot.multi_label.into());
                if let Some(labels) = &zero_shot.labels {
                    put("labels", labels.clone().into());
                }
            }
        }
    }
}

/// Parses the specific fields of a task.
struct TaskReader<'a> {
    fields: &'a mut Object,
    tokenization: &'a Tokenization,
    version: Version,
}

impl TaskReader<'_> {
    /// A validation error of the parsed object.
    fn broken(&self, rule: impl Into<String>) -> ApiError {
        ApiError::bad_request(rule).caused(not_built(self.fields.parser()))
    }

    fn refuse_windows(&self) -> Result<(), ApiError> {
        match self.tokenization.span {
            NO_SPAN => Ok(()),
            span => Err(self.broken(format!(
                "[{}] does not support windowing long text sequences; configured span [{span}]",
                self.fields.parser()
            ))),
        }
    }

    fn fill_mask(&mut self) -> Result<Task, ApiError> {
        let num_top_classes = self.fields.int("num_top_classes")?.unwrap_or(5);
        let mask = self.tokenization.mask_token();
        if let Some(supplied) =
            self.fields.string("mask_token")?.filter(|supplied| supplied != mask)
        {
            return Err(self.broken(format!(
                "Mask token requested was [{supplied}] but must be [{mask}] for this model"
            )));
        }
        self.refuse_windows()?;
        Ok(Task::FillMask { num_top_classes })
    }

    fn ner(&mut self) -> Result<Task, ApiError> {
        let labels =
            self.fields.strings("classification_labels")?.filter(|supplied| !supplied.is_empty());
        if let Some(supplied) = &labels {
            let is_tag = |label: &String| {
                let label = label.to_uppercase();
                ["I-", "B-", "I_", "B_", "O"].iter().any(|prefix| label.starts_with(prefix))
            };
            let bad: Vec<_> =
                supplied.iter().filter(|label| !is_tag(label)).map(String::as_str).collect();
            if !bad.is_empty() {
                return Err(self.broken(format!(
                    "[ner] only allows IOB tokenization tagging for classification labels; provided [{}]",
                    bad.join(", ")
                )));
            }
            if !supplied.iter().any(|label| label.eq_ignore_ascii_case("o")) {
                return Err(self.broken(
                    "[ner] only allows IOB tokenization tagging for classification labels; missing outside label [O]",
                ));
            }
        }
        self.refuse_windows()?;
        Ok(Task::Ner { labels })
    }

    fn question_answering(&mut self) -> Result<Task, ApiError> {
        let num_top_classes = self.fields.int("num_top_classes")?.unwrap_or(0);
        let max_answer_length = self.fields.int("max_answer_length")?.unwrap_or(15);
        check_answers(num_top_classes, max_answer_length).map_err(|rule| self.broken(rule))?;
        Ok(Task::QuestionAnswering { num_top_classes, max_answer_length })
    }

    fn text_classification(&mut self) -> Result<Task, ApiError> {
        let labels = self.fields.strings("classification_labels")?.unwrap_or_default();
        let num_top_classes = self.fields.int("num_top_classes")?.unwrap_or(0);
        if labels.len() < 2 {
            return Err(self.broken(format!(
                "[text_classification] requires at least 2 [classification_labels]; provided [{}]",
                labels.join(", ")
            )));
        }
        Ok(Task::TextClassification { labels, num_top_classes })
    }

    fn text_embedding(&mut self) -> Result<Task, ApiError> {
        let embedding_size = if self.version >= since::EMBEDDING_SIZE {
            self.fields.int("embedding_size")?
        } else {
            None
        };
        if let Some(size) = embedding_size.filter(|size| *size <= 0) {
            return Err(self.broken(format!(
                "[embedding_size] must be a number greater than 0; configured size [{size}]"
            )));
        }
        self.refuse_windows()?;
        Ok(Task::TextEmbedding { embedding_size })
    }

    fn text_expansion(&mut self) -> Result<Task, ApiError> {
        if self.version < since::TEXT_EXPANSION_TOKENIZERS
            && self.tokenization.tokenizer != Kind::Bert
        {
            return Err(self.broken(format!(
                "text expansion models must be configured with BERT tokenizer, [{}] given",
                self.tokenization.name()
            )));
        }
        let supplied = if self.version >= since::EXPANSION_TYPE {
            self.fields.string("expansion_type")?
        } else {
            None
        };
        let expansion = match supplied.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("elser") => Expansion::Elser,
            Some("splade") => Expansion::Splade,
            Some(other) => {
                return Err(self.broken(format!("unknown [expansion_type] [{other}]")));
            }
        };
        Ok(Task::TextExpansion { expansion })
    }

    fn text_similarity(&mut self) -> Result<Task, ApiError> {
        const FIELD: &str = "span_score_combination_function";
        let span_score = match self.fields.string(FIELD)? {
            Some(text) => SpanScore::parse(&text)
                .map_err(|error| error.while_parsing(self.fields.parser(), FIELD))?,
            None => SpanScore::Max,
        };
        Ok(Task::TextSimilarity { span_score })
    }

    fn zero_shot_classification(&mut self) -> Result<Task, ApiError> {
        const WANTED: [&str; 3] = ["contradiction", "entailment", "neutral"];
        const RULE: &str = "[classification_labels] must contain exactly the three values [contradiction, entailment, neutral]";
        let classification_labels =
            self.fields.strings("classification_labels")?.unwrap_or_default();
        let invalid: Vec<_> = classification_labels
            .iter()
            .filter(|label| !WANTED.contains(&label.to_lowercase().as_str()))
            .map(String::as_str)
            .collect();
        if !invalid.is_empty() {
            return Err(self.broken(format!("{RULE}. Invalid labels [{}]", invalid.join(", "))));
        }
        let has = |wanted: &&str| {
            classification_labels.iter().any(|label| label.eq_ignore_ascii_case(wanted))
        };
        if classification_labels.len() != WANTED.len() || !WANTED.iter().all(has) {
            return Err(self.broken(RULE));
        }
        let hypothesis_template = self
            .fields
            .string("hypothesis_template")?
            .unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned());
        let multi_label = self.fields.boolean("multi_label")?.unwrap_or(false);
        let labels = self.fields.strings("labels")?;
        if labels.as_ref().is_some_and(Vec::is_empty) {
            return Err(self.broken("[labels] must not be empty"));
        }
        self.refuse_windows()?;
        Ok(Task::ZeroShotClassification(ZeroShot {
            classification_labels,
            hypothesis_template,
            multi_label,
            labels,
        }))
    }
}

/// Validates the numbers of question answering.
pub(crate) fn check_answers(num_top_classes: i32, max_answer_length: i32) -> Result<(), String> {
    if num_top_classes < 0 {
        return Err(format!(
            "[num_top_classes] must be greater than or equal to [0]; provided [{num_top_classes}]"
        ));
    }
    if max_answer_length <= 0 {
        return Err(format!(
            "[max_answer_length] must be greater than [0]; provided [{max_answer_length}]"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<InferenceConfig, ApiError> {
        InferenceConfig::parse(value, Version::default())
    }

    #[test]
    fn returned_configuration_parses_to_the_same_task() {
        for settings in [
            json!({"ner": {}}),
            json!({"pass_through": {"results_field": "out"}}),
            json!({"fill_mask": {"mask_token": "[MASK]", "num_top_classes": 3}}),
            json!({"text_classification": {"classification_labels": ["a", "b"]}}),
            json!({"text_embedding": {"embedding_size": 384}}),
            json!({"text_expansion": {"expansion_type": "splade"}}),
            json!({"text_similarity": {"span_score_combination_function": "mean"}}),
            json!({"question_answering": {"max_answer_length": 5}}),
            json!({"zero_shot_classification": {"labels": ["x"],
                "classification_labels": ["Entailment", "neutral", "contradiction"]}}),
        ] {
            let config = parse(settings.clone()).unwrap();
            let mut echo = config.to_json("index");
            let task = echo.as_object_mut().unwrap().values_mut().next().unwrap();
            task.as_object_mut().unwrap().shift_remove("vocabulary").unwrap();
            let again = parse(echo).unwrap();
            assert_eq!(again.to_json("i"), config.to_json("i"), "{settings}");
        }
    }

    #[test]
    fn invalid_task_is_rejected_with_the_contract_message() {
        let spans =
            |task: &str| json!({task: {"tokenization": {"bert": {"truncate": "none", "span": 4}}}});
        for (settings, text) in [
            (json!({"ner": {"vocabulary": {"index": "x"}}}), "illegal setting [vocabulary]"),
            (
                json!({"ner": {"classification_labels": ["O", "PER", "LOC"]}}),
                "for classification labels; provided [PER, LOC]",
            ),
            (json!({"ner": {"classification_labels": ["B-PER"]}}), "missing outside label [O]"),
            (
                spans("ner"),
                "[ner] does not support windowing long text sequences; configured span [4]",
            ),
            (spans("fill_mask"), "[fill_mask] does not support windowing"),
            (spans("text_embedding"), "[text_embedding] does not support windowing"),
            (
                json!({"fill_mask": {"mask_token": "<mask>"}}),
                "Mask token requested was [<mask>] but must be [[MASK]] for this model",
            ),
            (
                json!({"text_classification": {"classification_labels": ["a"]}}),
                "[text_classification] requires at least 2 [classification_labels]; provided [a]",
            ),
            (json!({"text_classification": {}}), "requires at least 2"),
            (
                json!({"text_embedding": {"embedding_size": 0}}),
                "[embedding_size] must be a number greater than 0; configured size [0]",
            ),
            (json!({"text_similarity": {"text": "x"}}), "[text_similarity] unknown field [text]"),
            (
                json!({"text_similarity": {"span_score_combination_function": "sum"}}),
                "No enum constant",
            ),
            (json!({"question_answering": {"question": "x"}}), "unknown field [question]"),
            (
                json!({"question_answering": {"num_top_classes": -1}}),
                "[num_top_classes] must be greater than or equal to [0]; provided [-1]",
            ),
            (
                json!({"question_answering": {"max_answer_length": 0}}),
                "[max_answer_length] must be greater than [0]; provided [0]",
            ),
            (
                json!({"zero_shot_classification": {"classification_labels": ["entailment", "neutral"]}}),
                "must contain exactly the three values [contradiction, entailment, neutral]",
            ),
            (
                json!({"zero_shot_classification": {"classification_labels": ["entailment", "neutral", "no"]}}),
                ". Invalid labels [no]",
            ),
            (
                json!({"zero_shot_classification": {"labels": [],
                    "classification_labels": ["entailment", "neutral", "contradiction"]}}),
                "[labels] must not be empty",
            ),
            (json!({"classification": {}}), "with name [classification]: parser not found"),
            (json!({"ner": {}, "fill_mask": {}}), "unknown field [fill_mask]"),
            (json!({}), "expected a named task"),
        ] {
            let complaint = parse(settings).unwrap_err().everything();
            assert!(complaint.contains(text), "{complaint}");
        }
    }

    #[test]
    fn task_is_unknown_before_its_version() {
        let expansion = json!({"text_expansion": {}});
        assert!(InferenceConfig::parse(expansion.clone(), Version::new(8, 6, 2)).is_err());
        assert!(InferenceConfig::parse(expansion, Version::new(8, 7, 0)).is_ok());
        let with = |tokenizer: &str| json!({"text_expansion": {"tokenization": {tokenizer: {}}}});
        for (tokenizer, version, is_accepted) in [
            ("bert", Version::new(8, 16, 6), true),
            ("roberta", Version::new(8, 16, 6), false),
            ("roberta", Version::new(8, 17, 0), true),
            ("byte_level_bpe", Version::new(9, 4, 5), false),
            ("byte_level_bpe", Version::new(9, 5, 0), true),
        ] {
            let parsed = InferenceConfig::parse(with(tokenizer), version);
            assert_eq!(parsed.is_ok(), is_accepted, "{tokenizer} {version}");
        }
        let embedding = json!({"text_embedding": {"embedding_size": 3}});
        assert!(InferenceConfig::parse(embedding, Version::new(8, 7, 0)).is_err());
    }
}
