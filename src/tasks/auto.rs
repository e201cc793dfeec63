//! Which task a model was made for.

use super::Task;
use super::zero_shot_classification::ENTAILMENT;
use crate::config::ModelConfig;

/// The task that `architectures` in `config.json` points to. A sentence-transformers folder is an embedding model whatever its
/// config says, for the library itself writes the class of the checkpoint that training began with.
#[must_use]
pub fn guess(config: &ModelConfig, sentence_transformers: bool) -> Option<Task> {
    if sentence_transformers {
        return Some(Task::TextEmbedding);
    }
    let class = |part: &str| config.architectures.iter().any(|class| class.contains(part));
    if class("MaskedLM") {
        Some(Task::FillMask)
    } else if class("TokenClassification") {
        Some(Task::Ner)
    } else if class("SequenceClassification") {
        let entails = |label: &String| ENTAILMENT.contains(&label.to_lowercase().as_str());
        Some(if config.labels.len() == 1 {
            Task::TextSimilarity
        } else if config.labels.iter().all(entails) {
            Task::ZeroShotClassification
        } else {
            Task::TextClassification
        })
    } else if class("QuestionAnswering") {
        Some(Task::QuestionAnswering)
    } else if class("DPRQuestionEncoder") || class("DPRContextEncoder") {
        Some(Task::TextEmbedding)
    } else {
        None
    }
}
