//! What to do about the server's reasons (contract 6.3, 7.2, 7.3 and 11.1).

/// Words of the server, and the way out. The first that all occur in a reason win, so the special ones come before the general.
const ADVICE: &[(&[&str], &str)] = &[
    (
        &["ot match any supported architecture"],
        "Elasticsearch runs only graphs made of operations that it knows. Import the model again with this program, which checks \
         that before the upload",
    ),
    (
        &["forbidden operations"],
        "Elasticsearch refuses to run such graphs. Import the model again with this program, which checks that before the upload",
    ),
    (
        &["scaled_dot_product_attention"],
        "The cluster's libtorch is older than the graph. Import the model again, straight into this cluster: the graph's form \
         follows the cluster's version",
    ),
    (
        &["read a PyTorch file with version"],
        "The cluster's libtorch is older than the archive: upgrade the cluster to 8.7.0 or later",
    ),
    (
        &["Could not find vocabulary document"],
        "The upload was not finished: import the model again with --clear-previous",
    ),
    (
        &["vocabulary is missing required"],
        "The vocabulary does not fit the model: import the model again with --clear-previous",
    ),
    (
        &["Could not find trained model definition"],
        "The upload was not finished: import the model again with --clear-previous",
    ),
    (
        &["definition truncated"],
        "The upload was not finished: import the model again with --clear-previous",
    ),
    (
        &["total_definition_length"],
        "Two uploads got mixed up: import the model again with --clear-previous",
    ),
    (
        &["Cannot read the model archive"],
        "What is stored is no TorchScript archive: import the model again with --clear-previous",
    ),
    (
        &["PytorchStreamReader"],
        "The stored archive is damaged: import the model again with --clear-previous",
    ),
    (
        &["insufficient available memory"],
        "Stop deployments that are not needed (rust-eland list shows them), give the machine learning nodes more memory, or use a \
         smaller model",
    ),
    (
        &["insufficient allocated processors"],
        "Ask for fewer --threads-per-allocation or --number-of-allocations, stop deployments that are not needed (rust-eland list \
         shows them), or add a machine learning node",
    ),
    (
        &["not enough resources to provide all requested allocations"],
        "Ask for fewer --number-of-allocations or --threads-per-allocation, stop deployments that are not needed (rust-eland list \
         shows them), or add a machine learning node",
    ),
    (
        &["no ML nodes with sufficient capacity"],
        "Stop deployments that are not needed (rust-eland list shows them), ask for less, or add a machine learning node; the \
         cluster needs at least one node with the role ml",
    ),
    (
        &["no suitable nodes"],
        "Stop deployments that are not needed (rust-eland list shows them), ask for less, or add a machine learning node",
    ),
    (
        &["reached the limit of"],
        "Stop deployments that are not needed (rust-eland list shows them)",
    ),
    (
        &["existing deployment with the same id"],
        "See it with rust-eland status; stop it first (rust-eland stop), or give another --deployment-id",
    ),
    (
        &["already been started"],
        "See it with rust-eland status; stop it first (rust-eland stop) to start it with other settings",
    ),
    (&["same as an another model"], "Give another --deployment-id"),
    (&["upgrade is in progress"], "Start it when all nodes run the same version"),
    (&["was removed while waiting"], "Somebody stopped it meanwhile: start it again"),
    (
        &["Only PyTorch models can be deployed"],
        "rust-eland list shows the models that can be started",
    ),
    (
        &["referenced by ingest processors"],
        "Take it out of the pipelines first (GET _ingest/pipeline shows them), or use --force and have them fail",
    ),
    (&["currently deployed"], "Stop it first (rust-eland stop), or use --force"),
    (
        &["nference", "endpoint"],
        "Delete the inference endpoint first (GET _inference/_all shows them), or use --force and have it fail",
    ),
    (&["required by machine learning"], "It belongs to Elasticsearch"),
    (
        &["native process died"],
        "The process that runs models ended; too little memory on the node is a common cause. Elasticsearch's log on that node \
         says more",
    ),
    (
        &["Trained model deployment", "is not allocated"],
        "Wait until rust-eland status shows an allocation",
    ),
];

/// What to do about a reason, if that is known.
pub(super) fn advice(reason: &str) -> Option<&'static str> {
    let known = ADVICE.iter().find(|(words, _)| words.iter().all(|word| reason.contains(word)));
    known.map(|(_, advice)| *advice)
}

/// A reason, and on a line of its own what to do about it, or else the given advice.
pub(super) fn explained(reason: &str, otherwise: &str) -> String {
    match advice(reason).unwrap_or(otherwise) {
        "" => reason.to_owned(),
        advice => format!("{reason}\n{advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_special_reason_wins() {
        let died = "inference native process died unexpectedly: Model graph does not match any supported architecture. \
                    Unrecognised operations: aten::erf";
        assert!(advice(died).unwrap().contains("only graphs made of operations that it knows"));
        assert!(advice("inference native process died unexpectedly").unwrap().contains("memory"));
        assert_eq!(advice("never heard of"), None);
        assert_eq!(explained("a", ""), "a");
        assert_eq!(explained("a", "b"), "a\nb");
    }
}
