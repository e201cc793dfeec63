//! Results of text classification and zero-shot classification (contract, 2.4 and 8).

use serde_json::{Map, Value};

use super::output::Output;
use super::probabilities::{ranked, softmax, top_class};
use crate::configuration::task::ZeroShot;
use crate::errors::ApiError;

/// The mean of the windows' probabilities.
pub(super) fn text_classification(
    output: &Output,
    labels: &[String],
    num_top_classes: i32,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let windows = output.rows(0);
    if windows.is_empty() {
        return Err(ApiError::internal("Text classification result has no data"));
    }
    let mut mean = vec![0.0; labels.len()];
    for window in &windows {
        if window.len() != labels.len() {
            return Err(ApiError::internal(format!(
                "Expected exactly [{}] values in text classification result; got [{}]",
                labels.len(),
                window.len()
            )));
        }
        for (sum, probability) in mean.iter_mut().zip(softmax(window)) {
            *sum += probability / windows.len() as f64;
        }
    }
    let top = usize::try_from(num_top_classes).unwrap_or(labels.len());
    Ok(classes(labels, &mean, top, field))
}

/// One row of logits for each label, entailment against the other labels or against contradiction.
pub(super) fn zero_shot(
    output: &Output,
    config: &ZeroShot,
    labels: &[String],
    multi_label: bool,
    field: &str,
) -> Result<Map<String, Value>, ApiError> {
    let rows = output.rows(0);
    if rows.len() != labels.len() {
        return Err(ApiError::internal(format!(
            "Expected exactly [{}] values in zero shot classification result; got [{}]",
            labels.len(),
            rows.len()
        )));
    }
    let position = |wanted: &str| {
        config.classification_labels.iter().position(|label| label.eq_ignore_ascii_case(wanted))
    };
    let (Some(entailment), Some(contradiction)) =
        (position("entailment"), position("contradiction"))
    else {
        return Err(ApiError::bad_request(
            "zero_shot_classification requires [entailment] and [contradiction] in classification_labels",
        ));
    };
    if let Some(row) = rows.iter().find(|row| row.len() != 3) {
        return Err(ApiError::internal(format!(
            "Expected exactly [3] values in inner zero shot classification result; got [{}]",
            row.len()
        )));
    }
    let probabilities = if multi_label {
        rows.iter().map(|row| softmax(&[row[entailment], row[contradiction]])[0]).collect()
    } else {
        softmax(&rows.iter().map(|row| row[entailment]).collect::<Vec<_>>())
    };
    Ok(classes(labels, &probabilities, labels.len(), field))
}

fn classes(
    labels: &[String],
    probabilities: &[f64],
    top: usize,
    field: &str,
) -> Map<String, Value> {
    let order = ranked(probabilities);
    let mut result = Map::new();
    result.insert(field.to_owned(), labels[order[0]].clone().into());
    if top > 0 {
        let entries: Vec<Value> =
            order.iter().take(top).map(|i| top_class(&labels[*i], probabilities[*i])).collect();
        result.insert("top_classes".into(), entries.into());
    }
    result.insert("prediction_probability".into(), probabilities[order[0]].into());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn probabilities_of_windows_are_averaged() {
        let output = Output::new([1, 2, 2], &[0.0, 0.0, 0.0, 100.0]);
        let result = text_classification(&output, &labels(&["no", "yes"]), -1, "out").unwrap();
        assert_eq!(result["out"], "yes");
        assert_eq!(result["prediction_probability"], 0.75);
        assert_eq!(result["top_classes"][1]["class_name"], "no");
        assert_eq!(result["top_classes"][1]["class_probability"], 0.25);
        let alone = text_classification(&output, &labels(&["no", "yes"]), 0, "out").unwrap();
        assert!(!alone.contains_key("top_classes"));
        let wrong = text_classification(&output, &labels(&["a", "b", "c"]), 0, "out").unwrap_err();
        assert_eq!(
            wrong.reason(),
            "Expected exactly [3] values in text classification result; got [2]"
        );
    }

    #[test]
    fn zero_shot_compares_labels_or_entailment_with_contradiction() {
        let config = ZeroShot {
            classification_labels: labels(&["contradiction", "neutral", "entailment"]),
            hypothesis_template: "{}".into(),
            multi_label: false,
            labels: None,
        };
        let output = Output::new([1, 2, 3], &[9.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
        let names = labels(&["x", "y"]);
        let single = zero_shot(&output, &config, &names, false, "out").unwrap();
        assert_eq!((&single["out"], &single["prediction_probability"]), (&"x".into(), &0.5.into()));
        let multi = zero_shot(&output, &config, &names, true, "out").unwrap();
        assert_eq!((&multi["out"], &multi["prediction_probability"]), (&"y".into(), &0.5.into()));
        assert!(zero_shot(&output, &config, &names[..1], false, "out").is_err());
        let narrow = Output::new([1, 2, 2], &[0.0; 4]);
        assert!(zero_shot(&narrow, &config, &names, false, "out").is_err());
    }
}
