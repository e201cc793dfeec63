//! A folder laid out like a clone of a hub repository.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use super::cache_layout::{SnapshotFolder, blob_of_link, file_of_blob};
use super::python_json;
use crate::error_chain::advice;

/// Maximum bytes of a text file. The largest tokenizer.json on the hub has about 60 MB.
const MAX_TEXT: u64 = 128 << 20;

/// Maximum bytes of a JSON file. A parsed file takes up to thirty times as much memory.
const MAX_JSON: u64 = 16 << 20;

/// Why a file of a model could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The path is not a folder.
    #[error(
        "{0} is not a folder. A model is a folder laid out like a clone of a hub repository (config.json, weights, tokenizer \
         files)"
    )]
    NotAFolder(PathBuf),
    /// A required file does not exist.
    #[error("{folder} contains no {name}: {advice}")]
    Missing {
        /// The folder of the model.
        folder: PathBuf,
        /// The file, or the files of which one is required.
        name: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}{}", advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is not valid JSON, or its JSON does not have the expected form.
    #[error("{path} is not valid: {source}{}", if source.is_data() { "" } else { "; the file is damaged, so download it again" })]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file names a path outside the folder.
    #[error("the path {name} leads out of the model's folder, so it was not followed")]
    Outside {
        /// The path as it is written.
        name: String,
    },
    /// A symbolic link points to a place outside the folder.
    #[error(
        "{link} is a symbolic link to {target}, which is out of the model's folder, so it was not followed. Replace the link with the \
         file if the file belongs to the model"
    )]
    LinkOutside {
        /// The link.
        link: PathBuf,
        /// The target of the link.
        target: PathBuf,
    },
    /// A symbolic link points to a file that does not exist.
    #[error(
        "{link} is a broken symbolic link: {source}. Download the model again, or copy the missing file"
    )]
    LinkBroken {
        /// The link.
        link: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The files of one model.
///
/// Symbolic links are followed within the folder only. A folder in the hub's cache (`models--ORG--NAME/snapshots/COMMIT/`) consists of
/// links to blobs of its repository, so these are followed too, and from there links to the shared store of the same cache.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    folder: PathBuf,
    /// The canonical path of the model's folder, of which `folder` may be a subfolder.
    root: PathBuf,
    snapshot: Option<SnapshotFolder>,
}

