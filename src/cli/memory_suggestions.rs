//! Options that would reduce the memory of a model on a node.

use indicatif::HumanBytes;
use serde_json::json;

use crate::bundle::required_memory;
use crate::conversion::Plan;

/// The memory on a node with each quantization scheme, and with each choice of scripts, that suits a model. `required` is the memory
/// without these options.
pub(super) fn memory_suggestions(plan: &Plan, required: u64) -> Vec<String> {
    let per_allocation = plan.memory.map_or(0, |memory| memory.per_allocation_bytes);
    let reduced = |definition_bytes: u64, per_deployment_bytes: u64, option: &str| {
        let metadata = json!({
            "per_deployment_memory_bytes": per_deployment_bytes,
            "per_allocation_memory_bytes": per_allocation,
        });
        let reduced = required_memory(definition_bytes, metadata.as_object());
        let saved = HumanBytes(required.saturating_sub(reduced));
        format!("{} with {option} ({saved} less)", HumanBytes(reduced))
    };
    let by_scheme = plan.memory_by_scheme.iter().map(|it| {
        let option = format!("--quantize={}", it.scheme);
        reduced(it.definition_bytes, it.per_deployment_bytes, &option)
    });
    let by_scripts = plan.memory.zip(plan.suggested_scripts.as_ref()).map(|(memory, scripts)| {
        let without = |bytes: u64| bytes.saturating_sub(scripts.left_out_bytes);
        let names = scripts.names.join(",");
        let line = reduced(
            without(memory.definition_bytes),
            without(memory.per_deployment_bytes),
            &format!("--scripts {names}"),
        );
        format!("{line}, for texts in these scripts only; --languages names languages instead")
    });
    by_scheme.chain(by_scripts).collect()
}
