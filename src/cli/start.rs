//! `rust-eland start`.

use clap::Args;

use super::arguments::ConnectionArguments;
use super::report::ReportArguments;
use super::start_arguments::StartArguments;
use crate::elasticsearch::{Client, ServedId};
use crate::error::Error;
use crate::progress::Progress;

#[derive(Debug, Args)]
pub(super) struct StartModelArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    report: ReportArguments,
    /// The model
    #[arg(value_name = "ID")]
    model_id: ServedId,
    #[command(flatten)]
    start: StartArguments,
}

impl StartModelArguments {
    pub(super) async fn execute(self, progress: Progress) -> Result<(), Error> {
        self.start.options()?;
        let client = Client::connect(self.connection.connection()?).await?;
        let stop = async {
            // Where Ctrl-C cannot be listened to, it ends the program itself.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let started = self.start.start(&client, &self.model_id, progress, stop).await?;
        self.report.print(&started)
    }
}
