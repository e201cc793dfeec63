//! `--task-type`.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use super::similar::similar_above;
use crate::tasks::Task;

/// A task, or automatic choice from the model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskChoice {
    Auto,
    Named(Task),
}

const AUTO: &str = "auto";

/// Minimum similarity for a suggestion. Short names such as ner resemble many words.
const LIKE: f64 = 0.8;

/// Names that users may mean by a task, besides those that [`Task`] parses: the services of `_inference` and kinds of models. They are only
/// suggested, because some of them fit other tasks, too.
const SYNONYMS: [(&str, Task); 20] = [
    ("embed", Task::TextEmbedding),
    ("embedding", Task::TextEmbedding),
    ("embeddings", Task::TextEmbedding),
    ("dense_vector", Task::TextEmbedding),
    ("rerank", Task::TextSimilarity),
    ("reranker", Task::TextSimilarity),
    ("reranking", Task::TextSimilarity),
    ("cross_encoder", Task::TextSimilarity),
    ("sparse_embedding", Task::TextExpansion),
    ("sparse_vector", Task::TextExpansion),
    ("splade", Task::TextExpansion),
    ("elser", Task::TextExpansion),
    ("classification", Task::TextClassification),
    ("sentiment", Task::TextClassification),
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
    if let Ok(task) = name.parse::<Task>() {
        return Some(task.name());
    }
    // The error says why Elasticsearch has no task for the tag.
    if Task::is_pipeline_tag(&name) {
        return None;
    }
    let synonym = SYNONYMS.iter().find(|(synonym, _)| *synonym == name);
    let names = || Task::ALL.map(Task::name).into_iter().chain([AUTO]);
    let named = || similar_above(LIKE, &name, names()).first().copied();
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
        let names = [AUTO].into_iter().chain(Task::ALL.map(Task::name)).map(PossibleValue::new);
        let tags = Task::ALL.into_iter().flat_map(Task::pipeline_tags);
        Some(Box::new(names.chain(tags.map(|tag| PossibleValue::new(tag).hide(true)))))
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
            ("Token-Classification", "ner"),
            ("question answering", "question_answering"),
            ("zeroshot", "zero_shot_classification"),
            ("Auto", "auto"),
        ] {
            let error = name.parse::<TaskChoice>().unwrap_err();
            assert!(error.ends_with(&format!("did you mean '{task}'?")), "{name}: {error}");
        }
        assert!(!"zzz".parse::<TaskChoice>().unwrap_err().contains("did you mean"));
        // A tag without a task is refused with a reason, and has no similar name.
        for tag in
            ["summarization", "conversational", "text2text-generation", "Text2text_Generation"]
        {
            let error = tag.parse::<TaskChoice>().unwrap_err();
            assert!(!error.contains("did you mean"), "{error}");
        }
        for tag in ["token-classification", "token_classification"] {
            assert_eq!(tag.parse(), Ok(TaskChoice::Named(Task::Ner)));
        }
        assert_eq!("fill-mask".parse(), Ok(TaskChoice::Named(Task::FillMask)));
        assert_eq!("auto".parse(), Ok(TaskChoice::Auto));
    }
}
