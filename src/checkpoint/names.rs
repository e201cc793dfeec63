//! Old spellings of parameter names.

use std::collections::BTreeMap;

/// The name that Transformers gives a parameter today. Checkpoints converted from TensorFlow call LayerNorm's weight gamma and its
/// bias beta.
pub(super) fn canonical(name: &str) -> String {
    if let Some(stem) = name.strip_suffix(".gamma") {
        format!("{stem}.weight")
    } else if let Some(stem) = name.strip_suffix(".beta") {
        format!("{stem}.bias")
    } else {
        name.to_owned()
    }
}

/// Begins every name where the whole file was saved from within a wrapper: data-parallel training, or sentence-transformers.
const WRAPPERS: [&str; 2] = ["module.", "0.auto_model."];

/// Takes wrappers' prefixes off the names where all of them have them.
pub(super) fn unwrap<T>(mut tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    // Each wrapper within the other; a hostile name may have thousands.
    const NESTED: usize = 4;
    for _ in 0..NESTED {
        let common = |wrapper: &&&str| tensors.keys().all(|name| name.starts_with(**wrapper));
        let Some(wrapper) = WRAPPERS.iter().find(common).filter(|_| !tensors.is_empty()) else {
            break;
        };
        tensors =
            tensors.into_iter().map(|(name, t)| (name[wrapper.len()..].to_owned(), t)).collect();
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_go_where_all_have_them() {
        let unwrapped = |names: &[&str]| {
            let tensors = names.iter().map(|name| ((*name).to_owned(), ())).collect();
            unwrap(tensors).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(unwrapped(&["module.a", "module.module.b"]), ["a", "module.b"]);
        assert_eq!(unwrapped(&["module.0.auto_model.a"]), ["a"]);
        assert_eq!(unwrapped(&["module.a", "b"]), ["b", "module.a"]);
        assert!(unwrapped(&["module."]) == [""] && unwrapped(&[]).is_empty());
    }
}
