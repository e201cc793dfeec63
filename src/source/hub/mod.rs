//! Models from the Hugging Face hub, by way of the cache that its tools share.
//!
//! [`Hub::plan`] finds out what a repository holds and what of it is needed, [`Plan::fetch`] brings it into the cache. Every byte that
//! gets a name there has been compared with the hash that the hub lists, and no name that the hub sends becomes a path unchecked.

mod cache;
mod client;
mod digest;
mod error;
mod id;
mod listing;
mod retry;
mod selection;
mod settings;
mod transfer;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::cache::RepositoryCache;
use self::client::{Client, Wanted};
pub use self::error::HubError;
pub use self::id::{Commit, RepositoryId, Revision, parse_name};
use self::listing::{Entry, Listing};
use self::selection::{Contents, MODULES, Selected, TOKENIZER_CONFIG, select};
pub use self::settings::{HubOptions, HubSettings, Token};
use super::{Origin, safetensors_header_length};
use crate::byte_count::ByteCount;
use crate::observer::{Progress, RunningStage, Stage};

/// Files that come in at once.
const AT_ONCE: usize = 4;

/// What decides how a model is read, by being there or not: a cache that Python filled may know neither.
const DECISIVE: [&str; 2] = [MODULES, TOKENIZER_CONFIG];

/// A hub and its cache.
#[derive(Debug)]
pub struct Hub {
    settings: Arc<HubSettings>,
    /// None offline.
    client: Option<Client>,
}

/// What is needed of a repository, and where it is.
#[derive(Debug)]
pub struct Plan {
    repository: Repository,
    config: Value,
    files: Vec<String>,
    /// What the hub says of the files; absent where the cache alone was asked.
    listing: Option<(Client, Listing)>,
    revision: Revision,
}

/// A model's files in the cache.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder, laid out like a clone.
    pub folder: PathBuf,
    /// The files in it that the job needs. There may be others.
    pub files: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
}

/// A model's small files in the cache, with a look at its weights.
#[derive(Debug)]
pub struct Glimpse {
    /// The folder, laid out like a clone, mostly without the weights.
    pub folder: PathBuf,
    /// Where it all comes from.
    pub origin: Origin,
    /// The weights, but for those of modules; none if all are in the folder.
    pub weights: Option<Vec<SeenWeights>>,
}

/// A file of weights that was not fetched.
#[derive(Debug)]
pub struct SeenWeights {
    /// Its path in the repository.
    pub path: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Its first bytes with the whole header, for the format that has one.
    pub header: Option<Vec<u8>>,
}

/// A repository at a commit.
#[derive(Debug, Clone)]
struct Repository {
    id: RepositoryId,
    commit: Commit,
    cache: RepositoryCache,
}

