//! Agreement of the outputs of two versions of a model, such as the quantized and the float one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;

use tch::{Kind, Tensor};

use super::AgreementSamples;
use super::agreement_samples::some_points;
use crate::inference_results::softmax;
use crate::torchscript::TorchError;

/// One row of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The ids, special tokens included.
    pub ids: Vec<i64>,
    /// Positions of the tokens of the text, or of the second text of a pair.
    pub text: Range<usize>,
}

/// Outputs of two versions of a model for one row.
#[derive(Debug)]
pub struct Sample {
    /// Input row.
    pub row: Row,
    /// Reference output for this row alone.
    pub reference: Tensor,
    /// Output of the other version.
    pub output: Tensor,
}

/// A figure of a report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Name of the figure, such as `cosine_mean`.
    pub name: &'static str,
    /// Value of the figure.
    pub value: f64,
}

/// Two numbers per sample or token. The outputs themselves are too large to keep.
pub type Pair = [f64; 2];

/// Comparison of the outputs of a task.
pub struct Measure {
    compare: fn(&Sample) -> Result<Vec<Pair>, TorchError>,
    summarize: fn(&[Pair]) -> [Figure; 2],
    /// What the numbers of one sample mean, and the numbers.
    each: (&'static str, fn(&Pair) -> f64),
}

impl Measure {
    /// Returns the numbers of one sample.
    ///
    /// # Errors
    /// Errors of libtorch, or an output without the shape of the task.
    pub fn compare(&self, sample: &Sample) -> Result<Vec<Pair>, TorchError> {
        (self.compare)(sample)
    }

    /// Returns the figures of all samples. The first one is the overall agreement, with 1 as the best value.
    #[must_use]
    pub fn summarize(&self, all: &[Pair]) -> [Figure; 2] {
        (self.summarize)(all)
    }

