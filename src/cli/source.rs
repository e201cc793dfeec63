//! Options that select a model.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::Args;

use super::command_error::CommandError;
use super::command_line::CommandLine;
use super::option_value::{SetOption, Unset, Value};
use crate::source::hub::{Hub, HubName, HubOptions, HubSettings, RepositoryId, Revision, Token};
use crate::workflow::ModelSource;

/// A folder, or a repository on the hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct SourceArguments {
    /// Hub id of the model (ORG/NAME or ORG/NAME@REVISION), its address (https://…/ORG/NAME[/tree/REV] or hf://ORG/NAME[@REV]), or a folder with the
    /// files of its repository. An existing folder takes precedence
    #[arg(long, value_name = "ID|FOLDER")]
    hub_model_id: Option<String>,
    /// Branch, tag or commit of the hub repository [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
    /// Access token for private and gated repositories [default: HF_TOKEN, or the token stored by `hf auth login`]
    #[arg(long, value_name = "TOKEN", env = "HUB_ACCESS_TOKEN", hide_env_values = true, value_parser = access_token)]
    hub_access_token: Option<Token>,
    /// PEM file of certificate authorities to trust for the hub in addition to those of the system, for example of a TLS-inspecting proxy
    #[arg(long, value_name = "PATH")]
    hub_ca_certs: Option<PathBuf>,
    /// Use only the hub's cache and do not connect to the hub, like HF_HUB_OFFLINE=1
    #[arg(long)]
    offline: bool,
}

impl SetOption for SourceArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "hub-model-id" => self.hub_model_id = Some(value.parsed()?),
            "revision" => self.revision = Some(value.parsed()?),
            "hub-access-token" => {
                self.hub_access_token = access_token(value.text()?).ok();
            }
            "hub-ca-certs" => self.hub_ca_certs = Some(value.parsed()?),
            "offline" => self.offline = value.switch()?,
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl SourceArguments {
    /// Value of `--hub-model-id`.
    pub(super) fn name(&self) -> Result<&str, CommandError> {
        self.hub_model_id
            .as_deref()
            .ok_or_else(|| CommandError::Usage("no model is set: set --hub-model-id".into()))
    }

    /// Whether a model is named.
    #[cfg(feature = "torch")]
    pub(super) fn is_set(&self) -> bool {
        self.hub_model_id.is_some()
    }

    /// The hub id without a revision; `None` for a folder.
    pub(super) fn hub_id(&self) -> Result<Option<RepositoryId>, CommandError> {
        let name = self.name()?;
        if Path::new(name).exists() {
            return Ok(None);
        }
        Ok(Some(name.parse::<HubName>()?.id))
    }

    /// Writes the options that are not secret.
    pub(super) fn write(&self, line: &mut CommandLine) {
        line.option("--hub-model-id", self.hub_model_id.as_ref());
        line.option("--revision", self.revision.as_ref());
        line.option("--hub-ca-certs", self.hub_ca_certs.as_ref().map(|path| path.display()));
        line.flag("--offline", self.offline);
    }

    /// Determines whether the name is a folder or a repository. Sends no request.
    pub(super) fn source(&self) -> Result<ModelSource, CommandError> {
        let name = self.name()?;
        if Path::new(name).exists() {
            if self.revision.is_some() {
                let message = format!(
                    "--revision selects a revision of a hub repository, but {name} is a folder; remove --revision"
                );
                return Err(CommandError::Usage(message));
            }
            return Ok(ModelSource::Folder(name.into()));
        }
        let (name, revision) = self.hub_name()?;
        if let Some(file) = name.file {
            let message = format!(
                "{file} is one file of the repository {0}; use the id of the repository: --hub-model-id {0}",
                name.id
            );
            return Err(CommandError::Usage(message));
        }
        Ok(ModelSource::Hub { hub: self.hub()?, id: name.id, revision })
    }

    /// The repository, the revision, and the file in the repository if one is named.
    pub(super) fn hub_name(&self) -> Result<(HubName, Revision), CommandError> {
        let name: HubName = self.name()?.parse()?;
        let revision = match (&name.revision, &self.revision) {
            (Some(one), Some(other)) if one != other => {
                let message = format!(
                    "--hub-model-id names the revision {one}, and --revision names {other}; remove one of them"
                );
                return Err(CommandError::Usage(message));
            }
            (one, other) => one.clone().or_else(|| other.clone()).unwrap_or_default(),
        };
        Ok((name, revision))
    }

    /// The revision that the options name.
    pub(super) fn revision(&self) -> Option<&Revision> {
        self.revision.as_ref()
    }

    /// A client of the hub.
    pub(super) fn hub(&self) -> Result<Hub, CommandError> {
        let options = HubOptions {
            access_token: self.hub_access_token.clone(),
            ca_certs: self.hub_ca_certs.clone(),
            offline: self.offline,
        };
        Ok(Hub::new(HubSettings::from_environment(options)?)?)
    }
}

/// Parses an access token. Messages name the option.
fn access_token(text: &str) -> Result<Token, Infallible> {
    Ok(text.parse::<Token>()?.from_origin("--hub-access-token or HUB_ACCESS_TOKEN"))
}
