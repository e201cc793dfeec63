//! Feeds rows to the graph and reads its output as the native process does (contract, 3.4).

use rust_eland::torchscript::tch::{Kind, Tensor};
use rust_eland::torchscript::{Module, server_inputs};

use super::output::{Evaluation, Output};
use crate::tokenization::{Inputs, Row, Tokenizer};
use crate::version::{Version, since};

/// The inputs for `rows`: padded to the longest, each an int64 tensor [rows, tokens].
///
/// The attention mask is padded with the id of the padding token too, as the server does.
pub(crate) fn tensors(rows: &[Row], pad: u32, inputs: Inputs) -> Result<Vec<Tensor>, String> {
    let ids = |row: &Row| row.ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>();
    let rows: Vec<_> = rows.iter().map(ids).collect();
    server_inputs(&rows, i64::from(pad), inputs.count()).map_err(|error| error.to_string())
}

/// Evaluates the graph on `rows`.
pub(crate) fn evaluate(
    module: &Module,
    tokenizer: &Tokenizer,
    rows: &[Row],
    how: Evaluation,
) -> Result<Output, String> {
    let inputs = tensors(rows, tokenizer.pad_id(), tokenizer.inputs())?;
    let tch_error = |error: rust_eland::torchscript::tch::TchError| error.to_string();
    if how.batched {
        let result = module.forward(&inputs).map_err(|error| error.to_string())?;
        return read(&result, how.version);
    }
    let mut results = Vec::with_capacity(rows.len());
    for row in 0..rows.len() as i64 {
        let one = inputs
            .iter()
            .map(|tensor| tensor.f_slice(0, row, row + 1, 1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(tch_error)?;
        let result = module.forward(&one).map_err(|error| error.to_string())?;
        let result = if result.dim() == 0 { reshape_scalar(&result, how.version)? } else { result };
        results.push(result);
    }
    let result = match results.as_slice() {
        [only] => only.shallow_clone(),
        several => Tensor::f_cat(several, 0).map_err(tch_error)?,
    };
    read(&result, how.version)
}

fn reshape_scalar(result: &Tensor, version: Version) -> Result<Tensor, String> {
    // Also in 8.15.2, which came later than 8.16.0's branch (contract, 3.4).
    let reshapes = version >= since::RANK_ZERO
        || (version >= Version::new(8, 15, 2) && version < Version::new(8, 16, 0));
    if reshapes {
        result.f_reshape([1, 1]).map_err(|error| error.to_string())
    } else {
        Err("Cannot convert results tensor of size [[]]".to_owned())
    }
}

/// Checks type and rank and copies the values out.
fn read(result: &Tensor, version: Version) -> Result<Output, String> {
    let kind = result.kind();
    if !matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16) {
        return Err(format!("Cannot process result tensor of type [{kind:?}]"));
    }
    let result =
        if result.dim() == 0 { reshape_scalar(result, version)? } else { result.shallow_clone() };
    let sizes: Vec<usize> =
        result.size().into_iter().map(|size| usize::try_from(size).unwrap_or(0)).collect();
    let sizes = match sizes[..] {
        [n] => [1, 1, n],
        [m, n] => [1, m, n],
        [l, m, n] => [l, m, n],
        _ => return Err(format!("Cannot convert results tensor of size [{sizes:?}]")),
    };
    let values = result
        .f_to_kind(Kind::Double)
        .and_then(|doubles| doubles.f_reshape([-1]))
        .and_then(Vec::<f64>::try_from)
        .map_err(|error| error.to_string())?;
    Ok(Output { sizes, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[u32]) -> Row {
        Row {
            ids: ids.to_vec(),
            words: vec![None; ids.len()],
            tokens: Vec::new(),
            offset: 0,
            is_truncated: false,
        }
    }

    fn values(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.reshape([-1])).unwrap()
    }

    #[test]
    fn ids_and_mask_are_padded_alike() {
        let rows = [row(&[5, 6, 7]), row(&[8])];
        let made = tensors(&rows, 1, Inputs::Four).unwrap();
        assert!(made.iter().all(|tensor| tensor.kind() == Kind::Int64 && tensor.size() == [2, 3]));
        let expected: [&[i64]; 4] = [&[5, 6, 7, 8, 1, 1], &[1; 6], &[0; 6], &[0, 1, 2, 0, 1, 2]];
        for (tensor, expected) in made.iter().zip(expected) {
            assert_eq!(values(tensor), expected);
        }
        let made = tensors(&rows, 0, Inputs::Two).unwrap();
        assert_eq!((made.len(), values(&made[1])), (2, vec![1, 1, 1, 1, 0, 0]));
        assert_eq!(tensors(&rows, 0, Inputs::Three).unwrap().len(), 3);
    }

    #[test]
    fn ranks_and_types_are_checked() {
        let version = Version::default();
        let floats = |sizes: &[i64]| {
            Tensor::ones(sizes, (Kind::Float, rust_eland::torchscript::tch::Device::Cpu))
        };
        assert_eq!(read(&floats(&[]), version).unwrap().sizes, [1, 1, 1]);
        assert!(read(&floats(&[]), Version::new(8, 15, 1)).is_err());
        assert_eq!(read(&floats(&[4]), version).unwrap().sizes, [1, 1, 4]);
        assert_eq!(read(&floats(&[2, 4]), version).unwrap().sizes, [1, 2, 4]);
        assert_eq!(read(&floats(&[2, 1, 4]), version).unwrap().sizes, [2, 1, 4]);
        assert!(
            read(&floats(&[1, 1, 1, 1]), version).unwrap_err().contains("results tensor of size")
        );
        let halves = floats(&[1, 2]).to_kind(Kind::Half);
        assert!(
            read(&halves, version).unwrap_err().contains("Cannot process result tensor of type")
        );
        assert!(read(&floats(&[2]).to_kind(Kind::BFloat16), version).is_ok());
    }
}
