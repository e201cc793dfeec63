//! [`Upload`]: sends the configuration, then vocabulary and parts at the same time. The last part is sent alone, after all others
//! (contract 4.2).

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::task::{JoinSet, spawn_blocking};

use super::attempts::{Attempts, already_exists, is_pushback};
use super::journal::{Item, Journal, Mark};
use super::payload::{Part, gzip};
use super::window::Window;
use super::{Client, ClientError, Interruption};
use crate::bundle::Bundle;
use crate::observer::{Progress, RunningStage, Stage};
use crate::retry::RetryPolicy;

/// Why an upload ended early.
#[derive(Debug)]
pub(super) enum UploadFailure {
    /// A part is larger than the server, or a proxy in front of it, accepts.
    TooLarge(ClientError),
    /// Something is stored that this import never sent. It belongs to an earlier model with this id (contract 6.3).
    Leftover,
    /// Another import created a model with this id first.
    Overtaken,
    /// The model was not created: every attempt was rejected, or was not sent.
    NotCreated(ClientError),
    /// The model of this import was deleted or replaced.
    Lost,
    /// Another reason.
    Stopped(ClientError),
}

/// What to upload, and the settings.
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) bundle: &'a Bundle,
    pub(super) configuration: &'a Map<String, Value>,
    /// The request that stores the vocabulary, as JSON; none for a model without a vocabulary.
    pub(super) vocabulary: Option<&'a Bytes>,
    pub(super) concurrency: usize,
    pub(super) retry: RetryPolicy,
    pub(super) refresh_interval: Duration,
    pub(super) interruption: &'a Interruption,
    pub(super) progress: &'a Progress,
}

/// The response to a request that stores a part or the vocabulary.
struct Response {
    item: Item,
    /// Index of the request, from 0.
    request: u64,
    /// Time from the start of the request to its response.
    time: Duration,
    attempts: Attempts,
    answer: Result<(), ClientError>,
}

