//! Errors of the tree readers and of the definition writer.

use std::io;
use std::path::PathBuf;

use crate::hint::{Hint, Setting, hint};

/// Why a tree model cannot be read or expressed for Elasticsearch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has none of the supported formats.
    #[error("unsupported model file: {reason}")]
    Unrecognized {
        /// What the file is instead, and how to save the model in a supported format.
        reason: String,
    },
    /// The file has a supported format but its content is malformed.
    #[error("malformed {format} file: {reason}")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file is valid, but Elasticsearch cannot serve the model.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The objective, estimator or property.
        what: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A pickle names a class or function outside the list of names that tree models need.
    #[error(
        "refusing the pickle: it references {name} (at byte {position}), which no supported tree model contains"
    )]
    PickleName {
        /// Position of the opcode.
        position: usize,
        /// Module and name.
        name: String,
    },
    /// A limit of the reader or of the server.
    #[error("the model exceeds a limit: {0}")]
    Limit(String),
    /// A model for learning to rank has no feature extractors.
    #[error(
        "the target is ranking, but a model for learning to rank needs feature extractors: the queries that compute its features"
    )]
    NoExtractors {
        /// The library's objective. Models of other objectives than ranking can be used for learning to rank too.
        objective: String,
    },
    /// The options do not fit the model.
    #[error("{0}")]
    Options(String),
    /// The cluster's predictions differ from those of the file.
    #[error("{different} of {documents} predictions differ from those of the file")]
    Different {
        /// Documents with another prediction.
        different: usize,
        /// All documents.
        documents: usize,
    },
    /// The written definition does not predict what the model file predicts.
    #[error("self-check failed: {0}; please report this with the model file")]
    SelfCheck(String),
}

impl TreeError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::NoExtractors { objective } => Some(hint!(
                "Set ",
                Setting::RankingConfiguration,
                " to a file with the feature extractors, or import the model as a regression. Its objective is ",
                objective.clone(),
                "."
            )),
            _ => None,
        }
    }

    /// A malformed file.
    pub(crate) fn malformed(format: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { format, reason: reason.into() }
    }

    /// A model that Elasticsearch cannot serve.
    pub(crate) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), reason: reason.into() }
    }
}
