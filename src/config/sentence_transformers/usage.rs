//! `config_sentence_transformers.json`: how a model is meant to be used.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::lenient;
use crate::source::{ModelFiles, SENTENCE_TRANSFORMERS_CONFIG, SourceError};

/// `config_sentence_transformers.json`: intended use of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Class of the library that the model was saved from: `SentenceTransformer`, `SparseEncoder` or `CrossEncoder`.
    pub model_type: Option<String>,
    /// Prompts by name. A prompt is prepended to a text.
    pub prompts: BTreeMap<String, String>,
    /// Name of the prompt that is used by default.
    pub default_prompt: Option<String>,
    /// Similarity function of embeddings: `cosine`, `dot`, `euclidean`, `manhattan`.
    pub similarity: Option<String>,
    /// Number of leading components of each embedding that the library keeps.
    pub truncate_dim: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawUsage {
    #[serde(deserialize_with = "lenient::text")]
    model_type: Option<String>,
    #[serde(deserialize_with = "lenient::number")]
    truncate_dim: Option<i64>,
    #[serde(deserialize_with = "lenient::named_texts")]
    prompts: BTreeMap<String, String>,
    #[serde(deserialize_with = "lenient::text")]
    default_prompt_name: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    similarity_fn_name: Option<String>,
}

/// Names of the prompts for queries and for documents: first the library's own names, then other common names.
const QUERY: [&str; 3] = ["query", "search_query", "retrieval.query"];
const DOCUMENT: [&str; 5] =
    ["document", "passage", "corpus", "search_document", "retrieval.passage"];

/// Prompts that model cards ask for and config_sentence_transformers.json does not declare: the beginning of the repository's name, the
/// prompt for queries, and the prompt for documents.
const FAMILIES: [(&str, &str, &str); 8] = [
    ("nomic-embed-text-", "search_query: ", "search_document: "),
    ("modernbert-embed-", "search_query: ", "search_document: "),
    ("e5-small", "query: ", "passage: "),
    ("e5-base", "query: ", "passage: "),
    ("e5-large", "query: ", "passage: "),
    ("multilingual-e5-small", "query: ", "passage: "),
    ("multilingual-e5-base", "query: ", "passage: "),
    ("multilingual-e5-large", "query: ", "passage: "),
];

impl Usage {
    /// Sets the prompts of the family that a repository or folder belongs to by its name, if the file declares no prompt for queries or
    /// documents.
    pub fn assume_family(&mut self, name: &str) {
        let name = name.rsplit('/').next().unwrap_or_default().to_lowercase();
        if self.query().is_some() || self.document().is_some() || name.contains("instruct") {
            return;
        }
        if let Some((_, query, document)) =
            FAMILIES.iter().find(|(beginning, ..)| name.starts_with(beginning))
        {
            let [query_name, document_name] = [QUERY[0], DOCUMENT[0]];
            self.prompts.insert(query_name.to_owned(), (*query).to_owned());
            self.prompts.insert(document_name.to_owned(), (*document).to_owned());
        }
    }

    /// Selects the prompt of a task for which an adapter was trained, as the prompt for all texts. `instructions` are prompts of tasks that
    /// another file declares. Without a prompt for the task, all prompts stay.
    pub fn choose_task(&mut self, task: &str, instructions: &BTreeMap<String, String>) {
        if let Some(prompt) = self.prompts.get(task).or(instructions.get(task)).cloned() {
            let names = [QUERY[0], DOCUMENT[0]];
            self.prompts = names.map(|name| (name.to_owned(), prompt.clone())).into();
            self.default_prompt = None;
        }
    }

