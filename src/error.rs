//! All that can go wrong, and the exit code that tells it.

use crate::bundle::BundleError;
use crate::conversion::ConversionError;
use crate::elasticsearch::{ClientError, DeploymentError};
use crate::hint::Hint;
use crate::model_id::ModelIdError;
use crate::prebuilt::PrebuiltError;
use crate::source::hub::HubError;

/// An error of the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The model cannot be used.
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    /// The bundle cannot be made or read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A definition built by another tool cannot be used.
    #[error(transparent)]
    Prebuilt(#[from] PrebuiltError),
    /// The id is not one.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
    /// The hub or its cache.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A model in the cluster.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// Some of several imports.
    #[error("{failed} of {all} models are not as the file wants them: see the table")]
    Models {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// The exit code of the first that failed.
        code: u8,
    },
    /// Standard output.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

/// The program's exit codes and what they mean.
pub const EXIT_CODES: [(u8, &str); 10] = [
    (0, "done"),
    (1, "the result cannot be written"),
    (2, "usage"),
    (3, "the model cannot be used"),
    (4, "the model cannot be had: no such folder or repository, no access, no network"),
    (5, "no connection, not Elasticsearch, too old, or the credentials"),
    (6, "the cluster refuses"),
    (7, "the model exists"),
    (8, "stored, but not served: it does not start, or fails its smoke test"),
    (130, "interrupted"),
];

impl Error {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Deployment(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            _ => None,
        }
    }

    /// The program's exit code, one of [`EXIT_CODES`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::ModelId(_) => 2,
            Self::Prebuilt(PrebuiltError::NoModelId) => 2,
            Self::Conversion(_) | Self::Bundle(_) | Self::Prebuilt(_) => 3,
            Self::Hub(error) => hub_code(error),
            Self::Client(error) => match error {
                ClientError::Unfinished { cause, .. } => client_code(cause),
                error => client_code(error),
            },
            Self::Deployment(error) => deployment_code(error),
            Self::Models { code, .. } => *code,
            Self::Output(_) => 1,
        }
    }
}

fn hub_code(error: &HubError) -> u8 {
    match error {
        HubError::Revision(_)
        | HubError::Setting { .. }
        | HubError::Certificates { .. }
        | HubError::OutputInUse { .. } => 2,
        HubError::NoConfig { .. }
        | HubError::NoWeights { .. }
        | HubError::NoShard { .. }
        | HubError::Json { .. }
        | HubError::Adapter { .. } => 3,
        HubError::Stopped => 130,
        _ => 4,
    }
}

fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Address(_)
        | ClientError::Option(_)
        | ClientError::Signals(_)
        | ClientError::Certificates { .. } => 2,
        ClientError::Unreachable { .. }
        | ClientError::NoneUsable(_)
        | ClientError::NotElasticsearch { .. }
        | ClientError::WrongPath { .. }
        | ClientError::TooOld(_)
        | ClientError::Credentials(_)
        | ClientError::Privilege { .. } => 5,
        ClientError::Unsupported { .. }
        | ClientError::Licence(_)
        | ClientError::Refused { .. }
        | ClientError::Incomplete(_)
        | ClientError::LeftOver(_)
        | ClientError::TooManyParts { .. }
        | ClientError::InUse { .. }
        | ClientError::Unfinished { .. } => 6,
        ClientError::Exists(_)
        | ClientError::Alias { .. }
        | ClientError::HalfMade(_)
        | ClientError::Different(_)
        | ClientError::Underway(_)
        | ClientError::Overtaken(_)
        | ClientError::Lost(_) => 7,
        ClientError::Interrupted => 130,
    }
}

fn deployment_code(error: &DeploymentError) -> u8 {
    match error {
        DeploymentError::Client(error) => client_code(error),
        DeploymentError::Settings(_) => 2,
        DeploymentError::Unsupported { .. }
        | DeploymentError::NotFound { .. }
        | DeploymentError::Refused { .. } => 6,
        DeploymentError::NotStarted { .. }
        | DeploymentError::SmokeTest { .. }
        | DeploymentError::NoEndpoint { .. }
        | DeploymentError::NotServed(_) => 8,
        DeploymentError::EndpointTaken { .. } => 7,
        DeploymentError::Interrupted { .. } => 130,
    }
}
