//! Hugging Face's pipeline tags as names of tasks.
//!
//! The tags are the keys of `PIPELINE_DATA` in `packages/tasks/src/pipelines.ts` of huggingface.js, and the names and aliases of
//! Transformers' pipelines.

use super::Task;

/// Tags of the tasks that Elasticsearch serves. A tag that equals the name of a task except for hyphens is not listed.
const SERVED: [(&str, Task); 5] = [
    // "Extracting features learnt in a model": Elasticsearch stores the pooled features of a text.
    ("feature-extraction", Task::TextEmbedding),
    // "Sentence similarity models convert input texts into vectors (embeddings)."
    ("sentence-similarity", Task::TextEmbedding),
    // "Ranking a set of texts based on their relevance to a query."
    ("text-ranking", Task::TextSimilarity),
    // "A label is assigned to some tokens in a text", most often named entities.
    ("token-classification", Task::Ner),
    // Transformers' alias of text-classification.
    ("sentiment-analysis", Task::TextClassification),
];

/// Tags of models that write texts.
const GENERATION: [&str; 7] = [
    "conversational",
    "summarization",
    "table-to-text",
    "tabular-to-text",
    "text-generation",
    "text2text-generation",
    "translation",
];

/// Tags of models for tables.
const TABLES: [&str; 4] = [
    "table-question-answering",
    "tabular-classification",
    "tabular-regression",
    "time-series-forecasting",
];

/// Tags of models whose input or output is neither text nor a table.
const OTHER_DATA: [&str; 37] = [
    "any-to-any",
    "audio-classification",
    "audio-text-to-text",
    "audio-to-audio",
    "automatic-speech-recognition",
    "depth-estimation",
    "document-question-answering",
    "graph-ml",
    "image-classification",
    "image-feature-extraction",
    "image-segmentation",
    "image-text-to-image",
    "image-text-to-text",
    "image-text-to-video",
    "image-to-3d",
    "image-to-image",
    "image-to-text",
    "image-to-video",
    "keypoint-detection",
    "mask-generation",
    "object-detection",
    "reinforcement-learning",
    "robotics",
    "text-to-3d",
    "text-to-audio",
    "text-to-image",
    "text-to-speech",
    "text-to-video",
    "unconditional-image-generation",
    "video-classification",
    "video-text-to-text",
    "video-to-video",
    "visual-document-retrieval",
    "visual-question-answering",
    "voice-activity-detection",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
];

/// The task of a pipeline tag. Underscores are accepted instead of hyphens. `None` if the name is no tag.
///
/// # Errors
/// Why Elasticsearch has no task for the tag, and what to do.
pub(super) fn task_of_tag(name: &str) -> Option<Result<Task, String>> {
    let tag = name.replace('_', "-");
    if let Some((_, task)) = SERVED.iter().find(|(served, _)| *served == tag) {
        return Some(Ok(*task));
    }
    let lists = |tags: &[&str]| tags.contains(&tag.as_str());
    let reason = if lists(&GENERATION) {
        "such models write texts, and Elasticsearch serves models that classify, embed or compare texts. If the model is an encoder, set the task \
         to use it for"
    } else if lists(&TABLES) {
        "such models read tables. Elasticsearch serves tree models for tables, which need no task"
    } else if lists(&OTHER_DATA) {
        "Elasticsearch serves models whose input is text. If the model has an encoder for texts, set the task to use it for"
    } else {
        match tag.as_str() {
            "multiple-choice" => {
                "such models choose one of several texts. A model that scores pairs of texts serves text_similarity"
            }
            "text-retrieval" => {
                "the tag describes data sets. Models for retrieval serve text_embedding, text_expansion or text_similarity"
            }
            _ => return None,
        }
    };
    Some(Err(format!(
        "Elasticsearch has no task for Hugging Face's pipeline tag {tag:?}: {reason}"
    )))
}

impl Task {
    /// Whether a name is one of Hugging Face's pipeline tags.
    #[must_use]
    pub fn is_pipeline_tag(name: &str) -> bool {
        task_of_tag(name).is_some()
    }

    /// Hugging Face's tags of the task that differ from its name.
    pub fn pipeline_tags(self) -> impl Iterator<Item = &'static str> {
        SERVED.into_iter().filter(move |(_, task)| *task == self).map(|(tag, _)| tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_of_hugging_face_is_a_task() {
        for (tag, task) in [
            ("feature-extraction", Task::TextEmbedding),
            ("feature_extraction", Task::TextEmbedding),
            ("sentence-similarity", Task::TextEmbedding),
            ("text-ranking", Task::TextSimilarity),
            ("token-classification", Task::Ner),
            ("ner", Task::Ner),
            ("text-classification", Task::TextClassification),
            ("sentiment-analysis", Task::TextClassification),
            ("zero-shot-classification", Task::ZeroShotClassification),
            ("question-answering", Task::QuestionAnswering),
            ("fill-mask", Task::FillMask),
        ] {
            assert_eq!(tag.parse::<Task>(), Ok(task), "{tag}");
        }
    }

    #[test]
    fn tag_without_a_task_is_refused_with_the_reason() {
        for (tag, reason) in [
            ("summarization", "write texts"),
            ("text_generation", "write texts"),
            ("tabular-regression", "tree models"),
            ("image-to-text", "whose input is text"),
            ("multiple-choice", "text_similarity"),
            ("text-retrieval", "text_embedding"),
        ] {
            let error = tag.parse::<Task>().unwrap_err();
            assert!(error.contains("pipeline tag") && error.contains(reason), "{tag}: {error}");
        }
        assert!(!"feature".parse::<Task>().unwrap_err().contains("pipeline tag"));
    }

    #[test]
    fn no_tag_is_listed_twice() {
        let served = SERVED.map(|(tag, _)| tag);
        let mut tags: Vec<_> =
            served.iter().chain(&GENERATION).chain(&TABLES).chain(&OTHER_DATA).collect();
        tags.sort_unstable();
        let count = tags.len();
        tags.dedup();
        assert_eq!(tags.len(), count);
    }
}
