//! The download of the planned files into the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::HubClient;
use super::contents::RepositoryAtCommit;
use super::listing::{Listing, RepositoryFile};
use super::output_folder::{self, OutputFolder};
use super::partial::partial_length;
use super::preview::add_card;
use super::selection::{DeclaredFiles, MODULES, Selection, TOKENIZER_CONFIG};
use super::{Commit, HubError, Revision};
use crate::byte_count::ByteCount;
use crate::observer::Progress;
use crate::source::Origin;

/// How many files are downloaded at a time.
const FILES_AT_A_TIME: usize = 4;

/// Files whose presence decides how a model is read. A cache that Python filled may not record their absence.
const DECISIVE_FILES: [&str; 2] = [MODULES, TOKENIZER_CONFIG];

/// The files of a repository that an import needs, and their locations.
#[derive(Debug, Clone)]
pub struct DownloadPlan {
    pub(super) repository: RepositoryAtCommit,
    pub(super) files: Vec<String>,
    config: Option<Value>,
    declared: DeclaredFiles,
    /// The hub's listing. `None` if the plan uses only the cache.
    pub(super) listing: Option<(HubClient, Listing)>,
    revision: Revision,
    /// The name to download, for messages.
    name: String,
}

/// The files of a model in the cache.
#[derive(Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The folder, laid out like a clone of the repository.
    pub folder: PathBuf,
    /// The paths of the needed files in the folder. The folder may hold others.
    pub files: Vec<String>,
    /// The repository and the commit.
    pub origin: Origin,
}

impl DownloadPlan {
    pub(super) fn new(
        repository: RepositoryAtCommit,
        Selection { files, config, declared }: Selection,
        revision: Revision,
        name: String,
    ) -> Self {
        Self { repository, files, config, declared, listing: None, revision, name }
    }

    /// The plan with the hub's listing, from which missing files are downloaded.
    pub(super) fn with_listing(self, client: HubClient, listing: Listing) -> Self {
        Self { listing: Some((client, listing)), ..self }
    }

    /// The model's `config.json`, with which a model that cannot be used is rejected before its weights are downloaded. Static
    /// embeddings do not have one.
    /// not have one.
    #[must_use]
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// What the other small files of the repository declare, with which a family that cannot be served is recognized.
    #[must_use]
    pub fn declared(&self) -> &DeclaredFiles {
        &self.declared
    }

