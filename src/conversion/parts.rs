//! The models of a repository that provides several: the routes of a Router, a masked language model beside a table of weights for
//! queries, or a dense and a sparse model on one encoder.

use std::sync::Arc;

use super::{ConversionError, PlannedPart};
use crate::checkpoint::{Format, WeightFiles};
use crate::config::{ModelConfig, SentenceTransformers};
use crate::mapped_file::MappedFile;
use crate::models::WeightLoader;
use crate::models::layers::Linear;
use crate::source::{ModelFiles, SourceError};
use crate::tasks::Task;

/// Name of the model for documents.
const DOCUMENT: &str = "document";

/// Name of the model for queries.
const QUERY: &str = "query";

/// Name of the model that returns one vector for a text.
const DENSE: &str = "dense";

/// Name of the model that returns a weight for each token of a text.
const SPARSE: &str = "sparse";

/// The file with the sparse head of BGE-M3.
const SPARSE_HEAD: &str = "sparse_linear.pt";

/// The weights of a table as JSON: an object with a number for each token.
pub(super) const IDF: &str = "idf.json";

/// Note about a sparse model in a repository without `modules.json`.
pub(super) const UNDECLARED_POOLING: &str = "the repository has no modules.json, which declares how token weights are computed; they are \
     computed as in SPLADE, with log(1 + relu(logits))";

/// One of several models in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: PartKind,
    /// The task of the model.
    pub(super) task: Task,
}

/// How a model differs from the other models of its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    /// The modules of a Router's route.
    Route,
    /// A table with one weight for each token.
    Table,
    /// The masked language model beside a table for queries, in a repository without `modules.json`.
    MaskedLm,
    /// The modules of sentence-transformers.
    Dense,
    /// A linear layer from hidden states to token weights, in a file of its own.
    SparseHead,
    /// The token classifier of the checkpoint, whose only label is the weight of the token.
    TokenClassifier,
}

impl PartKind {
    /// Whether the model returns a number for each token of the text, which becomes the weight of the token.
    pub(super) fn has_token_weights(self) -> bool {
        matches!(self, Self::SparseHead | Self::TokenClassifier)
    }
}

/// The models of a repository that provides several. Empty if it provides one.
#[derive(Debug, Default)]
pub(super) struct Parts {
    all: Vec<Part>,
    default_name: Option<String>,
}

impl Parts {
    /// Finds the models by the files of a repository.
    pub(super) fn of(files: &ModelFiles) -> Result<Self, SourceError> {
        let modules = SentenceTransformers::read(files, None)?;
        if let Some(router) = modules.as_ref().filter(|modules| !modules.routes().is_empty()) {
            let all = router.routes().into_iter().map(|name| {
                let route = SentenceTransformers::read(files, Some(&name))?;
                let is_table = route.as_ref().is_some_and(SentenceTransformers::is_token_table);
                let kind = if is_table { PartKind::Table } else { PartKind::Route };
                let task = route.map_or(Task::TextEmbedding, |route| route_task(&route));
                Ok(Part { name, kind, task })
            });
            let default_name = router.default_route().map(str::to_owned);
            return Ok(Self { all: all.collect::<Result<_, SourceError>>()?, default_name });
        }
        let part = |name: &str, kind, task| Part { name: name.to_owned(), kind, task };
        if modules.is_none() && files.find(IDF)?.is_some() {
            let document = part(DOCUMENT, PartKind::MaskedLm, Task::TextExpansion);
            let query = part(QUERY, PartKind::Table, Task::TextExpansion);
            let default_name = Some(DOCUMENT.to_owned());
            return Ok(Self { all: vec![document, query], default_name });
        }
        let folder = modules.as_ref().map_or("", |modules| modules.transformer.as_str());
        let folder = files.sub(folder)?;
        let sparse = if folder.find(SPARSE_HEAD)?.is_some() {
            PartKind::SparseHead
        } else if modules.is_some_and(|modules| !modules.is_sparse() && !modules.is_classifier())
            && ModelConfig::read(&folder).is_ok_and(|config| weighs_tokens(&config))
        {
            PartKind::TokenClassifier
        } else {
            return Ok(Self::default());
        };
        Ok(Self {
            all: vec![
                part(DENSE, PartKind::Dense, Task::TextEmbedding),
                part(SPARSE, sparse, Task::TextExpansion),
            ],
            default_name: Some(DENSE.to_owned()),
        })
    }

    /// The model with the name `asked`, or else the default model for a task. `None` if the repository provides one model.
    pub(super) fn choose(
        &self,
        asked: Option<&str>,
        task: Option<Task>,
    ) -> Result<Option<&Part>, ConversionError> {
        let named = |name: &str| self.all.iter().find(|part| part.name == name);
        let chosen = match asked {
            Some(name) => named(name),
            None if self.all.is_empty() => return Ok(None),
            None => {
                let of_task =
                    |part: &&Part| part.kind.has_token_weights() && Some(part.task) == task;
                let by_task = self.all.iter().find(of_task);
                by_task.or_else(|| named(self.default_name.as_deref()?))
            }
        };
        chosen.map(Some).ok_or_else(|| ConversionError::Part {
            asked: asked.map(str::to_owned),
            has: self.all.iter().map(|part| part.name.clone()).collect(),
        })
    }

    /// All models, for reports.
    pub(super) fn planned(&self, chosen: Option<&Part>) -> Vec<PlannedPart> {
        let planned = |part: &Part| PlannedPart {
            part: part.name.clone(),
            task: part.task,
            is_chosen: chosen == Some(part),
        };
        self.all.iter().map(planned).collect()
    }

    /// The names of the models other than `chosen`.
    pub(super) fn others(&self, chosen: &Part) -> Vec<&str> {
        let names = self.all.iter().map(|part| part.name.as_str());
        names.filter(|name| *name != chosen.name).collect()
    }
}

/// The task of a chain of modules.
fn route_task(modules: &SentenceTransformers) -> Task {
    if modules.is_sparse() {
        Task::TextExpansion
    } else if modules.is_classifier() {
        Task::TextClassification
    } else {
        Task::TextEmbedding
    }
}

/// Whether the only label of a token classifier is the weight of the token.
fn weighs_tokens(config: &ModelConfig) -> bool {
    let classifies_tokens = |class: &String| class.ends_with("ForTokenClassification");
    config.architectures.iter().any(classifies_tokens) && config.labels.count() == 1
}

/// The linear layer of `sparse_linear.pt`, from hidden states of the width `hidden` to one number. Its files are added to `mapped`.
pub(super) fn sparse_head(
    folder: &ModelFiles,
    hidden: i64,
    mapped: &mut Vec<Arc<MappedFile>>,
) -> Result<Linear, ConversionError> {
    let path = folder.folder().join(SPARSE_HEAD);
    let loader = WeightLoader::open(&WeightFiles::one(Format::Pytorch, path))?;
    let linear = Linear::load(&loader.weights(), hidden, 1);
    loader.finish()?;
    mapped.extend(loader.checkpoint().files().iter().cloned());
    Ok(linear)
}
