//! `rust-eland delete`.

use clap::Args;
use serde::Serialize;

use super::cluster_arguments::ClusterArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments};
use crate::elasticsearch::{Client, KibanaSync, ServedId};

#[derive(Debug, Args)]
pub(super) struct DeleteArguments {
    #[command(flatten)]
    connection: ClusterArguments,
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
    /// The synchronization of Kibana, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    kibana: Option<KibanaSync>,
}

impl DeleteArguments {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        client.delete_model(&self.model_id, self.force).await?;
        let kibana = client.synchronize_kibana().await;
        self.report.print(&Deleted { model_id: self.model_id.to_string(), deleted: true, kibana })
    }
}

impl Report for Deleted {
    fn text(&self) -> String {
        format!("{} deleted", self.model_id)
    }
}