    /// The repository and the commit.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let RepositoryAtCommit { id, commit, .. } = &self.repository;
        Origin { model_id: id.to_string(), commit: commit.to_string() }
    }

    /// The commit.
    #[must_use]
    pub fn commit(&self) -> &Commit {
        &self.repository.commit
    }

    /// The folder of the snapshot in the cache. It may lack files before the download.
    pub(super) fn snapshot_folder(&self) -> PathBuf {
        self.repository.cache.snapshot(&self.repository.commit)
    }

    /// Checks the bytes of all files of a plan that uses only the cache.
    pub(super) fn verified(self) -> Result<Self, HubError> {
        let RepositoryAtCommit { commit, cache, .. } = &self.repository;
        let listing = cache.stored_listing(commit).unwrap_or_default();
        for file in &self.files {
            let path = self.snapshot_folder().join(file);
            if !cache.is_sound(&path, listing.get(file)) {
                return Err(HubError::Damaged { path, name: self.name });
            }
        }
        Ok(self)
    }

    /// The decisive files whose absence from the repository the cache does not record.
    pub(super) fn undecided_files(&self) -> Vec<&'static str> {
        let RepositoryAtCommit { commit, cache, .. } = &self.repository;
        // One file was asked for by name.
        if self.config.is_none() && !self.files.iter().any(|file| file == MODULES) {
            return Vec::new();
        }
        let listing = cache.stored_listing(commit);
        let is_decided = |name: &str| {
            self.files.iter().any(|file| file == name)
                || cache.is_absent(commit, name)
                || listing.as_ref().is_some_and(|listing| !listing.contains_key(name))
        };
        DECISIVE_FILES.into_iter().filter(|name| !is_decided(name)).collect()
    }

    /// Compares a folder with the planned files, before anything is downloaded.
    ///
    /// # Errors
    /// [`HubError::OutputInUse`] if the folder contains other files than these, and [`HubError::Space`] if its disk is too full.
    pub fn compare_output(&self, output: &Path) -> Result<OutputFolder, HubError> {
        let snapshot = self.snapshot_folder();
        let folder = OutputFolder::compare(output, &self.files, |file, path| {
            output_folder::is_same(path, self.listed(file), &snapshot.join(file))
        })?;
        let size = |file: &String| match self.listed(file) {
            Some(listed) => listed.size,
            None => fs::metadata(snapshot.join(file)).map_or(0, |data| data.len()),
        };
        let mut needed = folder.missing.iter().map(size).fold(0, u64::saturating_add);
        let path = existing_ancestor(output);
        if is_on_disk_of(path, existing_ancestor(&self.repository.cache.blobs())) {
            needed = needed.saturating_add(self.bytes_to_download());
        }
        match fs4::available_space(path) {
            Ok(free) if free < needed && !folder.is_complete() => {
                Err(HubError::Space { needed, free, path: path.to_owned(), is_output: true })
            }
            // Some file systems do not report their free space.
            _ => Ok(folder),
        }
    }

    fn listed(&self, file: &str) -> Option<&RepositoryFile> {
        self.listing.as_ref().and_then(|(_, listing)| listing.get(file))
    }

    /// An estimate of the bytes that the cache lacks, for which no file is read.
    fn bytes_to_download(&self) -> u64 {
        let RepositoryAtCommit { commit, cache, .. } = &self.repository;
        let listed = self.files.iter().filter_map(|file| Some((file, self.listed(file)?)));
        let missing = listed.filter(|(path, file)| {
            let pointer = cache.snapshot(commit).join(path);
            let has_size =
                |path: &Path| fs::metadata(path).is_ok_and(|data| data.len() == file.size);
            !has_size(&pointer) && !has_size(&cache.blob(&file.digest))
        });
        let rest = |(_, file): (_, &RepositoryFile)| {
            file.size - partial_length(cache, &file.digest, file.size)
        };
        missing.map(rest).fold(0, u64::saturating_add)
    }

    /// Brings all files into the cache. Files that the cache has with the right bytes are not downloaded.
    ///
    /// # Errors
    /// If a file cannot be downloaded. Files that have been downloaded are kept, and the next call continues from there.
    pub async fn download(self, progress: &Progress) -> Result<Snapshot, HubError> {
        let (origin, folder) = (self.origin(), self.snapshot_folder());
        let Self { repository, files, listing, revision, .. } = self;
        if let Some((client, listing)) = listing {
            let needed = listed(&files, &listing);
            let missing = missing_files(&repository, &needed).await?;
            if missing.is_empty() {
                tracing::info!("{origin}: all {} files are in the cache", files.len());
            } else {
                announce(&repository, &missing, (files.len(), listing.len()))?;
                // Ctrl-C ends the process. The next run continues with the partial files.
                download_files(&client, &repository, &missing, progress).await?;
            }
            add_to_snapshot(&repository, &needed, &missing)?;
            // A complete cache is used without another request.
            if !missing.is_empty() {
                add_card(&client, &repository, &listing).await;
            }
            let RepositoryAtCommit { commit, cache, .. } = &repository;
            cache.store_listing_without_links(commit, &listing, &files);
            for name in DECISIVE_FILES.into_iter().filter(|name| !listing.contains_key(*name)) {
                cache.store_absence(commit, name);
            }
            if revision.as_str() != commit.as_str() {
                cache.store_commit(&revision, commit);
            }
        } else {
            tracing::info!("{origin}: using the cached files in {}", folder.display());
        }
        Ok(Snapshot { folder, files, origin })
    }
}

impl Snapshot {
    /// Copies the files that a folder lacks. The folder must have been compared with
    /// [`compare_output`](DownloadPlan::compare_output).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn copy_missing(&self, folder: &OutputFolder, output: &Path) -> Result<(), HubError> {
        folder.complete(output, &self.folder)
    }
}

/// The files with sizes and hashes.
pub(super) fn listed(files: &[String], listing: &Listing) -> Vec<(String, RepositoryFile)> {
    files.iter().filter_map(|path| Some((path.clone(), listing.get(path)?.clone()))).collect()
}

