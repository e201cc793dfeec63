//! A task with its settings: what the configuration says, and what one request sets.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{InferenceError, Output, answers, classes, entities, fill_mask, numbers};
use crate::server_tokenization::{Row, Settings, Token, Tokenizer, Truncate};

/// The member of a result that holds the prediction, unless the settings name another.
const PREDICTION: &str = "predicted_value";

/// The labels of `ner` if the configuration names none.
const DEFAULT_ENTITY_LABELS: [&str; 9] =
    ["O", "B_MISC", "I_MISC", "B_PER", "I_PER", "B_ORG", "I_ORG", "B_LOC", "I_LOC"];

/// A text, with the first text of the pair for tasks that read pairs: the question, or the text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input<'a> {
    /// The question of `question_answering`, or the query of `text_similarity`.
    pub first: Option<Cow<'a, str>>,
    /// The text.
    pub text: Cow<'a, str>,
}

/// The settings of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskSettings {
    /// `fill_mask`
    FillMask {
        /// Number of tokens in `top_classes`.
        num_top_classes: usize,
    },
    /// `ner`
    Ner {
        /// The labels of the logits, such as `B_PER`.
        labels: Vec<String>,
    },
    /// `pass_through`
    PassThrough,
    /// `question_answering`
    QuestionAnswering {
        /// Number of answers in `top_classes`.
        num_top_classes: usize,
        /// The largest number of tokens in an answer.
        max_answer_length: usize,
    },
    /// `text_classification`
    TextClassification {
        /// The labels of the logits.
        labels: Vec<String>,
        /// Number of labels in `top_classes`.
        num_top_classes: usize,
    },
    /// `text_embedding`
    TextEmbedding,
    /// `text_expansion`
    TextExpansion {
        /// Whether the output has logits per token, from which the server computes the weights.
        is_splade: bool,
    },
    /// `text_similarity`
    TextSimilarity {
        /// Whether the score of a long text is the mean of its windows instead of the maximum.
        is_mean: bool,
    },
    /// `zero_shot_classification`
    ZeroShotClassification {
        /// Position of the logit of entailment.
        entailment: usize,
        /// Position of the logit of contradiction.
        contradiction: usize,
        /// The sentence in which `{}` stands for a label.
        template: String,
        /// Whether several labels can apply to a text.
        is_multi_label: bool,
        /// The labels to choose from.
        labels: Vec<String>,
    },
}

/// How texts become results: a task, its settings, and those of the tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The settings of the task.
    pub task: TaskSettings,
    /// The member of a result that holds the prediction.
    pub results_field: String,
    /// What is cut when a text is too long.
    pub truncate: Truncate,
    /// The number of tokens that windows of a long text share.
    pub span: i32,
    /// Whether the tokenizer ignores case.
    is_lower_case: bool,
}

/// The members of a task's settings, in a configuration or in a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    results_field: Option<String>,
    num_top_classes: Option<i64>,
    max_answer_length: Option<usize>,
    classification_labels: Option<Vec<String>>,
    labels: Option<Vec<String>>,
    multi_label: Option<bool>,
    hypothesis_template: Option<String>,
    expansion_type: Option<String>,
    span_score_combination_function: Option<String>,
}

