//! A definition that was inspected and then loaded.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{DefinitionError, PrebuiltError, archive};
use crate::bundle::Bundle;
use crate::tokenizer::TokenizerKind;
use crate::torchscript::operations::{self, Refused};
use crate::torchscript::{Module, Signature, TorchError, server_inputs};
use crate::version::Target;

/// Stack size for libtorch's recursion, which `code.rs` limits. Only the used part needs memory.
const STACK: usize = 512 << 20;

/// A definition that Elasticsearch's native process would load, and that libtorch has loaded.
#[derive(Debug)]
pub struct Inspected {
    module: Module,
    /// Kinds of nodes with their counts.
    pub operations: BTreeMap<String, usize>,
    /// Signature of `forward`.
    pub signature: Signature,
    /// Size of its tensors in bytes.
    pub tensor_bytes: u64,
}

impl Inspected {
    /// Inspects an archive, and loads it unless loading would run code. `forward` is not run.
    ///
    /// # Errors
    /// If no version of Elasticsearch can load the archive, or the graph contains forbidden operations.
    pub fn load(archive: &[u8]) -> Result<Self, DefinitionError> {
        let loaded = std::thread::scope(|scope| {
            let load = || Self::load_here(archive);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, load);
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => Err(DefinitionError::Thread(error)),
            }
        })?;
        match operations::check(&loaded.operations) {
            Ok(()) | Err(Refused::Unrecognised(_)) => Ok(loaded),
            Err(refused) => Err(refused.into()),
        }
    }

    fn load_here(archive: &[u8]) -> Result<Self, DefinitionError> {
        let tensor_bytes = archive::check(archive)?.tensor_bytes;
        let module = Module::load_bytes(archive).map_err(DefinitionError::Unreadable)?;
        // A function that calls another one twice doubles the graph at each level of inlining.
        let most = operations::MAX_NODES * 2;
        let nodes = module.nodes(most as u64).map_err(DefinitionError::Unreadable)?;
        if nodes >= most as u64 {
            return Err(Refused::TooManyNodes(most).into());
        }
        let operations = module.operations().map_err(DefinitionError::Unreadable)?;
        let signature = module.signature().map_err(DefinitionError::Unreadable)?;
        Ok(Self { module, operations, signature, tensor_bytes })
    }

    /// Loads the TorchScript archive of a bundle like [`load`](Self::load).
    ///
    /// # Errors
    /// [`PrebuiltError::Bundle`] if Elasticsearch cannot load it.
    pub fn of_bundle(bundle: &Bundle) -> Result<Self, PrebuiltError> {
        let bytes = &bundle.artifact.bytes;
        let archive = bytes.get(0..bytes.len()).unwrap_or_default();
        Self::load(&archive)
            .map_err(|reason| PrebuiltError::Bundle { model_id: bundle.model_id.clone(), reason })
    }

    /// The module, which can be run.
    #[must_use]
    pub fn into_module(self) -> Module {
        self.module
    }

    /// Checks that a cluster accepts the operations.
    ///
    /// # Errors
    /// [`PrebuiltError::Refused`] if it does not.
    pub fn check_for(&self, target: Target) -> Result<(), PrebuiltError> {
        match self.check_operations(target) {
            Ok(_) => Ok(()),
            Err(reason) => Err(PrebuiltError::Refused { target, reason }),
        }
    }

    /// Checks the operations as a cluster does. Returns operations outside of Elasticsearch's list if the cluster accepts them.
    ///
    /// # Errors
    /// If the cluster rejects them.
    pub fn check_operations(&self, target: Target) -> Result<Vec<String>, Refused> {
        match operations::check(&self.operations) {
            Ok(()) => Ok(Vec::new()),
            Err(Refused::Unrecognised(unlisted)) if !target.enforces_operations() => Ok(unlisted),
            Err(refused) => Err(refused),
        }
    }

    /// Checks that `forward` accepts the server's inputs for a tokenizer, and returns a type that the server reads (contract 3.4).
    ///
    /// # Errors
    /// The reason for a mismatch.
    pub fn check_signature(&self, kind: TokenizerKind) -> Result<(), DefinitionError> {
        const NAMES: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];
        let Signature { parameters, returned, returns_tensor } = &self.signature;
        let takes = parameters
            .iter()
            .map(|parameter| format!("{}: {}", parameter.name, parameter.kind))
            .collect::<Vec<_>>()
            .join(", ");
        let sent = kind.inputs();
        let fits = parameters.len() >= sent
            && parameters.iter().take(sent).all(|parameter| parameter.tensor)
            && parameters.iter().skip(sent).all(|parameter| parameter.optional);
        if !fits {
            return Err(DefinitionError::Signature(format!(
                "forward takes ({takes}), but for the tokenization {} Elasticsearch passes {sent} tensors: {}",
                kind.name(),
                NAMES.get(..sent).unwrap_or(&NAMES).join(", ")
            )));
        }
        if !returns_tensor {
            return Err(DefinitionError::Signature(format!(
                "forward returns {returned}, but Elasticsearch reads a tensor, or the first element of a tuple"
            )));
        }
        Ok(())
    }

    /// Runs `forward` on one row of token ids, with the other inputs of the server for a tokenizer. The operations must have been
    /// checked.
    ///
    /// # Errors
    /// The error message of libtorch.
    pub fn forward(&self, ids: &[i64], kind: TokenizerKind) -> Result<Tensor, TorchError> {
        // One row has no padding, so its id does not matter.
        let tensors = server_inputs(&[ids], 0, kind.inputs())?;
        self.module.forward(&tensors)
    }
}
