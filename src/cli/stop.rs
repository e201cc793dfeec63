//! `rust-eland stop`.

use clap::Args;
use serde::Serialize;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments};
use crate::elasticsearch::{Client, DeploymentError, ServedId};

#[derive(Debug, Args)]
pub(super) struct StopArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// Id of the model, to stop all its deployments, or of one deployment
    #[arg(value_name = "ID")]
    id: ServedId,
    /// Stop only this deployment of the model
    #[arg(long, value_name = "ID")]
    deployment_id: Option<ServedId>,
    /// Stop the deployments even if ingest pipelines or inference endpoints use them. The pipelines and endpoints will fail
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Stopped {
    model_id: String,
    stopped: Vec<String>,
}

impl StopArguments {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        let model = client.report(&self.id).await?;
        let mut ids: Vec<_> = model.deployments.into_iter().map(|one| one.deployment_id).collect();
        // The server distinguishes the id of a model from that of a deployment: for the latter it returns only this deployment.
        if let Some(wanted) = &self.deployment_id {
            ids.retain(|id| id == wanted.as_str());
            if ids.is_empty() {
                let id = wanted.clone();
                return Err(DeploymentError::NotFound { what: "deployment", id }.into());
            }
        }
        let mut stopped = Vec::new();
        for id in ids {
            let served = id.parse().map_err(|_| {
                CommandError::Usage(format!(
                    "the cluster returned an invalid deployment id: {id:?}"
                ))
            })?;
            client.stop_deployment(&served, self.force).await?;
            tracing::info!("stopped {id}");
            stopped.push(id);
        }
        self.report.print(&Stopped { model_id: model.model_id, stopped })
    }
}

impl Report for Stopped {
    fn text(&self) -> String {
        if self.stopped.is_empty() {
            return format!("{} is not deployed", self.model_id);
        }
        let lines: Vec<_> = self.stopped.iter().map(|id| format!("{id} stopped")).collect();
        lines.join("\n")
    }
}
