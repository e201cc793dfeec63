//! `rust-eland inspect`.

use clap::Args;

use super::arguments::{ConnectionArguments, ModelArguments};
use super::command_error::CommandError;
use super::plan_report::PlanReport;
use super::report::ReportArguments;
use crate::elasticsearch::Client;
use crate::version::Target;

#[derive(Debug, Args)]
#[command(mut_arg("hub_model_id", |argument| argument.required(true)))]
#[command(mut_group("cluster", |group| group.required(false)))]
pub(super) struct InspectArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    report: ReportArguments,
}

impl InspectArguments {
    /// Prints what an import would do. Fails, after that, if it would.
    pub(super) async fn execute(self) -> Result<(), CommandError> {
        let source = self.model.source()?;
        let model_id = self.model.model_id()?;
        let client = match self.connection.is_given() {
            true => Some(Client::connect(self.connection.connection()?).await?),
            false => None,
        };
        let target = client.as_ref().map_or(Target::Any, Client::target);
        let model = self.model.request(source.resolve().await?)?;
        let (plan, origin) = (model.plan(target).await?, model.source.origin());
        let options = self.model.as_options();
        let command = format!("rust-eland import{options}{}", self.connection.as_option());
        let mut page = PlanReport::of_plan(model_id, model.title, origin, plan);
        page.next = Some(command);
        if let Some(client) = &client {
            page.look_at(client, None).await;
        }
        self.report.print(&page)?;
        page.into_result()
    }
}
