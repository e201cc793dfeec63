//! The error of a command.

use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::conversion::ConversionError;
use crate::elasticsearch::{ClientError, DeploymentError};
use crate::error::Error;
use crate::hint::Hint;
use crate::inference_results::InferenceError;
use crate::model_id::ModelIdError;
use crate::prebuilt::PrebuiltError;
use crate::source::hub::HubError;
use crate::trees::TreeError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// Invalid options, or options that exclude each other.
    #[error("{0}")]
    Usage(String),
    /// The work failed.
    #[error(transparent)]
    Work(#[from] Error),
    /// Some of several imports failed.
    #[error("{failed} of {all} models could not be brought up to date")]
    Models {
        /// Number of failed imports.
        failed: usize,
        /// Number of imports in the file.
        all: usize,
        /// Exit code of the first failed import.
        code: u8,
    },
    /// Some lines of the check of a cluster are failures.
    #[error("the check of the cluster has {failures} {noun}", noun = if *failures == 1 { "failure" } else { "failures" })]
    Check {
        /// Number of failures.
        failures: usize,
        /// Exit code of the first failure.
        code: u8,
    },
    /// Elasticsearch rejects some of the texts.
    #[error("{failed} of {all} texts have no result, because Elasticsearch rejects them")]
    Texts {
        /// How many have none.
        failed: usize,
        /// How many there are.
        all: usize,
    },
    /// A model in the cluster does not answer as its source does.
    #[cfg_attr(not(feature = "torch"), expect(dead_code, reason = "needs libtorch"))]
    #[error("{different} of {all} answers differ by more than {tolerance:e}")]
    Verification {
        /// How many differ.
        different: usize,
        /// How many there are.
        all: usize,
        /// The largest accepted difference.
        tolerance: f64,
    },
    /// The HTML page could not be written.
    #[error("cannot write the report to {}: {source}", path.display())]
    Page {
        /// The path that the user set.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write the result to standard output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Suggestion for the user.
    pub(super) fn hint(&self) -> Option<Hint> {
        match self {
            Self::Work(error) => error.hint(),
            _ => None,
        }
    }
}

macro_rules! from_errors_of_the_library {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for CommandError {
            fn from(error: $error) -> Self {
                Self::Work(error.into())
            }
        })+
    };
}

from_errors_of_the_library!(
    BundleError,
    ClientError,
    ConversionError,
    DeploymentError,
    HubError,
    InferenceError,
    ModelIdError,
    PrebuiltError,
    TreeError,
);
