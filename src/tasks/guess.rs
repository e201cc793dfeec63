//! Which task a model was made for.

use super::Task;
use crate::config::ModelConfig;

/// The task that `architectures` in `config.json` points to, and why. A sentence-transformers folder is an embedding model whatever
/// its config says, for the library itself writes the class of the checkpoint that training began with.
#[must_use]
pub fn guess(config: &ModelConfig, sentence_transformers: bool) -> Option<(Task, String)> {
    if sentence_transformers {
        let reason = "modules.json makes it a model of sentence-transformers".to_owned();
        return Some((Task::TextEmbedding, reason));
    }
    let (class, task) = config.architectures.iter().find_map(|class| {
        let known = CLASSES.iter().find(|(part, _)| class.contains(part))?;
        Some((class, known.1))
    })?;
    let reason = format!("config.json names {class}");
    if task != Task::TextClassification {
        return Some((task, reason));
    }
    // One score is a reranker's, the three labels of natural language inference are zero-shot's.
    let fits = |task: &Task| task.check_labels(&config.labels).is_ok();
    let special = [Task::TextSimilarity, Task::ZeroShotClassification];
    let task = special.into_iter().find(fits).unwrap_or(task);
    Some(match task {
        Task::TextSimilarity => (task, format!("{reason} with a single score")),
        Task::ZeroShotClassification => {
            (task, format!("{reason} with the labels of natural language inference"))
        }
        other => (other, format!("{reason} with {} labels", config.labels.len())),
    })
}

/// What a Transformers class is for, by a part of its name.
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

    #[test]
    fn the_task_is_told_by_class_and_labels() {
        let guessed = |class: &str, labels: &[&str], sentence_transformers: bool| {
            let config = ModelConfig {
                json: Value::Null,
                model_type: None,
                architectures: vec![class.to_owned()],
                tokenizer_class: None,
                labels: labels.iter().map(|&label| label.to_owned()).collect(),
            };
            guess(&config, sentence_transformers).map(|(task, _)| task)
        };
        assert_eq!(guessed("BertForMaskedLM", &[], false), Some(Task::FillMask));
        assert_eq!(guessed("MPNetForMaskedLM", &[], true), Some(Task::TextEmbedding));
        assert_eq!(guessed("BertForTokenClassification", &[], false), Some(Task::Ner));
        assert_eq!(
            guessed("ElectraForQuestionAnswering", &[], false),
            Some(Task::QuestionAnswering)
        );
        assert_eq!(guessed("DPRContextEncoder", &[], false), Some(Task::TextEmbedding));
        assert_eq!(guessed("BertModel", &[], false), None);
        let by_labels = |labels: &[&str]| guessed("BertForSequenceClassification", labels, false);
        assert_eq!(by_labels(&["LABEL_0"]), Some(Task::TextSimilarity));
        assert_eq!(by_labels(&["POSITIVE", "NEGATIVE"]), Some(Task::TextClassification));
        let inference = ["ENTAILMENT", "neutral", "contradiction"];
        assert_eq!(by_labels(&inference), Some(Task::ZeroShotClassification));
        // Two of the three are not what the server's zero-shot task takes.
        assert_eq!(by_labels(&inference[..2]), Some(Task::TextClassification));
    }
}
