//! JSON as Python reads and writes it.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses JSON that Python's `json` module accepts: a byte order mark is skipped, `NaN` and `Infinity` are numbers, and if a key
/// appears twice, its last value is used. If `T` does not accept the unchanged text, members that are null count as missing, `NaN`
/// counts as null, and infinities as the largest finite numbers.
///
/// # Errors
/// The error for the unchanged text, if these changes do not help.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let text = text.trim_start_matches('\u{feff}');
    let strict = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let value: Result<Value, _> = serde_json::from_str(&finite(text));
    match value {
        Ok(mut value) => {
            remove_nulls(&mut value);
            T::deserialize(value).map_err(|lenient| if strict.is_data() { strict } else { lenient })
        }
        Err(_) => Err(strict),
    }
}

/// Removes the members of objects that are null, at every depth.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_nulls),
        _ => (),
    }
}

/// The text with Python's names of numbers replaced outside of strings.
fn finite(text: &str) -> String {
    const NAMES: [(&str, &str); 3] = [
        ("NaN", "null"),
        ("-Infinity", "-1.7976931348623157e308"),
        ("Infinity", "1.7976931348623157e308"),
    ];
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        if !in_string
            && let Some((name, number)) = NAMES.iter().find(|(name, _)| rest.starts_with(name))
        {
            replaced.push_str(number);
            rest = &rest[name.len()..];
            continue;
        }
        let mut length = next.len_utf8();
        match next {
            '"' => in_string = !in_string,
            // The character after a backslash never ends the string.
            '\\' if in_string => {
                length += rest[length..].chars().next().map_or(0, char::len_utf8);
            }
            _ => (),
        }
        replaced.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    replaced
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::parse;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Named {
        #[serde(default)]
        a: i64,
        b: Option<f64>,
    }

    #[test]
    fn numbers_of_python_are_read() {
        let value: Value =
            parse(r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity"}"#).unwrap();
        assert_eq!(value, json!({"b": [f64::MIN, f64::MAX], "c": "NaN \" Infinity"}));
    }

    #[test]
    fn null_counts_as_missing_where_the_type_refuses_it() {
        assert_eq!(parse::<Named>(r#"{"a": null, "b": null}"#).unwrap(), Named { a: 0, b: None });
    }

    #[test]
    fn last_of_two_equal_keys_counts() {
        assert_eq!(parse::<Named>(r#"{"a": 1, "a": 2}"#).unwrap(), Named { a: 2, b: None });
    }

    #[test]
    fn byte_order_mark_is_skipped() {
        assert_eq!(parse::<i64>("\u{feff}3").unwrap(), 3);
    }

    #[test]
    fn error_of_the_original_text_is_reported() {
        assert!(parse::<Named>(r#"{"a": "x"}"#).unwrap_err().to_string().contains("line 1"));
        assert!(parse::<Value>("{").unwrap_err().is_eof());
    }
}