/// The files that the cache lacks or holds with the wrong bytes, one for each content.
pub(super) async fn missing_files(
    repository: &RepositoryAtCommit,
    needed: &[(String, RepositoryFile)],
) -> Result<Vec<(String, RepositoryFile)>, HubError> {
    let (repository, needed) = (repository.clone(), needed.to_vec());
    let checked = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        let is_cached = |path: &str, file: &RepositoryFile| {
            repository.cache.verified_file(&repository.commit, path, file).is_some()
        };
        needed
            .into_iter()
            .filter(|(path, file)| !is_cached(path, file))
            .filter(|(_, file)| seen.insert(file.digest.as_str().to_owned()))
            .collect()
    });
    checked.await.map_err(|_| HubError::Stopped)
}

/// Adds files to the snapshot in the given order: the weights come last, so a snapshot with weights is complete.
pub(super) fn add_to_snapshot(
    repository: &RepositoryAtCommit,
    needed: &[(String, RepositoryFile)],
    downloaded: &[(String, RepositoryFile)],
) -> Result<(), HubError> {
    let digest = |(_, file): &(String, RepositoryFile)| file.digest.as_str().to_owned();
    let downloaded: BTreeSet<String> = downloaded.iter().map(digest).collect();
    for (position, (path, file)) in needed.iter().enumerate() {
        let is_used_later = needed.iter().skip(position + 1).any(|it| it.1.digest == file.digest);
        let is_disposable = !is_used_later && downloaded.contains(file.digest.as_str());
        repository.cache.add_to_snapshot(&repository.commit, path, file, is_disposable)?;
    }
    Ok(())
}

/// Logs what will be downloaded, and checks that there is space for it.
fn announce(
    repository: &RepositoryAtCommit,
    missing: &[(String, RepositoryFile)],
    (needed, all): (usize, usize),
) -> Result<(), HubError> {
    let blobs = repository.cache.create_folders()?;
    let partial =
        |file: &RepositoryFile| partial_length(&repository.cache, &file.digest, file.size);
    let sum = |of: &dyn Fn(&RepositoryFile) -> u64| {
        missing.iter().fold(0_u64, |sum, (_, file)| sum.saturating_add(of(file)))
    };
    let rest = sum(&|file| file.size - partial(file));
    let done = match sum(&partial) {
        0 => String::new(),
        done => format!(" ({} are left from an earlier run)", ByteCount(done)),
    };
    let names: Vec<String> =
        missing.iter().map(|(path, file)| format!("{path} ({})", ByteCount(file.size))).collect();
    tracing::info!(
        "downloading {}{done} from {} at commit {}: {}. {needed} of the repository's {all} files are needed",
        ByteCount(rest),
        repository.id,
        repository.commit,
        names.join(", ")
    );
    match fs4::available_space(&blobs) {
        Ok(free) if free < rest => {
            Err(HubError::Space { needed: rest, free, path: blobs, is_output: false })
        }
        // Some file systems do not report their free space.
        _ => Ok(()),
    }
}

/// The nearest folder above a path, or the path itself, that exists.
fn existing_ancestor(path: &Path) -> &Path {
    let is_named = |path: &&Path| !path.as_os_str().is_empty();
    path.ancestors().filter(is_named).find(|path| path.exists()).unwrap_or(Path::new("."))
}

/// Whether two paths are on the same disk.
#[cfg(unix)]
fn is_on_disk_of(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).ok().map(|data| data.dev());
    device(one) == device(other)
}

#[cfg(not(unix))]
fn is_on_disk_of(_: &Path, _: &Path) -> bool {
    false
}

/// Downloads files into the cache, several at a time.
pub(super) async fn download_files(
    client: &HubClient,
    repository: &RepositoryAtCommit,
    missing: &[(String, RepositoryFile)],
    progress: &Progress,
) -> Result<(), HubError> {
    let permits = Arc::new(Semaphore::new(FILES_AT_A_TIME));
    let mut tasks = JoinSet::new();
    for (path, file) in missing {
        let (path, file) = (path.clone(), file.clone());
        let (client, repository, progress) = (client.clone(), repository.clone(), progress.clone());
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            repository.download(&client, &path, &file, &progress).await
        });
    }
    while let Some(result) = tasks.join_next().await {
        // An error drops the set, which stops the other downloads. Their partial files stay.
        result.map_err(|_| HubError::Stopped)??;
    }
    Ok(())
}
