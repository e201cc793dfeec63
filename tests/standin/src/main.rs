//! The program `standin`: prints one line when it accepts connections, and stops on SIGTERM or Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use standin::{
    BuildFlavor, Credential, Fault, Faults, License, Options, Random, Rule, StandIn, Version,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Strict stand-in for Elasticsearch's trained-models API, on the loopback interface
#[derive(Debug, Parser)]
struct Arguments {
    /// Port to listen on; 0 selects a free port
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Directory to store models in; they are available again after a restart
    #[arg(long)]
    data: PathBuf,
    /// Version of Elasticsearch to imitate
    #[arg(long, default_value_t)]
    version: Version,
    /// Licence of the cluster; only enterprise includes learning to rank
    #[arg(long, value_name = "LICENCE", default_value = "platinum",
        value_parser = PossibleValuesParser::new(["basic", "platinum", "enterprise", "trial"]).map(|name| licence(&name)))]
    license: License,
    /// Enable security, with a user who has every privilege
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// Password of the user
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// Enable security, with an API key in encoded form; can be repeated
    #[arg(long)]
    api_key: Vec<String>,
    /// Imitate a serverless cluster
    #[arg(long)]
    serverless: bool,
    /// Evaluate all rows of a request in one call, as versions before 8.9 do
    #[arg(long)]
    batched: bool,
    /// Accept parts of definitions without validating or storing them, for benchmarks
    #[arg(long)]
    discard_parts: bool,
    /// Make requests fail, for example part-3@1=store-503 (the first attempt is stored but returns 503), any@20-40=503, create=store-cut or
    /// part@7=restart-200ms; can be repeated
    #[arg(long, value_name = "TARGET[@NUMBERS]=FAULT")]
    fault: Vec<Rule>,
    /// Number of requests per 1,000 that fail at random
    #[arg(long, value_name = "PER_MILLE", default_value_t = 0)]
    random_faults: u32,
    /// Seed of the random faults
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    fault_seed: u64,
    /// Kinds of random faults
    #[arg(
        long,
        value_name = "FAULT",
        value_delimiter = ',',
        default_value = "500,503,store-500,store-503,breaker,rejected,502,504,cut,store-cut,cut-body,cut-answer,slow-20ms"
    )]
    fault_kinds: Vec<Fault>,
    /// Imitate a proxy that rejects larger bodies with 413 and an HTML page
    #[arg(long, value_name = "BYTES")]
    body_limit: Option<u64>,
    /// Time in milliseconds until a stored part becomes visible
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    refresh_interval: u64,
    /// Print every request on standard error
    #[arg(long)]
    log: bool,
    /// Write all requests to this file at the end, as JSON
    #[arg(long)]
    record: Option<PathBuf>,
}

fn licence(name: &str) -> License {
    match name {
        "basic" => License::Basic,
        "enterprise" => License::Enterprise,
        "trial" => License::Trial { days_left: 30 },
        _ => License::Platinum,
    }
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
    // Install the handlers before printing the line that clients wait for, so that no signal is lost.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let standin = StandIn::try_start(Options {
        port: arguments.port,
        version: arguments.version,
        license: arguments.license,
        build_flavor,
        credentials,
        data: Some(arguments.data),
        batched: arguments.batched,
        discard_parts: arguments.discard_parts,
        refresh_interval: Duration::from_millis(arguments.refresh_interval),
        faults: Faults {
            rules: arguments.fault,
            random: Some(Random {
                seed: arguments.fault_seed,
                per_mille: arguments.random_faults,
                faults: arguments.fault_kinds,
            }),
            body_limit: arguments.body_limit,
            retry_after: None,
        },
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
