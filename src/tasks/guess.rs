//! Guesses the task of a model from its files.

use super::Task;
use crate::config::{ModelConfig, SentenceTransformers, Usage};

/// The task that a model was saved for, and the reason. The files of sentence-transformers take precedence over `architectures` in
/// `config.json`, because the library writes the class of the checkpoint that the training started with.
#[must_use]
pub fn guess(
    config: &ModelConfig,
    modules: Option<&SentenceTransformers>,
    usage: &Usage,
) -> Option<(Task, String)> {
    let kind = usage.model_type.as_deref();
    if kind == Some("CrossEncoder") || modules.is_some_and(SentenceTransformers::is_classifier) {
        return Some(by_labels(config, "it is a CrossEncoder of sentence-transformers"));
    }
    if kind == Some("SparseEncoder") || modules.is_some_and(SentenceTransformers::is_sparse) {
        let reason = "it is a SparseEncoder of sentence-transformers".to_owned();
        return Some((Task::TextExpansion, reason));
    }
    if modules.is_some() {
        let reason = "modules.json describes a model of sentence-transformers".to_owned();
        return Some((Task::TextEmbedding, reason));
    }
    let (class, task) = config.architectures.iter().find_map(|class| {
        let known = CLASSES.iter().find(|(part, _)| class.contains(part))?;
        Some((class, known.1))
    })?;
    let reason = format!("config.json names {class}");
    if task == Task::TextClassification {
        return Some(by_labels(config, &reason));
    }
    Some((task, reason))
}

/// Task of a sequence classifier. A model with a single score is a reranker, and a model with the labels of natural language
/// inference is a zero-shot classifier.
fn by_labels(config: &ModelConfig, reason: &str) -> (Task, String) {
    let fits = |task: &Task| task.served_labels(&config.labels).is_ok();
    let special = [Task::TextSimilarity, Task::ZeroShotClassification];
    match special.into_iter().find(fits) {
        Some(Task::TextSimilarity) => {
            (Task::TextSimilarity, format!("{reason} with a single score"))
        }
        Some(task) => (task, format!("{reason} with the labels of natural language inference")),
        None => {
            (Task::TextClassification, format!("{reason} with {} labels", config.labels.count()))
        }
    }
}

/// Tasks of Transformers classes, by a part of their names.
const CLASSES: [(&str, Task); 6] = [
    ("MaskedLM", Task::FillMask),
    ("TokenClassification", Task::Ner),
    ("SequenceClassification", Task::TextClassification),
    ("QuestionAnswering", Task::QuestionAnswering),
    ("DPRQuestionEncoder", Task::TextEmbedding),
    ("DPRContextEncoder", Task::TextEmbedding),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::Labels;

    #[test]
    fn task_follows_class_and_labels() {
        let guessed = |class: &str, labels: &[&str]| {
            let config = ModelConfig {
                json: Value::Null,
                model_type: None,
                architectures: vec![class.to_owned()],
                tokenizer_class: None,
                labels: Labels::new(labels.iter().map(|&label| label.to_owned()).collect()),
                nulls: Vec::new(),
            };
            guess(&config, None, &Usage::default()).map(|(task, _)| task)
        };
        assert_eq!(guessed("BertForMaskedLM", &[]), Some(Task::FillMask));
        assert_eq!(guessed("BertForTokenClassification", &[]), Some(Task::Ner));
        assert_eq!(guessed("ElectraForQuestionAnswering", &[]), Some(Task::QuestionAnswering));
        assert_eq!(guessed("DPRContextEncoder", &[]), Some(Task::TextEmbedding));
        assert_eq!(guessed("BertModel", &[]), None);
        let by_labels = |labels: &[&str]| guessed("BertForSequenceClassification", labels);
        assert_eq!(by_labels(&["LABEL_0"]), Some(Task::TextSimilarity));
        assert_eq!(by_labels(&["POSITIVE", "NEGATIVE"]), Some(Task::TextClassification));
        let inference = ["ENTAILMENT", "neutral", "contradiction"];
        assert_eq!(by_labels(&inference), Some(Task::ZeroShotClassification));
        let two = ["not_entailment", "entailment"];
        assert_eq!(by_labels(&two), Some(Task::ZeroShotClassification));
        // Without contradiction, the labels are not those of natural language inference.
        assert_eq!(by_labels(&inference[..2]), Some(Task::TextClassification));
    }

    #[test]
    fn sentence_transformers_class_takes_precedence() {
        let config = |labels: usize| ModelConfig {
            json: Value::Null,
            model_type: None,
            architectures: vec!["BertForMaskedLM".to_owned()],
            tokenizer_class: None,
            labels: Labels::new(vec!["x".to_owned(); labels]),
            nulls: Vec::new(),
        };
        let guessed = |class: &str, labels| {
            let usage = Usage { model_type: Some(class.to_owned()), ..Usage::default() };
            guess(&config(labels), None, &usage).map(|(task, _)| task)
        };
        assert_eq!(guessed("CrossEncoder", 1), Some(Task::TextSimilarity));
        assert_eq!(guessed("CrossEncoder", 2), Some(Task::TextClassification));
        assert_eq!(guessed("SparseEncoder", 2), Some(Task::TextExpansion));
    }
}
