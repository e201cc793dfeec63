//! TorchScript modules.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tch::Tensor;

use super::archive_writer;
use super::ffi::RawModule;
use super::quantized_layers::Replacement;
use super::{OneThread, TorchError};
use crate::segmented_bytes::SegmentedBytes;

/// A TorchScript module with a method `forward` from tensors to one tensor.
#[derive(Debug)]
pub struct Module(RawModule);

impl Module {
    /// Traces `forward` on `inputs`. Tensors that `forward` captures become constants of the graph.
    ///
    /// Sizes from [`Size`](super::Size) stay symbolic; any other integer becomes a constant.
    ///
    /// # Errors
    /// Errors of `forward` and of libtorch.
    pub fn trace<E: From<TorchError>>(
        inputs: &[Tensor],
        forward: impl FnOnce(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        tch::no_grad(|| RawModule::trace(inputs, forward)).map(Self)
    }

    /// Loads an archive.
    ///
    /// # Errors
    /// If the file is not a TorchScript archive that this libtorch can read.
    pub fn load(path: &Path) -> Result<Self, TorchError> {
        RawModule::load(path).map(Self)
    }

    /// Loads an archive from memory without copying its tensors. Also returns the total size of all tensors
    /// in bytes.
    ///
    /// # Errors
    /// If the bytes are not a TorchScript archive that this libtorch can read.
    pub fn load_mapped(archive: Arc<SegmentedBytes>) -> Result<(Self, u64), TorchError> {
        // One thread, for the same reason as in `archive`.
        let _one = OneThread::begin();
        let (module, stored) = RawModule::load_mapped(archive)?;
        Ok((Self(module), stored))
    }

    /// Replaces every linear layer of `forward` by one with 8-bit weights that quantizes its input dynamically. The result equals that of
    /// PyTorch's `quantize_dynamic` with default settings. Embeddings and convolutions are not changed.
    ///
    /// # Errors
    /// If a weight is not finite, or libtorch does not support the operation on this processor.
    pub fn quantize(mut self) -> Result<(Self, Quantized), TorchError> {
        let (layers, kept) = self.0.quantize()?;
        Ok((self, Quantized { layers, kept, tables: 0 }))
    }

    /// Calls `plan` for each linear layer (true) and lookup table (false) of `forward` whose weights are constants, in the order of their
    /// first use, and replaces the layers for which it returns a replacement. Returns the number of linear layers and convolutions that
    /// cannot be replaced.
    ///
    /// # Errors
    /// Errors of `plan`, and if libtorch does not support a replacement on this processor.
    pub(crate) fn replace_layers<E: From<TorchError>>(
        &mut self,
        plan: impl FnMut(&Tensor, bool) -> Result<Option<Replacement>, E>,
    ) -> Result<usize, E> {
        self.0.replace_layers(plan)
    }

    /// Changes `forward` to return the largest absolute value of each input channel of each linear layer that
    /// [`replace_layers`](Self::replace_layers) visits, in its order, as one tensor.
    ///
    /// # Errors
    /// If there is no such layer.
    pub(crate) fn observe(mut self) -> Result<Self, TorchError> {
        self.0.observe()?;
        Ok(self)
    }

    /// Loads an archive from memory.
    ///
    /// Loading runs code of the archive, so the archive must have been inspected before (see [`crate::prebuilt`]).
    ///
    /// # Errors
    /// If the bytes are not a TorchScript archive that this libtorch can read.
    pub fn load_bytes(archive: &[u8]) -> Result<Self, TorchError> {
        RawModule::load_bytes(archive).map(Self)
    }

    /// Number of nodes of all methods with functions inlined, or `limit` if there are more. Counts without inlining.
    ///
    /// # Errors
    /// If libtorch cannot compile a method.
    pub fn nodes(&self, limit: u64) -> Result<u64, TorchError> {
        self.0.nodes(limit)
    }

    /// Signature of `forward`.
    ///
    /// # Errors
    /// If there is no such method.
    pub fn signature(&self) -> Result<Signature, TorchError> {
        let mut signature = Signature::default();
        self.0.signature(|name, kind, tensor, optional| {
            let (name, kind) = (name.to_owned(), kind.to_owned());
            if name.is_empty() {
                (signature.returned, signature.returns_tensor) = (kind, tensor);
            } else {
                signature.parameters.push(Parameter { name, kind, tensor, optional });
            }
        })?;
        Ok(signature)
    }

    /// Kinds of all nodes (`aten::linear`, `prim::Constant` …) with their counts, over all methods, with functions inlined and
    /// sub-blocks included, as Elasticsearch's native process collects them.
    ///
    /// # Errors
    /// If libtorch cannot inline a graph.
    pub fn operations(&self) -> Result<BTreeMap<String, usize>, TorchError> {
        let mut kinds = BTreeMap::new();
        self.0.operations(|kind| *kinds.entry(kind.to_owned()).or_insert(0) += 1)?;
        Ok(kinds)
    }

    /// Creates the archive, which refers to the tensors without copying them. The same module always produces the same bytes.
    ///
    /// # Errors
    /// If libtorch cannot serialize the module.
    pub fn archive(&self) -> Result<SegmentedBytes, TorchError> {
        // One thread, because libtorch compares all constants of a shape with each other.
        let _one = OneThread::begin();
        archive_writer::seal(self.0.save()?)
    }

    /// Writes the archive to a writer.
    ///
    /// # Errors
    /// If the writer fails or libtorch cannot serialize the module.
    pub fn save(&self, writer: &mut dyn Write) -> Result<(), TorchError> {
        let archive = self.archive()?;
        archive.iter().try_for_each(|piece| writer.write_all(piece)).map_err(TorchError::Write)
    }

    /// Runs `forward` without gradients. Returns the first element of a tuple, as Elasticsearch does. The first two passes optimize
    /// the graph, as in the server.
    ///
    /// # Errors
    /// Errors of libtorch, for example wrong shapes.
    pub fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, TorchError> {
        self.0.forward(inputs, true)
    }

    /// Runs `forward` like [`forward`](Self::forward) without optimizing the graph, which is faster for a few passes.
    ///
    /// # Errors
    /// Same as [`forward`](Self::forward).
    pub fn forward_plainly(&self, inputs: &[Tensor]) -> Result<Tensor, TorchError> {
        self.0.forward(inputs, false)
    }

    /// Peak size in bytes of the live tensors that `forward` creates. Linear layers, which are most of the work, are
    /// not computed; only the memory of their results is allocated.
    ///
    /// # Errors
    /// Same as [`forward`](Self::forward).
    pub fn peak(&self, inputs: &[Tensor]) -> Result<u64, TorchError> {
        Ok(u64::try_from(self.0.peak(inputs)?).unwrap_or(0))
    }
}

/// The layers of a quantized module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantized {
    /// Number of linear layers with 8-bit weights.
    pub layers: usize,
    /// Number of linear layers and convolutions that were not quantized.
    pub kept: usize,
    /// Number of lookup tables with 8-bit or float16 numbers.
    pub tables: usize,
}