    /// The figure of each sample, with points for a plot that are named by `number`.
    #[must_use]
    pub fn samples(
        &self,
        all: &[Pair],
        number: &'static str,
        points: &[[f64; 2]],
    ) -> AgreementSamples {
        let (figure, each) = self.each;
        let each = all.iter().map(each).collect();
        AgreementSamples { figure, each, number, points: some_points(points) }
    }
}

/// The figure of a sample whose second number is the largest change of a probability.
const PROBABILITY: (&str, fn(&Pair) -> f64) =
    ("largest change of a probability", |[_, moved]| *moved);

/// Compares vectors, one per text or per token, by cosine similarity.
pub(super) static COSINES: Measure = Measure {
    compare: |sample| {
        let pairs = rows(sample, 0..sample.row.ids.len())?;
        Ok(pairs.iter().map(|(a, b)| [cosine(a, b), 0.]).collect())
    },
    summarize: |all| [mean("cosine_mean", all), least("cosine_min", all)],
    each: ("cosine similarity", |[cosine, _]| *cosine),
};

/// Compares logits `[1, classes]` by the class of the text.
pub(super) static LABEL: Measure = Measure {
    compare: |sample| Ok(rows(sample, 0..1)?.iter().map(classes).collect()),
    summarize: |all| [mean("label_agreement", all), greatest("largest_probability_change", all)],
    each: PROBABILITY,
};

/// Compares logits `[1, tokens, classes]` by the class of each token of the text.
pub(super) static LABELS: Measure = Measure {
    compare: |sample| Ok(rows(sample, sample.row.text.clone())?.iter().map(classes).collect()),
    summarize: LABEL.summarize,
    each: PROBABILITY,
};

/// Compares logits `[1, tokens, vocabulary]` by the best token for the mask, which is the whole text of the row.
pub(super) static FILLING: Measure = Measure {
    compare: LABELS.compare,
    summarize: |all| [mean("top_1_agreement", all), greatest("largest_probability_change", all)],
    each: PROBABILITY,
};

/// Compares scores `[1, 1]` by the order of the pairs: Spearman's rank correlation.
pub(super) static RANKING: Measure = Measure {
    compare: |sample| {
        let first = |row: &[f64]| row.first().copied().unwrap_or(f64::NAN);
        Ok(rows(sample, 0..1)?.iter().map(|(a, b)| [first(a), first(b)]).collect())
    },
    summarize: |all| {
        let (a, b): (Vec<_>, Vec<_>) = all.iter().map(|[a, b]| (*a, *b)).unzip();
        let correlation = spearman(&a, &b);
        let moved: Vec<Pair> = all.iter().map(|[a, b]| [0., (a - b).abs()]).collect();
        [
            Figure { name: "rank_correlation", value: correlation },
            greatest("largest_score_change", &moved),
        ]
    },
    each: ("change of the score", |[one, other]| (one - other).abs()),
};

/// Compares weights `[1, vocabulary]`, in which 0 means absent, by the overlap of the heaviest tokens.
pub(super) static HEAVIEST: Measure = Measure {
    compare: |sample| {
        Ok(rows(sample, 0..1)?.iter().map(|(a, b)| [overlap(a, b, 100), 0.]).collect())
    },
    summarize: |all| [mean("top_100_overlap_mean", all), least("top_100_overlap_min", all)],
    each: ("share of the 100 heaviest tokens in common", |[overlap, _]| *overlap),
};

/// Compares start and end logits `[2, 1, tokens]` by the best answer in the text.
pub(super) static ANSWER: Measure = Measure {
    compare: |sample| answer(sample).map(|pair| vec![pair]),
    summarize: |all| [mean("answer_agreement", all), greatest("largest_probability_change", all)],
    each: PROBABILITY,
};

/// A row of the reference output and the same row of the other output.
type Rows = (Vec<f64>, Vec<f64>);

/// The reference and the other output of a text as vectors, one per text.
///
/// # Errors
/// Errors of libtorch.
pub fn vectors(sample: &Sample) -> Result<Option<[Vec<f64>; 2]>, TorchError> {
    Ok(rows(sample, 0..1)?.pop().map(|(a, b)| [a, b]))
}

/// At most `most` numbers of both outputs, evenly distributed.
///
/// # Errors
/// Errors of libtorch.
pub fn some_numbers(sample: &Sample, most: usize) -> Result<Vec<[f64; 2]>, TorchError> {
    let count = sample.reference.numel().min(sample.output.numel());
    let places = (0..count).step_by(count.div_ceil(most.max(1)).max(1));
    let places: Vec<i64> = places.filter_map(|place| i64::try_from(place).ok()).collect();
    let places = Tensor::from_slice(&places);
    let numbers = |tensor: &Tensor| -> Result<Vec<f64>, TorchError> {
        let flat = tensor.f_contiguous()?.f_view([-1])?;
        Ok(Vec::try_from(&flat.f_index_select(0, &places)?.f_to_kind(Kind::Double)?)?)
    };
    let (one, other) = (numbers(&sample.reference)?, numbers(&sample.output)?);
    Ok(one.into_iter().zip(other).map(|(one, other)| [one, other]).collect())
}

/// The rows `of` both outputs. The last axis contains the compared values.
fn rows(sample: &Sample, of: Range<usize>) -> Result<Vec<Rows>, TorchError> {
    let rows = |tensor: &Tensor| -> Result<Vec<Vec<f64>>, TorchError> {
        let width = tensor.size().last().copied().unwrap_or_default().max(1);
        let rows = tensor.f_contiguous()?.f_view([-1, width])?;
        let index = |i: usize| i64::try_from(i).unwrap_or(i64::MAX);
        let (start, end) = (index(of.start), index(of.end));
        let chosen = rows.f_slice(0, start, end, 1)?.f_to_kind(Kind::Double)?.f_reshape([-1])?;
        let numbers = Vec::<f64>::try_from(&chosen)?;
        Ok(numbers.chunks(usize::try_from(width).unwrap_or(1)).map(<[f64]>::to_vec).collect())
    };
    Ok(rows(&sample.reference)?.into_iter().zip(rows(&sample.output)?).collect())
}

/// Mean of the first numbers; 1 without numbers.
fn mean(name: &'static str, all: &[Pair]) -> Figure {
    let sum: f64 = all.iter().map(|pair| pair[0]).sum();
    Figure { name, value: if all.is_empty() { 1. } else { sum / all.len() as f64 } }
}

/// Minimum of the first numbers.
fn least(name: &'static str, all: &[Pair]) -> Figure {
    let value = all.iter().fold(1., |a: f64, [b, _]| if *b < a || b.is_nan() { *b } else { a });
    Figure { name, value }
}

/// Maximum of the second numbers.
fn greatest(name: &'static str, all: &[Pair]) -> Figure {
    let value = all.iter().fold(0., |a: f64, [_, b]| if *b > a || b.is_nan() { *b } else { a });
    Figure { name, value }
}

/// Index of the largest value; the first one if several are equal.
fn argmax(values: &[f64]) -> usize {
    let better = |best: (usize, f64), (i, &value): (usize, &f64)| {
        if value > best.1 { (i, value) } else { best }
    };
    values.iter().enumerate().fold((0, f64::NEG_INFINITY), better).0
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cosine similarity. For vectors of length 0 it is 1 if they are equal.
pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0. { f64::from(u8::from(a == b)) } else { dot(a, b) / lengths }
}

/// Whether logits have the same largest class, and the largest change of a probability.
fn classes((a, b): &(Vec<f64>, Vec<f64>)) -> Pair {
    let same = f64::from(u8::from(argmax(a) == argmax(b)));
    let (a, b) = (softmax(a), softmax(b));
    let moved: Vec<Pair> = a.iter().zip(&b).map(|(a, b)| [0., (a - b).abs()]).collect();
    [same, greatest("", &moved).value]
}

/// Rank of each value; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let at = |i: &usize| values.get(*i).copied().unwrap_or(f64::NAN);
    order.sort_by(|a, b| at(a).total_cmp(&at(b)));
    let mut ranks = vec![0.; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| at(a).partial_cmp(&at(b)) == Some(Ordering::Equal)) {
        for &i in equal {
            if let Some(rank) = ranks.get_mut(i) {
                *rank = before as f64 + (equal.len() - 1) as f64 / 2.;
            }
        }
        before += equal.len();
    }
    ranks
}

