//! The local model in a build without libtorch: it reports that.

use serde_json::{Map, Value};

use super::resolve::ResolvedSource;
use crate::bundle::Bundle;
use crate::conversion::{ConversionError, Options};
use crate::error::Error;
use crate::inference_results::{InferenceError, Input, Request};
use crate::observer::Progress;

/// A model in this process. This build has no libtorch, so there is no such value.
#[derive(Debug)]
pub enum LocalModel {}

impl LocalModel {
    /// Reports that the build has no libtorch.
    ///
    /// # Errors
    /// [`ConversionError::NoLibtorch`], always.
    pub async fn of_source(
        _source: &ResolvedSource,
        _options: Options,
        _progress: &Progress,
    ) -> Result<Self, Error> {
        Err(ConversionError::NoLibtorch.into())
    }

    /// Reports that the build has no libtorch.
    ///
    /// # Errors
    /// [`ConversionError::NoLibtorch`], always.
    pub fn of_bundle(_bundle: Bundle) -> Result<Self, Error> {
        Err(ConversionError::NoLibtorch.into())
    }

    /// The body of the request that creates the model in Elasticsearch.
    #[must_use]
    pub fn configuration(&self) -> &Map<String, Value> {
        match *self {}
    }

    /// A request with settings that replace those of the configuration.
    ///
    /// # Errors
    /// [`InferenceError::Settings`] if a setting is missing or not valid.
    pub fn request(&self, _overrides: &Map<String, Value>) -> Result<Request, InferenceError> {
        match *self {}
    }

    /// The result objects that Elasticsearch would return for some texts.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn infer(
        &self,
        _request: &Request,
        _inputs: &[Input<'_>],
    ) -> Result<Vec<Result<Value, InferenceError>>, ConversionError> {
        match *self {}
    }
}