impl Hub {
    /// A hub. Nothing is asked yet.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let settings = Arc::new(settings);
        let client =
            if settings.offline { None } else { Some(Client::new(Arc::clone(&settings))?) };
        Ok(Self { settings, client })
    }

    /// Finds out what is needed of a repository. Small files that name others are fetched for it.
    ///
    /// # Errors
    /// When the hub does not give it out, or it holds nothing that can be imported.
    pub async fn plan(&self, id: &RepositoryId, revision: &Revision) -> Result<Plan, HubError> {
        let Some(client) = &self.client else {
            let plan = self.cached(id, revision).await?;
            for name in plan.undecided() {
                tracing::warn!(
                    "the cache does not tell whether {id} has a {name}; it is taken to have none. \
                     Without --offline the hub is asked"
                );
            }
            return Ok(plan);
        };
        // A commit never changes, so that there is nothing to ask where all of it is there.
        if Commit::parse(revision.as_str()).is_some()
            && let Ok(plan) = self.cached(id, revision).await
            && plan.undecided().is_empty()
        {
            return Ok(plan);
        }
        match self.listed(client, id, revision).await {
            Err(error) if error.is_outage() => {
                let Ok(plan) = self.cached(id, revision).await else { return Err(error) };
                let message = error.to_string();
                tracing::warn!(
                    "{}; using what the cache has, commit {}",
                    message.lines().next().unwrap_or_default(),
                    plan.repository.commit
                );
                Ok(plan)
            }
            result => result,
        }
    }

    fn repository(&self, id: &RepositoryId, commit: Commit) -> Repository {
        let cache = RepositoryCache::new(&self.settings.cache, id);
        Repository { id: id.clone(), commit, cache }
    }

    /// Plans by what the hub says.
    async fn listed(
        &self,
        client: &Client,
        id: &RepositoryId,
        revision: &Revision,
    ) -> Result<Plan, HubError> {
        let commit = listing::resolve(client, id, revision).await?;
        let repository = self.repository(id, commit);
        let listing = listing::list(client, id, &repository.commit).await?;
        let contents = Listed { client, repository: &repository, listing: &listing };
        let Selected { files, config } = select(id, &contents).await?;
        let listing = Some((client.clone(), listing));
        Ok(Plan { repository, config, files, listing, revision: revision.clone() })
    }

    /// Plans by the cache alone.
    async fn cached(&self, id: &RepositoryId, revision: &Revision) -> Result<Plan, HubError> {
        let not_cached = || HubError::NotCached {
            id: id.clone(),
            revision: revision.to_string(),
            cache: self.settings.cache.clone(),
        };
        let commit = RepositoryCache::new(&self.settings.cache, id).commit(revision);
        let repository = self.repository(id, commit.ok_or_else(not_cached)?);
        let snapshot = repository.cache.snapshot(&repository.commit);
        if !snapshot.is_dir() {
            return Err(not_cached());
        }
        let partly = |reason: &str| HubError::PartlyCached {
            id: id.clone(),
            snapshot: snapshot.clone(),
            reason: reason.to_owned(),
        };
        let Selected { files, config } =
            select(id, &Cached(&snapshot)).await.map_err(|error| match error {
                HubError::NoConfig { .. } => partly("there is no config.json"),
                HubError::NoWeights { .. } => partly("there are no weights that can be read"),
                HubError::NoShard { shard, .. } => {
                    partly(&format!("the part {shard} is not there"))
                }
                other => other,
            })?;
        if !selection::has_vocabulary(&files) {
            return Err(partly("there is no vocabulary"));
        }
        for file in &files {
            let path = snapshot.join(file);
            if !repository.cache.is_sound(&path) {
                return Err(HubError::Damaged { path });
            }
        }
        Ok(Plan { repository, config, files, listing: None, revision: revision.clone() })
    }
}

impl Plan {
    /// The model's `config.json`, so that one that cannot be used is refused before its weights are fetched.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Where the files come from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let Repository { id, commit, .. } = &self.repository;
        Origin { model_id: id.to_string(), commit: commit.to_string() }
    }

    /// The names of [`DECISIVE`] that the cache says nothing of.
    fn undecided(&self) -> Vec<&'static str> {
        let Repository { commit, cache, .. } = &self.repository;
        let known = |name: &str| {
            self.files.iter().any(|file| file == name) || cache.is_absent(commit, name)
        };
        DECISIVE.into_iter().filter(|name| !known(name)).collect()
    }

    /// Brings all files into the cache. Those that are there with the right bytes are not fetched.
    ///
    /// # Errors
    /// When one cannot be had. What has been fetched is kept, and the next attempt goes on from there.
    pub async fn fetch(self, progress: &Progress) -> Result<Snapshot, HubError> {
        let origin = self.origin();
        let Self { repository, files, listing, revision, .. } = self;
        let folder = repository.cache.snapshot(&repository.commit);
        if let Some((client, listing)) = listing {
            let wanted: Vec<(String, Entry)> = files
                .iter()
                .filter_map(|path| Some((path.clone(), listing.get(path)?.clone())))
                .collect();
            let missing = missing(&repository, &wanted).await?;
            if missing.is_empty() {
                tracing::info!("{origin}: all {} files are in the cache", files.len());
            } else {
                announce(&repository, &missing, (files.len(), listing.len()))?;
                // Ctrl-C simply ends the process: what is written so far is what the next run goes on from.
                transfer_all(&client, &repository, missing, progress).await?;
            }
            let Repository { commit, cache, .. } = &repository;
            // The weights are last, so that a snapshot that has them is whole.
            for (path, entry) in &wanted {
                cache.link(commit, path, entry)?;
            }
            for name in DECISIVE.into_iter().filter(|name| !listing.contains_key(*name)) {
                cache.remember_absent(commit, name);
            }
            if revision.as_str() != commit.as_str() {
                cache.remember(&revision, commit);
            }
        } else {
            tracing::info!("{origin}: taken from the cache {}", folder.display());
        }
        Ok(Snapshot { folder, files, origin })
    }

    /// Brings the small files into the cache and reads of the weights no more than the headers, so that it takes a moment.
    ///
    /// # Errors
    /// When a file cannot be had, or a header is not valid.
    pub async fn glimpse(self) -> Result<Glimpse, HubError> {
        /// Longer cards are not read.
        const MAX_CARD: u64 = 1 << 20;
        let Self { repository, files, listing, .. } = self;
        let Repository { id, commit, cache } = &repository;
        let origin = Origin { model_id: id.to_string(), commit: commit.to_string() };
        let folder = cache.snapshot(commit);
        let Some((client, listing)) = listing else {
            return Ok(Glimpse { folder, origin, weights: None });
        };
        let entry = |path: &String| Some((path.clone(), listing.get(path)?.clone()));
        let (weights, mut small): (Vec<String>, Vec<String>) =
            files.into_iter().partition(|path| selection::is_weights(path));
        small.extend(
            listing.get(CARD).filter(|card| card.size <= MAX_CARD).map(|_| CARD.to_owned()),
        );
        let wanted: Vec<(String, Entry)> = small.iter().filter_map(entry).collect();
        let missing = missing(&repository, &wanted).await?;
        if !missing.is_empty() {
            cache.prepare()?;
            transfer_all(&client, &repository, missing, &Progress::quiet()).await?;
        }
        for (path, entry) in &wanted {
            cache.link(commit, path, entry)?;
        }
        let weights: Vec<(String, Entry)> = weights.iter().filter_map(entry).collect();
        let is_there = |(path, entry): &(String, Entry)| {
            fs::metadata(folder.join(path)).is_ok_and(|data| data.len() == entry.size)
        };
        if weights.iter().all(is_there) {
            return Ok(Glimpse { folder, origin, weights: None });
        }
        // Those of modules are in folders of their own, and few.
        let transformer = weights.first().and_then(|(path, _)| path.rsplit_once('/'));
        let transformer = transformer.map(|(folder, _)| folder.to_owned());
        let mut seen = Vec::new();
        for (path, Entry { size, digest }) in weights {
            if path.rsplit_once('/').map(|(folder, _)| folder) != transformer.as_deref() {
                continue;
            }
            let header = if path.ends_with(".safetensors") {
                let wanted = Wanted { id, commit, path: &path, size, digest: &digest };
                Some(header(&client, &wanted).await?)
            } else {
                None
            };
            seen.push(SeenWeights { path, size, header });
        }
        Ok(Glimpse { folder, origin, weights: Some(seen) })
    }
}

