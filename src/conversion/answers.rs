//! Compares the answers of a model where Elasticsearch passes other ids than the model's own tokenizer.

use tch::{Kind, Tensor};

use super::{Conversion, ConversionError, TokenEffect};
use crate::inference_results::softmax;
use crate::models::{EntityLabels, Inputs, RowForm};
use crate::special_tokens::SpecialTokens;
use crate::tasks::Task;
use crate::torchscript::{OneThread, TorchError};

/// Maximum number of tokens in an answer, as in the server.
const LONGEST_ANSWER: usize = 15;

/// The answer of a model for one row, in the form of the task's result.
#[derive(Debug, PartialEq)]
enum Answer {
    /// An embedding.
    Vector(Vec<f64>),
    /// What the model chose (a label, a word, labels of tokens, the tokens of a span), and probabilities.
    Choice(Vec<i64>, Vec<f64>),
    /// A score.
    Score(f64),
}

impl Conversion {
    /// Runs the model on rows of Elasticsearch and on the rows of the model's own tokenizer, and compares the answers. Rows that have no answer,
    /// such as rows without a mask for the task that predicts the masked word, do not count.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn token_effect(
        &self,
        rows: &[(Vec<u32>, Vec<u32>)],
    ) -> Result<TokenEffect, ConversionError> {
        let _one = OneThread::begin();
        let mut effect = TokenEffect::default();
        let mut cosines = Vec::new();
        let mut same = 0;
        let mut chooses = false;
        for (server, own) in rows {
            let (server, own) = (signed(server), signed(own));
            let served = self.forward(&self.inputs(&[&server])?)?;
            let served = self.answer(&served, &server)?;
            let expected = self.answer(&self.forward_own(&own)?, &own)?;
            let (Some(served), Some(expected)) = (served, expected) else { continue };
            effect.texts += 1;
            let difference = match (&served, &expected) {
                (Answer::Vector(a), Answer::Vector(b)) => {
                    cosines.push(cosine(a, b));
                    largest_difference(a, b)
                }
                (Answer::Choice(a, a_probabilities), Answer::Choice(b, b_probabilities)) => {
                    chooses = true;
                    same += usize::from(a == b);
                    largest_difference(a_probabilities, b_probabilities)
                }
                (Answer::Score(a), Answer::Score(b)) => (a - b).abs(),
                _ => f64::NAN,
            };
            effect.largest_difference = effect.largest_difference.max(difference);
        }
        effect.same_answer = chooses.then_some(same);
        if !cosines.is_empty() {
            effect.cosine_min = Some(cosines.iter().copied().fold(f64::INFINITY, f64::min));
            effect.cosine_mean = Some(cosines.iter().sum::<f64>() / cosines.len() as f64);
        }
        Ok(effect)
    }

    /// The output for a row of the model's own tokenizer.
    fn forward_own(&self, ids: &[i64]) -> Result<Tensor, TorchError> {
        let network = &self.network;
        let special = SpecialTokens { appended: None, ..network.special };
        let form = match network.form {
            // The rows have the model's own layout.
            RowForm::Single | RowForm::WithoutFirst | RowForm::Composed { .. } => RowForm::Single,
            RowForm::Pair { typed, .. } => RowForm::Pair { drops_separator: false, typed },
        };
        tch::no_grad(|| {
            let tensors = self.inputs(&[ids])?;
            let inputs = Inputs::of_server(&tensors, special, &form, network.attention)?
                .of_at_most(self.limit.tokens.into());
            network.output.forward(&network.model.forward(&inputs)?, &inputs)
        })
    }

    fn answer(&self, output: &Tensor, ids: &[i64]) -> Result<Option<Answer>, TorchError> {
        Ok(match self.task {
            Task::TextEmbedding | Task::TextExpansion => Some(Answer::Vector(numbers(output)?)),
            Task::PassThrough if output.dim() == 3 => {
                let mean = output.f_mean_dim([1i64].as_slice(), false, None::<Kind>)?;
                Some(Answer::Vector(numbers(&mean)?))
            }
            Task::PassThrough => Some(Answer::Vector(numbers(output)?)),
            Task::TextSimilarity => numbers(output)?.first().copied().map(Answer::Score),
            Task::TextClassification | Task::ZeroShotClassification => {
                let probabilities = softmax(&numbers(output)?);
                Some(Answer::Choice(vec![best(&probabilities)], probabilities))
            }
            Task::FillMask => {
                let mask = self.tokenizer.vocabulary.id(self.tokenizer.mask_token());
                let mask = mask.and_then(|id| i64::try_from(id).ok());
                let Some(place) = ids.iter().position(|id| Some(*id) == mask) else {
                    return Ok(None);
                };
                let row = output.f_select(1, i64::try_from(place).unwrap_or_default())?;
                let probabilities = softmax(&numbers(&row)?);
                Some(Answer::Choice(vec![best(&probabilities)], probabilities))
            }
            Task::Ner => {
                let labels = self.network.entities.as_ref();
                let outside = labels.and_then(EntityLabels::outside).unwrap_or(-1);
                let labels = output.f_argmax(-1, false)?.f_flatten(0, -1)?;
                let mut labels = Vec::<i64>::try_from(&labels)?;
                labels.retain(|label| *label != outside);
                labels.dedup();
                Some(Answer::Choice(labels, Vec::new()))
            }
            Task::QuestionAnswering => self.span(&numbers(output)?, ids),
        })
    }

    /// The most probable span of the second text: its ids and its probability.
    fn span(&self, logits: &[f64], ids: &[i64]) -> Option<Answer> {
        let separator = self.tokenizer.special.separator;
        let first = ids.iter().position(|id| *id == separator)?;
        let begin = first + ids.get(first..)?.iter().position(|id| *id != separator)?;
        let end = ids.len().checked_sub(1)?;
        let (starts, ends) = logits.split_at_checked(ids.len())?;
        let weigh = |logits: &[f64]| {
            let text = logits.get(begin..end).unwrap_or_default();
            softmax(&logits.iter().take(1).chain(text).copied().collect::<Vec<_>>())
        };
        let (starts, ends) = (weigh(starts), weigh(ends));
        let length = end.checked_sub(begin)?;
        let spans = (1..=length)
            .flat_map(|s| (s..=length.min(s + LONGEST_ANSWER - 1)).map(move |e| (s, e)));
        let scored = spans.map(|(s, e)| (s, e, starts[s] * ends[e]));
        let (s, e, score) = scored.max_by(|a, b| a.2.total_cmp(&b.2))?;
        let span = ids.get(begin + s - 1..begin + e)?;
        let span: Vec<u32> = span.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let span = match self.tokenizer.special.appended {
            Some(appended) => appended.model_ids(&span),
            None => span,
        };
        Some(Answer::Choice(span.into_iter().map(i64::from).collect(), vec![score]))
    }
}

fn signed(ids: &[u32]) -> Vec<i64> {
    ids.iter().copied().map(i64::from).collect()
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>, TorchError> {
    Ok(Vec::<f64>::try_from(&tensor.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?)
}

fn best(values: &[f64]) -> i64 {
    let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.and_then(|(index, _)| i64::try_from(index).ok()).unwrap_or(-1)
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0. { dot(a, b) / lengths } else { f64::from(u8::from(a == b)) }
}
