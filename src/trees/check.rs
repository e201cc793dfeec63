//! The self-check: compares a written definition, evaluated as Elasticsearch does, with the ensemble in the library's arithmetic.
//!
//! Each tree is checked at each of its nodes, with values on both sides of every edge of the node's test and with a missing value, in
//! a row that reaches the node. Whole predictions are then compared for a sample of rows.

use flate2::read::GzDecoder;
use serde_json::{Map as JsonMap, Value};

use super::TreeError;
use super::comparison::steps;
use super::definition::{Definition, DefinitionOptions, Target};
use super::ensemble::{CategorySet, Ensemble, FeatureKind, Node, Side, Test, Tree};
use super::evaluate::Predicted;
use super::java_values::category_keys;
use super::served::Served;

/// What a check compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Leaves that were compared.
    pub leaves: usize,
    /// Whole predictions that were compared.
    pub predictions: usize,
}

/// Rows for which whole predictions are compared.
const ROWS: usize = 100;

/// Compares a definition with the ensemble from which it was written with the same options.
///
/// # Errors
/// The first difference.
pub fn check(
    ensemble: &Ensemble,
    definition: &Definition,
    options: &DefinitionOptions,
) -> Result<Checked, TreeError> {
    let json = std::io::BufReader::with_capacity(
        1 << 16,
        GzDecoder::new(definition.compressed.as_slice()),
    );
    let served = Served::read(json)
        .map_err(|error| TreeError::SelfCheck(format!("the definition is not valid: {error}")))?;
    let mut checker = Checker {
        ensemble,
        served: &served,
        names: options.feature_names.clone().unwrap_or_else(|| {
            ensemble.features.iter().map(|feature| feature.name.clone()).collect()
        }),
        class: ensemble.check_options(options)?.0.output,
        logarithms: options.output_class.is_none() && ensemble.is_tree_of_fractions(),
        booleans: Vec::new(),
        computed: Vec::new(),
    };
    let names = checker.names.iter();
    checker.computed =
        names.clone().map(|name| served.computed_from(name).next().is_some()).collect();
    checker.booleans = names.map(|name| options.boolean_features.contains(name)).collect();
    let mut checked = Checked::default();
    let mut rows = vec![vec![f64::NAN; ensemble.features.len()]];
    for index in 0..ensemble.trees.len() {
        checked.leaves += checker.tree(index, &mut rows)?;
    }
    for row in &rows {
        checker.prediction(row, definition, options)?;
        checked.predictions += 1;
    }
    Ok(checked)
}

struct Checker<'a> {
    ensemble: &'a Ensemble,
    served: &'a Served,
    names: Vec<String>,
    /// The one class that is exported.
    class: Option<usize>,
    logarithms: bool,
    /// Whether documents carry a feature as `true` or `false`, for each feature. No other value is allowed then.
    booleans: Vec<bool>,
    /// Whether preprocessors compute fields from a feature, for each feature.
    computed: Vec<bool>,
}

/// A value to put into the row before a node is visited.
struct Visit {
    node: u32,
    /// Number of values that were set on the way to the parent.
    depth: usize,
    feature: u32,
    value: f64,
}

