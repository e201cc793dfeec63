//! The vocabulary of a model, as Elasticsearch stores it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The body of the request that stores a vocabulary. The position of a token is its id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Tokens, ordered by id. They are shared, because there can be hundreds of thousands.
    #[serde(serialize_with = "serialize", deserialize_with = "deserialize")]
    pub vocabulary: Arc<Vec<String>>,
    /// Merges of byte-level BPE, as lines `a b` ordered by rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges: Option<Vec<String>>,
    /// Log probability of each token in a Unigram model, ordered by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<f64>>,
}

fn serialize<S: Serializer>(tokens: &Arc<Vec<String>>, to: S) -> Result<S::Ok, S::Error> {
    tokens.as_ref().serialize(to)
}

fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<String>>, D::Error> {
    Vec::deserialize(from).map(Arc::new)
}

impl Vocabulary {
    /// The id of a token. If the token occurs several times, the id is its last position, as in Elasticsearch.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<usize> {
        self.vocabulary.iter().rposition(|other| other == token)
    }
}
