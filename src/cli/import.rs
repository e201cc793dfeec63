//! `rust-eland import`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, FromArgMatches};

use super::arguments::ModelArguments;
use super::cluster_arguments::ClusterArguments;
use super::command_error::CommandError;
use super::definition::DefinitionArguments;
use super::option_value::{SetOption, Unset, Value, set_in};
use super::output::Session;
use super::page::{Page, PageArguments};
use super::pipeline_arguments::PipelineOptions;
use super::pipeline_report::PipelineReport;
use super::plan_report::PlanReport;
use super::report::{Report, ReportArguments};
use super::start_arguments::StartArguments;
use super::summary::Summary;
use super::tree_model::{ReadTreeModel, TREE_MODEL_CONFLICTS, TreeModelArguments};
use super::tree_model_report::TreeModelReport;
use super::upload::{UploadArguments, interruption};
#[cfg(feature = "torch")]
use super::{verify, verify_report};
use crate::bundle::Bundle;
#[cfg(feature = "torch")]
use crate::elasticsearch::DeployedModel;
use crate::elasticsearch::{
    Client, Connection, EndpointId, Interruption, KibanaSync, Outcome, ServedId,
};
use crate::error::Error;
use crate::observer::Progress;
use crate::trees::TreeModel;
#[cfg(feature = "torch")]
use crate::workflow::verification::VerifyRequest;
use crate::workflow::{ImportInput, ImportRequest, Imported, StopSignal, connect};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "bundle", "definition", "tree_model"]))]
#[command(group = ArgGroup::new("replaceable").multiple(true).args(["tree_model", "create_pipeline"]))]
#[command(mut_args(StartArguments::requiring_start))]
#[command(mut_arg("tree_model", |argument| argument.conflicts_with_all(TREE_MODEL_CONFLICTS)))]
pub(super) struct ImportArguments {
    #[command(flatten)]
    connection: ClusterArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// Bundle to import: the ID.metadata.json that `rust-eland export` wrote
    #[arg(long, value_name = "PATH", help_heading = "Model", conflicts_with_all = [
        "revision", "task_type", "part", "lora_task", "ingest_prefix", "search_prefix", "max_model_input_length", "dimensions", "scripts",
        "languages", "quantize", "no_verify", "allow_inexact_tokenizer", "prompts"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    definition: DefinitionArguments,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Replace a tree model even if an ingest pipeline uses it, and replace another pipeline with the id of --create-pipeline
    #[arg(long, requires = "replaceable")]
    force: bool,
    #[command(flatten)]
    pipeline: PipelineOptions,
    #[command(flatten)]
    upload: UploadArguments,
    /// Check the model and the cluster and show what an import would do, without downloading weights or storing anything
    #[arg(long)]
    dry_run: bool,
    /// Create an inference endpoint with this id, so that semantic_text fields can use the model: for text_embedding, text_expansion and
    /// text_similarity (Elasticsearch 8.13 and later). The endpoint starts the model, or uses the deployment of --start (8.18 and later)
    #[arg(long, value_name = "ID")]
    create_endpoint: Option<EndpointId>,
    #[command(flatten)]
    report: ReportArguments,
    #[command(flatten)]
    page: PageArguments,
    /// After the start, compare the answers of the cluster to 64 texts with those of the model's own tokenizer and float32 graph, like
    /// `rust-eland verify`. --no-verify skips the check of the converted graph before the upload; --smoke-test only checks that the
    /// cluster answers one text
    #[arg(long, requires = "start", conflicts_with_all = ["definition", "tree_model", "dry_run"])]
    verify_served: bool,
    /// Start the model after the upload
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    start_arguments: StartArguments,
}

/// Lets Kibana list a model that was stored, whether the model could be started or not.
async fn synchronized(client: &Client, imported: &Result<Imported, Error>) -> Option<KibanaSync> {
    match imported {
        Ok(_) | Err(Error::Deployment(_)) => client.synchronize_kibana().await,
        Err(_) => None,
    }
}

