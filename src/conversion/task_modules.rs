//! Settings that a task takes from a model's files: the sentence-transformers modules and the layout of two texts.

use super::ConversionError;
use crate::config::{
    Module, PoolingConfig, SentenceBertConfig, SentenceTransformers, SpladeConfig, Usage,
};
use crate::models::RowForm;
use crate::source::ModelFiles;
use crate::tasks::{EmbedderError, Task};
use crate::tokenizer::{RowLayout, Tokenizer};

/// The modules of sentence-transformers that a task uses.
#[derive(Default)]
pub(super) struct TaskModules {
    /// The modules after the transformer; `None` if the task uses only the transformer.
    pub(super) list: Option<Vec<Module>>,
    pub(super) settings: SentenceBertConfig,
}

impl TaskModules {
    /// Selects the modules for a task. An embedding model with another head uses none of them.
    pub(super) fn of(
        declared: Option<SentenceTransformers>,
        usage: &Usage,
        task: Task,
        files: &ModelFiles,
    ) -> Result<Self, ConversionError> {
        let Some(declared) = declared else { return Ok(Self::default()) };
        let kind = usage.model_type.as_deref();
        let read = || declared.modules(files).map_err(EmbedderError::from);
        let refused = |reason: &str| EmbedderError::Module(reason.to_owned()).into();
        let list = match task {
            Task::TextEmbedding => read()?,
            Task::TextExpansion if declared.is_token_table() => match read()? {
                list if list.is_empty() => list,
                _ => {
                    return Err(refused(
                        "modules.json has modules after the SparseStaticEmbedding",
                    ));
                }
            },
            Task::TextExpansion if declared.is_sparse() || kind == Some("SparseEncoder") => {
                match read()? {
                    list if matches!(list[..], [Module::SpladePooling(_)]) => list,
                    _ => {
                        return Err(refused(
                            "modules.json has other modules; a SparseEncoder must consist of a transformer and one SpladePooling",
                        ));
                    }
                }
            }
            _ if declared.is_classifier() || kind == Some("CrossEncoder") => {
                let list = read()?;
                if !list.is_empty() {
                    return Err(refused(
                        "modules.json has modules after the transformer; a CrossEncoder must consist of a transformer with a classification head",
                    ));
                }
                list
            }
            _ => return Ok(Self::default()),
        };
        Ok(Self { list: Some(list), settings: declared.settings })
    }

    /// Whether pooling includes the tokens of prompts.
    pub(super) fn pools_prompts(&self) -> bool {
        let leaves_out = |module: &Module| {
            matches!(module, Module::Pooling(PoolingConfig { include_prompt: false, .. }))
        };
        !self.list.iter().flatten().any(leaves_out)
    }

    /// Configuration of the SPLADE pooling, if the modules contain one.
    pub(super) fn splade(&self) -> Option<SpladeConfig> {
        self.list.iter().flatten().find_map(|module| match module {
            Module::SpladePooling(config) => Some(*config),
            _ => None,
        })
    }
}

/// How Elasticsearch's rows become the model's.
pub(super) fn row_form(task: Task, tokenizer: &Tokenizer) -> Result<RowForm, ConversionError> {
    if !tokenizer.has_special_tokens() {
        return Ok(RowForm::Single);
    }
    let layout = if task.pair() { &tokenizer.pair } else { &tokenizer.single };
    let refused = |reason| ConversionError::RowLayout { task, reason };
    let layout = layout.clone().map_err(refused)?;
    let server =
        |between| RowLayout::of_server(tokenizer.first, tokenizer.special.separator, between);
    let composed = |between: Option<usize>| {
        let between = between.and_then(|between| i64::try_from(between).ok());
        RowForm::Composed { layout: layout.clone(), between }
    };
    if !task.pair() {
        let same = server(None).order().eq(layout.order()) && layout.is_untyped();
        return Ok(match same {
            true => RowForm::Single,
            false if tokenizer.drops_first() => RowForm::WithoutFirst,
            false => composed(None),
        });
    }
    let separators = tokenizer.kind.separators();
    let same = |between: usize| {
        let typed = layout.is_typed_as_bert();
        let same = server(Some(between)).order().eq(layout.order());
        (same && (typed || layout.is_untyped()))
            .then_some(RowForm::Pair { drops_separator: between < separators, typed })
    };
    Ok((1..=separators).find_map(same).unwrap_or_else(|| composed(Some(separators))))
}
