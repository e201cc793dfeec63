//! `rust-eland import`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::arguments::{ConnectionArguments, ModelArguments};
use super::definition::DefinitionArguments;
use super::page::Page;
use super::report::{Report, ReportArguments};
use super::source::Source;
use super::start_arguments::StartArguments;
use super::upload::UploadArguments;
use crate::bundle::{Bundle, Given};
use crate::elasticsearch::{Client, ClientError, Interruption, Outcome};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::progress::Progress;
use crate::timings::stage;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "bundle", "definition"]))]
#[command(mut_args(StartArguments::requiring_start))]
pub(super) struct ImportArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// Import what `rust-eland export` wrote: the path of its ID.metadata.json
    #[arg(long, value_name = "PATH", conflicts_with_all = [
        "revision", "task_type", "ingest_prefix", "search_prefix", "max_model_input_length", "quantize",
        "no_verify", "prompts"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    definition: DefinitionArguments,
    #[command(flatten)]
    upload: UploadArguments,
    /// Look at model and cluster, check all that can be checked, and tell what would be done; fetch no weights, store nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    report: ReportArguments,
    /// Start the model after the upload
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    start_arguments: StartArguments,
}

/// What is imported.
enum Input {
    Bundle(Bundle),
    Definition(Given),
    Model(Source),
}

impl ImportArguments {
    pub(super) async fn execute(self, progress: Progress) -> Result<(), Error> {
        // Before the cluster is asked: what is wrong with the options need not wait for it.
        let given = self.definition.read(self.model.es_model_id.as_ref())?;
        let (input, model_id) = match (&self.bundle, given) {
            (Some(path), _) => {
                let bundle = Bundle::read(path, self.model.es_model_id.clone())?;
                let id = bundle.model_id.clone();
                (Input::Bundle(bundle), id)
            }
            (None, Some(given)) => {
                let id = given.model_id.clone();
                (Input::Definition(given), id)
            }
            (None, None) => (Input::Model(self.model.source()?), self.model.model_id()?),
        };
        let start = self.start.then(|| self.start_arguments.options()).transpose()?;

        // The first look.
        let look = stage("looking at the cluster");
        let client = Client::connect(self.connection.connection()?).await?;
        tracing::info!("connected to Elasticsearch {}", client.version());
        if let Some(start) = &start {
            start.check_for(&client)?;
        }
        let import = self.upload.import();
        if self.dry_run {
            let begun = import.begin(&client, &model_id).await;
            return self.tell(input, model_id, &client, begun.err().map(Error::from)).await;
        }
        let transaction = import.begin(&client, &model_id).await?;
        drop(look);

        // Everything that needs no cluster.
        let bundle = match input {
            Input::Bundle(bundle) => {
                client.require(bundle.minimum_version)?;
                bundle.check_for(client.target())?;
                bundle
            }
            Input::Definition(given) => {
                client.require(given.minimum_version())?;
                given.bundle(client.target())?
            }
            Input::Model(source) => {
                let conversion = self.model.convert(&source, client.target(), progress).await?;
                client.require(conversion.minimum_version())?;
                let title = self.model.title()?;
                Bundle::create(&conversion, model_id.clone(), &title, progress)?
            }
        };

        // The second look and the upload. From here on the cluster is changed, so that Ctrl-C is ours to answer.
        let interruption = Interruption::of_signals(|| {
            tracing::warn!("stopping; once more (Ctrl-C) to stop at once");
        })
        .map_err(|error| ClientError::Signals(error.to_string()))?;
        let outcome = transaction.run(&bundle, progress, &interruption).await?;
        tracing::info!("definition sha256 {}", bundle.definition.sha256);

        let Some(mut start) = start else {
            let state = match outcome {
                Outcome::Stored => "stored",
                Outcome::Unchanged => "unchanged",
            };
            println!("{model_id} {state}");
            return Ok(());
        };
        // Whoever imports the same model again finds it started.
        start.adopt = outcome == Outcome::Unchanged;
        let id = (&model_id).into();
        let started = self.start_arguments.start(&start, &client, &id, progress, interruption);
        println!("{}", started.await?.text());
        Ok(())
    }

    /// Prints what would be done. Fails, after that, if it would fail.
    async fn tell(
        &self,
        input: Input,
        model_id: ModelId,
        client: &Client,
        problem: Option<Error>,
    ) -> Result<(), Error> {
        let target = client.target();
        let mut page = match input {
            Input::Bundle(bundle) => {
                bundle.check_for(target)?;
                Page::of_bundle(&bundle)
            }
            Input::Definition(given) => Page::of_bundle(&given.bundle(target)?),
            Input::Model(source) => {
                let (plan, origin) = self.model.plan(&source, target).await?;
                Page::of_plan(model_id, self.model.title()?, origin, plan)
            }
        };
        page.look_at(client, problem).await;
        self.report.print(&page)?;
        page.into_result()
    }
}
