//! What is shown of the work.

use clap::{ArgAction, Args};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::failed::Failed;
use super::log::{Lines, LogFormat, is_coloured};
use super::report::Format;
use crate::error::Error;
use crate::progress::Progress;
use crate::secrets;
use crate::timings::Timings;

/// Failures of TLS are told by the error; the verifier's own line would say them twice.
const DEFAULT: &str = "warn,rust_eland=info,rustls_platform_verifier=off";
const QUIET: &str = "warn,rustls_platform_verifier=off";
/// Libraries too. What HTTP/1 connections do bit by bit says nothing about a request.
const VERY_VERBOSE: &str = "debug,rust_eland=trace";

/// What every command takes.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArguments {
    /// Show no progress, and say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Trace every request, and tell what lies beneath an error; -vv: also what the libraries have to say
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Trace every request to the cluster on standard error, without secrets
    #[arg(long, global = true)]
    debug: bool,
    /// What a line on standard error looks like
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// At the end tell on standard error how long each stage took; --timings=json as one line of JSON
    #[arg(long, global = true, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "table")]
    timings: Option<Format>,
}

/// Tells how long each stage took, if asked for, when it is dropped: after failures too.
pub(super) struct Stopwatch {
    pub(super) timings: Timings,
    told: Option<Format>,
}

impl OutputArguments {
    pub(super) fn progress(self) -> Progress {
        let progress = Progress::unless(self.quiet);
        match self.log_format {
            LogFormat::Text => progress,
            LogFormat::Json => progress.in_lines(),
        }
    }

    /// An error, to be told as these options want it.
    pub(super) fn failed(self, error: Error) -> Failed {
        Failed { error, verbose: self.verbose > 0, format: self.log_format }
    }

    /// Starts logging, to standard error and without secrets, at the levels that `RUST_LOG` says (`--debug` and `--verbose` add to
    /// them), and taking the time if asked for.
    pub(super) fn start_logging(self) -> Stopwatch {
        let default = if self.quiet { QUIET } else { DEFAULT };
        let default = if self.verbose > 1 { VERY_VERBOSE } else { default };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let trace =
            if self.debug || self.verbose == 1 { "rust_eland=debug".parse().ok() } else { None };
        let filter = trace.into_iter().fold(filter, EnvFilter::add_directive);
        let lines = tracing_subscriber::fmt::layer().with_writer(secrets::stderr);
        let log = match self.log_format {
            LogFormat::Text => lines.with_ansi(is_coloured()).event_format(Lines).boxed(),
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
        };
        let timings = Timings::begin();
        let kept = timings.layer();
        // A program that uses the library may log already.
        let log = log.with_filter(filter);
        let _ = tracing_subscriber::registry().with(log).with(kept).try_init();
        // Every line is JSON, then.
        let is_json = self.log_format == LogFormat::Json;
        let told = self.timings.map(|format| if is_json { Format::Json } else { format });
        Stopwatch { timings, told }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let Some(format) = self.told else { return };
        let report = self.timings.report();
        match format {
            Format::Table => eprintln!("{report}"),
            Format::Json => {
                if let Ok(line) = serde_json::to_string(&report) {
                    eprintln!("{line}");
                }
            }
        }
    }
}
