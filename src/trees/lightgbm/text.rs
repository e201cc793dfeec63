//! The text that `save_model` writes: blocks of `key=value` lines, one block for each tree.

use std::collections::HashMap;

use super::{Header, MissingType, assemble, in_tree, linear, malformed, numeric};
use crate::trees::TreeError;
use crate::trees::ensemble::{CategorySets, Ensemble, MAX_FEATURES, Node, Side, Test};

/// `key=value` lines up to an empty line.
#[derive(Default)]
struct Block<'a>(HashMap<&'a str, &'a str>);

impl<'a> Block<'a> {
    fn read(lines: &mut impl Iterator<Item = &'a str>) -> Self {
        let mut entries = HashMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            entries.insert(key, value);
        }
        Self(entries)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    fn number(&self, key: &str) -> Result<usize, TreeError> {
        let text = self.text(key).ok_or_else(|| malformed(format!("{key} is missing")))?;
        text.parse().map_err(|_| malformed(format!("{key} is {text:?}, not a number")))
    }

    /// `count` numbers separated by spaces.
    fn numbers<T: std::str::FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, TreeError> {
        let text = self.text(key).unwrap_or_default();
        let numbers = text.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>();
        let numbers = numbers
            .map_err(|_| malformed(format!("{key} holds something that is not a number")))?;
        if numbers.len() != count {
            return Err(malformed(format!("{key} has {} items instead of {count}", numbers.len())));
        }
        Ok(numbers)
    }
}

/// Reads the text of `save_model`.
///
/// # Errors
/// When the text is malformed, or the model is one that Elasticsearch cannot serve.
pub fn read_text(text: &str) -> Result<Ensemble, TreeError> {
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some("tree") {
        return Err(malformed("the first line is not \"tree\""));
    }
    let head = Block::read(&mut lines);
    let features = head
        .number("max_feature_idx")?
        .checked_add(1)
        .filter(|&count| count <= MAX_FEATURES)
        .ok_or_else(|| TreeError::Limit("too many features".to_owned()))?;
    let infos: Vec<_> = head.text("feature_infos").unwrap_or_default().split(' ').collect();
    let mut header = Header {
        version: head.text("version").unwrap_or_default().to_owned(),
        trees_per_iteration: head.number("num_tree_per_iteration")?,
        classes: head.number("num_class").ok(),
        features,
        names: head
            .text("feature_names")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
        categorical: infos.iter().map(|info| is_categorical(info)).collect(),
        objective: head.text("objective").map(str::to_owned),
        average: head.text("average_output").is_some(),
        pandas_categorical: None,
    };
    let mut sets = CategorySets::default();
    let mut trees = Vec::new();
    loop {
        // Blocks are separated by one or two empty lines.
        let Some(line) = lines.by_ref().find(|line| !line.is_empty()) else {
            return Err(malformed("the line \"end of trees\" is missing; the file is incomplete"));
        };
        if line == "end of trees" {
            break;
        }
        let index = trees.len();
        if line.strip_prefix("Tree=") != Some(&index.to_string()) {
            return Err(malformed(format!("expected tree {index} instead of {:?}", shown(line))));
        }
        let block = Block::read(&mut lines);
        let nodes = tree_of(&block, &mut sets).map_err(|error| in_tree(index, error))?;
        trees.push(nodes);
    }
    if let Some(sizes) = head.text("tree_sizes") {
        let count = sizes.split_ascii_whitespace().count();
        if count != trees.len() {
            let trees = trees.len();
            return Err(malformed(format!("tree_sizes lists {count} trees, but {trees} follow")));
        }
    }
    for line in lines {
        if let Some(list) = line.strip_prefix("pandas_categorical:") {
            header.pandas_categorical = serde_json::from_str(list)
                .map_err(|error| malformed(format!("pandas_categorical: {error}")))?;
        }
    }
    assemble(header, trees, sets, "text")
}

