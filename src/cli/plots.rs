//! Plots of a page, as SVG.

use super::page::{Page, text};
use crate::tasks::AgreementSamples;

/// Width and height of a plot, without the space for labels.
const SIZE: [f64; 2] = [520., 220.];

/// Bars of a histogram.
const BINS: usize = 40;

impl Page {
    /// How much two versions of a model agree: their numbers against each other, and how often the figures of single texts occur.
    pub(super) fn agreement(&mut self, samples: &AgreementSamples, [one, other]: [&str; 2]) {
        if !samples.points.is_empty() {
            self.paragraph(&format!(
                "Each point is a {}. On the line, the numbers of both models are equal.",
                samples.number
            ));
            self.scatter([one, other], &samples.points);
        }
        if samples.each.len() > 1 {
            self.paragraph(&format!("Agreement on single texts: {}.", samples.figure));
            self.histogram(samples.figure, &samples.each);
        }
    }

    /// How often numbers occur. Numbers that are not finite are not shown.
    pub(super) fn histogram(&mut self, axis: &str, values: &[f64]) {
        let Some([from, to]) = range(values.iter().copied()) else { return };
        let mut counts = [0usize; BINS];
        for value in values.iter().filter(|it| it.is_finite()) {
            let bin = ((value - from) / (to - from) * BINS as f64) as usize;
            counts[bin.min(BINS - 1)] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        self.plot(axis, &format!("number of values (largest bar: {most})"), [from, to], None);
        let wide = SIZE[0] / BINS as f64;
        for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let high = SIZE[1] * *count as f64 / most as f64;
            let (x, y) = (at as f64 * wide, SIZE[1] - high);
            self.add(format_args!(
                "<rect class=\"data\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{high:.1}\"><title>{count}</title></rect>\n",
                wide - 1.
            ));
        }
        self.body += "</g></svg>\n";
    }

    /// Numbers against numbers, with the line on which both are equal. Points that are not finite are not shown.
    pub(super) fn scatter(&mut self, [x_axis, y_axis]: [&str; 2], points: &[[f64; 2]]) {
        let Some(range) = range(points.iter().flatten().copied()) else { return };
        self.plot(x_axis, y_axis, range, Some(range));
        let [width, height] = SIZE;
        self.add(format_args!("<path class=\"axis\" d=\"M0 {height}L{width} 0\"/>\n"));
        let share = |value: f64| (value - range[0]) / (range[1] - range[0]);
        for [x, y] in points.iter().filter(|it| it.iter().all(|value| value.is_finite())) {
            let (x, y) = (width * share(*x), height * (1. - share(*y)));
            self.add(format_args!(
                "<circle class=\"data\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>\n"
            ));
        }
        self.body += "</g></svg>\n";
    }

    /// Begins a plot: its frame, and the ends of its axes.
    fn plot(&mut self, x_axis: &str, y_axis: &str, x: [f64; 2], y: Option<[f64; 2]>) {
        let ([width, height], [left, top]) = (SIZE, [70., 24.]);
        let number = |value: f64| format!("{value:.5}");
        self.add(format_args!(
            "<svg role=\"img\" viewBox=\"0 0 {} {}\" width=\"{}\"><g transform=\"translate({left} {top})\">\n\
             <rect class=\"axis\" width=\"{width}\" height=\"{height}\"/>\n\
             <text x=\"0\" y=\"-8\">{}</text><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"0\" y=\"{}\">{}</text><text x=\"{width}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
            width + 90.,
            height + 74.,
            width + 90.,
            text(y_axis),
            width / 2.,
            height + 36.,
            text(x_axis),
            height + 18.,
            number(x[0]),
            height + 18.,
            number(x[1])
        ));
        for (value, at) in y.map(|[low, high]| [(low, height), (high, 12.)]).into_iter().flatten() {
            let value = number(value);
            self.add(format_args!(
                "<text x=\"-6\" y=\"{at}\" text-anchor=\"end\">{value}</text>\n"
            ));
        }
    }
}

/// The smallest and the largest finite number. Equal numbers get a small range around them.
fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return None;
    }
    let margin = if low == high { low.abs().max(1.) * 1e-3 } else { 0. };
    Some([low - margin, high + margin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_axes_are_escaped() {
        let mut page = Page::new("t");
        page.histogram("<a>", &[1., f64::NAN]);
        page.scatter(["<a>"; 2], &[[0., 1.]]);
        assert_eq!(page.body.matches("&lt;a&gt;").count(), 3);
        assert!(!page.body.contains("<a>"));
    }

    #[test]
    fn plots_without_finite_numbers_are_left_out() {
        let mut page = Page::new("t");
        let before = page.body.clone();
        page.histogram("x", &[f64::NAN, f64::INFINITY]);
        page.scatter(["x", "y"], &[[f64::NAN; 2]]);
        assert_eq!(page.body, before);
    }

    #[test]
    fn histogram_counts_each_finite_number_once() {
        let mut page = Page::new("t");
        page.histogram("x", &[0.5, 0.5, 1., f64::NAN]);
        assert!(page.body.contains("<title>2</title>") && page.body.contains("<title>1</title>"));
        assert!(page.body.contains(">0.50000</text>") && page.body.contains(">1.00000</text>"));
    }
}