impl Request {
    /// Reads the `inference_config` of a configuration and the settings of one request, which have the names of the API.
    ///
    /// # Errors
    /// [`InferenceError::Settings`] if the task is unknown or a setting is missing or not valid.
    pub fn read(
        inference_config: &Value,
        settings: &Settings,
        overrides: &Map<String, Value>,
    ) -> Result<Self, InferenceError> {
        let invalid = |reason: String| InferenceError::Settings(reason);
        let mut tasks = inference_config.as_object().into_iter().flatten();
        let Some((task, config)) = tasks.next() else {
            return Err(invalid("the configuration names no task".into()));
        };
        let mut merged = config.as_object().cloned().unwrap_or_default();
        merged.extend(overrides.clone());
        let fields = Fields::deserialize(Value::Object(merged))
            .map_err(|error| invalid(format!("the settings of {task} are not valid: {error}")))?;
        // A negative number stands for all.
        let top = |default: i64| {
            usize::try_from(fields.num_top_classes.unwrap_or(default)).unwrap_or(usize::MAX)
        };
        let labels = |fields: &Fields| {
            let labels = fields.classification_labels.clone();
            labels.ok_or_else(|| {
                invalid(format!("the configuration of {task} has no classification_labels"))
            })
        };
        let task = match task.as_str() {
            "fill_mask" => TaskSettings::FillMask { num_top_classes: top(5) },
            "ner" => TaskSettings::Ner {
                labels: fields
                    .classification_labels
                    .unwrap_or_else(|| DEFAULT_ENTITY_LABELS.map(str::to_owned).to_vec()),
            },
            "pass_through" => TaskSettings::PassThrough,
            "question_answering" => TaskSettings::QuestionAnswering {
                // For answers, a negative number is as good as 0.
                num_top_classes: usize::try_from(fields.num_top_classes.unwrap_or(0)).unwrap_or(0),
                max_answer_length: fields.max_answer_length.unwrap_or(15),
            },
            "text_classification" => TaskSettings::TextClassification {
                num_top_classes: top(0),
                labels: labels(&fields)?,
            },
            "text_embedding" => TaskSettings::TextEmbedding,
            "text_expansion" => TaskSettings::TextExpansion {
                is_splade: fields.expansion_type.as_deref() == Some("splade"),
            },
            "text_similarity" => TaskSettings::TextSimilarity {
                is_mean: fields.span_score_combination_function.as_deref() == Some("mean"),
            },
            "zero_shot_classification" => {
                let of_model = labels(&fields)?;
                let position = |name: &str| {
                    let found = of_model.iter().position(|label| label.eq_ignore_ascii_case(name));
                    found.ok_or_else(|| invalid(format!("the labels of the model lack {name}")))
                };
                let (entailment, contradiction) =
                    (position("entailment")?, position("contradiction")?);
                let Some(labels) = fields.labels.filter(|labels| !labels.is_empty()) else {
                    return Err(invalid("zero_shot_classification needs labels".into()));
                };
                TaskSettings::ZeroShotClassification {
                    entailment,
                    contradiction,
                    template: fields
                        .hypothesis_template
                        .unwrap_or_else(|| "This example is {}.".into()),
                    is_multi_label: fields.multi_label.unwrap_or(false),
                    labels,
                }
            }
            other => return Err(invalid(format!("there is no task {other}"))),
        };
        Ok(Self {
            task,
            results_field: fields.results_field.unwrap_or_else(|| PREDICTION.into()),
            truncate: settings.truncate,
            span: settings.span,
            is_lower_case: settings.do_lower_case,
        })
    }

    /// Whether the task reads pairs whose first text is set per request.
    #[must_use]
    pub fn reads_pairs(&self) -> bool {
        matches!(
            self.task,
            TaskSettings::QuestionAnswering { .. } | TaskSettings::TextSimilarity { .. }
        )
    }

    /// The rows that the server feeds the graph for a text: one, a window after the other, or one for each label.
    ///
    /// # Errors
    /// When the server throws an exception, or the text does not fit the task.
    pub fn rows(
        &self,
        tokenizer: &Tokenizer,
        input: &Input<'_>,
    ) -> Result<Vec<Row>, InferenceError> {
        let text = input.text.as_ref();
        match &self.task {
            TaskSettings::QuestionAnswering { .. } | TaskSettings::TextSimilarity { .. } => {
                let first = self.first(input)?;
                Ok(tokenizer.pair_windows(first, text, self.truncate, self.span)?)
            }
            TaskSettings::ZeroShotClassification { template, labels, .. } => labels
                .iter()
                .map(|label| {
                    let hypothesis = hypothesis(template, label);
                    Ok(tokenizer.pair(text, &hypothesis, self.truncate)?)
                })
                .collect(),
            TaskSettings::FillMask { .. } => {
                fill_mask::check(text, tokenizer)?;
                Ok(tokenizer.single(text, self.truncate, self.span)?)
            }
            _ => Ok(tokenizer.single(text, self.truncate, self.span)?),
        }
    }

    /// The rows of a text as the server lays them out, with the tokens of another tokenizer that has the same ids.
    ///
    /// # Errors
    /// As for [`rows`](Self::rows), and the errors of `tokens`.
    pub fn rows_of(
        &self,
        layout: &Tokenizer,
        input: &Input<'_>,
        tokens: &dyn Fn(&str) -> Result<Vec<Token>, InferenceError>,
    ) -> Result<Vec<Row>, InferenceError> {
        let text = tokens(&input.text)?;
        match &self.task {
            TaskSettings::QuestionAnswering { .. } | TaskSettings::TextSimilarity { .. } => {
                let first = tokens(self.first(input)?)?;
                Ok(layout.pair_windows_of_tokens(&first, &text, self.truncate, self.span)?)
            }
            TaskSettings::ZeroShotClassification { template, labels, .. } => labels
                .iter()
                .map(|label| {
                    let hypothesis = tokens(&hypothesis(template, label))?;
                    Ok(layout.pair_of_tokens(&text, &hypothesis, self.truncate)?)
                })
                .collect(),
            _ => Ok(layout.single_rows(&text, self.truncate, self.span)?),
        }
    }

