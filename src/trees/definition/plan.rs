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

/// The classes of an ensemble, as the options name them.
#[derive(Debug, Clone, PartialEq)]
pub struct Classes {
    /// The labels, in the order of the classes. Empty unless the model is a classifier.
    pub labels: Vec<String>,
    /// The type in which Elasticsearch returns the labels.
    pub label_type: LabelType,
    /// The one class whose probability is exported.
    pub output: Option<usize>,
}

/// The labels, checked with the options that only a classification has.
pub(super) fn classes(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
) -> Result<Classes, TreeError> {
    let classes = ensemble.classes();
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
    let (labels, label_type) = match &options.labels {
        Some(labels) => (labels.clone(), LabelType::Text),
        None => (own.iter().map(Label::to_string).collect(), type_of(own)),
    };
    check_class_options(ensemble, options, &labels)?;
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
    let output = match &options.output_class {
        Some(class) => Some(labels.iter().position(|label| label == class).ok_or_else(|| {
            TreeError::Options(format!(
                "the model has no class {class:?}; its classes are {}",
                labels.join(", ")
            ))
        })?),
        None => None,
    };
    Ok(Classes { labels, label_type: options.label_type.unwrap_or(label_type), output })
}

/// Checks the options against the ensemble and chooses the aggregation.
pub(super) fn plan(ensemble: &Ensemble, options: &DefinitionOptions) -> Result<Plan, TreeError> {
    let prediction = ensemble.prediction;
    let mut notes = Vec::new();
    let Classes { labels, label_type, output } = classes(ensemble, options)?;
    if let Some(index) = output {
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
    let classes = labels.len();
    if target == Target::Classification && classes < 2 {
        return Err(TreeError::unsupported(
            format!("a classification with {classes} class"),
            "Elasticsearch needs at least two classes",
        ));
    }
    Ok(Plan { target, aggregation, form, labels, label_type, notes })
}

/// Checks the options that only a classification has.
fn check_class_options(
    ensemble: &Ensemble,
    options: &DefinitionOptions,
    labels: &[String],
) -> Result<(), TreeError> {
    let refuse = |reason: String| Err(TreeError::Options(reason));
    let set = [
        ("class labels", options.labels.is_some()),
        ("classification weights", options.weights.is_some()),
        ("a type of labels", options.label_type.is_some()),
    ];
    let first = set.iter().find(|(_, is_set)| *is_set).map(|(what, _)| *what);
    let objective = &ensemble.origin.objective;
    if !ensemble.prediction.is_classification() {
        return match first.or(options.output_class.as_ref().map(|_| "an output class")) {
            Some(what) => refuse(format!(
                "{what} cannot be set: {objective} predicts a number and is not a classification"
            )),
            None => Ok(()),
        };
    }
    if let Some(class) = &options.output_class
        && let Some((what, _)) = set[1..].iter().find(|(_, is_set)| *is_set)
    {
        return refuse(format!(
            "{what} cannot be set together with the output class {class:?}: the probability of one class is a number"
        ));
    }
    if let Some(weights) = &options.weights {
        if !ensemble.has_exact_probabilities() {
            return refuse(format!(
                "classification weights cannot be set: they multiply probabilities, which Elasticsearch cannot compute for {objective}"
            ));
        }
        let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        let classes = ensemble.classes();
        if weights.len() != classes || !weights.iter().all(is_weight) {
            return refuse(format!(
                "classification weights must be {classes} numbers of at least 0, one for each class"
            ));
        }
        if weights.iter().all(|weight| *weight == 0.0) {
            return refuse("at least one classification weight must be more than 0".to_owned());
        }
    }
    let (kind, is_valid): (_, fn(&str) -> bool) = match options.label_type {
        Some(LabelType::Number) => ("a whole number", |label| label.parse::<i64>().is_ok()),
        Some(LabelType::Boolean) => ("true or false", |label| matches!(label, "true" | "false")),
        Some(LabelType::Text) | None => return Ok(()),
    };
    match labels.iter().find(|label| !is_valid(label)) {
        Some(label) => refuse(format!(
            "the label {label:?} is not {kind}, so Elasticsearch cannot return it as a {}",
            options.label_type.map_or("", LabelType::name)
        )),
        None => Ok(()),
    }
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
