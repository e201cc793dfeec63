//! [`ImportRequest`]: all steps of an import, in order.

use serde_json::{Map, Value};

use super::prepare::{ModelRequest, Prepared};
use super::resolve::ModelSource;
use super::serve::{ServeRequest, Served, StartRequest, Started};
use crate::bundle::Bundle;
#[cfg(not(feature = "torch"))]
use crate::conversion::ConversionError;
use crate::conversion::{Options, Plan, SIMILARITY};
use crate::elasticsearch::{
    Client, ClientError, Connection, CreatedPipeline, Endpoint, EndpointId, EndpointOutcome,
    EndpointTask, Import, Interruption, Outcome, PipelineRequest, ServedId,
};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::observer::{Event, Progress, Stage};
use crate::prebuilt::{Inspected, PrebuiltDefinition};
use crate::source::Origin;
use crate::tasks::AgreementSamples;
use crate::torchscript::load_in_background;
use crate::version::Target;

/// What to import.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImportInput {
    /// A bundle that was exported.
    Bundle(Box<Bundle>),
    /// A TorchScript file that another tool built.
    #[doc(hidden)]
    Prebuilt(Box<PrebuiltDefinition>),
    /// A model that is to be converted.
    #[doc(hidden)]
    Model {
        /// Where the model is.
        source: Box<ModelSource>,
        /// How to convert the model.
        options: Box<Options>,
        /// The model's name in its description.
        title: String,
    },
}

/// An import, as the user describes it.
#[derive(Debug)]
#[non_exhaustive]
pub struct ImportRequest {
    /// What to import.
    pub input: ImportInput,
    /// The id of the model in the cluster.
    pub model_id: ModelId,
    /// How to store the model.
    pub import: Import,
    /// How to start the model; without, it is not started.
    pub start: Option<StartRequest>,
    /// The id of the inference endpoint to create.
    pub endpoint: Option<EndpointId>,
    /// The ingest pipeline to create. The pipeline is tried, so the model must be started or have an endpoint.
    pub pipeline: Option<PipelineRequest>,
    /// Whether to store a fingerprint with the model, and to skip the conversion if the cluster's model already has the same one.
    #[doc(hidden)]
    pub uses_fingerprint: bool,
}

/// What stops an import before its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum StopSignal {
    /// An interruption that is checked during the whole import.
    Always(Interruption),
    /// An interruption that is checked only while the cluster is changed. Before that, an import leaves no data behind, so the
    /// process can simply end.
    WhileStoring(fn() -> Result<Interruption, ClientError>),
}

/// The input of an import whose files were checked.
#[derive(Debug)]
enum ValidatedInput {
    Bundle(Box<Bundle>, Box<Inspected>),
    Prebuilt(Box<PrebuiltDefinition>),
    Model { source: Box<ModelSource>, options: Box<Options>, title: String },
}

/// The input after all steps that do not need the cluster.
#[derive(Debug)]
enum ResolvedInput {
    Bundle(Box<Bundle>, Box<Inspected>),
    Prebuilt(Box<PrebuiltDefinition>),
    #[cfg_attr(not(feature = "torch"), expect(dead_code, reason = "needs libtorch"))]
    Model(Box<ModelRequest>),
}

/// An import that passed all checks that do not need the cluster.
#[derive(Debug)]
pub struct ValidatedImport {
    input: ValidatedInput,
    model_id: ModelId,
    import: Import,
    start: Option<StartRequest>,
    endpoint: Option<Endpoint>,
    pipeline: Option<PipelineRequest>,
    uses_fingerprint: bool,
}

/// A model that was imported.
#[derive(Debug)]
#[non_exhaustive]
pub struct Imported {
    /// The id of the model in the cluster.
    pub model_id: ModelId,
    /// Whether the model was stored now.
    pub outcome: Outcome,
    /// SHA-256 of the definition, if known.
    pub definition_sha256: Option<String>,
    /// The bundle; `None` if the cluster already had a model with the same fingerprint.
    pub bundle: Option<Bundle>,
    /// The model's number of parameters, if it was converted now.
    pub parameters: Option<u64>,
    /// How much the quantized model agrees with the original on single texts, if it was quantized now.
    pub agreement: Option<AgreementSamples>,
    /// The deployment, if one was requested.
    pub started: Option<Started>,
    /// The endpoint, if one was requested.
    pub endpoint: Option<(Endpoint, EndpointOutcome)>,
    /// The ingest pipeline, if one was requested.
    pub pipeline: Option<CreatedPipeline>,
}