impl SetOption for ImportArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "bundle" => self.bundle = Some(value.parsed()?),
            "create-endpoint" => self.create_endpoint = Some(value.parsed()?),
            "start" => self.start = value.switch()?,
            "verify-served" => self.verify_served = value.switch()?,
            "force" => self.force = value.switch()?,
            _ => {
                let groups: &mut [&mut dyn SetOption] = &mut [
                    &mut self.connection,
                    &mut self.model,
                    &mut self.definition,
                    &mut self.tree,
                    &mut self.upload,
                    &mut self.pipeline,
                    &mut self.start_arguments,
                ];
                return set_in(groups, name, value);
            }
        }
        Ok(())
    }
}

impl ImportArguments {
    /// Options that are not set, except by the environment. Options that are required can be set afterwards.
    pub(super) fn unset() -> Result<Self, CommandError> {
        let command = Self::augment_args(clap::Command::new("import").no_binary_name(true))
            .mut_group("source", |group| group.required(false))
            .mut_group("cluster", |group| group.required(false));
        let matches = command.try_get_matches_from([""; 0]);
        let arguments = matches.and_then(|matches| Self::from_arg_matches(&matches));
        arguments.map_err(|error| CommandError::Usage(error.to_string()))
    }

    /// Replaces the options of the connection.
    pub(super) fn set_connection(&mut self, connection: ClusterArguments) {
        self.connection = connection;
    }

    pub(super) async fn execute(self, session: &Session) -> Result<(), CommandError> {
        self.page.check()?;
        if self.tree.is_set() {
            return self.import_tree_model(session).await;
        }
        let request = self.request()?;
        let is_dry_run = self.dry_run;
        let progress = &session.progress;
        // This also initializes the log's thread-local variables, which takes as long as the loading of libtorch once that has begun.
        tracing::info!("importing {}", request.model_id);
        let import = request.validate().await?;
        let client = connect(self.connection()?, progress).await?;
        if is_dry_run {
            let report = PlanReport::of(import.plan(&client).await?, &client).await;
            self.report.print(&report)?;
            let page = report.page();
            return self.page.write(|| page, report.into_result());
        }
        let stop = StopSignal::WhileStoring(interruption);
        let imported = import.run(&client, stop, progress).await;
        self.finish(&client, imported, session).await
    }

    /// Lets Kibana list an imported model, verifies the model if `--verify-served` is set, and prints what the import did.
    pub(super) async fn finish(
        &self,
        client: &Client,
        imported: Result<Imported, Error>,
        session: &Session,
    ) -> Result<(), CommandError> {
        let kibana = synchronized(client, &imported).await;
        let imported = imported?;
        if !self.verify_served {
            return self.report(client, &imported, kibana, session);
        }
        #[cfg(feature = "torch")]
        return self.verify_served(client, &imported, kibana, session).await;
        #[cfg(not(feature = "torch"))]
        Err(crate::conversion::ConversionError::NoLibtorch.into())
    }

