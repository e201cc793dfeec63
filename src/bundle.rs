//! The three things that Elasticsearch stores of a model: definition, vocabulary and configuration.
//!
//! On disk a bundle is laid out like a model of Elasticsearch's file-based model repository: `ID.pt`, `ID.vocab.json` and
//! `ID.metadata.json`, the last naming the others.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value};
use sha2::{Digest, Sha256};

use crate::conversion::{Conversion, ConversionError, Options};
use crate::error_chain::advice;
use crate::hexadecimal::hexadecimal;
use crate::mapped_file::MappedFile;
use crate::model_id::{ModelId, ModelIdError};
use crate::observer::{Event, Progress, RunningStage, Stage};
use crate::prebuilt::{DefinitionError, Inspected};
use crate::segmented_bytes::SegmentedBytes;
use crate::source::ModelFiles;
use crate::tokenizer::Vocabulary;
use crate::torchscript::operations::{self, Refused};
use crate::torchscript::{Module, TorchError};
use crate::version::{Target, Version};

/// Why a bundle cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The model cannot be converted.
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// A file cannot be read or written.
    #[error("{what} {path}: {source}{}", advice(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `ID.metadata.json` or `ID.vocab.json` is not valid.
    #[error("{path} is not valid: {reason}; export the model again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The definition is not the one that was exported.
    #[error(
        "{path} is not the definition that its metadata describes: {reason}; export the model again"
    )]
    Altered {
        /// The definition.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A definition that others made, or what was given with it, cannot be used.
    #[error("{path}: {reason}")]
    Definition {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: DefinitionError,
    },
    /// The cluster would not serve the definition.
    #[error("Elasticsearch {target} would refuse the definition: {reason}")]
    Refused {
        /// The cluster.
        target: Target,
        /// Why.
        reason: Refused,
    },
    /// Nothing says which id the model gets.
    #[error("the configuration names no model_id: give --es-model-id")]
    NoModelId,
    /// The id is not one.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
}

/// The key of a configuration's metadata that names the definition, so that the cluster's model can be compared with one here.
pub const DEFINITION_SHA256: &str = "definition_sha256";

/// A model as Elasticsearch stores it.
#[derive(Debug)]
pub struct Bundle {
    /// Its id.
    pub model_id: ModelId,
    /// The body of the request that creates it.
    pub configuration: JsonMap<String, Value>,
    /// The body of the request that stores its vocabulary.
    pub vocabulary: Vocabulary,
    /// The TorchScript archive.
    pub definition: Definition,
    /// The oldest Elasticsearch that can serve it.
    pub minimum_version: Version,
    /// The Elasticsearch that it was made for.
    pub target: Target,
    /// The kinds of the graph's nodes with their number.
    pub operations: BTreeMap<String, usize>,
}

/// A TorchScript archive.
#[derive(Debug)]
pub struct Definition {
    /// Its bytes, which the requests that carry them share.
    pub bytes: Arc<SegmentedBytes>,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
}

/// `ID.metadata.json` (`ModelPackageConfig` in Elasticsearch).
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    packaged_model_id: String,
    minimum_version: String,
    size: u64,
    sha256: String,
    vocabulary_file: String,
    /// For which Elasticsearch it was made; absent where it is for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_version: Option<String>,
    #[serde(flatten)]
    configuration: JsonMap<String, Value>,
}