impl Checker<'_> {
    /// Checks one tree at all of its nodes. Adds some of the rows to `rows`.
    fn tree(&self, index: usize, rows: &mut Vec<Vec<f64>>) -> Result<usize, TreeError> {
        let tree = &self.ensemble.trees[index];
        let mut row = vec![f64::NAN; self.ensemble.features.len()];
        let mut fields = JsonMap::new();
        // Values that were replaced on the way from the root, so that they can be put back.
        let mut replaced: Vec<(u32, f64)> = Vec::new();
        let mut pending = vec![Visit { node: 0, depth: 0, feature: u32::MAX, value: 0.0 }];
        let mut compared = 0;
        let mut candidates = Vec::new();
        while let Some(visit) = pending.pop() {
            while replaced.len() > visit.depth {
                if let Some((feature, value)) = replaced.pop() {
                    row[feature as usize] = value;
                    self.set(&mut fields, feature, value);
                }
            }
            if visit.feature != u32::MAX {
                let old = std::mem::replace(&mut row[visit.feature as usize], visit.value);
                replaced.push((visit.feature, old));
                self.set(&mut fields, visit.feature, visit.value);
            }
            let Node::Split { feature, test, missing, left, right, .. } =
                tree.nodes[visit.node as usize]
            else {
                if index.is_multiple_of(7) && rows.len() < ROWS {
                    rows.push(row.clone());
                }
                continue;
            };
            let current = row[feature as usize];
            candidates.clear();
            if self.booleans[feature as usize] {
                candidates.extend([0.0, 1.0]);
            } else {
                edges(test, self.ensemble, &mut candidates);
            }
            let mut ways = [None, None];
            for &value in candidates.iter().chain([&f64::NAN]) {
                row[feature as usize] = value;
                self.set(&mut fields, feature, value);
                self.leaf(index, tree, &row, &fields)?;
                compared += 1;
                let way = usize::from(test.side(value, missing, self.ensemble) == Side::Right);
                // A number is a better start for what is below than a missing value.
                if ways[way].is_none_or(f64::is_nan) {
                    ways[way] = Some(value);
                }
            }
            row[feature as usize] = current;
            self.set(&mut fields, feature, current);
            for (way, child) in [left, right].into_iter().enumerate() {
                // A value that was chosen above may lead to the child already; only then do both conditions hold.
                let stays =
                    usize::from(test.side(current, missing, self.ensemble) == Side::Right) == way;
                let value = if stays { Some(current) } else { ways[way] };
                if let Some(value) = value {
                    pending.push(Visit { node: child, depth: replaced.len(), feature, value });
                }
            }
        }
        Ok(compared)
    }

    /// Puts a value into the fields that the trees see, the preprocessors' included.
    fn set(&self, fields: &mut JsonMap<String, Value>, feature: u32, value: f64) {
        let name = &self.names[feature as usize];
        if !self.computed[feature as usize] {
            let value = self.field(feature, value);
            match fields.get_mut(name) {
                Some(field) => *field = value,
                None => drop(fields.insert(name.clone(), value)),
            }
            return;
        }
        let document = JsonMap::from_iter([(name.clone(), self.field(feature, value))]);
        for (key, value) in self.served.preprocess(&document) {
            fields.insert(key, value);
        }
        if value.is_nan() {
            for key in self.served.computed_from(name) {
                fields.remove(key);
            }
        }
    }

    /// The document's value of a feature.
    fn field(&self, feature: u32, value: f64) -> Value {
        if value.is_nan() {
            return Value::Null;
        }
        if let FeatureKind::Category(names) = &self.ensemble.features[feature as usize].kind {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let code = value as usize;
            return match names {
                Some(names) if value >= 0.0 => {
                    let key =
                        names.get(code).and_then(|name| category_keys(name).into_iter().next());
                    key.map_or(Value::Null, Value::from)
                }
                #[allow(clippy::cast_possible_truncation)]
                _ => Value::from(value as i64),
            };
        }
        Value::from(value)
    }

    fn leaf(
        &self,
        index: usize,
        tree: &Tree,
        row: &[f64],
        fields: &JsonMap<String, Value>,
    ) -> Result<(), TreeError> {
        let outputs = self.ensemble.outputs();
        let failed = |reason: String| TreeError::SelfCheck(format!("tree {index}: {reason}"));
        let served = self.served.leaf(index, fields).map_err(failed)?;
        let leaf = tree.leaf(row, self.ensemble);
        let component = |output: usize| match leaf {
            Some(Node::Leaf { value, .. }) if tree.output as usize == output => value,
            Some(Node::VectorLeaf { vector, .. }) => tree.vector(vector, outputs)[output],
            _ => 0.0,
        };
        let equal = if let Some(class) = self.class {
            served == [component(class)]
        } else if served.len() != outputs {
            false
        } else if self.logarithms {
            served.iter().enumerate().all(|(output, logarithm)| {
                let (fraction, own) = (logarithm.exp(), component(output));
                (fraction - own).abs() <= own * 1e-12
            })
        } else {
            served.iter().enumerate().all(|(output, value)| *value == component(output))
        };
        if equal {
            Ok(())
        } else {
            Err(failed(format!("another leaf is reached with {}", Value::from(fields.clone()))))
        }
    }

    fn prediction(
        &self,
        row: &[f64],
        definition: &Definition,
        options: &DefinitionOptions,
    ) -> Result<(), TreeError> {
        let mut document = JsonMap::new();
        for (feature, value) in (0_u32..).zip(row) {
            if !value.is_nan() {
                document.insert(self.names[feature as usize].clone(), self.field(feature, *value));
            }
        }
        let answer = self.served.infer(&document).map_err(TreeError::SelfCheck)?;
        let own = self.ensemble.predict(row);
        let near =
            |a: f64, b: f64| a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9);
        let agrees = match (&own, definition.target) {
            (Predicted::Class { probabilities, .. }, Target::Regression | Target::Ranking) => {
                self.class.is_some_and(|class| near(probabilities[class], answer.value))
            }
            (Predicted::Value(value), Target::Regression | Target::Ranking) => {
                near(*value, answer.value)
            }
            // The probability of the second class.
            (Predicted::Value(value), Target::Classification) => {
                answer.probabilities.get(1).is_some_and(|probability| near(*value, *probability))
            }
            (Predicted::Class { index, .. }, Target::Classification) => {
                let label = definition.labels.get(*index);
                options.weights.is_some() || label == answer.label.as_ref() || self.tied(row)
            }
        };
        if agrees {
            return Ok(());
        }
        Err(TreeError::SelfCheck(format!(
            "the file predicts {own:?}, the definition {answer:?}, for {}",
            Value::from(document)
        )))
    }

    /// Whether rounding may decide between the two best classes.
    fn tied(&self, row: &[f64]) -> bool {
        let mut outputs = self.ensemble.raw(row);
        outputs.sort_by(f64::total_cmp);
        match outputs.as_slice() {
            [single] => single.abs() < 1e-9,
            [.., second, first] => first - second <= 1e-9 * first.abs().max(1.0),
            [] => false,
        }
    }
}