    /// The first text of the pair.
    ///
    /// # Errors
    /// [`InferenceError::Settings`] if it is not set.
    pub fn first<'a>(&self, input: &'a Input<'_>) -> Result<&'a str, InferenceError> {
        input.first.as_deref().ok_or_else(|| {
            InferenceError::Settings(match self.task {
                TaskSettings::QuestionAnswering { .. } => {
                    "question_answering needs a question".into()
                }
                _ => "text_similarity needs a text to compare with".into(),
            })
        })
    }

    /// The result object of the server for a text with its rows and the output of the graph for them.
    ///
    /// # Errors
    /// [`InferenceError::Output`] if the output does not fit the task.
    pub fn result(
        &self,
        tokenizer: &Tokenizer,
        input: &Input<'_>,
        rows: &[Row],
        output: &Output,
    ) -> Result<Value, InferenceError> {
        let text = input.text.as_ref();
        let field = self.results_field.as_str();
        let row = rows.first().ok_or_else(|| InferenceError::Output("there are no rows".into()))?;
        let mut result = match &self.task {
            TaskSettings::PassThrough => numbers::matrix(output, field)?,
            TaskSettings::TextEmbedding => numbers::vector(output, field)?,
            TaskSettings::TextExpansion { is_splade } => {
                numbers::weights(output, *is_splade, tokenizer, field)?
            }
            TaskSettings::TextSimilarity { is_mean } => numbers::score(output, *is_mean, field)?,
            TaskSettings::TextClassification { labels, num_top_classes } => {
                classes::of_logits(output, labels, *num_top_classes, field)?
            }
            TaskSettings::ZeroShotClassification {
                entailment,
                contradiction,
                is_multi_label,
                labels,
                ..
            } => {
                let contradiction = is_multi_label.then_some(*contradiction);
                classes::of_entailment(output, *entailment, contradiction, labels, field)?
            }
            TaskSettings::FillMask { num_top_classes } => {
                fill_mask::fill(output, row, text, tokenizer, *num_top_classes, field)?
            }
            TaskSettings::Ner { labels } => {
                entities::find(output, row, text, labels, self.is_lower_case, field)?
            }
            TaskSettings::QuestionAnswering { num_top_classes, max_answer_length } => {
                answers::find(output, rows, text, *num_top_classes, *max_answer_length, field)?
            }
        };
        if rows.iter().any(|row| row.is_truncated) {
            result.insert("is_truncated".into(), true.into());
        }
        Ok(result.into())
    }
}

/// The sentence that says that a label applies.
#[must_use]
pub(super) fn hypothesis(template: &str, label: &str) -> String {
    template.replacen("{}", label, 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value, overrides: Value) -> Result<Request, InferenceError> {
        let settings = Settings::from_json(&json!({"bert": {}})).unwrap();
        Request::read(&config, &settings, overrides.as_object().unwrap())
    }

    #[test]
    fn settings_of_the_request_replace_those_of_the_configuration() {
        let labels = ["contradiction", "neutral", "entailment"];
        let config = json!({"zero_shot_classification":
            {"classification_labels": labels, "labels": ["a"], "multi_label": true}});
        let request = read(config, json!({"labels": ["b", "c"]})).unwrap();
        let TaskSettings::ZeroShotClassification { labels, is_multi_label, template, .. } =
            request.task
        else {
            panic!()
        };
        assert_eq!((labels, is_multi_label), (vec!["b".to_owned(), "c".to_owned()], true));
        assert_eq!(hypothesis(&template, "b"), "This example is b.");
        let all = json!({"text_classification": {"classification_labels": ["a", "b"], "num_top_classes": -1}});
        let TaskSettings::TextClassification { num_top_classes, .. } =
            read(all, json!({})).unwrap().task
        else {
            panic!()
        };
        assert_eq!(num_top_classes, usize::MAX);
    }

    #[test]
    fn missing_settings_are_named() {
        for (config, overrides, part) in [
            (json!({}), json!({}), "names no task"),
            (json!({"translation": {}}), json!({}), "no task translation"),
            (json!({"text_classification": {}}), json!({}), "classification_labels"),
            (json!({"text_embedding": {}}), json!({"num_top_classes": "x"}), "not valid"),
            (
                json!({"zero_shot_classification": {"classification_labels": ["entailment", "neutral", "contradiction"]}}),
                json!({}),
                "needs labels",
            ),
        ] {
            let error = read(config, overrides).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
