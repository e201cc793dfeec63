//! Adapters of LoRA (Hu et al. 2021, arXiv:2106.09685), which are merged into the weights when the model requests them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use super::{Ledger, Mode, Weights};
use crate::checkpoint::{Checkpoint, Dtype, StoredTensor};

/// End of a tensor's name that PyTorch gives to a weight with a parametrization (`torch.nn.utils.parametrize`), and the ends of the two
/// factors of jina's parametrization, which hold the factors of all tasks.
const ORIGINAL: &str = "parametrizations.weight.original";
const STACKED: [&str; 2] = ["parametrizations.weight.0.lora_A", "parametrizations.weight.0.lora_B"];

/// The adapter of one task: each adapted weight `[rows, columns]` becomes `weight + scale * left * right`, with the factors `left`
/// `[rows, rank]` and `right` `[rank, columns]`.
///
/// `lora_A` belongs to the input and `lora_B` to the output. So `left` is `lora_B` for a linear layer `[outputs, inputs]`, and `lora_A`
/// for a table of embeddings `[rows, width]`.
#[derive(Debug, Clone)]
pub struct Lora {
    rank: i64,
    scale: f64,
    factors: Factors,
}

/// Where the factors are.
#[derive(Debug, Clone)]
enum Factors {
    /// Beside each weight, with the factors of `tasks` tasks in one tensor (`LoRAParametrization` of jinaai/xlm-roberta-flash-implementation).
    Stacked { task: i64, tasks: i64 },
    /// In a checkpoint that the library PEFT saved: the tensors by name without the prefixes of PEFT and of the base model.
    Separate { tensors: BTreeMap<String, StoredTensor>, used: RefCell<BTreeSet<String>> },
}

impl Lora {
    /// The adapter with the number `task` of `tasks`, whose factors are beside the weights.
    #[must_use]
    pub fn stacked(task: i64, tasks: i64, rank: i64, scale: f64) -> Self {
        Self { rank, scale, factors: Factors::Stacked { task, tasks } }
    }

    /// The adapter in a checkpoint of PEFT.
    ///
    /// # Errors
    /// The name of a tensor that the checkpoint has twice, with and without a prefix.
    pub fn separate(checkpoint: &Checkpoint, rank: i64, scale: f64) -> Result<Self, String> {
        let mut tensors = BTreeMap::new();
        for (name, stored) in checkpoint.tensors() {
            let name = name.strip_prefix("base_model.model.").unwrap_or(name);
            let name = without_base(name);
            if tensors.insert(name.to_owned(), stored.clone()).is_some() {
                return Err(name.to_owned());
            }
        }
        let factors = Factors::Separate { tensors, used: RefCell::default() };
        Ok(Self { rank, scale, factors })
    }

    /// Names of the tensors of a PEFT checkpoint that no weight has requested.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        match &self.factors {
            Factors::Stacked { .. } => Vec::new(),
            Factors::Separate { tensors, used } => {
                let used = used.borrow();
                tensors.keys().filter(|name| !used.contains(*name)).cloned().collect()
            }
        }
    }
}

