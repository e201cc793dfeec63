//! Options of the output.

use std::io::{IsTerminal, stderr};

use clap::{ArgAction, Args};
use indicatif::MultiProgress;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::command_error::CommandError;
use super::failed::Failed;
use super::log::{Lines, LogFormat, LogWriter, is_coloured};
use super::progress_bars::ProgressBars;
use super::progress_log::ProgressLog;
use super::report::{Format, print_error};
use super::signals;
use super::timings::Timings;
use crate::observer::{Event, Observer, Progress};
use crate::source::hub::progress_bars_are_disabled;
use crate::terminal_text::{escape, escape_json};

/// The verifier's log is off, because the error already contains its message.
const DEFAULT: &str = "warn,rust_eland=info,rustls_platform_verifier=off";
const QUIET: &str = "warn,rustls_platform_verifier=off";
/// Levels for `-vv`, which includes other libraries.
const VERY_VERBOSE: &str = "debug,rust_eland=trace";

/// The options of every command.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArguments {
    /// Show only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Log every request and show the causes of an error; -vv also logs messages of libraries
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log every request to the cluster, without secrets
    #[arg(long, global = true)]
    debug: bool,
    /// Format of the lines on standard error
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Print the duration of each stage to standard error at the end; --timings=json prints one line of JSON
    #[arg(long, global = true, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "table")]
    timings: Option<Format>,
}

/// State shared by the steps of a command. When it is dropped, also after a failure, it prints the durations of the stages if the
/// user requested them.
#[derive(Debug)]
pub(super) struct Session {
    /// Receiver of the progress.
    pub(super) progress: Progress,
    /// Durations of the stages.
    pub(super) timings: Timings,
    format: Option<Format>,
}

/// An observer that forwards to several observers.
struct All(Vec<Box<dyn Observer>>);

impl Observer for All {
    fn observe(&self, event: &Event) {
        self.0.iter().for_each(|observer| observer.observe(event));
    }
}

impl OutputArguments {
    /// An error, with the settings for printing it.
    pub(super) fn failed(self, error: CommandError) -> Failed {
        Failed { error, verbose: self.verbose > 0, format: self.log_format }
    }

    /// Makes signals end the program, and starts the log on standard error and the progress listeners: bars on a terminal, log lines, and durations.
    pub(super) fn start(self) -> Session {
        let screen = MultiProgress::new();
        self.start_logging(&screen);
        signals::end_first_process();
        let timings = Timings::start();
        let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(timings.clone())];
        if !self.quiet {
            let draws_bars = self.log_format == LogFormat::Text && is_drawable();
            observers.push(Box::new(ProgressLog::new(!draws_bars)));
            if draws_bars {
                observers.push(Box::new(ProgressBars::on(screen)));
            }
        }
        // If the log is JSON, the durations are JSON too.
        let is_json = self.log_format == LogFormat::Json;
        let format = self.timings.map(|format| if is_json { Format::Json } else { format });
        Session { progress: Progress::to(All(observers)), timings, format }
    }

    /// Starts the log with the levels of `RUST_LOG`. `--debug` and `--verbose` add to them.
    fn start_logging(self, screen: &MultiProgress) {
        let default = if self.quiet { QUIET } else { DEFAULT };
        let default = if self.verbose > 1 { VERY_VERBOSE } else { default };
        let variable = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
        let levels = variable.as_deref().map(|value| value.parse::<EnvFilter>());
        let (levels, problem) = match levels {
            None => (None, None),
            Some(Ok(levels)) => (Some(levels), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let filter = levels.unwrap_or_else(|| EnvFilter::new(default));
        let trace =
            if self.debug || self.verbose == 1 { "rust_eland=debug".parse().ok() } else { None };
        let filter = trace.into_iter().fold(filter, EnvFilter::add_directive);
        let (screen, format) = (screen.clone(), self.log_format);
        let writer = move || LogWriter::new(screen.clone(), format);
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        let log = match self.log_format {
            LogFormat::Text => lines.with_ansi(is_coloured()).event_format(Lines).boxed(),
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
        };
        // A process that uses the library may already have a log.
        let _ = tracing_subscriber::registry().with(log.with_filter(filter)).try_init();
        if let Some(problem) = problem {
            tracing::warn!(
                "ignored the environment variable RUST_LOG: {problem}. Use levels such as `debug` or `rust_eland=trace`"
            );
        }
    }
}

/// Whether to draw bars: standard error is a terminal that can draw them, and HF_HUB_DISABLE_PROGRESS_BARS is not set.
fn is_drawable() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_dumb && stderr().is_terminal() && !progress_bars_are_disabled()
}

impl Drop for Session {
    fn drop(&mut self) {
        let report = self.timings.report();
        match self.format {
            None => {}
            Some(Format::Table) => print_error(&escape(&report.to_string())),
            Some(Format::Json) => {
                if let Ok(line) = serde_json::to_string(&report) {
                    print_error(&escape_json(&line));
                }
            }
        }
    }
}
