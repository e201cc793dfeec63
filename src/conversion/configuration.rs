//! The request body that creates a model in Elasticsearch.

use serde_json::{Map, Value, json};

use super::quantization_report::platform_architecture;
use super::{Conversion, DIMENSIONS, LORA_TASK, PART, SCRIPTS, SIMILARITY, Saved};
use crate::tasks::{Embedder, Facts};

/// Similarity of a `dense_vector` field for a similarity name of sentence-transformers. `dot_product` requires vectors of length 1.
pub(super) fn dense_vector_similarity(name: &str, is_normalized: bool) -> Option<&'static str> {
    match name {
        "cosine" => Some("cosine"),
        "dot" | "dot_product" if is_normalized => Some("dot_product"),
        "dot" | "dot_product" => Some("max_inner_product"),
        "euclidean" => Some("l2_norm"),
        _ => None,
    }
}

impl Conversion {
    /// Body of the request that creates the model. `title` is the name of the model in the description.
    #[must_use]
    pub fn configuration(
        &self,
        title: &str,
        saved: &Saved,
        per_allocation_memory_bytes: u64,
    ) -> Map<String, Value> {
        let facts = Facts {
            tokenizer: self.tokenizer.kind.name(),
            tokenization: &self.tokenizer.settings,
            max_sequence_length: self.limit.tokens,
            lower_cases: self.tokenizer.lower_cases,
            labels: &self.labels,
            embedding_size: self.network.output.embedder().map(Embedder::size),
        };
        let mut configuration = Map::new();
        let mut set = |name: &str, value| configuration.insert(name.to_owned(), value);
        // The id of a model in a folder, which is its title, ends in the name already.
        let names = self.part.iter().chain(&self.lora_task);
        let names = names.filter(|name| !title.ends_with(name.as_str()));
        let names: String = names.map(|name| format!(" ({name})")).collect();
        set("description", format!("Model {title}{names} for task type '{}'", self.task).into());
        set("model_type", "pytorch".into());
        set("inference_config", self.task.inference_config(&facts));
        set("input", json!({ "field_names": ["text_field"] }));
        let mut metadata = json!({
            "per_deployment_memory_bytes": saved.per_deployment_memory_bytes,
            "per_allocation_memory_bytes": per_allocation_memory_bytes,
        });
        if let Some(origin) = &self.options.origin {
            metadata["hub_model_id"] = origin.model_id.as_str().into();
            metadata["hub_commit"] = origin.commit.as_str().into();
        }
        if let Some(part) = &self.part {
            metadata[PART] = part.as_str().into();
        }
        if let Some(task) = &self.lora_task {
            metadata[LORA_TASK] = task.as_str().into();
        }
        if let Some(dimensions) = self.options.dimensions {
            metadata[DIMENSIONS] = dimensions.into();
        }
        if let Some(kept) = &self.tokenizer.kept {
            metadata[SCRIPTS] = kept.scripts.names().collect();
        }
        if let Some(similarity) = self.similarity {
            metadata[SIMILARITY] = similarity.into();
        }
        if let Some(quantization) = &saved.quantization {
            metadata["quantization"] = json!(quantization);
        }
        if let Some(difference) = self.tokenizer_difference.as_ref()
            && self.needs_exact_tokenizer
        {
            metadata["tokenizer_difference"] = difference.metadata();
        }
        let has_packed_layers = match &saved.quantization {
            Some(quantization) => quantization.layers > 0,
            None => self.options.quantizes_linear_layers(),
        };
        if has_packed_layers {
            set("platform_architecture", platform_architecture().into());
        }
        set("metadata", metadata);
        let prefixes: Map<String, Value> =
            [("ingest", &self.options.ingest_prefix), ("search", &self.options.search_prefix)]
                .into_iter()
                .filter_map(|(key, prefix)| Some((key.to_owned(), prefix.clone()?.into())))
                .collect();
        if !prefixes.is_empty() {
            set("prefix_strings", prefixes.into());
        }
        configuration
    }
}
