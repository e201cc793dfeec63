//! The table of keys covers every key that the pinned libraries know.

use std::collections::BTreeMap;

use rust_eland::config::keys::is_known;
use serde_json::{Map, Value};

#[derive(serde::Deserialize)]
struct Listed {
    files: BTreeMap<String, Map<String, Value>>,
}

#[test]
fn every_key_of_the_pinned_libraries_has_a_row() {
    let listed: Listed = serde_json::from_str(include_str!("../fixtures/keys.json")).unwrap();
    let missing: Vec<_> = listed
        .files
        .iter()
        .flat_map(|(file, keys)| keys.keys().map(move |key| (file, key)))
        .filter(|(file, key)| !is_known(file, key))
        .collect();
    assert!(missing.is_empty(), "add rows to src/config/keys.tsv: {missing:?}");
    assert!(listed.files["config.json"].len() > 100 && !is_known("config.json", "new_key"));
}
