//! How far the work is: a bar on a terminal, plain lines otherwise, always on standard error.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows stages of the work.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    bars: bool,
}

/// One stage, measured in bytes.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    bar: ProgressBar,
    begun: Instant,
    plain: bool,
}

impl Default for Progress {
    /// Bars where standard error is a terminal.
    fn default() -> Self {
        Self { bars: stderr().is_terminal() }
    }
}

impl Progress {
    /// Begins a stage of so many bytes.
    #[must_use]
    pub fn bytes(self, name: &'static str, total: u64) -> Stage {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if self.bars {
            let template = "{prefix:>9} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.tick();
        }
        Stage { name, bar, begun: Instant::now(), plain: !self.bars }
    }
}

impl Stage {
    /// Some more bytes are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The stage is over.
    pub fn finish(self) {
        self.bar.finish();
        if self.plain {
            let seconds = self.begun.elapsed().as_secs_f64();
            tracing::info!("{}: {} in {seconds:.1} s", self.name, HumanBytes(self.bar.position()));
        }
    }
}
