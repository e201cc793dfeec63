//! Creation of a bundle from a model: trace, write the archive, hash it, measure its memory.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use super::{Conversion, ConversionError};
use crate::bundle::{Artifact, ArtifactFormat, Bundle, fitted, with_artifact_sha256};
use crate::model_id::ModelId;
use crate::observer::Stage;
use crate::torchscript::{Module, TorchError, operations};
use crate::version::Target;

impl Conversion {
    /// Traces the model and creates its bundle. Most tensors of the artifact stay in the model's files. `title` is the name of the
    /// model in its description.
    ///
    /// # Errors
    /// [`ConversionError`] if the model cannot be traced, its archive cannot be written or verified, or a file of the model changed.
    pub fn bundle(&self, model_id: ModelId, title: &str) -> Result<Bundle, ConversionError> {
        let progress = self.progress();
        let converting = progress.start_bytes(Stage::Convert, self.parameter_bytes());
        let traced = self.trace()?;
        let mut archive = progress.run(Stage::BuildArchive, || traced.module.archive())?;
        archive.depend_on(self.files.iter().cloned());
        let archive = Arc::new(archive);
        let memory = self.peak_memory()?;
        // Hash and measure on one thread, verify on another.
        let (described, saved) = thread::scope(|scope| {
            let (archive, converting) = (&archive, &converting);
            let described = scope.spawn(move || {
                let hashing = progress.start(Stage::Hash);
                let sha256 = archive.sha256(&|bytes| converting.advance(bytes));
                hashing.finish();
                progress.run(Stage::MeasureMemory, || {
                    let (module, _) = Module::load_mapped(Arc::clone(archive))?;
                    Ok::<_, TorchError>((sha256, memory.measure(&module)?))
                })
            });
            let saved = self.check(&traced, Arc::clone(archive));
            (described.join().unwrap_or_else(|panic| resume_unwind(panic)), saved)
        });
        archive.check_unchanged()?;
        let (saved, (sha256, peak)) = (saved?, described?);
        converting.finish();
        let target = self.target();
        let configuration = with_artifact_sha256(self.configuration(title, &saved, peak), &sha256);
        Ok(Bundle {
            model_id,
            // A bundle for any release keeps all settings; the upload omits those that the cluster does not support.
            configuration: if target == Target::Any {
                configuration
            } else {
                fitted(configuration, target)
            },
            vocabulary: Some(self.tokenizer().vocabulary.clone()),
            artifact: Artifact { format: ArtifactFormat::TorchScript, bytes: archive, sha256 },
            minimum_version: self.minimum_version().max(operations::since(&traced.operations)),
            target,
        })
    }
}
