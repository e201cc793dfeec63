//! The stand-in as a program: prints one line when it is ready, and stops on SIGTERM or Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use standin::{BuildFlavor, Credential, Fault, Faults, Options, Random, Rule, StandIn, Version};
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
    /// Takes in parts of definitions without looking at them or keeping them: for measuring.
    #[arg(long)]
    discard_parts: bool,
    /// Lets requests fail, such as part-3@1=store-503 (its first try is stored and yet fails), any@20-40=503, create=store-cut or
    /// part@7=restart-200ms; may be repeated.
    #[arg(long, value_name = "TARGET[@NUMBERS]=FAULT")]
    fault: Vec<Rule>,
    /// Lets so many of 1,000 requests fail at random.
    #[arg(long, value_name = "PER_MILLE", default_value_t = 0)]
    random_faults: u32,
    /// Which requests those are.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    fault_seed: u64,
    /// Which faults happen at random.
    #[arg(
        long,
        value_name = "FAULT",
        value_delimiter = ',',
        default_value = "500,503,store-500,store-503,breaker,rejected,502,504,cut,store-cut,cut-body,cut-answer,slow-20ms"
    )]
    fault_kinds: Vec<Fault>,
    /// Plays a proxy that refuses bodies of more bytes with 413 and a page.
    #[arg(long, value_name = "BYTES")]
    body_limit: Option<u64>,
    /// How long a stored part stays invisible, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    refresh_interval: u64,
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
