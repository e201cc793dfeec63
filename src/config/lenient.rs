//! Fields of unexpected types, read as Python would read them. A value that makes no sense counts as missing, because a field that a
//! task does not need must not stop an import.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Value::deserialize(deserializer)
}

/// A flag: what Python takes for true.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(match value(deserializer)? {
        Value::Null => None,
        Value::Bool(flag) => Some(flag),
        Value::Number(number) => Some(number.as_f64() != Some(0.)),
        Value::String(text) => Some(!text.is_empty()),
        Value::Array(list) => Some(!list.is_empty()),
        Value::Object(map) => Some(!map.is_empty()),
    })
}

/// A flag that is false where it is missing.
pub(super) fn flag_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(flag(deserializer)?.unwrap_or(false))
}

/// A whole number, also as a decimal or as text.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(match value(deserializer)? {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|number| number.fract() == 0.)?;
            (number.abs() < 2f64.powi(53)).then_some(number as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A number of tokens.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(number(deserializer)?.and_then(|number| u32::try_from(number).ok()))
}

/// A text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(value(deserializer)?.as_str().map(str::to_owned))
}

/// The texts of a list.
pub(super) fn texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let value = value(deserializer)?;
    let texts =
        |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(value.as_array().map(texts))
}

/// The texts of an object.
pub(super) fn named_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let value = value(deserializer)?;
    let entries = value.as_object().into_iter().flatten();
    let texts = entries.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
    Ok(texts.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_as_python_reads_them() {
        assert_eq!(flag(json!(1)).unwrap(), Some(true));
        assert_eq!(flag(json!(0)).unwrap(), Some(false));
        assert_eq!(flag(json!(null)).unwrap(), None);
        assert_eq!(number(json!(512.0)).unwrap(), Some(512));
        assert_eq!(number(json!("64")).unwrap(), Some(64));
        assert_eq!(number(json!(1.5)).unwrap(), None);
        assert_eq!(count(json!(-1)).unwrap(), None);
        assert_eq!(texts(json!(["a", 3])).unwrap(), Some(vec!["a".to_owned()]));
        assert_eq!(texts(json!("a")).unwrap(), None);
        assert!(named_texts(json!("none")).unwrap().is_empty());
    }
}