impl Bundle {
    /// Reads the model in `folder`, which is laid out like a clone of its repository on the hub, and makes a bundle of it. This takes
    /// seconds to minutes of one processor and blocks: in asynchronous programs call it in `spawn_blocking`. `on_progress` is told how
    /// far it is. What is worth a warning comes through `tracing`.
    ///
    /// # Errors
    /// When the model cannot be served: no such architecture, task or tokenizer, files that are missing or damaged.
    pub fn from_model(
        folder: impl AsRef<Path>,
        model_id: ModelId,
        options: Options,
        on_progress: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Self, BundleError> {
        let files = ModelFiles::open(folder.as_ref()).map_err(ConversionError::from)?;
        let conversion = Conversion::read(&files, options, &Progress::to(on_progress))?;
        for note in conversion.notes() {
            tracing::warn!("{note}");
        }
        let title = model_id.to_string();
        Self::create(&conversion, model_id, &title)
    }

    /// Traces the model. The definition's tensors stay where they are, most of them in the model's files. `title` names it in its
    /// description.
    ///
    /// # Errors
    /// When the model cannot be traced or its archive cannot be written.
    pub fn create(
        conversion: &Conversion,
        model_id: ModelId,
        title: &str,
    ) -> Result<Self, BundleError> {
        let progress = conversion.progress();
        let converting = progress.start_bytes(Stage::Convert, conversion.parameter_bytes());
        let traced = conversion.trace()?;
        let archive = Arc::new(progress.run(Stage::BuildArchive, || traced.module.archive())?);
        let memory = conversion.peak_memory()?;
        // Two cores, two things to do.
        let (described, saved) = thread::scope(|scope| {
            let (archive, converting) = (&archive, &converting);
            let described = scope.spawn(move || {
                let hashing = progress.start(Stage::Hash);
                let sha256 = hash(archive, converting);
                hashing.finish();
                progress.run(Stage::MeasureMemory, || {
                    let (module, _) = Module::load_mapped(Arc::clone(archive))?;
                    Ok::<_, TorchError>((sha256, memory.measure(&module)?))
                })
            });
            let saved = conversion.check(&traced, Arc::clone(archive));
            (described.join().unwrap_or_else(|panic| resume_unwind(panic)), saved)
        });
        let (saved, (sha256, peak)) = (saved?, described?);
        converting.finish();
        let target = conversion.target();
        let configuration = naming(conversion.configuration(title, &saved, peak), &sha256);
        Ok(Self {
            model_id,
            // A bundle for any release keeps what old ones do not know; it is left out when the cluster is one.
            configuration: if target == Target::Any {
                configuration
            } else {
                fitted(configuration, target)
            },
            vocabulary: conversion.tokenizer().vocabulary.clone(),
            definition: Definition { bytes: archive, sha256 },
            minimum_version: conversion
                .minimum_version()
                .max(operations::since(&traced.operations)),
            target,
            operations: traced.operations,
        })
    }

    /// Traces the model and writes the bundle's files into `folder`, whole or not at all. Returns the path of the metadata too.
    ///
    /// # Errors
    /// When the model cannot be traced or a file cannot be written.
    pub fn export(
        conversion: &Conversion,
        model_id: ModelId,
        title: &str,
        folder: &Path,
    ) -> Result<(Self, PathBuf), BundleError> {
        fs::create_dir_all(folder).map_err(io_error("cannot make the folder", folder))?;
        let bundle = Self::create(conversion, model_id, title)?;
        let path = conversion.progress().run(Stage::WriteBundle, || bundle.write(folder))?;
        Ok((bundle, path))
    }

    /// Writes the bundle's files into `folder`, whole or not at all. Returns the path of the metadata.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, BundleError> {
        let id = &self.model_id;
        fs::create_dir_all(folder).map_err(io_error("cannot make the folder", folder))?;
        let definition = Unfinished::new(folder, format!("{id}.pt"))?;
        let mut file = definition.file.as_file();
        let written = self.definition.bytes.iter().try_for_each(|piece| file.write_all(piece));
        written.map_err(io_error("cannot write", &definition.path))?;
        let vocabulary = Unfinished::new(folder, format!("{id}.vocab.json"))?;
        vocabulary.write_json(&self.vocabulary)?;
        let metadata = Unfinished::new(folder, format!("{id}.metadata.json"))?;
        metadata.write_json(&Metadata {
            packaged_model_id: id.to_string(),
            minimum_version: self.minimum_version.to_string(),
            size: self.definition.bytes.len() as u64,
            sha256: self.definition.sha256.clone(),
            vocabulary_file: format!("{id}.vocab.json"),
            target_version: (self.target != Target::Any).then(|| self.target.to_string()),
            configuration: self.configuration.clone(),
        })?;
        definition.finish()?;
        vocabulary.finish()?;
        metadata.finish()
    }

    /// Reads an exported bundle, and checks that its definition is the one that was exported and that Elasticsearch accepts it.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub fn read(metadata: &Path, model_id: Option<ModelId>) -> Result<Self, BundleError> {
        let read = |path: &Path| fs::read(path).map_err(io_error("cannot read", path));
        let invalid = |path: &Path| {
            let path = path.to_owned();
            |reason: serde_json::Error| BundleError::Invalid { path, reason: reason.to_string() }
        };
        let described: Metadata =
            serde_json::from_slice(&read(metadata)?).map_err(invalid(metadata))?;
        let id: ModelId = described.packaged_model_id.parse()?;
        let folder = metadata.parent().unwrap_or(Path::new(""));
        let within = |name: &str| match Path::new(name).file_name() {
            Some(file) if file == name => Ok(folder.join(name)),
            _ => Err(BundleError::Invalid {
                path: metadata.to_owned(),
                reason: format!("{name:?} is not the name of a file beside it"),
            }),
        };
        let path = within(&described.vocabulary_file)?;
        let vocabulary = serde_json::from_slice(&read(&path)?).map_err(invalid(&path))?;

