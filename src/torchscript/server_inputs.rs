//! The tensors that Elasticsearch passes to a graph.

use tch::Tensor;

use super::TorchError;

/// The number at a place of a row.
type Value<'a> = &'a dyn Fn(&[i64], usize) -> i64;

/// The first `count` tensors that Elasticsearch passes to a graph for `rows` of token ids: input ids, attention mask, token types and
/// positions (contract 3.4). Each is `[rows, tokens]` of int64, padded to the longest row.
///
/// The attention mask is 1 for each token of a row. At padding it has the id of the padding token, as the server fills it.
///
/// # Errors
/// Errors of libtorch.
pub fn server_inputs(
    rows: &[impl AsRef<[i64]>],
    padding: i64,
    count: usize,
) -> Result<Vec<Tensor>, TorchError> {
    let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    server_inputs_of_width(rows, longest, padding, count)
}

/// The tensors of [`server_inputs`] for rows that are padded to `width` tokens.
///
/// # Errors
/// Errors of libtorch.
pub fn server_inputs_of_width(
    rows: &[impl AsRef<[i64]>],
    width: usize,
    padding: i64,
    count: usize,
) -> Result<Vec<Tensor>, TorchError> {
    let tensor = |value: Value<'_>| {
        let values: Vec<i64> =
            rows.iter().flat_map(|row| (0..width).map(|at| value(row.as_ref(), at))).collect();
        Ok::<_, TorchError>(
            Tensor::f_from_slice(&values)?.f_view([rows.len() as i64, width as i64])?,
        )
    };
    let values: [Value<'_>; 4] = [
        &|row, at| row.get(at).copied().unwrap_or(padding),
        &|row, at| if at < row.len() { 1 } else { padding },
        &|_, _| 0,
        &|_, at| i64::try_from(at).unwrap_or(i64::MAX),
    ];
    values.into_iter().take(count).map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_as_the_server_does() {
        let tensors = server_inputs(&[vec![5, 6, 7], vec![8]], 9, 4).unwrap();
        let values: Vec<Vec<i64>> = tensors
            .iter()
            .map(|tensor| Vec::try_from(tensor.f_flatten(0, -1).unwrap()).unwrap())
            .collect();
        assert_eq!(tensors[0].size(), [2, 3]);
        assert_eq!(values, [[5, 6, 7, 8, 9, 9], [1, 1, 1, 1, 9, 9], [0; 6], [0, 1, 2, 0, 1, 2]]);
        assert_eq!(server_inputs(&[[1]], 0, 2).unwrap().len(), 2);
    }
}
