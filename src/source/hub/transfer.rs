//! The download of one file into the cache. A blob gets its name after every byte has been checked.
//!
//! Large files are downloaded in ranges over several connections, because the hub's CDN limits the speed of each connection. The
//! ranges are written in order, so a partial file always consists of the first bytes of the file. The first unfinished range is written
//! as it arrives; the others wait in memory until it is complete.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;

use super::HubError;
use super::cache::RepositoryCache;
use super::client::{FileRequest, HubClient};
use super::partial::PartialFile;
use super::retry::RequestFailure;
use super::settings::host;
use crate::observer::RunningStage;

/// Maximum number of downloads of a file with the wrong hash.
const MAX_MISMATCHES: u32 = 3;

/// After how many failures the rest of a file is downloaded over one connection.
const MAX_RANGE_FAILURES: u32 = 4;

/// Downloads a file, unless another process has downloaded it into the cache in the meantime.
pub(super) async fn download(
    client: &HubClient,
    cache: &RepositoryCache,
    request: &FileRequest,
    stage: &RunningStage,
) -> Result<(), HubError> {
    let FileRequest { commit, path, file, .. } = request;
    let lock = cache.lock(&file.digest, path).await?;
    if cache.verified_file(commit, path, file).is_some() {
        stage.resume_at(file.size);
        return Ok(());
    }
    let open = {
        let (cache, file, is_reliable) = (cache.clone(), file.clone(), lock.is_reliable());
        move || PartialFile::open(&cache, &file.digest, file.size, is_reliable)
    };
    // The bytes of earlier runs are hashed, which takes seconds for gigabytes.
    let partial = tokio::task::spawn_blocking(open).await.map_err(|_| HubError::Stopped)??;
    stage.resume_at(partial.length());
    let ranges = &client.settings().ranges;
    let mut download = Download {
        client,
        request,
        stage,
        in_ranges: partial.missing() >= ranges.smallest_file,
        partial,
        sender: host(&client.settings().endpoint),
    };
    match download.run().await {
        Ok(()) => download.partial.finish(cache),
        Err(error @ HubError::Mismatch { .. }) => {
            download.partial.discard();
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// The state of a download.
struct Download<'a> {
    client: &'a HubClient,
    request: &'a FileRequest,
    stage: &'a RunningStage,
    partial: PartialFile,
    /// Whether to download in ranges.
    in_ranges: bool,
    /// The host that sent the latest bytes.
    sender: String,
}

impl Download<'_> {
    /// Downloads until the partial file is complete and valid.
    async fn run(&mut self) -> Result<(), HubError> {
        let mut retries = self.client.retries();
        let (mut mismatches, mut range_failures) = (0, 0);
        loop {
            if self.partial.missing() == 0 {
                if self.partial.is_valid() {
                    return Ok(());
                }
                mismatches += 1;
                self.restart()?;
                if mismatches == MAX_MISMATCHES {
                    let path = self.request.path.clone();
                    let host = self.sender.clone();
                    return Err(HubError::Mismatch { path, host, times: mismatches });
                }
                tracing::warn!("{} has the wrong hash; downloading it again", self.request.path);
            }
            let before = self.partial.length();
            let result = self.receive().await;
            if self.partial.length() > before {
                retries.reset();
            }
            if let Err(failure) = result {
                range_failures += 1;
                // The server may not support what the ranges need. A connection that breaks now and then is no reason to stop them.
                self.in_ranges &=
                    self.partial.length() > before && range_failures < MAX_RANGE_FAILURES;
                retries.wait_after(failure).await?;
            }
        }
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.partial.clear()?;
        self.stage.resume_at(0);
        Ok(())
    }

    fn unfit(&self, url: &Url, reason: String) -> RequestFailure {
        unfit(url, &self.request.path, reason)
    }

    /// Sends one request for the missing bytes, or one for each range of them.
    async fn receive(&mut self) -> Result<(), RequestFailure> {
        let offset = self.partial.length();
        let end = self.in_ranges.then(|| self.range_from(offset).1);
        let (response, url) = self.client.file(self.request, offset, end).await?;
        self.sender = host(&url);
        let size = self.request.file.size;
        let start = first_byte(&response, size).map_err(|reason| self.unfit(&url, reason))?;
        if start == 0 && offset > 0 {
            tracing::debug!("{} does not support ranges; starting again", host(&url));
            self.restart()?;
        } else if start != offset {
            let reason = format!("the answer starts at byte {start} instead of {offset}");
            return Err(self.unfit(&url, reason));
        }
        match end {
            Some(end) if response.status() == StatusCode::PARTIAL_CONTENT => {
                self.append_ranges(response, url, end).await
            }
            _ => self.append_stream(response, url).await,
        }
    }

    /// Appends an answer that holds all missing bytes.
    async fn append_stream(
        &mut self,
        mut response: Response,
        url: Url,
    ) -> Result<(), RequestFailure> {
        if content_length(&response).is_some_and(|length| length != self.partial.missing()) {
            return Err(self.unfit(&url, "the answer has the wrong size".into()));
        }
        while let Some(chunk) = self.client.chunk(&mut response, &url, &self.request.id).await? {
            if chunk.len() as u64 > self.partial.missing() {
                self.restart()?;
                return Err(self.unfit(&url, "the answer is longer than the file".into()));
            }
            self.partial.append(&chunk)?;
            self.stage.advance(chunk.len() as u64);
        }
        if self.partial.missing() > 0 {
            let (length, size) = (self.partial.length(), self.request.file.size);
            return Err(self.unfit(&url, format!("the answer ends after {length} of {size} bytes")));
        }
        Ok(())
    }

    /// Appends the answer to the first range, and then the other ranges, several of which are requested at the same time. They are
    /// requested at the address to which the hub has redirected the first one.
    async fn append_ranges(
        &mut self,
        first: Response,
        url: Url,
        end: u64,
    ) -> Result<(), RequestFailure> {
        let mut queue = VecDeque::new();
        let start = self.partial.length();
        queue.push_back(self.request_range(Some(first), &url, (start, end)));
        let mut next = end + 1;
        loop {
            while next < self.request.file.size
                && queue.len() < self.client.settings().ranges.connections
            {
                let range = self.range_from(next);
                queue.push_back(self.request_range(None, &url, range));
                next = range.1 + 1;
            }
            let Some(mut range) = queue.pop_front() else { return Ok(()) };
            while let Some(chunk) = range.chunk().await {
                self.partial.append(&chunk)?;
                self.stage.advance(chunk.len() as u64);
            }
            range.finish().await?;
        }
    }

    /// The first and the last byte of the range that starts at `offset`.
    fn range_from(&self, offset: u64) -> (u64, u64) {
        let length = self.client.settings().ranges.length;
        let end = offset.saturating_add(length).min(self.request.file.size);
        (offset, end - 1)
    }

    fn request_range(
        &self,
        response: Option<Response>,
        url: &Url,
        (start, end): (u64, u64),
    ) -> RangeTask {
        let (client, request, url) = (self.client.clone(), self.request.clone(), url.clone());
        let (sender, chunks) = mpsc::unbounded_channel();
        let task = async move {
            let _permit = client.range_permit().await;
            let mut response = match response {
                Some(response) => response,
                None => client.range(&url, &request, start, end).await?,
            };
            let unfit = |reason: String| unfit(&url, &request.path, reason);
            let first = first_byte(&response, request.file.size).map_err(unfit)?;
            if response.status() != StatusCode::PARTIAL_CONTENT || first != start {
                return Err(unfit("the answer is another range".into()));
            }
            let (length, mut received) = (end - start + 1, 0);
            while let Some(chunk) = client.chunk(&mut response, &url, &request.id).await? {
                received += chunk.len() as u64;
                if received > length {
                    break;
                }
                // The receiver is gone if the download has failed, which stops this task too.
                let _ = sender.send(chunk);
            }
            if received == length {
                return Ok(());
            }
            Err(unfit(format!("the answer has {received} instead of {length} bytes")))
        };
        RangeTask { chunks, task: tokio::spawn(task) }
    }
}

/// A range that is being received. Dropping it stops the transfer.
struct RangeTask {
    /// The received bytes, at most those of the range.
    chunks: UnboundedReceiver<Bytes>,
    task: JoinHandle<Result<(), RequestFailure>>,
}

impl RangeTask {
    /// The next bytes. `None` at the end of the range and after a failure.
    async fn chunk(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }

    /// Whether the whole range has been received.
    async fn finish(mut self) -> Result<(), RequestFailure> {
        (&mut self.task).await.map_err(|_| HubError::Stopped)?
    }
}

impl Drop for RangeTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn unfit(url: &Url, path: &str, reason: String) -> RequestFailure {
    RequestFailure::transient(HubError::Unavailable {
        host: host(url),
        what: path.to_owned(),
        reason,
    })
}

/// The position in the file of the first byte of an answer.
fn first_byte(response: &Response, size: u64) -> Result<u64, String> {
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
            parsed.ok_or_else(|| "the header Content-Range does not match the file".to_owned())
        }
        status => Err(format!("the answer has status {status}")),
    }
}

fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
