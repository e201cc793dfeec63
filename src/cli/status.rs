//! `rust-eland status`.

use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::{Report, ReportArguments, cell, table};
use crate::elasticsearch::{Client, Deployment, DeploymentError, ModelReport, ServedId, State};
use crate::hint::{Command, Hint, hint};

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// Id of the model or of a deployment
    #[arg(value_name = "ID")]
    id: ServedId,
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    model: ModelReport,
    /// Whether at least one deployment is running and none has failed.
    served: bool,
}

impl StatusArguments {
    /// Prints the status. Returns an error if the model is not served.
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let client = Client::connect(self.connection.connection()?).await?;
        let model = client.report(&self.id).await?;
        let problem = problem(&model);
        self.report.print(&Status { model, served: problem.is_none() })?;
        match problem {
            Some((reason, hint)) => Err(DeploymentError::NotServed { reason, hint }.into()),
            None => Ok(()),
        }
    }
}

/// Why a model is not served, and a suggestion.
fn problem(model: &ModelReport) -> Option<(String, Option<Hint>)> {
    let id = &model.model_id;
    if model.definition_complete == Some(false) {
        let hint = hint!("Import the model again.");
        return Some((format!("the upload of {id} is not complete"), Some(hint)));
    }
    if !model.needs_deployment() {
        return None;
    }
    let failed = |deployment: &&Deployment| deployment.state == State::Failed;
    if let Some(failed) = model.deployments.iter().find(failed) {
        let deployment = &failed.deployment_id;
        let stop = Command::Stop(Some(deployment.clone()));
        let hint = hint!("Stop the failed deployment before the next start: ", stop, ".");
        let hint = failed.hint().into_iter().chain([hint]).reduce(Hint::and);
        return Some((format!("the deployment {deployment} has failed"), hint));
    }
    if model.deployments.iter().any(Deployment::answers) {
        return None;
    }
    match model.deployments.first() {
        None => {
            let start = Command::Start(Some(id.clone()));
            Some((
                format!("{id} is not deployed"),
                Some(hint!("Start the model with ", start, ".")),
            ))
        }
        Some(deployment) => {
            let (name, state) = (&deployment.deployment_id, deployment.state.name());
            let reason = format!("the deployment {name} does not answer yet: its state is {state}");
            Some((reason, deployment.hint()))
        }
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let model = &self.model;
        let complete =
            model.definition_complete.map(|whole| if whole { "complete" } else { "INCOMPLETE" });
        let hub = model.hub_model_id.as_ref().map(|hub| match &model.hub_commit {
            Some(commit) => format!("{hub} at {commit}"),
            None => hub.clone(),
        });
        let trees = model.trees.map(|trees| match model.nodes {
            Some(nodes) => format!("{trees}, with {nodes} nodes"),
            None => trees.to_string(),
        });
        let facts = [
            ("model", model.model_id.clone()),
            ("type", cell(model.model_type.as_ref())),
            ("task", cell(model.task.as_ref())),
            ("size", cell(model.size_bytes.map(HumanBytes))),
            ("objective", cell(model.objective.as_ref())),
            ("trees", cell(trees)),
            ("hub", cell(hub)),
            ("definition", cell(complete)),
            ("pipelines", cell(model.pipelines)),
        ];
        let mut text: Vec<String> = facts
            .iter()
            .filter(|(_, fact)| !fact.is_empty())
            .map(|(name, fact)| format!("{name:12}{fact}"))
            .collect();
        if model.deployments.is_empty() && !model.needs_deployment() {
            return text.join("\n");
        }
        if model.deployments.is_empty() {
            text.push(format!("{:12}none", "deployments"));
            return text.join("\n");
        }
        let rows: Vec<_> = model.deployments.iter().map(deployment_row).collect();
        let header =
            ["DEPLOYMENT", "STATE", "ALLOCATIONS", "THREADS", "PRIORITY", "QUEUE", "CACHE"];
        text.push(format!("\n{}", table(header, &rows)));
        let rows: Vec<_> = model.deployments.iter().flat_map(node_rows).collect();
        if !rows.is_empty() {
            let header = ["NODE", "DEPLOYMENT", "STATE", "ALLOCATIONS", "ANSWERED", "MS/TEXT"];
            text.push(format!("\n{}", table(header, &rows)));
        }
        for deployment in &model.deployments {
            for reason in deployment.reasons() {
                text.push(format!("\n{}: {reason}", deployment.deployment_id));
            }
        }
        text.join("\n")
    }
}

fn deployment_row(deployment: &Deployment) -> [String; 7] {
    let limit = |name: &str| deployment.adaptive_allocations.as_ref()?.get(name)?.as_u64();
    let mut allocations = format!("{}/{}", deployment.allocations, deployment.target_allocations);
    if deployment.adaptive_allocations.is_some() {
        let least = limit("min_number_of_allocations").unwrap_or(0);
        let most = limit("max_number_of_allocations").map_or("".into(), |most| most.to_string());
        allocations += &format!(" (adaptive {least}..{most})");
    }
    [
        deployment.deployment_id.clone(),
        deployment.state.name().to_owned(),
        allocations,
        cell(deployment.threads_per_allocation),
        cell(deployment.priority.as_ref()),
        cell(deployment.queue_capacity),
        cell(deployment.cache_size.as_ref()),
    ]
}

fn node_rows(deployment: &Deployment) -> Vec<[String; 6]> {
    let row = |node: &crate::elasticsearch::Node| {
        [
            node.name.as_ref().unwrap_or(&node.id).clone(),
            deployment.deployment_id.clone(),
            node.state.name().to_owned(),
            cell(node.allocations),
            node.inference_count.to_string(),
            cell(node.average_inference_time_ms.map(|time| format!("{time:.1}"))),
        ]
    };
    deployment.nodes.iter().map(row).collect()
}