/// Signature of a module's `forward`.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// Parameters in order, without `self`.
    pub parameters: Vec<Parameter>,
    /// Return type.
    pub returned: String,
    /// Whether the return type is a tensor or a tuple whose first element is a tensor.
    pub returns_tensor: bool,
}

/// A parameter of `forward`.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name of the parameter.
    pub name: String,
    /// Type of the parameter.
    pub kind: String,
    /// Whether a tensor can be passed by position.
    pub tensor: bool,
    /// Whether the parameter is optional.
    pub optional: bool,
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    const OF: (Kind, tch::Device) = (Kind::Float, tch::Device::Cpu);

    /// Two layers with the same weight, a table of integers, an empty tensor.
    fn module() -> (Module, [Tensor; 1]) {
        let weight = Tensor::arange(64, OF).view([8, 8]) / 64;
        let bias = Tensor::ones([8], OF);
        let table = Tensor::arange(3, (Kind::Int64, tch::Device::Cpu));
        let nothing = Tensor::zeros([0, 8], OF);
        let input = [Tensor::arange(24, OF).view([3, 8]) / 24];
        let module = Module::trace(&input, |inputs| -> Result<Tensor, TorchError> {
            let once = inputs[0].f_linear(&weight, Some(&bias))?;
            let twice = once.f_linear(&weight, Some(&bias))?.f_add(&table.f_unsqueeze(-1)?)?;
            Ok(Tensor::f_cat(&[&twice, &nothing], 0)?)
        });
        (module.unwrap(), input)
    }

    fn saved(module: &Module) -> Vec<u8> {
        let mut archive = Vec::new();
        module.save(&mut archive).unwrap();
        archive
    }

    #[test]
    fn loaded_module_computes_the_same_from_mapped_weights() {
        let (float, input) = module();
        let (quantized, _) = module().0.quantize().unwrap();
        // Packed weights are unpacked for the archive, so only the table of a quantized module is not copied.
        for (module, bytes, in_place) in
            [(float, (64 + 8) * 4 + 3 * 8, 3), (quantized, 64 + 8 * 4 + 3 * 8, 1)]
        {
            let archive = Arc::new(module.archive().unwrap());
            // Each tensor with the bytes that libtorch writes before it, and the end.
            assert_eq!(archive.iter().count(), 2 * in_place + 1);
            let (loaded, stored) = Module::load_mapped(Arc::clone(&archive)).unwrap();
            assert_eq!(stored, bytes);
            assert_eq!(loaded.forward(&input).unwrap(), module.forward(&input).unwrap());
            assert_eq!(loaded.operations().unwrap(), module.operations().unwrap());
            assert!(Arc::strong_count(&archive) > 1);
            drop(loaded);
            assert_eq!(Arc::strong_count(&archive), 1);
        }
    }

    #[test]
    fn invalid_archive_is_not_loaded() {
        let archive = saved(&module().0);
        let half = &archive[..archive.len() / 2];
        for bytes in
            [&b""[..], b"PK", &[0; 4096], half, &archive[1..], &archive[..archive.len() - 1]]
        {
            let bytes = Arc::new(SegmentedBytes::from(bytes.to_vec()));
            assert!(Module::load_mapped(Arc::clone(&bytes)).is_err());
            assert_eq!(Arc::strong_count(&bytes), 1);
        }
    }

    #[test]
    fn peak_memory_counts_live_tensors_only() {
        let weight = Tensor::zeros([1000, 10], OF);
        let input = [Tensor::ones([5, 10], OF)];
        let module = Module::trace(&input, |inputs| -> Result<Tensor, TorchError> {
            // 5,000 numbers, then another 5,000 while the first are live, then 5.
            let wide = inputs[0].f_linear::<Tensor>(&weight, None)?;
            Ok(wide.f_relu()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?)
        });
        assert_eq!(module.unwrap().peak(&input).unwrap(), 2 * 5_000 * 4);
    }
}