/// A name without the prefix of the base model. A file has the prefix if it was saved from a model with a head.
fn without_base(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

/// The part of a tensor `[parts, …]` with the number `part`.
fn part_of(stored: &StoredTensor, part: i64) -> StoredTensor {
    let mut taken = stored.clone();
    let parts = taken.slice.shape.remove(0).max(1);
    let size = taken.slice.dtype.size();
    let (part, parts) = (usize::try_from(part).unwrap_or(0), usize::try_from(parts).unwrap_or(1));
    if let Some(strides) = &mut taken.strides {
        let step = usize::try_from(strides.remove(0)).unwrap_or(0);
        let skipped = (part * step * size).min(taken.slice.length);
        taken.slice.offset += skipped;
        taken.slice.length -= skipped;
    } else {
        taken.slice.length /= parts;
        taken.slice.offset += part * taken.slice.length;
    }
    taken
}

impl Weights<'_> {
    /// Reads the weight `name`, which has a parametrization of LoRA or an adapter. `None` if it has neither. Without a chosen task, the
    /// weight is returned as it is.
    ///
    /// The factors are read for one weight and one task at a time, and no product of them is stored.
    pub(super) fn merged(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let stem = name.strip_suffix("weight").filter(|stem| stem.ends_with('.'))?;
        if matches!(self.loader.mode, Mode::Sketch | Mode::Outline) {
            return None;
        }
        let tensors = self.loader.checkpoint.tensors();
        let original = format!("{stem}{ORIGINAL}");
        if tensors.contains_key(&original) {
            let names = STACKED.map(|end| format!("{stem}{end}"));
            if !names.iter().all(|name| tensors.contains_key(name)) {
                // Another parametrization.
                return None;
            }
            self.loader.ledger.borrow_mut().used.extend(names.iter().cloned());
            let weight = self.whole().tensor(&original, shape);
            let Some(Lora { factors: Factors::Stacked { task, tasks }, .. }) = self.lora else {
                return Some(weight);
            };
            let factor = |ledger: &mut Ledger, index: usize, shape: &[i64]| {
                let name = &names[index];
                let stored = tensors.get(name)?;
                if stored.slice.shape.split_first() != Some((tasks, shape)) {
                    let found = &stored.slice.shape;
                    ledger.problems.push(format!(
                        "{name} has the shape {found:?}, but config.json requires {tasks} tensors of {shape:?}"
                    ));
                    return None;
                }
                self.read(ledger, name, Some(&part_of(stored, *task)), shape, None)
            };
            return Some(self.with_product(&original, weight, shape, factor));
        }
        let Some(Lora { factors: Factors::Separate { tensors, used }, .. }) = self.lora else {
            return None;
        };
        let module = without_base(stem.trim_end_matches('.'));
        let pairs = [["lora_A.weight", "lora_B.weight"], ["lora_embedding_A", "lora_embedding_B"]];
        let names = pairs.map(|pair| pair.map(|end| format!("{module}.{end}")));
        let names = names.into_iter().find(|names| tensors.contains_key(&names[0]))?;
        // The weight itself has no adapter any more.
        let weight = self.clone().adapted(None).whole().tensor(name, shape);
        used.borrow_mut().extend(names.iter().cloned());
        let factor = |ledger: &mut Ledger, index: usize, shape: &[i64]| {
            // PEFT stores the factors of embeddings transposed: lora_embedding_A [rank, rows], lora_embedding_B [width, rank].
            let stored = tensors.get(&names[index]);
            let is_embedding = names[index].contains("lora_embedding");
            if let (true, [rows, columns]) = (is_embedding, shape) {
                return self
                    .read(ledger, &names[index], stored, &[*columns, *rows], None)?
                    .f_transpose(0, 1)
                    .ok();
            }
            self.read(ledger, &names[index], stored, shape, None)
        };
        Some(self.with_product(name, weight, shape, factor))
    }

    /// The tensors under their whole names.
    fn whole(&self) -> Self {
        Self { prefix: String::new(), ..self.clone() }
    }

    /// Adds the product of the factors to a weight of `shape`, which was read under `name`. `factor` reads `lora_A` (0) or `lora_B` (1).
    fn with_product(
        &self,
        name: &str,
        weight: Tensor,
        shape: &[i64],
        factor: impl Fn(&mut Ledger, usize, &[i64]) -> Option<Tensor>,
    ) -> Tensor {
        let (Some(Lora { rank, scale, .. }), &[rows, columns]) = (self.lora, shape) else {
            return weight;
        };
        let (left, right) = {
            let mut ledger = self.loader.ledger.borrow_mut();
            let is_embedding = name.contains("_embeddings.") || name.contains("embed_tokens.");
            let (left, right) = if is_embedding { (0, 1) } else { (1, 0) };
            let left = factor(&mut ledger, left, &[rows, *rank]);
            (left, factor(&mut ledger, right, &[*rank, columns]))
        };
        let (Some(left), Some(right)) = (left, right) else { return Tensor::new() };
        let stored = self.loader.checkpoint.tensors().get(name);
        // A float32 weight is mapped, and must not be written to. All others were converted to a tensor of their own.
        let is_own = stored.is_some_and(|stored| stored.slice.dtype != Dtype::F32);
        self.computed(|| {
            let left = left.f_mul_scalar(*scale)?;
            if !is_own {
                return Ok(weight.f_addmm(&left, &right)?);
            }
            let mut converted = weight;
            let _ = converted.f_addmm_(&left, &right)?;
            Ok(converted)
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::checkpoint::{Checkpoint, Format, WeightFiles};
    use crate::models::WeightLoader;

    /// A safetensors file with tensors of float32 or bfloat16.
    fn file(tensors: &[(&str, &Tensor, bool)]) -> Checkpoint {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, tensor, is_short) in tensors {
            let start = data.len();
            let numbers = Vec::<f32>::try_from(tensor.contiguous().view(-1)).unwrap();
            for number in numbers {
                let bytes = number.to_le_bytes();
                data.extend_from_slice(if *is_short { &bytes[2..] } else { &bytes });
            }
            let dtype = if *is_short { "BF16" } else { "F32" };
            let entry = serde_json::json!({
                "dtype": dtype, "shape": tensor.size(), "data_offsets": [start, data.len()],
            });
            header.insert((*name).to_owned(), entry);
        }
        let mut header = serde_json::to_vec(&header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(data);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let path = file.path().to_owned();
        Checkpoint::open(&WeightFiles::one(Format::Safetensors, path)).unwrap()
    }

    /// Numbers that bfloat16 holds exactly.
    fn numbers(shape: &[i64]) -> Tensor {
        let count: i64 = shape.iter().product();
        let numbers = Tensor::arange(count, (Kind::Float, Device::Cpu));
        ((numbers * 7.).remainder(13.) - 6.).view(shape) / 8.
    }

    fn near(ours: &Tensor, expected: &Tensor) {
        assert_eq!(ours.size(), expected.size());
        assert!((ours - expected).abs().max().double_value(&[]) < 1e-6, "{ours} {expected}");
    }

    #[test]
    fn stacked_factors_of_one_task_are_added_to_layers_and_embeddings() {
        let (layer, table) = (numbers(&[6, 4]), numbers(&[9, 4]));
        let [a, b] = [numbers(&[3, 2, 4]), numbers(&[3, 6, 2])];
        let [rows, columns] = [numbers(&[3, 9, 2]), numbers(&[3, 2, 4])];
        for is_short in [false, true] {
            let name = |module: &str, end: &str| format!("{module}.parametrizations.weight.{end}");
            let names = [
                name("mlp.fc1", "original"),
                name("mlp.fc1", "0.lora_A"),
                name("mlp.fc1", "0.lora_B"),
                name("word_embeddings", "original"),
                name("word_embeddings", "0.lora_A"),
                name("word_embeddings", "0.lora_B"),
            ];
            let tensors = [&layer, &a, &b, &table, &rows, &columns];
            let tensors: Vec<_> =
                names.iter().zip(tensors).map(|(name, it)| (name.as_str(), it, is_short)).collect();
            let loader = WeightLoader::read(file(&tensors));
            let plain = loader.weights();
            near(&plain.sub("mlp").tensor("fc1.weight", &[6, 4]), &layer);
            let lora = Lora::stacked(1, 3, 2, 0.5);
            let weights = loader.weights().adapted(Some(&lora));
            let merged = weights.sub("mlp").tensor("fc1.weight", &[6, 4]);
            near(&merged, &(&layer + b.get(1).matmul(&a.get(1)) * 0.5));
            let merged = weights.tensor("word_embeddings.weight", &[9, 4]);
            near(&merged, &(&table + rows.get(1).matmul(&columns.get(1)) * 0.5));
            let (unused, bytes) = loader.finish().unwrap();
            assert_eq!((unused, bytes), (Vec::new(), 4 * (6 * 4 + 9 * 4)));
        }
    }

    #[test]
    fn factors_of_another_number_of_tasks_are_reported() {
        let (layer, a, b) = (numbers(&[6, 4]), numbers(&[3, 2, 4]), numbers(&[3, 6, 2]));
        let checkpoint = file(&[
            ("fc1.parametrizations.weight.original", &layer, false),
            ("fc1.parametrizations.weight.0.lora_A", &a, false),
            ("fc1.parametrizations.weight.0.lora_B", &b, false),
        ]);
        let loader = WeightLoader::read(checkpoint);
        let lora = Lora::stacked(0, 5, 2, 1.);
        let _ = loader.weights().adapted(Some(&lora)).tensor("fc1.weight", &[6, 4]);
        let error = loader.finish().unwrap_err().to_string();
        assert!(
            error.contains("lora_A has the shape [3, 2, 4]") && error.contains("5 tensors"),
            "{error}"
        );
    }

    #[test]
    fn factor_with_and_without_a_prefix_is_refused() {
        let a = numbers(&[2, 4]);
        let name = "layers.0.up_proj.lora_A.weight";
        let adapter =
            file(&[(&format!("base_model.model.model.{name}"), &a, false), (name, &a, false)]);
        assert_eq!(Lora::separate(&adapter, 2, 2.).unwrap_err(), name);
    }

    #[test]
    fn separate_factors_are_added_and_others_are_reported() {
        let (layer, table) = (numbers(&[6, 4]), numbers(&[9, 4]));
        let (a, b) = (numbers(&[2, 4]), numbers(&[6, 2]));
        let (rows, columns) = (numbers(&[2, 9]), numbers(&[4, 2]));
        let adapter = file(&[
            ("base_model.model.layers.0.up_proj.lora_A.weight", &a, true),
            ("base_model.model.layers.0.up_proj.lora_B.weight", &b, true),
            ("base_model.model.embed_tokens.lora_embedding_A", &rows, false),
            ("base_model.model.embed_tokens.lora_embedding_B", &columns, false),
            ("base_model.model.layers.9.up_proj.lora_A.weight", &a, false),
        ]);
        let lora = Lora::separate(&adapter, 2, 2.).unwrap();
        let names = ["model.layers.0.up_proj.weight", "model.embed_tokens.weight"];
        let loader = WeightLoader::read(file(&[
            (names[0], &layer, true),
            (names[1], &table, false),
            ("model.norm.weight", &a, false),
            ("lm_head.weight", &table, false),
        ]));
        let weights = loader.weights().adapted(Some(&lora));
        let merged = weights.tensor(names[0], &[6, 4]);
        near(&merged, &(&layer + b.matmul(&a) * 2.));
        let merged = weights.tensor(names[1], &[9, 4]);
        near(&merged, &(&table + rows.tr().matmul(&columns.tr()) * 2.));
        near(&weights.tensor("model.norm.weight", &[2, 4]), &a);
        assert_eq!(lora.unused(), ["layers.9.up_proj.lora_A.weight"]);
        let bytes = loader.finish().unwrap().1;
        assert_eq!(bytes, 4 * (6 * 4 + 9 * 4 + 2 * 4));
    }
}
