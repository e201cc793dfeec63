//! Agreement of two sets of embeddings of the same texts, by the order of their similarities.

use super::agreement::{Figure, dot, spearman};

/// Number of nearest texts that are compared.
const NEAREST: usize = 10;

/// Name of the figure of the nearest texts.
pub const OVERLAP: &str = "top_10_overlap";

/// Least number of texts whose similarities have an order.
pub const LEAST_TEXTS: usize = 3;

/// Maximum number of texts that are compared with each other, which is quadratic work.
const MOST: usize = 500;

/// Rank correlation and overlap of the nearest texts for two embeddings of each text. `None` for fewer than three texts.
///
/// The rank correlation is Spearman's, over the cosine similarities of all pairs of texts. The overlap is the share of the ten nearest
/// texts of a text that both embeddings have in common, on average over all texts; with at most ten texts, half of them are compared.
#[must_use]
pub fn figures(embeddings: &[[Vec<f64>; 2]]) -> Option<[Figure; 2]> {
    let embeddings = embeddings.get(..MOST).unwrap_or(embeddings);
    if embeddings.len() < LEAST_TEXTS {
        return None;
    }
    let is_finite = embeddings.iter().flatten().flatten().all(|number| number.is_finite());
    let (ones, others): (Vec<_>, Vec<_>) =
        embeddings.iter().map(|[one, other]| (normalized(one), normalized(other))).unzip();
    let count = NEAREST.min(embeddings.len() / 2);
    let (mut pairs, mut other_pairs, mut overlap) = (Vec::new(), Vec::new(), 0);
    for (at, (one, other)) in ones.iter().zip(&others).enumerate() {
        let (one, other) = (similarities(&ones, one), similarities(&others, other));
        let (near, other_near) = (nearest(&one, at, count), nearest(&other, at, count));
        overlap += near.iter().filter(|text| other_near.contains(text)).count();
        pairs.extend(one.into_iter().skip(at + 1));
        other_pairs.extend(other.into_iter().skip(at + 1));
    }
    let correlation = if is_finite { spearman(&pairs, &other_pairs) } else { f64::NAN };
    Some([
        Figure { name: "rank_correlation", value: correlation },
        Figure { name: OVERLAP, value: overlap as f64 / (count * embeddings.len()) as f64 },
    ])
}

/// The cosine similarity of each pair of texts, by both embeddings of each text.
#[must_use]
pub fn similarities_of_pairs(embeddings: &[[Vec<f64>; 2]]) -> Vec<[f64; 2]> {
    let embeddings = embeddings.get(..MOST).unwrap_or(embeddings);
    let all: Vec<_> =
        embeddings.iter().map(|both| both.each_ref().map(|it| normalized(it))).collect();
    let mut pairs = Vec::new();
    for (at, [a, b]) in all.iter().enumerate() {
        pairs.extend(all.iter().skip(at + 1).map(|[c, d]| [dot(a, c), dot(b, d)]));
    }
    pairs
}

/// A vector of length 1, or zeros.
fn normalized(vector: &[f64]) -> Vec<f64> {
    let length = dot(vector, vector).sqrt();
    let factor = if length == 0. { 0. } else { length.recip() };
    vector.iter().map(|number| number * factor).collect()
}

/// Similarities of a text with all texts.
fn similarities(all: &[Vec<f64>], text: &[f64]) -> Vec<f64> {
    all.iter().map(|other| dot(other, text)).collect()
}

/// The `count` texts with the largest similarities, without the text `at` itself.
fn nearest(similarities: &[f64], at: usize, count: usize) -> Vec<usize> {
    let mut others: Vec<_> =
        similarities.iter().enumerate().filter(|(other, _)| *other != at).collect();
    others.sort_by(|a, b| b.1.total_cmp(a.1));
    others.into_iter().take(count).map(|(other, _)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn angles(degrees: &[f64]) -> Vec<Vec<f64>> {
        degrees.iter().map(|it| vec![it.to_radians().cos(), it.to_radians().sin()]).collect()
    }

    fn of(one: &[f64], other: &[f64]) -> Option<[f64; 2]> {
        let both: Vec<_> =
            angles(one).into_iter().zip(angles(other)).map(|(a, b)| [a, b]).collect();
        Some(figures(&both)?.map(|figure| (figure.value * 1e6).round() / 1e6))
    }

    #[test]
    fn neighbours_agree_if_the_order_of_similarities_is_the_same() {
        assert_eq!(of(&[0., 10., 30., 70.], &[0., 20., 60., 140.]), Some([1., 1.]));
        assert_eq!(of(&[0., 10.], &[0., 10.]), None);
    }

    #[test]
    fn each_pair_of_texts_has_a_similarity_by_both_embeddings() {
        let both: Vec<_> = angles(&[0., 60., 90.])
            .into_iter()
            .zip(angles(&[0., 0., 90.]))
            .map(|(a, b)| [a, b])
            .collect();
        let rounded = similarities_of_pairs(&both)
            .into_iter()
            .map(|pair| pair.map(|it| (it * 1e3).round() / 1e3));
        assert_eq!(rounded.collect::<Vec<_>>(), [[0.5, 1.], [0., 0.], [0.866, 0.]]);
    }

    #[test]
    fn moved_texts_change_neighbours() {
        // Similarities by distance: 10, 30, 70, 20, 60, 40 against 10, 30, 25, 20, 15, 5. The two nearest texts of each of the four
        // texts differ once for all but the last.
        let [correlation, overlap] = of(&[0., 10., 30., 70.], &[0., 10., 30., 25.]).unwrap();
        assert_eq!((correlation, overlap), (0.2, 0.625));
    }

    #[test]
    fn embedding_that_is_not_finite_has_no_correlation() {
        let both = [
            [vec![1., 0.], vec![1., 0.]],
            [vec![1., 1.], vec![1., 1.]],
            [vec![0., 1.], vec![f64::NAN, 1.]],
        ];
        assert!(figures(&both).unwrap()[0].value.is_nan());
    }
}
