//! Versions of Elasticsearch, and what came with them.

use std::fmt;
use std::str::FromStr;

/// A release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 9 in 9.2.0.
    pub major: u32,
    /// 2 in 9.2.0.
    pub minor: u32,
    /// 0 in 9.2.0.
    pub patch: u32,
}

impl Version {
    /// The oldest release whose libtorch reads the archives that libtorch 2.7 writes.
    pub const OLDEST: Self = Self::new(8, 7, 0);
    /// The first whose API knows `embedding_size`.
    pub const EMBEDDING_SIZE: Self = Self::new(8, 8, 0);
    /// The first whose API tells whether a definition is whole.
    pub const DEFINITION_STATUS: Self = Self::new(8, 8, 0);
    /// The first whose API knows `deployment_id`.
    pub const DEPLOYMENT_ID: Self = Self::new(8, 8, 0);
    /// The first that reads the memory figures of a model's metadata.
    pub const MEMORY_METADATA: Self = Self::new(8, 11, 0);
    /// The first whose API knows `platform_architecture`.
    pub const PLATFORM_ARCHITECTURE: Self = Self::new(8, 11, 0);
    /// The first whose API knows `prefix_strings`.
    pub const PREFIX_STRINGS: Self = Self::new(8, 12, 0);
    /// The first whose libtorch runs `scaled_dot_product_attention`.
    pub const FUSED_ATTENTION: Self = Self::new(8, 13, 0);
    /// The first whose API knows `adaptive_allocations`.
    pub const ADAPTIVE_ALLOCATIONS: Self = Self::new(8, 16, 0);
    /// The first that takes no `queue_capacity` of 100,000 or more.
    pub const SMALLER_QUEUE: Self = Self::new(8, 16, 0);

    /// A release.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads `9.2.0`; a suffix such as `-SNAPSHOT` is passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.split_once(['-', '+']).map_or(text, |(number, _)| number);
        let mut parts = number.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(format!("{text:?} is not a version like 9.2.0")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(
            version("8.7.0") < version("8.13.1") && version("8.19.20") < version("9.0.0-SNAPSHOT")
        );
        assert!("9.2".parse::<Version>().is_err() && "x.1.2".parse::<Version>().is_err());
    }
}
