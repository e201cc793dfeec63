//! A bundle: what Elasticsearch stores for one model.
//!
//! A bundle consists of a configuration, an artifact (the model itself) and, for models that read text, a vocabulary. On disk it
//! has the layout of Elasticsearch's file-based model repository: `ID.pt`, `ID.vocab.json`, and `ID.metadata.json`, which names the
//! other files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value};

use crate::error_chain::advice;
use crate::mapped_file::{FileChanged, MappedFile};
use crate::model_id::{ModelId, ModelIdError};
use crate::segmented_bytes::SegmentedBytes;
use crate::version::{Target, Version};
use crate::vocabulary::Vocabulary;

mod required_memory;

pub use required_memory::{NATIVE_PROCESS, required_memory};

/// Why a bundle cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("{what} {path}: {source}{}", advice(source))]
    Io {
        /// The operation that failed, for example "cannot read".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// `ID.metadata.json` or `ID.vocab.json` is not valid.
    #[error("{path} is not valid: {reason}; export the model again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The artifact is not the one that its metadata describes.
    #[error(
        "{path} is not the definition that its metadata describes: {reason}; export the model again"
    )]
    Altered {
        /// The artifact.
        path: PathBuf,
        /// The difference.
        reason: String,
    },
    /// A file of the model changed while the bundle was written.
    #[error(transparent)]
    Changed(#[from] FileChanged),
    /// The model id in `ID.metadata.json` is not valid.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
}

/// The operation of [`BundleError::Io`] when a file cannot be read.
pub(crate) const READING: &str = "cannot read";

/// The key in a configuration's metadata with the SHA-256 of the artifact. It identifies the artifact of a model in a cluster.
pub const DEFINITION_SHA256: &str = "definition_sha256";

/// What Elasticsearch stores for one model.
#[derive(Debug)]
pub struct Bundle {
    /// The model's id.
    pub model_id: ModelId,
    /// Body of the request that creates the model.
    pub configuration: JsonMap<String, Value>,
    /// The body of the request that stores the vocabulary. `None` for models that do not read text.
    pub vocabulary: Option<Vocabulary>,
    /// The model itself.
    pub artifact: Artifact,
    /// Oldest Elasticsearch version that can serve the model.
    pub minimum_version: Version,
    /// Elasticsearch version that the bundle was created for.
    pub target: Target,
}

/// The model itself, as it is uploaded.
#[derive(Debug)]
pub struct Artifact {
    /// The format of the bytes.
    pub format: ArtifactFormat,
    /// The bytes, shared with the requests that upload them.
    pub bytes: Arc<SegmentedBytes>,
    /// SHA-256 of the bytes, in hexadecimal.
    pub sha256: String,
}

/// The format of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArtifactFormat {
    /// A TorchScript archive.
    TorchScript,
}

impl ArtifactFormat {
    /// The value of `model_type` in the configuration.
    #[must_use]
    pub const fn model_type(self) -> &'static str {
        match self {
            Self::TorchScript => "pytorch",
        }
    }

    /// The extension of the artifact's file, without the dot.
    const fn extension(self) -> &'static str {
        match self {
            Self::TorchScript => "pt",
        }
    }

    /// The format for a configuration's `model_type`. TorchScript is the default.
    fn of(configuration: &JsonMap<String, Value>) -> Result<Self, String> {
        match configuration.get("model_type").and_then(Value::as_str) {
            None => Ok(Self::TorchScript),
            Some(name) if name == Self::TorchScript.model_type() => Ok(Self::TorchScript),
            Some(other) => Err(format!("its model_type {other:?} is not supported")),
        }
    }
}

impl Artifact {
    /// An artifact that consists of a whole file.
    #[must_use]
    pub fn from_file(format: ArtifactFormat, file: MappedFile) -> Self {
        let bytes = SegmentedBytes::from(file);
        let sha256 = bytes.sha256(&|_| ());
        Self { format, bytes: Arc::new(bytes), sha256 }
    }
}

