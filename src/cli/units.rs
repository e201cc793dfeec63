//! Sizes and times as they are written on the command line.

use std::time::Duration;

/// The most that can be waited, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads `4MiB` (powers of 1024), `4MB` (powers of 1000) or a number of bytes.
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
    parse(text, &units).ok_or_else(|| "a size is written like 512KiB or 4MiB".into())
}

/// Reads a time: `90s`, `5m`, `1h 30m`; a number alone means seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = if is_number {
        humantime::parse_duration(&format!("{text}s"))
    } else {
        humantime::parse_duration(text)
    };
    let duration =
        read.map_err(|_| "give a number and a unit, such as 500ms, 90s, 5m, 1h".to_owned())?;
    match duration {
        time if time < Duration::from_millis(1) => Err("it must not be 0".into()),
        time if time > LONGEST => Err("it must not be longer than 7 days".into()),
        time => Ok(time),
    }
}

/// A whole number times its unit, in whatever case.
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
    fn sizes_and_times_are_read() {
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
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
            ("500ms", 500),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), milliseconds, "{text}");
        }
        for text in ["", "0", "0s", "-1s", "1x", "s", "8d", "99999999999999999999", "1ns"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
