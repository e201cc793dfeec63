//! `rust-eland pipeline`.

use clap::{Args, Subcommand};

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::pipeline_report::PipelineReport;
use super::report::ReportArguments;
use crate::elasticsearch::{Client, FieldName, PipelineId, PipelineRequest, ServedId};

#[derive(Debug, Args)]
pub(super) struct PipelineArguments {
    #[command(subcommand)]
    command: PipelineCommand,
}

#[derive(Debug, Subcommand)]
enum PipelineCommand {
    /// Create an ingest pipeline that adds the result of a model to each document
    #[command(after_help = super::exit_codes())]
    Create(Box<CreatePipelineArguments>),
}

#[derive(Debug, Args)]
struct CreatePipelineArguments {
    /// Id of the pipeline
    #[arg(value_name = "PIPELINE")]
    id: PipelineId,
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Id of the model, which must be started, or of one of its deployments. Tree models need no start
    #[arg(long, value_name = "ID")]
    es_model_id: ServedId,
    /// Field of the documents that contains the text [default: body]. Tree models read the fields of their features
    #[arg(long, value_name = "FIELD")]
    input_field: Option<FieldName>,
    /// Field for the result, which is an object [default: ml. and the id of the model]
    #[arg(long, value_name = "FIELD")]
    output_field: Option<FieldName>,
    /// Labels to choose from, separated by commas (zero_shot_classification)
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Replace another pipeline with this id
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    report: ReportArguments,
}

impl PipelineArguments {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        match self.command {
            PipelineCommand::Create(arguments) => arguments.execute().await,
        }
    }
}

impl CreatePipelineArguments {
    async fn execute(self) -> Result<(), CommandError> {
        let mut request = PipelineRequest::new(self.id);
        request.input_field = self.input_field;
        request.output_field = self.output_field;
        request.labels = self.labels;
        request.force = self.force;
        let client = Client::connect(self.connection.connection()?).await?;
        let created = request.create(&client, &self.es_model_id).await?;
        self.report.print(&PipelineReport::of(created))
    }
}
