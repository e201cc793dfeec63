//! Versions of Elasticsearch, and the features that each one introduced.

use std::fmt;
use std::str::FromStr;

/// A version of Elasticsearch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major version: 9 in 9.2.0.
    pub major: u32,
    /// Minor version: 2 in 9.2.0.
    pub minor: u32,
    /// Patch version: 0 in 9.2.0.
    pub patch: u32,
}

impl Version {
    /// Oldest version whose libtorch reads archives written by libtorch 2.7.
    pub const OLDEST: Self = Self::new(8, 7, 0);
    /// First version with `embedding_size` in the API.
    pub const EMBEDDING_SIZE: Self = Self::new(8, 8, 0);
    /// First version whose API reports whether a definition is complete.
    pub const DEFINITION_STATUS: Self = Self::new(8, 8, 0);
    /// First version with `deployment_id` in the API.
    pub const DEPLOYMENT_ID: Self = Self::new(8, 8, 0);
    /// First version that reads memory sizes from a model's metadata.
    pub const MEMORY_METADATA: Self = Self::new(8, 11, 0);
    /// First version with `platform_architecture` in the API.
    pub const PLATFORM_ARCHITECTURE: Self = Self::new(8, 11, 0);
    /// First version whose inference processor has `input_output`, and with the field type `sparse_vector`.
    pub const INPUT_OUTPUT: Self = Self::new(8, 11, 0);
    /// First version whose `dense_vector` fields need no `dims` and are indexed by default.
    pub const OPTIONAL_DIMS: Self = Self::new(8, 11, 0);
    /// First version with `prefix_strings` in the API.
    pub const PREFIX_STRINGS: Self = Self::new(8, 12, 0);
    /// First version observed to truncate both texts of a pair (`balanced`).
    pub const BALANCED_TRUNCATION: Self = Self::new(8, 12, 0);
    /// First version with inference endpoints for imported models.
    pub const ENDPOINT: Self = Self::new(8, 13, 0);
    /// First version with `rerank` inference endpoints for imported models.
    pub const RERANK_ENDPOINT: Self = Self::new(8, 14, 0);
    /// First version with the field type `semantic_text` (contract 9).
    pub const SEMANTIC_TEXT: Self = Self::new(8, 15, 0);
    /// First version whose inference endpoints certainly use an existing deployment (contract 9).
    pub const ENDPOINT_OF_DEPLOYMENT: Self = Self::new(8, 18, 0);
    /// First version whose libtorch supports `scaled_dot_product_attention`.
    pub const FUSED_ATTENTION: Self = Self::new(8, 13, 0);
    /// First version whose libtorch (2.3) does not store the scores of fused attention with a mask.
    pub const FUSED_ATTENTION_WITHOUT_SCORES: Self = Self::new(8, 16, 0);
    /// First version with `adaptive_allocations` in the API.
    pub const ADAPTIVE_ALLOCATIONS: Self = Self::new(8, 16, 0);
    /// First version that rejects a `queue_capacity` of 100,000 or more.
    pub const SMALLER_QUEUE: Self = Self::new(8, 16, 0);

    /// First version that serves text_expansion with other tokenizers than `bert`.
    pub const TEXT_EXPANSION_TOKENIZERS: Self = Self::new(8, 17, 0);
    /// First version with the tokenizer `byte_level_bpe`.
    pub const BYTE_LEVEL_BPE: Self = Self::new(9, 5, 0);
    /// First version that accepts a result of rank 0.
    pub const SCALAR_RESULT: Self = Self::new(8, 16, 0);

    /// Creates the version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl FromStr for Version {
    type Err = String;

    /// Parses `9.2.0`; a suffix such as `-SNAPSHOT` is ignored.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.split_once(['-', '+']).map_or(text, |(number, _)| number);
        let mut parts = number.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(format!("{text:?} is not a version such as 9.2.0")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The Elasticsearch version that a model is converted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// Every version from [`Version::OLDEST`] on, or from the first version that supports the model.
    #[default]
    Any,
    /// A version and all later ones.
    Release(Version),
    /// Serverless, which counts as the newest version.
    Serverless,
}

impl Target {
    /// Whether the target supports the features introduced by the version `since`.
    #[must_use]
    pub fn has(self, since: Version) -> bool {
        match self {
            Self::Any => since <= Version::OLDEST,
            Self::Release(version) => since <= version,
            Self::Serverless => true,
        }
    }

