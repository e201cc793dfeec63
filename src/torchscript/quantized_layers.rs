//! Weights of quantized layers: 8-bit integers with one scale per row, or float16.

use tch::{Device, Kind, Tensor};

use super::TorchError;

/// Number of elements that are quantized at once. Their intermediate results fit into a processor's cache.
const CHUNK: i64 = 1 << 17;

/// Weights that replace the float32 weights of a layer.
#[derive(Debug)]
pub(crate) enum Replacement {
    /// A lookup table.
    Table {
        /// int8 or float16, `[rows, width]`.
        weight: Tensor,
        /// float32, `[rows, 1]`: factor of each row.
        scales: Option<Tensor>,
    },
    /// A linear layer that quantizes its input to 8 bits when it runs.
    Linear {
        /// int8, `[outputs, inputs]`.
        weight: Tensor,
        /// float64, `[outputs]`: factor of each row.
        scales: Tensor,
        /// float32, `[inputs]`: factor of each input before it is quantized.
        factors: Option<Tensor>,
        /// Inputs that are multiplied in float32: their numbers, int64 `[columns]`, and their weights `[outputs, columns]`.
        floating: Option<(Tensor, Tensor)>,
    },
}

impl Replacement {
    /// A table of 8-bit integers from -127 to 127 with one scale per row: the largest absolute value of the row / 127.
    ///
    /// # Errors
    /// If a weight is not finite.
    pub(crate) fn int8_table(weight: &Tensor) -> Result<Self, TorchError> {
        let [weight, scales] = by_rows(weight, |rows| {
            let scales =
                nonzero(&rows.f_abs()?.f_amax([1i64].as_slice(), true)?.f_div_scalar(127.)?)?;
            Ok([rounded(rows, &scales)?, scales])
        })?;
        Ok(Self::Table { weight, scales: Some(scales) })
    }

    /// A table in float16.
    ///
    /// # Errors
    /// If a weight is not finite in float16, whose largest number is 65,504.
    pub(crate) fn half_table(weight: &Tensor) -> Result<Self, TorchError> {
        let [weight] = by_rows(weight, |rows| {
            let half = rows.f_to_kind(Kind::Half)?;
            check_finite(&half, "a lookup table contains a number that float16 cannot represent")?;
            Ok([half])
        })?;
        Ok(Self::Table { weight, scales: None })
    }
}

/// A linear layer with 8-bit weights that gives the same bits on x86 processors with and without VNNI.
///
/// `largest` `[inputs]` is the largest absolute value of each input, as observed on texts. Inputs are divided by its square root, and
/// weights multiplied by it, so that large inputs lose less precision (SmoothQuant, Xiao et al. 2023). The `floating` inputs with the
/// largest values are multiplied in float32 (as in LLM.int8(), Dettmers et al. 2022).
///
/// # Errors
/// If a weight is not finite.
pub(crate) fn linear_layer(
    weight: &Tensor,
    largest: Option<&Tensor>,
    floating: i64,
) -> Result<Replacement, TorchError> {
    let Some(largest) = largest else {
        let [weight, scales] = by_rows(weight, safe_rows)?;
        return Ok(Replacement::Linear {
            weight,
            scales: flat(&scales)?,
            factors: None,
            floating: None,
        });
    };
    let floor = f64::try_from(&largest.f_max()?)? * SMALLEST_INPUT;
    let roots =
        if floor > 0. { largest.f_clamp_min(floor)?.f_sqrt()? } else { largest.f_ones_like()? };
    let (mut factors, mut roots) = (roots.f_reciprocal()?, roots);
    let mut separate = None;
    if floating > 0 {
        let (_, columns) = largest.f_topk(floating, 0, true, true)?;
        let (columns, _) = columns.f_sort(0, false)?;
        factors = factors.f_index_fill(0, &columns, 0.)?;
        roots = roots.f_index_fill(0, &columns, 0.)?;
        let weights = weight.f_index_select(1, &columns)?.f_contiguous()?;
        separate = Some((columns, weights));
    }
    let [weight, scales] = by_rows(weight, |rows| {
        check_finite(rows, NOT_FINITE)?;
        safe_rows(&rows.f_mul(&roots)?)
    })?;
    Ok(Replacement::Linear {
        weight,
        scales: flat(&scales)?,
        factors: Some(factors),
        floating: separate,
    })
}

