//! Options that several subcommands share.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::command_error::CommandError;
use super::command_line::{CommandLine, UrlArgument};
use super::option_value::{SetOption, Unset, Value, set_in};
use super::password;
use super::quantize::QuantizeArguments;
use super::scripts_arguments::ScriptsArguments;
use super::source::SourceArguments;
use super::task_type::{TaskChoice, TaskParser};
use super::tree_model::TreeSource;
use crate::conversion::{Options, QuantizeScheme};
use crate::elasticsearch::{Connection, Credentials, Trust};
use crate::model_id::ModelId;
use crate::secrets::Secret;
#[cfg(feature = "torch")]
use crate::source::hub::Hub;
use crate::tasks::Task;
use crate::workflow::{ImportInput, ModelRequest, ModelSource, ResolvedSource};

/// Options that select a model and control its conversion.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Id of the model in Elasticsearch [default: derived from the name of the model]
    #[arg(long, value_name = "ID")]
    pub(super) es_model_id: Option<ModelId>,
    /// Task of the model, or its pipeline tag on the hub, such as token-classification; auto chooses it from the model's files
    #[arg(long, value_name = "TASK", default_value = "auto", value_parser = TaskParser)]
    task_type: TaskChoice,
    /// Model to use from a repository that provides several, such as document and query; `rust-eland inspect` lists them. The default id of the
    /// model ends in this name [default: the model for documents, or the dense one]
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// Task whose LoRA adapter to merge into the weights, such as retrieval.query; `rust-eland inspect` lists them. The default id of the
    /// model ends in this name [default: the weights without an adapter]
    #[arg(long, value_name = "NAME")]
    lora_task: Option<String>,
    /// Text to prepend to each document at ingest time (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    ingest_prefix: Option<String>,
    /// Text to prepend to each query at search time (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    search_prefix: Option<String>,
    /// Use the prompts declared by the model (config_sentence_transformers.json) for any prefix you do not set
    #[arg(long)]
    prompts: bool,
    /// Maximum input length in tokens [default: from the model's files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    /// Number of dimensions of embeddings: keep the first N components, then scale to length 1 if the model does (Matryoshka) [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    #[command(flatten)]
    scripts: ScriptsArguments,
    #[command(flatten)]
    quantize: QuantizeArguments,
    /// Do not compare the converted model with the original
    #[arg(long)]
    no_verify: bool,
    /// Convert the model even if Elasticsearch cannot follow its tokenizer exactly: more than 0.1 % of the tokens of ordinary texts differ
    #[arg(long)]
    allow_inexact_tokenizer: bool,
}

impl SetOption for ModelArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "es-model-id" => self.es_model_id = Some(value.parsed()?),
            "task-type" => self.task_type = value.parsed()?,
            "part" => self.part = Some(value.parsed()?),
            "lora-task" => self.lora_task = Some(value.parsed()?),
            "ingest-prefix" => self.ingest_prefix = Some(value.parsed()?),
            "search-prefix" => self.search_prefix = Some(value.parsed()?),
            "prompts" => self.prompts = value.switch()?,
            "max-model-input-length" => {
                self.max_model_input_length = Some(value.integer(1..=u32::MAX)?);
            }
            "dimensions" => self.dimensions = Some(value.integer(1..=u32::MAX)?),
            "no-verify" => self.no_verify = value.switch()?,
            "allow-inexact-tokenizer" => self.allow_inexact_tokenizer = value.switch()?,
            _ => {
                let groups: &mut [&mut dyn SetOption] =
                    &mut [&mut self.source, &mut self.scripts, &mut self.quantize];
                return set_in(groups, name, value);
            }
        }
        Ok(())
    }
}

impl ModelArguments {
    /// Whether the definition is compared with the model before it is used.
    pub(super) fn is_verified(&self) -> bool {
        !self.no_verify
    }

