//! Loading of a model on a node, with its errors (contract, 7.2 and 11.1).

#[cfg(torch)]
use std::collections::BTreeMap;
use std::collections::HashSet;
#[cfg(torch)]
use std::sync::{Mutex, PoisonError};

#[cfg(torch)]
use rust_eland::torchscript::{Module, operations};

use crate::archive;
use crate::configuration::Configuration;
use crate::configuration::task::Task;
#[cfg(torch)]
use crate::inference::evaluate;
use crate::inference::{Evaluation, Output};
use crate::store::Store;
use crate::tokenization::{Row, Tokenizer, build};
use crate::version::Version;

/// A loaded model.
pub(crate) struct ServedModel {
    pub(crate) tokenizer: Tokenizer,
    #[cfg(torch)]
    module: Mutex<Module>,
    #[cfg_attr(not(torch), expect(dead_code, reason = "read by the inference only"))]
    evaluation: Evaluation,
}

impl ServedModel {
    /// Evaluates the graph, one request at a time.
    #[cfg(torch)]
    pub(crate) fn evaluate(&self, rows: &[Row]) -> Result<Output, String> {
        let module = self.module.lock().unwrap_or_else(PoisonError::into_inner);
        evaluate(&module, &self.tokenizer, rows, self.evaluation)
    }

    /// Reports that the stand-in was built without libtorch.
    #[cfg(not(torch))]
    pub(crate) fn evaluate(&self, _rows: &[Row]) -> Result<Output, String> {
        Err("this stand-in was built without libtorch".to_owned())
    }
}

/// Loads a model. The error is the reason reported by the node.
///
/// The vocabulary is loaded first. No code of the definition runs before all checks have passed.
pub(crate) fn load(
    store: &Store,
    configuration: &Configuration,
    version: Version,
    batched: bool,
) -> Result<ServedModel, String> {
    let id = &configuration.model_id;
    let vocabulary = store.vocabulary(id).ok_or_else(|| {
        format!("[{id}] Could not find vocabulary document [{id}_vocabulary] for model [{id}]")
    })?;
    if let Task::Ner { labels: Some(labels) } = &configuration.inference.task {
        let mut seen = HashSet::new();
        if let Some(twice) = labels.iter().find(|label| !seen.insert(label.as_str())) {
            return Err(format!(
                "the classification label [{twice}] is duplicated in the list [{}]",
                labels.join(", ")
            ));
        }
    }
    let tokenizer = build(&configuration.inference.tokenization, vocabulary)
        .map_err(|error| error.reason().to_owned())?;

    let definition =
        store.assemble(id).map_err(|error| format!("loading model [{id}] failed: {error}"))?;
    let died = |reason: String| format!("inference native process died unexpectedly: {reason}");
    if version.scans_archive() {
        archive::scan(&definition).map_err(died)?;
    }
    archive::check_readable_by(&definition, version.libtorch()).map_err(died)?;
    #[cfg(torch)]
    let module = Module::load(&definition).map_err(|error| died(error.to_string()))?;
    #[cfg(torch)]
    check_operations(&module, version).map_err(died)?;
    let evaluation = Evaluation { batched: batched || version.batches(), version };
    Ok(ServedModel {
        tokenizer,
        #[cfg(torch)]
        module: Mutex::new(module),
        evaluation,
    })
}

/// Rejects a graph as the native process of a release does.
#[cfg(torch)]
fn check_operations(module: &Module, version: Version) -> Result<(), String> {
    let found = module.operations().map_err(|error| error.to_string())?;
    check_known_to(version, &found)?;
    if version.checks_operations() {
        operations::check(&found).map_err(|refused| refusal(&refused))?;
    }
    Ok(())
}

/// Rejects operations that are missing in an older libtorch.
#[cfg(torch)]
fn check_known_to(version: Version, found: &BTreeMap<String, usize>) -> Result<(), String> {
    const FUSED_ATTENTION: &str = "aten::scaled_dot_product_attention";
    if version.libtorch() < (2, 0) && found.contains_key(FUSED_ATTENTION) {
        return Err(format!("Unknown builtin op: {FUSED_ATTENTION}"));
    }
    Ok(())
}

/// An error with the text of the native process.
#[cfg(torch)]
fn refusal(refused: &operations::Refused) -> String {
    match refused {
        operations::Refused::Forbidden(names) => {
            format!("Model contains forbidden operations: {}", names.join(", "))
        }
        operations::Refused::Unrecognised(names) => format!(
            "Model graph does not match any supported architecture. Unrecognised operations: {}",
            names.join(", ")
        ),
        refused => refused.to_string(),
    }
}
