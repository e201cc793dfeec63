//! `rust-eland inspect`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::{ConnectionArguments, ModelArguments};
use super::command_error::CommandError;
use super::plan_report::PlanReport;
use super::report::ReportArguments;
use crate::elasticsearch::Client;
use crate::version::Target;
use crate::workflow::ModelRequest;
use crate::workflow::token_comparison::{SummaryError, TextsSummary, TokenComparison};

#[derive(Debug, Args)]
#[command(mut_arg("hub_model_id", |argument| argument.required(true)))]
#[command(mut_group("cluster", |group| group.required(false)))]
pub(super) struct InspectArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// A file with one text per line (a tab separates the texts of a pair): show which texts Elasticsearch tokenizes differently from
    /// the model's own tokenizer
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
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
        let texts = match &self.texts {
            Some(path) => Some(summary(&model, path).await?),
            None => None,
        };
        let options = self.model.as_options();
        let command = format!("rust-eland import{options}{}", self.connection.as_option());
        let mut page = PlanReport::of_plan(model_id, model.title, origin, plan);
        page.next = Some(command);
        page.texts = texts;
        if let Some(client) = &client {
            page.look_at(client, None).await;
        }
        self.report.print(&page)?;
        page.into_result()
    }
}

/// Compares the tokens of a file's texts.
async fn summary(model: &ModelRequest, path: &Path) -> Result<TextsSummary, CommandError> {
    let unreadable =
        |error| CommandError::Usage(format!("cannot read {}: {error}", path.display()));
    let file = BufReader::new(File::open(path).map_err(unreadable)?);
    let tokenizers = TokenComparison::of_model(&model.source, model.options.clone()).await?;
    if !tokenizers.has_model() {
        let message = "the model has no tokenizer.json to compare the texts with; remove --texts";
        return Err(CommandError::Usage(message.into()));
    }
    tokenizers.summary(file).map_err(|error| match error {
        SummaryError::Read(error) => unreadable(error),
        SummaryError::Model(error) => error.into(),
    })
}