    /// The longest input in tokens, if the options set one.
    #[cfg(feature = "torch")]
    pub(super) fn max_model_input_length(&self) -> Option<u32> {
        self.max_model_input_length
    }

    /// Whether the model is quantized.
    #[cfg(feature = "torch")]
    pub(super) fn is_quantized(&self) -> bool {
        self.quantize.options().is_some()
    }

    /// A client of the hub with the settings of the options.
    #[cfg(feature = "torch")]
    pub(super) fn hub(&self) -> Result<Hub, CommandError> {
        self.source.hub()
    }

    /// Where the file of a tree model is looked for if it is not on this machine.
    pub(super) fn tree_source(&self) -> TreeSource<'_> {
        TreeSource { revision: self.source.revision(), hub: Box::new(|| self.source.hub()) }
    }

    /// Name of the model for its description: the hub id, or the id in Elasticsearch if the model is in a folder.
    pub(super) fn title(&self) -> Result<String, CommandError> {
        match self.source.hub_id()? {
            Some(id) => Ok(id.to_string()),
            None => Ok(self.model_id()?.to_string()),
        }
    }

    /// The id in Elasticsearch.
    pub(super) fn model_id(&self) -> Result<ModelId, CommandError> {
        if let Some(id) = &self.es_model_id {
            return Ok(id.clone());
        }
        let hub_id = self.source.hub_id()?;
        let name = match &hub_id {
            Some(id) => id.as_str(),
            None => self.source.name()?,
        };
        let names: Vec<&str> =
            [&self.part, &self.lora_task].into_iter().flatten().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(ModelId::derive(name)?);
        }
        Ok(ModelId::derive_part(name, &names.join("_"))?)
    }

    /// Checks the rules between options that the definition of the command line does not express.
    pub(super) fn check_options(&self) -> Result<(), CommandError> {
        self.quantize.check()
    }

    /// Source of the model. Validates the options before any work.
    pub(super) fn source(&self) -> Result<ModelSource, CommandError> {
        self.check_options()?;
        self.source.source()
    }

    /// The model to import.
    pub(super) fn input(&self) -> Result<ImportInput, CommandError> {
        Ok(ImportInput::Model {
            source: Box::new(self.source()?),
            options: Box::new(self.options()),
            title: self.title()?,
        })
    }

    /// A request for the model at a source that is already resolved.
    pub(super) fn request(&self, source: ResolvedSource) -> Result<ModelRequest, CommandError> {
        Ok(ModelRequest { source, options: self.options(), title: self.title()? })
    }

    /// The task, unless it is chosen automatically.
    fn task(&self) -> Option<Task> {
        match self.task_type {
            TaskChoice::Auto => None,
            TaskChoice::Named(task) => Some(task),
        }
    }

    /// Options of the conversion.
    fn options(&self) -> Options {
        Options {
            task: self.task(),
            part: self.part.clone(),
            lora_task: self.lora_task.clone(),
            max_length: self.max_model_input_length,
            dimensions: self.dimensions,
            scripts: self.scripts.scripts(),
            ingest_prefix: self.ingest_prefix.clone(),
            search_prefix: self.search_prefix.clone(),
            prompts: self.prompts,
            quantize: self.quantize.options(),
            no_verify: self.no_verify,
            allow_inexact_tokenizer: self.allow_inexact_tokenizer,
            ..Options::default()
        }
    }

    /// The options as text, each preceded by a space, without secrets.
    pub(super) fn as_options(&self) -> String {
        let mut line = CommandLine::default();
        self.source.write(&mut line);
        line.option("--es-model-id", self.es_model_id.as_ref());
        line.option("--task-type", self.task());
        line.option("--part", self.part.as_ref());
        line.option("--lora-task", self.lora_task.as_ref());
        line.option("--ingest-prefix", self.ingest_prefix.as_ref());
        line.option("--search-prefix", self.search_prefix.as_ref());
        line.flag("--prompts", self.prompts);
        line.option("--max-model-input-length", self.max_model_input_length);
        line.option("--dimensions", self.dimensions);
        line.option("--scripts", self.scripts.scripts());
        match self.quantize.options().map(|quantize| quantize.scheme) {
            Some(scheme) if scheme == QuantizeScheme::default() => line.flag("--quantize", true),
            Some(scheme) => line.flag(&format!("--quantize={scheme}"), true),
            None => (),
        }
        line.flag("--allow-inexact-tokenizer", self.allow_inexact_tokenizer);
        line.0
    }
}

