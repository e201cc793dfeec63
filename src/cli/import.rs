//! `rust-eland import`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::{Map, Value};

use super::arguments::{ConnectionArguments, ModelArguments};
use super::bundle_report::BundleReport;
use super::definition::DefinitionArguments;
use super::plan_report::PlanReport;
use super::report::ReportArguments;
use super::source::Source;
use super::start_arguments::{StartArguments, Started};
use super::suggestions::Suggestions;
use super::summary::Summary;
use super::timings::Timings;
use super::upload::{UploadArguments, interruption};
use crate::bundle::Bundle;
use crate::conversion::{Plan, SIMILARITY};
use crate::elasticsearch::{
    Client, ClientError, Connection, Endpoint, EndpointId, EndpointOutcome, EndpointTask,
    Interruption, Outcome,
};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::observer::{Progress, Stage};
use crate::prebuilt::{Inspected, PrebuiltDefinition};
use crate::version::Target;
use crate::workflow::import_fingerprint::fingerprint;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "bundle", "definition"]))]
#[command(mut_args(StartArguments::requiring_start))]
pub(super) struct ImportArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// Import what `rust-eland export` wrote: the path of its ID.metadata.json
    #[arg(long, value_name = "PATH", help_heading = "Model", conflicts_with_all = [
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
    /// Then create an inference endpoint of this id for the model, so that a semantic_text field can use it: for text_embedding,
    /// text_expansion and text_similarity (Elasticsearch 8.13 and later). It starts the model by itself, or uses the deployment of
    /// --start (8.18 and later)
    #[arg(long, value_name = "ID")]
    create_endpoint: Option<EndpointId>,
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
    Bundle(Bundle, Inspected),
    Definition(PrebuiltDefinition),
    Model(Source),
}

/// What an import shares with others.
#[derive(Debug, Default)]
pub(super) struct ImportContext {
    /// The way to the cluster, instead of what the options say.
    pub(super) connection: Option<Connection>,
    /// What stops the work at any time, instead of signals from the upload on.
    pub(super) interruption: Option<Interruption>,
    /// Whether to know by its recipe a model that is there, so that it need not be made again.
    pub(super) fingerprint: bool,
}

/// A model that has been imported.
#[derive(Debug)]
pub(super) struct Imported {
    pub(super) model_id: ModelId,
    pub(super) outcome: Outcome,
    pub(super) definition_sha256: Option<String>,
    /// How it was started, if it was to be.
    pub(super) started: Option<Started>,
    /// The bundle; nothing if it was not made, since the cluster has it.
    pub(super) made: Option<BundleReport>,
    /// Numbers that the model has learned, where the model itself was read.
    pub(super) parameters: Option<u64>,
    /// Its inference endpoint, if it was to have one.
    pub(super) endpoint: Option<(Endpoint, EndpointOutcome)>,
    /// What to try now.
    pub(super) next: Suggestions,
}

impl ImportArguments {
    pub(super) async fn execute(self, progress: &Progress, timings: &Timings) -> Result<(), Error> {
        let report = self.report.clone();
        let Some(imported) = self.run(ImportContext::default(), progress).await? else {
            return Ok(());
        };
        let summary = Summary::of(&imported, timings.report());
        report.print(&summary)?;
        tracing::info!("{}", summary.for_people());
        Ok(())
    }

    /// The way to the cluster. Asks for a password if a user is named without one.
    pub(super) fn connection(&self) -> Result<Connection, ClientError> {
        self.connection.connection()
    }

    /// The id that the model gets, as far as the options tell.
    pub(super) fn model_id(&self) -> Option<String> {
        self.model.model_id().ok().map(|id| id.to_string())
    }