/// Spearman's rank correlation.
pub(super) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    correlation(&ranks(a), &ranks(b))
}

/// Pearson correlation.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        values.iter().map(|value| value - mean).collect()
    };
    cosine(&centred(a), &centred(b))
}

/// Overlap of the heaviest `most` weights of two lists, as a share of the longer selection.
fn overlap(a: &[f64], b: &[f64], most: usize) -> f64 {
    let heaviest = |weights: &[f64]| -> BTreeSet<usize> {
        let mut all: Vec<_> =
            weights.iter().enumerate().filter(|(_, weight)| **weight > 0.).collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        all.into_iter().take(most).map(|(id, _)| id).collect()
    };
    let (a, b) = (heaviest(a), heaviest(b));
    match a.len().max(b.len()) {
        0 => 1.,
        longer => a.intersection(&b).count() as f64 / longer as f64,
    }
}

/// Whether the best answer is the same span of the text, and the change of probability of the reference's answer.
fn answer(sample: &Sample) -> Result<Pair, TorchError> {
    /// The server's `max_answer_length`.
    const LONGEST: usize = 15;
    let length = sample.row.text.len();
    // Start and end of both versions. As in the server, the softmax covers the tokens of the text and the first token.
    let weigh = |logits: &[f64]| {
        let first = logits.first().copied().unwrap_or(f64::NEG_INFINITY);
        let text = logits.get(sample.row.text.clone()).unwrap_or_default();
        softmax(&std::iter::once(first).chain(text.iter().copied()).collect::<Vec<_>>())
    };
    let weighed: Vec<_> = rows(sample, 0..2)?.iter().map(|(a, b)| (weigh(a), weigh(b))).collect();
    let [(start, other_start), (end, other_end)] = weighed.as_slice() else {
        return Err(TorchError::Native("the output is not of start and end".into()));
    };
    let score = |start: &[f64], end: &[f64], (s, e): (usize, usize)| {
        start.get(s).copied().unwrap_or_default() * end.get(e).copied().unwrap_or_default()
    };
    let spans: Vec<_> =
        (1..=length).flat_map(|s| (s..=length.min(s + LONGEST - 1)).map(move |e| (s, e))).collect();
    let best = |start: &[f64], end: &[f64]| {
        let scores: Vec<f64> = spans.iter().map(|&span| score(start, end, span)).collect();
        spans.get(argmax(&scores)).copied().unwrap_or_default()
    };
    let chosen = best(start, end);
    let same = f64::from(u8::from(chosen == best(other_start, other_end)));
    let moved = score(start, end, chosen) - score(other_start, other_end, chosen);
    Ok([same, moved.abs()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(reference: Tensor, output: Tensor) -> Sample {
        let row = Row { ids: vec![0; 4], text: 1..3 };
        Sample { row, reference, output }
    }

    /// Figures with six decimals.
    fn of(measure: &Measure, samples: &[Sample]) -> [f64; 2] {
        let pairs: Vec<Pair> = samples.iter().flat_map(|s| measure.compare(s).unwrap()).collect();
        measure.summarize(&pairs).map(|figure| (figure.value * 1e6).round() / 1e6)
    }

    fn both(a: &[f64], b: &[f64]) -> Sample {
        sample(Tensor::from_slice(a).unsqueeze(0), Tensor::from_slice(b).unsqueeze(0))
    }

    #[test]
    fn vector_agreement_is_the_cosine() {
        let same = || both(&[3., 4.], &[6., 8.]);
        assert_eq!(of(&COSINES, &[same(), both(&[3., 4.], &[4., -3.])]), [0.5, 0.]);
        assert_eq!(of(&COSINES, &[same(), same()]), [1., 1.]);
        assert_eq!(of(&COSINES, &[both(&[0., 0.], &[0., 0.])]), [1., 1.]);
        assert_eq!(of(&COSINES, &[both(&[0., 0.], &[0., 1.])]), [0., 0.]);
        assert!(of(&COSINES, &[same(), both(&[1.], &[f64::NAN])]).iter().all(|f| f.is_nan()));
        // One row per token.
        let tokens = |last: f64| Tensor::from_slice2(&[[1., 0.], [1., 0.], [1., 0.], [last, 1.]]);
        assert_eq!(of(&COSINES, &[sample(tokens(0.), tokens(1e9))]), [0.75, 0.]);
    }

    #[test]
    fn samples_hold_the_figure_of_each_text_and_some_numbers() {
        let sample = both(&[0., 1., 2., 3.], &[0., 1., 2., 5.]);
        assert_eq!(some_numbers(&sample, 2).unwrap(), [[0., 0.], [2., 2.]]);
        assert_eq!(some_numbers(&sample, 9).unwrap().len(), 4);
        let points = vec![[0., 1.]; 4001];
        let samples = RANKING.samples(&[[1., 3.], [2., 2.]], "score", &points);
        assert_eq!((samples.figure, samples.each), ("change of the score", vec![2., 0.]));
        assert_eq!((samples.number, samples.points.len()), ("score", 1334));
        assert_eq!(COSINES.samples(&[[0.5, 0.]], "", &[]).each, [0.5]);
        assert_eq!(LABEL.samples(&[[1., 0.25]], "", &[]).each, [0.25]);
    }

    #[test]
    fn class_agreement_compares_the_best_class() {
        let samples = [both(&[0., 1.], &[0., 1.]), both(&[0., 0.], &[0., 3f64.ln()])];
        assert_eq!(of(&LABEL, &samples), [0.5, 0.25]);
        // With one row per token, only tokens of the text count.
        let tokens = |last: f64| {
            Tensor::from_slice2(&[[9., 0.], [0., 1.], [0., 1.], [last, 0.]]).unsqueeze(0)
        };
        assert_eq!(of(&LABELS, &[sample(tokens(1.), tokens(-9.))]), [1., 0.]);
        assert_eq!(FILLING.summarize(&[])[0], Figure { name: "top_1_agreement", value: 1. });
    }

    #[test]
    fn score_agreement_is_the_rank_correlation() {
        let order = |a: &[f64], b: &[f64]| {
            let samples: Vec<_> = a.iter().zip(b).map(|(a, b)| both(&[*a], &[*b])).collect();
            of(&RANKING, &samples)
        };
        assert_eq!(order(&[1., 2., 3.], &[10., 11., 13.]), [1., 10.]);
        assert_eq!(order(&[1., 2., 3.], &[3., 2., 1.])[0], -1.);
        assert_eq!(order(&[1., 2., 2., 3.], &[1., 2., 3., 4.])[0], 0.948683);
        assert_eq!(order(&[1., 1.], &[2., 2.])[0], 1.);
        assert_eq!(order(&[1., 1.], &[2., 3.])[0], 0.);
    }

    #[test]
    fn weight_agreement_compares_the_heaviest_tokens() {
        assert_eq!(overlap(&[3., 2., 1., 0.], &[3., 1., 2., 0.], 2), 0.5);
        assert_eq!(overlap(&[0.; 4], &[0.; 4], 2), 1.);
        assert_eq!(overlap(&[1., 0., 0., 0.], &[1., 1., 0., 0.], 2), 0.5);
        let samples = [both(&[1., 0.], &[1., 0.]), both(&[1., 0.], &[0., 1.])];
        assert_eq!(of(&HEAVIEST, &samples), [0.5, 0.]);
    }

    #[test]
    fn answer_agreement_compares_the_spans() {
        let logits =
            |start: [f64; 4], end: [f64; 4]| Tensor::from_slice2(&[start, end]).unsqueeze(1);
        let same = sample(
            logits([0., 9., 0., 99.], [0., 0., 9., 0.]),
            logits([0., 9., 0., -9.], [0., 0., 9., 0.]),
        );
        // An end before the start is not an answer.
        let other = sample(
            logits([0., 0., 9., 0.], [0., 9., 8., 0.]),
            logits([0., 9., 0., 0.], [0., 9., 8., 0.]),
        );
        assert_eq!(of(&ANSWER, &[same]), [1., 0.]);
        assert_eq!(of(&ANSWER, &[other])[0], 0.);
    }
}
