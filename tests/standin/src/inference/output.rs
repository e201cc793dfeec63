//! The output of a graph, and how a release evaluates one.

use crate::version::Version;

/// How the native process of one release evaluates requests.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(torch), expect(dead_code, reason = "read by the inference only"))]
pub(crate) struct Evaluation {
    /// All rows in one call, or one call for each.
    pub(crate) batched: bool,
    pub(crate) version: Version,
}

/// An output: `values` in row-major order over three axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) sizes: [usize; 3],
    pub(super) values: Vec<f64>,
}

impl Output {
    #[cfg(test)]
    pub(crate) fn new(sizes: [usize; 3], values: &[f64]) -> Self {
        assert_eq!(sizes.iter().product::<usize>(), values.len());
        Self { sizes, values: values.to_vec() }
    }

    /// The innermost rows of the outermost entry `index`; none if there is no such entry.
    pub(crate) fn rows(&self, index: usize) -> Vec<&[f64]> {
        let [outer, rows, width] = self.sizes;
        if index >= outer {
            return Vec::new();
        }
        let start = index * rows * width;
        (0..rows).map(|row| &self.values[start + row * width..start + (row + 1) * width]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_entry() {
        let output = Output::new([2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(output.rows(1), [&[3.0, 4.0][..]]);
        assert!(output.rows(2).is_empty());
    }
}