/// What an import would store.
#[derive(Debug)]
#[non_exhaustive]
pub enum PlannedContent {
    /// A model that would be converted, found without its weights.
    Model {
        /// What the model is and would become.
        plan: Box<Plan>,
        /// The model's name in its description.
        title: String,
        /// The repository and commit, if known.
        origin: Option<Origin>,
    },
    /// A bundle that is ready.
    Bundle(Box<Bundle>),
}

/// What an import would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedImport {
    /// The id of the model in the cluster.
    pub model_id: ModelId,
    /// What would be stored.
    pub content: PlannedContent,
    /// Why the cluster would refuse the import, as far as could be checked.
    pub problem: Option<Error>,
}

/// Connects to a cluster.
///
/// # Errors
/// [`ClientError`] if the cluster cannot be reached or used.
pub async fn connect(connection: Connection, progress: &Progress) -> Result<Client, ClientError> {
    let client = progress.run_async(Stage::Connect, Client::connect(connection)).await?;
    tracing::info!("connected to Elasticsearch {}", client.version());
    Ok(client)
}

impl ImportRequest {
    /// The import of an input with default settings: the model is stored and not started.
    #[must_use]
    pub fn new(input: ImportInput, model_id: ModelId) -> Self {
        let import = Import::default();
        Self {
            input,
            model_id,
            import,
            start: None,
            endpoint: None,
            pipeline: None,
            uses_fingerprint: false,
        }
    }

    /// The import of a bundle under the bundle's id, with default settings.
    #[must_use]
    pub fn of_bundle(bundle: Bundle) -> Self {
        let model_id = bundle.model_id.clone();
        Self::new(ImportInput::Bundle(Box::new(bundle)), model_id)
    }

    /// Runs all steps of the import. `on_progress` receives progress reports.
    ///
    /// Dropping the future interrupts the import: a part of the model can remain in the cluster.
    ///
    /// # Errors
    /// [`Error`] if a step fails. It says what remains in the cluster.
    pub async fn run(
        self,
        client: &Client,
        on_progress: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Imported, Error> {
        let (_interrupter, interruption) = Interruption::new();
        let validated = self.validate().await?;
        validated.run(client, StopSignal::Always(interruption), &Progress::to(on_progress)).await
    }

    /// Checks the operations of a bundle, and that the model's task has inference endpoints if one is requested. Sends a request
    /// to the hub only if the task must be guessed from the model's files.
    ///
    /// # Errors
    /// [`Error`] if Elasticsearch cannot load the bundle, or the task has no endpoints or cannot be guessed.
    pub async fn validate(self) -> Result<ValidatedImport, Error> {
        let served_id = self.start.as_ref().and_then(|start| start.options.deployment_id.clone());
        let served_id = served_id.unwrap_or_else(|| (&self.model_id).into());
        let mut input = match self.input {
            ImportInput::Bundle(bundle) => {
                let inspected = Box::new(Inspected::of_bundle(&bundle)?);
                ValidatedInput::Bundle(bundle, inspected)
            }
            ImportInput::Prebuilt(definition) => ValidatedInput::Prebuilt(definition),
            ImportInput::Model { source, options, title } => {
                // With a fingerprint, the conversion may turn out not to be needed.
                if !self.uses_fingerprint {
                    load_in_background().await;
                }
                ValidatedInput::Model { source, options, title }
            }
        };
        let endpoint = match self.endpoint {
            Some(id) => {
                let task = input.task().await?;
                let Some(task) = EndpointTask::of(&task) else {
                    return Err(Error::NoEndpointForTask { task });
                };
                let deployment_id = self.start.is_some().then(|| served_id.clone());
                let model_id = self.model_id.clone();
                Some(Endpoint { id, task, model_id, deployment_id, similarity: None })
            }
            None => None,
        };
        if let Some(pipeline) = &self.pipeline {
            let task = input.task().await?;
            let settings = input.settings(&task);
            pipeline.check_task(&served_id, &task, &settings)?;
        }
        Ok(ValidatedImport {
            input,
            model_id: self.model_id,
            import: self.import,
            start: self.start,
            endpoint,
            pipeline: self.pipeline,
            uses_fingerprint: self.uses_fingerprint,
        })
    }
}

impl ValidatedInput {
    /// Resolves the model to a commit. This is the only step that queries the hub.
    async fn resolve(self) -> Result<ResolvedInput, Error> {
        Ok(match self {
            Self::Bundle(bundle, inspected) => ResolvedInput::Bundle(bundle, inspected),
            Self::Prebuilt(definition) => ResolvedInput::Prebuilt(definition),
            // This check runs before the download, because the model could not be converted.
            #[cfg(not(feature = "torch"))]
            Self::Model { .. } => return Err(ConversionError::NoLibtorch.into()),
            #[cfg(feature = "torch")]
            Self::Model { source, options, title } => {
                let (source, options) = (source.resolve().await?, *options);
                ResolvedInput::Model(Box::new(ModelRequest { source, options, title }))
            }
        })
    }

