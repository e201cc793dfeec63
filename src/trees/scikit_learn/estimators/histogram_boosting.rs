//! Histogram gradient boosting (`HistGradientBoostingRegressor` and `HistGradientBoostingClassifier`), with its categories.

use super::{Reader, Trained, whole, whole_index};
use crate::trees::TreeError;
use crate::trees::ensemble::{
    CategorySets, Ensemble, Feature, FeatureKind, Label, Node, Prediction, Side, Test, Tree,
};
use crate::trees::scikit_learn::graph::{Id, malformed};

impl Reader<'_> {
    /// Reads histogram gradient boosting.
    pub(super) fn histogram(&self, root: Id) -> Result<Ensemble, TreeError> {
        let graph = self.graph;
        let mut common = self.common(root)?;
        let columns = self.columns(root, &mut common.features)?;
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
        let prediction = match (&common.labels, loss) {
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
        let trained = Trained { trees, category_sets, base, prediction, ..Trained::default() };
        self.ensemble(common, trained)
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
}
