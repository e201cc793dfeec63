//! Removes tokens from rows, and returns what the model computes to the places of Elasticsearch's tokens.

use tch::{Kind, Tensor};

use crate::special_tokens::AppendedTokens;
use crate::torchscript::{Size, TorchError, arange};

/// The logit of a label that never counts: the probability is 0 in float32 beside 0.
const NEVER: f64 = -10_000.;

/// Where tokens of each row are removed. The tokens after them move up, and padding fills the end.
#[derive(Debug)]
pub(super) struct Compaction {
    appended: AppendedTokens,
    /// Whether a token is an appended one, bool `[batch, tokens]`.
    is_appended: Tensor,
    /// Whether a token is removed, bool `[batch, tokens]`.
    is_removed: Tensor,
    /// The place of each token after the removal, int64 `[batch, tokens]`; for a removed token that of the token before.
    places: Tensor,
    /// The token at each place after the removal, int64 `[batch, tokens]`.
    sources: Tensor,
    /// The places after the last token, bool `[batch, tokens]`.
    is_empty: Tensor,
}

impl Compaction {
    /// Finds the tokens to remove from `ids`, int64 `[batch, tokens]`: all appended bytes of a run but the first, or all white space.
    pub(super) fn find(ids: &Tensor, appended: AppendedTokens) -> Result<Self, TorchError> {
        let is_appended = ids.f_ge(appended.first())?;
        let is_removed = match appended {
            AppendedTokens::Bytes { .. } => is_appended.f_mul(&before(&is_appended)?)?,
            AppendedTokens::Blanks { .. } => is_appended.shallow_clone(),
        };
        // The number of tokens that stay, up to and including each.
        let count = is_removed.f_eq(0)?.f_cumsum(1, Kind::Int64)?;
        let numbers = arange(&Size::of(ids, 1)?)?;
        // The token at a place is the first that counts more tokens. At places after the last token: the last one.
        let earlier = count.f_slice(1, 0, -1, 1)?.f_unsqueeze(1)?;
        let earlier = earlier.f_le_tensor(&numbers.f_unsqueeze(-1)?)?;
        let sources = earlier.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)?;
        let total = count.f_slice(1, -1, i64::MAX, 1)?;
        let is_empty = numbers.f_unsqueeze(0)?.f_ge_tensor(&total)?;
        let places = count.f_sub_scalar(1)?.f_clamp_min(0)?;
        Ok(Self { appended, is_appended, is_removed, places, sources, is_empty })
    }

    /// `ids` without the removed tokens and with unknown tokens instead of bytes, int64 `[batch, tokens]`.
    pub(super) fn ids(&self, ids: &Tensor, padding: i64) -> Result<Tensor, TorchError> {
        let ids = match self.appended {
            AppendedTokens::Bytes { unknown, .. } => {
                ids.f_masked_fill(&self.is_appended, unknown)?
            }
            AppendedTokens::Blanks { .. } => ids.shallow_clone(),
        };
        self.compact(&ids, padding)
    }

    /// A tensor of the rows, int64 `[batch, tokens]`, without the removed tokens and with `filling` after the last one.
    pub(super) fn compact(&self, rows: &Tensor, filling: i64) -> Result<Tensor, TorchError> {
        Ok(rows.f_gather(1, &self.sources, false)?.f_masked_fill(&self.is_empty, filling)?)
    }

    /// `[batch, tokens, width]` at the places before the removal. A removed token gets the values of the token before.
    pub(super) fn expand(&self, values: &Tensor) -> Result<Tensor, TorchError> {
        at_places(values, &self.places)
    }

    /// Logits of the start and the end of an answer, `[2, batch, tokens]`, with `filling` where the model has no token. An answer that
    /// begins with a run of bytes begins at the first of them, and an answer that ends with a run ends at the last.
    pub(super) fn hide_removed(&self, logits: &Tensor, filling: f64) -> Result<Tensor, TorchError> {
        let no_end = match self.appended {
            AppendedTokens::Bytes { .. } => self.is_appended.f_mul(&after(&self.is_appended)?)?,
            AppendedTokens::Blanks { .. } => self.is_removed.shallow_clone(),
        };
        let hidden = Tensor::f_stack(&[&self.is_removed, &no_end], 0)?;
        Ok(logits.f_masked_fill(&hidden, filling)?)
    }

    /// Logits of labels, `[batch, tokens, labels]`, where removed tokens begin no entity. The bytes of a run continue the entity of the
    /// first one, because Elasticsearch fails on entities that overlap; white space is outside of entities.
    pub(super) fn label_removed(
        &self,
        logits: &Tensor,
        labels: &EntityLabels,
    ) -> Result<Tensor, TorchError> {
        let removed = self.is_removed.f_unsqueeze(-1)?;
        let labelled = match (self.appended, &labels.blank) {
            (AppendedTokens::Bytes { .. }, _) => {
                let sources = labels.sources.f_expand_as(logits)?;
                let moved = logits.f_gather(-1, &sources, false)?;
                logits.f_max_other(&moved)?.f_masked_fill(&labels.begins, NEVER)?
            }
            (AppendedTokens::Blanks { .. }, Some(blank)) => blank.shallow_clone(),
            (AppendedTokens::Blanks { .. }, None) => return Ok(logits.shallow_clone()),
        };
        Ok(labelled.f_where_self(&removed, logits)?)
    }
}

