//! The vocabulary of a model, as Elasticsearch stores it.

use serde::{Deserialize, Serialize};

/// The body of the request that stores a vocabulary. The position of a token is its id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Tokens, ordered by id.
    pub vocabulary: Vec<String>,
    /// Merges of byte-level BPE, as lines `a b` ordered by rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges: Option<Vec<String>>,
    /// Log probability of each token in a Unigram model, ordered by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<f64>>,
}

impl Vocabulary {
    /// The id of a token. If the token occurs several times, the id is its last position, as in Elasticsearch.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<usize> {
        self.vocabulary.iter().rposition(|other| other == token)
    }
}