    /// Settings of the task, as far as they are known before the model is converted.
    fn settings(&self, task: &str) -> Value {
        let configuration = match self {
            Self::Bundle(bundle, _) => &bundle.configuration,
            Self::Prebuilt(definition) => definition.configuration(),
            Self::Model { .. } => return Value::Null,
        };
        configuration.get("inference_config").map_or(Value::Null, |tasks| tasks[task].clone())
    }

    /// Name of the task in the API. Resolves the model first if its task must be guessed.
    async fn task(&mut self) -> Result<String, Error> {
        let configured = |body: &Map<String, Value>| {
            Some(body.get("inference_config")?.as_object()?.keys().next()?.clone())
        };
        let task = match self {
            Self::Bundle(bundle, _) => configured(&bundle.configuration),
            Self::Prebuilt(definition) => configured(definition.configuration()),
            Self::Model { source, options, title } => match options.task {
                Some(task) => Some(task.name().to_owned()),
                None => {
                    let (options, title) = ((**options).clone(), title.clone());
                    let source = source.resolved().await?;
                    let plan = ModelRequest { source, options, title }.plan(Target::Any).await?;
                    if let Some(problem) = plan.problem {
                        return Err(problem.into());
                    }
                    plan.task.map(|task| task.name().to_owned())
                }
            },
        };
        Ok(task.unwrap_or_default())
    }
}

impl ValidatedImport {
    /// Determines what the import would do, without the model's weights and without changes to the cluster.
    ///
    /// # Errors
    /// [`Error`] if the model cannot be read. Reasons why the cluster would reject the import are part of the result.
    pub async fn plan(self, client: &Client) -> Result<PlannedImport, Error> {
        if let Some(start) = &self.start {
            start.options.check_for(client)?;
        }
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.check(client).await.map(drop),
            None => Ok(()),
        };
        let begun = self.import.begin(client, &self.model_id).await.map(drop);
        let problem = endpoint.map_err(Error::from).and(begun.map_err(Error::from)).err();
        let target = client.target();
        let content = match self.input.resolve().await? {
            ResolvedInput::Bundle(bundle, inspected) => {
                inspected.check_for(target)?;
                PlannedContent::Bundle(bundle)
            }
            ResolvedInput::Prebuilt(definition) => {
                PlannedContent::Bundle(Box::new(definition.bundle(target)?))
            }
            ResolvedInput::Model(model) => PlannedContent::Model {
                plan: Box::new(model.plan(target).await?),
                title: model.title,
                origin: model.source.origin(),
            },
        };
        Ok(PlannedImport { model_id: self.model_id, content, problem })
    }

