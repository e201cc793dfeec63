//! What is shown of the work.

use std::io::{IsTerminal, stderr};

use clap::Args;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::report::Format;
use crate::progress::Progress;
use crate::secrets;
use crate::timings::Timings;

/// Failures of TLS are told by the error; the verifier's own line would say them twice.
const DEFAULT: &str = "warn,rust_eland=info,rustls_platform_verifier=off";
const QUIET: &str = "warn,rustls_platform_verifier=off";

/// What every command takes.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputArguments {
    /// Show no progress, and say nothing but warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Trace every request to the cluster on standard error, without secrets
    #[arg(long, global = true)]
    debug: bool,
    /// At the end tell on standard error how long each stage took; --timings=json as one line of JSON
    #[arg(long, global = true, value_name = "FORMAT", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "table")]
    timings: Option<Format>,
}

/// Tells how long each stage took, if asked for, when it is dropped: after failures too.
pub(super) struct Stopwatch {
    timings: Option<(Timings, Format)>,
}

impl OutputArguments {
    pub(super) fn progress(self) -> Progress {
        Progress::unless(self.quiet)
    }

    /// Starts logging, to standard error and without secrets, at the levels that `RUST_LOG` says (`--debug` adds a trace of every
    /// request), and taking the time if asked for.
    pub(super) fn start_logging(self) -> Stopwatch {
        let default = if self.quiet { QUIET } else { DEFAULT };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let trace = if self.debug { "rust_eland=debug".parse().ok() } else { None };
        let filter = trace.into_iter().fold(filter, EnvFilter::add_directive);
        let log = tracing_subscriber::fmt::layer()
            .with_writer(secrets::stderr)
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .with_filter(filter);
        let timings = self.timings.map(|format| (Timings::begin(), format));
        let kept = timings.as_ref().map(|(timings, _)| timings.layer());
        // A program that uses the library may log already.
        let _ = tracing_subscriber::registry().with(log).with(kept).try_init();
        Stopwatch { timings }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let Some((timings, format)) = &self.timings else { return };
        let report = timings.report();
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