/// Smallest assumed maximum of an input, relative to the largest maximum of all inputs, so that inputs that were small on all observed
/// texts may grow.
const SMALLEST_INPUT: f64 = 1e-2;

const NOT_FINITE: &str =
    "a layer contains a weight that is infinite or not a number, so the weights are damaged";

/// Rows of 8-bit integers whose products with unsigned 8-bit inputs fit into 16 bits in pairs.
///
/// Processors without VNNI add the products of two adjacent inputs in 16 bits with saturation (`vpmaddubsw`). The scale of a row is the
/// largest sum of the values of one sign in a pair / 127, so that rounded sums are at most 128, and 255 · 128 < 2¹⁵.
fn safe_rows(rows: &Tensor) -> Result<[Tensor; 2], TorchError> {
    let width = rows.size().last().copied().unwrap_or_default();
    let even =
        if width % 2 == 0 { rows.shallow_clone() } else { rows.f_constant_pad_nd([0i64, 1])? };
    let pairs = even.f_reshape([-1, (width + 1) / 2, 2])?;
    let sums = |signed: Tensor| -> Result<Tensor, TorchError> {
        let sums = signed.f_clamp_min(0.)?.f_sum_dim_intlist([2i64].as_slice(), false, None)?;
        Ok(sums.f_amax([1i64].as_slice(), true)?)
    };
    let largest = sums(pairs.f_neg()?)?.f_maximum(&sums(pairs)?)?;
    let scales = nonzero(&largest.f_div_scalar(127.)?)?;
    Ok([rounded(rows, &scales)?, scales])
}

/// Scales without zeros, which rows of zeros have. Also rejects scales of rows that are not finite.
fn nonzero(scales: &Tensor) -> Result<Tensor, TorchError> {
    check_finite(scales, NOT_FINITE)?;
    Ok(scales.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)
}

fn rounded(rows: &Tensor, scales: &Tensor) -> Result<Tensor, TorchError> {
    Ok(rows.f_div(scales)?.f_round()?.f_clamp(-127., 127.)?.f_to_kind(Kind::Int8)?)
}

fn flat(scales: &Tensor) -> Result<Tensor, TorchError> {
    Ok(scales.f_reshape([-1])?.f_to_kind(Kind::Double)?)
}

fn check_finite(tensor: &Tensor, reason: &'static str) -> Result<(), TorchError> {
    match bool::try_from(&tensor.f_isfinite()?.f_all()?)? {
        true => Ok(()),
        false => Err(TorchError::NotFinite(reason)),
    }
}

