//! The tokens that attend to each other in a layer: all tokens with a bias, or a sliding window in blocks.
//!
//! A window in blocks (Beltagy et al. 2020, arXiv:2004.05150, section 3.1) divides a row into blocks of queries. The keys of a block are its
//! tokens and those within reach on both sides, so that memory and time grow with the length instead of its square. A bias on the scores of
//! a block hides the keys out of reach.

use tch::Tensor;

use super::masks::{sliding_window_bias, window_bias};
use crate::models::layers::{Heads, attend, embedding};
use crate::models::{Inputs, Rows};
use crate::torchscript::{Size, TorchError, arange, reshape, slice, view};

/// Longest input from which on a graph computes sliding windows in blocks. On one thread and with the window of ModernBERT, a layer in blocks
/// took 0.17 of the time of a mask for 2,048 tokens, 0.83 for 512, and 1.2 for 128: graphs for shorter inputs use a mask.
const LEAST_LONGEST: i64 = 2048;

/// Numbers of queries in a block. Four blocks are not longer than [`LEAST_LONGEST`].
const BLOCKS: [i64; 2] = [256, 512];

/// Least number of queries in a block of a row with several blocks, if a graph for inputs of `longest` tokens computes windows with this
/// reach in blocks. A block is at least as long as the window.
#[must_use]
pub fn block_length(reach: i64, longest: i64) -> Option<i64> {
    let block = BLOCKS.into_iter().find(|block| 2 * reach <= *block);
    block.filter(|_| longest >= LEAST_LONGEST)
}

/// The tokens that attend to each other in a layer. Computed once per pass, for all layers with the same scope.
#[derive(Debug)]
pub enum AttentionScope {
    /// All tokens, with a bias on the scores that is broadcast to `[batch, heads, tokens, tokens]`.
    All(Tensor),
    /// A sliding window in blocks.
    Blocks(WindowBlocks),
}

impl AttentionScope {
    /// Two tokens with a distance of at most `reach`. `bias` is that of [`attention_bias`](crate::models::layers::attention_bias). The graph
    /// computes the window in blocks if its longest input is long enough, otherwise by [`sliding_window_bias`].
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn window(bias: &Tensor, reach: i64, inputs: &Inputs) -> Result<Self, TorchError> {
        Ok(match block_length(reach, inputs.longest) {
            Some(block) => Self::Blocks(WindowBlocks::of(bias, reach, block, inputs)?),
            None => Self::All(sliding_window_bias(bias, reach, inputs)?),
        })
    }

    /// Computes attention. Key and value are `[batch, heads, tokens, head_size]`; the query contains `rows`, `[batch, heads, rows, head_size]`.
    /// Returns `[batch, rows, hidden]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn attend(
        &self,
        query_key_value: [&Tensor; 3],
        heads: Heads,
        rows: Rows,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let bias = match (self, rows) {
            (Self::All(bias), _) => rows.of_scores(bias)?,
            (Self::Blocks(blocks), Rows::First) => blocks.first_bias(inputs)?,
            (Self::Blocks(blocks), Rows::All) => {
                return blocks.attend(query_key_value, heads, inputs);
            }
        };
        heads.join(&attend(query_key_value, &bias, heads.scale(), inputs)?, inputs)
    }
}

/// A sliding window in blocks. A row has as many blocks as fit, but at least one, and all have the same number of queries. A row with one
/// block has no keys beside it, as in attention to all tokens.
#[derive(Debug)]
pub struct WindowBlocks {
    /// Number of queries in a block.
    length: Size,
    /// Number of keys in a block.
    width: Size,
    /// Query of each place in a block as an index into the tokens of all rows, int64 `[batch * blocks, length]`.
    queries: Tensor,
    /// Key of each place in a block as an index into the tokens of all rows, int64 `[batch * blocks, width]`.
    keys: Tensor,
    /// Bias of the scores, float32 `[batch * blocks, 1, length, width]`.
    bias: Tensor,
    /// Bias of the scores by key without a window, float32 `[batch, 1, 1, tokens]`.
    by_key: Tensor,
    /// Largest distance of query and key.
    reach: i64,
}