/// The content of `ID.metadata.json` (`ModelPackageConfig` in Elasticsearch).
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    packaged_model_id: String,
    minimum_version: String,
    size: u64,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vocabulary_file: Option<String>,
    /// Elasticsearch version that the bundle was created for; absent if the bundle is for every version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_version: Option<String>,
    #[serde(flatten)]
    configuration: JsonMap<String, Value>,
}

impl Bundle {
    /// Writes the bundle's files into `folder`, which is created if it does not exist. Returns the path of `ID.metadata.json`.
    ///
    /// All files are first written in full under temporary names. `ID.metadata.json` appears last, and a previous one is removed before
    /// any file that it names is replaced. An interruption at any moment therefore leaves the previous bundle, the new bundle, or no
    /// `ID.metadata.json`; it never leaves one that names a file of another bundle.
    ///
    /// # Errors
    /// [`BundleError`] if a file cannot be written, or a file that the artifact refers to changed. In this case, no new file
    /// remains. The previous bundle remains unless its artifact was already replaced.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, BundleError> {
        let id = &self.model_id;
        let Artifact { format, bytes, sha256 } = &self.artifact;
        fs::create_dir_all(folder).map_err(io_error("cannot create the folder", folder))?;
        let artifact = Unfinished::new(folder, format!("{id}.{}", format.extension()))?;
        let mut file = artifact.file.as_file();
        let written = bytes.iter().try_for_each(|segment| file.write_all(segment));
        written.map_err(io_error("cannot write", &artifact.path))?;
        bytes.check_unchanged()?;
        let mut files = vec![artifact];
        let vocabulary_file = self.vocabulary.is_some().then(|| format!("{id}.vocab.json"));
        if let (Some(vocabulary), Some(name)) = (&self.vocabulary, &vocabulary_file) {
            let file = Unfinished::new(folder, name.clone())?;
            file.write_json(vocabulary)?;
            files.push(file);
        }
        let metadata = Unfinished::new(folder, format!("{id}.metadata.json"))?;
        metadata.write_json(&Metadata {
            packaged_model_id: id.to_string(),
            minimum_version: self.minimum_version.to_string(),
            size: bytes.len() as u64,
            sha256: sha256.clone(),
            vocabulary_file,
            target_version: (self.target != Target::Any).then(|| self.target.to_string()),
            configuration: self.configuration.clone(),
        })?;
        publish(files, metadata)
    }

    /// Reads the bundle that `metadata`, the path of an `ID.metadata.json`, describes. `model_id` replaces the id in the file.
    ///
    /// The SHA-256 of the artifact is compared with the metadata. Whether Elasticsearch accepts its operations is not checked; see
    /// [`prebuilt`](crate::prebuilt).
    ///
    /// # Errors
    /// [`BundleError`] if a file cannot be read, is not valid, or is not the one that the metadata describes.
    pub fn read(metadata: &Path, model_id: Option<ModelId>) -> Result<Self, BundleError> {
        let (described, vocabulary) = described(metadata)?;
        let id: ModelId = described.packaged_model_id.parse()?;
        let folder = metadata.parent().unwrap_or(Path::new(""));
        let invalid = |reason| BundleError::Invalid { path: metadata.to_owned(), reason };
        let format = ArtifactFormat::of(&described.configuration).map_err(invalid)?;
        if vocabulary.is_none() && format == ArtifactFormat::TorchScript {
            return Err(invalid("missing field `vocabulary_file`".into()));
        }
        let minimum_version = described.minimum_version.parse().map_err(invalid)?;
        let target = match described.target_version {
            Some(target) => target.parse().map_err(invalid)?,
            None => Target::Any,
        };
        let path = folder.join(format!("{id}.{}", format.extension()));
        let file = MappedFile::open(&path).map_err(io_error(READING, &path))?;
        let altered = |reason| BundleError::Altered { path: path.clone(), reason };
        let (size, expected) = (file.bytes().len() as u64, described.size);
        if size != expected {
            return Err(altered(format!("it has {size} bytes, not {expected}")));
        }
        let artifact = Artifact::from_file(format, file);
        let sha256 = &artifact.sha256;
        if *sha256 != described.sha256 {
            return Err(altered(format!("its SHA-256 is {sha256}, not {}", described.sha256)));
        }
        Ok(Self {
            model_id: model_id.unwrap_or(id),
            configuration: with_artifact_sha256(described.configuration, sha256),
            vocabulary,
            artifact,
            minimum_version,
            target,
        })
    }

    /// The configuration and the vocabulary of a bundle. The artifact is neither read nor needed.
    ///
    /// # Errors
    /// [`BundleError`] if `metadata` or the vocabulary cannot be read or is not valid.
    pub fn read_vocabulary(
        metadata: &Path,
    ) -> Result<(JsonMap<String, Value>, Option<Vocabulary>), BundleError> {
        let (described, vocabulary) = described(metadata)?;
        Ok((described.configuration, vocabulary))
    }

    /// The body of the request that creates the model in a cluster of version `target`.
    #[must_use]
    pub fn configuration_for(&self, target: Target) -> JsonMap<String, Value> {
        fitted(self.configuration.clone(), target)
    }
}

