//! Estimators that Python saved: scikit-learn's own, and the wrappers of XGBoost and LightGBM.
//!
//! Pickles and joblib files are read as data and never executed; skops archives hold the same objects as JSON and array files.

mod compression;
mod estimators;
mod graph;
mod numpy;
mod pickle;
mod skops;
mod wrappers;

use graph::{Graph, Id};

use super::{Ensemble, ReadOptions, TreeError};

pub(super) use compression::{inflate, is_compressed};

/// Whether a file starts like a pickle of protocol 2 to 5.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// Whether a file starts like a pickle of protocol 0 or 1: with the name of a class or function, or a mark and such a name.
pub(super) fn is_text_pickle(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"(").unwrap_or(bytes);
    let Some(rest) = bytes.strip_prefix(b"c").or_else(|| bytes.strip_prefix(b"i")) else {
        return false;
    };
    let mut lines = rest.splitn(3, |&byte| byte == b'\n');
    let mut is_name = || {
        lines.next().is_some_and(|line| {
            !line.is_empty()
                && line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(byte))
        })
    };
    is_name() && is_name() && lines.next().is_some()
}

/// Reads a pickle or a joblib file that is not compressed.
///
/// # Errors
/// When it is malformed, names something that no tree model contains, or holds an estimator that is not supported.
pub fn read_pickle(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let (graph, root) = pickle::read(bytes)?;
    read_object(&graph, root, "pickle", options)
}

/// Reads a skops archive.
///
/// # Errors
/// When it is malformed, or holds an estimator that is not supported.
pub fn read_skops(bytes: &[u8], options: &ReadOptions) -> Result<Ensemble, TreeError> {
    let read = || {
        let (graph, root) = skops::read(bytes, options.inflated_limit(bytes.len()))?;
        read_object(&graph, root, "skops", options)
    };
    // The objects of a pickle and of an archive are read alike.
    read().map_err(|error| match error {
        TreeError::Malformed { format: graph::FORMAT, reason } => {
            TreeError::malformed("skops", reason)
        }
        other => other,
    })
}

fn read_object(
    graph: &Graph<'_>,
    root: Id,
    form: &str,
    options: &ReadOptions,
) -> Result<Ensemble, TreeError> {
    if let Some(ensemble) = wrappers::read(graph, root, options)? {
        return Ok(ensemble);
    }
    estimators::read(graph, root, form)
}
