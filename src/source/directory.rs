//! A folder laid out like a clone of a hub repository.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

/// No JSON or text file of a repository is larger; the largest tokenizer.json has some 30 MB.
const MAX_TEXT: u64 = 256 << 20;

/// Why a file of the model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such folder.
    #[error(
        "{0} is not a folder: name a folder laid out like a clone of a hub repository \
         (config.json, weights, tokenizer files)"
    )]
    NotAFolder(PathBuf),
    /// A file that every model has is not there.
    #[error("{folder} holds no {name}: {advice}")]
    Missing {
        /// The model's folder.
        folder: PathBuf,
        /// The file, or the files of which one is needed.
        name: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file names a path outside the folder.
    #[error(
        "{name} leads out of the model's folder, which no repository needs; refusing to follow it"
    )]
    Outside {
        /// The path as it is written.
        name: String,
    },
}

/// The files of one model.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    folder: PathBuf,
}

impl ModelFiles {
    /// Takes a folder.
    ///
    /// # Errors
    /// When it is not one.
    pub fn open(folder: &Path) -> Result<Self, SourceError> {
        if folder.is_dir() {
            Ok(Self { folder: folder.to_owned() })
        } else {
            Err(SourceError::NotAFolder(folder.to_owned()))
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder within, such as a sentence-transformers module's; an empty name is the folder itself.
    ///
    /// # Errors
    /// When the name leads outside.
    pub fn sub(&self, name: &str) -> Result<Self, SourceError> {
        Ok(Self { folder: self.join(name)? })
    }

    /// The path of a file, if it is there.
    ///
    /// # Errors
    /// When the name leads outside.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>, SourceError> {
        Ok(Some(self.join(name)?).filter(|path| path.is_file()))
    }

    /// The text of a file, if it is there.
    ///
    /// # Errors
    /// When it cannot be read, is too large or is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, SourceError> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|error| SourceError::Io {
            path: self.folder.join(name),
            source: io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()),
        })
    }

    /// The bytes of a file, if it is there: for small binary files such as a SentencePiece model.
    ///
    /// # Errors
    /// When it cannot be read or is too large.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(path) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes))
            .and_then(|length| {
                if length as u64 > MAX_TEXT {
                    Err(io::ErrorKind::FileTooLarge.into())
                } else {
                    Ok(())
                }
            })
            .map_err(|source| SourceError::Io { path, source })?;
        Ok(Some(bytes))
    }

    /// A JSON file, if it is there.
    ///
    /// # Errors
    /// When it cannot be read or does not have the form of `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SourceError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // Some editors begin a file with a byte order mark, which JSON does not know.
        serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map(Some)
            .map_err(|source| SourceError::Json { path: self.folder.join(name), source })
    }

    /// A JSON file that must be there.
    ///
    /// # Errors
    /// As [`json`](Self::json), and when it is not there.
    pub fn required_json<T: DeserializeOwned>(
        &self,
        name: &str,
        advice: &'static str,
    ) -> Result<T, SourceError> {
        self.json(name)?.ok_or_else(|| self.missing(name, advice))
    }

    /// The error that a needed file is not there.
    #[must_use]
    pub fn missing(&self, name: &str, advice: &'static str) -> SourceError {
        SourceError::Missing { folder: self.folder.clone(), name: name.to_owned(), advice }
    }

    /// The names of what the folder holds, sorted.
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
        if inside && !name.contains('\\') {
            Ok(self.folder.join(name))
        } else {
            Err(SourceError::Outside { name: name.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_lead_outside() {
        let files = ModelFiles::open(Path::new(".")).unwrap();
        for name in ["../x", "/etc/passwd", "a/../../x", "a\\..\\x"] {
            assert!(matches!(files.find(name), Err(SourceError::Outside { .. })), "{name}");
            assert!(files.sub(name).is_err());
        }
        assert!(files.sub("").is_ok() && files.sub("./1_Pooling").is_ok());
    }
}