    /// Imports a model, and starts it if asked. Returns nothing if only asked what it would do.
    pub(super) async fn run(
        self,
        context: ImportContext,
        progress: &Progress,
    ) -> Result<Option<Imported>, Error> {
        // Before the cluster is asked: what is wrong with the options need not wait for it.
        let given = self.definition.read(self.model.es_model_id.as_ref())?;
        let (input, model_id) = match (&self.bundle, given) {
            (Some(path), _) => {
                let bundle = Bundle::read(path, self.model.es_model_id.clone())?;
                let id = bundle.model_id.clone();
                let inspected = Inspected::of_bundle(&bundle)?;
                (Input::Bundle(bundle, inspected), id)
            }
            (None, Some(given)) => {
                let id = given.model_id.clone();
                (Input::Definition(given), id)
            }
            (None, None) => (Input::Model(self.model.source()?), self.model.model_id()?),
        };
        let start = self.start.then(|| self.start_arguments.options()).transpose()?;
        let endpoint = match &self.create_endpoint {
            Some(id) => Some(self.endpoint(id, &input, &model_id).await?),
            None => None,
        };

        // The first look.
        let checking = progress.start(Stage::CheckCluster);
        let connection = context.connection.map_or_else(|| self.connection(), Ok)?;
        let client = Client::connect(connection).await?;
        tracing::info!("connected to Elasticsearch {}", client.version());
        if let Some(start) = &start {
            start.check_for(&client)?;
        }
        let checked = match &endpoint {
            Some(endpoint) => endpoint.check(&client).await,
            None => Ok(false),
        };
        let import = self.upload.import();
        if self.dry_run {
            let begun = import.begin(&client, &model_id).await.map(drop).map_err(Error::from);
            let problem = checked.map_err(Error::from).and(begun).err();
            self.tell(input, model_id, &client, problem).await?;
            return Ok(None);
        }
        // Whether there is nothing to be done about an endpoint.
        let is_settled = checked? || endpoint.is_none();
        let mut transaction = import.begin(&client, &model_id).await?;
        checking.finish();

        // Everything that needs no cluster.
        let mut parameters = None;
        let bundle = match input {
            Input::Bundle(bundle, inspected) => {
                client.require(bundle.minimum_version)?;
                inspected.check_for(client.target())?;
                Some(bundle)
            }
            Input::Definition(given) => {
                client.require(given.minimum_version())?;
                Some(given.bundle(client.target())?)
            }
            Input::Model(source) => {
                let title = self.model.title()?;
                let target = client.target();
                if context.fingerprint {
                    let options = self.model.options(target, source.origin().await?);
                    if let Some(fingerprint) = fingerprint(source.folder(), &options, &title) {
                        transaction.set_fingerprint(fingerprint);
                    }
                }
                if is_settled && transaction.is_made().await? {
                    None
                } else {
                    let conversion = self.model.convert(&source, target, progress);
                    let conversion = match context.interruption.clone() {
                        None => conversion.await?,
                        Some(mut interruption) => tokio::select! {
                            conversion = conversion => conversion?,
                            () = interruption.requested() => return Err(ClientError::Interrupted.into()),
                        },
                    };
                    client.require(conversion.minimum_version())?;
                    parameters = Some(conversion.parameter_bytes() / 4);
                    Some(conversion.bundle(model_id.clone(), &title)?)
                }
            }
        };

        // The second look and the upload. From here on the cluster is changed, so that Ctrl-C is ours to answer.
        let interruption = context.interruption.map_or_else(interruption, Ok)?;
        let (outcome, definition_sha256) = match &bundle {
            None => transaction.leave(),
            Some(bundle) => {
                let outcome = transaction.run(bundle, progress, &interruption).await?;
                (outcome, Some(bundle.artifact.sha256.clone()))
            }
        };
        let made = bundle.as_ref().map(BundleReport::of);
        let configuration = bundle.map(|bundle| bundle.configuration).unwrap_or_default();

        let started = match start {
            None => None,
            Some(mut start) => {
                // Whoever imports the same model again finds it started.
                start.adopt = outcome == Outcome::Unchanged;
                let id = (&model_id).into();
                let arguments = &self.start_arguments;
                Some(arguments.start(&start, &client, &id, progress, interruption).await?)
            }
        };
        let endpoint = match endpoint {
            Some(mut endpoint) if made.is_some() => {
                let similarity = configuration.get("metadata").map(|it| &it[SIMILARITY]);
                endpoint.similarity = similarity.and_then(Value::as_str).map(str::to_owned);
                let creating = endpoint.create(&client);
                let outcome = progress.run_async(Stage::CreateEndpoint, creating).await?;
                Some((endpoint, outcome))
            }
            other => other.map(|endpoint| (endpoint, EndpointOutcome::Unchanged)),
        };
        let deployment_id = started.as_ref().map(|it| it.deployment.deployment_id.as_str());
        let of_endpoint = endpoint.as_ref().map(|(endpoint, _)| endpoint);
        let next = Suggestions::of(&model_id, &configuration, deployment_id, of_endpoint);
        Ok(Some(Imported {
            model_id,
            outcome,
            definition_sha256,
            started,
            made,
            parameters,
            endpoint,
            next,
        }))
    }

    /// The endpoint that is asked for. A task that has none is refused before any work.
    async fn endpoint(
        &self,
        id: &EndpointId,
        input: &Input,
        model_id: &ModelId,
    ) -> Result<Endpoint, Error> {
        let configured = |body: &Map<String, Value>| {
            Some(body.get("inference_config")?.as_object()?.keys().next()?.clone())
        };
        let task = match input {
            Input::Bundle(bundle, _) => configured(&bundle.configuration),
            Input::Definition(given) => configured(given.configuration()),
            Input::Model(source) => match self.model.task() {
                Some(task) => Some(task.name().to_owned()),
                None => {
                    let (plan, _) = self.model.plan(source, Target::Any).await?;
                    if let Some(problem) = plan.problem {
                        return Err(problem.into());
                    }
                    plan.task.map(|task| task.name().to_owned())
                }
            },
        };
        let task = task.unwrap_or_default();
        let Some(kind) = EndpointTask::of(&task) else {
            return Err(Error::Usage(format!(
                "--create-endpoint: there are no inference endpoints for {task}, only for text_embedding, text_expansion and \
                 text_similarity; leave it out"
            )));
        };
        Ok(Endpoint {
            id: id.clone(),
            task: kind,
            model_id: model_id.clone(),
            deployment_id: self.start.then(|| self.start_arguments.deployment_id(model_id)),
            similarity: None,
        })
    }

    /// Looks at the model as far as that can be done without its weights.
    pub(super) async fn plan(&self, target: Target) -> Result<Plan, Error> {
        Ok(self.model.plan(&self.model.source()?, target).await?.0)
    }

    /// What would be done with a model, after all checks that come before the work.
    pub(super) async fn page(&self, client: &Client) -> Result<PlanReport, Error> {
        let model_id = self.model.model_id()?;
        let import = self.upload.import();
        let problem = import.begin(client, &model_id).await.err().map(Error::from);
        let (plan, origin) = self.model.plan(&self.model.source()?, client.target()).await?;
        let mut page = PlanReport::of_plan(model_id, self.model.title()?, origin, plan);
        page.look_at(client, problem).await;
        Ok(page)
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
            Input::Bundle(bundle, inspected) => {
                inspected.check_for(target)?;
                PlanReport::of_bundle(&bundle)
            }
            Input::Definition(given) => PlanReport::of_bundle(&given.bundle(target)?),
            Input::Model(source) => {
                let (plan, origin) = self.model.plan(&source, target).await?;
                PlanReport::of_plan(model_id, self.model.title()?, origin, plan)
            }
        };
        page.look_at(client, problem).await;
        self.report.print(&page)?;
        page.into_result()
    }
}
