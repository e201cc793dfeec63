//! How Elasticsearch reads numbers from documents and writes values as the keys of preprocessors.

use serde_json::Value;

use super::ensemble::Label;

/// The number that Elasticsearch reads from a field: a JSON number or a string that Java reads as a double. Infinities and NaN are
/// missing.
pub(super) fn number(field: &Value) -> Option<f64> {
    let number = match field {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
            digits.parse().ok()?
        }
        _ => return None,
    };
    Some(number).filter(|number| number.is_finite())
}

/// The string by which a preprocessor looks up the value of a field.
pub(super) fn java_string(field: &Value) -> String {
    match field {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            java_double(number.as_f64().unwrap_or_default())
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(java_string).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", java_string(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// The strings under which a preprocessor finds a category. A whole number has two: documents hold integers or doubles.
pub(super) fn category_keys(name: &Label) -> Vec<String> {
    match name {
        Label::Text(text) => vec![text.clone()],
        Label::Boolean(truth) => vec![truth.to_string()],
        Label::Number(number) => {
            let double = java_double(*number);
            if *number == 0.0 {
                ["0", "0.0", "-0.0"].map(str::to_owned).to_vec()
            } else if number.fract() == 0.0 && number.abs() < 9e15 {
                vec![format!("{number:.0}"), double]
            } else {
                vec![double]
            }
        }
    }
}

/// How Java writes a double (`Double.toString`).
fn java_double(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (3.0, "3.0"),
            (-2.5, "-2.5"),
            (1e7, "1.0E7"),
            (12_345_678.0, "1.2345678E7"),
            (1e-5, "1.0E-5"),
            (9_999_999.0, "9999999.0"),
        ] {
            assert_eq!(java_double(value), text);
        }
    }

    #[test]
    fn numbers_are_read_as_java_reads_them() {
        for (field, expected) in [
            (serde_json::json!(1), Some(1.0)),
            (serde_json::json!(" 3.5 "), Some(3.5)),
            (serde_json::json!("1e3"), Some(1000.0)),
            (serde_json::json!("2d"), Some(2.0)),
            (serde_json::json!("abc"), None),
            (serde_json::json!(""), None),
            (serde_json::json!("Infinity"), None),
            (serde_json::json!(true), None),
            (serde_json::json!([1]), None),
        ] {
            assert_eq!(number(&field), expected, "{field}");
        }
    }
}
