//! Numbers of single texts behind the figures of an agreement, for plots.

/// How much two versions of a model agree on single texts.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementSamples {
    /// What [`each`](Self::each) measures, such as `cosine similarity`.
    pub figure: &'static str,
    /// The figure of each text or token.
    pub each: Vec<f64>,
    /// What [`points`](Self::points) are, such as `similarity of two texts`.
    pub number: &'static str,
    /// Numbers of the original model, and of the other one.
    pub points: Vec<[f64; 2]>,
}

/// Maximum number of points.
#[cfg(feature = "torch")]
const MOST: usize = 2000;

/// At most 2,000 of some points, evenly distributed.
#[cfg(feature = "torch")]
pub(crate) fn some_points(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    points.iter().step_by(points.len().div_ceil(MOST).max(1)).copied().collect()
}
