//! Older parameter names, both general ones and those of an architecture.

use std::collections::BTreeMap;

/// Parameter names in the files of an architecture that differ from the current names in Transformers.
#[derive(Debug)]
pub struct Spellings {
    /// Prefix of the base model, or nested prefixes. Files of the base model alone do not have the prefix.
    pub base: &'static [&'static str],
    /// Names of the same tensor, the current name first.
    pub same: &'static [&'static [&'static str]],
    /// Segments of names of tensors for other purposes. Such tensors are not reported if they are unused.
    pub leftover: &'static [&'static str],
}

impl Spellings {
    /// Other names of a tensor.
    pub fn others(&self, name: &str) -> Vec<String> {
        let of = |group: &&[&str]| {
            let (today, others) = group.split_first()?;
            let before = name.strip_suffix(today)?;
            (before.is_empty() || before.ends_with('.'))
                .then(|| others.iter().map(|other| format!("{before}{other}")).collect())
        };
        self.same.iter().find_map(of).unwrap_or_default()
    }

    /// Whether an unused tensor is not reported.
    pub fn is_leftover(&self, name: &str) -> bool {
        /// Constants of the embeddings that old versions saved with the parameters, in every architecture.
        const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];
        let name = format!(".{name}.");
        let mut known = self.leftover.iter().chain(&BUFFERS);
        known.any(|part| name.contains(&format!(".{part}.")))
    }
}

/// Suffixes of names and their current names in Transformers. Checkpoints converted from TensorFlow name LayerNorm's weight gamma and its
/// bias beta. The parts of weight normalization have other names since PyTorch 2.0.
const ENDS: [(&str, &str); 4] = [
    ("gamma", "weight"),
    ("beta", "bias"),
    ("parametrizations.weight.original0", LENGTH),
    ("parametrizations.weight.original1", DIRECTION),
];

/// Magnitude g and direction v of weight normalization (Salimans and Kingma 2016, arXiv:1602.07868).
pub const LENGTH: &str = "weight_g";
/// Direction v of weight normalization.
pub const DIRECTION: &str = "weight_v";

/// Current name of a parameter in Transformers.
pub(super) fn canonical(name: &str) -> String {
    let today = ENDS.iter().find_map(|(old, new)| {
        let stem = name.strip_suffix(old)?;
        stem.ends_with('.').then(|| format!("{stem}{new}"))
    });
    today.unwrap_or_else(|| name.to_owned())
}

/// Prefixes of all names in files saved from a wrapper: data-parallel training, sentence-transformers, a compiled
/// model, Lightning.
const WRAPPERS: [&str; 4] = ["module.", "0.auto_model.", "_orig_mod.", "model."];

/// Removes the prefix of a wrapper if all names have it.
pub(super) fn unwrap<T>(mut tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    // Wrappers may be nested; a hostile name may have thousands.
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
    fn common_wrapper_prefix_is_removed() {
        let unwrapped = |names: &[&str]| {
            let tensors = names.iter().map(|name| ((*name).to_owned(), ())).collect();
            unwrap(tensors).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(unwrapped(&["module.a", "module.module.b"]), ["a", "module.b"]);
        assert_eq!(unwrapped(&["module.0.auto_model.a"]), ["a"]);
        assert_eq!(unwrapped(&["module.a", "b"]), ["b", "module.a"]);
        assert_eq!(unwrapped(&["model._orig_mod.a", "model._orig_mod.b.c"]), ["a", "b.c"]);
        assert!(unwrapped(&["module."]) == [""] && unwrapped(&[]).is_empty());
    }

    #[test]
    fn old_suffixes_are_renamed() {
        for (old, today) in [
            ("a.LayerNorm.gamma", "a.LayerNorm.weight"),
            ("a.LayerNorm.beta", "a.LayerNorm.bias"),
            ("a.parametrizations.weight.original0", "a.weight_g"),
            ("a.parametrizations.weight.original1", "a.weight_v"),
            ("a.weight_g", "a.weight_g"),
            ("a.alphabeta", "a.alphabeta"),
            ("gamma", "gamma"),
        ] {
            assert_eq!(canonical(old), today);
        }
    }

    #[test]
    fn name_prefixes_match_whole_segments() {
        let spellings = Spellings {
            base: &["model"],
            same: &[&["shared.weight", "encoder.embed_tokens.weight"]],
            leftover: &["pooler", "encoder.version"],
        };
        assert_eq!(spellings.others("model.shared.weight"), ["model.encoder.embed_tokens.weight"]);
        assert!(spellings.others("unshared.weight").is_empty());
        for name in
            ["pooler.dense.bias", "model.pooler.a", "encoder.version", "x.embeddings.position_ids"]
        {
            assert!(spellings.is_leftover(name), "{name}");
        }
        for name in ["poolers.a", "encoder.versions", "position_ids", "version"] {
            assert!(!spellings.is_leftover(name), "{name}");
        }
    }
}