/// The start of a line of the file, for messages.
fn shown(line: &str) -> String {
    line.chars().take(40).collect()
}

/// Whether an item of `feature_infos` lists categories: `none`, `[low:high]` or numbers separated by colons.
fn is_categorical(info: &str) -> bool {
    info != "none" && !info.is_empty() && !info.starts_with('[')
}

fn tree_of(block: &Block<'_>, sets: &mut CategorySets) -> Result<Vec<Node>, TreeError> {
    if block.text("is_linear").is_some_and(|flag| flag != "0") {
        return Err(linear());
    }
    let leaves = block.number("num_leaves")?;
    let values: Vec<f64> = block.numbers("leaf_value", leaves)?;
    if leaves == 0 {
        return Err(malformed("num_leaves is 0"));
    }
    let inner = leaves - 1;
    let counts = |key: &str, count| match block.text(key) {
        // Trees with one leaf have no counts.
        None | Some("") => Ok(vec![0; count]),
        Some(_) => block.numbers::<u64>(key, count),
    };
    let leaf_counts = counts("leaf_count", leaves)?;
    let inner_counts = counts("internal_count", inner)?;
    let features: Vec<u32> = block.numbers("split_feature", inner)?;
    let thresholds: Vec<f64> = block.numbers("threshold", inner)?;
    let decisions: Vec<u8> = block.numbers("decision_type", inner)?;
    let left: Vec<i64> = block.numbers("left_child", inner)?;
    let right: Vec<i64> = block.numbers("right_child", inner)?;
    let (bounds, words) = match block.text("num_cat") {
        None | Some("0" | "") => (Vec::new(), Vec::new()),
        Some(_) => {
            let bounds: Vec<usize> =
                block.numbers("cat_boundaries", block.number("num_cat")?.saturating_add(1))?;
            let words: Vec<u32> =
                block.numbers("cat_threshold", bounds.last().copied().unwrap_or(0))?;
            (bounds, words)
        }
    };
    // A negative child is a leaf.
    let child = |link: i64| {
        let index = if link >= 0 {
            Some(link)
        } else {
            i64::try_from(inner).ok().and_then(|inner| inner.checked_add(!link))
        };
        index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or_else(|| malformed(format!("there is no child {link}")))
    };
    let mut nodes = Vec::with_capacity(inner + leaves);
    for index in 0..inner {
        let missing = match decisions[index] >> 2 & 3 {
            0 => MissingType::None,
            1 => MissingType::Zero,
            2 => MissingType::Nan,
            other => return Err(malformed(format!("node {index} has the missing type {other}"))),
        };
        let (test, missing) = if decisions[index] & 1 == 1 {
            // The index of the set; casts of other numbers saturate and are out of bounds.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let category = thresholds[index] as usize;
            let range = bounds.get(category).zip(bounds.get(category.saturating_add(1)));
            let words = range.and_then(|(&start, &end)| words.get(start..end));
            let words =
                words.ok_or_else(|| malformed(format!("node {index} has no categories")))?;
            (Test::In(sets.index(features[index], codes(words)?)), Side::Right)
        } else {
            numeric(thresholds[index], decisions[index] & 2 == 2, missing)
        };
        nodes.push(Node::Split {
            feature: features[index],
            test,
            missing,
            left: child(left[index])?,
            right: child(right[index])?,
            samples: inner_counts[index],
        });
    }
    nodes.extend(
        values.into_iter().zip(leaf_counts).map(|(value, samples)| Node::Leaf { value, samples }),
    );
    Ok(nodes)
}

/// The numbers of the bits that are set.
fn codes(words: &[u32]) -> Result<Vec<u32>, TreeError> {
    let mut codes = Vec::new();
    for (word, bits) in (0_u32..).zip(words) {
        let first = word.checked_mul(32).ok_or_else(|| malformed("a category is too large"))?;
        codes.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
    }
    Ok(codes)
}
