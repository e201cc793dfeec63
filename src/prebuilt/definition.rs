//! A bundle from the user's files: a definition built by another tool, its vocabulary and its configuration.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map as JsonMap, Value};
use tch::Kind;

use super::{Configuration, DefinitionError, Inspected, PrebuiltError};
use crate::bundle::{Artifact, ArtifactFormat, Bundle, with_artifact_sha256};
use crate::mapped_file::MappedFile;
use crate::model_id::ModelId;
use crate::tokenizer::read_vocabulary;
use crate::torchscript::operations;
use crate::version::{Target, Version};
use crate::vocabulary::Vocabulary;

/// Paths of the files.
#[derive(Debug, Clone)]
pub struct PrebuiltFiles {
    /// TorchScript archive.
    pub definition: PathBuf,
    /// Vocabulary in the server's format: `{"vocabulary": […], "merges": […], "scores": […]}`.
    pub vocabulary: PathBuf,
    /// Configuration in the server's format.
    pub configuration: PathBuf,
}

/// The parsed and validated files. The definition has not been run.
#[derive(Debug)]
pub struct PrebuiltDefinition {
    /// Id of the model.
    pub model_id: ModelId,
    files: PrebuiltFiles,
    archive: MappedFile,
    inspected: Inspected,
    vocabulary: Vocabulary,
    configuration: Configuration,
}

/// Lengths in tokens of the test inputs. Two lengths detect a graph with a constant length.
const LENGTHS: [u32; 2] = [7, 12];

impl PrebuiltDefinition {
    /// Reads the files. `id` overrides the id in the configuration.
    ///
    /// # Errors
    /// If a file cannot be read, or Elasticsearch would not accept it.
    pub fn read(files: PrebuiltFiles, model_id: Option<ModelId>) -> Result<Self, PrebuiltError> {
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            |reason| PrebuiltError::File { path, reason }
        };
        let unreadable = |path: &PathBuf| {
            let path = path.clone();
            |source| PrebuiltError::Io { path, source }
        };
        let read = |path: &PathBuf| fs::read(path).map_err(unreadable(path));
        let configuration = Configuration::read(&read(&files.configuration)?)
            .map_err(wrong(&files.configuration))?;
        let model_id = match (model_id, &configuration.model_id) {
            (Some(id), None) => id,
            (Some(id), Some(other)) if id.as_str() == other => id,
            (Some(id), Some(other)) => {
                return Err(wrong(&files.configuration)(DefinitionError::Configuration(format!(
                    "its model_id is {other}, but the requested id is {id}; make them equal, or remove one of them"
                ))));
            }
            (None, Some(id)) => id.parse()?,
            (None, None) => return Err(PrebuiltError::NoModelId),
        };
        let (vocabulary, warnings) = read_vocabulary(
            &read(&files.vocabulary)?,
            configuration.kind,
            configuration.with_special_tokens,
        )
        .map_err(|reason| wrong(&files.vocabulary)(reason.into()))?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let path = &files.definition;
        let archive = MappedFile::open(path).map_err(unreadable(path))?;
        let inspected = Inspected::load(archive.as_ref()).map_err(wrong(path))?;
        inspected.check_signature(configuration.kind).map_err(wrong(path))?;
        Ok(Self { model_id, files, archive, inspected, vocabulary, configuration })
    }

    /// Body of the request that creates the model.
    #[must_use]
    pub fn configuration(&self) -> &JsonMap<String, Value> {
        &self.configuration.body
    }

    /// Oldest Elasticsearch version that can serve the model.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        self.configuration.minimum_version.max(operations::since(&self.inspected.operations))
    }

    /// Checks the definition for a cluster, runs it on the server's inputs, and creates the bundle.
    ///
    /// # Errors
    /// If the cluster would reject the definition, or the definition fails.
    pub fn bundle(self, target: Target) -> Result<Bundle, PrebuiltError> {
        let minimum_version = self.minimum_version();
        let path = self.files.definition.clone();
        let wrong = |reason| PrebuiltError::File { path: path.clone(), reason };
        let needs = format!("{} (needed by the configuration or the graph)", minimum_version);
        if target != Target::Any && !target.has(minimum_version) {
            return Err(wrong(DefinitionError::Configuration(format!(
                "Elasticsearch {target} cannot serve it; it needs {needs} or later"
            ))));
        }
        let unlisted =
            self.inspected.check_operations(target).map_err(|reason| wrong(reason.into()))?;
        if unlisted.is_empty() {
            for length in LENGTHS {
                self.try_on(length.min(self.configuration.max_sequence_length), target)
                    .map_err(wrong)?;
            }
        } else {
            tracing::warn!(
                "the graph contains operations that Elasticsearch rejects from 9.4.0 and 8.19.20 on: {}. It was not run here",
                unlisted.join(", ")
            );
        }
        let artifact = Artifact::from_file(ArtifactFormat::TorchScript, self.archive);
        Ok(Bundle {
            model_id: self.model_id,
            configuration: with_artifact_sha256(self.configuration.body, &artifact.sha256),
            vocabulary: Some(self.vocabulary),
            artifact,
            minimum_version,
            target,
        })
    }

    /// Runs the definition on a text of `tokens` tokens, and checks that the output is suitable for the task.
    fn try_on(&self, tokens: u32, target: Target) -> Result<(), DefinitionError> {
        let Configuration { kind, task, width, .. } = &self.configuration;
        let fails = |reason: String| DefinitionError::Fails { tokens: tokens as usize, reason };
        let output = self
            .inspected
            .forward(&self.ids(tokens as usize), *kind)
            .map_err(|error| fails(error.cause()))?;
        if !matches!(output.kind(), Kind::Float | Kind::Double | Kind::BFloat16) {
            return Err(fails(format!(
                "it returns numbers of the type {:?}, but Elasticsearch reads only float32, float64 and bfloat16",
                output.kind()
            )));
        }
        let size = output.size();
        let scalar = size.is_empty() && target.has(Version::SCALAR_RESULT);
        if size.len() > 3 || (size.is_empty() && !scalar) {
            return Err(fails(format!(
                "it returns a tensor of {} axes, but Elasticsearch reads only 1 to 3",
                size.len()
            )));
        }
        if let Some((numbers, of)) = width
            && size.last().copied().unwrap_or(1) != i64::try_from(*numbers).unwrap_or(i64::MAX)
        {
            return Err(fails(format!(
                "it returns {size:?} numbers, which do not match {of} of the task {task} in the configuration"
            )));
        }
        Ok(())
    }

    /// Token ids as sent by the server for one or two texts, including the vocabulary's last token.
    fn ids(&self, tokens: usize) -> Vec<i64> {
        let Configuration { kind, task, with_special_tokens, .. } = &self.configuration;
        let last = self.vocabulary.vocabulary.len().saturating_sub(1);
        // The first token is a special token.
        let mut ids: Vec<usize> =
            (0..tokens).map(|i| last.saturating_sub(i.saturating_sub(1))).collect();
        if *with_special_tokens {
            let special = kind.tokens();
            let mut put = |at: Option<usize>, token: &str| {
                if let (Some(place), Some(id)) =
                    (at.and_then(|at| ids.get_mut(at)), self.vocabulary.id(token))
                {
                    *place = id;
                }
            };
            put(Some(0), special.class);
            put(tokens.checked_sub(1), special.separator);
            if task.pair() {
                put(Some(tokens / 2), special.separator);
            }
        }
        ids.into_iter().map(|id| i64::try_from(id).unwrap_or_default()).collect()
    }
}
