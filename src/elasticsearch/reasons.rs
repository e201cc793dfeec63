//! Hints for the server's reasons (contract 6.3, 7.2, 7.3 and 11.1).

use crate::hint::{Command, Hint, Setting, hint};

/// Words of the server's reason, and the hint for a reason that contains all of them.
type ReasonHint = (&'static [&'static str], fn() -> Hint);

/// The first matching row is used, so special rows precede general ones.
const HINTS: &[ReasonHint] = &[
    (&["ot match any supported architecture"], || {
        hint!(
            "Elasticsearch runs only graphs made of operations on its list. Import the model again with rust-eland, which checks that \
             before the upload."
        )
    }),
    (&["forbidden operations"], || {
        hint!(
            "Elasticsearch refuses to run this graph. Import the model again with rust-eland, which checks that before the upload."
        )
    }),
    (&["scaled_dot_product_attention"], || {
        hint!(
            "The libtorch of the cluster is older than the graph. Import the model again, directly into this cluster: the form of the \
             graph depends on the version of the cluster."
        )
    }),
    (&["read a PyTorch file with version"], || {
        hint!(
            "The libtorch of the cluster is older than the archive. Upgrade the cluster to 8.7.0 or later."
        )
    }),
    (&["Could not find vocabulary document"], unfinished),
    (&["vocabulary is missing required"], || {
        hint!("The vocabulary does not match the model.").and(import_again())
    }),
    (&["Could not find trained model definition"], unfinished),
    (&["definition truncated"], unfinished),
    (&["total_definition_length"], || hint!("Parts of two uploads are mixed.").and(import_again())),
    (&["Cannot read the model archive"], || {
        hint!("The stored definition is not a TorchScript archive.").and(import_again())
    }),
    (&["PytorchStreamReader"], || hint!("The stored archive is damaged.").and(import_again())),
    (&["insufficient available memory"], || {
        stop_others()
            .and(hint!("Or give the machine learning nodes more memory, or use a smaller model."))
    }),
    (&["insufficient allocated processors"], fewer),
    (&["not enough resources to provide all requested allocations"], fewer),
    (&["no ML nodes with sufficient capacity"], || {
        stop_others().and(hint!(
            "Or lower the settings, or add a machine learning node: the cluster needs at least one node with the role ml."
        ))
    }),
    (&["no suitable nodes"], || {
        stop_others().and(hint!("Or lower the settings, or add a machine learning node."))
    }),
    (&["reached the limit of"], stop_others),
    (&["existing deployment with the same id"], || {
        hint!(
            "Show the deployment with ",
            Command::Status(None),
            ", and stop it with ",
            Command::Stop(None),
            ". Or choose another id with ",
            Setting::DeploymentId,
            "."
        )
    }),
    (&["already been started"], || {
        hint!(
            "Show the deployment with ",
            Command::Status(None),
            ". To change its settings, stop it first with ",
            Command::Stop(None),
            "."
        )
    }),
    (&["same as an another model"], || {
        hint!("Choose another id with ", Setting::DeploymentId, ".")
    }),
    (&["upgrade is in progress"], || hint!("Start the model when all nodes run the same version.")),
    (&["was removed while waiting"], || {
        hint!("The deployment was stopped. Start the model again.")
    }),
    (&["Only PyTorch models can be deployed"], || {
        hint!("Run ", Command::List, " to see the models that can be started.")
    }),
    (&["referenced by ingest processors"], || {
        hint!(
            "Remove the model from the pipelines first (GET _ingest/pipeline shows them), or set ",
            Setting::Force,
            ", after which those pipelines fail."
        )
    }),
    (&["currently deployed"], || {
        hint!("Stop the model first with ", Command::Stop(None), ", or set ", Setting::Force, ".")
    }),
    (&["nference", "endpoint"], || {
        hint!(
            "Delete the inference endpoint first (GET _inference/_all shows them), or set ",
            Setting::Force,
            ", after which that endpoint fails."
        )
    }),
    (&["required by machine learning"], || {
        hint!("The model belongs to Elasticsearch and cannot be deleted.")
    }),
    (&["native process died"], || {
        hint!(
            "The process that runs models ended, often because the node has too little memory. The log of Elasticsearch on that node \
             has the details."
        )
    }),
    (&["Trained model deployment", "is not allocated"], || {
        hint!("Wait until ", Command::Status(None), " shows an allocation.")
    }),
];

fn import_again() -> Hint {
    hint!("Import the model again with ", Setting::ClearPrevious, ".")
}

fn unfinished() -> Hint {
    hint!("The upload of the model is not complete.").and(import_again())
}

fn stop_others() -> Hint {
    hint!("Stop deployments that you do not need (", Command::List, " shows them).")
}

fn fewer() -> Hint {
    hint!(
        "Lower ",
        Setting::NumberOfAllocations,
        " or ",
        Setting::ThreadsPerAllocation,
        ", stop deployments that you do not need (",
        Command::List,
        " shows them), or add a machine learning node."
    )
}

/// The hint for a reason, if there is one.
pub(super) fn hint(reason: &str) -> Option<Hint> {
    let known = HINTS.iter().find(|(words, _)| words.iter().all(|word| reason.contains(word)));
    known.map(|(_, hint)| hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_prefers_the_special_reason() {
        let died = "inference native process died unexpectedly: Model graph does not match any supported architecture. \
                    Unrecognised operations: aten::erf";
        let text = |reason| hint(reason).unwrap().to_string();
        assert!(text(died).contains("only graphs made of operations on its list"));
        assert!(text("inference native process died unexpectedly").contains("memory"));
        assert_eq!(hint("unheard of"), None);
    }
}
