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
    /// For labels that have the same name after renaming: the indexes of the model's logits for each label. The label gets the
    /// greatest of these logits at each token. The others get labels of their own, at the end of `names`.
    pub grouped: Option<Vec<Vec<i64>>>,
    /// Whether `names` ends with a label O that the model does not have. It is never predicted.
    pub adds_outside: bool,
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
                    grouped: None,
                    adds_outside: false,
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
        /// Names of the label O in models that do not call it so.
        const OUTSIDE: [&str; 4] = ["outside", "none", "0", "_"];
        let is_o = |label: &String| label.eq_ignore_ascii_case("O");
        let has_o = labels.iter().any(is_o);
        let outside = |label: &String| {
            is_o(label) || !has_o && OUTSIDE.contains(&label.to_lowercase().as_str())
        };
        let adds_outside = !labels.iter().any(outside);
        let inner = || labels.iter().filter(|label| !outside(label));
        let tags: String = inner().filter_map(|label| Some(prefix(label)?.0)).collect();
        // Labels such as E-mail alone are no scheme.
        let prefixed = tags.contains(['B', 'I'])
            || tags.contains(['S', 'U']) && tags.contains(['E', 'L', 'M']);
        let suffixed = !prefixed
            && inner().all(|label| suffix(label).is_some())
            && inner().any(|label| suffix(label).is_some_and(|(tag, _)| tag == 'B'));
        let served = |label: &String| {
            let parts = match (prefixed, suffixed) {
                (true, _) => prefix(label),
                (_, true) => suffix(label),
                _ => None,
            };
            match parts {
                _ if is_o(label) => label.clone(),
                _ if outside(label) => "O".to_owned(),
                Some(('B' | 'I', _))
                    if prefixed && label.get(1..2).is_some_and(|c| "-_".contains(c)) =>
                {
                    label.clone()
                }
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
        let mut groups: Vec<Vec<i64>> = Vec::new();
        let mut others = Vec::new();
        // As sent, where hyphens become underscores.
        let same = |a: &str, b: &str| a.replace('-', "_") == b.replace('-', "_");
        for ((name, label), index) in all.into_iter().zip(labels).zip(0..) {
            let place = names.iter().position(|other| same(other, &name));
            match place.and_then(|place| groups.get_mut(place)) {
                Some(group) => {
                    group.push(index);
                    others.push(label);
                }
                None => {
                    names.push(name);
                    groups.push(vec![index]);
                }
            }
        }
        let grouped = (adds_outside || !others.is_empty()).then_some(groups);
        for label in &others {
            let mut name = format!("I-{label}");
            while names.iter().any(|other| same(other, &name)) {
                name.push('_');
            }
            names.push(name);
        }
        let kept = names.iter().skip(names.len() - others.len()).cloned().collect::<Vec<_>>();
        let mut notes: Vec<String> = note.into_iter().collect();
        if !kept.is_empty() {
            notes.push(format!(
                "so that all probabilities equal the model's, the weaker of two labels with one name is sent as a label of its own, which \
                 is never predicted: {}",
                kept.join(", ")
            ));
        }
        if adds_outside {
            names.push("O".to_owned());
            notes.push(
                "the model has no label for tokens outside of entities, which Elasticsearch requires: O is added, and never predicted"
                    .to_owned(),
            );
        }
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Self { names, note, grouped, adds_outside, ..Self::default() })
    }
}

/// What separates the tag of a label from the entity.
const SEPARATORS: [char; 7] = ['-', '_', ':', '/', '.', '|', ' '];

/// Tag at the beginning of a label, such as `B` in `B-PER`, and the entity.
fn prefix(label: &str) -> Option<(char, &str)> {
    let (tag, entity) = label.split_once(SEPARATORS)?;
    Some((tag_of(tag)?, entity)).filter(|_| !entity.is_empty())
}

/// Entity, and the tag at the end of a label, such as `B` in `PER-B`.
fn suffix(label: &str) -> Option<(char, &str)> {
    let (entity, tag) = label.rsplit_once(SEPARATORS)?;
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
            (&["O", "B-A", "I-A", "E-A", "S-A"], &["O", "B-A", "I-A", "I-E-A", "I-S-A"]),
            (
                &["O", "B-A", "M-A", "E-A", "L-A", "U-A"],
                &["O", "B-A", "I-A", "I-E-A", "I-L-A", "I-U-A"],
            ),
            (&["o", "B_A", "I_A"], &["o", "B_A", "I_A"]),
            (&["O", "A-B", "A-I"], &["O", "B-A", "I-A"]),
            (&["O", "work-of-art"], &["O", "I-work-of-art"]),
            (&["O", "E-mail", "person"], &["O", "I-E-mail", "I-person"]),
            (&["O", "B:A", "I:A"], &["O", "B-A", "I-A"]),
            (&["OUTSIDE", "B-A", "I-A"], &["O", "B-A", "I-A"]),
            (&["LABEL_0", "LABEL_1"], &["I-LABEL_0", "I-LABEL_1", "O"]),
        ] {
            assert_eq!(entities(labels).unwrap(), served);
        }
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
