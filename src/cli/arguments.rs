//! Options that several subcommands share.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::command_error::CommandError;
use super::command_line::{CommandLine, UrlArgument};
use super::password;
use super::quantize::QuantizeArguments;
use super::source::SourceArguments;
use super::task_type::{TaskChoice, TaskParser};
use crate::conversion::Options;
use crate::elasticsearch::{Connection, Credentials, Trust};
use crate::model_id::ModelId;
use crate::secrets::Secret;
use crate::tasks::Task;
use crate::workflow::{ImportInput, ModelRequest, ModelSource, ResolvedSource};

/// Which model, and as what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// The model's id in Elasticsearch [default: derived from --hub-model-id]
    #[arg(long, value_name = "ID")]
    pub(super) es_model_id: Option<ModelId>,
    /// What the model is to do; auto goes by the model's files
    #[arg(long, value_name = "TASK", default_value = "auto", value_parser = TaskParser)]
    task_type: TaskChoice,
    /// Put before every text when documents are ingested (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    ingest_prefix: Option<String>,
    /// Put before every text when searching (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    search_prefix: Option<String>,
    /// Take for the prefixes that are not given the prompts that the model's own files declare for documents and queries
    /// (config_sentence_transformers.json)
    #[arg(long)]
    prompts: bool,
    /// The longest input in tokens, instead of what the model's files say
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    #[command(flatten)]
    quantize: QuantizeArguments,
    /// Do not load the definition again to compare it with the model
    #[arg(long)]
    no_verify: bool,
}

impl ModelArguments {
    /// What the model is called in its description: its hub id. A folder's path says nothing to those who read it on the cluster, so
    /// for a folder it is the id that the model gets.
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
        Ok(match self.source.hub_id()? {
            Some(id) => ModelId::derive(id.as_str())?,
            None => ModelId::derive(self.source.name()?)?,
        })
    }

    /// Where the model is. The options are checked here, before any work.
    pub(super) fn source(&self) -> Result<ModelSource, CommandError> {
        self.source.source()
    }

    /// The model to import.
    pub(super) fn input(&self) -> Result<ImportInput, CommandError> {
        Ok(ImportInput::Model {
            source: Box::new(self.source()?),
            options: self.options(),
            title: self.title()?,
        })
    }

    /// The model at a place that is resolved already.
    pub(super) fn request(&self, source: ResolvedSource) -> Result<ModelRequest, CommandError> {
        Ok(ModelRequest { source, options: self.options(), title: self.title()? })
    }

    /// The task, if one is named.
    fn task(&self) -> Option<Task> {
        match self.task_type {
            TaskChoice::Auto => None,
            TaskChoice::Named(task) => Some(task),
        }
    }

    /// How to convert the model.
    fn options(&self) -> Options {
        Options {
            task: self.task(),
            max_length: self.max_model_input_length,
            ingest_prefix: self.ingest_prefix.clone(),
            search_prefix: self.search_prefix.clone(),
            prompts: self.prompts,
            quantize: self.quantize.options(),
            no_verify: self.no_verify,
            ..Options::default()
        }
    }

    /// The options as they could be typed, each after a space, without secrets.
    pub(super) fn as_options(&self) -> String {
        let mut line = CommandLine::default();
        self.source.write(&mut line);
        line.option("--es-model-id", self.es_model_id.as_ref());
        line.option("--task-type", self.task());
        line.option("--ingest-prefix", self.ingest_prefix.as_ref());
        line.option("--search-prefix", self.search_prefix.as_ref());
        line.flag("--prompts", self.prompts);
        line.option("--max-model-input-length", self.max_model_input_length);
        line.flag("--quantize", self.quantize.options().is_some());
        line.0
    }
}

/// Where the cluster is and how to log in.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
#[command(group = ArgGroup::new("cluster").required(true).args(["url", "cloud_id"]))]
pub(super) struct ConnectionArguments {
    /// The cluster's address; may carry user:password@. Several, separated by commas, are tried in turn
    #[arg(long, value_name = "URL", env = "ES_URL", hide_env_values = true)]
    url: Option<UrlArgument>,
    /// The cluster's cloud id
    #[arg(long, value_name = "ID", env = "CLOUD_ID")]
    cloud_id: Option<String>,
    /// User; without a password it is asked for
    #[arg(short = 'u', long, value_name = "USER", env = "ES_USERNAME")]
    es_username: Option<String>,
    /// Password. Others on this machine can see it for a moment: rather use the variable, the file or the prompt
    #[arg(short = 'p', long, value_name = "PASSWORD", env = "ES_PASSWORD", hide_env_values = true)]
    es_password: Option<Secret>,
    /// A file with the password, - for standard input; wins over --es-password
    #[arg(long, value_name = "PATH")]
    es_password_file: Option<PathBuf>,
    /// API key, encoded or as id:key; wins over a token
    #[arg(long, value_name = "KEY", env = "ES_API_KEY", hide_env_values = true)]
    es_api_key: Option<Secret>,
    /// Bearer token, of a service account or a JWT; wins over user and password
    #[arg(long, value_name = "TOKEN", env = "ES_TOKEN", hide_env_values = true)]
    es_token: Option<Secret>,
    /// Certificates of the authorities to trust instead of the system's, in PEM form
    #[arg(long, value_name = "PATH")]
    ca_certs: Option<PathBuf>,
    /// SHA-256 of the authority to trust, as Elasticsearch prints it at its first start
    #[arg(long, value_name = "HEX", conflicts_with = "ca_certs")]
    ca_fingerprint: Option<String>,
    /// Certificate to show to the cluster, with its chain, in PEM form
    #[arg(long, value_name = "PATH")]
    client_cert: Option<PathBuf>,
    /// The private key of --client-cert, in PEM form [default: the file of --client-cert]
    #[arg(long, value_name = "PATH", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Do not verify the cluster's certificate
    #[arg(long, conflicts_with_all = ["ca_certs", "ca_fingerprint"])]
    insecure: bool,
    /// A further header for every request; can be repeated
    #[arg(
        long,
        value_name = "NAME: VALUE",
        env = "ES_HEADERS",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    header: Vec<Secret>,
}

/// Shows nothing: the address may hold a password.
impl fmt::Debug for ConnectionArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionArguments").finish_non_exhaustive()
    }
}

impl ConnectionArguments {
    /// Where the cluster is, as it could be typed, after a space; without secrets, and in words where it is not known.
    pub(super) fn as_option(&self) -> String {
        let mut line = CommandLine::default();
        match (&self.url, &self.cloud_id) {
            (Some(UrlArgument(url)), _) if !url.contains('@') => line.option("--url", Some(url)),
            (None, Some(id)) => line.option("--cloud-id", Some(id)),
            _ => line.option("--url", Some("ADDRESS")),
        }
        line.0
    }

    /// Whether they say where a cluster is.
    pub(super) fn is_given(&self) -> bool {
        self.url.is_some() || self.cloud_id.is_some()
    }

    /// What the options say. Asks for a password if a user is named without one.
    pub(super) fn connection(&self) -> Result<Connection, CommandError> {
        let mut connection = match (&self.url, &self.cloud_id) {
            (Some(UrlArgument(url)), _) => Connection::to_url(url)?,
            (None, Some(cloud_id)) => Connection::to_cloud(cloud_id)?,
            (None, None) => return Err(CommandError::Usage("give --url or --cloud-id".into())),
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
        // What is empty, as a variable may be, was not given.
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
                        "a password is given, but no user: give --es-username (ES_USERNAME)".into(),
                    ));
                }
                None => {}
            }
        }
        Ok(connection)
    }
}