    /// Verifies a model that was started, and prints what the import did.
    #[cfg(feature = "torch")]
    async fn verify_served(
        &self,
        client: &Client,
        imported: &Imported,
        kibana: Option<KibanaSync>,
        session: &Session,
    ) -> Result<(), CommandError> {
        let deployment = imported.started.as_ref().map(|it| &it.deployment.deployment_id);
        let id = match deployment.map(|id| id.parse::<ServedId>()) {
            Some(Ok(id)) => id,
            _ => ServedId::from(&imported.model_id),
        };
        let model = DeployedModel::find(client, id.clone()).await?;
        let source = match self.bundle {
            Some(_) => verify_report::source_of(&model, self.model.hub()?)?,
            None => self.model.source()?,
        };
        let request = VerifyRequest {
            source: source.resolve().await?,
            texts: None,
            tolerance: verify::TOLERANCE,
            max_length: self.model.max_model_input_length(),
        };
        let verified = request.run(client, id.as_str(), &model, &session.progress).await;
        let verification = match verified {
            Ok(verification) => verification,
            Err(error) => {
                // The model is stored and started, whether it can be verified or not.
                self.report(client, imported, kibana, session)?;
                return Err(error.into());
            }
        };
        let mut summary = Summary::of(imported, client.target(), session.timings.report());
        summary.kibana = kibana;
        summary.verify(
            verify_report::summary(&verification),
            serde_json::to_value(&verification).map_err(std::io::Error::from)?,
        );
        self.report.print(&summary)?;
        tracing::info!("{}", summary.for_people());
        let result = verify_report::into_result(&verification, self.model.is_quantized());
        if result.is_err() {
            tracing::warn!("{}", crate::terminal_text::escape(&verification.text()));
        }
        let page = || {
            let mut page = summary.page();
            verify_report::add_to(&mut page, &verification);
            page
        };
        self.page.write(page, result)
    }

    /// Prints what an import did.
    fn report(
        &self,
        client: &Client,
        imported: &Imported,
        kibana: Option<KibanaSync>,
        session: &Session,
    ) -> Result<(), CommandError> {
        let mut summary = Summary::of(imported, client.target(), session.timings.report());
        summary.kibana = kibana;
        self.report.print(&summary)?;
        tracing::info!("{}", summary.for_people());
        self.page.write(|| summary.page(), Ok(()))
    }

    /// Imports a tree model.
    async fn import_tree_model(self, session: &Session) -> Result<(), CommandError> {
        let (read, model) = self.tree_model(&session.progress).await?;
        let client = connect(self.connection()?, &session.progress).await?;
        let mut report = TreeModelReport::of(&read, &model);
        if self.dry_run {
            let unchanged = self.check_tree_model(&model, &client).await?;
            report.state = Some(if unchanged { "would stay unchanged" } else { "would be stored" });
        } else {
            let imported = self.store_tree_model(&model, &client, &interruption()?).await?;
            report.kibana = client.synchronize_kibana().await;
            report.created_pipeline = imported.pipeline.map(PipelineReport::of);
            report.state = Some(match imported.outcome {
                Outcome::Unchanged => "unchanged",
                _ => "stored",
            });
        }
        self.report.print(&report)?;
        self.page.write(|| Page::of_text(&report.text()), Ok(()))
    }

    /// Whether the options name a tree model.
    pub(super) fn is_tree_model(&self) -> bool {
        self.tree.is_set()
    }

    /// Reads the tree model that the options name, and checks it. The cluster is not used.
    pub(super) async fn tree_model(
        &self,
        progress: &Progress,
    ) -> Result<(ReadTreeModel, TreeModel), CommandError> {
        self.check_options()?;
        let model_id = self.tree.model_id(self.model.es_model_id.as_ref())?;
        let read = self.tree.read(&self.model.tree_source(), progress).await?;
        let model = read.model(model_id, self.model.is_verified())?;
        if let Some(pipeline) = self.pipeline.request(false) {
            if model.pipeline().is_none() {
                return Err(CommandError::Usage(
                    "a model for learning to rank is used by searches, not by ingest pipelines; remove --create-pipeline"
                        .to_owned(),
                ));
            }
            let mapped = read.mapped_fields();
            let mut fields = read.names();
            fields.extend(mapped.into_values().map(str::to_owned));
            pipeline.check_fields(&(&model.model_id).into(), Some(&fields))?;
        }
        Ok((read, model))
    }

    /// Checks whether the cluster would accept a tree model. Returns whether it has the same model.
    pub(super) async fn check_tree_model(
        &self,
        model: &TreeModel,
        client: &Client,
    ) -> Result<bool, CommandError> {
        Ok(client.check_tree_model(model, &self.upload.import()).await?)
    }

