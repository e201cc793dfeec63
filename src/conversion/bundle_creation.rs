//! Creation of a bundle from a model: trace, write the archive, hash it, measure its memory.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use super::{Conversion, ConversionError};
use crate::bundle::{Artifact, ArtifactFormat, Bundle, fitted, with_artifact_sha256};
use crate::model_id::ModelId;
use crate::observer::Stage;
use crate::torchscript::operations;
use crate::version::Target;

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

impl Conversion {
    /// Traces the model and creates its bundle. Most tensors of the artifact stay in the model's files. `title` is the name of the
    /// model in its description.
    ///
    /// # Errors
    /// [`ConversionError`] if the model cannot be traced, its archive cannot be written or verified, or a file of the model changed.
    pub fn bundle(&mut self, model_id: ModelId, title: &str) -> Result<Bundle, ConversionError> {
        let sketch = self.sketch.take_if(|_| self.options.quantize.is_none());
        let progress = self.progress();
        let converting = progress.start_bytes(Stage::Convert, self.parameter_bytes());
        let (traced, archive, mut saved, curve, sha256) = thread::scope(|scope| {
            let measuring = sketch.map(|sketch| {
                let measure = move || sketch.curve_of_sketch();
                scope.spawn(|| progress.run(Stage::MeasureMemory, measure))
            });
            let traced = self.trace()?;
            let mut archive = progress.run(Stage::BuildArchive, || traced.module.archive())?;
            archive.depend_on(self.files.iter().cloned());
            let archive = Arc::new(archive);
            let (hashed, advance) = (Arc::clone(&archive), |bytes| converting.advance(bytes));
            let hashing = scope.spawn(move || {
                let hashing = progress.start(Stage::Hash);
                let sha256 = hashed.sha256(&advance);
                hashing.finish();
                sha256
            });
            let saved = self.check(&traced, Arc::clone(&archive));
            let (sha256, curve) = (joined(hashing), measuring.map(joined).transpose());
            archive.check_unchanged()?;
            Ok::<_, ConversionError>((traced, archive, saved?, curve?, sha256))
        })?;
        let peak = match curve {
            Some(curve) => curve.at(self.limit.tokens.into()),
            None => progress
                .run(Stage::MeasureMemory, || self.peak_memory()?.measure(&traced.module))?,
        };
        if let Some(quantization) = &mut saved.quantization {
            let (length, weights) = (archive.len() as u64, saved.per_deployment_memory_bytes);
            let measure = || self.measure_savings(&traced.module, length, weights, peak);
            quantization.savings = Some(progress.run(Stage::MeasureSavings, measure)?);
        }
        self.agreement_samples = saved.quantization.as_ref().map(|it| it.samples.clone());
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
