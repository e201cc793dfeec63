//! `--task-type`.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use super::similar::similar;
use crate::tasks::Task;

/// A task, or automatic choice from the model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskChoice {
    Auto,
    Named(Task),
}

const AUTO: &str = "auto";

/// Other names of the tasks: Transformers' pipelines, the hub's tags, and the services of `_inference`.
const SYNONYMS: [(&str, Task); 25] = [
    ("embed", Task::TextEmbedding),
    ("embedding", Task::TextEmbedding),
    ("embeddings", Task::TextEmbedding),
    ("feature_extraction", Task::TextEmbedding),
    ("sentence_similarity", Task::TextEmbedding),
    ("dense_vector", Task::TextEmbedding),
    ("rerank", Task::TextSimilarity),
    ("reranker", Task::TextSimilarity),
    ("reranking", Task::TextSimilarity),
    ("text_ranking", Task::TextSimilarity),
    ("cross_encoder", Task::TextSimilarity),
    ("sparse_embedding", Task::TextExpansion),
    ("sparse_vector", Task::TextExpansion),
    ("splade", Task::TextExpansion),
    ("elser", Task::TextExpansion),
    ("classification", Task::TextClassification),
    ("sentiment", Task::TextClassification),
    ("sentiment_analysis", Task::TextClassification),
    ("token_classification", Task::Ner),
    ("named_entity_recognition", Task::Ner),
    ("qa", Task::QuestionAnswering),
    ("zero_shot", Task::ZeroShotClassification),
    ("nli", Task::ZeroShotClassification),
    ("mlm", Task::FillMask),
    ("masked_lm", Task::FillMask),
];

impl FromStr for TaskChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == AUTO {
            return Ok(Self::Auto);
        }
        name.parse().map(Self::Named).map_err(|error: String| match meant(name) {
            Some(task) => format!("{error}\n\n  tip: did you mean '{task}'?"),
            None => error,
        })
    }
}

/// The task that a misspelled name may mean.
fn meant(name: &str) -> Option<&'static str> {
    let name = name.trim().to_lowercase().replace(['-', ' '], "_");
    let synonym = SYNONYMS.iter().find(|(synonym, _)| *synonym == name);
    let named =
        || similar(&name, Task::ALL.map(Task::name).into_iter().chain([AUTO])).first().copied();
    synonym.map(|(_, task)| task.name()).or_else(named)
}

/// Parses a task. Shells complete its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskParser;

impl TypedValueParser for TaskParser {
    type Value = TaskChoice;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<TaskChoice, clap::Error> {
        let parser = StringValueParser::new().try_map(|name| name.parse::<TaskChoice>());
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = [AUTO].into_iter().chain(Task::ALL.map(Task::name));
        Some(Box::new(names.map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_task_is_suggested() {
        for (name, task) in [
            ("embedding", "text_embedding"),
            ("Feature-Extraction", "text_embedding"),
            ("text_embeding", "text_embedding"),
            ("rerank", "text_similarity"),
            ("NER", "ner"),
            ("token-classification", "ner"),
            ("question answering", "question_answering"),
            ("zeroshot", "zero_shot_classification"),
            ("Auto", "auto"),
        ] {
            let error = name.parse::<TaskChoice>().unwrap_err();
            assert!(error.ends_with(&format!("did you mean '{task}'?")), "{name}: {error}");
        }
        assert!(!"zzz".parse::<TaskChoice>().unwrap_err().contains("did you mean"));
        assert_eq!("fill-mask".parse(), Ok(TaskChoice::Named(Task::FillMask)));
        assert_eq!("auto".parse(), Ok(TaskChoice::Auto));
    }
}
