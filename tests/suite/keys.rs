//! The table of keys covers every key that the pinned libraries know.

use std::collections::BTreeMap;

use rust_eland::config::keys::{handling, is_known};
use serde_json::{Map, Value};

#[derive(serde::Deserialize)]
struct Listed {
    files: BTreeMap<String, Map<String, Value>>,
    /// Keys of `config.json` that Transformers' modeling files read, other than for dropout.
    read_in_models: Vec<String>,
}

fn listed() -> Listed {
    serde_json::from_str(include_str!("../fixtures/keys.json")).unwrap()
}

#[test]
fn every_key_of_the_pinned_libraries_has_a_row() {
    let listed = listed();
    let missing: Vec<_> = listed
        .files
        .iter()
        .flat_map(|(file, keys)| keys.keys().map(move |key| (file, key)))
        .filter(|(file, key)| !is_known(file, key))
        .collect();
    assert!(missing.is_empty(), "add rows to src/config/keys.tsv: {missing:?}");
    assert!(listed.files["config.json"].len() > 100 && !is_known("config.json", "new_key"));
}

#[test]
fn harmless_keys_are_not_read_by_the_modeling_files() {
    /// Read, without an effect on the output: the row of each says why.
    const CHECKED: [&str; 18] = [
        "chunk_size_feed_forward",
        "deterministic_flash_attn",
        "head_dim",
        "init_std",
        "initializer_cutoff_factor",
        "initializer_factor",
        "initializer_range",
        "is_encoder_decoder",
        "num_decoder_layers",
        "onnx_export",
        "output_attentions",
        "output_hidden_states",
        "reference_compile",
        "repad_logits_with_grad",
        "sinusoidal_pos_embds",
        "sparse_pred_ignore_index",
        "sparse_prediction",
        "use_cache",
    ];
    let listed = listed();
    let harmless: Vec<_> = listed
        .read_in_models
        .iter()
        .filter(|key| handling("config.json", key) == Some("harmless"))
        .filter(|key| !CHECKED.contains(&key.as_str()) && !key.starts_with("summary_"))
        .collect();
    assert!(harmless.is_empty(), "{harmless:?}");
    assert!(listed.read_in_models.len() > 40);
}
