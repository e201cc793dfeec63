//! What the program tells while it works: on standard error, and without secrets.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::secrets;

/// Failures of TLS are told by the error; the verifier's own line would say them twice.
const DEFAULT: &str = "warn,rust_eland=info,rustls_platform_verifier=off";

/// Starts logging at the levels that `RUST_LOG` says; `--debug` adds a trace of every request.
pub(super) fn start(debug: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let trace = if debug { "rust_eland=debug".parse().ok() } else { None };
    let filter = trace.into_iter().fold(filter, EnvFilter::add_directive);
    // A program that uses the library may log already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(secrets::stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .try_init();
}