/// The model card.
const CARD: &str = "README.md";

/// The header of a safetensors file, eight bytes of length before it. Where the length is none, as far as was read: whoever reads it
/// will say what is wrong.
async fn header(client: &Client, wanted: &Wanted<'_>) -> Result<Vec<u8>, HubError> {
    /// Those of base models have some 20 to 60 kB.
    const FIRST: u64 = 128 << 10;
    let mut bytes = client.beginning(wanted, FIRST).await?;
    let Ok(length) = safetensors_header_length(&bytes) else { return Ok(bytes) };
    if length > FIRST {
        bytes = client.beginning(wanted, length).await?;
    }
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(bytes)
}

impl Snapshot {
    /// Writes the files to a folder of their own, without links, whole or not at all.
    ///
    /// # Errors
    /// When the folder is there and not empty, or cannot be written.
    pub fn copy_to(&self, output: &Path) -> Result<(), HubError> {
        let io = |what: &'static str, path: &Path| HubError::io(what, path.to_owned());
        let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(io("make the folder", parent))?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let folder = builder
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempdir_in(parent)
            .map_err(io("make a folder in", parent))?;
        for file in &self.files {
            let (from, to) = (self.folder.join(file), folder.path().join(file));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(io("make the folder", parent))?;
            }
            fs::copy(&from, &to)
                .and_then(|_| fs::File::open(&to)?.sync_all())
                .map_err(io("write", &to))?;
        }
        // Over an empty folder too, and over no other.
        fs::rename(folder.path(), output).map_err(io("write", output))?;
        let _ = folder.keep();
        Ok(())
    }
}

/// The files that are not in the cache, or not with their bytes.
async fn missing(
    repository: &Repository,
    wanted: &[(String, Entry)],
) -> Result<Vec<(String, Entry)>, HubError> {
    let (repository, wanted) = (repository.clone(), wanted.to_vec());
    let checked = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        let has = |path: &str, entry: &Entry| repository.cache.has(&repository.commit, path, entry);
        wanted
            .into_iter()
            .filter(|(path, entry)| !has(path, entry))
            // Files of the same content are one blob.
            .filter(|(_, entry)| seen.insert(entry.digest.as_str().to_owned()))
            .collect()
    });
    checked.await.map_err(|_| HubError::Stopped)
}

