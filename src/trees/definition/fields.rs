//! The names under which trees see features, and the preprocessors that compute category membership and numbers from booleans.

use std::collections::{HashMap, HashSet};

use serde_json::{Map as JsonMap, Value, json};

use super::DefinitionOptions;
use crate::trees::TreeError;
use crate::trees::ensemble::{Ensemble, FeatureKind, Label, Node, Test};
use crate::trees::java_values::category_keys;

/// The names that trees use: one for each feature, then one for each category set.
pub(super) struct Fields {
    /// Names of the document fields, in the order of the features.
    pub documents: Vec<String>,
    /// The name under which trees see each feature, then each category set.
    pub seen: Vec<String>,
    /// The preprocessors, as JSON objects.
    pub preprocessors: Vec<Value>,
}

/// Names for the features and the preprocessors that compute the others.
pub(super) fn fields(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
    used: &UsedFeatures,
) -> Result<Fields, TreeError> {
    let documents = match &options.feature_names {
        Some(names) => {
            if names.len() != ensemble.features.len() {
                return Err(TreeError::Options(format!(
                    "the model has {} features, but {} feature names were set",
                    ensemble.features.len(),
                    names.len()
                )));
            }
            names.clone()
        }
        None => ensemble.features.iter().map(|feature| feature.name.clone()).collect(),
    };
    let mut taken = HashSet::new();
    for name in &documents {
        if name.is_empty() {
            return Err(TreeError::Options("a feature name is empty".to_owned()));
        }
        if name.split('.').any(str::is_empty) {
            return Err(TreeError::Options(format!(
                "{name:?} is not a valid field name: it has an empty part between dots"
            )));
        }
        if !taken.insert(name.clone()) {
            return Err(TreeError::Options(format!("two features have the name {name:?}")));
        }
    }
    for name in &options.boolean_features {
        if !documents.contains(name) {
            return Err(TreeError::Options(format!("the model has no feature {name:?}")));
        }
    }
    let mut fresh = |wanted: String| {
        let mut name = wanted.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    };
    let mut preprocessors = Vec::new();
    let mut encode = |field: &str, name: &str, map: JsonMap<String, Value>| {
        preprocessors.push(json!({"target_mean_encoding": {
            "field": field, "feature_name": name, "target_map": map, "default_value": 0
        }}));
    };
    let booleans: HashSet<_> = options.boolean_features.iter().collect();
    let mut seen = Vec::new();
    for (index, name) in documents.iter().enumerate() {
        if booleans.contains(name) && used.features.contains(&index) {
            let number = fresh(format!("{name}__number"));
            let map = [("true", 1), ("false", 0), ("1", 1), ("0", 0), ("1.0", 1), ("0.0", 0)];
            encode(
                name,
                &number,
                map.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect(),
            );
            seen.push(number);
        } else {
            seen.push(name.clone());
        }
    }
    let mut numbers: HashMap<u32, usize> = HashMap::new();
    for (index, set) in ensemble.category_sets.iter().enumerate() {
        let number = numbers.entry(set.feature).or_default();
        *number += 1;
        let field = &documents[set.feature as usize];
        let name = fresh(format!("{field}__set{number}"));
        if used.sets.contains(&index) {
            let names = match &ensemble.features[set.feature as usize].kind {
                FeatureKind::Category(Some(names)) => Some(names),
                _ => None,
            };
            let mut map = JsonMap::new();
            for &code in &set.codes {
                let keys = match names {
                    Some(names) => match names.get(code as usize) {
                        Some(name) => category_keys(name),
                        None => continue,
                    },
                    None => category_keys(&Label::Number(code.into())),
                };
                for key in keys {
                    map.insert(key, 1.into());
                }
            }
            encode(field, &name, map);
        }
        seen.push(name);
    }
    Ok(Fields { documents, seen, preprocessors })
}

/// Features and category sets that reachable nodes test.
#[derive(Default)]
pub(super) struct UsedFeatures {
    pub features: HashSet<usize>,
    pub sets: HashSet<usize>,
}

impl UsedFeatures {
    pub fn of(ensemble: &Ensemble) -> Self {
        let mut features = vec![false; ensemble.features.len()];
        let mut sets = vec![false; ensemble.category_sets.len()];
        let mut pending = Vec::new();
        for tree in &ensemble.trees {
            pending.push(0);
            while let Some(node) = pending.pop() {
                if let Some(&Node::Split { feature, test, left, right, .. }) =
                    tree.nodes.get(node as usize)
                {
                    match test {
                        Test::In(set) => sets[set as usize] = true,
                        _ => features[feature as usize] = true,
                    }
                    pending.extend([left, right]);
                }
            }
        }
        let indices = |flags: Vec<bool>| {
            flags
                .into_iter()
                .enumerate()
                .filter_map(|(index, used)| used.then_some(index))
                .collect()
        };
        Self { features: indices(features), sets: indices(sets) }
    }
}
