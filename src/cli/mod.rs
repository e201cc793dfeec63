//! The command line: one file a subcommand.

mod arguments;
mod command_line;
mod definition;
mod delete;
mod download;
mod export;
mod import;
mod inspect;
mod list;
mod output;
mod page;
mod password;
mod quantize;
mod report;
mod source;
mod start;
mod start_arguments;
mod status;
mod stop;
mod units;
mod upload;

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::OutputArguments;
use crate::error::Error;

/// Imports Hugging Face transformers into Elasticsearch as served models.
#[derive(Debug, Parser)]
#[command(name = "rust-eland", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    output: OutputArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a served model of a Hugging Face model, or of an exported bundle
    Import(Box<import::ImportArguments>),
    /// Tell what a model is, what it can do, what it will need and what would be sent, and fetch no weights for it
    Inspect(Box<inspect::InspectArguments>),
    /// Write the bundle to a folder instead of uploading it
    Export(export::ExportArguments),
    /// Fetch a model from the hub into its cache, or to a folder for a machine without network
    Download(download::DownloadArguments),
    /// Show the cluster's models and how they are served
    List(list::ListArguments),
    /// Start a model that is in the cluster
    Start(start::StartModelArguments),
    /// Stop a model's deployments; the model stays
    Stop(stop::StopArguments),
    /// Delete a model from the cluster
    Delete(delete::DeleteArguments),
    /// Show whether a model is complete, where it runs, and why not
    Status(status::StatusArguments),
}

/// The name under which the program takes eland's options without a subcommand.
const ELAND: &str = "eland_import_hub_model";

/// Reads the command line and does what it says.
///
/// # Errors
/// Whatever goes wrong; usage errors of clap and `--help` end the process themselves.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_stem());
    command_line::conceal(&arguments);
    let Cli { output, command } = if name.is_some_and(|name| name == ELAND) {
        let command = clap::Command::new(ELAND).version(env!("CARGO_PKG_VERSION"));
        let command = OutputArguments::augment_args(import::ImportArguments::augment_args(command));
        let matches = command.arg_required_else_help(true).get_matches_from(arguments);
        let parsed = import::ImportArguments::from_arg_matches(&matches)
            .and_then(|import| Ok((OutputArguments::from_arg_matches(&matches)?, import)));
        let (output, import) = parsed.unwrap_or_else(|e| e.exit());
        Cli { output, command: Command::Import(Box::new(import)) }
    } else {
        Cli::parse_from(arguments)
    };
    let _stopwatch = output.start_logging();
    let progress = output.progress();
    match command {
        Command::Import(arguments) => arguments.execute(progress).await,
        Command::Inspect(arguments) => arguments.execute().await,
        Command::Export(arguments) => arguments.execute(progress).await,
        Command::Download(arguments) => arguments.execute(progress).await,
        Command::List(arguments) => arguments.execute().await,
        Command::Start(arguments) => arguments.execute(progress).await,
        Command::Stop(arguments) => arguments.execute().await,
        Command::Delete(arguments) => arguments.execute().await,
        Command::Status(arguments) => arguments.execute().await,
    }
}

/// The command line's definition, for checks and documentation.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}
