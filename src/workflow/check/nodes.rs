//! The lines about machine learning nodes: memory, processors, and the largest model that still fits.

use serde_json::json;

use super::{CheckLine, Subject, answered};
use crate::bundle::NATIVE_PROCESS;
use crate::byte_count::ByteCount;
use crate::elasticsearch::{Client, MachineLearningNode};
use crate::hint::{Command, hint};

/// Bytes of a parameter in float32.
const FLOAT32: u64 = 4;

/// One line for each node, and one for the largest new model.
pub(super) async fn lines(client: &Client) -> Vec<CheckLine> {
    if client.is_serverless() {
        return vec![CheckLine::ok(
            Subject::Nodes,
            "Elastic adds nodes: the cluster is serverless",
        )];
    }
    let nodes = match answered(client.machine_learning_nodes()).await {
        Ok(nodes) => nodes,
        Err(error) => return vec![CheckLine::unchecked(Subject::Nodes, &error)],
    };
    if nodes.is_empty() {
        return vec![without_nodes(client).await];
    }
    nodes.iter().map(of_node).chain([largest_model(&nodes)]).collect()
}

/// A cluster without machine learning nodes may add one when a model is started.
async fn without_nodes(client: &Client) -> CheckLine {
    let limit = answered(client.machine_learning_limit()).await.ok().flatten();
    let limit = limit.filter(|limit| limit.starts_with(|first: char| ('1'..='9').contains(&first)));
    match limit {
        Some(limit) => CheckLine::warning(
            Subject::Nodes,
            format!("no machine learning node yet; the cluster can add nodes with {limit} of memory"),
        )
        .with_hint(Some(hint!("Start a model: the first start takes minutes, until a node is added."))),
        None => CheckLine::failure(
            Subject::Nodes,
            "no machine learning node: models can be stored, but not started",
        )
        .with_hint(Some(hint!(
            "Add a node with the role ml, or enable machine learning in the deployment's settings. Tree models need no such node."
        ))),
    }
}

fn of_node(node: &MachineLearningNode) -> CheckLine {
    let processors = match node.processors {
        Some(1.) => ", 1 processor".to_owned(),
        Some(number) => format!(", {number} processors"),
        None => String::new(),
    };
    let (free, all) = (ByteCount(node.free_bytes), ByteCount(node.max_bytes));
    let summary = format!("{free} of {all} free for models{processors}");
    CheckLine::ok(Subject::Node(node.name.clone()), summary).with_details(json!(node))
}

/// The largest definition for which the emptiest node has memory.
fn largest_model(nodes: &[MachineLearningNode]) -> CheckLine {
    let subject = Subject::LargestModel;
    let free = nodes.iter().map(|node| node.free_bytes).max().unwrap_or(0);
    // The inverse of `required_memory` without measurements.
    let definition = free.saturating_sub(NATIVE_PROCESS) / 2;
    let details = json!({ "free_bytes": free, "definition_bytes": definition });
    if definition == 0 {
        let summary = format!(
            "none: a model needs more than {}, and the emptiest node has {} free",
            ByteCount(NATIVE_PROCESS),
            ByteCount(free)
        );
        let hint = hint!(
            "Stop a deployment with ",
            Command::Stop(None),
            ", or add memory to the machine learning nodes."
        );
        return CheckLine::warning(subject, summary).with_hint(Some(hint)).with_details(details);
    }
    let summary = format!(
        "may need {} when it runs: a definition of up to {}, or {:.0} million float32 parameters",
        ByteCount(free),
        ByteCount(definition),
        (definition / FLOAT32) as f64 / 1e6
    );
    CheckLine::ok(subject, summary).with_details(details)
}

#[cfg(test)]
mod tests {
    use super::super::CheckState;
    use super::*;
    use crate::bundle::required_memory;

    #[test]
    fn largest_model_needs_the_free_memory_of_the_emptiest_node() {
        let node = |free_bytes| MachineLearningNode {
            name: "n".into(),
            max_bytes: 4 << 30,
            free_bytes,
            processors: Some(1.),
        };
        let line = largest_model(&[node(1 << 30), node(2 << 30)]);
        let definition = line.details["definition_bytes"].as_u64().unwrap();
        assert_eq!(required_memory(definition, None), 2 << 30);
        assert!(line.summary.contains("2.00 GiB"), "{}", line.summary);
        let full = largest_model(&[node(NATIVE_PROCESS)]);
        assert_eq!(full.state, CheckState::Warning);
        assert!(of_node(&node(1)).summary.ends_with("free for models, 1 processor"));
    }
}