/// The labels of entities. The tensors exist before the graph is traced, so that they become constants.
#[derive(Debug)]
pub struct EntityLabels {
    /// The label of tokens outside of entities.
    outside: Option<i64>,
    /// The logits of a token outside of entities, float32 `[labels]`.
    blank: Option<Tensor>,
    /// For each label, whether an entity begins with the label and another label continues the entity; bool `[labels]`.
    begins: Tensor,
    /// For each label, the label that begins the entity which the label continues, otherwise the label itself; int64 `[1, 1, labels]`.
    sources: Tensor,
}

impl EntityLabels {
    /// Reads names such as `B-PER`, `I_PER` and `O`, in the order of the logits.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn of(names: &[String]) -> Result<Self, TorchError> {
        let class = |name: &str, letter: char| {
            let mut rest = name.chars();
            let first = rest.next()?;
            let class = rest.as_str().to_uppercase();
            (first.eq_ignore_ascii_case(&letter) && class.starts_with(['-', '_'])).then_some(class)
        };
        let find = |letter: char, wanted: &str| {
            names.iter().position(|name| class(name, letter).as_deref() == Some(wanted))
        };
        let index = |label: usize| i64::try_from(label).unwrap_or_default();
        let outside = names.iter().position(|name| name.eq_ignore_ascii_case("O"));
        let begins =
            names.iter().map(|name| class(name, 'B').is_some_and(|it| find('I', &it).is_some()));
        let begins: Vec<bool> = begins.collect();
        let sources = names.iter().enumerate().map(|(label, name)| {
            index(class(name, 'I').and_then(|it| find('B', &it)).unwrap_or(label))
        });
        let sources: Vec<i64> = sources.collect();
        let blank = outside.map(|outside| {
            let mut logits = vec![NEVER as f32; names.len()];
            logits[outside] = 0.;
            Tensor::f_from_slice(&logits)
        });
        Ok(Self {
            outside: outside.map(index),
            blank: blank.transpose()?,
            begins: Tensor::f_from_slice(&begins)?,
            sources: Tensor::f_from_slice(&sources)?.f_view([1, 1, -1])?,
        })
    }

    /// The label of tokens outside of entities.
    #[must_use]
    pub fn outside(&self) -> Option<i64> {
        self.outside
    }
}

/// The values `[batch, tokens, width]` at `places`, int64 `[batch, places]`.
pub(super) fn at_places(values: &Tensor, places: &Tensor) -> Result<Tensor, TorchError> {
    let width = values.size().last().copied().unwrap_or_default();
    let index = places.f_unsqueeze(-1)?.f_expand([-1, -1, width], false)?;
    Ok(values.f_gather(1, &index, false)?)
}

/// The value of the token before each token, false for the first; bool `[batch, tokens]`.
fn before(values: &Tensor) -> Result<Tensor, TorchError> {
    let first = values.f_slice(1, 0, 1, 1)?;
    Ok(Tensor::f_cat(&[first.f_ne_tensor(&first)?, values.f_slice(1, 0, -1, 1)?], 1)?)
}

