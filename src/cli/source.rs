//! Which model, and how to get it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::command_line::CommandLine;
use crate::conversion::{ConversionError, WeightsSeen, check_architecture};
use crate::error::Error;
use crate::observer::{Progress, Stage};
use crate::source::hub::{
    Hub, HubOptions, HubSettings, RepositoryId, Revision, SeenWeights, Snapshot, Token, parse_name,
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
    #[arg(long, value_name = "TOKEN", env = "HUB_ACCESS_TOKEN", hide_env_values = true)]
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
        Ok(Some(parse_name(name)?.0))
    }

    /// Writes what is no secret.
    pub(super) fn write(&self, line: &mut CommandLine) {
        line.option("--hub-model-id", self.hub_model_id.as_ref());
        line.option("--revision", self.revision.as_ref());
        line.option("--hub-ca-certs", self.hub_ca_certs.as_ref().map(|path| path.display()));
        line.flag("--offline", self.offline);
    }

    /// Decides what is meant. Nothing is asked yet.
    pub(super) fn source(&self) -> Result<Source, Error> {
        let name = self.name()?;
        if Path::new(name).exists() {
            if self.revision.is_some() {
                let message =
                    format!("--revision is of the hub, and {name} is a folder here; leave it out");
                return Err(Error::Usage(message));
            }
            return Ok(Source::Folder(name.into()));
        }
        let (id, of_name) = parse_name(name)?;
        let revision = match (of_name, &self.revision) {
            (Some(one), Some(other)) if one != *other => {
                let message = format!(
                    "--hub-model-id says revision {one}, --revision {other}; give one of them"
                );
                return Err(Error::Usage(message));
            }
            (of_name, other) => of_name.or(other.clone()).unwrap_or_default(),
        };
        let settings = HubSettings::from_environment(HubOptions {
            access_token: self.hub_access_token.clone(),
            ca_certs: self.hub_ca_certs.clone(),
            offline: self.offline,
        })?;
        Ok(Source::Hub(Hub::new(settings)?, id, revision))
    }
}

/// Brings a repository into the cache, unless its architecture cannot be built anyway.
pub(super) async fn fetch(
    hub: &Hub,
    id: &RepositoryId,
    revision: &Revision,
    progress: &Progress,
) -> Result<Snapshot, Error> {
    let plan = hub.plan(id, revision).await?;
    check_architecture(plan.config())?;
    Ok(plan.fetch(progress).await?)
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
                let glimpse = hub.plan(id, revision).await?.glimpse().await?;
                (glimpse.folder, Some(glimpse.origin), glimpse.weights)
            }
        };
        let weights = weights.map_or(WeightsSeen::Folder, |weights| {
            let seen = |it: SeenWeights| (it.path.into(), it.size, it.header);
            WeightsSeen::Elsewhere(weights.into_iter().map(seen).collect())
        });
        Ok((ModelFiles::open(&folder).map_err(ConversionError::from)?, origin, weights))
    }
}
