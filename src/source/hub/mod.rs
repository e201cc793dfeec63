//! Models from the Hugging Face hub, and the cache that all Hugging Face tools share.
//!
//! [`Hub::plan`] determines which files of a repository the import needs. [`DownloadPlan::download`] downloads them into the cache.
//! A file gets its name in the cache after its bytes have been compared with the hash listed by the hub. Names from the hub are
//! validated before they become paths.

mod cache;
mod client;
mod contents;
mod digest;
mod download_plan;
mod error;
mod id;
mod listing;
mod lock;
mod output_folder;
mod partial;
mod preview;
mod refusal;
mod retry;
mod selection;
mod settings;
mod transfer;
mod tree_cache;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::cache::RepositoryCache;
use self::client::HubClient;
use self::contents::{CachedContents, ListedContents, RepositoryAtCommit};
pub use self::download_plan::{DownloadPlan, Snapshot};
pub use self::error::HubError;
pub use self::id::{Commit, HubName, RepositoryId, Revision};
use self::listing::Listing;
pub use self::output_folder::OutputFolder;
pub use self::preview::{Preview, RemoteWeights};
pub use self::selection::DeclaredFiles;
use self::selection::{Selection, select};
pub use self::settings::{
    HubOptions, HubSettings, RangeSettings, Token, progress_bars_are_disabled,
};
use super::Origin;

/// A hub and its cache.
#[derive(Debug)]
pub struct Hub {
    settings: Arc<HubSettings>,
    /// `None` in offline mode.
    client: Option<HubClient>,
}

/// What a download contains.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted<'a> {
    /// The files that the import of a model needs.
    Model,
    /// One file.
    File(&'a str),
}

impl Wanted<'_> {
    /// The name with which the program downloads it.
    fn name(&self, id: &RepositoryId, revision: &Revision) -> String {
        let mut name = id.to_string();
        if let Self::File(path) = self {
            name += &format!("/{path}");
        }
        if *revision != Revision::default() {
            name += &format!("@{revision}");
        }
        name
    }
}

