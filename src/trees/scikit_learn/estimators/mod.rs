//! The estimators of scikit-learn 1.2 to 1.9, from their attributes.

mod decision_trees;
mod gradient_boosting;
mod histogram_boosting;

use super::graph::{Graph, Id, malformed};
use crate::trees::TreeError;
use crate::trees::ensemble::{
    CategorySet, Ensemble, Feature, Label, MAX_FEATURES, Origin, Prediction, Tree, features_named,
};

/// Reads the estimator at `root`.
pub(super) fn read(graph: &Graph<'_>, root: Id, form: &str) -> Result<Ensemble, TreeError> {
    let reader = Reader { graph, form };
    match graph.class(root) {
        "DecisionTreeRegressor" | "ExtraTreeRegressor" | "DecisionTreeClassifier" | "ExtraTreeClassifier" => {
            reader.averaged(root, &[root])
        }
        "RandomForestRegressor" | "ExtraTreesRegressor" | "RandomForestClassifier" | "ExtraTreesClassifier" => {
            let trees = graph.required(root, "estimators_")?;
            let trees = graph.list(trees).ok_or_else(|| malformed("estimators_ is not a list"))?;
            reader.averaged(root, trees)
        }
        "GradientBoostingRegressor" | "GradientBoostingClassifier" => reader.boosted(root),
        "HistGradientBoostingRegressor" | "HistGradientBoostingClassifier" => reader.histogram(root),
        "Pipeline" => reader.pipeline(root),
        "" => Err(TreeError::Unrecognized {
            reason: "the file holds a Python value that is not an estimator; save the estimator on its own".to_owned(),
        }),
        other => Err(TreeError::unsupported(
            format!("the class {other}"),
            "decision trees, extra trees, random forests, gradient boosting and histogram gradient boosting are supported",
        )),
    }
}

struct Reader<'a> {
    graph: &'a Graph<'a>,
    form: &'a str,
}

/// What every estimator has.
struct Common {
    root: Id,
    version: String,
    labels: Option<Vec<Label>>,
    features: Vec<Feature>,
}

impl Common {
    /// Major and minor number of the release of scikit-learn that wrote the file.
    fn release(&self) -> (u32, u32) {
        release(&self.version)
    }
}

/// What an estimator learnt.
struct Trained {
    trees: Vec<Tree>,
    category_sets: Vec<CategorySet>,
    base: Vec<f64>,
    weight: f64,
    prediction: Prediction,
}

impl Default for Trained {
    fn default() -> Self {
        Self {
            trees: Vec::new(),
            category_sets: Vec::new(),
            base: Vec::new(),
            weight: 1.0,
            prediction: Prediction::Value,
        }
    }
}

impl Reader<'_> {
    /// A pipeline whose steps before the last one do nothing.
    fn pipeline(&self, root: Id) -> Result<Ensemble, TreeError> {
        let graph = self.graph;
        let steps = graph.required(root, "steps")?;
        let steps: Vec<_> = graph
            .list(steps)
            .unwrap_or_default()
            .iter()
            .filter_map(|&step| graph.list(step)?.get(1).copied())
            .collect();
        let Some((&last, before)) = steps.split_last() else {
            return Err(malformed("the pipeline has no steps"));
        };
        if graph.class(last) == "Pipeline" {
            return Err(TreeError::unsupported(
                "a pipeline within a pipeline",
                "save the last step on its own",
            ));
        }
        for &step in before {
            if !graph.is_none(step) && graph.text(step) != Some("passthrough") {
                return Err(TreeError::unsupported(
                    "a pipeline that changes its features",
                    "the trees see other values than the documents hold; train the trees on the original features, or apply the steps in an ingest pipeline and save the last step on its own",
                ));
            }
        }
        read(graph, last, self.form)
    }

    fn common(&self, root: Id) -> Result<Common, TreeError> {
        Ok(Common {
            root,
            version: self.version(root)?,
            labels: self.classes(root)?,
            features: self.features(root)?,
        })
    }

    /// The checked ensemble.
    fn ensemble(&self, common: Common, trained: Trained) -> Result<Ensemble, TreeError> {
        let ensemble = Ensemble {
            origin: Origin {
                format: format!("scikit-learn {}", self.form),
                version: Some(common.version),
                objective: self.graph.class(common.root).to_owned(),
            },
            features: common.features,
            category_sets: trained.category_sets,
            trees: trained.trees,
            base: trained.base,
            weight: trained.weight,
            prediction: trained.prediction,
            labels: common.labels,
            notes: Vec::new(),
        };
        ensemble.check("scikit-learn")?;
        Ok(ensemble)
    }

    fn number(&self, root: Id, name: &str) -> Result<f64, TreeError> {
        let number = self.graph.number(self.graph.required(root, name)?);
        number.ok_or_else(|| malformed(format!("{name} is not a number")))
    }

    fn version(&self, root: Id) -> Result<String, TreeError> {
        let version =
            self.graph.attribute(root, "_sklearn_version").and_then(|text| self.graph.text(text));
        let Some(version) = version else {
            return Err(TreeError::unsupported(
                "a scikit-learn model without a version",
                "scikit-learn 1.0 or later is supported; save the model again with it",
            ));
        };
        if release(version) < (1, 0) {
            return Err(TreeError::unsupported(
                format!("a model of scikit-learn {version}"),
                "scikit-learn 1.0 or later is supported; train and save the model again with it",
            ));
        }
        Ok(version.to_owned())
    }

    fn classes(&self, root: Id) -> Result<Option<Vec<Label>>, TreeError> {
        let graph = self.graph;
        // Regressors of old releases have the attribute too, without a value.
        let Some(classes) =
            graph.attribute(root, "classes_").filter(|&classes| !graph.is_none(classes))
        else {
            return Ok(None);
        };
        if graph.list(classes).is_some() {
            return Err(TreeError::unsupported(
                "a scikit-learn model with several outputs",
                "Elasticsearch serves one output; train a model for each output",
            ));
        }
        let labels =
            graph.labels(classes).ok_or_else(|| malformed("classes_ is not an array of labels"))?;
        Ok(Some(labels))
    }

    fn features(&self, root: Id) -> Result<Vec<Feature>, TreeError> {
        let graph = self.graph;
        let count = graph.size(graph.required(root, "n_features_in_")?);
        let count = count.ok_or_else(|| malformed("n_features_in_ is not a number"))?;
        if count > MAX_FEATURES {
            return Err(TreeError::Limit(format!("{count} features")));
        }
        let names = match graph.attribute(root, "feature_names_in_") {
            Some(names) => graph
                .labels(names)
                .ok_or_else(|| malformed("feature_names_in_ is not an array of names"))?,
            None => Vec::new(),
        };
        if !names.is_empty() && names.len() != count {
            return Err(malformed(format!("{} feature names for {count} features", names.len())));
        }
        Ok(features_named(names.iter().map(Label::to_string).collect(), count))
    }
}

/// Major and minor number of a release.
fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// An index or a count that numpy stores as a number.
fn whole(number: f64) -> Result<u32, TreeError> {
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        return Ok(number as u32);
    }
    Err(malformed(format!("{number} is not an index")))
}

fn whole_index(index: usize) -> Result<u32, TreeError> {
    u32::try_from(index).map_err(|_| malformed(format!("{index} is too large")))
}
