//! Replacement of the conversion in builds without libtorch. All functions return an error that says so.

use serde_json::Value;

use super::{ConversionError, Options, TokenEffect};
use crate::bundle::Bundle;
use crate::model_id::ModelId;
use crate::observer::Progress;
use crate::source::ModelFiles;
use crate::tasks::AgreementSamples;
use crate::version::Version;

/// A model that is ready to be converted. In builds without libtorch this type has no values.
#[derive(Debug)]
pub enum Conversion {}

impl Conversion {
    /// Reports that the build has no libtorch.
    ///
    /// # Errors
    /// [`ConversionError::NoLibtorch`], always.
    pub fn read(
        _files: &ModelFiles,
        _options: Options,
        _progress: &Progress,
    ) -> Result<Self, ConversionError> {
        Err(ConversionError::NoLibtorch)
    }

    /// Warnings about the conversion.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        match *self {}
    }

    /// Logs the notes.
    pub fn log_notes(&self) {
        match *self {}
    }

    /// Size of the parameters in bytes.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        match *self {}
    }

    /// How much the quantized model agrees with the original on single texts, once its [`bundle`](Self::bundle) is created.
    #[must_use]
    pub fn agreement_samples(&self) -> Option<&AgreementSamples> {
        match *self {}
    }

    /// The oldest Elasticsearch that supports the tokenizer and the settings.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        match *self {}
    }

    /// Checks that the target release supports the model.
    ///
    /// # Errors
    /// [`ConversionError::Target`] if it does not.
    pub fn check_target(&self) -> Result<(), ConversionError> {
        match *self {}
    }

    /// Checks that Elasticsearch follows the model's tokenizer closely enough, or that the options accept the difference.
    ///
    /// # Errors
    /// [`ConversionError::InexactTokenizer`] if the difference is too large.
    pub fn check_tokenizer(&self) -> Result<(), ConversionError> {
        match *self {}
    }

    /// Compares the answers for rows of Elasticsearch and for rows of the model's own tokenizer.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn token_effect(
        &self,
        _rows: &[(Vec<u32>, Vec<u32>)],
    ) -> Result<TokenEffect, ConversionError> {
        match *self {}
    }

    /// Creates the bundle.
    ///
    /// # Errors
    /// [`ConversionError`] if the model cannot be traced.
    pub fn bundle(&mut self, _model_id: ModelId, _title: &str) -> Result<Bundle, ConversionError> {
        match *self {}
    }
}

/// Accepts every family of models: a build without libtorch downloads models for others to convert.
///
/// # Errors
/// None.
pub fn check_family(
    _config: &Value,
    _tokenizer: &Value,
    _modules: &Value,
    _has_file: &dyn Fn(&str) -> bool,
) -> Result<(), ConversionError> {
    Ok(())
}

/// Accepts every architecture: a build without libtorch downloads models for others to convert.
///
/// # Errors
/// None.
pub fn check_architecture(_config: &Value) -> Result<(), ConversionError> {
    Ok(())
}
