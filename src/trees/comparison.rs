//! The comparisons of the training libraries, expressed exactly in those of Elasticsearch.
//!
//! Elasticsearch compares doubles with `Double.compare`, which orders -0.0 before 0.0. XGBoost and the trees of scikit-learn round the
//! value to float32 first. All values that round to a float32 at or below `f` are the doubles up to the midpoint between `f` and the
//! next float32; the midpoint itself rounds to whichever of the two has an even mantissa.

use super::ensemble::{Side, Test, ZERO};

/// `value < threshold` (strict) or `value <= threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Comparison {
    /// `lt` rather than `lte`.
    pub strict: bool,
    /// A finite number. Zero is negative in a strict comparison and positive in the other.
    pub threshold: f64,
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// To a child of the original node.
    Child(Side),
    /// To another step of the same node.
    Step(usize),
}

/// One of the comparisons that replace a node's test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// The comparison.
    pub comparison: Comparison,
    /// Where values go that satisfy it.
    pub yes: Next,
    /// Where other values go.
    pub no: Next,
    /// Whether missing values go with those that satisfy it.
    pub missing_yes: bool,
}

/// The steps that replace the test of a number; the first is the entry.
pub(crate) fn steps(test: Test, missing: Side) -> Steps {
    let single = |comparison| {
        let (yes, no) = (Next::Child(Side::Left), Next::Child(Side::Right));
        Steps::one(Step { comparison, yes, no, missing_yes: missing == Side::Left })
    };
    match test {
        Test::RoundedBelow(threshold) => single(rounded_below(threshold)),
        Test::RoundedAtMost(threshold) => single(rounded_at_most(threshold)),
        Test::AtMost(threshold) => single(at_most(threshold)),
        Test::AtMostBanded(threshold) => single(at_most_banded(threshold)),
        Test::AtMostUnlessZero(threshold) => unless_zero(threshold, missing),
        // A preprocessor gives members of the set the number 1, and all other values 0.
        Test::In(_) => Steps::one(Step {
            comparison: Comparison { strict: true, threshold: 0.5 },
            yes: Next::Child(Side::Right),
            no: Next::Child(Side::Left),
            missing_yes: missing == Side::Right,
        }),
    }
}

/// At most three steps, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    steps: [Step; 3],
    count: usize,
}

impl Steps {
    fn one(step: Step) -> Self {
        Self { steps: [step; 3], count: 1 }
    }

    fn three(steps: [Step; 3]) -> Self {
        Self { steps, count: 3 }
    }

    /// The steps; the first is the entry.
    pub fn as_slice(&self) -> &[Step] {
        &self.steps[..self.count]
    }
}

/// `fl32(x) < threshold`.
fn rounded_below(threshold: f32) -> Comparison {
    if threshold == f32::NEG_INFINITY {
        return nothing();
    }
    rounded_up_to(threshold.next_down())
}

/// `fl32(x) <= threshold`.
fn rounded_at_most(threshold: f64) -> Comparison {
    if threshold == f64::INFINITY {
        return at_most(threshold);
    }
    // Values beyond the smallest float32 round to negative infinity, which is at most any threshold.
    #[allow(clippy::cast_possible_truncation)]
    let nearest = threshold as f32;
    let below = if f64::from(nearest) > threshold { nearest.next_down() } else { nearest };
    rounded_up_to(below)
}

/// `fl32(x) <= last`, for a float32 other than infinity.
fn rounded_up_to(last: f32) -> Comparison {
    let widened = |float: f32| {
        // Values beyond the largest float32 round to infinity from where the next float32 would be half a step away.
        if float.is_infinite() {
            f64::from(float.signum()) * 2_f64.powi(128)
        } else {
            f64::from(float)
        }
    };
    let threshold = widened(last).midpoint(widened(last.next_up()));
    let even = last.to_bits() & 1 == 0;
    zero_signed(Comparison { strict: !even, threshold })
}

/// `x <= threshold`.
fn at_most(threshold: f64) -> Comparison {
    if threshold == f64::INFINITY {
        Comparison { strict: false, threshold: f64::MAX }
    } else if threshold == f64::NEG_INFINITY {
        nothing()
    } else {
        zero_signed(Comparison { strict: false, threshold })
    }
}

/// `x <= threshold`, where x counts as 0 within the zero band.
fn at_most_banded(threshold: f64) -> Comparison {
    if (0.0..=ZERO).contains(&threshold) {
        at_most(ZERO)
    } else if (-ZERO..0.0).contains(&threshold) {
        Comparison { strict: true, threshold: -ZERO }
    } else {
        at_most(threshold)
    }
}

/// `x <= threshold` outside of the zero band; within the band, the side of missing values.
fn unless_zero(threshold: f64, missing: Side) -> Steps {
    let below_band = Comparison { strict: true, threshold: -ZERO };
    let up_to_band = Comparison { strict: false, threshold: ZERO };
    let (left, right) = (Next::Child(Side::Left), Next::Child(Side::Right));
    let step = |comparison, yes, no, missing_yes| Step { comparison, yes, no, missing_yes };
    if missing == Side::Left {
        if threshold < -ZERO {
            // Up to the threshold: left. Between threshold and band: right. The band: left. Above: right.
            return Steps::three([
                step(at_most(threshold), left, Next::Step(1), true),
                step(below_band, right, Next::Step(2), false),
                step(up_to_band, left, right, false),
            ]);
        }
        let comparison = if threshold < ZERO { up_to_band } else { at_most(threshold) };
        Steps::one(step(comparison, left, right, true))
    } else {
        if threshold > ZERO {
            // Below the band: left. The band: right. Between band and threshold: left. Above: right.
            return Steps::three([
                step(at_most(threshold), Next::Step(1), right, false),
                step(below_band, left, Next::Step(2), false),
                step(up_to_band, right, left, false),
            ]);
        }
        let comparison = if threshold >= -ZERO { below_band } else { at_most(threshold) };
        Steps::one(step(comparison, left, right, false))
    }
}

