//! Which model, and how to get it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::Args;

use super::command_line::CommandLine;
use crate::conversion::{ConversionError, WeightsSeen, check_architecture};
use crate::error::Error;
use crate::observer::{Progress, Stage};
use crate::source::hub::{
    DownloadPlan, Hub, HubName, HubOptions, HubSettings, RemoteWeights, RepositoryId, Revision,
    Snapshot, Token,
};
use crate::source::{ModelFiles, Origin};

/// A folder, or a repository on the hub.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct SourceArguments {
    /// The model: its hub id, also as ID@REVISION, or a folder laid out like a clone of its repository; a folder that exists wins
    #[arg(long, value_name = "ID|FOLDER")]
    hub_model_id: Option<String>,
    /// Branch, tag or commit of the hub's repository [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
    /// Token for private and gated repositories [default: HF_TOKEN, else what `hf auth login` stored]
    #[arg(long, value_name = "TOKEN", env = "HUB_ACCESS_TOKEN", hide_env_values = true, value_parser = access_token)]
    hub_access_token: Option<Token>,
    /// Certificates to trust for the hub beside the system's, in PEM: for a proxy that re-signs connections
    #[arg(long, value_name = "PATH")]
    hub_ca_certs: Option<PathBuf>,
    /// Take the model from the hub's cache and connect to no hub, as HF_HUB_OFFLINE=1 does
    #[arg(long)]
    offline: bool,
}

/// Where a model is.
#[derive(Debug)]
pub(super) enum Source {
    Folder(PathBuf),
    Hub(Hub, RepositoryId, Revision),
}

impl SourceArguments {
    /// What `--hub-model-id` says.
    pub(super) fn name(&self) -> Result<&str, Error> {
        self.hub_model_id.as_deref().ok_or_else(|| Error::Usage("give --hub-model-id".into()))
    }

    /// The hub id without a revision, unless it is a folder that is meant.
    pub(super) fn hub_id(&self) -> Result<Option<RepositoryId>, Error> {
        let name = self.name()?;
        if Path::new(name).exists() {
            return Ok(None);
        }
        Ok(Some(name.parse::<HubName>()?.id))
    }

    /// Writes what is no secret.
    pub(super) fn write(&self, line: &mut CommandLine) {
        line.option("--hub-model-id", self.hub_model_id.as_ref());
        line.option("--revision", self.revision.as_ref());
        line.option("--hub-ca-certs", self.hub_ca_certs.as_ref().map(|path| path.display()));
        line.flag("--offline", self.offline);
    }

    /// Decides whether a folder or a repository is meant. No request is sent.
    pub(super) fn source(&self) -> Result<Source, Error> {
        let name = self.name()?;
        if Path::new(name).exists() {
            if self.revision.is_some() {
                let message = format!(
                    "--revision selects a revision of a hub repository, but {name} is a folder; remove --revision"
                );
                return Err(Error::Usage(message));
            }
            return Ok(Source::Folder(name.into()));
        }
        let (name, revision) = self.hub_name()?;
        if let Some(file) = name.file {
            let message = format!(
                "{file} is one file of the repository {0}; use the id of the repository: --hub-model-id {0}",
                name.id
            );
            return Err(Error::Usage(message));
        }
        Ok(Source::Hub(self.hub()?, name.id, revision))
    }

    /// The repository and the revision that the options name, and the file in it if they name one.
    pub(super) fn hub_name(&self) -> Result<(HubName, Revision), Error> {
        let name: HubName = self.name()?.parse()?;
        let revision = match (&name.revision, &self.revision) {
            (Some(one), Some(other)) if one != other => {
                let message = format!(
                    "--hub-model-id names the revision {one}, and --revision names {other}; remove one of them"
                );
                return Err(Error::Usage(message));
            }
            (one, other) => one.clone().or_else(|| other.clone()).unwrap_or_default(),
        };
        Ok((name, revision))
    }

    /// A client of the hub.
    pub(super) fn hub(&self) -> Result<Hub, Error> {
        let mut options = HubOptions::default();
        options.access_token = self.hub_access_token.clone();
        options.ca_certs = self.hub_ca_certs.clone();
        options.offline = self.offline;
        Ok(Hub::new(HubSettings::from_environment(options)?)?)
    }
}

/// Parses an access token. Messages name the option.
fn access_token(text: &str) -> Result<Token, Infallible> {
    Ok(text.parse::<Token>()?.from_origin("--hub-access-token or HUB_ACCESS_TOKEN"))
}

/// Plans the download of a repository. Refuses a model whose architecture is not supported.
pub(super) async fn plan(
    hub: &Hub,
    id: &RepositoryId,
    revision: &Revision,
) -> Result<DownloadPlan, Error> {
    let plan = hub.plan(id, revision).await?;
    if let Some(config) = plan.config() {
        check_architecture(config)?;
    }
    Ok(plan)
}

/// Brings a repository into the cache. Refuses a model whose architecture is not supported.
async fn fetch(
    hub: &Hub,
    id: &RepositoryId,
    revision: &Revision,
    progress: &Progress,
) -> Result<Snapshot, Error> {
    Ok(plan(hub, id, revision).await?.download(progress).await?)
}

impl Source {
    /// The folder, if it is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Hub(..) => None,
        }
    }

    /// Where the files come from. Of the hub no more is asked than that.
    pub(super) async fn origin(&self) -> Result<Option<Origin>, Error> {
        match self {
            Self::Folder(folder) => Ok(Origin::of_folder(folder)),
            Self::Hub(hub, id, revision) => Ok(Some(hub.plan(id, revision).await?.origin())),
        }
    }

    /// The model's files, fetched where need be, and where they come from.
    pub(super) async fn files(
        &self,
        progress: &Progress,
    ) -> Result<(ModelFiles, Option<Origin>), Error> {
        let (folder, origin) = match self {
            Self::Folder(folder) => (folder.clone(), Origin::of_folder(folder)),
            Self::Hub(hub, id, revision) => {
                let fetching = fetch(hub, id, revision, progress);
                let snapshot = progress.run_async(Stage::Download, fetching).await?;
                (snapshot.folder, Some(snapshot.origin))
            }
        };
        Ok((ModelFiles::open(&folder).map_err(ConversionError::from)?, origin))
    }

    /// The model's small files, fetched where need be, where they come from, and what there is to see of its weights.
    pub(super) async fn glimpse(&self) -> Result<(ModelFiles, Option<Origin>, WeightsSeen), Error> {
        let (folder, origin, weights) = match self {
            Self::Folder(folder) => (folder.clone(), Origin::of_folder(folder), None),
            Self::Hub(hub, id, revision) => {
                let preview = hub.plan(id, revision).await?.preview().await?;
                (preview.folder, Some(preview.origin), preview.weights)
            }
        };
        let weights = weights.map_or(WeightsSeen::Folder, |weights| {
            let seen = |it: RemoteWeights| (it.path.into(), it.size, it.header);
            WeightsSeen::Elsewhere(weights.into_iter().map(seen).collect())
        });
        Ok((ModelFiles::open(&folder).map_err(ConversionError::from)?, origin, weights))
    }
}
