//! A TorchScript module.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tch::Tensor;

use super::archive_writer;
use super::ffi::RawModule;
use super::{OneThread, TorchError};
use crate::segmented_bytes::SegmentedBytes;

/// A TorchScript module with a method `forward` from tensors to one tensor.
#[derive(Debug)]
pub struct Module(RawModule);

impl Module {
    /// Records what `forward` does with `inputs`; tensors that it captures become constants of the graph.
    ///
    /// Sizes stay symbolic where `forward` takes them from [`Size`](super::Size); any other integer is baked in.
    ///
    /// # Errors
    /// What `forward` returns, and libtorch's own.
    pub fn trace<E: From<TorchError>>(
        inputs: &[Tensor],
        forward: impl FnOnce(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        tch::no_grad(|| RawModule::trace(inputs, forward)).map(Self)
    }

    /// Loads an archive.
    ///
    /// # Errors
    /// When the file is not a TorchScript archive that this libtorch can read.
    pub fn load(path: &Path) -> Result<Self, TorchError> {
        RawModule::load(path).map(Self)
    }

    /// Loads an archive from memory, where its tensors stay: nothing is copied, however large it is. Returns the bytes of all tensors
    /// in it too.
    ///
    /// # Errors
    /// When the bytes are not a TorchScript archive that this libtorch can read.
    pub fn load_mapped(archive: Arc<SegmentedBytes>) -> Result<(Self, u64), TorchError> {
        // As in `archive`.
        let _one = OneThread::begin();
        let (module, stored) = RawModule::load_mapped(archive)?;
        Ok((Self(module), stored))
    }

    /// Makes every linear layer of `forward` one of 8-bit weights, which quantizes its input as it comes: what PyTorch's
    /// `quantize_dynamic` does by default, with the same numbers. Embeddings and convolutions stay as they are.
    ///
    /// # Errors
    /// When a weight is no finite number, or libtorch has no such operation for this processor.
    pub fn quantize(mut self) -> Result<(Self, Quantized), TorchError> {
        let (layers, kept) = self.0.quantize()?;
        Ok((self, Quantized { layers, kept }))
    }

    /// Loads an archive from memory.
    ///
    /// Loading runs code of the archive: it must have been looked at before (see [`crate::definition`]).
    ///
    /// # Errors
    /// When the bytes are not a TorchScript archive that this libtorch can read.
    pub fn load_bytes(archive: &[u8]) -> Result<Self, TorchError> {
        RawModule::load_bytes(archive).map(Self)
    }

    /// The number of nodes of all methods, functions inlined, or `limit` where there are more. Nothing is inlined for it.
    ///
    /// # Errors
    /// When libtorch cannot compile a method.
    pub fn nodes(&self, limit: u64) -> Result<u64, TorchError> {
        self.0.nodes(limit)
    }

    /// What `forward` takes and returns.
    ///
    /// # Errors
    /// When there is no such method.
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

    /// The kinds of all nodes (`aten::linear`, `prim::Constant` …) with their number, over all methods, functions inlined and
    /// sub-blocks included, as Elasticsearch's native process collects them.
    ///
    /// # Errors
    /// When libtorch cannot inline a graph.
    pub fn operations(&self) -> Result<BTreeMap<String, usize>, TorchError> {
        let mut kinds = BTreeMap::new();
        self.0.operations(|kind| *kinds.entry(kind.to_owned()).or_insert(0) += 1)?;
        Ok(kinds)
    }

    /// The archive: its tensors stay where they are, which it keeps. The same module gives the same bytes.
    ///
    /// # Errors
    /// When libtorch cannot serialize the module.
    pub fn archive(&self) -> Result<SegmentedBytes, TorchError> {
        // libtorch compares all constants of a shape with each other.
        let _one = OneThread::begin();
        archive_writer::seal(self.0.save()?)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the writer fails or libtorch cannot serialize the module.
    pub fn save(&self, writer: &mut dyn Write) -> Result<(), TorchError> {
        let archive = self.archive()?;
        archive.iter().try_for_each(|piece| writer.write_all(piece)).map_err(TorchError::Write)
    }

    /// Runs `forward`, without gradients. Of a tuple the first element is taken, as Elasticsearch does. The first two passes optimize
    /// the graph for those to come, as in the server.
    ///
    /// # Errors
    /// libtorch's own, for instance wrong shapes.
    pub fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, TorchError> {
        self.0.forward(inputs, true)
    }

    /// The same for a few passes, which optimizing the graph would cost more than it saves.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_plainly(&self, inputs: &[Tensor]) -> Result<Tensor, TorchError> {
        self.0.forward(inputs, false)
    }

    /// The peak of bytes that are live, at one moment of `forward`, in tensors that it makes. Linear layers, most of the work, are
    /// not computed; only their results' memory is taken.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn peak(&self, inputs: &[Tensor]) -> Result<u64, TorchError> {
        Ok(u64::try_from(self.0.peak(inputs)?).unwrap_or(0))
    }
}

/// What [`Module::quantize`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantized {
    /// Linear layers that have 8-bit weights now.
    pub layers: usize,
    /// Linear layers and convolutions that could not be quantized.
    pub kept: usize,
}

/// What a module's `forward` takes and returns.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// Its parameters in their order, without `self`.
    pub parameters: Vec<Parameter>,
    /// The type of what it returns.
    pub returned: String,
    /// Whether that may be a tensor or a tuple that begins with one.
    pub returns_tensor: bool,
}

/// A parameter of `forward`.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Whether a tensor can be given for it by position.
    pub tensor: bool,
    /// Whether it may be left out.
    pub optional: bool,
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    const OF: (Kind, tch::Device) = (Kind::Float, tch::Device::Cpu);

    /// Two layers of one weight, a table of integers, an empty tensor.
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
        // Packed weights are unpacked to be written, so that of a quantized module only the table stays where it is.
        for (module, bytes, in_place) in
            [(float, (64 + 8) * 4 + 3 * 8, 3), (quantized, 64 + 8 * 4 + 3 * 8, 1)]
        {
            let archive = Arc::new(module.archive().unwrap());
            // Each with what libtorch writes before it, and the end.
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
            // 5,000 numbers, then 5,000 more while those are alive, then 5 of them.
            let wide = inputs[0].f_linear::<Tensor>(&weight, None)?;
            Ok(wide.f_relu()?.f_sum_dim_intlist([-1i64].as_slice(), false, None)?)
        });
        assert_eq!(module.unwrap().peak(&input).unwrap(), 2 * 5_000 * 4);
    }
}
