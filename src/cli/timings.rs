//! Durations of the stages of a command.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::observer::{Event, Observer, Stage};

/// Time of a stage.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(super) struct StageTime {
    /// Name of the stage.
    pub(super) name: String,
    /// Seconds from the start of the command to the start of the stage.
    pub(super) begun: f64,
    /// Duration of the stage in seconds; absent while the stage runs.
    pub(super) took: Option<f64>,
}

/// Times of a command's stages.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TimingReport {
    /// Stages in the order of their start.
    pub(super) stages: Vec<StageTime>,
    /// Seconds since the start of the command.
    pub(super) total: f64,
}

/// Records the times of stages. Clones share one record.
#[derive(Debug, Clone)]
pub(super) struct Timings {
    started: Instant,
    /// Each stage with its time.
    record: Arc<Mutex<Vec<(Stage, StageTime)>>>,
}

impl Timings {
    /// Starts an empty record.
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), record: Arc::default() }
    }

    /// Times recorded so far.
    pub(super) fn report(&self) -> TimingReport {
        let stages = self.record().iter().map(|(_, time)| time.clone()).collect();
        TimingReport { stages, total: self.seconds() }
    }

    fn record(&self) -> MutexGuard<'_, Vec<(Stage, StageTime)>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Observer for Timings {
    fn observe(&self, event: &Event) {
        // Stages that contain other stages, or are contained in one, are not recorded, because their times would be counted twice.
        if matches!(event.stage(), Stage::Convert | Stage::DownloadFile(_)) {
            return;
        }
        let now = self.seconds();
        match event {
            Event::Started { stage, .. } => {
                let time = StageTime { name: stage.to_string(), begun: now, took: None };
                self.record().push((stage.clone(), time));
            }
            Event::Finished { stage, .. } => {
                let mut record = self.record();
                let is_open =
                    |(it, time): &&mut (Stage, StageTime)| it == stage && time.took.is_none();
                if let Some((_, time)) = record.iter_mut().find(is_open) {
                    time.took = Some(now - time.begun);
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for TimingReport {
    /// A table in seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>8} {:>8}", "STAGE", "STARTED", "TOOK")?;
        for StageTime { name, begun, took } in &self.stages {
            match took {
                Some(took) => writeln!(f, "{name:28} {begun:>6.2} s {took:>6.2} s")?,
                None => writeln!(f, "{name:28} {begun:>6.2} s  running")?,
            }
        }
        write!(f, "{:28} {:>8} {:>6.2} s", "total", "", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Progress;

    #[test]
    fn timings_list_stages_in_order_of_start() {
        let timings = Timings::start();
        let progress = Progress::to(timings.clone());
        let outer = progress.start_bytes(Stage::Upload, 1);
        progress.start(Stage::Convert).finish();
        progress.start(Stage::Hash).finish();
        outer.finish();
        let open = progress.start(Stage::Verify);
        let report = timings.report();
        let stages: Vec<_> =
            report.stages.iter().map(|it| (it.name.as_str(), it.took.is_some())).collect();
        assert_eq!(stages, [("uploading", true), ("hashing", true), ("verifying", false)]);
        assert!(report.stages.is_sorted_by(|a, b| a.begun <= b.begun));
        assert!(report.to_string().contains("running"));
        drop(open);
        assert!(timings.report().stages.iter().all(|stage| stage.took.is_some()));
    }
}
