//! Definitions built by other tools, in a build without libtorch: they cannot be checked.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::PrebuiltError;
use crate::bundle::Bundle;
use crate::model_id::ModelId;
use crate::version::{Target, Version};

/// The files of a definition.
#[derive(Debug, Clone)]
pub struct PrebuiltFiles {
    /// TorchScript archive.
    pub definition: PathBuf,
    /// The vocabulary.
    pub vocabulary: PathBuf,
    /// The configuration.
    pub configuration: PathBuf,
}

/// The parts of a definition that libtorch reads. This build has no libtorch, so there is no such value.
#[derive(Debug)]
enum Never {}

/// A checked definition. This build has no libtorch, so there is no such value.
#[derive(Debug)]
pub struct PrebuiltDefinition {
    /// The model's id.
    pub model_id: ModelId,
    never: Never,
}

impl PrebuiltDefinition {
    /// Reports that the build has no libtorch.
    ///
    /// # Errors
    /// [`PrebuiltError::NoLibtorch`], always.
    pub fn read(_files: PrebuiltFiles, _model_id: Option<ModelId>) -> Result<Self, PrebuiltError> {
        Err(PrebuiltError::NoLibtorch)
    }

    /// Body of the request that creates the model.
    #[must_use]
    pub fn configuration(&self) -> &Map<String, Value> {
        match self.never {}
    }

    /// The oldest Elasticsearch that can serve the definition.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        match self.never {}
    }

    /// Creates the bundle.
    ///
    /// # Errors
    /// [`PrebuiltError`] if the definition cannot be served.
    pub fn bundle(self, _target: Target) -> Result<Bundle, PrebuiltError> {
        match self.never {}
    }
}

/// A bundle whose operations were not checked.
#[derive(Debug)]
pub struct Inspected(());

impl Inspected {
    /// Warns that the operations of a bundle are not checked in a build without libtorch. Elasticsearch checks them when it starts the
    /// model.
    ///
    /// # Errors
    /// None.
    pub fn of_bundle(_bundle: &Bundle) -> Result<Self, PrebuiltError> {
        tracing::warn!(
            "this build of rust-eland has no libtorch: the operations of the definition are not checked before the upload"
        );
        Ok(Self(()))
    }

    /// Accepts every cluster.
    ///
    /// # Errors
    /// None.
    pub fn check_for(&self, _target: Target) -> Result<(), PrebuiltError> {
        Ok(())
    }
}
