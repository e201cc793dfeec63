//! Rows in the model's layout, composed from rows in Elasticsearch's.

use tch::{Kind, Tensor};

use super::RowForm;
use crate::special_tokens::SpecialTokens;
use crate::tokenizer::{Piece, RowLayout};
use crate::torchscript::{Size, TorchError, arange};

/// Rows in the model's layout, composed from rows in Elasticsearch's.
#[derive(Debug)]
pub(super) struct ComposedRows {
    pub(super) input_ids: Tensor,
    pub(super) attention_mask: Tensor,
    pub(super) types: Tensor,
    /// Position of each of Elasticsearch's tokens in the composed row, int64 `[batch, tokens]`.
    pub(super) places: Tensor,
    /// 1 where a token of Elasticsearch's row is in the composed row, int64 `[batch, tokens]`.
    pub(super) kept: Tensor,
}

/// 1 where `places` are in `start..end`, otherwise 0, int64 `[batch, places]`.
fn within(places: &Tensor, start: &Tensor, end: &Tensor) -> Result<Tensor, TorchError> {
    let not_before = places.f_ge_tensor(start)?.f_to_kind(Kind::Int64)?;
    Ok(not_before.f_mul(&places.f_lt_tensor(end)?.f_to_kind(Kind::Int64)?)?)
}

impl ComposedRows {
    /// Composes the rows of `server`, int64 `[batch, tokens]`. `between` is the number of separators that Elasticsearch inserts between two texts.
    pub(super) fn compose(
        server: &Tensor,
        special: SpecialTokens,
        form: &RowForm,
        layout: &RowLayout,
        between: Option<i64>,
    ) -> Result<Self, TorchError> {
        let sum = |of: &Tensor| of.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
        let tokens = Size::of(server, 1)?;
        let all = sum(&server.f_ne(special.padding)?.f_to_kind(Kind::Int64)?)?;
        // Numbers of tokens of both texts, int64 [batch, 1].
        let (first, second) = match between {
            None => (all.f_sub_scalar(2)?.f_clamp_min(0)?, all.f_mul_scalar(0)?),
            Some(between) => {
                // The position of the first separator is the number of tokens before it.
                let separators = server.f_eq(special.separator)?.f_to_kind(Kind::Int64)?;
                let ahead = separators.f_cumsum(1, Kind::Int64)?.f_eq(0)?.f_to_kind(Kind::Int64)?;
                let first = sum(&ahead)?.f_sub_scalar(1)?.f_clamp_min(0)?;
                let second = all.f_sub(&first)?.f_sub_scalar(2 + between)?.f_clamp_min(0)?;
                (first, second)
            }
        };
        let places = arange(&tokens.affine(1, form.added_tokens())?)?.f_unsqueeze(0)?;
        let from = arange(&tokens)?.f_unsqueeze(0)?;
        let zeros = places.f_mul(&all.f_mul_scalar(0)?)?;
        let (mut source, mut written, mut types) =
            (zeros.shallow_clone(), zeros.shallow_clone(), zeros.shallow_clone());
        let (mut text, mut mask) = (zeros.shallow_clone(), zeros);
        let mut server_places = from.f_mul(&all.f_mul_scalar(0)?)?;
        let mut kept = server_places.shallow_clone();
        let mut start = all.f_mul_scalar(0)?;
        for (piece, kind) in &layout.pieces {
            let length = match piece {
                Piece::First => first.shallow_clone(),
                Piece::Second => second.shallow_clone(),
                Piece::Token(_) => first.f_mul_scalar(0)?.f_add_scalar(1)?,
            };
            let end = start.f_add(&length)?;
            let inside = within(&places, &start, &end)?;
            // Where the piece begins in Elasticsearch's row.
            let begin = match piece {
                Piece::First => Some(first.f_mul_scalar(0)?.f_add_scalar(1)?),
                Piece::Second => Some(first.f_add_scalar(1 + between.unwrap_or(0))?),
                Piece::Token(_) => None,
            };
            match (piece, begin) {
                (Piece::Token(id), _) => written = written.f_add(&inside.f_mul_scalar(*id)?)?,
                (_, Some(begin)) => {
                    let shift = begin.f_sub(&start)?;
                    source = source.f_add(&places.f_add(&shift)?.f_mul(&inside)?)?;
                    text = text.f_add(&inside)?;
                    let moved = within(&from, &begin, &begin.f_add(&length)?)?;
                    let target = from.f_sub(&shift)?.f_mul(&moved)?;
                    server_places = server_places.f_add(&target)?;
                    kept = kept.f_add(&moved)?;
                }
                _ => (),
            }
            types = types.f_add(&inside.f_mul_scalar(*kind)?)?;
            mask = mask.f_add(&inside)?;
            start = end;
        }
        if let Some((Piece::Token(_), _)) = layout.pieces.first() {
            // Both rows start with a token, on which the answer "none" stands.
            kept = kept.f_add(&from.f_eq(0)?.f_to_kind(Kind::Int64)?)?;
        }
        let padding = mask.f_rsub_scalar(1)?.f_mul_scalar(special.padding)?;
        let texts = server.f_gather(1, &source, false)?.f_mul(&text)?;
        Ok(Self {
            input_ids: texts.f_add(&written)?.f_add(&padding)?,
            attention_mask: mask,
            types,
            places: server_places,
            kept,
        })
    }
}
