//! Versions of Elasticsearch, and the features that each one introduced (contract, 11.2).

use std::fmt;
use std::str::FromStr;

/// A version of Elasticsearch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major version, 8 or 9.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Patch version.
    pub patch: u32,
}

impl Version {
    /// Creates the version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether the operations of a graph are checked before a model is served (contract, 11.1).
    #[must_use]
    pub fn checks_operations(self) -> bool {
        self >= Self::new(9, 4, 0) || self.in_8_19_from(20)
    }

    /// Whether an archive is searched for state hooks before it is loaded (contract, 11.1).
    #[must_use]
    pub fn scans_archive(self) -> bool {
        self >= Self::new(9, 5, 0)
            || (self >= Self::new(9, 4, 5) && self < Self::new(9, 5, 0))
            || self.in_8_19_from(20)
    }

    /// Whether all rows of a request are evaluated in one call (contract, 3.4).
    #[must_use]
    pub fn batches(self) -> bool {
        self < Self::new(8, 9, 0)
    }

    /// Major and minor version of libtorch in the native process (contract, 11).
    #[must_use]
    pub fn libtorch(self) -> (u32, u32) {
        let v = Self::new;
        if self < v(8, 3, 0) {
            (1, 9)
        } else if self < v(8, 7, 0) {
            (1, 11)
        } else if self < v(8, 13, 0) {
            (1, 13)
        } else if self < v(8, 15, 2) {
            (2, 1)
        } else if self < v(8, 18, 0) {
            (2, 3)
        } else if self >= v(9, 2, 0)
            || self.in_8_19_from(8)
            || (self >= v(9, 1, 8) && self < v(9, 2, 0))
        {
            (2, 7)
        } else {
            (2, 5)
        }
    }

    fn in_8_19_from(self, patch: u32) -> bool {
        self.major == 8 && self.minor == 19 && self.patch >= patch
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::new(9, 5, 0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) if major >= 8 => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(format!("[{text}] is not a version of Elasticsearch such as 9.5.0")),
        }
    }
}

/// First versions of API features newer than 8.0 (contract, 11.2 and the tables of 2 to 7). If the contract does not state the
/// version, this is the oldest version in which the feature was observed.
pub mod since {
    use super::Version;

    macro_rules! releases {
        ($($(#[$doc:meta])* $name:ident = $major:literal . $minor:literal;)*) => {
            $($(#[$doc])* pub const $name: Version = Version::new($major, $minor, 0);)*
        };
    }

    releases! {
        /// Tokenizer `mpnet` (first release unverified).
        MPNET = 8 . 2;
        /// `merges` in a vocabulary, tokenizer `roberta`.
        ROBERTA = 8 . 2;
        /// Task `question_answering`.
        QUESTION_ANSWERING = 8 . 3;
        /// `cache_size` of a deployment.
        CACHE_SIZE = 8 . 4;
        /// Task `text_similarity`.
        TEXT_SIMILARITY = 8 . 5;
        /// `priority` of a deployment.
        PRIORITY = 8 . 6;
        /// Task `text_expansion`.
        TEXT_EXPANSION = 8 . 7;
        /// `embedding_size`.
        EMBEDDING_SIZE = 8 . 8;
        /// `deployment_id`.
        DEPLOYMENT_ID = 8 . 8;
        /// `include=definition_status`.
        DEFINITION_STATUS = 8 . 8;
        /// `wait_for_completion` of a new configuration.
        WAIT_FOR_COMPLETION = 8 . 8;
        /// `scores` in a vocabulary, tokenizer `xlm_roberta`.
        XLM_ROBERTA = 8 . 9;
        /// Tokenizer `bert_ja` (unverified).
        BERT_JA = 8 . 9;
        /// `platform_architecture` (8.10 or 8.11).
        PLATFORM_ARCHITECTURE = 8 . 10;
        /// `prefix_strings`.
        PREFIX_STRINGS = 8 . 12;
        /// `truncate: balanced` (observed in 8.12).
        BALANCED = 8 . 12;
        /// Inference endpoints for imported models.
        ENDPOINT = 8 . 13;
        /// Inference endpoints of type `rerank`.
        RERANK_ENDPOINT = 8 . 14;
        /// Tokenizer `deberta_v2`.
        DEBERTA_V2 = 8 . 16;
        /// `adaptive_allocations`.
        ADAPTIVE_ALLOCATIONS = 8 . 16;
        /// Lower limit of `queue_capacity`.
        SMALLER_QUEUE = 8 . 16;
        /// Results of rank 0 are reshaped.
        RANK_ZERO = 8 . 16;
        /// Task `text_expansion` with other tokenizers than `bert`.
        TEXT_EXPANSION_TOKENIZERS = 8 . 17;
        /// `deployment_id` of an inference endpoint (8.16 or 8.18).
        ENDPOINT_OF_DEPLOYMENT = 8 . 18;
        /// `expansion_type` (first release unverified).
        EXPANSION_TYPE = 9 . 1;
        /// Tokenizer `byte_level_bpe`.
        BYTE_LEVEL_BPE = 9 . 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_parsed_and_ordered() {
        assert_eq!(version("9.5.0"), Version::default());
        assert!(version("8.19.20") < version("9.0.0") && version("8.9.2") < version("8.19.0"));
        for wrong in ["", "9", "9.5", "7.17.0", "9.5.0.1", "9.x.0"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn checks_match_the_contract_table() {
        for (release, operations, archive) in [
            ("8.19.19", false, false),
            ("8.19.20", true, true),
            ("9.3.8", false, false),
            ("9.4.0", true, false),
            ("9.4.5", true, true),
            ("9.5.0", true, true),
        ] {
            let release = version(release);
            assert_eq!(
                (release.checks_operations(), release.scans_archive()),
                (operations, archive),
                "{release}"
            );
        }
    }

    #[test]
    fn libtorch_matches_the_contract_table() {
        for (release, libtorch) in [
            ("8.2.0", (1, 9)),
            ("8.6.2", (1, 11)),
            ("8.12.0", (1, 13)),
            ("8.15.1", (2, 1)),
            ("8.17.0", (2, 3)),
            ("8.19.7", (2, 5)),
            ("8.19.8", (2, 7)),
            ("9.1.7", (2, 5)),
            ("9.1.8", (2, 7)),
            ("9.5.0", (2, 7)),
        ] {
            assert_eq!(version(release).libtorch(), libtorch, "{release}");
        }
    }
}
