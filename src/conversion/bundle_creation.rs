//! Creation of a bundle from a model: trace, write the archive, hash it, measure its memory.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use super::{Conversion, ConversionError};
use crate::bundle::{Artifact, ArtifactFormat, Bundle, fitted, with_artifact_sha256};
use crate::model_id::ModelId;
use crate::observer::Stage;
use crate::torchscript::operations;
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
        let (hashed, checked) = thread::scope(|scope| {
            let hashing = scope.spawn(|| {
                let hashing = progress.start(Stage::Hash);
                let sha256 = archive.sha256(&|bytes| converting.advance(bytes));
                hashing.finish();
                sha256
            });
            let checked = self.check(&traced, Arc::clone(&archive));
            let checked = checked.and_then(|saved| {
                let measure = || match (&self.sketch, &traced.quantized) {
                    (Some(sketch), None) => {
                        Ok(sketch.curve_of_sketch()?.at(self.limit.tokens.into()))
                    }
                    _ => self.peak_memory()?.measure(&traced.module),
                };
                Ok((saved, progress.run(Stage::MeasureMemory, measure)?))
            });
            (hashing.join().unwrap_or_else(|panic| resume_unwind(panic)), checked)
        });
        archive.check_unchanged()?;
        let ((saved, peak), sha256) = (checked?, hashed);
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
