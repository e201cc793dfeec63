//! The error of the library.

use crate::bundle::BundleError;
use crate::conversion::ConversionError;
use crate::elasticsearch::{ClientError, DeploymentError};
use crate::hint::{Hint, Setting, hint};
use crate::inference_results::InferenceError;
use crate::model_id::ModelIdError;
use crate::prebuilt::PrebuiltError;
use crate::server_tokenization::TokenizationError;
use crate::source::hub::HubError;
use crate::trees::TreeError;

/// Why a step of an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be used.
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    /// The bundle cannot be created or read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A definition built by another tool cannot be used.
    #[error(transparent)]
    Prebuilt(#[from] PrebuiltError),
    /// The model id is not valid.
    #[error(transparent)]
    ModelId(#[from] ModelIdError),
    /// The hub or its cache failed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The cluster failed or rejected a request.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A model in the cluster cannot be started, stopped, deleted or used.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// A text, or the settings of a request, do not fit the model.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// A tree model cannot be used.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The model's task has no inference endpoints.
    #[error(
        "Elasticsearch has no inference endpoints for the task {task}, only for text_embedding, text_expansion and text_similarity"
    )]
    NoEndpointForTask {
        /// The model's task.
        task: String,
    },
}

impl Error {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Conversion(error) => error.hint(),
            Self::Prebuilt(error) => error.hint(),
            Self::Client(error) => error.hint(),
            Self::Deployment(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::NoEndpointForTask { .. } => Some(hint!("Remove ", Setting::CreateEndpoint, ".")),
            Self::ModelId(error) => Some(error.hint()),
            Self::Tree(error) => error.hint(),
            Self::Inference(InferenceError::Text(TokenizationError::NoJapaneseAnalyser)) => {
                Some(hint!("Compare the answers of the cluster with those of Transformers."))
            }
            _ => None,
        }
    }
}