/// Values on both sides of every edge of a test, in pairs of neighbours.
fn edges(test: Test, ensemble: &Ensemble, values: &mut Vec<f64>) {
    let mut around = |value: f64| {
        values.extend(
            [value, value.next_down(), value.next_up()]
                .into_iter()
                .filter(|value| value.is_finite()),
        );
    };
    match test {
        Test::In(set) => {
            let Some(CategorySet { feature, codes }) = ensemble.category_sets.get(set as usize)
            else {
                return;
            };
            let last = codes.last().copied().unwrap_or(0);
            let names = match &ensemble.features[*feature as usize].kind {
                FeatureKind::Category(Some(names)) => names.len(),
                _ => usize::MAX,
            };
            let known = |code: &u32| (*code as usize) < names;
            // A few members, a few others, and a value that is no category.
            values.extend(codes.iter().copied().filter(known).take(3).map(f64::from));
            let others =
                (0..=last.saturating_add(1)).filter(|code| codes.binary_search(code).is_err());
            values.extend(others.filter(known).take(3).map(f64::from));
            values.push(-1.0);
        }
        _ => {
            for step in steps(test, Side::Left).as_slice() {
                around(step.comparison.threshold);
            }
            match test {
                Test::RoundedBelow(threshold) => around(threshold.into()),
                Test::RoundedAtMost(threshold) | Test::AtMost(threshold) => around(threshold),
                _ => values.extend([0.0, -0.0]),
            }
        }
    }
}
