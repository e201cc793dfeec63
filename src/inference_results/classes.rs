//! Results of text_classification and zero_shot_classification.

use serde_json::{Map, Value};

use super::{InferenceError, Output, largest, softmax, with_classes};

/// `text_classification`: softmax over the logits of each window, and the mean of the windows.
pub(super) fn of_logits(
    output: &Output,
    labels: &[String],
    num_top_classes: usize,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let windows = output.rows()?;
    let mut mean = vec![0.; labels.len()];
    for logits in &windows {
        expect(logits.len(), labels.len())?;
        for (sum, probability) in mean.iter_mut().zip(softmax(logits)) {
            *sum += probability / windows.len() as f64;
        }
    }
    ranked(labels, &mean, num_top_classes, field)
}

/// `zero_shot_classification`: one row per label. Without the position of contradiction, the labels compete by their entailment.
pub(super) fn of_entailment(
    output: &Output,
    entailment: usize,
    contradiction: Option<usize>,
    labels: &[String],
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let rows = output.rows()?;
    if rows.len() != labels.len() {
        return Err(InferenceError::Output(format!(
            "it has {} rows for {} labels",
            rows.len(),
            labels.len()
        )));
    }
    rows.iter().try_for_each(|row| expect(row.len(), 3))?;
    let probabilities = match contradiction {
        Some(contradiction) => rows
            .iter()
            .map(|row| softmax(&[row[entailment], row[contradiction]]).first().copied())
            .map(|probability| probability.unwrap_or(f64::NAN))
            .collect(),
        None => softmax(&rows.iter().map(|row| row[entailment]).collect::<Vec<_>>()),
    };
    ranked(labels, &probabilities, labels.len(), field)
}

fn expect(found: usize, labels: usize) -> Result<(), InferenceError> {
    if found == labels {
        return Ok(());
    }
    Err(InferenceError::Output(format!("it has {found} logits for {labels} labels")))
}

fn ranked(
    labels: &[String],
    probabilities: &[f64],
    listed: usize,
    field: &str,
) -> Result<Map<String, Value>, InferenceError> {
    let order = largest(probabilities, listed.clamp(1, labels.len().max(1)));
    let classes: Vec<_> =
        order.into_iter().map(|at| (labels[at].clone(), probabilities[at])).collect();
    with_classes(field, &classes, listed)
        .ok_or_else(|| InferenceError::Output("there are no labels".into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn windows_share_their_probabilities() {
        let output = Output { sizes: [1, 2, 2], values: vec![0., 0., 99., 0.] };
        let labels = ["a".to_owned(), "b".to_owned()];
        let result = of_logits(&output, &labels, 2, "p").unwrap();
        assert_eq!(result["p"], "a");
        assert_eq!(result["prediction_probability"], json!(0.75));
        assert_eq!(result["top_classes"][1]["class_name"], "b");
        assert!(!of_logits(&output, &labels, 0, "p").unwrap().contains_key("top_classes"));
        assert!(of_logits(&output, &labels[..1], 0, "p").is_err());
    }

    #[test]
    fn labels_compete_unless_several_can_apply() {
        let output = Output { sizes: [1, 2, 3], values: vec![8., 0., 2., 0., 0., 2.] };
        let labels = ["a".to_owned(), "b".to_owned()];
        let competing = of_entailment(&output, 2, None, &labels, "p").unwrap();
        assert_eq!(
            (&competing["p"], &competing["prediction_probability"]),
            (&json!("a"), &json!(0.5))
        );
        let several = of_entailment(&output, 2, Some(0), &labels, "p").unwrap();
        assert_eq!(several["p"], "b");
        assert!(of_entailment(&output, 2, None, &labels[..1], "p").is_err());
    }
}
