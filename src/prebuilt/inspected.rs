//! A definition that was looked at and then loaded.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{DefinitionError, PrebuiltError, archive};
use crate::bundle::Bundle;
use crate::tokenizer::TokenizerKind;
use crate::torchscript::operations::{self, Refused};
use crate::torchscript::{Module, Signature, TorchError};
use crate::version::Target;

/// What libtorch recurses into is bounded (see `code.rs`), and this is room for it. Only what is used of it costs memory.
const STACK: usize = 512 << 20;

/// A definition that Elasticsearch's native process would load, and libtorch here did.
#[derive(Debug)]
pub struct Inspected {
    module: Module,
    /// The kinds of its nodes with their number.
    pub operations: BTreeMap<String, usize>,
    /// What `forward` takes and returns.
    pub signature: Signature,
    /// Bytes of its tensors.
    pub tensor_bytes: u64,
}

impl Inspected {
    /// Looks at an archive and loads it, unless loading it would run anything of it. `forward` is not run.
    ///
    /// # Errors
    /// When it is not what Elasticsearch can load, whatever its version, or holds operations that it forbids.
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
        // Calls that call twice what calls twice: inlining doubles a graph with each.
        let most = operations::MAX_NODES * 2;
        let nodes = module.nodes(most as u64).map_err(DefinitionError::Unreadable)?;
        if nodes >= most as u64 {
            return Err(Refused::TooManyNodes(most).into());
        }
        let operations = module.operations().map_err(DefinitionError::Unreadable)?;
        let signature = module.signature().map_err(DefinitionError::Unreadable)?;
        Ok(Self { module, operations, signature, tensor_bytes })
    }

    /// Loads the TorchScript archive of a bundle, as [`load`](Self::load) does.
    ///
    /// # Errors
    /// [`PrebuiltError::Bundle`] if Elasticsearch cannot load it.
    pub fn of_bundle(bundle: &Bundle) -> Result<Self, PrebuiltError> {
        let bytes = &bundle.artifact.bytes;
        let archive = bytes.get(0..bytes.len()).unwrap_or_default();
        Self::load(&archive)
            .map_err(|reason| PrebuiltError::Bundle { model_id: bundle.model_id.clone(), reason })
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

    /// Checks the operations as a cluster does. Returns those that are not on Elasticsearch's list, where the cluster does not mind.
    ///
    /// # Errors
    /// When it does.
    pub fn check_operations(&self, target: Target) -> Result<Vec<String>, Refused> {
        match operations::check(&self.operations) {
            Ok(()) => Ok(Vec::new()),
            Err(Refused::Unrecognised(unlisted)) if !target.enforces_operations() => Ok(unlisted),
            Err(refused) => Err(refused),
        }
    }

    /// Checks that `forward` takes what the server passes for a tokenizer, and returns what it reads (contract 3.4).
    ///
    /// # Errors
    /// The reason why not.
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

    /// Runs `forward` on one row of token ids, with what the server passes beside them for a tokenizer. The operations must have been
    /// checked.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn forward(&self, ids: &[i64], kind: TokenizerKind) -> Result<Tensor, TorchError> {
        let ids = Tensor::f_from_slice(ids)?.f_unsqueeze(0)?;
        let tokens = ids.size().get(1).copied().unwrap_or_default();
        let of = (Kind::Int64, tch::Device::Cpu);
        let mut tensors = vec![
            ids,
            Tensor::f_ones([1, tokens], of)?,
            Tensor::f_zeros([1, tokens], of)?,
            Tensor::f_arange(tokens, of)?.f_unsqueeze(0)?,
        ];
        tensors.truncate(kind.inputs());
        self.module.forward(&tensors)
    }
}
