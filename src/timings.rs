//! How long the stages of the work take. A stage is a span of `tracing`; [`Timings`] is the layer that keeps their times, so that
//! nobody pays for them who does not ask.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

/// Not the crate's own, whose events are shown by default: these spans would stand before every line of the log.
const TARGET: &str = "stages";

/// A stage of the work, from now until the span is dropped.
#[must_use]
pub fn stage(name: &'static str) -> Span {
    tracing::info_span!(target: TARGET, "stage", name)
}

/// A stage that is over, or under way.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Stage {
    /// What is done in it.
    pub name: String,
    /// Seconds from the start of the process.
    pub begun: f64,
    /// Seconds until it was over; absent while it is under way.
    pub took: Option<f64>,
}

/// What a process has done so far.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// In the order in which they began.
    pub stages: Vec<Stage>,
    /// Seconds from the start of the process.
    pub total: f64,
}

/// Keeps the times of stages. Clones are of the same record.
#[derive(Debug, Clone)]
pub struct Timings {
    /// When the process was started.
    started: Instant,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    stages: Vec<Stage>,
    /// The places of those under way.
    open: HashMap<Id, usize>,
}

impl Timings {
    /// Begins a record. Its first stage is what the process has done until now: loading itself and libtorch.
    #[must_use]
    pub fn begin() -> Self {
        let now = Instant::now();
        let loading = age().unwrap_or_default();
        let stage = Stage {
            name: "loading the program".into(),
            begun: 0.,
            took: Some(loading.as_secs_f64()),
        };
        let stages = if loading.is_zero() { Vec::new() } else { vec![stage] };
        let record = Record { stages, open: HashMap::new() };
        let started = now.checked_sub(loading).unwrap_or(now);
        Self { started, record: Arc::new(Mutex::new(record)) }
    }

    /// The layer that keeps this record.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        self.clone().with_filter(Targets::new().with_target(TARGET, Level::INFO))
    }

    /// What has been recorded.
    #[must_use]
    pub fn report(&self) -> Report {
        Report { stages: self.record().stages.clone(), total: self.now() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl<S: Subscriber> Layer<S> for Timings {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut name = Name(String::new());
        attributes.record(&mut name);
        let mut record = self.record();
        let place = record.stages.len();
        record.stages.push(Stage { name: name.0, begun: self.now(), took: None });
        record.open.insert(id.clone(), place);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let now = self.now();
        let mut record = self.record();
        if let Some(place) = record.open.remove(&id)
            && let Some(stage) = record.stages.get_mut(place)
        {
            stage.took = Some(now - stage.begun);
        }
    }
}

/// The field with the stage's name.
struct Name(String);

impl Visit for Name {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        self.0 = format!("{value:?}");
    }

    fn record_str(&mut self, _: &Field, value: &str) {
        value.clone_into(&mut self.0);
    }
}

impl fmt::Display for Report {
    /// A table, in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>8} {:>8}", "STAGE", "BEGUN", "TOOK")?;
        for Stage { name, begun, took } in &self.stages {
            match took {
                Some(took) => writeln!(f, "{name:28} {begun:>6.2} s {took:>6.2} s")?,
                None => writeln!(f, "{name:28} {begun:>6.2} s   not over")?,
            }
        }
        write!(f, "{:28} {:>8} {:>6.2} s", "all", "", self.total)
    }
}

/// How long this process has been there, where the system tells it (Linux, to a hundredth of a second).
fn age() -> Option<Duration> {
    /// `USER_HZ`, which is the same for all programs.
    const TICKS: f64 = 100.;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces; the start is the 22nd.
    let begun: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(now - begun / TICKS).ok()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn stages_are_kept_in_their_order_and_other_spans_are_not() {
        let timings = Timings::begin();
        let subscriber = tracing_subscriber::registry().with(timings.layer());
        let open = tracing::subscriber::with_default(subscriber, || {
            let outer = stage("outer");
            stage("inner").in_scope(|| tracing::info_span!("other").in_scope(|| ()));
            drop(outer);
            stage("open")
        });
        let report = timings.report();
        let loading = usize::from(age().is_some());
        let stages: Vec<_> = report.stages[loading..]
            .iter()
            .map(|stage| (stage.name.as_str(), stage.took.is_some()))
            .collect();
        assert_eq!(stages, [("outer", true), ("inner", true), ("open", false)]);
        assert!(report.stages.is_sorted_by(|a, b| a.begun <= b.begun));
        assert!(report.to_string().contains("not over"));
        drop(open);
        assert!(timings.report().stages.iter().all(|stage| stage.took.is_some()));
    }
}
