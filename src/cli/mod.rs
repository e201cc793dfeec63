//! The command line. Each subcommand has its own file.

mod apply;
mod arguments;
mod bundle_report;
mod check;
mod cluster_arguments;
mod command_error;
mod command_line;
mod completions;
mod definition;
mod delete;
mod download;
mod exit_code;
mod export;
mod failed;
mod guided;
mod guided_answers;
mod guided_options;
mod hints;
mod import;
mod infer;
mod infer_report;
mod infer_texts;
mod input;
mod inspect;
mod list;
mod log;
mod man;
mod memory_suggestions;
mod models_file;
mod option_rules;
mod option_value;
mod output;
mod page;
mod password;
mod pipeline;
mod pipeline_arguments;
mod pipeline_report;
mod plan_report;
mod plots;
mod progress_bars;
mod progress_log;
mod quantize;
mod questions;
mod report;
mod scripts_arguments;
mod sheet;
mod signals;
mod similar;
mod source;
mod start;
mod start_arguments;
mod status;
mod stop;
mod suggestions;
mod summary;
mod task_type;
mod timings;
mod tokenize;
mod tree_documents;
mod tree_model;
mod tree_model_report;
mod tree_predictions;
mod units;
mod upload;
mod verify;
#[cfg(feature = "torch")]
mod verify_report;

use std::ffi::OsString;
use std::path::Path;
use std::sync::LazyLock;

use build_info::{COMMIT, LIBTORCH, TARGET};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::command_error::CommandError;
pub use self::exit_code::{EXIT_CODES, INTERRUPTED, of_library as exit_code};
pub use self::failed::Failed;
use self::output::{OutputArguments, Session};

/// Import Hugging Face models and tree models into Elasticsearch
#[derive(Debug, Parser)]
#[command(name = NAME, version = VERSION, long_version = LONG_VERSION.as_str(), about, arg_required_else_help = true, after_help = exit_codes())]
struct Cli {
    #[command(flatten)]
    output: OutputArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Import a Hugging Face model, or an exported bundle, into Elasticsearch
    #[command(after_help = exit_codes())]
    Import(Box<import::ImportArguments>),
    /// Check what a cluster and your credentials can do: connection, licence, privileges, nodes and versions
    #[command(after_help = exit_codes())]
    Check(check::CheckArguments),
    /// Show a model's architecture, tasks and memory needs without downloading its weights
    Inspect(Box<inspect::InspectArguments>),
    /// Import every model listed in a file, skipping those that are already up to date
    #[command(after_help = exit_codes())]
    Apply(Box<apply::ApplyArguments>),
    /// Show the tokens that Elasticsearch computes, beside those of the model's own tokenizer
    Tokenize(Box<tokenize::TokenizeArguments>),
    /// Convert a model and write the bundle to a folder instead of uploading it
    Export(Box<export::ExportArguments>),
    /// Download a model from the hub into the cache or to a folder
    Download(download::DownloadArguments),
    /// List the models in the cluster and their deployments
    List(list::ListArguments),
    /// Start a model that is stored in the cluster
    Start(start::StartModelArguments),
    /// Show the results of a model for your texts, locally or in the cluster
    #[command(after_help = exit_codes())]
    Infer(Box<infer::InferArguments>),
    /// Stop the deployments of a model and keep the model
    Stop(stop::StopArguments),
    /// Create ingest pipelines that use a model
    Pipeline(pipeline::PipelineArguments),
    /// Compare a model's answers in the cluster with those of its source
    #[command(after_help = exit_codes())]
    Verify(Box<verify::VerifyArguments>),
    /// Delete a model from the cluster
    Delete(delete::DeleteArguments),
    /// Show whether a model is complete and where it is deployed
    Status(status::StatusArguments),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArguments),
    /// Print a manual page, or write all manual pages to a folder
    Man(man::ManArguments),
}

/// Name of the program.
const NAME: &str = "rust-eland";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version, commit and libtorch of the build.
static LONG_VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{VERSION}\ncommit {COMMIT}\nlibtorch {LIBTORCH}\ntarget {TARGET}"));

/// Name under which the program accepts eland's options without a subcommand.
const ELAND: &str = "eland_import_hub_model";

/// Parses the command line and runs the command.
///
/// # Errors
/// The error of the command. Invalid arguments and `--help` end the process.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failed> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_stem());
    command_line::conceal(&arguments);
    if guided::is_wanted(&arguments) {
        return guided(OutputArguments::default()).await;
    }
    let parsed = if name.is_some_and(|name| name == ELAND) {
        as_eland(&arguments)
    } else {
        Cli::try_parse_from(&arguments)
    };
    let Cli { output, command } = parsed.unwrap_or_else(|error| failed::exit(&error, &arguments));
    let session = output.start();
    let done = command.execute(&session).await;
    done.map_err(|error| output.failed(error))
}

/// Asks for the model to import, and imports it.
async fn guided(output: OutputArguments) -> Result<(), Failed> {
    let session = output.start();
    let work = async {
        match guided::ask(&session.progress).await? {
            Some(import) => import.execute(&session).await,
            None => Ok(()),
        }
    };
    work.await.map_err(|error| output.failed(error))
}

/// Parses eland's options.
fn as_eland(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let command = clap::Command::new(ELAND).version(VERSION).long_version(LONG_VERSION.as_str());
    let command = import::ImportArguments::augment_args(command).after_help(exit_codes());
    let command = OutputArguments::augment_args(command).arg_required_else_help(true);
    let matches = command.try_get_matches_from(arguments)?;
    let import = import::ImportArguments::from_arg_matches(&matches)?;
    let output = OutputArguments::from_arg_matches(&matches)?;
    Ok(Cli { output, command: Command::Import(Box::new(import)) })
}

impl Command {
    async fn execute(self, session: &Session) -> Result<(), CommandError> {
        let Session { progress, .. } = session;
        match self {
            Self::Check(arguments) => arguments.execute().await,
            Self::Import(arguments) => arguments.execute(session).await,
            Self::Inspect(arguments) => arguments.execute(progress).await,
            Self::Infer(arguments) => arguments.execute(progress).await,
            Self::Verify(arguments) => arguments.execute(progress).await,
            Self::Apply(arguments) => arguments.execute(progress).await,
            Self::Tokenize(arguments) => arguments.execute().await,
            Self::Export(arguments) => arguments.execute(progress).await,
            Self::Download(arguments) => arguments.execute(progress).await,
            Self::List(arguments) => arguments.execute().await,
            Self::Start(arguments) => arguments.execute(progress).await,
            Self::Stop(arguments) => arguments.execute().await,
            Self::Pipeline(arguments) => arguments.execute().await,
            Self::Delete(arguments) => arguments.execute().await,
            Self::Status(arguments) => arguments.execute().await,
            Self::Completions(arguments) => arguments.execute(),
            Self::Man(arguments) => arguments.execute(),
        }
    }
}

/// The exit codes, for the end of a help text.
fn exit_codes() -> String {
    let lines = EXIT_CODES.iter().map(|(code, meaning)| format!("\n  {code:<3}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

/// The definition of the command line, for tests and documentation.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}
