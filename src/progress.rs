//! How far the work is, on standard error: a bar on a terminal, and for every stage that is over a line of the log with its time.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is drawn now, so that lines of the log can be written above it.
static DRAWN: Mutex<Option<Drawn>> = Mutex::new(None);

#[derive(Clone)]
enum Drawn {
    One(ProgressBar),
    Several(MultiProgress),
}

/// Writes to standard error, above the bars that are drawn there.
pub fn above_bars<T>(write: impl FnOnce() -> T) -> T {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match drawn {
        None => write(),
        Some(Drawn::One(bar)) => bar.suspend(write),
        Some(Drawn::Several(bars)) => bars.suspend(write),
    }
}

fn draw(drawn: Option<Drawn>) {
    *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = drawn;
}

/// Shows stages of the work.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    bars: bool,
    quiet: bool,
}

/// How far a stage is, as the library tells its callers ([`Bundle::from_model`](crate::Bundle::from_model),
/// [`Client::import`](crate::Client::import)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// `tracing`, `uploading`.
    pub stage: &'static str,
    /// Bytes that are done: 0 when the stage begins.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Who is told of every stage that begins in a call.
#[derive(Clone)]
struct Listener(Arc<dyn Fn(Event) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

tokio::task_local! {
    static LISTENER: Listener;
}

/// Does some work, and tells `listener` of its stages.
pub(crate) fn told<T>(
    listener: impl Fn(Event) + Send + Sync + 'static,
    work: impl FnOnce() -> T,
) -> T {
    LISTENER.sync_scope(Listener(Arc::new(listener)), work)
}

/// The same for work that waits.
pub(crate) async fn told_of<F: Future>(
    listener: impl Fn(Event) + Send + Sync + 'static,
    work: F,
) -> F::Output {
    LISTENER.scope(Listener(Arc::new(listener)), work).await
}

/// A wait for others, told in words.
#[derive(Debug)]
pub struct Waiting {
    name: &'static str,
    bar: ProgressBar,
    begun: Instant,
    bars: bool,
    quiet: bool,
    shown: Mutex<String>,
}

/// One stage, measured in bytes.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    bar: ProgressBar,
    begun: Instant,
    /// Bytes that an earlier run has done.
    kept: AtomicU64,
    bars: bool,
    quiet: bool,
    listener: Option<Listener>,
}

impl Default for Progress {
    /// Bars where standard error is a terminal that can draw them, lines of the log otherwise.
    fn default() -> Self {
        Self::unless(false)
    }
}

impl Progress {
    /// Bars or lines as by default, or nothing.
    #[must_use]
    pub fn unless(quiet: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { bars: !quiet && !is_dumb && stderr().is_terminal(), quiet }
    }

    /// The same without bars: on a terminal lines of the log, too.
    #[must_use]
    pub fn in_lines(self) -> Self {
        Self { bars: false, ..self }
    }

    /// Begins a stage of several files that are under way at once, each with a line of its own.
    #[must_use]
    pub fn files(self) -> Files {
        Files { lines: self.bars.then(|| Arc::new(Lines::new())), quiet: self.quiet }
    }

    /// Begins a stage of so many bytes.
    #[must_use]
    pub fn bytes(self, name: &'static str, total: u64) -> Stage {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if self.bars {
            let template =
                "{prefix:>9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.tick();
            draw(Some(Drawn::One(bar.clone())));
        }
        let (begun, kept) = (Instant::now(), AtomicU64::new(0));
        let listener = LISTENER.try_with(Listener::clone).ok();
        let Self { bars, quiet } = self;
        let stage = Stage { name, bar, begun, kept, bars, quiet, listener };
        stage.tell();
        stage
    }

    /// Begins a wait for others.
    #[must_use]
    pub fn waiting(self, name: &'static str) -> Waiting {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if self.bars {
            if let Ok(style) = ProgressStyle::with_template("{prefix:>9} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_prefix(name);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_secs(1));
            draw(Some(Drawn::One(bar.clone())));
        }
        let (begun, shown) = (Instant::now(), Mutex::default());
        Waiting { name, bar, begun, bars: self.bars, quiet: self.quiet, shown }
    }
}