/// The address of the cluster and the credentials.
#[derive(Clone, Args)]
#[command(next_help_heading = "Cluster")]
#[command(group = ArgGroup::new("cluster").required(true).args(["url", "cloud_id"]))]
pub(super) struct ConnectionArguments {
    /// Address of the cluster, which may contain user:password@. Separate several addresses with commas; they are tried in order
    #[arg(long, value_name = "URL", env = "ES_URL", hide_env_values = true)]
    url: Option<UrlArgument>,
    /// Cloud ID of an Elastic Cloud deployment
    #[arg(long, value_name = "ID", env = "CLOUD_ID")]
    cloud_id: Option<String>,
    /// User name. If no password is set, rust-eland asks for it
    #[arg(short = 'u', long, value_name = "USER", env = "ES_USERNAME")]
    es_username: Option<String>,
    /// Password. Other users of this machine can see it for a moment: prefer the environment variable, a file or the prompt
    #[arg(short = 'p', long, value_name = "PASSWORD", env = "ES_PASSWORD", hide_env_values = true)]
    es_password: Option<Secret>,
    /// File that contains the password, or - for standard input; overrides --es-password
    #[arg(long, value_name = "PATH")]
    es_password_file: Option<PathBuf>,
    /// API key, encoded or as id:key; overrides --es-token
    #[arg(long, value_name = "KEY", env = "ES_API_KEY", hide_env_values = true)]
    es_api_key: Option<Secret>,
    /// Bearer token of a service account, or a JWT; overrides user name and password
    #[arg(long, value_name = "TOKEN", env = "ES_TOKEN", hide_env_values = true)]
    es_token: Option<Secret>,
    /// PEM file of certificate authorities to trust instead of those of the system
    #[arg(long, value_name = "PATH")]
    ca_certs: Option<PathBuf>,
    /// SHA-256 fingerprint of the certificate authority to trust, as printed by Elasticsearch on its first start
    #[arg(long, value_name = "HEX", conflicts_with = "ca_certs")]
    ca_fingerprint: Option<String>,
    /// PEM file of the client certificate and its chain
    #[arg(long, value_name = "PATH")]
    client_cert: Option<PathBuf>,
    /// PEM file of the private key of --client-cert [default: the file of --client-cert]
    #[arg(long, value_name = "PATH", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Do not verify the certificate of the cluster
    #[arg(long, conflicts_with_all = ["ca_certs", "ca_fingerprint"])]
    insecure: bool,
    /// Additional header for every request; can be repeated. The environment variable holds one header per line
    #[arg(
        long,
        value_name = "NAME: VALUE",
        env = "ES_HEADERS",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    header: Vec<Secret>,
}

/// Shows no values, because the address may contain a password.
impl fmt::Debug for ConnectionArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionArguments").finish_non_exhaustive()
    }
}