/// The configuration without the optional settings that Elasticsearch `target` does not support.
pub(crate) fn fitted(
    mut configuration: JsonMap<String, Value>,
    target: Target,
) -> JsonMap<String, Value> {
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

/// The configuration with the SHA-256 of the artifact in its metadata.
pub(crate) fn with_artifact_sha256(
    mut configuration: JsonMap<String, Value>,
    sha256: &str,
) -> JsonMap<String, Value> {
    let metadata = configuration.entry("metadata").or_insert_with(|| JsonMap::new().into());
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(DEFINITION_SHA256.to_owned(), sha256.into());
    }
    configuration
}

/// Reads the metadata of a bundle and its vocabulary, if the bundle has one.
fn described(metadata: &Path) -> Result<(Metadata, Option<Vocabulary>), BundleError> {
    let read = |path: &Path| fs::read(path).map_err(io_error(READING, path));
    let invalid = |path: &Path| {
        let path = path.to_owned();
        |reason: serde_json::Error| BundleError::Invalid { path, reason: reason.to_string() }
    };
    let described: Metadata =
        serde_json::from_slice(&read(metadata)?).map_err(invalid(metadata))?;
    let folder = metadata.parent().unwrap_or(Path::new(""));
    let sibling = |name: &String| match Path::new(name).file_name() {
        Some(file) if file == name.as_str() => Ok(folder.join(name)),
        _ => Err(BundleError::Invalid {
            path: metadata.to_owned(),
            reason: format!("{name:?} is not the name of a file beside it"),
        }),
    };
    let vocabulary = match &described.vocabulary_file {
        Some(name) => {
            let path = sibling(name)?;
            Some(serde_json::from_slice(&read(&path)?).map_err(invalid(&path))?)
        }
        None => None,
    };
    Ok((described, vocabulary))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { what, path, source }
}

/// Renames complete files to their final names, `metadata` last. Returns the path of `metadata`.
fn publish(files: Vec<Unfinished>, metadata: Unfinished) -> Result<PathBuf, BundleError> {
    for file in files.iter().chain([&metadata]) {
        file.file.as_file().sync_all().map_err(io_error("cannot write", &file.path))?;
    }
    let path = metadata.path.clone();
    let previous = Previous::set_aside(&path)?;
    let mut published: Vec<PathBuf> = Vec::new();
    for file in files.into_iter().chain([metadata]) {
        let path = file.path.clone();
        if let Err(error) = file.persist() {
            if published.is_empty() {
                previous.restore();
            } else {
                previous.remove();
            }
            // The original error is more important than an error while removing files.
            published.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(error);
        }
        published.push(path);
    }
    previous.remove();
    Ok(path)
}

/// The metadata of an earlier bundle, under another name while the bundle is replaced.
struct Previous(Option<(PathBuf, PathBuf)>);