impl ModelFiles {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`SourceError::NotAFolder`] if the path is not a folder.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        let root = folder.canonicalize().ok().filter(|root| root.is_dir());
        let root = root.ok_or_else(|| SourceError::NotAFolder(folder.to_owned()))?;
        let snapshot = SnapshotFolder::enclosing(&root);
        Ok(Self { folder: folder.to_owned(), root, snapshot })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder within this one, such as that of a sentence-transformers module. An empty name stands for the folder itself.
    ///
    /// # Errors
    /// If the name leads out of the model's folder, by itself or through a symbolic link.
    pub fn sub(&self, name: &str) -> Result<Self, SourceError> {
        Ok(Self { folder: self.join(name)?, ..self.clone() })
    }

    /// The path of a file, if the file exists.
    ///
    /// # Errors
    /// If the name leads out of the model's folder, by itself or through a symbolic link, or is a symbolic link to a missing file.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>, SourceError> {
        Ok(Some(self.join(name)?).filter(|path| path.is_file()))
    }

    /// The text of a file, if the file exists.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than 128 MiB or is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, SourceError> {
        self.text_up_to(MAX_TEXT, name)
    }

    fn text_up_to(&self, max: u64, name: &str) -> Result<Option<String>, SourceError> {
        let Some(bytes) = self.bytes_up_to(max, name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|error| SourceError::Io {
            path: self.folder.join(name),
            source: io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()),
        })
    }

    /// The bytes of a file, if the file exists: for small binary files such as a SentencePiece model.
    ///
    /// # Errors
    /// If the file cannot be read or is larger than 128 MiB.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.bytes_up_to(MAX_TEXT, name)
    }

    fn bytes_up_to(&self, max: u64, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(path) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
            .and_then(|length| {
                if length as u64 > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
            })
            .map_err(|source| SourceError::Io { path, source })?;
        Ok(Some(bytes))
    }

    /// The content of a JSON file, if the file exists.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than 16 MiB or does not have the form of `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SourceError> {
        let Some(text) = self.text_up_to(MAX_JSON, name)? else { return Ok(None) };
        python_json::parse(&text)
            .map(Some)
            .map_err(|source| SourceError::Json { path: self.folder.join(name), source })
    }

    /// The content of a JSON file that must exist.
    ///
    /// # Errors
    /// The errors of [`json`](Self::json), and [`SourceError::Missing`].
    pub fn required_json<T: DeserializeOwned>(
        &self,
        name: &str,
        advice: &'static str,
    ) -> Result<T, SourceError> {
        self.json(name)?.ok_or_else(|| self.missing(name, advice))
    }

    /// The error for a required file that does not exist.
    #[must_use]
    pub fn missing(&self, name: &str, advice: &'static str) -> SourceError {
        SourceError::Missing { folder: self.folder.clone(), name: name.to_owned(), advice }
    }

    /// The sorted names of the files and folders in this folder.
    #[must_use]
    pub fn listing(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn join(&self, name: &str) -> Result<PathBuf, SourceError> {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.contains('\\') {
            return Err(SourceError::Outside { name: name.to_owned() });
        }
        let path = self.folder.join(name);
        self.check_links(&path)?;
        Ok(path)
    }

    /// Refuses a path that symbolic links lead out of the model. A path that does not exist is fine.
    fn check_links(&self, path: &Path) -> Result<(), SourceError> {
        match path.canonicalize() {
            Ok(target) if target.starts_with(&self.root) || self.is_blob(path, &target) => Ok(()),
            Ok(target) => Err(SourceError::LinkOutside { link: path.to_owned(), target }),
            Err(_) if fs::symlink_metadata(path).is_err() => Ok(()),
            Err(source) => Err(SourceError::LinkBroken { link: path.to_owned(), source }),
        }
    }

    /// Whether a path is a link in a snapshot of the hub's cache to a blob of the same repository, with this file behind the blob.
    fn is_blob(&self, path: &Path, target: &Path) -> bool {
        let is_blob = || {
            let repository = &self.snapshot.as_ref()?.repository;
            // Links to folders within the snapshot may be part of the path.
            let link = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
            let name = link.starts_with(&self.root).then(|| blob_of_link(repository, &link))??;
            Some(file_of_blob(repository, &name)? == target)
        };
        is_blob().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_leads_outside_is_refused() {
        let files = ModelFiles::open(Path::new(".")).unwrap();
        for name in ["../x", "/etc/passwd", "a/../../x", "a\\..\\x"] {
            assert!(matches!(files.find(name), Err(SourceError::Outside { .. })), "{name}");
            assert!(files.sub(name).is_err());
        }
        assert!(files.sub("").is_ok() && files.sub("./1_Pooling").is_ok());
    }

    #[cfg(unix)]
    mod links {
        use std::os::unix::fs::symlink;

        use super::super::*;

        /// Creates a folder `model` with a file `a`, and beside it a folder `other` with a file `secret`.
        fn scene() -> (tempfile::TempDir, PathBuf) {
            let root = tempfile::tempdir().unwrap();
            for (folder, file) in [("model", "a"), ("other", "secret")] {
                fs::create_dir(root.path().join(folder)).unwrap();
                fs::write(root.path().join(folder).join(file), "x").unwrap();
            }
            let model = root.path().join("model");
            (root, model)
        }

        fn refused<T>(result: Result<T, SourceError>) -> String {
            result.err().expect("the link was followed").to_string()
        }

        #[test]
        fn link_out_of_the_folder_is_refused() {
            let (root, model) = scene();
            symlink("../other/secret", model.join("relative")).unwrap();
            symlink(root.path().join("other/secret"), model.join("absolute")).unwrap();
            symlink("relative", model.join("chain")).unwrap();
            symlink("../other", model.join("1_Pooling")).unwrap();
            symlink("..", model.join("up")).unwrap();
            let files = ModelFiles::open(&model).unwrap();
            for name in ["relative", "absolute", "chain", "1_Pooling/secret", "up/other/secret"] {
                let message = refused(files.text(name));
                assert!(message.contains("out of the model's folder"), "{message}");
            }
            for name in ["1_Pooling", "up", "up/other"] {
                let message = refused(files.sub(name));
                assert!(message.contains(name), "{message}");
            }
        }

        #[test]
        fn link_within_the_folder_is_followed() {
            let (_root, model) = scene();
            fs::create_dir(model.join("inner")).unwrap();
            fs::write(model.join("inner/b"), "b").unwrap();
            symlink("../a", model.join("inner/back")).unwrap();
            symlink("inner", model.join("0_Transformer")).unwrap();
            let files = ModelFiles::open(&model).unwrap();
            let inner = files.sub("0_Transformer").unwrap();
            assert_eq!(inner.text("b").unwrap().as_deref(), Some("b"));
            // The model's folder is not outside its modules.
            assert_eq!(inner.text("back").unwrap().as_deref(), Some("x"));
        }

        #[test]
        fn broken_link_differs_from_a_missing_file() {
            let (_root, model) = scene();
            symlink("gone", model.join("dangling")).unwrap();
            symlink("circle", model.join("circle")).unwrap();
            let files = ModelFiles::open(&model).unwrap();
            for name in ["dangling", "circle"] {
                let message = refused(files.find(name));
                assert!(message.contains("broken symbolic link"), "{message}");
            }
            assert!(files.find("not-there").unwrap().is_none());
            assert!(files.find("a/not-there").unwrap().is_none());
        }

        #[test]
        fn folder_can_be_a_link() {
            let (root, model) = scene();
            symlink("model", root.path().join("link")).unwrap();
            symlink("a", model.join("b")).unwrap();
            let files = ModelFiles::open(&root.path().join("link")).unwrap();
            assert!(files.find("a").unwrap().is_some() && files.find("b").unwrap().is_some());
            assert!(matches!(
                ModelFiles::open(&root.path().join("link/a")),
                Err(SourceError::NotAFolder(_))
            ));
        }

        /// Creates `root/models--org--NAME/snapshots/0123` and a file in `blobs`.
        fn cached(root: &Path, name: &str) -> PathBuf {
            let repository = root.join(format!("models--org--{name}"));
            let snapshot = repository.join("snapshots/0123");
            fs::create_dir_all(snapshot.join("1_Pooling")).unwrap();
            fs::create_dir(repository.join("blobs")).unwrap();
            fs::write(repository.join("blobs/hash"), name).unwrap();
            snapshot
        }

        #[test]
        fn snapshot_links_lead_only_to_blobs_and_the_shared_store() {
            let (root, _) = scene();
            let snapshot = cached(root.path(), "mine");
            cached(root.path(), "theirs");
            let hash = "ab".repeat(32);
            let store = root.path().join("blobs/ab");
            fs::create_dir_all(&store).unwrap();
            fs::write(store.join(&hash), "shared").unwrap();
            for (name, target) in [
                ("shared", format!("../../blobs/ab/{hash}")),
                ("other", "../../other/secret".to_owned()),
                ("prefix", format!("../../blobs/cd/{hash}")),
            ] {
                symlink(target, snapshot.join("../../blobs").join(name)).unwrap();
            }
            fs::create_dir_all(root.path().join("blobs/cd")).unwrap();
            fs::write(root.path().join("blobs/cd").join(&hash), "").unwrap();
            for (name, target) in [
                ("model.safetensors", "../../blobs/shared"),
                ("elsewhere", "../../blobs/other"),
                ("wrong-prefix", "../../blobs/prefix"),
                ("straight-to-the-store", "../../../blobs/ab/hash"),
                ("config.json", "../../blobs/hash"),
                ("1_Pooling/config.json", "../../../blobs/hash"),
                ("secret", "../../../other/secret"),
                ("theirs", "../../../models--org--theirs/blobs/hash"),
                ("refs", "../../refs"),
                ("gone", "../../blobs/gone"),
            ] {
                symlink(target, snapshot.join(name)).unwrap();
            }
            fs::create_dir(snapshot.join("../../refs")).unwrap();
            fs::write(snapshot.join("../../refs/main"), "0123").unwrap();
            let files = ModelFiles::open(&snapshot).unwrap();
            assert_eq!(files.text("config.json").unwrap().as_deref(), Some("mine"));
            let module = files.sub("1_Pooling").unwrap();
            assert_eq!(module.text("config.json").unwrap().as_deref(), Some("mine"));
            assert_eq!(files.text("model.safetensors").unwrap().as_deref(), Some("shared"));
            fs::write(root.path().join("blobs/ab/hash"), "").unwrap();
            let outside = ["elsewhere", "wrong-prefix", "straight-to-the-store"];
            for name in ["secret", "theirs", "refs/main"].into_iter().chain(outside) {
                assert!(refused(files.text(name)).contains("out of the model's folder"), "{name}");
            }
            assert!(refused(files.find("gone")).contains("broken symbolic link"));

            // A folder with another name is not part of the cache.
            let folder = root.path().join("mine/snapshots/0123");
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir(root.path().join("mine/blobs")).unwrap();
            fs::write(root.path().join("mine/blobs/hash"), "").unwrap();
            symlink("../../blobs/hash", folder.join("config.json")).unwrap();
            assert!(ModelFiles::open(&folder).unwrap().find("config.json").is_err());
        }
    }
}
