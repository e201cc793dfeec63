//! A preview of a model: its small files, and the headers of its weights.

use std::fs;
use std::path::PathBuf;

use super::HubError;
use super::client::{FileRequest, HubClient};
use super::contents::RepositoryAtCommit;
use super::download_plan::{DownloadPlan, add_to_snapshot, download_files, listed, missing_files};
use super::listing::{Listing, RepositoryFile};
use super::selection::is_weights;
use crate::observer::Progress;
use crate::source::{Origin, safetensors_header_length};

/// The model card.
const CARD: &str = "README.md";

/// The small files of a model in the cache, and a description of its weights.
#[derive(Debug)]
#[non_exhaustive]
pub struct Preview {
    /// The folder, laid out like a clone of the repository. It normally lacks the weights.
    pub folder: PathBuf,
    /// The repository and the commit.
    pub origin: Origin,
    /// The weights of the transformer. `None` if all weights are in the folder.
    pub weights: Option<Vec<RemoteWeights>>,
}

/// A file of weights that was not downloaded.
#[derive(Debug)]
#[non_exhaustive]
pub struct RemoteWeights {
    /// The path in the repository.
    pub path: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// The first bytes of the file up to the end of its header, for safetensors files.
    pub header: Option<Vec<u8>>,
}

impl DownloadPlan {
    /// Downloads the small files, and reads the headers of the weights.
    ///
    /// # Errors
    /// If a file cannot be downloaded.
    pub async fn preview(self) -> Result<Preview, HubError> {
        let (origin, folder) = (self.origin(), self.snapshot_folder());
        let Self { repository, files, listing, .. } = self;
        let Some((client, listing)) = listing else {
            return Ok(Preview { folder, origin, weights: None });
        };
        let (weights, small): (Vec<String>, Vec<String>) =
            files.into_iter().partition(|path| is_weights(path));
        download_quietly(&client, &repository, &listed(&small, &listing)).await?;
        add_card(&client, &repository, &listing).await;
        let weights = listed(&weights, &listing);
        let is_cached = |(path, file): &(String, RepositoryFile)| {
            fs::metadata(folder.join(path)).is_ok_and(|data| data.len() == file.size)
        };
        if weights.iter().all(is_cached) {
            return Ok(Preview { folder, origin, weights: None });
        }
        // The transformer's weights come first. Those of other modules are in folders of their own, and small.
        let folder_of = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let transformer = weights.first().and_then(|(path, _)| folder_of(path));
        let mut remote = Vec::new();
        for (path, file) in weights.into_iter().filter(|(path, _)| folder_of(path) == transformer) {
            let header = if path.ends_with(".safetensors") {
                Some(header(&client, &repository.request(&path, &file)).await?)
            } else {
                None
            };
            remote.push(RemoteWeights { path, size: file.size, header });
        }
        Ok(Preview { folder, origin, weights: Some(remote) })
    }
}

/// Adds the model card to the snapshot, if it is available. It only adds to the description, and the cache may be complete and read-only.
pub(super) async fn add_card(
    client: &HubClient,
    repository: &RepositoryAtCommit,
    listing: &Listing,
) {
    /// Longer model cards are not downloaded.
    const MAX_CARD: u64 = 1 << 20;
    if listing.get(CARD).is_none_or(|card| card.size > MAX_CARD) {
        return;
    }
    let card = listed(&[CARD.to_owned()], listing);
    if let Err(error) = download_quietly(client, repository, &card).await {
        tracing::debug!("the model card is not available: {error}");
    }
}

/// Adds files to the snapshot, and downloads those that the cache lacks.
async fn download_quietly(
    client: &HubClient,
    repository: &RepositoryAtCommit,
    needed: &[(String, RepositoryFile)],
) -> Result<(), HubError> {
    let missing = missing_files(repository, needed).await?;
    if !missing.is_empty() {
        repository.cache.create_folders()?;
        download_files(client, repository, &missing, &Progress::quiet()).await?;
    }
    add_to_snapshot(repository, needed, &missing)
}

/// The header of a safetensors file with the eight bytes of its length. If the length is not valid, the first bytes of the file; the
/// checkpoint reader reports what is wrong.
async fn header(client: &HubClient, request: &FileRequest) -> Result<Vec<u8>, HubError> {
    /// The headers of base models have 20 to 60 kB.
    const FIRST: u64 = 128 << 10;
    let mut bytes = client.beginning(request, FIRST).await?;
    let Ok(length) = safetensors_header_length(&bytes) else { return Ok(bytes) };
    if length > FIRST {
        bytes = client.beginning(request, length).await?;
    }
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(bytes)
}
