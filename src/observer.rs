//! Progress reports. Long operations go through stages and report each of them to an [`Observer`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stage of the work. The name of a stage, as shown to people and programs, is its [`Display`](fmt::Display) form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Connects to the cluster.
    Connect,
    /// Checks whether the cluster can take the model.
    CheckCluster,
    /// Downloads the files of a model.
    Download,
    /// Downloads the file with this path; measured in bytes. Several such stages run at once, all within [`Download`](Self::Download).
    DownloadFile(Arc<str>),
    /// Reads the tokenizer's files.
    ReadTokenizer,
    /// Compares Elasticsearch's tokens with those of the model's own tokenizer.
    CompareTokenizers,
    /// Reads the tensors of a checkpoint; measured in bytes.
    ReadWeights,
    /// Turns a model into a definition; measured in bytes. Contains the stages from [`Trace`](Self::Trace) to
    /// [`MeasureMemory`](Self::MeasureMemory).
    Convert,
    /// Traces the model's graph.
    Trace,
    /// Stores the weights of linear layers as 8-bit integers.
    Quantize,
    /// Lays out the definition's archive.
    BuildArchive,
    /// Computes the definition's SHA-256.
    Hash,
    /// Compares the archive's output with the model's.
    Verify,
    /// Compares the quantized model's answers with the original's.
    CompareQuantized,
    /// Measures the time of passes of the quantized model and of the original.
    MeasureSavings,
    /// Measures the memory that an inference takes.
    MeasureMemory,
    /// Writes a bundle's files.
    WriteBundle,
    /// Creates the model's configuration in the cluster.
    CreateModel,
    /// Uploads the vocabulary and the definition; measured in bytes of the definition.
    Upload,
    /// Asks the cluster whether the definition is complete.
    ConfirmUpload,
    /// Starts a deployment and waits for it.
    Start,
    /// Creates an inference endpoint.
    CreateEndpoint,
    /// Tries and creates an ingest pipeline.
    CreatePipeline,
    /// Computes the results of texts; measured in texts.
    Infer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::CheckCluster => "checking the cluster",
            Self::Download => "downloading",
            Self::DownloadFile(path) => path,
            Self::ReadTokenizer => "reading the tokenizer",
            Self::CompareTokenizers => "comparing the tokenizers",
            Self::ReadWeights => "reading the weights",
            Self::Convert => "converting",
            Self::Trace => "tracing",
            Self::Quantize => "quantizing",
            Self::BuildArchive => "building the archive",
            Self::Hash => "hashing",
            Self::Verify => "verifying",
            Self::CompareQuantized => "comparing with the original",
            Self::MeasureSavings => "measuring the time of passes",
            Self::MeasureMemory => "measuring memory",
            Self::WriteBundle => "writing the bundle",
            Self::CreateModel => "creating the model",
            Self::Upload => "uploading",
            Self::ConfirmUpload => "confirming the upload",
            Self::Start => "starting",
            Self::CreateEndpoint => "creating the endpoint",
            Self::CreatePipeline => "creating the pipeline",
            Self::Infer => "inferring",
        })
    }
}

/// A progress report. The reports of one stage arrive in order: `Started`, any number of the others, `Finished`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stage began.
    Started {
        /// The stage.
        stage: Stage,
        /// Bytes to process, for stages measured in bytes; texts for [`Infer`](Stage::Infer).
        total: Option<u64>,
    },
    /// An earlier run already completed a part of the stage.
    Resumed {
        /// The stage.
        stage: Stage,
        /// Bytes from which the work continues. 0 when earlier work was discarded.
        done: u64,
    },
    /// More bytes or texts were processed.
    Advanced {
        /// The stage.
        stage: Stage,
        /// Bytes or texts processed so far, including those of an earlier run.
        done: u64,
    },
    /// The state of something that the stage waits for.
    Waiting {
        /// The stage.
        stage: Stage,
        /// The state, in words.
        state: String,
    },
    /// A stage ended.
    Finished {
        /// The stage.
        stage: Stage,
        /// Bytes or texts processed, including those of an earlier run.
        done: u64,
        /// Whether the stage completed; `false` after an error or an interruption.
        completed: bool,
    },
}

impl Event {
    /// The stage that the event belongs to.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        match self {
            Self::Started { stage, .. }
            | Self::Resumed { stage, .. }
            | Self::Advanced { stage, .. }
            | Self::Waiting { stage, .. }
            | Self::Finished { stage, .. } => stage,
        }
    }
}

