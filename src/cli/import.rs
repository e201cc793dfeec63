//! `rust-eland import`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::arguments::{ConnectionArguments, ModelArguments};
use crate::bundle::Bundle;
use crate::elasticsearch::{Client, Import, check_free};
use crate::error::Error;
use crate::models::AttentionForm;
use crate::progress::Progress;
use crate::version::Version;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "bundle"]))]
pub(super) struct ImportArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// Import what `rust-eland export` wrote: the path of its ID.metadata.json
    #[arg(long, value_name = "PATH", conflicts_with_all = [
        "task_type", "ingest_prefix", "search_prefix", "max_model_input_length", "quantize"])]
    bundle: Option<PathBuf>,
    /// Start the model after the upload
    #[arg(long)]
    start: bool,
    /// Delete a model of the same id first
    #[arg(long)]
    clear_previous: bool,
}

impl ImportArguments {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let progress = Progress::default();
        let exported = match &self.bundle {
            Some(path) => Some(Bundle::read(path, self.model.es_model_id.clone())?),
            None => None,
        };
        let model_id = match &exported {
            Some(bundle) => bundle.model_id.clone(),
            None => self.model.model_id()?,
        };
        let client = Client::connect(self.connection.connection()?).await?;
        tracing::info!("connected to Elasticsearch {}", client.version());
        client.check_licence().await?;
        if !self.clear_previous {
            check_free(&client, &model_id).await?;
        }
        let bundle = match exported {
            Some(bundle) => bundle,
            None => {
                let fused = client.supports(Version::FUSED_ATTENTION);
                let form = if fused { AttentionForm::Fused } else { AttentionForm::Plain };
                let conversion = self.model.convert(form)?;
                let title = self.model.title()?;
                Bundle::create(&conversion, model_id.clone(), &title, progress)?
            }
        };
        let import = Import { clear_previous: self.clear_previous, start: self.start };
        import.run(&client, &bundle, progress).await?;
        let state = if self.start { "started" } else { "stored" };
        tracing::info!("definition sha256 {}", bundle.definition.sha256);
        println!("{model_id} {state}");
        Ok(())
    }
}
