//! Models on disk. Large data is not kept in memory, and a restart with the same directory loads everything again.
//!
//! As in the server's indices, a document is created once and never overwritten. A part is *visible* only after a refresh: the
//! last part, the configuration and the vocabulary refresh immediately, otherwise the refresh interval applies (contract, 4.2 and 6.3).

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::configuration::{Configuration, identifier};
use crate::definition::{NewPart, StoredPart};
use crate::vocabulary::Vocabulary;

const CONFIGURATION: &str = "configuration.json";
const VOCABULARY: &str = "vocabulary.json";
const PARTS: &str = "parts";
const DEFINITION: &str = "definition.pt";

/// Bytes before the content of a part file: the total length sent with the part.
const PART_HEADER: u64 = 8;

/// Reason why a document was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("it is stored already")]
    Exists,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All models and deployments of a stand-in.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    refresh_interval: Duration,
    /// Storage time of each part that is not visible yet.
    unrefreshed: Mutex<HashMap<PathBuf, Instant>>,
}

impl Store {
    pub(crate) fn open(root: &Path, refresh_interval: Duration) -> io::Result<Self> {
        for folder in ["models", "deployments"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.to_owned(), refresh_interval, unrefreshed: Mutex::default() })
    }

    /// UUID of the cluster, generated for a new directory.
    pub(crate) fn cluster_uuid(&self) -> io::Result<String> {
        const FILE: &str = "cluster_uuid";
        let path = self.root.join(FILE);
        if let Ok(uuid) = fs::read_to_string(&path) {
            return Ok(uuid);
        }
        // 16 bytes in URL-safe base64, as in the server.
        let drawn = || RandomState::new().build_hasher().finish().to_le_bytes();
        let uuid = URL_SAFE_NO_PAD.encode([drawn(), drawn()].concat());
        fs::write(&path, &uuid)?;
        Ok(uuid)
    }

    fn model(&self, id: &str) -> PathBuf {
        self.root.join("models").join(id)
    }

    fn unrefreshed(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        let mut parts = self.unrefreshed.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|_, stored| stored.elapsed() < self.refresh_interval);
        parts
    }

    /// Makes all stored parts visible.
    fn refresh(&self) {
        self.unrefreshed().clear();
    }

    pub(crate) fn put_configuration(
        &self,
        configuration: &Configuration,
    ) -> Result<(), StoreError> {
        let path = self.model(&configuration.model_id).join(CONFIGURATION);
        self.create(&path, |file| Ok(serde_json::to_writer(file, &configuration.document)?))?;
        self.refresh();
        Ok(())
    }

    /// Configuration of a model, or `None` if the id does not exist.
    pub(crate) fn configuration(&self, id: &str) -> Option<Configuration> {
        if !identifier::is_valid(id) {
            return None;
        }
        let file = File::open(self.model(id).join(CONFIGURATION)).ok()?;
        let document: Map<String, Value> = serde_json::from_reader(BufReader::new(file)).ok()?;
        Configuration::from_document(document).ok()
    }

    /// All configurations by id.
    pub(crate) fn configurations(&self) -> Vec<Configuration> {
        let mut all: Vec<_> = names(&self.root.join("models"))
            .into_iter()
            .filter_map(|id| self.configuration(&id))
            .collect();
        all.sort_by(|a, b| a.model_id.cmp(&b.model_id));
        all
    }

    pub(crate) fn put_part(&self, id: &str, part: &NewPart) -> Result<(), StoreError> {
        let path = self.model(id).join(PARTS).join(part.number.to_string());
        self.create(&path, |file| {
            file.write_all(&part.total_length.to_le_bytes())?;
            file.write_all(&part.bytes)
        })?;
        self.unrefreshed().insert(path, Instant::now());
        if part.is_last {
            self.refresh();
        }
        Ok(())
    }

    /// Visible parts of a definition, in order.
    pub(crate) fn parts(&self, id: &str) -> io::Result<Vec<StoredPart>> {
        let folder = self.model(id).join(PARTS);
        let hidden = self.unrefreshed().clone();
        let mut parts = Vec::new();
        for name in names(&folder) {
            let path = folder.join(&name);
            let Ok(number) = name.parse() else { continue };
            if hidden.contains_key(&path) {
                continue;
            }
            let mut file = File::open(&path)?;
            let mut total = [0; 8];
            file.read_exact(&mut total)?;
            let length = file.metadata()?.len().saturating_sub(PART_HEADER);
            parts.push(StoredPart { number, length, total_length: u64::from_le_bytes(total) });
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Writes the visible parts to one file, in order.
    pub(crate) fn assemble(&self, id: &str) -> io::Result<PathBuf> {
        let mut joined = NamedTempFile::new_in(self.model(id))?;
        for part in self.parts(id)? {
            let mut file = File::open(self.model(id).join(PARTS).join(part.number.to_string()))?;
            file.read_exact(&mut [0; PART_HEADER as usize])?;
            io::copy(&mut file, &mut joined)?;
        }
        let path = self.model(id).join(DEFINITION);
        joined.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }

    pub(crate) fn put_vocabulary(
        &self,
        id: &str,
        vocabulary: &Vocabulary,
    ) -> Result<(), StoreError> {
        let path = self.model(id).join(VOCABULARY);
        self.create(&path, |file| {
            Ok(serde_json::to_writer(io::BufWriter::new(file), vocabulary)?)
        })?;
        self.refresh();
        Ok(())
    }

    pub(crate) fn vocabulary(&self, id: &str) -> Option<Vocabulary> {
        let file = File::open(self.model(id).join(VOCABULARY)).ok()?;
        serde_json::from_reader(BufReader::new(file)).ok()
    }

    /// Deletes the visible documents of a model. Invisible parts remain, as with the server's delete-by-query.
    pub(crate) fn delete(&self, id: &str) -> io::Result<()> {
        let folder = self.model(id);
        let hidden = self.unrefreshed().clone();
        for name in [CONFIGURATION, VOCABULARY, DEFINITION] {
            match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let parts = folder.join(PARTS);
        for name in names(&parts) {
            let path = parts.join(name);
            if !hidden.contains_key(&path) {
                fs::remove_file(path)?;
            }
        }
        // Fails if invisible parts remain.
        if fs::remove_dir(&parts).is_ok() || !parts.exists() {
            fs::remove_dir(&folder)?;
        }
        self.refresh();
        Ok(())
    }

    /// Stores what a restart needs to start a deployment again.
    pub(crate) fn put_deployment(&self, id: &str, parameters: &Value) -> io::Result<()> {
        let folder = self.root.join("deployments");
        let mut file = NamedTempFile::new_in(&folder)?;
        serde_json::to_writer(&mut file, parameters)?;
        file.persist(self.deployment(id)).map_err(|error| error.error)?;
        Ok(())
    }

    pub(crate) fn delete_deployment(&self, id: &str) {
        // A missing file means that the deployment was never stored.
        let _ = fs::remove_file(self.deployment(id));
    }

    /// Parameters of all deployments.
    pub(crate) fn deployments(&self) -> Vec<Value> {
        let folder = self.root.join("deployments");
        names(&folder)
            .into_iter()
            .filter_map(|name| serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok())
            .collect()
    }

    /// Deployment ids allow more characters than model ids, so the file name is the id in hexadecimal.
    fn deployment(&self, id: &str) -> PathBuf {
        let name: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.root.join("deployments").join(name)
    }

    /// Creates a file atomically, or fails if it exists.
    fn create(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        if path.exists() {
            return Err(StoreError::Exists);
        }
        let mut file = NamedTempFile::new_in(&self.root)?;
        write(file.as_file_mut())?;
        file.persist_noclobber(path).map(|_| ()).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists,
            _ => StoreError::Io(error.error),
        })
    }
}

