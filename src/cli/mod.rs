//! The command line: one file a subcommand.

mod arguments;
mod command_line;
mod export;
mod import;
mod logging;
mod password;

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::Error;

/// Imports Hugging Face transformers into Elasticsearch as served models.
#[derive(Debug, Parser)]
#[command(name = "rust-eland", version, about, arg_required_else_help = true)]
struct Cli {
    /// Trace every request to the cluster on standard error, without secrets
    #[arg(long, global = true)]
    debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a served model of a Hugging Face model, or of an exported bundle
    Import(import::ImportArguments),
    /// Write the bundle to a folder instead of uploading it
    Export(export::ExportArguments),
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
    let (debug, command) = if name.is_some_and(|name| name == ELAND) {
        let command =
            <import::ImportArguments as clap::Args>::augment_args(clap::Command::new(ELAND));
        let command = command.version(env!("CARGO_PKG_VERSION")).arg_required_else_help(true);
        let debug = clap::Arg::new("debug").long("debug").action(clap::ArgAction::SetTrue);
        let debug =
            debug.help("Trace every request to the cluster on standard error, without secrets");
        let matches = command.arg(debug).get_matches_from(arguments);
        let command = Command::Import(
            import::ImportArguments::from_arg_matches(&matches).unwrap_or_else(|e| e.exit()),
        );
        (matches.get_flag("debug"), command)
    } else {
        let Cli { debug, command } = Cli::parse_from(arguments);
        (debug, command)
    };
    logging::start(debug);
    match command {
        Command::Import(arguments) => arguments.execute().await,
        Command::Export(arguments) => arguments.execute(),
    }
}

/// The command line's definition, for checks and documentation.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}