    /// Reads the file in a model's folder. Without the file, all fields are empty.
    ///
    /// # Errors
    /// [`SourceError`] if the file is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let Some(raw) = files.json::<RawUsage>(SENTENCE_TRANSFORMERS_CONFIG)? else {
            return Ok(Self::default());
        };
        Ok(Self {
            model_type: raw.model_type,
            truncate_dim: raw.truncate_dim,
            prompts: raw.prompts,
            default_prompt: raw.default_prompt_name,
            similarity: raw.similarity_fn_name,
        })
    }

    /// Prompt for queries, or else the prompt for all texts. `None` if it is empty.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.prompt(&QUERY)
    }

    /// Prompt for documents, or else the prompt for all texts. `None` if it is empty.
    #[must_use]
    pub fn document(&self) -> Option<&str> {
        self.prompt(&DOCUMENT)
    }

    /// Whether the prompts for queries and documents are declared and empty.
    #[must_use]
    pub fn has_empty_prompts(&self) -> bool {
        let mut declared =
            QUERY.iter().chain(&DOCUMENT).filter_map(|name| self.prompts.get(*name)).peekable();
        declared.peek().is_some() && declared.all(String::is_empty)
    }

    /// Name and text of the prompt that the library prepends to every text by default. `None` if it is empty.
    #[must_use]
    pub fn default_prompt(&self) -> Option<(&str, &str)> {
        let name = self.default_prompt.as_deref()?;
        let text = self.prompts.get(name).filter(|text| !text.is_empty())?;
        Some((name, text))
    }

    fn prompt(&self, names: &[&str]) -> Option<&str> {
        let by_default = || self.prompts.get(self.default_prompt.as_ref()?);
        let found = names.iter().find_map(|name| self.prompts.get(*name)).or_else(by_default);
        found.map(String::as_str).filter(|prompt| !prompt.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_of_a_task_is_for_all_texts() {
        let texts = |texts: &[(&str, &str)]| -> BTreeMap<String, String> {
            texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let prompts =
            texts(&[("retrieval.query", "q: "), ("retrieval.passage", "p: "), ("separation", "")]);
        let of = |task: &str| {
            let mut usage = Usage { prompts: prompts.clone(), ..Usage::default() };
            usage.choose_task(task, &texts(&[("classification", "c: ")]));
            (usage.query().map(str::to_owned), usage.document().map(str::to_owned))
        };
        let both = |text: &str| (Some(text.to_owned()), Some(text.to_owned()));
        assert_eq!(of("retrieval.passage"), both("p: "));
        assert_eq!(of("classification"), both("c: "));
        assert_eq!(of("separation"), (None, None));
        assert_eq!(of("text-matching"), (Some("q: ".into()), Some("p: ".into())));
        for (task, is_empty) in [("separation", true), ("classification", false)] {
            let mut usage = Usage { prompts: prompts.clone(), ..Usage::default() };
            usage.choose_task(task, &texts(&[("classification", "c: ")]));
            assert_eq!(usage.has_empty_prompts(), is_empty, "{task}");
        }
        assert!(!Usage::default().has_empty_prompts());
    }

    #[test]
    fn family_sets_prompts_that_the_file_does_not_declare() {
        let of = |name: &str| {
            let mut usage = Usage::default();
            usage.assume_family(name);
            (usage.query().map(str::to_owned), usage.document().map(str::to_owned))
        };
        let prompts = |query: &str, document: &str| (Some(query.into()), Some(document.into()));
        let search = prompts("search_query: ", "search_document: ");
        assert_eq!(of("nomic-ai/nomic-embed-text-v1.5"), search);
        assert_eq!(of("ModernBERT-embed-base"), search);
        assert_eq!(of("intfloat/multilingual-e5-base"), prompts("query: ", "passage: "));
        assert_eq!(of("intfloat/multilingual-e5-large-instruct"), (None, None));
        assert_eq!(of("sentence-transformers/all-MiniLM-L6-v2"), (None, None));
        let declared = BTreeMap::from([("query".to_owned(), "ask: ".to_owned())]);
        let mut usage = Usage { prompts: declared, ..Usage::default() };
        usage.assume_family("intfloat/e5-base-v2");
        assert_eq!((usage.query(), usage.document()), (Some("ask: "), None));
    }
}
