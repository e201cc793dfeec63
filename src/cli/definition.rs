//! Options for a TorchScript file built by another tool.

use std::path::PathBuf;

use clap::Args;

use super::command_error::CommandError;
use super::option_value::{SetOption, Unset, Value};
use crate::model_id::ModelId;
use crate::prebuilt::{PrebuiltDefinition, PrebuiltFiles};

/// A TorchScript file, its vocabulary and its configuration.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct DefinitionArguments {
    /// TorchScript file built by another tool, to import instead of a model. It is inspected before it is loaded, and tested before it is uploaded
    #[arg(long, value_name = "PATH", requires_all = ["vocabulary", "config"], conflicts_with_all = [
        "task_type", "part", "lora_task", "ingest_prefix", "search_prefix", "max_model_input_length", "dimensions", "scripts",
        "languages", "quantize", "prompts", "allow_inexact_tokenizer"])]
    definition: Option<PathBuf>,
    /// Vocabulary of the TorchScript file: {"vocabulary": [...], "merges": [...], "scores": [...]}
    #[arg(long, value_name = "PATH", requires = "definition")]
    vocabulary: Option<PathBuf>,
    /// Configuration of the TorchScript file: the body of PUT _ml/trained_models/ID
    #[arg(long, value_name = "PATH", requires = "definition")]
    config: Option<PathBuf>,
}

impl SetOption for DefinitionArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        let path = match name {
            "definition" => &mut self.definition,
            "vocabulary" => &mut self.vocabulary,
            "config" => &mut self.config,
            _ => return Err(Unset::UnknownName),
        };
        *path = Some(value.parsed()?);
        Ok(())
    }
}

impl DefinitionArguments {
    /// Reads and checks the files, if the options name them.
    pub(super) fn read(
        &self,
        model_id: Option<&ModelId>,
    ) -> Result<Option<PrebuiltDefinition>, CommandError> {
        let (Some(definition), Some(vocabulary), Some(config)) =
            (&self.definition, &self.vocabulary, &self.config)
        else {
            return Ok(None);
        };
        let files = PrebuiltFiles {
            definition: definition.clone(),
            vocabulary: vocabulary.clone(),
            configuration: config.clone(),
        };
        Ok(Some(PrebuiltDefinition::read(files, model_id.cloned())?))
    }
}
