//! Estimators of XGBoost and LightGBM: Python objects around a serialized booster.

use std::borrow::Cow;

use super::graph::{self, Graph, Id, Value};
use crate::trees::ensemble::{FeatureKind, Label};
use crate::trees::{Ensemble, ReadOptions, TreeError, lightgbm, xgboost};

/// Reads the model within an estimator or a booster. `None` for classes of other libraries.
pub(super) fn read(
    graph: &Graph<'_>,
    root: Id,
    options: &ReadOptions,
) -> Result<Option<Ensemble>, TreeError> {
    let module = graph.name(root).map_or("", |(module, _)| module);
    let booster = graph.attribute(root, "_Booster").unwrap_or(root);
    let model = |names: &[&str]| {
        let handle = names.iter().find_map(|name| graph.attribute(booster, name))?;
        model_bytes(graph, handle)
    };
    let ensemble = if module.starts_with("xgboost.") {
        let bytes = model(&["handle"]);
        let bytes = bytes.ok_or_else(|| graph::malformed("the XGBoost model is not fitted"))?;
        with_names(xgboost::read_serialized(&bytes, options)?, graph, booster)?
    } else if module.starts_with("lightgbm.") {
        let text = model(&["_handle", "handle"]);
        let text = text.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        lightgbm::read_text(
            text.ok_or_else(|| graph::malformed("the LightGBM model is not fitted"))?,
        )?
    } else {
        return Ok(None);
    };
    Ok(Some(with_labels(ensemble, graph, root)))
}

/// Adds the feature names and types that a booster keeps outside of the model. XGBoost 1.3 writes them nowhere else.
fn with_names(
    mut ensemble: Ensemble,
    graph: &Graph<'_>,
    booster: Id,
) -> Result<Ensemble, TreeError> {
    let texts = |attribute: &str| {
        let items = graph.list(graph.attribute(booster, attribute)?)?;
        items.iter().map(|&item| graph.text(item)).collect::<Option<Vec<_>>>()
    };
    let is_named = !ensemble.has_default_names();
    let Some(names) = texts("feature_names").filter(|names| !is_named && !names.is_empty()) else {
        return Ok(ensemble);
    };
    if names.len() != ensemble.features.len() {
        let (names, features) = (names.len(), ensemble.features.len());
        return Err(graph::malformed(format!("{names} feature names for {features} features")));
    }
    let types = texts("feature_types").unwrap_or_default();
    for (index, (feature, name)) in ensemble.features.iter_mut().zip(names).enumerate() {
        name.clone_into(&mut feature.name);
        if feature.kind == FeatureKind::Number && types.get(index) == Some(&"i") {
            feature.kind = FeatureKind::Boolean;
        }
    }
    Ok(ensemble)
}

/// Adds the labels that the wrapper keeps.
fn with_labels(mut ensemble: Ensemble, graph: &Graph<'_>, root: Id) -> Ensemble {
    if ensemble.prediction.is_classification()
        && let Some(labels) = labels(graph, root)
        && labels.len() == ensemble.classes()
    {
        ensemble.labels = Some(labels);
    }
    ensemble
}

fn labels(graph: &Graph<'_>, root: Id) -> Option<Vec<Label>> {
    let own =
        ["classes_", "_classes"].iter().find_map(|name| graph.labels(graph.attribute(root, name)?));
    own.or_else(|| {
        let encoder = graph.attribute(root, "_le")?;
        graph.labels(graph.attribute(encoder, "classes_")?)
    })
}

/// The bytes of a value that holds a model: bytes or text.
fn model_bytes<'a>(graph: &'a Graph<'_>, id: Id) -> Option<Cow<'a, [u8]>> {
    match graph.value(id) {
        Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
        _ => graph.bytes(id),
    }
}
