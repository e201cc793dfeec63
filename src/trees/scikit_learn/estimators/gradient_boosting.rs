//! Gradient boosting (`GradientBoostingRegressor` and `GradientBoostingClassifier`).

use super::{Reader, Trained};
use crate::trees::TreeError;
use crate::trees::ensemble::{Ensemble, MAX_CLASSES, Prediction};
use crate::trees::scikit_learn::graph::{Id, malformed};

impl Reader<'_> {
    /// Reads gradient boosting.
    pub(super) fn boosted(&self, root: Id) -> Result<Ensemble, TreeError> {
        let common = self.common(root)?;
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
        let prediction = match &common.labels {
            None => Prediction::Value,
            Some(labels) if labels.len() == 2 && outputs == 1 => Prediction::Logistic,
            Some(labels) if labels.len() == outputs => Prediction::Softmax,
            Some(labels) => {
                return Err(malformed(format!("{} classes but {outputs} outputs", labels.len())));
            }
        };
        let base = self.initial(root, prediction, outputs)?;
        self.ensemble(common, Trained { trees, base, prediction, ..Trained::default() })
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
}

fn foreign_init() -> TreeError {
    TreeError::unsupported(
        "gradient boosting with an estimator as init",
        "only scikit-learn's own initial prediction and init=\"zero\" are supported; train without init",
    )
}