/// File names in a folder; empty if the folder does not exist.
fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::version::Version;

    fn store(interval: Duration) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), interval).unwrap();
        let body = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
        let configuration = Configuration::create("m", body, Version::default()).unwrap();
        store.put_configuration(&configuration).unwrap();
        (folder, store)
    }

    fn part(number: u32, bytes: &[u8], is_last: bool) -> NewPart {
        NewPart { number, is_last, total_length: 6, bytes: bytes.to_vec() }
    }

    #[test]
    fn parts_are_created_once_and_joined_in_order() {
        let (_folder, store) = store(Duration::ZERO);
        store.put_part("m", &part(10, b"ef", true)).unwrap();
        store.put_part("m", &part(2, b"cd", false)).unwrap();
        store.put_part("m", &part(0, b"ab", false)).unwrap();
        assert!(matches!(store.put_part("m", &part(2, b"xx", false)), Err(StoreError::Exists)));
        let numbers: Vec<_> = store.parts("m").unwrap().iter().map(|part| part.number).collect();
        assert_eq!(numbers, [0, 2, 10]);
        assert_eq!(fs::read(store.assemble("m").unwrap()).unwrap(), b"abcdef");
    }

    #[test]
    fn parts_become_visible_with_the_last_one() {
        let (_folder, store) = store(Duration::from_secs(3600));
        store.put_part("m", &part(0, b"ab", false)).unwrap();
        assert_eq!(store.parts("m").unwrap(), []);
        store.put_part("m", &part(1, b"cdef", true)).unwrap();
        assert_eq!(store.parts("m").unwrap().len(), 2);
    }

    #[test]
    fn invisible_part_survives_deletion() {
        let (_folder, store) = store(Duration::from_secs(3600));
        store.put_part("m", &part(0, b"ab", false)).unwrap();
        store.delete("m").unwrap();
        assert!(store.configuration("m").is_none());
        assert!(matches!(store.put_part("m", &part(0, b"ab", false)), Err(StoreError::Exists)));
        store.delete("m").unwrap();
        store.put_part("m", &part(0, b"ab", false)).unwrap();
    }

    #[test]
    fn second_store_on_the_same_folder_loads_everything() {
        let (folder, store) = store(Duration::ZERO);
        let vocabulary = Vocabulary { vocabulary: vec!["[UNK]".into()], ..Vocabulary::default() };
        store.put_vocabulary("m", &vocabulary).unwrap();
        store.put_part("m", &part(0, b"ab", false)).unwrap();
        store.put_deployment("a/b", &json!({"deployment_id": "a/b"})).unwrap();
        let again = Store::open(folder.path(), Duration::from_secs(3600)).unwrap();
        assert_eq!(again.configurations().len(), 1);
        assert_eq!(again.vocabulary("m"), Some(vocabulary));
        assert_eq!(again.parts("m").unwrap().len(), 1);
        assert_eq!(again.deployments(), [json!({"deployment_id": "a/b"})]);
        again.delete_deployment("a/b");
        assert!(again.deployments().is_empty());
    }
}
