//! Options that several subcommands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args};

use crate::conversion::{Conversion, Options};
use crate::elasticsearch::{ClientError, Connection, Credentials};
use crate::error::Error;
use crate::model_id::ModelId;
use crate::models::AttentionForm;
use crate::source::ModelFiles;
use crate::tasks::Task;

/// `--task-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskChoice {
    Auto,
    Named(Task),
}

impl FromStr for TaskChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "auto" { Ok(Self::Auto) } else { name.parse().map(Self::Named) }
    }
}

/// Which model, and as what.
#[derive(Debug, Args)]
pub(super) struct ModelArguments {
    /// The model: a folder laid out like a clone of its hub repository
    #[arg(long, value_name = "FOLDER")]
    hub_model_id: Option<String>,
    /// Token for private and gated repositories
    #[arg(long, value_name = "TOKEN", env = "HUB_ACCESS_TOKEN", hide_env_values = true)]
    hub_access_token: Option<String>,
    /// The model's id in Elasticsearch [default: derived from --hub-model-id]
    #[arg(long, value_name = "ID")]
    pub(super) es_model_id: Option<ModelId>,
    /// What the model is to do: fill_mask, ner, pass_through, question_answering, text_classification, text_embedding,
    /// text_expansion, text_similarity, zero_shot_classification, or auto to go by the model's files
    #[arg(long, value_name = "TASK", default_value = "auto")]
    task_type: TaskChoice,
    /// Put before every text when documents are ingested (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    ingest_prefix: Option<String>,
    /// Put before every text when searching (Elasticsearch 8.12 and later)
    #[arg(long, value_name = "TEXT")]
    search_prefix: Option<String>,
    /// The longest input in tokens, instead of what the model's files say
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_model_input_length: Option<u32>,
    /// Store linear layers as 8-bit integers (not possible yet)
    #[arg(long)]
    quantize: bool,
}

impl ModelArguments {
    /// What the model is called in its description: its hub id. A folder's path says nothing to those who read it on the cluster, so
    /// for a folder it is the id that the model gets.
    pub(super) fn title(&self) -> Result<String, Error> {
        let name = self.name()?;
        if Path::new(name).exists() {
            Ok(self.model_id()?.to_string())
        } else {
            Ok(name.to_owned())
        }
    }

    fn name(&self) -> Result<&str, Error> {
        if self.quantize {
            return Err(Error::Usage("--quantize is not possible yet; leave it out".into()));
        }
        self.hub_model_id.as_deref().ok_or_else(|| Error::Usage("give --hub-model-id".into()))
    }

    /// The id in Elasticsearch.
    pub(super) fn model_id(&self) -> Result<ModelId, Error> {
        match &self.es_model_id {
            Some(id) => Ok(id.clone()),
            None => Ok(ModelId::derive(self.name()?)?),
        }
    }

    /// Reads the model.
    pub(super) fn convert(&self, attention: AttentionForm) -> Result<Conversion, Error> {
        let name = self.name()?;
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::Hub(name.to_owned()));
        }
        let files = ModelFiles::open(path).map_err(crate::conversion::ConversionError::from)?;
        let task = match self.task_type {
            TaskChoice::Auto => None,
            TaskChoice::Named(task) => Some(task),
        };
        let conversion = Conversion::read(
            &files,
            Options {
                task,
                max_length: self.max_model_input_length,
                ingest_prefix: self.ingest_prefix.clone(),
                search_prefix: self.search_prefix.clone(),
                attention,
            },
        )?;
        for note in conversion.notes() {
            tracing::warn!("{note}");
        }
        Ok(conversion)
    }
}

/// Where the cluster is and how to log in.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("cluster").required(true).args(["url", "cloud_id"]))]
pub(super) struct ConnectionArguments {
    /// The cluster's address; may carry user:password@
    #[arg(long, value_name = "URL", env = "ES_URL", hide_env_values = true)]
    url: Option<String>,
    /// The cluster's cloud id
    #[arg(long, value_name = "ID", env = "CLOUD_ID")]
    cloud_id: Option<String>,
    /// User
    #[arg(short = 'u', long, value_name = "USER", env = "ES_USERNAME", requires = "es_password")]
    es_username: Option<String>,
    /// Password
    #[arg(short = 'p', long, value_name = "PASSWORD", env = "ES_PASSWORD", hide_env_values = true)]
    es_password: Option<String>,
    /// API key, encoded or as id:key; wins over user and password
    #[arg(long, value_name = "KEY", env = "ES_API_KEY", hide_env_values = true)]
    es_api_key: Option<String>,
    /// Do not verify the cluster's certificate
    #[arg(long)]
    insecure: bool,
    /// Certificates to trust, in PEM
    #[arg(long, value_name = "PATH")]
    ca_certs: Option<PathBuf>,
}

impl ConnectionArguments {
    pub(super) fn connection(&self) -> Result<Connection, ClientError> {
        let mut connection = match (&self.url, &self.cloud_id) {
            (Some(url), _) => Connection::to_url(url)?,
            (None, Some(cloud_id)) => Connection::to_cloud(cloud_id)?,
            (None, None) => return Err(ClientError::Address("give --url or --cloud-id".into())),
        };
        if let Some(key) = &self.es_api_key {
            connection.credentials = Some(Credentials::ApiKey(key.clone()));
        } else if let (Some(user), Some(password)) = (&self.es_username, &self.es_password) {
            let (user, password) = (user.clone(), password.clone());
            connection.credentials = Some(Credentials::Basic { user, password });
        }
        connection.insecure = self.insecure;
        connection.ca_certs = self.ca_certs.clone();
        Ok(connection)
    }
}
