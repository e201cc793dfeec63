//! Operations that Elasticsearch accepts in a graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::version::Version;

/// List of Elasticsearch's native process: comments, `[allowed]`, `[forbidden]`, one operation per line.
const LIST: &str = include_str!("elasticsearch-operations.txt");

/// Listed operations that need a later libtorch than that of [`Version::OLDEST`].
const LATER: &[(&str, Version)] =
    &[("aten::scaled_dot_product_attention", Version::FUSED_ATTENTION)];

/// Highest number of nodes of a graph.
pub const MAX_NODES: usize = 1_000_000;

static LISTED: LazyLock<(BTreeSet<&str>, BTreeSet<&str>)> = LazyLock::new(|| {
    let section = |name: &str| {
        LIST.lines()
            .skip_while(|line| *line != name)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect()
    };
    (section("[allowed]"), section("[forbidden]"))
});

/// Reason why Elasticsearch would reject a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The graph contains forbidden operations.
    #[error("the graph contains forbidden operations: {}", .0.join(", "))]
    Forbidden(Vec<String>),
    /// The graph contains operations that are not on the list.
    #[error("the graph contains operations that Elasticsearch does not allow: {}", .0.join(", "))]
    Unrecognised(Vec<String>),
    /// The graph is too large.
    #[error("the graph has {0} nodes or more, but Elasticsearch accepts at most {MAX_NODES}")]
    TooManyNodes(usize),
}

/// Checks the kinds and counts of a graph's nodes as Elasticsearch (9.4.0 and later, 8.19.20 and later) does before it
/// serves a model.
///
/// # Errors
/// The first reason for a rejection.
pub fn check(kinds: &BTreeMap<String, usize>) -> Result<(), Refused> {
    let (allowed, forbidden) = &*LISTED;
    let nodes = kinds.values().sum();
    if nodes > MAX_NODES {
        return Err(Refused::TooManyNodes(nodes));
    }
    let named = |of: &dyn Fn(&str) -> bool| -> Vec<String> {
        kinds.keys().filter(|kind| of(kind)).cloned().collect()
    };
    let found = named(&|kind| forbidden.contains(kind));
    if !found.is_empty() {
        return Err(Refused::Forbidden(found));
    }
    let found = named(&|kind| !allowed.contains(kind));
    if found.is_empty() { Ok(()) } else { Err(Refused::Unrecognised(found)) }
}

/// Oldest Elasticsearch version whose libtorch has all listed operations among these.
#[must_use]
pub fn since(kinds: &BTreeMap<String, usize>) -> Version {
    let later = LATER.iter().filter(|(kind, _)| kinds.contains_key(*kind));
    later.map(|&(_, version)| version).max().unwrap_or(Version::OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(names: &[&str]) -> BTreeMap<String, usize> {
        names.iter().map(|name| ((*name).to_owned(), 1)).collect()
    }

    #[test]
    fn operation_list_is_read_completely() {
        assert_eq!((LISTED.0.len(), LISTED.1.len()), (111, 6));
    }

    #[test]
    fn unlisted_operations_are_rejected_by_name() {
        assert_eq!(check(&kinds(&["aten::linear", "prim::Constant"])), Ok(()));
        assert_eq!(
            check(&kinds(&["aten::linear", "aten::argmax", "aten::erf"])),
            Err(Refused::Unrecognised(vec!["aten::argmax".into(), "aten::erf".into()]))
        );
        assert_eq!(
            check(&kinds(&["aten::as_strided", "aten::erf"])),
            Err(Refused::Forbidden(vec!["aten::as_strided".into()]))
        );
        assert_eq!(
            check(&BTreeMap::from([("aten::add".to_owned(), MAX_NODES + 1)])),
            Err(Refused::TooManyNodes(MAX_NODES + 1))
        );
    }
}