impl Hub {
    /// Creates a client. No request is sent.
    ///
    /// # Errors
    /// [`HubError::Certificates`] if the certificates cannot be read.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let settings = Arc::new(settings);
        let client =
            if settings.offline { None } else { Some(HubClient::new(Arc::clone(&settings))?) };
        Ok(Self { settings, client })
    }

    /// Determines which files of a repository the import needs. Downloads small files that name other files.
    ///
    /// If the cache contains a complete model, one request is sent to the hub, with the timeout [`HubSettings::listing_timeout`].
    /// If the hub does not respond, the cache is used.
    ///
    /// # Errors
    /// [`HubError`] if the hub does not serve the repository, or the repository contains no model.
    pub async fn plan(
        &self,
        id: &RepositoryId,
        revision: &Revision,
    ) -> Result<DownloadPlan, HubError> {
        self.plan_for(id, revision, &Wanted::Model).await
    }

    /// Plans the download of one file of a repository.
    ///
    /// # Errors
    /// [`HubError::FileNotFound`] if the repository does not have the file; otherwise the errors of [`plan`](Self::plan).
    pub async fn plan_file(
        &self,
        id: &RepositoryId,
        revision: &Revision,
        path: &str,
    ) -> Result<DownloadPlan, HubError> {
        self.plan_for(id, revision, &Wanted::File(path)).await
    }

    async fn plan_for(
        &self,
        id: &RepositoryId,
        revision: &Revision,
        wanted: &Wanted<'_>,
    ) -> Result<DownloadPlan, HubError> {
        let Some(client) = &self.client else {
            let plan = self.cached_plan(id, revision, wanted).await?.verified()?;
            for name in plan.undecided_files() {
                tracing::warn!(
                    "the cache does not record whether {id} has the file {name}; the import assumes that it does not. \
                     Import online once to find out"
                );
            }
            return Ok(plan);
        };
        let cached = self.cached_plan(id, revision, wanted).await;
        // A commit never changes, so the hub is not needed for one that is completely cached.
        if Commit::parse(revision.as_str()).is_some()
            && let Ok(plan) = &cached
            && plan.undecided_files().is_empty()
            && let Ok(plan) = plan.clone().verified()
        {
            return Ok(plan);
        }
        let Ok(cached) = cached else {
            return self.listed_plan(client, id, revision, wanted).await;
        };
        match self.listed_in_time(client, id, revision).await {
            Ok(listed) => self.select(client, listed, revision, wanted).await,
            Err(error) if error.is_outage() => match cached.verified() {
                Ok(plan) => {
                    tracing::warn!("{error}; using the cached files of commit {}", plan.commit());
                    Ok(plan)
                }
                // The cached files are damaged, so only the hub can help.
                Err(_) => self.listed_plan(client, id, revision, wanted).await,
            },
            Err(error) => Err(error),
        }
    }

    fn repository(&self, id: &RepositoryId, commit: Commit) -> RepositoryAtCommit {
        let cache = RepositoryCache::new(&self.settings.cache, id, self.settings.links);
        RepositoryAtCommit { id: id.clone(), commit, cache }
    }

    /// Sends one request to the hub, with a timeout.
    async fn listed_in_time(
        &self,
        client: &HubClient,
        id: &RepositoryId,
        revision: &Revision,
    ) -> Result<(RepositoryAtCommit, Listing), HubError> {
        let client = client.without_retries();
        let timeout = self.settings.listing_timeout;
        let listed = tokio::time::timeout(timeout, self.listed(&client, id, revision)).await;
        listed.unwrap_or_else(|_| Err(client.no_answer_within(timeout, id)))
    }

    /// The commit of a revision, and its files.
    async fn listed(
        &self,
        client: &HubClient,
        id: &RepositoryId,
        revision: &Revision,
    ) -> Result<(RepositoryAtCommit, Listing), HubError> {
        let commit = listing::resolve(client, id, revision).await?;
        let files = listing::list(client, id, &commit).await?;
        Ok((self.repository(id, commit), files))
    }

    /// Plans with the listing of the hub.
    async fn listed_plan(
        &self,
        client: &HubClient,
        id: &RepositoryId,
        revision: &Revision,
        wanted: &Wanted<'_>,
    ) -> Result<DownloadPlan, HubError> {
        let listed = self.listed(client, id, revision).await?;
        self.select(client, listed, revision, wanted).await
    }

    async fn select(
        &self,
        client: &HubClient,
        (repository, listing): (RepositoryAtCommit, Listing),
        revision: &Revision,
        wanted: &Wanted<'_>,
    ) -> Result<DownloadPlan, HubError> {
        let contents = ListedContents { client, repository: &repository, listing: &listing };
        let selection = match wanted {
            Wanted::Model => select(&repository.id, &contents).await?,
            Wanted::File(path) if listing.contains_key(*path) => Selection::of_file(path),
            Wanted::File(path) => {
                return Err(HubError::FileNotFound {
                    id: repository.id,
                    path: (*path).to_owned(),
                    files: listing.into_keys().collect(),
                });
            }
        };
        let name = wanted.name(&repository.id, revision);
        let plan = DownloadPlan::new(repository, selection, revision.clone(), name);
        Ok(plan.with_listing(client.clone(), listing))
    }

    /// Plans with the cache alone. The bytes of the files are not checked yet.
    async fn cached_plan(
        &self,
        id: &RepositoryId,
        revision: &Revision,
        wanted: &Wanted<'_>,
    ) -> Result<DownloadPlan, HubError> {
        let name = wanted.name(id, revision);
        let not_cached = || HubError::NotCached {
            id: id.clone(),
            revision: revision.to_string(),
            cache: self.settings.cache.clone(),
            name: name.clone(),
        };
        let cache = RepositoryCache::new(&self.settings.cache, id, self.settings.links);
        let commit = cache.commit(revision).ok_or_else(not_cached)?;
        let snapshot = cache.snapshot(&commit);
        if !snapshot.is_dir() {
            return Err(not_cached());
        }
        let partly = |reason: String| HubError::PartlyCached {
            id: id.clone(),
            snapshot: snapshot.clone(),
            reason,
            name: name.clone(),
        };
        let selection = match wanted {
            Wanted::File(path) if snapshot.join(path).is_file() => Selection::of_file(path),
            Wanted::File(path) => return Err(partly(format!("{path} is missing"))),
            Wanted::Model => {
                let contents = CachedContents { snapshot: &snapshot, name: &name };
                let selected = select(id, &contents).await;
                let selection = selected.map_err(|error| match error {
                    HubError::NoConfig { .. } => partly("config.json is missing".into()),
                    HubError::NoWeights { .. } => {
                        partly("weights in a supported format are missing".into())
                    }
                    HubError::NoShard { shard, .. } => partly(format!("{shard} is missing")),
                    other => other,
                })?;
                if !selection.files.iter().any(|file| selection::is_vocabulary(file)) {
                    return Err(partly("a vocabulary is missing".into()));
                }
                // The listing that Python stored names files that are not in the snapshot.
                if let Some(listing) = cache.stored_listing(&commit)
                    && let Some(file) =
                        missing_file(id, &contents, &listing, &selection.files).await
                {
                    return Err(partly(format!("{file} is missing")));
                }
                selection
            }
        };
        let repository = RepositoryAtCommit { id: id.clone(), commit, cache };
        Ok(DownloadPlan::new(repository, selection, revision.clone(), name))
    }
}

