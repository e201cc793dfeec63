//! `rust-eland start`.

use clap::Args;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::report::ReportArguments;
use super::signals::interruption;
use super::start_arguments::StartArguments;
use crate::elasticsearch::{Client, ServedId};
use crate::observer::Progress;

#[derive(Debug, Args)]
pub(super) struct StartModelArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// Id of the model
    #[arg(value_name = "ID")]
    model_id: ServedId,
    #[command(flatten)]
    start: StartArguments,
}

impl StartModelArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let request = self.start.request()?;
        let client = Client::connect(self.connection.connection()?).await?;
        let interruption = interruption(|| {})?;
        let started = request.start(&client, &self.model_id, progress, interruption).await?;
        self.report.print(&started)
    }
}