impl Upload<'_> {
    /// Stores everything that the journal does not record as stored. Then the server confirms that the definition is complete.
    pub(super) async fn run(&self, journal: &mut Journal) -> Result<(), UploadFailure> {
        self.progress.run_async(Stage::CreateModel, self.create(journal)).await?;
        let length = self.bundle.artifact.bytes.len();
        let uploading = self.progress.start_bytes(Stage::Upload, length as u64);
        let mut missing = journal.missing();
        let present: usize =
            (0..journal.header.parts()).map(|part| self.range(journal, part).len()).sum::<usize>()
                - missing.iter().map(|part| self.range(journal, *part).len()).sum::<usize>();
        uploading.resume_at(present as u64);
        let last = journal.header.parts().saturating_sub(1);
        let last = missing.pop_if(|part| *part == last);
        let vocabulary = self.vocabulary.map(|_| Item::Vocabulary);
        let vocabulary = vocabulary.filter(|item| journal.mark(*item) != Mark::Stored);
        let items = vocabulary.into_iter().chain(missing.into_iter().map(Item::Part)).collect();
        self.store(items, journal, &uploading).await?;
        self.check_files()?;
        // Requests identify the model only by its id. If the model was replaced, our parts would become parts of the new model.
        if !self.is_ours(journal).await.map_err(UploadFailure::Stopped)? {
            return Err(UploadFailure::Lost);
        }
        self.store(last.map(Item::Part).into_iter().collect(), journal, &uploading).await?;
        // The last part is read after the check above.
        self.check_files()?;
        journal.sync();
        uploading.finish();
        self.progress.run_async(Stage::ConfirmUpload, self.confirm()).await
    }

    fn range(&self, journal: &Journal, part: usize) -> Range<usize> {
        let (size, length) = (journal.header.part_size, self.bundle.artifact.bytes.len());
        let at = |part: usize| part.saturating_mul(size).min(length);
        at(part)..at(part.saturating_add(1))
    }

    async fn create(&self, journal: &mut Journal) -> Result<(), UploadFailure> {
        if journal.mark(Item::Model) == Mark::Stored {
            return Ok(());
        }
        let sent_before = journal.mark(Item::Model) == Mark::Tried;
        let mut attempts = Attempts::new(self.retry).sent_before(sent_before);
        journal.tried(Item::Model);
        loop {
            let interrupted = self.interruption.is_requested();
            let failure = if interrupted {
                Err(ClientError::Interrupted)
            } else {
                match self.client.create(&self.bundle.model_id, self.configuration).await {
                    Ok(()) => break,
                    // An earlier attempt may have created it. The import id in the metadata shows which import did.
                    Err(error) if already_exists(&error) => {
                        if self.is_ours(journal).await.map_err(UploadFailure::Stopped)? {
                            break;
                        }
                        return Err(UploadFailure::Overtaken);
                    }
                    Err(error) => attempts.wait(error, self.interruption).await,
                }
            };
            if let Err(error) = failure {
                let failure = if attempts.may_have_succeeded() {
                    UploadFailure::Stopped
                } else {
                    UploadFailure::NotCreated
                };
                return Err(failure(error));
            }
        }
        journal.acknowledged(Item::Model);
        Ok(())
    }

    /// Sends items, several at a time. After a failure, or if the user stops the work, requests in flight are finished.
    async fn store(
        &self,
        items: Vec<Item>,
        journal: &mut Journal,
        stage: &RunningStage,
    ) -> Result<(), UploadFailure> {
        let mut window = Window::new(self.concurrency, journal.header.part_size);
        let mut interruption = self.interruption.clone();
        let mut fresh = VecDeque::from(items);
        // Items whose request failed, and when to send them again. They count for the window, so that an unreachable cluster does
        // not get one part after another.
        let mut waiting: Vec<(Instant, Item, Attempts)> = Vec::new();
        let mut in_flight = JoinSet::new();
        let mut requests = 0;
        let mut end: Option<UploadFailure> = None;
        loop {
            while end.is_none() && in_flight.len() < window.width() {
                if let Err(failure) = self.check_files() {
                    end = Some(failure);
                    break;
                }
                let now = Instant::now();
                let due = waiting.iter().position(|(due, ..)| *due <= now);
                let (item, attempts) = if let Some(due) = due {
                    let (_, item, attempts) = waiting.swap_remove(due);
                    (item, attempts)
                } else if in_flight.len() + waiting.len() < window.width()
                    && let Some(item) = fresh.pop_front()
                {
                    let mark = journal.mark(item);
                    (item, Attempts::new(self.retry).sent_before(mark == Mark::Tried))
                } else {
                    break;
                };
                journal.tried(item);
                in_flight.spawn(self.send(journal, item, requests, attempts));
                requests += 1;
            }
            if in_flight.is_empty() && (end.is_some() || (fresh.is_empty() && waiting.is_empty())) {
                return end.map_or(Ok(()), Err);
            }
            let room = end.is_none() && in_flight.len() < window.width();
            let due = waiting.iter().map(|(due, ..)| *due).min().filter(|_| room);
            tokio::select! {
                Some(finished) = in_flight.join_next() => match finished {
                    Ok(response) => {
                        let Response { item, request, time, .. } = response;
                        if response.answer.as_ref().is_err_and(is_pushback) {
                            window.pushed_back(request, requests);
                        }
                        match classify(response) {
                            Classified::Stored => {
                                journal.acknowledged(item);
                                // The server takes another time for the vocabulary than for a part.
                                if let Item::Part(part) = item {
                                    window.succeeded(request, requests, time);
                                    stage.advance(self.range(journal, part).len() as u64);
                                }
                            }
                            Classified::Retry(at, attempts) => waiting.push((at, item, attempts)),
                            Classified::Failed(failure) => {
                                end.get_or_insert(failure);
                            }
                        }
                    }
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    // No task is cancelled.
                    Err(_) => {}
                },
                () = sleep_until(due), if due.is_some() => {}
                () = interruption.requested(), if end.is_none() => {
                    end = Some(UploadFailure::Stopped(ClientError::Interrupted));
                }
            }
        }
    }

    /// One attempt at one item.
    fn send(
        &self,
        journal: &Journal,
        item: Item,
        request: u64,
        attempts: Attempts,
    ) -> impl Future<Output = Response> + Send + 'static {
        let (client, id) = (self.client.clone(), self.bundle.model_id.clone());
        let part = match item {
            Item::Part(part) => {
                let range = self.range(journal, part);
                let parts = journal.header.parts();
                Some((part, Part::new(&self.bundle.artifact.bytes, range, parts)))
            }
            Item::Vocabulary | Item::Model => None,
        };
        let vocabulary = self.vocabulary.cloned().unwrap_or_default();
        async move {
            let begun = Instant::now();
            let answer = match part {
                Some((part, body)) => client.put_part(&id, part, body).await,
                None => match spawn_blocking(move || gzip(&vocabulary)).await {
                    Ok(compressed) => client.put_vocabulary(&id, compressed).await,
                    // Nobody cancels the task, so it can only have panicked.
                    Err(error) => resume_unwind(error.into_panic()),
                },
            };
            Response { item, request, time: begun.elapsed(), attempts, answer }
        }
    }

    /// Whether this import created the model on the cluster.
    async fn is_ours(&self, journal: &Journal) -> Result<bool, ClientError> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            match self.client.model(&self.bundle.model_id).await {
                Ok(model) => {
                    let import_id = model.and_then(|model| model.import_id);
                    return Ok(import_id.as_ref() == Some(&journal.header.import_id));
                }
                Err(error) => attempts.wait(error, self.interruption).await?,
            }
        }
    }

    /// Requests whether the definition is complete. If the refresh after the last part fails, the parts become visible a little
    /// later.
    async fn confirm(&self) -> Result<(), UploadFailure> {
        const POLLS: u32 = 3;
        let id = &self.bundle.model_id;
        let mut attempts = Attempts::new(self.retry);
        let mut polls = 0;
        loop {
            match self.client.is_whole(id).await {
                Ok(Some(false)) => {
                    polls += 1;
                    if polls == POLLS {
                        return Err(UploadFailure::Stopped(ClientError::Incomplete(id.clone())));
                    }
                    tokio::time::sleep(self.refresh_interval).await;
                }
                Ok(Some(true) | None) => return Ok(()),
                Err(error) if is_gone(&error) => return Err(UploadFailure::Lost),
                Err(error) => self.wait(&mut attempts, error).await?,
            }
        }
    }

    /// Returns an error if a mapped file has changed since it was hashed. The sent bytes would not match the definition's SHA-256.
    fn check_files(&self) -> Result<(), UploadFailure> {
        let checked = self.bundle.artifact.bytes.check_unchanged();
        checked.map_err(|changed| {
            UploadFailure::Stopped(ClientError::FileChanged { path: changed.path })
        })
    }

    async fn wait(&self, attempts: &mut Attempts, error: ClientError) -> Result<(), UploadFailure> {
        attempts.wait(error, self.interruption).await.map_err(UploadFailure::Stopped)
    }
}

/// What a response means.
enum Classified {
    Stored,
    Retry(Instant, Attempts),
    Failed(UploadFailure),
}

fn classify(response: Response) -> Classified {
    let Response { item, mut attempts, answer, .. } = response;
    match answer {
        Ok(()) => Classified::Stored,
        Err(error) if already_exists(&error) => {
            if attempts.may_have_succeeded() {
                Classified::Stored
            } else {
                Classified::Failed(UploadFailure::Leftover)
            }
        }
        Err(error) if is_gone(&error) => Classified::Failed(UploadFailure::Lost),
        Err(error @ ClientError::Refused { status: 413, .. }) if item != Item::Vocabulary => {
            Classified::Failed(UploadFailure::TooLarge(error))
        }
        Err(error) => match attempts.next(error) {
            Ok(wait) => Classified::Retry(Instant::now() + wait, attempts),
            Err(error) => Classified::Failed(UploadFailure::Stopped(error)),
        },
    }
}

/// Whether Elasticsearch itself reports that there is no such model.
fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: 404, kind: Some(_), .. })
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
