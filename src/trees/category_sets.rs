//! Sets of categories that nodes test for membership.

use std::collections::HashMap;

/// Codes of one feature's categories.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CategorySet {
    /// Index of the feature.
    pub feature: u32,
    /// The codes in ascending order, without duplicates.
    pub codes: Vec<u32>,
}

impl CategorySet {
    /// Whether the set holds the category of a value. Negative values are in no set; fractions are cut off.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        let code = value.trunc();
        // Casts of numbers outside the range of u32 saturate; the comparison excludes them.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let found = self.codes.binary_search(&(code as u32)).is_ok();
        found && (0.0..=f64::from(u32::MAX)).contains(&value)
    }
}

/// Collects category sets and gives equal sets the same index.
#[derive(Debug, Default)]
pub(crate) struct CategorySets {
    indices: HashMap<CategorySet, u32>,
    sets: Vec<CategorySet>,
}

impl CategorySets {
    /// The index of a set.
    pub fn index(&mut self, feature: u32, mut codes: Vec<u32>) -> u32 {
        codes.sort_unstable();
        codes.dedup();
        let set = CategorySet { feature, codes };
        if let Some(&index) = self.indices.get(&set) {
            return index;
        }
        // There are at most as many sets as nodes.
        #[allow(clippy::cast_possible_truncation)]
        let index = self.sets.len() as u32;
        self.sets.push(set.clone());
        self.indices.insert(set, index);
        index
    }

    /// All sets, by index.
    pub fn into_sets(self) -> Vec<CategorySet> {
        self.sets
    }
}