        let path = folder.join(format!("{id}.pt"));
        let bytes = MappedFile::open(&path).map_err(io_error("cannot read", &path))?;
        let invalid = |reason| BundleError::Invalid { path: metadata.to_owned(), reason };
        let minimum_version = described.minimum_version.parse().map_err(invalid)?;
        let target = match described.target_version {
            Some(target) => target.parse().map_err(invalid)?,
            None => Target::Any,
        };
        let altered = |reason| BundleError::Altered { path: path.clone(), reason };
        let (size, expected) = (bytes.as_ref().len() as u64, described.size);
        if size != expected {
            return Err(altered(format!("it has {size} bytes, not {expected}")));
        }
        let sha256 = sha256(&bytes);
        if sha256 != described.sha256 {
            return Err(altered(format!("its SHA-256 is {sha256}, not {}", described.sha256)));
        }
        let operations = Inspected::load(bytes.as_ref())
            .map_err(|reason| BundleError::Definition { path, reason })?
            .operations;
        Ok(Self {
            model_id: model_id.unwrap_or(id),
            configuration: naming(described.configuration, &sha256),
            vocabulary,
            definition: Definition { bytes: Arc::new(bytes.into()), sha256 },
            minimum_version,
            target,
            operations,
        })
    }

    /// Checks that a cluster accepts the operations.
    ///
    /// # Errors
    /// When it would not.
    pub fn check_for(&self, target: Target) -> Result<(), BundleError> {
        match operations::check(&self.operations) {
            Err(reason) if target.enforces_operations() => {
                Err(BundleError::Refused { target, reason })
            }
            _ => Ok(()),
        }
    }

    /// The body of the request that creates the model on a cluster.
    #[must_use]
    pub fn configuration_for(&self, target: Target) -> JsonMap<String, Value> {
        fitted(self.configuration.clone(), target)
    }
}

/// A configuration without what a release does not know yet and the model can do without.
fn fitted(mut configuration: JsonMap<String, Value>, target: Target) -> JsonMap<String, Value> {
    if !target.has(Version::EMBEDDING_SIZE)
        && let Some(task) = configuration.get_mut("inference_config")
        && let Some(embedding) = task.get_mut("text_embedding").and_then(Value::as_object_mut)
    {
        embedding.shift_remove("embedding_size");
    }
    if !target.has(Version::PLATFORM_ARCHITECTURE) {
        configuration.shift_remove("platform_architecture");
    }
    configuration
}

/// A configuration whose metadata name the definition.
pub(crate) fn naming(
    mut configuration: JsonMap<String, Value>,
    sha256: &str,
) -> JsonMap<String, Value> {
    let metadata = configuration.entry("metadata").or_insert_with(|| JsonMap::new().into());
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(DEFINITION_SHA256.to_owned(), sha256.into());
    }
    configuration
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { what, path, source }
}

pub(crate) fn sha256(bytes: &MappedFile) -> String {
    hexadecimal(&Sha256::digest(bytes.as_ref()))
}

/// SHA-256, in hexadecimal.
fn hash(archive: &SegmentedBytes, progress: &RunningStage) -> String {
    /// So often is told how far it is.
    const BLOCK: usize = 1 << 20;
    let mut hash = Sha256::new();
    for block in archive.iter().flat_map(|piece| piece.chunks(BLOCK)) {
        hash.update(block);
        progress.advance(block.len() as u64);
    }
    hexadecimal(&hash.finalize())
}

/// A file that takes its name only when it is complete.
struct Unfinished {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Unfinished {
    fn new(folder: &Path, name: String) -> Result<Self, BundleError> {
        let path = folder.join(&name);
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let file = builder
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempfile_in(folder)
            .map_err(io_error("cannot make a file in", folder))?;
        Ok(Self { file, path })
    }

    fn write_json(&self, value: &impl Serialize) -> Result<(), BundleError> {
        let mut writer = io::BufWriter::new(self.file.as_file());
        serde_json::to_writer(&mut writer, value)
            .map_err(io::Error::from)
            .and_then(|()| writer.flush())
            .map_err(io_error("cannot write", &self.path))
    }

    fn finish(self) -> Result<PathBuf, BundleError> {
        let Self { file, path } = self;
        file.as_file()
            .sync_all()
            .and_then(|()| file.persist(&path).map(drop).map_err(|e| e.error))
            .map_err(io_error("cannot write", &path))?;
        Ok(path)
    }
}
