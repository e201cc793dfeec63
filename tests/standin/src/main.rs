//! The stand-in as a program: prints one line when it is ready, and stops on SIGTERM or Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use standin::{BuildFlavor, Credential, Options, StandIn, Version};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A strict stand-in for Elasticsearch's trained-model API, on the loopback interface.
#[derive(Debug, Parser)]
struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The directory in which models are kept, also over a restart.
    #[arg(long)]
    data: PathBuf,
    /// The release to play.
    #[arg(long, default_value_t)]
    version: Version,
    /// Turns security on: a user who may do everything.
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// The user's password.
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// Turns security on: an API key in its encoded form.
    #[arg(long)]
    api_key: Vec<String>,
    /// Plays a serverless cluster.
    #[arg(long)]
    serverless: bool,
    /// Evaluates all rows of a request in one call, as releases before 8.9 do.
    #[arg(long)]
    batched: bool,
    /// Prints every request on standard error.
    #[arg(long)]
    log: bool,
    /// Writes all requests to this file at the end, as JSON.
    #[arg(long)]
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let filter = if arguments.log { "standin=info" } else { "standin=error" };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let user = arguments.user.as_deref().zip(arguments.password.as_deref());
    let mut credentials: Vec<_> =
        user.map(|(name, password)| Credential::user(name, password)).into_iter().collect();
    credentials.extend(arguments.api_key.iter().map(|key| Credential::api_key(key)));
    let build_flavor =
        if arguments.serverless { BuildFlavor::Serverless } else { BuildFlavor::Default };
    // Before the line that others wait for, so that no signal is lost.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let standin = StandIn::try_start(Options {
        port: arguments.port,
        version: arguments.version,
        build_flavor,
        credentials,
        data: Some(arguments.data),
        batched: arguments.batched,
        ..Options::default()
    })?;
    println!("listening on {}", standin.url());
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    if let Some(path) = arguments.record {
        std::fs::write(path, serde_json::to_vec(&standin.requests())?)?;
    }
    Ok(())
}
