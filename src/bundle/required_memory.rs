//! Memory that Elasticsearch reserves for a model.

use serde_json::{Map, Value};

/// Memory in bytes that a process needs in addition to its model (contract 7.5).
pub const NATIVE_PROCESS: u64 = 240 << 20;

/// Bytes that a node needs for one allocation of a model (contract 7.5).
#[must_use]
pub fn required_memory(length: u64, metadata: Option<&Map<String, Value>>) -> u64 {
    let figure = |name: &str| metadata.and_then(|metadata| metadata.get(name)?.as_f64());
    let base = NATIVE_PROCESS.saturating_add(length.saturating_mul(2));
    match (figure("per_deployment_memory_bytes"), figure("per_allocation_memory_bytes")) {
        (None, None) => base,
        (deployment, allocation) => {
            let measured = deployment.unwrap_or_default() + allocation.unwrap_or_default();
            base.max(length.saturating_add(measured.max(0.) as u64))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn memory_estimate_matches_the_contract() {
        let mib = 1 << 20;
        assert_eq!(required_memory(mib, None), 242 * mib);
        let metadata = json!({"per_deployment_memory_bytes": 400 * mib, "per_allocation_memory_bytes": 1.5 * mib as f64});
        assert_eq!(required_memory(100 * mib, metadata.as_object()), 501 * mib + mib / 2);
    }
}