/// Receives progress reports. They come from several threads and must be handled quickly.
pub trait Observer: Send + Sync {
    /// Handles a report.
    fn observe(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

/// A handle through which an operation reports its progress. Clones report to the same observer.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Observer>>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Progress {
    /// Reports nothing.
    #[must_use]
    pub fn quiet() -> Self {
        Self(None)
    }

    /// Reports to an observer.
    #[must_use]
    pub fn to(observer: impl Observer + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Starts a stage that is not measured.
    #[must_use]
    pub fn start(&self, stage: Stage) -> RunningStage {
        self.begin(stage, None)
    }

    /// Starts a stage of `total` bytes.
    #[must_use]
    pub fn start_bytes(&self, stage: Stage, total: u64) -> RunningStage {
        self.begin(stage, Some(total))
    }

    /// Starts a stage of `total` texts.
    #[must_use]
    pub fn start_texts(&self, stage: Stage, total: u64) -> RunningStage {
        self.begin(stage, Some(total))
    }

    /// Runs `work` as a stage, which completes if the result is `Ok`.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T, E>(&self, stage: Stage, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let running = self.start(stage);
        let result = work();
        running.end(result.is_ok());
        result
    }

    /// Awaits `work` as a stage, which completes if the result is `Ok`.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run_async<T, E>(
        &self,
        stage: Stage,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let running = self.start(stage);
        let result = work.await;
        running.end(result.is_ok());
        result
    }

    fn begin(&self, stage: Stage, total: Option<u64>) -> RunningStage {
        self.report(|| Event::Started { stage: stage.clone(), total });
        RunningStage { progress: self.clone(), stage, done: AtomicU64::new(0), is_open: true }
    }

    fn report(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.0 {
            observer.observe(&event());
        }
    }
}

/// A stage that has started. A stage that is dropped without [`finish`](Self::finish) ends as not completed.
#[derive(Debug)]
pub struct RunningStage {
    progress: Progress,
    stage: Stage,
    done: AtomicU64,
    is_open: bool,
}

impl RunningStage {
    /// Sets the bytes that an earlier run completed.
    pub fn resume_at(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.progress.report(|| Event::Resumed { stage: self.stage.clone(), done });
    }

    /// Adds bytes or texts that were processed now.
    pub fn advance(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        self.progress.report(|| Event::Advanced { stage: self.stage.clone(), done });
    }

    /// Reports the state of something that the stage waits for.
    pub fn wait_for(&self, state: &str) {
        let state = || state.to_owned();
        self.progress.report(|| Event::Waiting { stage: self.stage.clone(), state: state() });
    }

    /// Ends the stage as completed.
    pub fn finish(self) {
        self.end(true);
    }

    fn end(mut self, completed: bool) {
        self.is_open = false;
        self.report_end(completed);
    }

    fn report_end(&self, completed: bool) {
        let done = self.done.load(Ordering::Relaxed);
        self.progress.report(|| Event::Finished { stage: self.stage.clone(), done, completed });
    }
}

impl Drop for RunningStage {
    fn drop(&mut self) {
        if self.is_open {
            self.report_end(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn observer_receives_the_events_of_a_stage_in_order() {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let received = Arc::clone(&events);
        let progress = Progress::to(move |event: &Event| {
            received.lock().unwrap().push(event.clone());
        });
        let upload = progress.start_bytes(Stage::Upload, 10);
        upload.resume_at(4);
        upload.advance(6);
        upload.finish();
        let _: Result<(), ()> = progress.run(Stage::Trace, || Err(()));
        drop(progress.start(Stage::Hash));
        let stage = Stage::Upload;
        let failed = |stage| Event::Finished { stage, done: 0, completed: false };
        assert_eq!(
            *events.lock().unwrap(),
            [
                Event::Started { stage: stage.clone(), total: Some(10) },
                Event::Resumed { stage: stage.clone(), done: 4 },
                Event::Advanced { stage: stage.clone(), done: 10 },
                Event::Finished { stage, done: 10, completed: true },
                Event::Started { stage: Stage::Trace, total: None },
                failed(Stage::Trace),
                Event::Started { stage: Stage::Hash, total: None },
                failed(Stage::Hash),
            ]
        );
    }
}
