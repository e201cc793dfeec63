//! What is shown of the work.

use std::io::{IsTerminal, stderr};

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::progress::Progress;
use crate::secrets;

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
}

impl OutputArguments {
    pub(super) fn progress(self) -> Progress {
        Progress::unless(self.quiet)
    }

    /// Starts logging, to standard error and without secrets, at the levels that `RUST_LOG` says; `--debug` adds a trace of every request.
    pub(super) fn start_logging(self) {
        let default = if self.quiet { QUIET } else { DEFAULT };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let trace = if self.debug { "rust_eland=debug".parse().ok() } else { None };
        let filter = trace.into_iter().fold(filter, EnvFilter::add_directive);
        // A program that uses the library may log already.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(secrets::stderr)
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .try_init();
    }
}
