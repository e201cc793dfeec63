//! `rust-eland delete`.

use clap::Args;
use serde::Serialize;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments};
use crate::elasticsearch::{Client, ServedId};

#[derive(Debug, Args)]
pub(super) struct DeleteArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// Id of the model
    #[arg(value_name = "ID")]
    model_id: ServedId,
    /// Delete the model even if it is deployed, or if ingest pipelines or inference endpoints use it. The pipelines and endpoints will fail
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Deleted {
    model_id: String,
    deleted: bool,
}

impl DeleteArguments {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        client.delete_model(&self.model_id, self.force).await?;
        self.report.print(&Deleted { model_id: self.model_id.to_string(), deleted: true })
    }
}

impl Report for Deleted {
    fn text(&self) -> String {
        format!("{} deleted", self.model_id)
    }
}