/// Applies `convert` to groups of rows of `weight` and concatenates each of its results.
fn by_rows<const N: usize>(
    weight: &Tensor,
    convert: impl Fn(&Tensor) -> Result<[Tensor; N], TorchError>,
) -> Result<[Tensor; N], TorchError> {
    let (rows, width) = weight.size2()?;
    let together = (CHUNK / width.max(1)).max(1);
    let mut parts: [Vec<Tensor>; N] = std::array::from_fn(|_| Vec::new());
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + together);
        let converted = convert(&weight.f_slice(0, start, end, 1)?)?;
        for (parts, part) in parts.iter_mut().zip(converted) {
            parts.push(part);
        }
        start = end;
    }
    let mut all = std::array::from_fn(|_| Tensor::empty([0], (Kind::Float, Device::Cpu)));
    for (all, parts) in all.iter_mut().zip(parts) {
        *all = Tensor::f_cat(&parts, 0)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::Module;
    use super::*;
    use crate::hexadecimal::hexadecimal;

    const OF: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Numbers that look random and are the same everywhere.
    fn numbers(rows: i64, width: i64) -> Tensor {
        let at = Tensor::arange(rows * width, OF);
        (((at * 0.618_034).remainder(1.) - 0.5) * 3.).view([rows, width])
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    /// A module with a lookup table, and two linear layers with one input.
    fn module(table: &Tensor, weights: [&Tensor; 2], ids: &[Tensor]) -> Module {
        Module::trace(ids, |inputs| -> Result<Tensor, TorchError> {
            let words = Tensor::f_embedding(table, &inputs[0], -1, false, false)?;
            let [one, other] = weights.map(|weight| words.f_linear::<Tensor>(weight, None));
            Ok(one?.f_add(&other?)?)
        })
        .unwrap()
    }

    #[test]
    fn table_of_8_bits_differs_by_half_a_step() {
        let (table, ids) = (numbers(100, 6), [Tensor::from_slice2(&[[0i64, 7, 99]])]);
        let numbers_to_6 = Tensor::arange(6, OF);
        let identity = numbers_to_6.unsqueeze(1).eq_tensor(&numbers_to_6).to_kind(Kind::Float);
        let exact = Tensor::f_embedding(&table, &ids[0], -1, false, false).unwrap() * 2.;
        for (half, allowed) in [(false, 2. * 1.5 / 127. / 2. + 1e-6), (true, 2e-3)] {
            let mut module = module(&table, [&identity, &identity], &ids);
            let mut seen = Vec::new();
            let others = module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
                seen.push((weight.size(), is_linear));
                Ok(match (is_linear, half) {
                    (true, _) => None,
                    (false, true) => Some(Replacement::half_table(weight)?),
                    (false, false) => Some(Replacement::int8_table(weight)?),
                })
            });
            assert_eq!(
                (others.unwrap(), seen),
                (0, vec![(vec![100, 6], false), (vec![6, 6], true)])
            );
            let difference = largest(&(module.forward(&ids).unwrap() - &exact));
            assert!(difference > 0. && difference <= allowed, "{difference}");
            assert_eq!(module.operations().unwrap()["aten::embedding"], if half { 1 } else { 2 });
        }
        let large = Tensor::from_slice2(&[[7e4f32, 0.]]);
        assert!(Replacement::half_table(&large).unwrap_err().to_string().contains("float16"));
        let broken = Tensor::from_slice2(&[[f32::NAN, 0.]]);
        assert!(
            Replacement::int8_table(&broken)
                .unwrap_err()
                .to_string()
                .contains("infinite or not a number")
        );
    }

    #[test]
    fn pairs_of_products_fit_into_16_bits() {
        for width in [2, 7, 64, 384] {
            let same_sign = numbers(40, width).abs();
            for weight in [numbers(40, width), &same_sign * 1e6, -same_sign * 1e-6] {
                let [rows, scales] = safe_rows(&weight).unwrap();
                let even = rows.to_kind(Kind::Int64).constant_pad_nd([0i64, width % 2]);
                let pairs = even.view([40, -1, 2]);
                for signed in [pairs.clamp_min(0), pairs.clamp_max(0)] {
                    let sum = signed.sum_dim_intlist([2i64].as_slice(), false, None).abs().max();
                    assert!(255 * sum.int64_value(&[]) <= 32_767, "{width}: {sum:?}");
                }
                let off = (rows.to_kind(Kind::Float) * &scales - &weight) / scales;
                assert!(largest(&off) < 0.501, "{width}: {off:?}");
            }
        }
    }

    #[test]
    fn layers_with_one_input_share_its_scaling() {
        // One input is much larger than the others.
        let outlier = Tensor::arange(64, OF).eq(5.).to_kind(Kind::Float) * 50. + 1.;
        let (table, ids) = (numbers(100, 64) * outlier, [Tensor::from_slice2(&[[0i64, 7, 99]])]);
        let weights = [numbers(32, 64), numbers(64, 64).flip([0])];
        let exact = module(&table, [&weights[0], &weights[1].narrow(0, 0, 32)], &ids);
        let exact = exact.forward(&ids).unwrap();
        let off = |floating: Option<i64>| {
            let second = weights[1].narrow(0, 0, 32).contiguous();
            let observed = module(&table, [&weights[0], &second], &ids).observe().unwrap();
            let observed = observed.forward(&ids).unwrap();
            let of_words = Tensor::f_embedding(&table, &ids[0], -1, false, false).unwrap();
            let of_words = of_words.abs().amax([0i64, 1].as_slice(), false);
            assert_eq!(observed, Tensor::cat(&[&of_words, &of_words], 0));
            let mut module = module(&table, [&weights[0], &second], &ids);
            let others = module.replace_layers(|weight, is_linear| -> Result<_, TorchError> {
                if !is_linear {
                    return Ok(None);
                }
                let largest = floating.map(|_| &of_words);
                Ok(Some(linear_layer(weight, largest, floating.unwrap_or_default())?))
            });
            assert_eq!(others.unwrap(), 0);
            let kinds = module.operations().unwrap();
            assert_eq!(kinds["quantized::linear_dynamic"], 2);
            let count = |kind: &str| kinds.get(kind).copied().unwrap_or_default();
            let shared = usize::from(floating.is_some());
            assert_eq!(count("aten::mul"), shared, "{kinds:?}");
            assert_eq!(count("aten::index"), usize::from(floating > Some(0)), "{kinds:?}");
            largest(&(module.forward(&ids).unwrap() - &exact)) / largest(&exact)
        };
        let [plain, smooth, separate] = [None, Some(0), Some(4)].map(off);
        assert!(separate < smooth && smooth < plain && plain < 0.05, "{plain} {smooth} {separate}");
        assert!(separate < 2e-3, "{separate}");
    }

    /// The result of a layer for inputs whose quantization is exact (the integers from 0 to 255), and the exact result. Adjacent
    /// products of the inputs and the weights have the same sign, and many are large.
    fn result_for_integers() -> [Tensor; 2] {
        let inputs = (numbers(40, 384).abs() * 200.).round().clamp(0., 255.);
        let weight = numbers(512, 384).abs() - 0.3;
        let input = [inputs.shallow_clone()];
        let mut module = Module::trace(&input, |inputs| -> Result<Tensor, TorchError> {
            Ok(inputs[0].f_linear::<Tensor>(&weight, None)?)
        })
        .unwrap();
        let replaced = module.replace_layers(|weight, _| linear_layer(weight, None, 0).map(Some));
        assert_eq!(replaced.unwrap(), 0);
        let [rows, scales] = safe_rows(&weight).unwrap();
        let [inputs, rows, scales] = [inputs, rows, scales].map(|it| it.to_kind(Kind::Double));
        let exact = inputs.matmul(&rows.transpose(0, 1)) * scales.transpose(0, 1);
        [module.forward(&input).unwrap(), exact]
    }

    #[test]
    fn layer_computes_the_same_bits_without_new_instructions() {
        const CHILD: &str = "RUST_ELAND_PRINTS_BITS";
        let [result, exact] = result_for_integers();
        // Saturation changes a sum of products by hundreds; rounding to float32 by less than one.
        let difference = largest(&(result.to_kind(Kind::Double) - &exact)) / largest(&exact);
        assert!(difference < 1e-6, "{difference}");
        let numbers = Vec::<f32>::try_from(&result.reshape([-1])).unwrap();
        let bits: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let bits = hexadecimal(&Sha256::digest(&bits));
        if std::env::var_os(CHILD).is_some() {
            println!("bits {bits}");
            return;
        }
        // AVX2 without VNNI: for oneDNN, for ATen, and for MKL.
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["layer_computes_the_same_bits", "--nocapture"])
            .envs([(CHILD, "1"), ("ONEDNN_MAX_CPU_ISA", "AVX2")])
            .envs([("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_ENABLE_INSTRUCTIONS", "AVX2")])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(&format!("bits {bits}")), "{printed}");
    }
}