/// A comparison that no number satisfies.
fn nothing() -> Comparison {
    Comparison { strict: true, threshold: -f64::MAX }
}

/// The same comparison with the sign of zero that treats both zeros alike.
fn zero_signed(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison { strict, threshold: 0.0 } => {
            Comparison { strict, threshold: if strict { -0.0 } else { 0.0 } }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(comparison: Comparison, value: f64) -> bool {
        let order = value.total_cmp(&comparison.threshold);
        if comparison.strict { order.is_lt() } else { order.is_le() }
    }

    /// Values on both sides of a float32 and of its midpoints with both neighbours.
    fn edges(threshold: f32) -> Vec<f64> {
        let mut values = vec![0.0, -0.0, 1.0, -1.0, f64::from(f32::MAX), 1e-45, -1e-45, 1e-46];
        for float in [threshold.next_down(), threshold, threshold.next_up()] {
            for neighbour in [float.next_down(), float.next_up()] {
                let middle = f64::from(float).midpoint(f64::from(neighbour));
                values.extend([middle, middle.next_up(), middle.next_down(), f64::from(float)]);
            }
        }
        values.retain(|value| value.is_finite());
        values
    }

    const FLOATS: [f32; 16] = [
        0.0,
        -0.0,
        0.1,
        -0.1,
        19.99,
        1.0,
        -1.0,
        1e-45,
        -1e-45,
        3e-45,
        16_777_216.0,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-38,
        123_456.79,
    ];

    #[test]
    fn rounded_comparisons_agree_with_float32_arithmetic_at_every_edge() {
        for threshold in FLOATS {
            for value in edges(threshold) {
                #[allow(clippy::cast_possible_truncation)]
                let rounded = value as f32;
                let below = passes(rounded_below(threshold), value);
                assert_eq!(below, rounded < threshold, "{value:e} < {threshold:e}");
                for threshold in [
                    f64::from(threshold),
                    f64::from(threshold).next_down(),
                    f64::from(threshold).next_up(),
                ] {
                    let at_most = passes(rounded_at_most(threshold), value);
                    assert_eq!(
                        at_most,
                        f64::from(rounded) <= threshold,
                        "{value:e} <= {threshold:e}"
                    );
                }
            }
        }
    }

    #[test]
    fn infinite_thresholds_become_finite_comparisons() {
        assert!(passes(at_most(f64::INFINITY), f64::MAX));
        assert!(!passes(at_most(f64::NEG_INFINITY), -f64::MAX));
        assert!(passes(rounded_at_most(f64::INFINITY), f64::MAX));
        assert!(passes(rounded_at_most(f64::NEG_INFINITY), -f64::MAX));
        assert!(!passes(rounded_at_most(f64::NEG_INFINITY), f32::MIN.into()));
        assert!(passes(rounded_below(f32::INFINITY), f64::from(f32::MAX)));
        assert!(!passes(rounded_below(f32::NEG_INFINITY), -f64::MAX));
    }

    #[test]
    fn zero_band_goes_the_way_of_missing_values() {
        let thresholds = [
            -1.0,
            -2e-35,
            -ZERO,
            -1e-36,
            -0.0,
            0.0,
            1e-36,
            ZERO,
            2e-35,
            1.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        let values = [
            -2.0,
            -1.0,
            -0.5,
            -2e-35,
            -3e-35,
            -ZERO,
            (-ZERO).next_down(),
            -1e-36,
            -0.0,
            0.0,
            1e-36,
            ZERO,
            ZERO.next_up(),
            2e-35,
            3e-35,
            0.5,
            1.0,
            2.0,
        ];
        for missing in [Side::Left, Side::Right] {
            for threshold in thresholds {
                let steps = steps(Test::AtMostUnlessZero(threshold), missing);
                for value in values {
                    let mut next = Next::Step(0);
                    while let Next::Step(step) = next {
                        let step = steps.as_slice()[step];
                        next = if passes(step.comparison, value) { step.yes } else { step.no };
                    }
                    let expected = if value.abs() <= ZERO {
                        missing
                    } else {
                        Side::left_if(value <= threshold)
                    };
                    assert_eq!(
                        next,
                        Next::Child(expected),
                        "{value:e} <= {threshold:e}, {missing:?}"
                    );
                }
                let mut next = Next::Step(0);
                while let Next::Step(step) = next {
                    let step = steps.as_slice()[step];
                    next = if step.missing_yes { step.yes } else { step.no };
                }
                assert_eq!(next, Next::Child(missing), "missing at {threshold:e}");
                let banded = at_most_banded(threshold);
                for value in values {
                    let zeroed = if value.abs() <= ZERO { 0.0 } else { value };
                    assert_eq!(
                        passes(banded, value),
                        zeroed <= threshold,
                        "{value:e} <= {threshold:e}"
                    );
                }
            }
        }
    }
}
