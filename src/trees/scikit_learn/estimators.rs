//! The estimators of scikit-learn 1.2 to 1.9, from their attributes.

use super::graph::{Graph, Id, Value, malformed};
use crate::trees::TreeError;
use crate::trees::ensemble::{
    CategorySets, Ensemble, Feature, FeatureKind, Label, MAX_CLASSES, MAX_FEATURES, Node, Origin,
    Prediction, Side, Test, Tree, features_named,
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

/// The oldest scikit-learn whose trees store fractions of the classes rather than counts.
const FRACTIONS: (u32, u32) = (1, 3);

impl Reader<'_> {
    /// Trees whose leaves are averaged: one decision tree, or a forest.
    fn averaged(&self, root: Id, trees: &[Id]) -> Result<Ensemble, TreeError> {
        let version = self.version(root)?;
        let labels = self.classes(root)?;
        let features = self.features(root)?;
        let outputs = labels.as_ref().map_or(1, Vec::len);
        if outputs == 0 || outputs > MAX_CLASSES {
            return Err(malformed(format!("{outputs} classes")));
        }
        let mut parsed = Vec::new();
        for &tree in trees {
            parsed.push(self.tree(
                tree,
                labels.as_ref().map(|_| outputs),
                fractions(&version),
                1.0,
            )?);
        }
        if parsed.is_empty() {
            return Err(malformed("the forest has no trees"));
        }
        #[allow(clippy::cast_precision_loss)]
        let weight = 1.0 / parsed.len() as f64;
        let prediction = if labels.is_some() { Prediction::Mean } else { Prediction::Value };
        self.ensemble(
            root,
            version,
            features,
            parsed,
            vec![0.0; outputs],
            weight,
            prediction,
            labels,
        )
    }

    fn boosted(&self, root: Id) -> Result<Ensemble, TreeError> {
        let version = self.version(root)?;
        let labels = self.classes(root)?;
        let features = self.features(root)?;
        let rate = self.number(root, "learning_rate")?;
        let array = self.graph.array_of(root, "estimators_")?;
        let (&[_, outputs], Some(estimators)) = (array.shape.as_slice(), array.objects()) else {
            return Err(malformed("estimators_ is not an array of trees"));
        };
        if outputs == 0 || outputs > MAX_CLASSES {
            return Err(malformed(format!("{outputs} trees for each iteration")));
        }
        let loss =
            self.graph.attribute(root, "loss").and_then(|loss| self.graph.text(loss)).unwrap_or("");
        let exponential = loss == "exponential";
        let factor = if exponential { 2.0 } else { 1.0 };
        let mut trees = Vec::new();
        for (index, &estimator) in estimators.iter().enumerate() {
            let mut tree = self.tree(estimator, None, true, rate * factor)?;
            // Below MAX_CLASSES.
            #[allow(clippy::cast_possible_truncation)]
            let output = (index % outputs) as u32;
            tree.output = output;
            trees.push(tree);
        }
        let prediction = match &labels {
            None => Prediction::Value,
            Some(labels) if labels.len() == 2 && outputs == 1 => Prediction::Logistic,
            Some(labels) if labels.len() == outputs => Prediction::Softmax,
            Some(labels) => {
                return Err(malformed(format!("{} classes but {outputs} outputs", labels.len())));
            }
        };
        let base = self.initial(root, prediction, outputs)?;
        self.ensemble(root, version, features, trees, base, 1.0, prediction, labels)
    }

    /// The predictions before the first tree of gradient boosting.
    fn initial(
        &self,
        root: Id,
        prediction: Prediction,
        outputs: usize,
    ) -> Result<Vec<f64>, TreeError> {
        let init = self.graph.required(root, "init_")?;
        if self.graph.text(init) == Some("zero") {
            return Ok(vec![0.0; outputs]);
        }
        match (self.graph.class(init), prediction) {
            ("DummyRegressor", Prediction::Value) => {
                let constant = self.graph.array_of(init, "constant_")?.numbers()?;
                match constant.as_slice() {
                    [constant] => Ok(vec![*constant]),
                    _ => Err(malformed("the initial prediction is not one number")),
                }
            }
            ("DummyClassifier", Prediction::Logistic | Prediction::Softmax) => {
                if self.graph.attribute(init, "strategy").and_then(|text| self.graph.text(text))
                    != Some("prior")
                {
                    return Err(foreign_init());
                }
                // scikit-learn keeps probabilities away from 0 and 1 by the epsilon of float32.
                let epsilon = f64::from(f32::EPSILON);
                let prior = self.graph.array_of(init, "class_prior_")?.numbers()?;
                let prior: Vec<f64> =
                    prior.into_iter().map(|p| p.clamp(epsilon, 1.0 - epsilon)).collect();
                match (prediction, prior.as_slice()) {
                    (Prediction::Logistic, [_, second]) => {
                        // With the exponential loss it is half of this, doubled like the leaves.
                        Ok(vec![(second / (1.0 - second)).ln()])
                    }
                    (Prediction::Softmax, prior) if prior.len() == outputs => {
                        Ok(prior.iter().map(|p| p.ln()).collect())
                    }
                    _ => Err(malformed("class_prior_ does not fit the classes")),
                }
            }
            _ => Err(foreign_init()),
        }
    }

    fn histogram(&self, root: Id) -> Result<Ensemble, TreeError> {
        let graph = self.graph;
        let version = self.version(root)?;
        let labels = self.classes(root)?;
        let mut features = self.features(root)?;
        let columns = self.columns(root, &mut features)?;
        let base = graph.array_of(root, "_baseline_prediction").and_then(|array| array.numbers());
        let base = match base {
            Ok(base) => base,
            Err(error) => match graph.number(graph.required(root, "_baseline_prediction")?) {
                Some(base) => vec![base],
                None => return Err(error),
            },
        };
        let outputs = base.len();
        let loss = graph.attribute(root, "loss").and_then(|loss| graph.text(loss)).unwrap_or("");
        let prediction = match (&labels, loss) {
            (Some(labels), _) if labels.len() == 2 && outputs == 1 => Prediction::Logistic,
            (Some(labels), _) if labels.len() == outputs => Prediction::Softmax,
            (None, "squared_error" | "absolute_error" | "quantile") if outputs == 1 => {
                Prediction::Value
            }
            (None, "poisson" | "gamma") if outputs == 1 => Prediction::Exponential,
            _ => {
                return Err(TreeError::unsupported(
                    format!("the loss {loss:?} of histogram gradient boosting"),
                    "squared_error, absolute_error, quantile, poisson, gamma and log_loss are supported",
                ));
            }
        };
        let known = self.known_categories(root)?;
        let iterations = graph.required(root, "_predictors")?;
        let iterations =
            graph.list(iterations).ok_or_else(|| malformed("_predictors is not a list"))?;
        let mut sets = CategorySets::default();
        let mut trees = Vec::new();
        for &iteration in iterations {
            let predictors = graph.list(iteration).filter(|predictors| predictors.len() == outputs);
            let predictors = predictors
                .ok_or_else(|| malformed("an iteration does not have one tree for each output"))?;
            for (output, &predictor) in (0_u32..).zip(predictors) {
                let nodes = self.predictor(predictor, &columns, &known, &mut sets)?;
                trees.push(Tree { nodes, output, vectors: Vec::new() });
            }
        }
        let category_sets = sets.into_sets();
        let mut ensemble = self.raw(root, version, features, trees, base, 1.0, prediction, labels);
        ensemble.category_sets = category_sets;
        ensemble.check("scikit-learn")?;
        Ok(ensemble)
    }

    /// For each column that the trees see, the feature. Gives the categorical features their categories.
    ///
    /// Since 1.4 an encoder puts the categorical features first and replaces categories by their positions.
    fn columns(&self, root: Id, features: &mut [Feature]) -> Result<Vec<usize>, TreeError> {
        let graph = self.graph;
        let count = features.len();
        let flags = match graph.attribute(root, "is_categorical_") {
            Some(flags) if !graph.is_none(flags) => graph.array(flags)?.numbers()?,
            _ => return Ok((0..count).collect()),
        };
        if flags.len() != count {
            return Err(malformed("is_categorical_ does not have one item for each feature"));
        }
        let categorical: Vec<_> = (0..count).filter(|&index| flags[index] != 0.0).collect();
        let encoder = graph
            .attribute(root, "_preprocessor")
            .filter(|&preprocessor| !graph.is_none(preprocessor))
            .map(|preprocessor| self.encoder(preprocessor))
            .transpose()?;
        let Some(encoder) = encoder else {
            for &index in &categorical {
                features[index].kind = FeatureKind::Category(None);
            }
            return Ok((0..count).collect());
        };
        let lists = graph.required(encoder, "categories_")?;
        let lists = graph.list(lists).filter(|lists| lists.len() == categorical.len());
        let lists = lists.ok_or_else(|| {
            malformed("the encoder does not have one list for each categorical feature")
        })?;
        for (&index, &list) in categorical.iter().zip(lists) {
            let labels = graph
                .labels(list)
                .ok_or_else(|| malformed("a category is not a text or a number"))?;
            // NaN is a missing value, and the last of the categories.
            let labels = labels
                .into_iter()
                .filter(|label| !matches!(label, Label::Number(number) if number.is_nan()));
            features[index].kind = FeatureKind::Category(Some(labels.collect()));
        }
        let rest = (0..count).filter(|&index| flags[index] == 0.0);
        Ok(categorical.iter().copied().chain(rest).collect())
    }

    /// The ordinal encoder within a column transformer.
    fn encoder(&self, transformer: Id) -> Result<Id, TreeError> {
        let graph = self.graph;
        let list = graph.required(transformer, "transformers_")?;
        let entries = graph.list(list).unwrap_or_default();
        let found = entries.iter().find_map(|&entry| {
            let encoder = *graph.list(entry)?.get(1)?;
            (graph.class(encoder) == "OrdinalEncoder").then_some(encoder)
        });
        found.ok_or_else(|| malformed("the categorical features have no encoder"))
    }

    /// The codes of the categories that training had, for each column that the trees see.
    fn known_categories(&self, root: Id) -> Result<Vec<Vec<u32>>, TreeError> {
        let graph = self.graph;
        let mapper = graph.required(root, "_bin_mapper")?;
        let categorical = match graph.attribute(mapper, "is_categorical_") {
            Some(flags) if !graph.is_none(flags) => graph.array(flags)?.numbers()?,
            _ => return Ok(Vec::new()),
        };
        let lists = graph.required(mapper, "bin_thresholds_")?;
        let lists = graph.list(lists).ok_or_else(|| malformed("bin_thresholds_ is not a list"))?;
        let mut known = Vec::new();
        for (flag, &list) in categorical.iter().zip(lists) {
            let codes = if *flag == 0.0 { Vec::new() } else { graph.array(list)?.numbers()? };
            let valid = codes.iter().all(|code| (0.0..256.0).contains(code));
            if !valid {
                return Err(malformed("a category is not a number from 0 to 255"));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            known.push(codes.into_iter().map(|code| code as u32).collect());
        }
        Ok(known)
    }

    fn predictor(
        &self,
        predictor: Id,
        columns: &[usize],
        known: &[Vec<u32>],
        sets: &mut CategorySets,
    ) -> Result<Vec<Node>, TreeError> {
        let nodes = self.graph.array_of(predictor, "nodes")?;
        let column = |name: &str| nodes.column(name);
        let (values, counts) = (column("value")?, column("count")?);
        let (indices, thresholds) = (column("feature_idx")?, column("num_threshold")?);
        let (missing, leaves) = (column("missing_go_to_left")?, column("is_leaf")?);
        let (left, right) = (column("left")?, column("right")?);
        let categorical = nodes.optional_column("is_categorical")?;
        let bitsets = nodes.optional_column("bitset_idx")?;
        let words = match self.graph.attribute(predictor, "raw_left_cat_bitsets") {
            Some(bitsets) => self.graph.array(bitsets)?.numbers()?,
            None => Vec::new(),
        };
        let mut parsed = Vec::with_capacity(values.len());
        for index in 0..values.len() {
            let samples = whole(counts[index])?.into();
            if leaves[index] != 0.0 {
                parsed.push(Node::Leaf { value: values[index], samples });
                continue;
            }
            let position = whole(indices[index])? as usize;
            let feature = *columns
                .get(position)
                .ok_or_else(|| malformed(format!("node {index} tests column {position}")))?;
            let feature = whole_index(feature)?;
            let mut children = (whole(left[index])?, whole(right[index])?);
            let mut side = Side::left_if(missing[index] != 0.0);
            let is_categorical = categorical.as_ref().is_some_and(|flags| flags[index] != 0.0);
            let test = if is_categorical {
                let bitset =
                    bitsets.as_ref().map_or(Ok(0), |indices| whole(indices[index]))? as usize;
                let start = bitset.saturating_mul(8);
                let words = words.get(start..start.saturating_add(8));
                let words =
                    words.ok_or_else(|| malformed(format!("node {index} has no categories")))?;
                let in_left = |code: u32| {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let word = words.get(code as usize / 32).map_or(0, |&word| word as u32);
                    word >> (code % 32) & 1 == 1
                };
                let known = known.get(position).map_or(&[][..], Vec::as_slice);
                // Categories that training did not have go with the missing values. Only the categories of the other side are listed.
                let listed_left = side == Side::Right;
                let codes =
                    known.iter().copied().filter(|&code| in_left(code) == listed_left).collect();
                if !listed_left {
                    children = (children.1, children.0);
                    side = Side::Right;
                }
                Test::In(sets.index(feature, codes))
            } else {
                Test::AtMost(thresholds[index])
            };
            parsed.push(Node::Split {
                feature,
                test,
                missing: side,
                left: children.0,
                right: children.1,
                samples,
            });
        }
        Ok(parsed)
    }

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

    /// One tree. With `classes`, each leaf is a vector of class fractions; otherwise a number, multiplied by `factor`.
    fn tree(
        &self,
        estimator: Id,
        classes: Option<usize>,
        fractions: bool,
        factor: f64,
    ) -> Result<Tree, TreeError> {
        let graph = self.graph;
        let tree = graph.required(estimator, "tree_")?;
        let nodes = graph.array_of(tree, "nodes")?;
        let column = |name: &str| nodes.column(name);
        let (left, right) = (column("left_child")?, column("right_child")?);
        let (features, thresholds) = (column("feature")?, column("threshold")?);
        let samples = column("n_node_samples")?;
        let missing = nodes.optional_column("missing_go_to_left")?;
        let values = graph.array_of(tree, "values")?;
        let width = classes.unwrap_or(1);
        match *values.shape.as_slice() {
            [count, 1, columns] if count == nodes.len() && columns == width => {}
            [_, outputs, _] if outputs > 1 => {
                return Err(TreeError::unsupported(
                    "a scikit-learn model with several outputs",
                    "Elasticsearch serves one output; train a model for each output",
                ));
            }
            _ => return Err(malformed("the values of a tree do not fit its nodes")),
        }
        let mut values = values.numbers()?;
        if classes.is_some() && !fractions {
            for counts in values.chunks_mut(width) {
                let sum: f64 = counts.iter().sum();
                if sum != 0.0 {
                    counts.iter_mut().for_each(|count| *count /= sum);
                }
            }
        }
        let mut parsed = Vec::with_capacity(nodes.len());
        for index in 0..nodes.len() {
            let samples = whole(samples[index])?.into();
            parsed.push(if left[index] < 0.0 {
                match classes {
                    None => Node::Leaf { value: values[index] * factor, samples },
                    Some(_) => Node::VectorLeaf { vector: whole_index(index)?, samples },
                }
            } else {
                Node::Split {
                    feature: whole(features[index])?,
                    test: Test::RoundedAtMost(thresholds[index]),
                    missing: Side::left_if(
                        missing.as_ref().is_some_and(|missing| missing[index] != 0.0),
                    ),
                    left: whole(left[index])?,
                    right: whole(right[index])?,
                    samples,
                }
            });
        }
        let vectors = if classes.is_some() { values } else { Vec::new() };
        Ok(Tree { nodes: parsed, output: 0, vectors })
    }

    #[allow(clippy::too_many_arguments)]
    fn raw(
        &self,
        root: Id,
        version: String,
        features: Vec<Feature>,
        trees: Vec<Tree>,
        base: Vec<f64>,
        weight: f64,
        prediction: Prediction,
        labels: Option<Vec<Label>>,
    ) -> Ensemble {
        Ensemble {
            origin: Origin {
                format: format!("scikit-learn {}", self.form),
                version: Some(version),
                objective: self.graph.class(root).to_owned(),
            },
            features,
            category_sets: Vec::new(),
            trees,
            base,
            weight,
            prediction,
            labels,
            notes: Vec::new(),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn ensemble(
        &self,
        root: Id,
        version: String,
        features: Vec<Feature>,
        trees: Vec<Tree>,
        base: Vec<f64>,
        weight: f64,
        prediction: Prediction,
        labels: Option<Vec<Label>>,
    ) -> Result<Ensemble, TreeError> {
        let ensemble = self.raw(root, version, features, trees, base, weight, prediction, labels);
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
        if numbers(version) < (1, 0) {
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

fn foreign_init() -> TreeError {
    TreeError::unsupported(
        "gradient boosting with an estimator as init",
        "only scikit-learn's own initial prediction and init=\"zero\" are supported; train without init",
    )
}

/// Major and minor number of a release.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn fractions(version: &str) -> bool {
    numbers(version) >= FRACTIONS
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

/// The labels that a wrapper of XGBoost or LightGBM keeps beside the booster.
pub(super) fn wrapper_labels(graph: &Graph<'_>, root: Id) -> Option<Vec<Label>> {
    let own =
        ["classes_", "_classes"].iter().find_map(|name| graph.labels(graph.attribute(root, name)?));
    own.or_else(|| {
        let encoder = graph.attribute(root, "_le")?;
        graph.labels(graph.attribute(encoder, "classes_")?)
    })
}

/// The bytes of a value that holds a model: bytes or text.
pub(super) fn model_bytes(graph: &Graph<'_>, id: Id) -> Option<Vec<u8>> {
    match graph.value(id) {
        Value::Text(text) => Some(text.as_bytes().to_vec()),
        _ => graph.bytes(id).map(std::borrow::Cow::into_owned),
    }
}