impl Waiting {
    /// Shows how it stands; without a terminal only when that is news.
    pub fn show(&self, state: &str) {
        self.bar.set_message(state.to_owned());
        if self.bars || self.quiet {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != state {
            tracing::info!("{}: {state}", self.name);
            state.clone_into(&mut shown);
        }
    }
}

impl Waiting {
    /// It is over: tells how long it took.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            tracing::info!("{}: {:.1} s", self.name, self.begun.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.bars {
            draw(None);
        }
    }
}

impl Stage {
    /// So many bytes are done already; speed and time are told for the rest.
    pub fn set(&self, bytes: u64) {
        self.kept.store(bytes, Ordering::Relaxed);
        self.bar.set_position(bytes);
        self.bar.reset_eta();
        self.tell();
    }

    /// Some more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.tell();
    }

    fn tell(&self) {
        if let Some(Listener(listener)) = &self.listener {
            let total = self.bar.length().unwrap_or_default();
            listener(Event { stage: self.name, done: self.bar.position(), total });
        }
    }

    /// The stage is over: a line with its time takes the bar's place.
    pub fn finish(self) {
        let all = self.bar.position();
        self.bar.finish_and_clear();
        if !self.quiet {
            tell(self.name, all, self.kept.load(Ordering::Relaxed), self.begun);
        }
    }
}

/// What is left unfinished leaves no bar behind.
impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.bars {
            draw(None);
        }
    }
}

/// Tells of a stage that is over.
fn tell(name: &str, all: u64, kept: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    let kept = match kept {
        0 => String::new(),
        kept => format!(", {} of it by an earlier run", HumanBytes(kept)),
    };
    tracing::info!("{name}: {} in {seconds:.1} s{kept}", HumanBytes(all));
}

/// Several files that are under way at once.
#[derive(Debug, Clone)]
pub struct Files {
    lines: Option<Arc<Lines>>,
    quiet: bool,
}

/// The lines of several files.
#[derive(Debug)]
struct Lines(MultiProgress);

impl Lines {
    fn new() -> Self {
        let lines = MultiProgress::new();
        draw(Some(Drawn::Several(lines.clone())));
        Self(lines)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        draw(None);
    }
}

/// One of several files.
#[derive(Debug)]
pub struct FileStage {
    name: String,
    bar: ProgressBar,
    begun: Instant,
    /// Bytes that an earlier run has left.
    kept: AtomicU64,
    quiet: bool,
}

impl Files {
    /// Begins a file of so many bytes.
    #[must_use]
    pub fn begin(&self, name: &str, total: u64) -> FileStage {
        let mut stage =
            FileStage { name: name.to_owned(), quiet: self.quiet, ..FileStage::silent() };
        if let Some(lines) = &self.lines {
            stage.bar = lines.0.add(ProgressBar::new(total));
            let template =
                "{prefix:>25!} [{bar:20}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                stage.bar.set_style(style.progress_chars("=> "));
            }
            stage.bar.set_prefix(name.to_owned());
            stage.bar.tick();
        }
        stage
    }
}

impl FileStage {
    /// A file that nobody watches.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            name: String::new(),
            bar: ProgressBar::hidden(),
            begun: Instant::now(),
            kept: AtomicU64::new(0),
            quiet: true,
        }
    }

    /// So many bytes are there already; speed and time are told for the rest.
    pub fn set(&self, bytes: u64) {
        self.kept.store(bytes, Ordering::Relaxed);
        self.bar.set_position(bytes);
        self.bar.reset_eta();
    }

    /// Some more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The file is complete.
    pub fn finish(self) {
        let all = self.bar.position();
        self.bar.finish_and_clear();
        if !self.quiet {
            tell(&self.name, all, self.kept.into_inner(), self.begun);
        }
    }
}

/// A number of bytes, for people.
#[must_use]
pub fn bytes(number: u64) -> String {
    HumanBytes(number).to_string()
}
