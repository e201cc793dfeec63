//! Estimators that Python saved: scikit-learn's own, and the wrappers of XGBoost and LightGBM.
//!
//! Pickles and joblib files are read as data and never executed; skops archives hold the same objects as JSON and array files.

mod compression;
mod estimators;
mod graph;
mod numpy;
mod pickle;
mod skops;

use graph::{Graph, Id};

use super::{Ensemble, ReadOptions, TreeError, lightgbm, xgboost};

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
    let module = graph.name(root).map_or("", |(module, _)| module).to_owned();
    if module.starts_with("xgboost.") {
        let booster = graph.attribute(root, "_Booster").unwrap_or(root);
        let handle = graph.attribute(booster, "handle").filter(|&handle| !graph.is_none(handle));
        let bytes = handle.and_then(|handle| estimators::model_bytes(graph, handle));
        let bytes = bytes.ok_or_else(|| graph::malformed("the XGBoost model is not fitted"))?;
        let ensemble = xgboost::read_serialized(&bytes, options)?;
        return with_labels(ensemble, graph, root);
    }
    if module.starts_with("lightgbm.") {
        let booster = graph.attribute(root, "_Booster").unwrap_or(root);
        let handle = ["_handle", "handle"].iter().find_map(|name| graph.attribute(booster, name));
        let bytes = handle.and_then(|handle| estimators::model_bytes(graph, handle));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| graph::malformed("the LightGBM model is not fitted"))?;
        return with_labels(lightgbm::read_text(&text)?, graph, root);
    }
    estimators::read(graph, root, form)
}

/// Adds the labels that the wrapper keeps.
fn with_labels(mut ensemble: Ensemble, graph: &Graph<'_>, root: Id) -> Result<Ensemble, TreeError> {
    if ensemble.prediction.is_classification()
        && let Some(labels) = estimators::wrapper_labels(graph, root)
        && labels.len() == ensemble.classes()
    {
        ensemble.labels = Some(labels);
    }
    Ok(ensemble)
}