    /// Stores a tree model.
    pub(super) async fn store_tree_model(
        &self,
        model: &TreeModel,
        client: &Client,
        interruption: &Interruption,
    ) -> Result<Imported, CommandError> {
        let import = self.upload.import();
        let pipeline = self.pipeline.request(self.force);
        if let Some(pipeline) = &pipeline {
            pipeline.check(client, &model.model_id).await?;
        }
        let outcome = client.import_tree_model(model, &import, self.force, interruption).await?;
        let pipeline = match pipeline {
            Some(pipeline) => Some(pipeline.create(client, &(&model.model_id).into()).await?),
            None => None,
        };
        Ok(Imported {
            model_id: model.model_id.clone(),
            outcome,
            definition_sha256: Some(model.definition.sha256.clone()),
            bundle: None,
            parameters: None,
            agreement: None,
            started: None,
            endpoint: None,
            pipeline,
        })
    }

    /// Checks the rules between options that the definition of the command line does not express. Reads no file and sends no request.
    ///
    /// # Errors
    /// [`CommandError`] if the options break a rule.
    pub(super) fn check_options(&self) -> Result<(), CommandError> {
        if self.is_tree_model() {
            return match self.start || self.create_endpoint.is_some() {
                true => Err(CommandError::Usage(
                    "a tree model needs no deployment and has no inference endpoint; remove --start and --create-endpoint"
                        .to_owned(),
                )),
                false => Ok(()),
            };
        }
        self.model.check_options()?;
        let start = self.start.then(|| self.start_arguments.request()).transpose()?;
        let Some(pipeline) = self.pipeline.request(self.force) else { return Ok(()) };
        if start.is_none() && self.create_endpoint.is_none() {
            return Err(CommandError::Usage(
                "an ingest pipeline is tried before it is created, which needs a started model; add --start or --create-endpoint"
                    .to_owned(),
            ));
        }
        // The id of a bundle is in its file.
        let model_id = || Some(ServedId::from(&self.model.model_id().ok()?));
        match start.and_then(|start| start.options.deployment_id).or_else(model_id) {
            Some(id) => Ok(pipeline.check_fields(&id, None)?),
            None => Ok(()),
        }
    }

    /// The import that the options describe. Validates options and files before it uses the network.
    pub(super) fn request(&self) -> Result<ImportRequest, CommandError> {
        self.check_options()?;
        let prebuilt = self.definition.read(self.model.es_model_id.as_ref())?;
        let (input, model_id) = match (&self.bundle, prebuilt) {
            (Some(path), _) => {
                let bundle = Bundle::read(path, self.model.es_model_id.clone())?;
                let id = bundle.model_id.clone();
                (ImportInput::Bundle(Box::new(bundle)), id)
            }
            (None, Some(definition)) => {
                let id = definition.model_id.clone();
                (ImportInput::Prebuilt(Box::new(definition)), id)
            }
            (None, None) => (self.model.input()?, self.model.model_id()?),
        };
        Ok(ImportRequest {
            input,
            model_id,
            import: self.upload.import(),
            start: self.start.then(|| self.start_arguments.request()).transpose()?,
            endpoint: self.create_endpoint.clone(),
            pipeline: self.pipeline.request(self.force),
            uses_fingerprint: false,
        })
    }

    /// The connection to the cluster. Asks for a password if only a user name is set.
    pub(super) fn connection(&self) -> Result<Connection, CommandError> {
        self.connection.connection()
    }

    /// The model's id, if the options determine it.
    pub(super) fn model_id(&self) -> Option<String> {
        let id = match self.is_tree_model() {
            true => self.tree.model_id(self.model.es_model_id.as_ref()),
            false => self.model.model_id(),
        };
        id.ok().map(|id| id.to_string())
    }

    /// The model that the options describe.
    pub(super) fn model(&self) -> &ModelArguments {
        &self.model
    }
}
