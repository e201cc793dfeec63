//! Distribution of allocations over nodes, and their delayed start (contract, 6.2 and 7).

use std::time::{Duration, Instant};

use crate::options::Options;

/// Nodes and their treatment of allocations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    nodes: u32,
    pace: Duration,
    failures: Vec<(u32, String)>,
}

/// Allocations of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) current: u32,
    pub(crate) target: u32,
    /// Reason why the node cannot load the model.
    pub(crate) failure: Option<String>,
}

/// Id of a node.
pub(crate) fn node_id(node: u32) -> String {
    format!("standin-node-{node}")
}

/// Name of a node.
pub(crate) fn node_name(node: u32, nodes: u32) -> String {
    if nodes == 1 { "standin".to_owned() } else { format!("standin-{node}") }
}

impl Layout {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            nodes: options.nodes.max(1),
            pace: options.allocation_delay,
            failures: options.node_failures.clone(),
        }
    }

    /// Nodes with at least one of `wanted` allocations, at the time `since` after the model was loaded.
    pub(crate) fn shares(&self, wanted: u32, since: Option<Instant>) -> Vec<Share> {
        let nodes = self.nodes.max(1);
        let up = since.map_or(0, |since| self.up(wanted, since.elapsed()));
        let of = |count: u32, node: u32| count / nodes + u32::from(node < count % nodes);
        (0..nodes.min(wanted.max(1)))
            .map(|node| {
                let failure = self.failures.iter().find(|(failing, _)| *failing == node);
                let failure = failure.map(|(_, reason)| reason.clone());
                Share {
                    node: node_id(node),
                    name: node_name(node, nodes),
                    current: if failure.is_some() { 0 } else { of(up, node) },
                    target: of(wanted, node),
                    failure,
                }
            })
            .collect()
    }

    /// The first allocation starts with the model, the others follow at a fixed interval.
    fn up(&self, wanted: u32, elapsed: Duration) -> u32 {
        if self.pace.is_zero() {
            return wanted;
        }
        let more = elapsed.as_nanos() / self.pace.as_nanos();
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1).min(wanted)
    }

    /// Time from loading the model until all allocations have started.
    pub(crate) fn complete_after(&self, wanted: u32) -> Duration {
        self.pace.saturating_mul(wanted.saturating_sub(1))
    }

    /// Failures of the nodes with at least one of `wanted` allocations: of none, some or all of them.
    pub(crate) fn failures(&self, wanted: u32) -> Failures {
        let shares = self.shares(wanted, None);
        let all = shares.len();
        let failures: Vec<(String, String)> =
            shares.into_iter().filter_map(|share| Some((share.node, share.failure?))).collect();
        match failures.len() {
            0 => Failures::None,
            some if some == all => Failures::All(failures),
            _ => Failures::Some(failures),
        }
    }
}

/// Nodes that cannot load a model, with their reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failures {
    None,
    Some(Vec<(String, String)>),
    All(Vec<(String, String)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_distributed_and_start_one_after_another() {
        let failures = vec![(1, "no".to_owned())];
        let layout = Layout { nodes: 3, pace: Duration::from_secs(10), failures };
        let at = |seconds| {
            let since = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
            let shares = layout.shares(4, Some(since));
            shares.iter().map(|share| (share.current, share.target)).collect::<Vec<_>>()
        };
        assert_eq!(at(0), [(1, 2), (0, 1), (0, 1)]);
        assert_eq!(at(25), [(1, 2), (0, 1), (1, 1)]);
        assert_eq!(at(35), [(2, 2), (0, 1), (1, 1)]);
        assert_eq!(layout.complete_after(4), Duration::from_secs(30));
        assert_eq!(layout.failures(1), Failures::None);
        assert!(matches!(layout.failures(2), Failures::Some(failures) if failures.len() == 1));
        assert_eq!(layout.shares(1, None).len(), 1);
    }
}
