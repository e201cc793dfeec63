//! [`RemoteState`]: what an import that ended early has stored on the cluster.

use std::path::PathBuf;

use crate::hint::{Command, Hint, hint};
use crate::model_id::ModelId;

/// What an import that ended early has stored on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteState {
    /// Nothing.
    Nothing,
    /// Nothing, because the incomplete model was removed.
    Removed,
    /// A part of the model, with a journal on this machine.
    Resumable {
        /// Parts stored.
        stored: usize,
        /// Parts of the whole definition.
        parts: usize,
    },
    /// A part of the model, because it could not be removed for this reason.
    Incomplete(String),
    /// The old model, which is stopped.
    OldModelStopped,
    /// The old tree model, which was deleted and created again.
    OldModelRestored,
    /// Neither the old nor the new tree model, or one of them; a file on this machine holds the old one.
    OldModelSaved {
        /// The body of the request that creates the old model.
        file: PathBuf,
        /// Why the old model could not be created again.
        reason: String,
    },
    /// Neither the old nor the new tree model, or one of them; no file holds the old one.
    OldModelLost {
        /// Why the old model could not be created again.
        reason: String,
    },
}

impl RemoteState {
    /// A line to append to an error; empty for [`Nothing`](Self::Nothing).
    pub(super) fn sentence(&self, id: &ModelId) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Removed => {
                format!("\nThe incomplete model {id} was removed from the cluster.")
            }
            Self::Resumable { stored, parts } => {
                format!(
                    "\nThe upload of {id} can be resumed: {stored} of {parts} parts are stored."
                )
            }
            Self::Incomplete(reason) => {
                format!("\nThe incomplete model {id} could not be removed: {reason}")
            }
            Self::OldModelStopped => {
                format!("\nThe old model {id} was stopped, and may still exist.")
            }
            Self::OldModelRestored => format!("\nThe old model {id} was restored."),
            Self::OldModelSaved { file, reason } => format!(
                "\nThe old model {id} may be missing in the cluster: {reason}. It is saved in {}.",
                file.display()
            ),
            Self::OldModelLost { reason } => {
                format!("\nThe old model {id} may be missing in the cluster: {reason}.")
            }
        }
    }

    /// What the user can do about the state.
    #[must_use]
    pub fn hint(&self, id: &ModelId) -> Option<Hint> {
        let delete = || Command::Delete(Some(id.to_string()));
        match self {
            Self::Nothing
            | Self::Removed
            | Self::OldModelStopped
            | Self::OldModelRestored
            | Self::OldModelLost { .. } => None,
            Self::OldModelSaved { .. } => Some(hint!(
                "Run the same command again: it restores the old model first. Or send the file as the body of PUT _ml/trained_models/",
                id.to_string(),
                "."
            )),
            Self::Resumable { .. } => Some(hint!(
                "Run the same command again to send the rest, or discard the upload with ",
                delete(),
                "."
            )),
            Self::Incomplete(_) => Some(hint!("Delete the incomplete model with ", delete(), ".")),
        }
    }
}
