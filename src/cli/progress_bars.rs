//! Progress as bars on a terminal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::observer::{Event, Observer, Stage};
use crate::terminal_text::escape;

/// Draws a bar for every stage that is measured in bytes or texts, and a line with the elapsed time for every wait.
#[derive(Debug)]
pub(super) struct ProgressBars {
    screen: MultiProgress,
    bars: Mutex<HashMap<Stage, ProgressBar>>,
}

impl ProgressBars {
    /// Draws on `screen`, which the log shares.
    pub(super) fn on(screen: MultiProgress) -> Self {
        Self { screen, bars: Mutex::default() }
    }

    fn bar(&self, stage: &Stage, total: Option<u64>) -> Option<ProgressBar> {
        let template = match (stage, total) {
            (Stage::DownloadFile(_), Some(_)) => {
                "{prefix:>25!} [{bar:20}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left"
            }
            (Stage::Infer, Some(_)) => "{prefix:>19} [{bar:30}] {pos}/{len} texts {eta} left",
            (_, Some(_)) => {
                "{prefix:>19} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left"
            }
            (Stage::Start, None) => "{prefix:>19} {msg} {elapsed}",
            _ => return None,
        };
        // Hidden until it is on the screen: a bar draws itself when it gets a prefix, and the log would not clear that drawing.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(escape(&stage.to_string()));
        Some(bar)
    }
}

impl Observer for ProgressBars {
    fn observe(&self, event: &Event) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { stage, total } => {
                let Some(bar) = self.bar(stage, *total) else { return };
                let bar = self.screen.add(bar);
                if total.is_none() {
                    bar.enable_steady_tick(Duration::from_secs(1));
                }
                bar.tick();
                bars.insert(stage.clone(), bar);
            }
            Event::Resumed { stage, done } => {
                if let Some(bar) = bars.get(stage) {
                    bar.set_position(*done);
                    bar.reset_eta();
                }
            }
            Event::Advanced { stage, done } => {
                if let Some(bar) = bars.get(stage) {
                    bar.set_position(*done);
                }
            }
            Event::Waiting { stage, state } => {
                if let Some(bar) = bars.get(stage) {
                    bar.set_message(escape(state));
                }
            }
            Event::Finished { stage, .. } => {
                if let Some(bar) = bars.remove(stage) {
                    // The ticker must stop first. Otherwise a late tick would draw over the next log line.
                    bar.disable_steady_tick();
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                }
            }
        }
    }
}
