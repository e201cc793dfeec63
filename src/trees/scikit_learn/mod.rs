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
    let (graph, root) = skops::read(bytes, options.max_inflated)?;
    read_object(&graph, root, "skops", options)
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