impl SetOption for ConnectionArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "url" => self.url = Some(UrlArgument(value.parsed()?)),
            "cloud-id" => self.cloud_id = Some(value.parsed()?),
            "es-username" => self.es_username = Some(value.parsed()?),
            "es-password" => self.es_password = Some(Secret::new(value.text()?)),
            "es-password-file" => self.es_password_file = Some(value.parsed()?),
            "es-api-key" => self.es_api_key = Some(Secret::new(value.text()?)),
            "es-token" => self.es_token = Some(Secret::new(value.text()?)),
            "ca-certs" => self.ca_certs = Some(value.parsed()?),
            "ca-fingerprint" => self.ca_fingerprint = Some(value.parsed()?),
            "client-cert" => self.client_cert = Some(value.parsed()?),
            "client-key" => self.client_key = Some(value.parsed()?),
            "insecure" => self.insecure = value.switch()?,
            "header" => {
                self.header = match value {
                    Value::List(headers) => headers.iter().map(Secret::new).collect(),
                    one => vec![Secret::new(one.text()?)],
                };
            }
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl ConnectionArguments {
    /// The address of the cluster as an option, preceded by a space. A placeholder replaces an address that is secret or not set.
    pub(super) fn as_option(&self) -> String {
        let mut line = CommandLine::default();
        match (&self.url, &self.cloud_id) {
            (Some(UrlArgument(url)), _) if !url.contains('@') => line.option("--url", Some(url)),
            (None, Some(id)) => line.option("--cloud-id", Some(id)),
            _ => line.option("--url", Some("ADDRESS")),
        }
        line.0
    }

    /// Whether an address is set.
    pub(super) fn is_set(&self) -> bool {
        self.url.is_some() || self.cloud_id.is_some()
    }

    /// Whether an option, rather than the environment, sets an address.
    pub(super) fn is_set_by_option(&self) -> bool {
        let is_option = |value: Option<&str>, variable: &str| {
            value.is_some_and(|value| std::env::var(variable).as_deref() != Ok(value))
        };
        is_option(self.url.as_ref().map(|it| it.0.as_str()), "ES_URL")
            || is_option(self.cloud_id.as_deref(), "CLOUD_ID")
    }

    /// The connection that the options describe. Asks for the password if only a user name is set.
    pub(super) fn connection(&self) -> Result<Connection, CommandError> {
        let mut connection = match (&self.url, &self.cloud_id) {
            (Some(UrlArgument(url)), _) => Connection::to_url(url)?,
            (None, Some(cloud_id)) => Connection::to_cloud(cloud_id)?,
            (None, None) => {
                return Err(CommandError::Usage(
                    "no cluster address is set: set --url or --cloud-id".into(),
                ));
            }
        };
        connection.headers =
            self.header.iter().map(|text| text.expose().parse()).collect::<Result<_, _>>()?;
        connection.trust = match (&self.ca_certs, &self.ca_fingerprint) {
            _ if self.insecure => Trust::Anyone,
            (Some(path), _) => Trust::Authorities(path.clone()),
            (None, Some(fingerprint)) => Trust::Pinned(fingerprint.parse()?),
            (None, None) => Trust::System,
        };
        connection.client_certificate = self.client_cert.as_ref().map(|certificate| {
            (certificate.clone(), self.client_key.as_ref().unwrap_or(certificate).clone())
        });
        // An empty environment variable counts as unset.
        let given = |secret: &Option<Secret>| secret.clone().filter(|it| !it.expose().is_empty());
        if let Some(key) = given(&self.es_api_key) {
            connection.credentials = Some(Credentials::ApiKey(key));
        } else if let Some(token) = given(&self.es_token) {
            connection.credentials = Some(Credentials::Bearer(token));
        } else {
            let named = self.es_username.clone().filter(|user| !user.is_empty());
            let password = match &self.es_password_file {
                Some(path) => Some(password::read(path)?),
                None => given(&self.es_password),
            };
            let is_complete =
                named.is_none() && password.is_none() && connection.credentials.is_some();
            match named.or(connection.user.take()) {
                _ if is_complete => {}
                Some(user) => {
                    let password = password.map_or_else(|| password::ask(&user), Ok)?;
                    connection.credentials = Some(Credentials::Basic { user, password });
                }
                None if password.is_some() => {
                    return Err(CommandError::Usage(
                        "a password is set without a user name: set --es-username or ES_USERNAME"
                            .into(),
                    ));
                }
                None => {}
            }
        }
        Ok(connection)
    }
}
