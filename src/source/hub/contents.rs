//! The files of one repository at one commit, on the hub or in the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::cache::RepositoryCache;
use super::client::{FileRequest, HubClient};
use super::listing::{Listing, RepositoryFile};
use super::selection::RepositoryContents;
use super::{Commit, HubError, RepositoryId, transfer};
use crate::observer::{Progress, Stage};

/// Maximum size of a file that names other files.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// A repository at a commit, with its part of the cache.
#[derive(Debug, Clone)]
pub(super) struct RepositoryAtCommit {
    pub id: RepositoryId,
    pub commit: Commit,
    pub cache: RepositoryCache,
}

impl RepositoryAtCommit {
    /// The request for a file.
    pub(super) fn request(&self, path: &str, file: &RepositoryFile) -> FileRequest {
        let Self { id, commit, .. } = self.clone();
        FileRequest { id, commit, path: path.to_owned(), file: file.clone() }
    }

    /// Downloads a file, unless the cache has it.
    pub(super) async fn download(
        &self,
        client: &HubClient,
        path: &str,
        file: &RepositoryFile,
        progress: &Progress,
    ) -> Result<(), HubError> {
        let stage = progress.start_bytes(Stage::DownloadFile(path.into()), file.size);
        transfer::download(client, &self.cache, &self.request(path, file), &stage).await?;
        stage.finish();
        Ok(())
    }
}

/// The files of a repository on the hub. Files that are read are downloaded into the cache.
pub(super) struct ListedContents<'a> {
    pub client: &'a HubClient,
    pub repository: &'a RepositoryAtCommit,
    pub listing: &'a Listing,
}

impl RepositoryContents for ListedContents<'_> {
    fn paths(&self) -> BTreeSet<String> {
        self.listing.keys().cloned().collect()
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        let RepositoryAtCommit { id, commit, cache } = self.repository;
        let invalid = |reason: &str| HubError::Json {
            id: id.clone(),
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let file = self.listing.get(path).ok_or_else(|| invalid("the file does not exist"))?;
        if file.size > MAX_SMALL_FILE {
            return Err(invalid("the file is too large"));
        }
        let cached = || cache.verified_file(commit, path, file);
        let found = match cached() {
            Some(found) => found,
            None => {
                cache.create_folders()?;
                self.repository.download(self.client, path, file, &Progress::quiet()).await?;
                cached().unwrap_or_else(|| cache.blob(&file.digest))
            }
        };
        fs::read(&found).map_err(HubError::io("read", &found))
    }
}

/// The files of a snapshot in the cache.
pub(super) struct CachedContents<'a> {
    pub snapshot: &'a Path,
    /// The name to download, for messages.
    pub name: &'a str,
}

impl RepositoryContents for CachedContents<'_> {
    fn paths(&self) -> BTreeSet<String> {
        files_below(self.snapshot)
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        let path = self.snapshot.join(path);
        let size = fs::metadata(&path).map_err(HubError::io("read", &path))?.len();
        if size > MAX_SMALL_FILE {
            return Err(HubError::Damaged { path, name: self.name.to_owned() });
        }
        fs::read(&path).map_err(HubError::io("read", &path))
    }
}

/// The paths of all files below a folder, with `/` as separator.
pub(super) fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    collect(folder, "", 0, &mut paths);
    paths
}

/// Collects the paths of the files below a folder. Links to folders are ignored, because the cache contains none.
fn collect(folder: &Path, prefix: &str, depth: usize, paths: &mut BTreeSet<String>) {
    const MAX_DEPTH: usize = 8;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth < MAX_DEPTH {
            collect(&entry.path(), &format!("{path}/"), depth + 1, paths);
        } else if entry.path().is_file() {
            paths.insert(path);
        }
    }
}
