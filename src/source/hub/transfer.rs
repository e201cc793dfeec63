//! One file's way into the cache: from where the last attempt stopped, and not under its name before every byte is checked.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{Response, StatusCode};

use super::HubError;
use super::cache::RepositoryCache;
use super::client::{Client, Wanted};
use super::digest::Hasher;
use super::listing::Entry;
use super::retry::Failure;
use super::settings::host;
use crate::observer::RunningStage;

/// How often a file is fetched whose hash turns out wrong.
const MISMATCHES: u32 = 3;

/// A file that is coming in.
struct Incomplete {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// Bytes that are there, which are those that the hasher has seen.
    length: u64,
}

/// Fetches a file, unless its blob is there by now.
pub(super) async fn fetch(
    client: &Client,
    cache: &RepositoryCache,
    wanted: &Wanted<'_>,
    stage: &RunningStage,
) -> Result<(), HubError> {
    let blob = cache.blob(wanted.digest);
    let _lock = cache.lock(wanted.digest, wanted.path).await?;
    let entry = Entry { size: wanted.size, digest: wanted.digest.clone() };
    if cache.has(wanted.commit, wanted.path, &entry) {
        return Ok(());
    }
    let path = cache.incomplete(wanted.digest);
    let (hasher, size) = (wanted.digest.hasher(wanted.size), wanted.size);
    // Gigabytes may be there to be hashed.
    let opened = tokio::task::spawn_blocking(move || Incomplete::open(path, hasher, size)).await;
    let mut incomplete = opened.map_err(|_| HubError::Stopped)??;
    stage.resume_at(incomplete.length);
    let mut patience = client.patience();
    let mut sender = host(&client.settings().endpoint);
    let mut mismatches = 0;
    loop {
        if incomplete.length == wanted.size {
            if incomplete.hasher.clone().finish() == wanted.digest.as_str() {
                return incomplete.finish(&blob);
            }
            mismatches += 1;
            incomplete.restart(wanted)?;
            stage.resume_at(0);
            if mismatches == MISMATCHES {
                incomplete.discard();
                let path = wanted.path.to_owned();
                return Err(HubError::Mismatch { path, host: sender, times: mismatches });
            }
            if mismatches > 1 || wanted.size > 0 {
                tracing::warn!("what came for {} is not the file; fetching it again", wanted.path);
            }
        }
        let before = incomplete.length;
        let result = incomplete.append(client, wanted, stage, &mut sender).await;
        if incomplete.length > before {
            patience.restore();
        }
        if let Err(failure) = result {
            patience.after(failure).await?;
        }
    }
}

impl Incomplete {
    /// Opens what an earlier run has left, or begins.
    fn open(path: PathBuf, mut hasher: Hasher, size: u64) -> Result<Self, HubError> {
        let error = || HubError::io("write", &path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(error())?;
        let mut length = file.metadata().map_err(error())?.len();
        if length > size {
            file.set_len(0).map_err(error())?;
            length = 0;
        }
        hasher.read(&mut file, length).map_err(error())?;
        file.seek(SeekFrom::Start(length)).map_err(error())?;
        Ok(Self { file, hasher, length, path })
    }

    /// Throws away what is there.
    fn restart(&mut self, wanted: &Wanted<'_>) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubError::io("write", &self.path))?;
        self.hasher = wanted.digest.hasher(wanted.size);
        self.length = 0;
        Ok(())
    }

    /// Asks for the rest and writes what comes, each piece at once: a process that is killed loses none that it has written.
    async fn append(
        &mut self,
        client: &Client,
        wanted: &Wanted<'_>,
        stage: &RunningStage,
        sender: &mut String,
    ) -> Result<(), Failure> {
        let (mut response, url) = client.file(wanted, self.length).await?;
        *sender = host(&url);
        let unfit = |reason: String| {
            Failure::again(HubError::Unavailable {
                host: host(&url),
                what: wanted.path.to_owned(),
                reason,
            })
        };
        let from = start(&response, wanted.size).map_err(unfit)?;
        if from == 0 && self.length > 0 {
            tracing::debug!("{} does not resume; beginning anew", host(&url));
            self.restart(wanted)?;
            stage.resume_at(0);
        } else if from != self.length {
            return Err(unfit(format!("it sends from byte {from}, not from {}", self.length)));
        }
        let expected = wanted.size - self.length;
        if content_length(&response).is_some_and(|length| length != expected) {
            return Err(unfit("it sends something else, of another size".into()));
        }
        while let Some(chunk) =
            response.chunk().await.map_err(|error| client.broken(&url, wanted.id, error))?
        {
            if chunk.len() as u64 > wanted.size - self.length {
                // Whatever it is, it is not the file.
                self.restart(wanted)?;
                stage.resume_at(0);
                return Err(unfit("it sends more than the file has".into()));
            }
            let write = self.file.write_all(&chunk);
            if write.is_err() {
                // Of a piece that was written in part, the hasher knows nothing.
                let _ = self.file.set_len(self.length);
            }
            write.map_err(HubError::io("write", &self.path))?;
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            stage.advance(chunk.len() as u64);
        }
        if self.length < wanted.size {
            return Err(unfit(format!("it ends after {} of {} bytes", self.length, wanted.size)));
        }
        Ok(())
    }

    /// Gives the file its name.
    fn finish(self, blob: &Path) -> Result<(), HubError> {
        fs::rename(&self.path, blob).map_err(HubError::io("write", blob))
    }

    fn discard(self) {
        // It is empty; the next run would not mind it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The byte that an answer begins with.
fn start(response: &Response, size: u64) -> Result<u64, String> {
    match response.status() {
        StatusCode::OK => Ok(0),
        StatusCode::PARTIAL_CONTENT => {
            let header =
                response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let range = header.and_then(|value| value.trim().strip_prefix("bytes "));
            let parsed = range.and_then(|range| {
                let (range, total) = range.split_once('/')?;
                let total: u64 = if total == "*" { size } else { total.parse().ok()? };
                let (first, _) = range.split_once('-')?;
                (total == size).then_some(first.parse().ok()?)
            });
            parsed.ok_or_else(|| "its Content-Range does not fit the file".to_owned())
        }
        status => Err(format!("it answers {status}")),
    }
}

fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
