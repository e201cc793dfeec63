//! Labels of a classifier in the form that Elasticsearch accepts.

use std::collections::BTreeSet;

/// Labels that are uploaded, and the matching change of the logits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedLabels {
    /// Labels, in the order of the graph's logits.
    pub names: Vec<String>,
    /// For a model with two labels that is uploaded with the three labels of natural language inference: the index of its
    /// entailment logit.
    pub entailment_of_two: Option<i64>,
    /// For labels that have the same name after renaming: the indexes of the model's logits for each label. Elasticsearch rejects a
    /// name that appears twice.
    pub merged: Option<Vec<Vec<i64>>>,
    /// Difference from the model's own labels, if there is one.
    pub note: Option<String>,
}

impl ServedLabels {
    /// The model's own labels, unchanged.
    pub(super) fn unchanged(labels: &[String]) -> Self {
        Self { names: labels.to_vec(), ..Self::default() }
    }

    /// Labels of natural language inference. A model with the two labels entailment and not_entailment gets three labels, and the
    /// probability of neutral is always 0.
    pub(super) fn of_inference(labels: &[String]) -> Result<Self, String> {
        const ENTAILMENT: &str = "entailment";
        const SERVED: [&str; 3] = [ENTAILMENT, "neutral", "contradiction"];
        const NOT_ENTAILMENT: [&str; 4] =
            ["notentailment", "nonentailment", "noentailment", "contradiction"];
        let letters = |label: &String| {
            label.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
        };
        let plain: Vec<String> = labels.iter().map(letters).collect();
        let named: BTreeSet<&str> = plain.iter().map(String::as_str).collect();
        if labels.len() == 3 && named == BTreeSet::from(SERVED) {
            return Ok(Self::unchanged(labels));
        }
        let index = plain.iter().position(|label| label == ENTAILMENT);
        match (plain.as_slice(), index) {
            ([first, second], Some(entailment))
                if NOT_ENTAILMENT
                    .contains(&if entailment == 0 { second } else { first }.as_str()) =>
            {
                let other = if entailment == 0 { labels.last() } else { labels.first() };
                Ok(Self {
                    names: SERVED.map(str::to_owned).to_vec(),
                    entailment_of_two: i64::try_from(entailment).ok(),
                    merged: None,
                    note: Some(format!(
                        "the model has two labels, but Elasticsearch requires three: {} is served as contradiction, and neutral always has the probability 0, so the other probabilities equal the model's",
                        other.map_or("", String::as_str)
                    )),
                })
            }
            _ => Err(format!(
                "Elasticsearch requires the labels contradiction, entailment and neutral (or entailment and not_entailment), but the model has {}",
                labels.join(", ")
            )),
        }
    }

    /// Labels in the IOB form (B-PER, I-PER, O), the only form that Elasticsearch accepts (contract 2.4). BIOES, BILOU and BMES
    /// labels are renamed, and labels without a prefix get I-.
    pub(super) fn of_entities(labels: &[String]) -> Result<Self, String> {
        let outside = |label: &str| label.eq_ignore_ascii_case("O");
        if !labels.iter().any(|label| outside(label)) {
            return Err(format!(
                "Elasticsearch requires a label O for tokens outside entities, but the model has {}",
                labels.join(", ")
            ));
        }
        let inner = || labels.iter().filter(|label| !outside(label));
        let prefixed = inner().any(|label| prefix(label).is_some());
        let suffixed = !prefixed && inner().all(|label| suffix(label).is_some());
        let served = |label: &String| {
            let parts = if suffixed { suffix(label) } else { prefix(label) };
            match parts {
                _ if outside(label) => label.clone(),
                Some(('B' | 'I', _)) if prefixed => label.clone(),
                Some(('B' | 'S' | 'U', entity)) => format!("B-{entity}"),
                Some((_, entity)) => format!("I-{entity}"),
                None => format!("I-{label}"),
            }
        };
        let all: Vec<String> = labels.iter().map(served).collect();
        let renamed: Vec<String> = labels
            .iter()
            .zip(&all)
            .filter(|(label, name)| label != name)
            .map(|(label, name)| format!("{label} → {name}"))
            .collect();
        let note = (!renamed.is_empty()).then(|| {
            format!(
                "labels are renamed to the IOB form, the only form that Elasticsearch accepts: {}",
                renamed.join(", ")
            )
        });
        let mut names: Vec<String> = Vec::new();
        let mut merged: Vec<Vec<i64>> = Vec::new();
        for (name, index) in all.into_iter().zip(0..) {
            // Labels are compared in the uploaded form, in which hyphens become underscores.
            let same = |other: &String| other.replace('-', "_") == name.replace('-', "_");
            match names.iter().position(same).and_then(|place| merged.get_mut(place)) {
                Some(indexes) => indexes.push(index),
                None => {
                    names.push(name);
                    merged.push(vec![index]);
                }
            }
        }
        let merged = merged.iter().any(|indexes| indexes.len() > 1).then_some(merged);
        Ok(Self { names, note, merged, ..Self::default() })
    }
}