impl Previous {
    fn set_aside(path: &Path) -> Result<Self, BundleError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.previous"));
        match fs::rename(path, &aside) {
            Ok(()) => Ok(Self(Some((path.to_owned(), aside)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(io_error("cannot replace", path)(error)),
        }
    }

    fn restore(self) {
        if let Some((path, aside)) = self.0 {
            let _ = fs::rename(aside, path);
        }
    }

    fn remove(self) {
        if let Some((_, aside)) = self.0 {
            let _ = fs::remove_file(aside);
        }
    }
}

/// A file under a temporary name, which is removed unless the file is published.
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
            .map_err(io_error("cannot create a file in", folder))?;
        Ok(Self { file, path })
    }

    fn write_json(&self, value: &impl Serialize) -> Result<(), BundleError> {
        let mut writer = io::BufWriter::new(self.file.as_file());
        serde_json::to_writer(&mut writer, value)
            .map_err(io::Error::from)
            .and_then(|()| writer.flush())
            .map_err(io_error("cannot write", &self.path))
    }

    fn persist(self) -> Result<(), BundleError> {
        let Self { file, path } = self;
        file.persist(&path).map(drop).map_err(|e| io_error("cannot write", &path)(e.error))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bundle(content: &str, vocabulary: bool) -> Bundle {
        let bytes = SegmentedBytes::from(content.as_bytes().to_vec());
        let sha256 = bytes.sha256(&|_| ());
        let Value::Object(configuration) = json!({ "model_type": "pytorch" }) else {
            unreachable!()
        };
        Bundle {
            model_id: "m".parse().unwrap(),
            configuration: with_artifact_sha256(configuration, &sha256),
            vocabulary: vocabulary.then(|| Vocabulary {
                vocabulary: vec!["[UNK]".into()].into(),
                ..Vocabulary::default()
            }),
            artifact: Artifact {
                format: ArtifactFormat::TorchScript,
                bytes: Arc::new(bytes),
                sha256,
            },
            minimum_version: Version::OLDEST,
            target: Target::Any,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn written_bundle_reads_back_and_leaves_no_other_files() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["first", "second"] {
            let bundle = bundle(content, true);
            let metadata = bundle.write(folder.path()).unwrap();
            let read = Bundle::read(&metadata, None).unwrap();
            assert_eq!(read.artifact.sha256, bundle.artifact.sha256);
            assert_eq!(read.vocabulary, bundle.vocabulary);
            assert_eq!(read.configuration, bundle.configuration);
            assert_eq!(names(folder.path()), ["m.metadata.json", "m.pt", "m.vocab.json"]);
        }
    }

    #[test]
    fn bundle_without_vocabulary_writes_no_vocabulary_file() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = bundle("trees", false).write(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["m.metadata.json", "m.pt"]);
        let error = Bundle::read(&metadata, None).unwrap_err().to_string();
        assert!(error.contains("vocabulary_file"), "{error}");
    }

    /// A folder at the path of a file makes the renaming of that file fail.
    #[test]
    fn failed_write_keeps_the_previous_bundle_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);

        // The artifact cannot be replaced, so the previous metadata remains.
        fs::write(path("m.metadata.json"), "previous").unwrap();
        fs::create_dir(path("m.pt")).unwrap();
        assert!(bundle("new", true).write(folder.path()).is_err());
        assert_eq!(names(folder.path()), ["m.metadata.json", "m.pt"]);
        assert_eq!(fs::read(path("m.metadata.json")).unwrap(), b"previous");
        fs::remove_dir(path("m.pt")).unwrap();

        // The artifact was replaced before the vocabulary failed, so no file that names the old artifact remains.
        fs::create_dir(path("m.vocab.json")).unwrap();
        assert!(bundle("new", true).write(folder.path()).is_err());
        assert_eq!(names(folder.path()), ["m.vocab.json"]);
    }

    #[test]
    fn changed_source_file_ends_the_write_without_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "weights").unwrap();
        let mut bundle = bundle("", true);
        let mapped = MappedFile::open(file.path()).unwrap();
        bundle.artifact = Artifact::from_file(ArtifactFormat::TorchScript, mapped);
        fs::write(file.path(), "other weights").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let error = bundle.write(folder.path()).unwrap_err();
        assert!(matches!(error, BundleError::Changed(_)), "{error}");
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