    /// Imports the model: prepares the bundle, stores it, and serves it as requested.
    ///
    /// # Errors
    /// [`Error`] if a step fails. The message says what remains in the cluster.
    pub async fn run(
        self,
        client: &Client,
        stop: StopSignal,
        progress: &Progress,
    ) -> Result<Imported, Error> {
        let Self { input, model_id, import, mut start, endpoint, pipeline, uses_fingerprint } =
            self;

        // Settings that would fail at the end are checked before the long work.
        let checking = progress.start(Stage::CheckCluster);
        if let Some(start) = &start {
            start.options.check_for(client)?;
        }
        let endpoint_exists = match &endpoint {
            Some(endpoint) => endpoint.check(client).await?,
            None => false,
        };
        if let Some(pipeline) = &pipeline {
            pipeline.check(client, &model_id).await?;
        }
        let mut transaction = import.begin(client, &model_id).await?;
        checking.finish();

        let input = input.resolve().await?;
        if uses_fingerprint && let Some(fingerprint) = input.fingerprint(client.target()) {
            transaction.set_fingerprint(fingerprint);
        }
        let is_settled = endpoint.is_none() || endpoint_exists;
        let prepared = if is_settled && transaction.is_up_to_date().await? {
            None
        } else {
            Some(stop.unless_requested(input.prepare(&model_id, client, progress)).await?)
        };

        let interruption = stop.while_storing()?;
        let (outcome, definition_sha256) = match &prepared {
            None => transaction.keep(),
            Some(Prepared { bundle, .. }) => {
                let outcome = transaction.run(bundle, progress, &interruption).await?;
                (outcome, Some(bundle.artifact.sha256.clone()))
            }
        };

        // On a second import of the same model, it may already be deployed.
        if let Some(start) = &mut start {
            start.options.adopt = outcome == Outcome::Unchanged;
        }
        let (to_create, existing) = match (endpoint, &prepared) {
            (Some(endpoint), Some(prepared)) => (Some(prepared.with_similarity(endpoint)), None),
            (endpoint, _) => (None, endpoint.map(|it| (it, EndpointOutcome::Unchanged))),
        };
        let serve = ServeRequest { start, endpoint: to_create };
        let Served { started, endpoint } =
            serve.serve(client, &(&model_id).into(), progress, interruption).await?;
        let pipeline = match pipeline {
            Some(pipeline) => {
                let deployment = started.as_ref().map(|it| it.deployment.deployment_id.parse());
                let served = match deployment {
                    Some(Ok(id)) => id,
                    _ => ServedId::from(&model_id),
                };
                let creating = pipeline.create(client, &served);
                Some(progress.run_async(Stage::CreatePipeline, creating).await?)
            }
            None => None,
        };
        let (bundle, parameters, agreement) = match prepared {
            Some(it) => (Some(it.bundle), it.parameters, it.agreement),
            None => (None, None, None),
        };
        Ok(Imported {
            model_id,
            outcome,
            definition_sha256,
            bundle,
            parameters,
            agreement,
            started,
            endpoint: endpoint.or(existing),
            pipeline,
        })
    }
}

impl StopSignal {
    /// Work that changes nothing in the cluster. It is dropped when a stop is requested.
    pub(super) async fn unless_requested<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self {
            Self::WhileStoring(_) => work.await,
            Self::Always(interruption) => {
                let mut interruption = interruption.clone();
                tokio::select! {
                    done = work => done,
                    () = interruption.requested() => Err(ClientError::Interrupted.into()),
                }
            }
        }
    }

    /// The interruption of the steps that change the cluster.
    fn while_storing(self) -> Result<Interruption, ClientError> {
        match self {
            Self::Always(interruption) => Ok(interruption),
            Self::WhileStoring(begin) => begin(),
        }
    }
}

impl Prepared {
    /// The endpoint with the similarity that the model recommends.
    fn with_similarity(&self, endpoint: Endpoint) -> Endpoint {
        let metadata = self.bundle.configuration.get("metadata");
        let similarity = metadata.and_then(|metadata| metadata.get(SIMILARITY)?.as_str());
        Endpoint { similarity: similarity.map(str::to_owned), ..endpoint }
    }
}

impl ResolvedInput {
    /// The SHA-256 of everything that determines the bundle, for a model at a commit.
    fn fingerprint(&self, target: Target) -> Option<String> {
        match self {
            Self::Model(model) => model.fingerprint(target),
            Self::Bundle(..) | Self::Prebuilt(_) => None,
        }
    }

    /// Prepares the bundle, after a check that the cluster can serve it.
    async fn prepare(
        self,
        model_id: &ModelId,
        client: &Client,
        progress: &Progress,
    ) -> Result<Prepared, Error> {
        let target = client.target();
        Ok(match self {
            Self::Bundle(bundle, inspected) => {
                client.require(bundle.minimum_version)?;
                inspected.check_for(target)?;
                Prepared { bundle: *bundle, parameters: None, agreement: None }
            }
            Self::Prebuilt(definition) => {
                client.require(definition.minimum_version())?;
                let bundle = definition.bundle(target)?;
                Prepared { bundle, parameters: None, agreement: None }
            }
            Self::Model(model) => {
                let cluster = client.clone();
                let accept = move |conversion: &crate::conversion::Conversion| {
                    Ok(cluster.require(conversion.minimum_version())?)
                };
                model.prepare(model_id.clone(), target, progress, accept).await?
            }
        })
    }
}