/// Tag at the beginning of a label, such as `B` in `B-PER`, and the entity.
fn prefix(label: &str) -> Option<(char, &str)> {
    let (tag, entity) = label.split_once(['-', '_'])?;
    Some((tag_of(tag)?, entity)).filter(|_| !entity.is_empty())
}

/// Entity, and the tag at the end of a label, such as `B` in `PER-B`.
fn suffix(label: &str) -> Option<(char, &str)> {
    let (entity, tag) = label.rsplit_once(['-', '_'])?;
    Some((tag_of(tag)?, entity)).filter(|_| !entity.is_empty())
}

/// Tag of IOB, BIOES, BILOU or BMES.
fn tag_of(tag: &str) -> Option<char> {
    let mut letters = tag.chars();
    let tag = letters.next().filter(|_| letters.next().is_none())?.to_ascii_uppercase();
    "BIESLUM".contains(tag).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(labels: &[&str]) -> Result<Vec<String>, String> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        ServedLabels::of_entities(&labels).map(|served| served.names)
    }

    #[test]
    fn entity_labels_become_iob() {
        for (labels, served) in [
            (&["O", "B-PER", "I-PER"][..], &["O", "B-PER", "I-PER"][..]),
            (&["O", "PER", "ORG"], &["O", "I-PER", "I-ORG"]),
            (&["O", "B-A", "I-A", "E-A", "S-A"], &["O", "B-A", "I-A"]),
            (&["O", "B-A", "M-A", "E-A", "L-A", "U-A"], &["O", "B-A", "I-A"]),
            (&["o", "B_A", "I_A"], &["o", "B_A", "I_A"]),
            (&["O", "A-B", "A-I"], &["O", "B-A", "I-A"]),
            (&["O", "work-of-art"], &["O", "I-work-of-art"]),
        ] {
            assert_eq!(entities(labels).unwrap(), served);
        }
        assert!(entities(&["PER", "ORG"]).unwrap_err().contains("label O"));
    }

    #[test]
    fn two_inference_labels_become_three() {
        let read = |labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
            ServedLabels::of_inference(&labels)
        };
        let served = read(&["not_entailment", "ENTAILMENT"]).unwrap();
        assert_eq!(served.names, ["entailment", "neutral", "contradiction"]);
        assert_eq!(served.entailment_of_two, Some(1));
        assert_eq!(read(&["entailment", "not entailment"]).unwrap().entailment_of_two, Some(0));
        let three = read(&["Neutral", "contradiction", "entailment"]).unwrap();
        assert_eq!((three.entailment_of_two, three.names[0].as_str()), (None, "Neutral"));
        assert!(read(&["entailment", "neutral"]).is_err() && read(&["a", "b"]).is_err());
    }
}
