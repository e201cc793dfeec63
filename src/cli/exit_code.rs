//! The program's exit codes.

use super::command_error::CommandError;
use crate::elasticsearch::{ClientError, DeploymentError};
use crate::error::Error;
use crate::inference_results::InferenceError;
use crate::prebuilt::PrebuiltError;
use crate::source::hub::HubError;
use crate::trees::TreeError;

/// The exit code of a run that the user interrupted.
pub const INTERRUPTED: u8 = 130;

/// All exit codes with their meanings.
pub const EXIT_CODES: [(u8, &str); 11] = [
    (0, "success"),
    (1, "the result or the report could not be written"),
    (2, "invalid options or arguments"),
    (3, "the model, bundle or file cannot be used"),
    (4, "the model could not be downloaded or found"),
    (5, "no usable connection to Elasticsearch: network, certificate, version or credentials"),
    (6, "Elasticsearch rejected the request"),
    (7, "a model, endpoint or pipeline with this id already exists"),
    (8, "the stored model does not start, or its smoke test or ingest pipeline fails"),
    (9, "the model in the cluster does not answer as its source does"),
    (INTERRUPTED, "interrupted"),
];

/// The exit code of an error.
pub(super) fn of(error: &CommandError) -> u8 {
    match error {
        CommandError::Usage(_) => 2,
        CommandError::Models { code, .. } | CommandError::Check { code, .. } => *code,
        CommandError::Texts { .. } => 6,
        CommandError::Verification { .. } => 9,
        CommandError::Output(_) | CommandError::Page { .. } => 1,
        CommandError::Work(error) => of_library(error),
    }
}

/// The exit code of an error of the library.
#[must_use]
pub fn of_library(error: &Error) -> u8 {
    match error {
        Error::ModelId(_) | Error::NoEndpointForTask { .. } => 2,
        Error::Prebuilt(PrebuiltError::NoModelId) => 2,
        Error::Inference(InferenceError::Settings(_)) => 2,
        Error::Inference(_) => 3,
        Error::Conversion(_) | Error::Bundle(_) | Error::Prebuilt(_) => 3,
        Error::Tree(error) => match error {
            TreeError::Options(_) | TreeError::NoExtractors { .. } => 2,
            TreeError::Io { .. } => 4,
            TreeError::Different { .. } => 9,
            _ => 3,
        },
        Error::Hub(error) => hub_code(error),
        Error::Client(error) => match error {
            ClientError::Unfinished { cause, .. } => client_code(cause),
            error => client_code(error),
        },
        Error::Deployment(error) => deployment_code(error),
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
        | ClientError::CloudId
        | ClientError::Setting { .. }
        | ClientError::Tls(_)
        | ClientError::Signals(_)
        | ClientError::Certificates { .. } => 2,
        ClientError::FileChanged { .. } => 3,
        ClientError::Unreachable { .. }
        | ClientError::NoneUsable(_)
        | ClientError::NotElasticsearch { .. }
        | ClientError::WrongPath { .. }
        | ClientError::TooOld(_)
        | ClientError::Credentials(_)
        | ClientError::Privilege { .. } => 5,
        ClientError::DefinitionTooLarge { .. }
        | ClientError::Unsupported { .. }
        | ClientError::Licence(_)
        | ClientError::RankingLicence(_)
        | ClientError::Refused { .. }
        | ClientError::Incomplete(_)
        | ClientError::Leftover(_)
        | ClientError::TooManyParts { .. }
        | ClientError::InUse { .. }
        | ClientError::TreeModelInUse { .. }
        | ClientError::Unfinished { .. } => 6,
        ClientError::Exists(_)
        | ClientError::Alias { .. }
        | ClientError::ExistsIncomplete(_)
        | ClientError::Different(_)
        | ClientError::NotATreeModel { .. }
        | ClientError::NoDefinition(_)
        | ClientError::Underway(_)
        | ClientError::Overtaken(_)
        | ClientError::Lost(_) => 7,
        ClientError::Interrupted => 130,
    }
}

fn deployment_code(error: &DeploymentError) -> u8 {
    match error {
        DeploymentError::Client(error) => client_code(error),
        DeploymentError::Settings { .. } => 2,
        DeploymentError::Unsupported { .. }
        | DeploymentError::NotFound { .. }
        | DeploymentError::Refused { .. } => 6,
        DeploymentError::NotStarted { .. }
        | DeploymentError::SmokeTest { .. }
        | DeploymentError::NoEndpoint { .. }
        | DeploymentError::NoPipeline { .. }
        | DeploymentError::NotServed { .. } => 8,
        DeploymentError::EndpointTaken { .. } | DeploymentError::PipelineTaken { .. } => 7,
        DeploymentError::Interrupted { .. } => 130,
    }
}