/// Checks the bytes of the files that an import reads from a snapshot folder of a cache. Other folders are not checked, because nothing
/// records what they should contain.
///
/// # Errors
/// [`HubError::Damaged`] if a file does not have the hash that the cache records.
pub async fn verify_snapshot(folder: &Path) -> Result<(), HubError> {
    let snapshot = || {
        let origin = Origin::of_folder(folder)?;
        let folder = folder.canonicalize().ok()?;
        let cache = folder.ancestors().nth(3)?.to_owned();
        Some((
            cache,
            folder,
            origin.model_id.parse::<RepositoryId>().ok()?,
            Commit::parse(&origin.commit)?,
        ))
    };
    let Some((cache, folder, id, commit)) = snapshot() else { return Ok(()) };
    let name = format!("{id}@{commit}");
    let contents = CachedContents { snapshot: &folder, name: &name };
    // The import reports what is wrong with a repository.
    let Ok(Selection { files, .. }) = select(&id, &contents).await else { return Ok(()) };
    let cache = RepositoryCache::new(&cache, &id, true);
    let listing = cache.stored_listing(&commit).unwrap_or_default();
    // Links to other places than blobs are refused or followed by the import.
    let is_checked = |path: &Path| !path.is_symlink() || cache.is_link_to_blob(path);
    let is_damaged = |(file, path): &(&String, PathBuf)| {
        is_checked(path) && !cache.is_sound(path, listing.get(*file))
    };
    match files.iter().map(|file| (file, folder.join(file))).find(is_damaged) {
        Some((_, path)) => Err(HubError::Damaged { path, name }),
        None => Ok(()),
    }
}

/// A small file that the import needs according to a complete listing, and that the cache lacks. Other forms of the weights and of the
/// vocabulary are not needed.
async fn missing_file(
    id: &RepositoryId,
    cached: &CachedContents<'_>,
    listing: &Listing,
    selected: &[String],
) -> Option<String> {
    let contents = StoredContents { id, cached, paths: listing.keys().cloned().collect() };
    let needed = match select(id, &contents).await {
        Ok(selection) => selection.files,
        // A file that names others is missing.
        Err(HubError::NotCached { revision: path, .. }) => return Some(path),
        Err(_) => return None,
    };
    let is_optional = |path: &str| {
        selection::is_weights(path)
            || selection::is_vocabulary(path)
            || path.ends_with(".safetensors.index.json")
            || path.ends_with(".bin.index.json")
    };
    needed.into_iter().find(|path| !selected.contains(path) && !is_optional(path))
}

/// A stored listing of all files, with the contents of those that are cached.
struct StoredContents<'a> {
    id: &'a RepositoryId,
    cached: &'a CachedContents<'a>,
    paths: BTreeSet<String>,
}

impl selection::RepositoryContents for StoredContents<'_> {
    fn paths(&self) -> BTreeSet<String> {
        self.paths.clone()
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        if !self.cached.snapshot.join(path).is_file() {
            return Err(HubError::NotCached {
                id: self.id.clone(),
                revision: path.to_owned(),
                cache: self.cached.snapshot.to_owned(),
                name: self.cached.name.to_owned(),
            });
        }
        self.cached.read(path).await
    }
}
