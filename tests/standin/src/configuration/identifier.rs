//! Validation of model ids and tags (contract, 2.2).

const LONGEST: usize = 64;

/// Whether `id` matches `[a-z0-9](?:[a-z0-9_\-\.]*[a-z0-9])?` and is not `_all`.
pub(crate) fn is_valid(id: &str) -> bool {
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    let bytes = id.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inside(*b))
}

/// Validation messages for a model id; empty if the id is valid.
pub(crate) fn complaints(id: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !is_valid(id) {
        complaints.push(format!(
            "Invalid model_id; '{id}' can contain lowercase alphanumeric (a-z and 0-9), hyphens or underscores; must start and end with alphanumeric"
        ));
    }
    if id.chars().count() > LONGEST {
        complaints.push(format!(
            "Invalid model_id; '{id}' cannot contain more than {LONGEST} characters."
        ));
    }
    complaints
}

/// Validation messages for the tags of a model.
pub(crate) fn tag_complaints(id: &str, tags: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    let invalid: Vec<_> = tags
        .iter()
        .filter(|tag| !is_valid(tag) || tag.chars().count() > LONGEST)
        .map(String::as_str)
        .collect();
    if !invalid.is_empty() {
        complaints.push(format!(
            "Invalid tags [{}]; must only can contain lowercase alphanumeric (a-z and 0-9), hyphens or underscores, must start and end with alphanumeric, and must be less than {LONGEST} characters.",
            invalid.join(", ")
        ));
    }
    if tags.iter().any(|tag| tag == id) {
        complaints.push("none of the tags must equal the model_id".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_match_the_pattern() {
        for id in ["a", "0", "bert.base-v2_x", "a_", "sentence-transformers__all-minilm-l6-v2"] {
            assert_eq!(is_valid(id), id != "a_", "{id}");
        }
        for id in ["", "_all", ".elser", "-a", "A", "a/b", "a b", "ä", "a."] {
            assert!(!is_valid(id), "{id}");
        }
        assert_eq!(complaints(&"a".repeat(64)), Vec::<String>::new());
        assert_eq!(complaints(&"A".repeat(65)).len(), 2);
    }
}
