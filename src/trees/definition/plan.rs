//! How an ensemble is expressed: its target, the server's aggregation, the form of the leaves and the labels.

use std::collections::HashSet;

use super::{DefinitionOptions, LabelType, Target};
use crate::trees::TreeError;
use crate::trees::ensemble::{Ensemble, Label, Prediction};

/// What a leaf contributes in the written definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeafForm {
    /// The value of the one output.
    Scalar,
    /// All outputs; zero for those to which the tree does not add.
    Vector,
    /// The logarithm of each output.
    Logarithm,
    /// One of several outputs.
    Component(usize),
}

/// How an ensemble is expressed.
pub(super) struct Plan {
    pub target: Target,
    pub aggregation: &'static str,
    pub form: LeafForm,
    pub labels: Vec<String>,
    pub label_type: LabelType,
    pub notes: Vec<String>,
}

/// Checks the options against the ensemble and chooses the aggregation.
pub(super) fn plan(ensemble: &Ensemble, options: &DefinitionOptions) -> Result<Plan, TreeError> {
    let prediction = ensemble.prediction;
    let classes = ensemble.classes();
    let mut notes = Vec::new();
    let default_labels;
    let own = match &ensemble.labels {
        Some(labels) => labels,
        None => {
            #[allow(clippy::cast_precision_loss)]
            let numbers = (0..classes).map(|class| Label::Number(class as f64)).collect();
            default_labels = numbers;
            &default_labels
        }
    };
    let (labels, mut label_type) = match &options.labels {
        Some(labels) if prediction.is_classification() => (labels.clone(), LabelType::Text),
        Some(_) => {
            return Err(TreeError::Options(format!(
                "class labels were set, but {} is not a classification",
                ensemble.origin.objective
            )));
        }
        None => (own.iter().map(Label::to_string).collect(), type_of(own)),
    };
    label_type = options.label_type.unwrap_or(label_type);
    if labels.len() != classes {
        return Err(TreeError::Options(format!(
            "the model has {classes} classes, but {} labels were set",
            labels.len()
        )));
    }
    let different: HashSet<_> = labels.iter().collect();
    if different.len() != labels.len() {
        return Err(TreeError::Options("the class labels are not all different".to_owned()));
    }
    if let Some(weights) = &options.weights
        && (weights.len() != classes || weights.iter().any(|weight| !weight.is_finite()))
    {
        return Err(TreeError::Options(format!(
            "classification weights must be {classes} finite numbers, one for each class"
        )));
    }

    if let Some(class) = &options.output_class {
        let Some(index) = labels.iter().position(|label| label == class) else {
            return Err(TreeError::Options(format!(
                "the model has no class {class:?}; its classes are {}",
                labels.join(", ")
            )));
        };
        if prediction != Prediction::Mean {
            return Err(TreeError::Options(format!(
                "a single class's probability can be exported only for forests and decision trees of scikit-learn, not for {}; import the model as a classification",
                ensemble.origin.objective
            )));
        }
        if options.target == Some(Target::Classification) {
            return Err(TreeError::Options(
                "the probability of one class is a regression, not a classification".to_owned(),
            ));
        }
        return Ok(Plan {
            target: options.target.unwrap_or(Target::Regression),
            aggregation: "weighted_sum",
            form: LeafForm::Component(index),
            labels: Vec::new(),
            label_type,
            notes,
        });
    }

    let natural =
        if prediction.is_classification() { Target::Classification } else { Target::Regression };
    let target = options.target.unwrap_or(natural);
    match (natural, target) {
        (Target::Classification, Target::Regression | Target::Ranking) => {
            return Err(TreeError::Options(format!(
                "{} is a classification; Elasticsearch cannot return its probability as a number of a {} model",
                ensemble.origin.objective,
                target.name()
            )));
        }
        (_, Target::Classification) if natural != Target::Classification => {
            return Err(TreeError::Options(format!(
                "{} predicts a number; it cannot be imported as a classification",
                ensemble.origin.objective
            )));
        }
        _ => {}
    }
    let (aggregation, form) = match prediction {
        Prediction::Value | Prediction::Ranking => ("weighted_sum", LeafForm::Scalar),
        Prediction::Exponential => ("exponent", LeafForm::Scalar),
        Prediction::Logistic => ("logistic_regression", LeafForm::Scalar),
        Prediction::LogisticValue => {
            notes.push(format!(
                "{} predicts a probability. Elasticsearch returns it as prediction_probability of class {:?} of a classification, not as a predicted number.",
                ensemble.origin.objective, labels[1]
            ));
            ("logistic_regression", LeafForm::Scalar)
        }
        Prediction::Hinge => {
            notes.push(format!(
                "{} has no probabilities. The labels are exact; ignore prediction_probability and prediction_score.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Scalar)
        }
        Prediction::Softmax => ("logistic_regression", LeafForm::Vector),
        Prediction::Mean if ensemble.is_tree_of_fractions() => {
            ("logistic_regression", LeafForm::Logarithm)
        }
        Prediction::Mean | Prediction::Largest => {
            notes.push(format!(
                "{} averages the class fractions of its trees, which Elasticsearch cannot do. The labels are exact; ignore prediction_probability and prediction_score. To serve the exact probability of one class, export that class as a regression.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Vector)
        }
        Prediction::OneVersusRest => {
            notes.push(format!(
                "{} computes a separate probability for each class, which Elasticsearch cannot do. The labels are exact; ignore prediction_probability and prediction_score.",
                ensemble.origin.objective
            ));
            ("logistic_regression", LeafForm::Vector)
        }
    };
    if target == Target::Classification && classes < 2 {
        return Err(TreeError::unsupported(
            format!("a classification with {classes} class"),
            "Elasticsearch needs at least two classes",
        ));
    }
    Ok(Plan { target, aggregation, form, labels, label_type, notes })
}

fn type_of(labels: &[Label]) -> LabelType {
    let all = |matches: fn(&Label) -> bool| !labels.is_empty() && labels.iter().all(matches);
    if all(|label| matches!(label, Label::Number(number) if number.fract() == 0.0)) {
        LabelType::Number
    } else if all(|label| matches!(label, Label::Boolean(_))) {
        LabelType::Boolean
    } else {
        LabelType::Text
    }
}
