//! Sizes and durations on the command line.

use std::time::Duration;

/// Parses `4MiB` (powers of 1024), `4MB` (powers of 1000) or a number of bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("b", 1),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
    ];
    parse(text, &units).ok_or_else(|| "expected a size such as 512KiB or 4MiB".into())
}

/// Parses `500ms`, `90s`, `15m`, `2h` or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("", 1000), ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    parse(text, &units)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a duration such as 90s or 15m".into())
}

/// Parses an integer with a unit in any case.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_parsed() {
        for (text, expected) in [
            ("4MiB", 4 << 20),
            ("512kib", 512 << 10),
            ("1 MB", 1_000_000),
            ("77", 77),
            ("1gib", 1 << 30),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in
            ["", "MiB", "1.5MiB", "-1", "4m", "99999999999999999999", "18446744073709551615kib"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert!(duration("1d").is_err() && duration("s").is_err());
    }
}
