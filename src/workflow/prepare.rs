//! The second step: download a model and convert it to a bundle.

use std::panic::resume_unwind;
use std::path::Path;

use super::import_fingerprint::fingerprint;
use super::resolve::ResolvedSource;
use crate::bundle::Bundle;
use crate::conversion::{Conversion, ConversionError, Options, Plan};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::observer::{Event, Progress};
use crate::source::ModelFiles;
use crate::tasks::AgreementSamples;
use crate::torchscript::load_in_background;
use crate::version::Target;

/// A model to be converted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelRequest {
    /// Where the model is.
    pub source: ResolvedSource,
    /// How to convert the model. `target` and `origin` are set by the steps.
    pub options: Options,
    /// The model's name in its description.
    pub title: String,
}

/// A bundle that is ready to be stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct Prepared {
    /// The bundle.
    pub bundle: Bundle,
    /// The model's number of parameters, if it was converted now.
    pub parameters: Option<u64>,
    /// How much the quantized model agrees with the original on single texts, if it was quantized now.
    pub agreement: Option<AgreementSamples>,
}

impl ModelRequest {
    fn options_for(&self, target: Target) -> Options {
        Options { target, origin: self.source.origin(), ..self.options.clone() }
    }

    /// What the model is and what an import would store, found without its weights.
    ///
    /// # Errors
    /// When a file cannot be downloaded or read, or there is no `config.json` that names the architecture.
    pub async fn plan(&self, target: Target) -> Result<Plan, Error> {
        load_in_background().await;
        let (files, weights) = self.source.small_files().await?;
        Ok(Plan::read(&files, &weights, self.options_for(target), &self.title)?)
    }

    /// The SHA-256 of everything that determines the bundle. Models in folders have none, because only a commit fixes their files.
    #[must_use]
    pub fn fingerprint(&self, target: Target) -> Option<String> {
        fingerprint(&self.source.commit()?, &self.options_for(target), &self.title)
    }

    /// Downloads and converts the model. `accept` can refuse it as soon as its tokenizer and settings are read.
    ///
    /// The conversion runs on a thread for blocking work. It goes on there if this future is dropped.
    ///
    /// # Errors
    /// When the model cannot be downloaded, read or converted, and the errors of `accept`.
    pub async fn prepare(
        &self,
        model_id: ModelId,
        target: Target,
        progress: &Progress,
        accept: impl FnOnce(&Conversion) -> Result<(), Error> + Send + 'static,
    ) -> Result<Prepared, Error> {
        load_in_background().await;
        let files = self.source.files(progress).await?;
        let (options, title) = (self.options_for(target), self.title.clone());
        let progress = progress.clone();
        let conversion = tokio::task::spawn_blocking(move || {
            convert(&files, options, model_id, &title, &progress, accept)
        });
        match conversion.await {
            Ok(prepared) => prepared,
            // Nobody cancels the task, so it can only have panicked.
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
}

impl Bundle {
    /// Reads the model in `folder`, which has the layout of a repository on the hub, and creates a bundle from it.
    ///
    /// The call blocks for seconds to minutes and keeps one processor busy: in asynchronous programs call it in `spawn_blocking`.
    /// `on_progress` receives the progress. Warnings are sent as `tracing` events.
    ///
    /// # Errors
    /// When the architecture, task or tokenizer is not supported, files are missing or damaged, or the build has no libtorch.
    pub fn from_model(
        folder: impl AsRef<Path>,
        model_id: ModelId,
        options: Options,
        on_progress: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let files = ModelFiles::open(folder.as_ref()).map_err(ConversionError::from)?;
        let title = model_id.to_string();
        let progress = Progress::to(on_progress);
        Ok(convert(&files, options, model_id, &title, &progress, |_| Ok(()))?.bundle)
    }
}

/// Reads a model's files and creates the bundle. `accept` can refuse the model as soon as its tokenizer and settings are read.
fn convert(
    files: &ModelFiles,
    options: Options,
    model_id: ModelId,
    title: &str,
    progress: &Progress,
    accept: impl FnOnce(&Conversion) -> Result<(), Error>,
) -> Result<Prepared, Error> {
    let mut conversion = Conversion::read(files, options, progress)?;
    conversion.log_notes();
    conversion.check_tokenizer()?;
    accept(&conversion)?;
    let bundle = conversion.bundle(model_id, title)?;
    let parameters = Some(conversion.parameter_bytes() / 4);
    Ok(Prepared { bundle, parameters, agreement: conversion.agreement_samples().cloned() })
}
