//! Strict parser for query parameters and their units.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::errors::ApiError;

/// Parameters accepted by every call.
const EVERYWHERE: [&str; 6] =
    ["pretty", "human", "error_trace", "filter_path", "format", "master_timeout"];

/// Query parameters of a call. Parameters that no handler takes are rejected as unknown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    path: String,
    parameters: BTreeMap<String, String>,
}

impl Query {
    pub(crate) fn parse(path: &str, query: Option<&str>) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value)).ok_or_else(|| {
                ApiError::illegal_argument(format!("unterminated escape sequence in [{pair}]"))
            })?;
            parameters.insert(decoded.0, decoded.1);
        }
        Ok(Self { path: path.to_owned(), parameters })
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.parameters.remove(name)
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(ApiError::illegal_argument(format!(
                "Failed to parse value [{other}] as only [true] or [false] are allowed."
            ))),
        }
    }

    pub(crate) fn int(&mut self, name: &str) -> Result<Option<i32>, ApiError> {
        self.take(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::illegal_argument(format!(
                        "Failed to parse int parameter [{name}] with value [{text}]"
                    ))
                })
            })
            .transpose()
    }

    pub(crate) fn time(&mut self, name: &str) -> Result<Option<Duration>, ApiError> {
        self.take(name).map(|text| time_value(name, &text)).transpose()
    }

    /// Rejects parameters that no handler took.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        self.parameters.retain(|name, _| !EVERYWHERE.contains(&name.as_str()));
        if self.parameters.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.parameters.keys().map(|name| format!("[{name}]")).collect();
        let noun = if names.len() == 1 { "parameter" } else { "parameters" };
        Err(ApiError::illegal_argument(format!(
            "request [{}] contains unrecognized {noun}: {}",
            self.path,
            names.join(", ")
        )))
    }
}

/// Parses a time value such as `30s`, `500ms` or `1m`.
pub(crate) fn time_value(name: &str, text: &str) -> Result<Duration, ApiError> {
    let wrong = || {
        ApiError::illegal_argument(format!(
            "failed to parse setting [{name}] with value [{text}] as a time value: unit is missing or unrecognized"
        ))
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    Ok(match &text[digits..] {
        "nanos" => Duration::from_nanos(number),
        "micros" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        "d" => Duration::from_secs(number.saturating_mul(86_400)),
        _ => return Err(wrong()),
    })
}

/// Formats a duration as the server does.
pub(crate) fn render_time(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1000 == 0 => format!("{}s", m / 1000),
        m => format!("{m}ms"),
    }
}

/// Parses a byte size such as `10kb` or `0b`, and returns it as the server prints it.
pub(crate) fn byte_size(name: &str, text: &str) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::parse(format!(
            "failed to parse setting [{name}] with value [{text}] as a size in bytes: unit is missing or unrecognized"
        ))
    };
    if text == "0" {
        return Ok("0".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = lower[..digits].parse().map_err(|_| wrong())?;
    let unit = match &lower[digits..] {
        "b" => "b",
        "k" | "kb" => "kb",
        "m" | "mb" => "mb",
        "g" | "gb" => "gb",
        "t" | "tb" => "tb",
        "p" | "pb" => "pb",
        _ => return Err(wrong()),
    };
    Ok(if number == 0 { "0".to_owned() } else { format!("{number}{unit}") })
}

/// Percent-decodes a name or value; `+` is a space.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_unknown_ones_rejected() {
        let mut query =
            Query::parse("/x", Some("a=b%2Fc+d&force&timeout=2m&n=3&pretty&odd=1")).unwrap();
        assert_eq!(query.take("a").as_deref(), Some("b/c d"));
        assert_eq!(query.boolean("force").unwrap(), Some(true));
        assert_eq!(query.time("timeout").unwrap(), Some(Duration::from_secs(120)));
        assert_eq!(query.int("n").unwrap(), Some(3));
        assert_eq!(
            query.finish().unwrap_err().reason(),
            "request [/x] contains unrecognized parameter: [odd]"
        );
        assert!(Query::parse("/x", Some("a=%2")).is_err());
    }

    #[test]
    fn units_are_parsed_and_printed() {
        assert_eq!(time_value("t", "500ms").unwrap(), Duration::from_millis(500));
        assert!(time_value("t", "30").is_err() && time_value("t", "-1s").is_err());
        assert_eq!(render_time(Duration::from_secs(30)), "30s");
        assert_eq!(render_time(Duration::from_millis(1500)), "1500ms");
        assert_eq!(byte_size("c", "10kb").unwrap(), "10kb");
        assert_eq!(byte_size("c", "0b").unwrap(), "0");
        assert!(byte_size("c", "10").is_err() && byte_size("c", "x").is_err());
    }
}
