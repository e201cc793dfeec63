//! A bundle in the JSON output.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::model_id::ModelId;

/// A bundle, with the field names of its `ID.metadata.json`.
#[derive(Debug, Serialize)]
pub(super) struct BundleReport {
    #[serde(serialize_with = "as_text")]
    pub(super) model_id: ModelId,
    /// SHA-256 of the definition.
    pub(super) sha256: String,
    /// Size of the definition in bytes.
    pub(super) size: u64,
    /// Memory needs, quantization and origin, as stored in the cluster.
    pub(super) metadata: Option<Value>,
}

impl BundleReport {
    pub(super) fn of(bundle: &Bundle) -> Self {
        Self {
            model_id: bundle.model_id.clone(),
            sha256: bundle.artifact.sha256.clone(),
            size: bundle.artifact.bytes.len() as u64,
            metadata: bundle.configuration.get("metadata").cloned(),
        }
    }
}

fn as_text<S: Serializer>(id: &ModelId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}