    /// Whether the native process rejects graphs with operations outside of its list (contract 11.1): 9.4.0 and later, 8.19.20 and later.
    #[must_use]
    pub fn enforces_operations(self) -> bool {
        match self {
            Self::Any => false,
            Self::Release(version) if version.major == 8 => version >= Version::new(8, 19, 20),
            Self::Release(version) => version >= Version::new(9, 4, 0),
            Self::Serverless => true,
        }
    }

    /// The libtorch that Elasticsearch's native process uses (contract 11). `None` for serverless and for versions after 9.5.
    #[must_use]
    pub fn libtorch(self) -> Option<&'static str> {
        let Self::Release(version) = self else { return None };
        let at_least = |major, minor, patch| version >= Version::new(major, minor, patch);
        let is_newest = match (version.major, version.minor) {
            (8, 19) => version.patch >= 8,
            (9, 1) => version.patch >= 8,
            (major, _) => major > 8 && at_least(9, 2, 0),
        };
        if at_least(9, 6, 0) {
            None
        } else if is_newest {
            Some("2.7.1")
        } else if at_least(8, 18, 0) {
            Some("2.5.1")
        } else if at_least(8, 15, 2) {
            Some("2.3.1")
        } else if at_least(8, 13, 0) {
            Some("2.1.2")
        } else {
            Some("1.13.1")
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Parses a version (`8.17.0` or `8.17`) or `serverless`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "serverless" {
            return Ok(Self::Serverless);
        }
        let version: Version =
            text.parse().or_else(|_| format!("{text}.0").parse()).map_err(|_| {
                format!("{text:?} is neither a version such as 8.17.0 nor `serverless`")
            })?;
        if version < Version::OLDEST {
            return Err(format!(
                "Elasticsearch {version} cannot load these models; the oldest supported version is {}",
                Version::OLDEST
            ));
        }
        Ok(Self::Release(version))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any from {} on", Version::OLDEST),
            Self::Release(version) => version.fmt(f),
            Self::Serverless => f.write_str("serverless"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_supports_features_of_earlier_versions() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        assert_eq!(target("8.17"), Target::Release(Version::new(8, 17, 0)));
        assert!(target("8.12.2").has(Version::PREFIX_STRINGS));
        assert!(!target("8.12.2").has(Version::FUSED_ATTENTION));
        assert!(target("serverless").has(Version::new(99, 0, 0)));
        assert!(!Target::Any.has(Version::EMBEDDING_SIZE));
        for (text, enforces) in [
            ("8.19.19", false),
            ("8.19.20", true),
            ("9.0.0", false),
            ("9.3.8", false),
            ("9.4.0-SNAPSHOT", true),
            ("10.0.0", true),
            ("serverless", true),
        ] {
            assert_eq!(target(text).enforces_operations(), enforces, "{text}");
        }
        assert!(
            "8.6.2"
                .parse::<Target>()
                .unwrap_err()
                .contains("the oldest supported version is 8.7.0")
        );
        assert!("new".parse::<Target>().is_err() && "".parse::<Target>().is_err());
    }

    #[test]
    fn libtorch_follows_the_version() {
        for (version, libtorch) in [
            ("8.7.0", Some("1.13.1")),
            ("8.15.1", Some("2.1.2")),
            ("8.15.2", Some("2.3.1")),
            ("8.18.0", Some("2.5.1")),
            ("8.19.7", Some("2.5.1")),
            ("8.19.8", Some("2.7.1")),
            ("9.0.8", Some("2.5.1")),
            ("9.1.7", Some("2.5.1")),
            ("9.1.8", Some("2.7.1")),
            ("9.5.0", Some("2.7.1")),
            ("9.6.0", None),
            ("serverless", None),
        ] {
            assert_eq!(version.parse::<Target>().unwrap().libtorch(), libtorch, "{version}");
        }
    }

    #[test]
    fn versions_are_compared_numerically() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(
            version("8.7.0") < version("8.13.1") && version("8.19.20") < version("9.0.0-SNAPSHOT")
        );
        assert!("9.2".parse::<Version>().is_err() && "x.1.2".parse::<Version>().is_err());
    }
}
