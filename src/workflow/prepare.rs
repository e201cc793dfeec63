//! The second step: download a model and convert it to a bundle.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use super::import_fingerprint::fingerprint;
use super::resolve::ResolvedSource;
use crate::bundle::{Bundle, BundleError};
use crate::conversion::{Conversion, Options, Plan};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::observer::{Progress, Stage};
use crate::version::Target;

/// A model to be converted.
#[derive(Debug, Clone)]
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
pub struct Prepared {
    /// The bundle.
    pub bundle: Bundle,
    /// The model's number of parameters, if it was converted now.
    pub parameters: Option<u64>,
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
        let files = self.source.files(progress).await?;
        let (options, title) = (self.options_for(target), self.title.clone());
        let progress = progress.clone();
        let conversion = tokio::task::spawn_blocking(move || {
            let conversion = Conversion::read(&files, options, &progress)?;
            conversion.log_notes();
            accept(&conversion)?;
            let bundle = conversion.bundle(model_id, &title)?;
            Ok(Prepared { bundle, parameters: Some(conversion.parameter_bytes() / 4) })
        });
        match conversion.await {
            Ok(prepared) => prepared,
            // Nobody cancels the task, so it can only have panicked.
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    /// Converts the model and writes the bundle into `folder`. Returns the path of its metadata, too.
    ///
    /// # Errors
    /// When the model cannot be downloaded, read or converted, when `target` cannot serve it, or when a file cannot be written.
    pub async fn export(
        &self,
        model_id: ModelId,
        target: Target,
        folder: &Path,
        progress: &Progress,
    ) -> Result<(Bundle, PathBuf), Error> {
        // A folder that cannot be written is reported before the long work.
        fs::create_dir_all(folder).map_err(|source| BundleError::Io {
            what: "cannot create the folder",
            path: folder.to_owned(),
            source,
        })?;
        let accept = |conversion: &Conversion| Ok(conversion.check_target()?);
        let Prepared { bundle, .. } = self.prepare(model_id, target, progress, accept).await?;
        let metadata = progress.run(Stage::WriteBundle, || bundle.write(folder))?;
        Ok((bundle, metadata))
    }
}
