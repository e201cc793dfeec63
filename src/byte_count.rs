//! Numbers of bytes in messages.

use std::fmt;

/// A number of bytes. Displayed in binary units with two decimals, such as `1.50 MiB`; less than 1 KiB as `512 B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64;
        let mut name = "B";
        for unit in UNITS {
            if value < 1024. {
                break;
            }
            value /= 1024.;
            name = unit;
        }
        write!(f, "{value:.2} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::ByteCount;

    #[test]
    fn byte_count_uses_the_largest_unit_that_fits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (3 << 19, "1.50 MiB"),
            (90_868_370, "86.66 MiB"),
            (u64::MAX, "16.00 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }
}
