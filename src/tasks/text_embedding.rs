//! text_embedding: a dense vector computed by the modules of sentence-transformers.

use serde_json::{Map, Value};

use super::{Definition, Facts};
use crate::config::Head;

/// Returns `[batch, embedding_size]`.
pub(super) struct TextEmbedding;

impl Definition for TextEmbedding {
    fn name(&self) -> &'static str {
        "text_embedding"
    }

    fn head(&self) -> Head {
        Head::Base
    }

    fn configure(&self, facts: &Facts<'_>, config: &mut Map<String, Value>) {
        config.insert("embedding_size".into(), facts.embedding_size.into());
    }
}