impl WindowBlocks {
    /// Blocks of at least `block` queries, with keys at a distance of at most `reach`. `bias` is `[batch, 1, 1, tokens]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn of(bias: &Tensor, reach: i64, block: i64, inputs: &Inputs) -> Result<Self, TorchError> {
        let tokens = &inputs.tokens;
        let count = tokens.floor_divide_by(block)?.clamp(1, i64::MAX)?;
        let length = tokens.plus(&count)?.affine(1, -1)?.floor_divide(&count)?;
        let margin = count.affine(1, -1)?.clamp(0, 1)?.affine(reach, 0)?;
        let width = length.plus(&margin.affine(2, 0)?)?;

        // Places in a row, [blocks, length] and [blocks, width]. Those outside of the row are replaced by its first or last token.
        let places = arange(&count.times(&length)?)?;
        let places = view(&places, &[(&count).into(), (&length).into()])?;
        let beside = arange(&width)?.f_sub(&margin.tensor())?;
        let key_places = places.f_slice(1, 0, 1, 1)?.f_add(&beside)?;
        let last = tokens.affine(1, -1)?.tensor();
        let in_row = |places: &Tensor| places.f_clamp_min(0)?.f_min_other(&last);
        let key_in_row = in_row(&key_places)?;
        let first_of_row = arange(&inputs.batch)?.f_mul(&tokens.tensor())?;
        let first_of_row = first_of_row.f_unsqueeze(1)?.f_unsqueeze(2)?;
        let queries = in_row(&places)?.f_add(&first_of_row)?;
        let keys = key_in_row.f_add(&first_of_row)?;

        let by_key = bias.shallow_clone();
        let outside = key_places.f_ne_tensor(&key_in_row)?;
        let bias =
            embedding(&reshape(bias, &[(-1).into(), 1.into()])?, &keys)?.f_squeeze_dim(-1)?;
        let hidden = f64::from(f32::MIN);
        let bias = bias.f_masked_fill(&outside, hidden)?;
        let bias = view(&bias, &[(-1).into(), 1.into(), 1.into(), (&width).into()])?;
        // All blocks have the same distances.
        let distances = places.f_select(0, 0)?.f_unsqueeze(1)?.f_sub(&beside)?.f_abs()?;
        let bias = bias.f_masked_fill(&distances.f_gt(reach)?, hidden)?;
        let queries = view(&queries, &[(-1).into(), (&length).into()])?;
        let keys = view(&keys, &[(-1).into(), (&width).into()])?;
        Ok(Self { length, width, queries, keys, bias, by_key, reach })
    }

    /// Bias of the scores of the first token, float32 `[batch, 1, 1, tokens]`.
    fn first_bias(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        window_bias(&self.by_key, &arange(&inputs.tokens)?, self.reach)
    }

    /// Computes attention. Query, key and value are `[batch, heads, tokens, head_size]`. Returns `[batch, tokens, hidden]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn attend(
        &self,
        [query, key, value]: [&Tensor; 3],
        heads: Heads,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let hidden = heads.width().into();
        // [batch * blocks, heads, length or width, head_size]
        let in_blocks = |states: &Tensor, index: &Tensor, length: &Size| {
            let rows = reshape(&states.f_transpose(1, 2)?, &[(-1).into(), hidden])?;
            let rows = embedding(&rows, index)?;
            let shape = [(-1).into(), length.into(), heads.count.into(), heads.size.into()];
            Ok::<_, TorchError>(view(&rows, &shape)?.f_transpose(1, 2)?)
        };
        let query = in_blocks(query, &self.queries, &self.length)?;
        let key = in_blocks(key, &self.keys, &self.width)?;
        let value = in_blocks(value, &self.keys, &self.width)?;
        let context = attend([&query, &key, &value], &self.bias, heads.scale(), inputs)?;
        // The last block can be longer than its row.
        let batch = (&inputs.batch).into();
        let context = reshape(&context.f_transpose(1, 2)?, &[batch, (-1).into(), hidden])?;
        slice(&context, 1, &inputs.tokens)
    }
}