/// The value of the token after each token, false for the last; bool `[batch, tokens]`.
fn after(values: &Tensor) -> Result<Tensor, TorchError> {
    let last = values.f_slice(1, -1, i64::MAX, 1)?;
    Ok(Tensor::f_cat(&[values.f_slice(1, 1, i64::MAX, 1)?, last.f_ne_tensor(&last)?], 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: AppendedTokens = AppendedTokens::Bytes { first: 10, unknown: 3 };
    const BLANKS: AppendedTokens = AppendedTokens::Blanks { first: 10 };

    /// A row with two runs of appended tokens, a row without any, and a padded row; 0 is the padding.
    fn rows() -> Tensor {
        Tensor::from_slice2(&[
            [1i64, 10, 11, 12, 7, 13, 2],
            [1, 5, 6, 7, 8, 9, 2],
            [1, 11, 5, 2, 0, 0, 0],
        ])
    }

    #[test]
    fn compacted_rows_equal_the_rows_of_the_model() {
        for (appended, shape) in [(BYTES, [[5, 7, 4]]), (BLANKS, [[3, 7, 3]])] {
            let ids = Compaction::find(&rows(), appended).unwrap().ids(&rows(), 0).unwrap();
            for (row, length) in shape.into_iter().flatten().enumerate() {
                let read = |tensor: &Tensor| Vec::<i64>::try_from(tensor.get(row as i64)).unwrap();
                let server: Vec<u32> = read(&rows()).into_iter().map(|id| id as u32).collect();
                let mut expected: Vec<i64> =
                    appended.model_ids(&server).into_iter().map(i64::from).collect();
                assert_eq!(expected.iter().filter(|id| **id != 0).count(), length);
                expected.resize(7, 0);
                assert_eq!(read(&ids), expected);
            }
        }
    }

    #[test]
    fn values_return_to_the_places_of_the_server() {
        let values = Tensor::arange(7, (Kind::Float, tch::Device::Cpu)).view([1, 7, 1]);
        let values = values.expand([3, 7, 2], false);
        let expanded =
            Compaction::find(&rows(), BYTES).unwrap().expand(&values).unwrap().select(2, 1);
        let expected = Tensor::from_slice2(&[
            [0f32, 1., 1., 1., 2., 3., 4.],
            [0., 1., 2., 3., 4., 5., 6.],
            [0., 1., 2., 3., 4., 5., 6.],
        ]);
        assert_eq!(expanded, expected);
    }

    #[test]
    fn answer_begins_at_the_first_byte_and_ends_at_the_last() {
        let logits = Tensor::ones([2, 3, 7], (Kind::Float, tch::Device::Cpu));
        let hidden = Compaction::find(&rows(), BYTES).unwrap().hide_removed(&logits, 0.).unwrap();
        let row = |side: i64| Vec::<f32>::try_from(hidden.get(side).get(0)).unwrap();
        assert_eq!(row(0), [1., 1., 0., 0., 1., 1., 1.]);
        assert_eq!(row(1), [1., 0., 0., 1., 1., 1., 1.]);
    }

    fn labels() -> EntityLabels {
        EntityLabels::of(&["O", "B-PER", "I-PER", "B-LOC"].map(str::to_owned)).unwrap()
    }

    #[test]
    fn bytes_continue_the_entity_of_the_first_byte() {
        let labels = labels();
        assert_eq!(labels.sources, Tensor::from_slice(&[0i64, 1, 1, 3]).view([1, 1, 4]));
        // A label without a label that continues the entity stays.
        assert_eq!(labels.begins, Tensor::from_slice(&[false, true, false, false]));
        let logits = Tensor::from_slice(&[0f32, 5., 1., 2.]).expand([3, 7, 4], false);
        let labelled =
            Compaction::find(&rows(), BYTES).unwrap().label_removed(&logits, &labels).unwrap();
        let label = |token: i64| Vec::<f32>::try_from(labelled.get(0).get(token)).unwrap();
        assert_eq!(label(1), [0., 5., 1., 2.]);
        assert_eq!(label(2), [0., NEVER as f32, 5., 2.]);
    }

    #[test]
    fn blanks_are_outside_of_entities() {
        let logits = Tensor::ones([3, 7, 4], (Kind::Float, tch::Device::Cpu));
        let found = Compaction::find(&rows(), BLANKS).unwrap();
        let labelled = found.label_removed(&logits, &labels()).unwrap();
        let label = |token: i64| Vec::<f32>::try_from(labelled.get(0).get(token)).unwrap();
        let never = NEVER as f32;
        assert_eq!((label(1), label(4)), (vec![0., never, never, never], vec![1.; 4]));
    }
}
