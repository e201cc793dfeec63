//! Identities of a stored model, which are in its metadata.
//!
//! There are four keys. None of them can be computed from a stored model, because Elasticsearch returns neither the vocabulary nor
//! the exact bytes of the configuration:
//!
//! - `import_id`, random: which import created the model. Two imports of one bundle differ only here.
//! - `definition_sha256`: the definition. [`OnConflict::Skip`](super::OnConflict::Skip) compares it.
//! - `bundle_sha256`: definition, vocabulary and configuration. [`OnConflict::Update`](super::OnConflict::Update) compares it.
//! - `recipe_sha256`: the fingerprint of the input, which is known before the bundle is made.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::journal::{Journal, JournalHeader};
use super::trained_models::{BUNDLE_SHA256, FINGERPRINT, IMPORT_ID, StoredModel};
use crate::hexadecimal::hexadecimal;

/// Whether the import of a journal created a model.
pub(super) fn is_of(model: &StoredModel, journal: &Journal) -> bool {
    model.import_id.as_ref() == Some(&journal.header.import_id)
}

/// Adds the identities of an import to the metadata of a configuration.
pub(super) fn add_identities(
    configuration: &mut Map<String, Value>,
    header: &JournalHeader,
    fingerprint: Option<&str>,
) {
    let metadata = configuration.entry("metadata").or_insert_with(|| Map::new().into());
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(IMPORT_ID.to_owned(), header.import_id.as_str().into());
        metadata.insert(BUNDLE_SHA256.to_owned(), header.bundle_sha256().into());
        if let Some(fingerprint) = fingerprint {
            metadata.insert(FINGERPRINT.to_owned(), fingerprint.into());
        }
    }
}

/// SHA-256 of vocabulary and configuration. The metadata contains measurements, which differ between imports of the same model, so
/// it is excluded.
pub(super) fn companions_sha256(vocabulary: &[u8], configuration: &Map<String, Value>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in configuration.iter().filter(|(name, _)| *name != "metadata") {
        hash.update(format!("{name}:{value}\n"));
    }
    hash.update(vocabulary);
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The identity that version 0.1.0 stored for a bundle. A change would count every model of that version as out of date.
    #[test]
    fn bundle_sha256_is_that_of_0_1_0() {
        let configuration = json!({"model_type": "pytorch", "metadata": {"measured": 1}});
        let companions_sha256 =
            companions_sha256(br#"{"vocabulary":["a"]}"#, configuration.as_object().unwrap());
        let header = JournalHeader {
            model_id: "m".into(),
            cluster: "c".into(),
            import_id: "i".into(),
            definition_sha256: "d".into(),
            companions_sha256,
            length: 1,
            part_size: 1,
        };
        assert_eq!(
            header.bundle_sha256(),
            "83aa3a1913cdec5021e76570db9052e81c4b9057bfa3b596fbe9db7ad53e2b9e"
        );
        let mut stored = configuration.as_object().unwrap().clone();
        add_identities(&mut stored, &header, Some("f"));
        let expected = json!({"measured": 1, "import_id": "i", "bundle_sha256": header.bundle_sha256(), "recipe_sha256": "f"});
        assert_eq!(stored["metadata"], expected);
    }
}