/// Says what will be fetched, and that there is room for it.
fn announce(
    repository: &Repository,
    missing: &[(String, Entry)],
    (needed, all): (usize, usize),
) -> Result<(), HubError> {
    let blobs = repository.cache.prepare()?;
    let begun = |entry: &Entry| {
        let path = repository.cache.incomplete(&entry.digest);
        fs::metadata(path).map_or(0, |data| data.len()).min(entry.size)
    };
    let sum = |of: &dyn Fn(&Entry) -> u64| {
        missing.iter().fold(0_u64, |sum, (_, entry)| sum.saturating_add(of(entry)))
    };
    let rest = sum(&|entry| entry.size - begun(entry));
    let done = match sum(&begun) {
        0 => String::new(),
        done => format!(" ({} are there from an earlier run)", ByteCount(done)),
    };
    let names: Vec<String> =
        missing.iter().map(|(path, entry)| format!("{path} ({})", ByteCount(entry.size))).collect();
    tracing::info!(
        "fetching {} from {} at commit {}: {}{done}; of its {all} files, {needed} are needed",
        ByteCount(rest),
        repository.id,
        repository.commit,
        names.join(", ")
    );
    match fs4::available_space(&blobs) {
        Ok(free) if free < rest => Err(HubError::Space { needed: rest, free, path: blobs }),
        // Some file systems do not tell.
        _ => Ok(()),
    }
}

async fn transfer_all(
    client: &Client,
    repository: &Repository,
    missing: Vec<(String, Entry)>,
    progress: &Progress,
) -> Result<(), HubError> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (path, entry) in missing {
        let (client, repository, progress) = (client.clone(), repository.clone(), progress.clone());
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            let _place = places.acquire().await;
            let stage = Stage::DownloadFile(path.as_str().into());
            let stage = progress.start_bytes(stage, entry.size);
            transfer_one(&client, &repository, &path, &entry, &stage).await?;
            stage.finish();
            Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        // The others end with the set; what they have written stays.
        result.map_err(|_| HubError::Stopped)??;
    }
    Ok(())
}

async fn transfer_one(
    client: &Client,
    repository: &Repository,
    path: &str,
    entry: &Entry,
    stage: &RunningStage,
) -> Result<(), HubError> {
    let Repository { id, commit, cache } = repository;
    let wanted = Wanted { id, commit, path, size: entry.size, digest: &entry.digest };
    transfer::fetch(client, cache, &wanted, stage).await
}

/// A repository as the hub lists it.
struct Listed<'a> {
    client: &'a Client,
    repository: &'a Repository,
    listing: &'a Listing,
}

/// Larger ones of those that name others are no such files.
const MAX_SMALL: u64 = 64 << 20;

impl Contents for Listed<'_> {
    fn names(&self) -> BTreeSet<String> {
        self.listing.keys().cloned().collect()
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        let Repository { id, commit, cache } = self.repository;
        let invalid = |reason: &str| HubError::Json {
            id: id.clone(),
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let entry = self.listing.get(path).ok_or_else(|| invalid("it is not there"))?;
        if entry.size > MAX_SMALL {
            return Err(invalid("it is far too large"));
        }
        let pointer = cache.snapshot(commit).join(path);
        let blob = cache.blob(&entry.digest);
        if !cache.has(commit, path, entry) {
            cache.prepare()?;
            let stage = Progress::quiet().start(Stage::DownloadFile(path.into()));
            transfer_one(self.client, self.repository, path, entry, &stage).await?;
        }
        let path = if blob.is_file() { blob } else { pointer };
        fs::read(&path).map_err(HubError::io("read", &path))
    }
}

/// A snapshot as it lies in the cache.
struct Cached<'a>(&'a Path);

impl Contents for Cached<'_> {
    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        collect(self.0, "", 0, &mut names);
        names
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        let path = self.0.join(path);
        let size = fs::metadata(&path).map_err(HubError::io("read", &path))?.len();
        if size > MAX_SMALL {
            return Err(HubError::Damaged { path });
        }
        fs::read(&path).map_err(HubError::io("read", &path))
    }
}

/// The files below a folder. Links to folders are none of the cache's.
fn collect(folder: &Path, prefix: &str, depth: usize, names: &mut BTreeSet<String>) {
    const DEEPEST: usize = 8;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth < DEEPEST {
            collect(&entry.path(), &format!("{name}/"), depth + 1, names);
        } else if entry.path().is_file() {
            names.insert(name);
        }
    }
}
