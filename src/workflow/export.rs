//! [`ExportRequest`]: a bundle in a folder instead of a cluster.

use std::fs;
use std::path::{Path, PathBuf};

use super::import::{ImportInput, StopSignal};
use super::prepare::ModelRequest;
use crate::bundle::{Bundle, BundleError};
use crate::conversion::Conversion;
use crate::error::Error;
use crate::model_id::ModelId;
use crate::observer::{Progress, Stage};
use crate::torchscript::load_in_background;
use crate::version::Target;

/// An export, as the user describes it.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExportRequest {
    /// What to export.
    pub input: ImportInput,
    /// The id of the model, which names the files.
    pub model_id: ModelId,
    /// The Elasticsearch that the bundle is created for.
    pub target: Target,
    /// The folder for the files of the bundle.
    pub folder: PathBuf,
}

/// A bundle that was written.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported {
    /// The bundle.
    pub bundle: Bundle,
    /// The path of its `ID.metadata.json`.
    pub metadata: PathBuf,
}

impl ExportRequest {
    /// The export of an input for any Elasticsearch.
    #[must_use]
    pub fn new(input: ImportInput, model_id: ModelId, folder: PathBuf) -> Self {
        Self { input, model_id, target: Target::Any, folder }
    }

    /// Prepares the bundle and writes its files. After an error, the folder is removed if it did not exist before. An interruption ends
    /// the preparation; the files are then written in full or not at all.
    ///
    /// # Errors
    /// [`Error`] if the model cannot be downloaded, read or converted, if the target cannot serve it, if a file cannot be written, or
    /// after an interruption.
    pub async fn run(self, stop: StopSignal, progress: &Progress) -> Result<Exported, Error> {
        let created = missing_folders(&self.folder);
        let exported = self.write(stop, progress).await;
        if exported.is_err() {
            // Only empty folders are removed.
            created.iter().for_each(|folder| drop(fs::remove_dir(folder)));
        }
        exported
    }

    async fn write(self, stop: StopSignal, progress: &Progress) -> Result<Exported, Error> {
        let Self { input, model_id, target, folder } = self;
        // A folder that cannot be written is reported before the long work.
        fs::create_dir_all(&folder).map_err(|source| BundleError::Io {
            what: "cannot create the folder",
            path: folder.clone(),
            source,
        })?;
        let prepare = async {
            Ok(match input {
                ImportInput::Bundle(bundle) => *bundle,
                ImportInput::Prebuilt(definition) => definition.bundle(target)?,
                ImportInput::Model { source, options, title } => {
                    load_in_background().await;
                    let (source, options) = (source.resolve().await?, *options);
                    let accept = |conversion: &Conversion| Ok(conversion.check_target()?);
                    let model = ModelRequest { source, options, title };
                    model.prepare(model_id, target, progress, accept).await?.bundle
                }
            })
        };
        let bundle = stop.unless_requested(prepare).await?;
        let metadata = progress.run(Stage::WriteBundle, || bundle.write(&folder))?;
        Ok(Exported { bundle, metadata })
    }
}

/// The folders that do not exist yet, from `folder` upwards.
fn missing_folders(folder: &Path) -> Vec<PathBuf> {
    let parts = folder.ancestors().filter(|part| !part.as_os_str().is_empty());
    parts.take_while(|part| !part.exists()).map(Path::to_owned).collect()
}
