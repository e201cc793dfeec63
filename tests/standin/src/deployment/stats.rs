//! Statistics of a deployment in `_stats` (contract, 6.2).

use serde_json::{Value, json};

use super::{Deployment, State};
use crate::version::{Version, since};

/// Memory overhead of a deployment in bytes.
const BASE_MEMORY: u64 = 240 << 20;

/// Memory in bytes that a node needs for a model of `length` bytes (contract, 7.5).
pub(crate) fn required_memory(
    length: u64,
    per_deployment: u64,
    per_allocation: u64,
    allocations: u64,
) -> u64 {
    let base = BASE_MEMORY + 2 * length;
    if per_deployment == 0 && per_allocation == 0 {
        return base;
    }
    base.max(per_deployment + per_allocation * allocations + length)
}

impl Deployment {
    /// Entry `deployment_stats`.
    pub(crate) fn stats(&self, version: Version) -> Value {
        let parameters = &self.parameters;
        let (state, counters) = (self.state(), self.counters().clone());
        let shares = self.shares();
        let (wanted, allocations) = (
            parameters.number_of_allocations,
            shares.iter().map(|share| share.current).sum::<u32>(),
        );
        let mut stats = json!({});
        if version >= since::DEPLOYMENT_ID {
            stats["deployment_id"] = parameters.deployment_id.clone().into();
        }
        stats["model_id"] = parameters.model_id.clone().into();
        stats["threads_per_allocation"] = parameters.threads_per_allocation.into();
        stats["number_of_allocations"] = parameters.number_of_allocations.into();
        if let Some(adaptive) = &parameters.adaptive_allocations {
            stats["adaptive_allocations"] = adaptive.clone();
        }
        stats["queue_capacity"] = parameters.queue_capacity.into();
        stats["state"] = state.name().into();
        if let State::Failed(reason) = &state {
            stats["reason"] = reason.clone().into();
        } else if let Some(reason) = &self.unassigned {
            stats["reason"] = reason.clone().into();
        }
        stats["allocation_status"] = json!({
            "allocation_count": allocations,
            "target_allocation_count": wanted,
            "state": match allocations {
                0 => "starting",
                some if some < wanted => "started",
                _ => "fully_allocated",
            },
        });
        if version >= since::CACHE_SIZE {
            stats["cache_size"] = self.cache_size().into();
        }
        if let Some(priority) = &parameters.priority {
            stats["priority"] = priority.clone().into();
        }
        stats["start_time"] = self.start_time.into();
        for (name, count) in [
            ("error_count", counters.errors),
            ("timeout_count", counters.timeouts),
            ("inference_count", counters.inferences),
        ] {
            if count > 0 {
                stats[name] = count.into();
            }
        }
        stats["peak_throughput_per_minute"] = counters.inferences.into();
        let mut nodes = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            // The stand-in has one process for all nodes, so inference counts are assigned to the first node.
            let inferences = if index == 0 { counters.inferences } else { 0 };
            let (name, reason) = share.routing(&state);
            let mut routing = json!({"routing_state": name});
            if let Some(reason) = reason {
                routing["reason"] = reason.into();
            }
            let mut node = json!({
                "node": {&share.node: {"name": share.name, "roles": ["ml"], "transport_address": "127.0.0.1:9300"}},
                "routing_state": routing,
                "inference_count": inferences,
            });
            if let Some(last) = counters.last_access.filter(|_| index == 0) {
                let milliseconds = counters.spent.as_secs_f64() * 1000.0;
                node["average_inference_time_ms"] =
                    (milliseconds / inferences.max(1) as f64).into();
                node["last_access"] = last.into();
            }
            if name == "started" {
                node["inference_cache_hit_count"] = 0.into();
                node["number_of_pending_requests"] = 0.into();
                node["start_time"] = self.start_time.into();
                node["threads_per_allocation"] = parameters.threads_per_allocation.into();
                node["number_of_allocations"] = share.current.into();
                node["peak_throughput_per_minute"] = inferences.into();
                node["throughput_last_minute"] = inferences.into();
                node["inference_cache_hit_count_last_minute"] = 0.into();
            }
            nodes.push(node);
        }
        stats["nodes"] = nodes.into();
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_estimate_matches_the_server() {
        assert_eq!(required_memory(1630, 0, 0, 1), 251_661_500);
        assert_eq!(required_memory(100 << 20, 100 << 20, 600 << 20, 2), 1400 << 20);
        assert_eq!(required_memory(100 << 20, 1, 1, 1), 440 << 20);
    }
}
