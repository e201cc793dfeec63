//! `rust-eland list`.

use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments, cell, table};
use crate::elasticsearch::{Client, ModelReport};

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// Show only models with a matching id, such as 'sentence-transformers__*'
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// Has no effect: all models are listed
    #[arg(long, hide = true)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct List {
    models: Vec<ModelReport>,
}

/// Number of characters of an abbreviated commit.
const SHORT_COMMIT: usize = 12;

impl ListArguments {
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        let models = client.reports(self.pattern.as_deref()).await?;
        self.report.print(&List { models })
    }
}

impl Report for List {
    fn text(&self) -> String {
        let mut rows = Vec::new();
        for model in &self.models {
            let row = |deployment: String, state: &str, allocations: String| {
                [
                    model.model_id.clone(),
                    cell(model.model_type.as_ref()),
                    cell(model.task.as_ref()),
                    cell(model.size_bytes.map(HumanBytes)),
                    deployment,
                    state.to_owned(),
                    allocations,
                    cell(model.hub_model_id.as_ref()),
                    cell(
                        model
                            .hub_commit
                            .as_ref()
                            .map(|commit| commit.chars().take(SHORT_COMMIT).collect::<String>()),
                    ),
                ]
            };
            if model.deployments.is_empty() {
                let state = if model.needs_deployment() { "not deployed" } else { "" };
                rows.push(row(String::new(), state, String::new()));
            }
            for deployment in &model.deployments {
                let id = &deployment.deployment_id;
                rows.push(row(
                    if *id == model.model_id { String::new() } else { id.clone() },
                    deployment.state.name(),
                    format!("{}/{}", deployment.allocations, deployment.target_allocations),
                ));
            }
        }
        if rows.is_empty() {
            return "no models".to_owned();
        }
        let header = [
            "MODEL",
            "TYPE",
            "TASK",
            "SIZE",
            "DEPLOYMENT",
            "STATE",
            "ALLOCATIONS",
            "HUB ID",
            "COMMIT",
        ];
        table(header, &rows)
    }
}
