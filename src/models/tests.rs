//! The table of architectures, and what every one of them does with odd files.

use serde_json::json;

use super::*;
use crate::checkpoint::{Checkpoint, CheckpointError};

const HEADS: [Head; 5] = [
    Head::Base,
    Head::MaskedLm,
    Head::TokenClassification,
    Head::SequenceClassification,
    Head::QuestionAnswering,
];

/// A checkpoint of zeros.
fn checkpoint(tensors: &[(String, Vec<i64>)]) -> Checkpoint {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<i64>();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + usize::try_from(end).unwrap(), 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Checkpoint::open(file.path()).unwrap()
}

fn load(
    architecture: &Architecture,
    config: &Value,
    head: Head,
    checkpoint: &Checkpoint,
) -> Result<Vec<String>, CheckpointError> {
    let blueprint = Blueprint { config, head, labels: 3 };
    (architecture.load)(&checkpoint.weights(), blueprint).unwrap();
    Ok(checkpoint.finish()?.0)
}

/// The names and shapes of all tensors that a model wants.
fn wanted(architecture: &Architecture, config: &Value, head: Head) -> Vec<(String, Vec<i64>)> {
    match load(architecture, config, head, &checkpoint(&[])) {
        Err(CheckpointError::Weights { problems, .. }) => problems
            .iter()
            .map(|problem| {
                let (name, shape) = problem.split_once(' ').unwrap();
                let shape = shape.strip_suffix(" is missing").unwrap();
                (name.to_owned(), serde_json::from_str(shape).unwrap())
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn tiny(model_type: &str, more: Value) -> Value {
    let tiny = json!({
        "model_type": model_type,
        "vocab_size": 11,
        "hidden_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 5,
        "embedding_size": 4,
        "hidden_dim": 5,
        "max_position_embeddings": 8,
    });
    read_config_over(tiny, &more).unwrap()
}

const RELATIVE: &str = "relative_key_query";

#[test]
fn what_a_model_wants_is_all_that_is_read_and_missing_tensors_are_no_panic() {
    for architecture in ["bert", "roberta", "electra", "distilbert", "mpnet"] {
        let architecture = Architecture::find(architecture, &[]).unwrap();
        let relative = json!({ "position_embedding_type": RELATIVE, "hidden_act": "prelu" });
        for more in [json!({}), relative, json!({ "tie_word_embeddings": false })] {
            let config = tiny(architecture.model_type, more);
            for head in HEADS {
                let wanted = wanted(architecture, &config, head);
                let unused = load(architecture, &config, head, &checkpoint(&wanted)).unwrap();
                assert_eq!(unused, Vec::<String>::new());
            }
        }
    }
}

/// Files of old releases: the base model below its name, what is tied written out, buffers, poolers and pre-training heads in every
/// file, biases under their second name.
#[test]
fn what_old_releases_wrote_is_read_or_known() {
    type Old = (&'static str, &'static str, &'static [&'static str], [&'static str; 2]);
    let old: &[Old] = &[
        (
            "bert",
            "bert",
            &[
                "bert.embeddings.position_ids",
                "bert.pooler.dense.weight",
                "bert.pooler.dense.bias",
                "cls.predictions.decoder.weight",
                "cls.seq_relationship.weight",
            ],
            ["cls.predictions.bias", "cls.predictions.decoder.bias"],
        ),
        (
            "camembert",
            "roberta",
            &[
                "roberta.embeddings.position_ids",
                "roberta.pooler.dense.weight",
                "lm_head.decoder.weight",
                "lm_head.dense.weight",
            ],
            ["lm_head.bias", "lm_head.decoder.bias"],
        ),
        (
            "distilbert",
            "distilbert",
            &[
                "distilbert.embeddings.position_ids",
                "vocab_projector.weight",
                "vocab_transform.bias",
                "vocab_layer_norm.weight",
            ],
            ["", ""],
        ),
        (
            "electra",
            "electra",
            &[
                "electra.embeddings.position_ids",
                "generator_lm_head.weight",
                "generator_predictions.dense.bias",
                "discriminator_predictions.dense.weight",
            ],
            ["", ""],
        ),
        (
            "mpnet",
            "mpnet",
            &[
                "mpnet.embeddings.position_ids",
                "mpnet.pooler.dense.weight",
                "lm_head.decoder.weight",
                "lm_head.dense.weight",
            ],
            ["lm_head.bias", "lm_head.decoder.bias"],
        ),
    ];
    for (model_type, prefix, extra, [bias, old_bias]) in old {
        let architecture = Architecture::find(model_type, &[]).unwrap();
        let config = tiny(model_type, json!({}));
        for head in HEADS {
            let base: Vec<_> = wanted(architecture, &config, Head::Base);
            let in_base = |name: &str| {
                name.starts_with("pooler") || base.iter().any(|(known, _)| known == name)
            };
            let mut tensors: Vec<_> = wanted(architecture, &config, head)
                .into_iter()
                .map(|(name, shape)| match name.as_str() {
                    name if in_base(name) => (format!("{prefix}.{name}"), shape),
                    name if name == *bias => ((*old_bias).to_owned(), shape),
                    _ => (name, shape),
                })
                .collect();
            for name in *extra {
                if tensors.iter().all(|(known, _)| known != name) {
                    tensors.push(((*name).to_owned(), vec![1]));
                }
            }
            let unused = load(architecture, &config, head, &checkpoint(&tensors)).unwrap();
            assert_eq!(unused, Vec::<String>::new(), "{model_type} {head:?}");
        }
    }
}

#[test]
fn configurations_that_make_no_model_are_refused() {
    let refused = |model_type: &str, more: Value| {
        let architecture = Architecture::find(model_type, &[]).unwrap();
        let config = tiny(model_type, more.clone());
        assert!((architecture.dimensions)(&config).is_err(), "{model_type} {more}");
    };
    for model_type in ["bert", "roberta", "electra", "distilbert", "mpnet"] {
        for size in [-1, 0, i64::MAX] {
            for field in [
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "max_position_embeddings",
            ] {
                refused(model_type, json!({ field: size }));
            }
        }
        refused(model_type, json!({ "num_attention_heads": 4 }));
        refused(model_type, json!({ "is_decoder": true }));
        refused(model_type, json!({ "add_cross_attention": true }));
        refused(model_type, json!({ "vocab_size": "many" }));
    }
    for model_type in ["bert", "roberta", "electra"] {
        refused(model_type, json!({ "hidden_act": "xielu" }));
        refused(model_type, json!({ "position_embedding_type": "rotary" }));
        refused(model_type, json!({ "type_vocab_size": -1 }));
    }
    for padding in [-1, 7, i64::MAX] {
        refused("roberta", json!({ "pad_token_id": padding }));
    }
    refused("mpnet", json!({ "relative_attention_num_buckets": 31 }));
    refused("electra", json!({ "embedding_size": 0 }));
}

#[test]
fn positions_are_those_that_tokens_can_have() {
    let positions = |model_type: &str, more: Value| {
        let architecture = Architecture::find(model_type, &[]).unwrap();
        (architecture.dimensions)(&tiny(model_type, more)).unwrap().positions
    };
    assert_eq!(positions("bert", json!({})), 8);
    assert_eq!(positions("xlm-roberta", json!({})), 6);
    assert_eq!(positions("roberta", json!({ "pad_token_id": 0 })), 7);
    assert_eq!(positions("roberta", json!({ "position_embedding_type": RELATIVE })), 8);
    assert_eq!(positions("mpnet", json!({ "pad_token_id": 0 })), 6);
}
#[test]
fn what_cannot_be_served_is_told_apart_from_the_unknown() {
    assert!(Architecture::why_not("deberta").unwrap().contains("deberta-v2"));
    assert!(Architecture::why_not("nobody-knows").is_none());
    for (types, _) in UNSERVABLE {
        assert!(types.iter().all(|known| Architecture::find(known, &[]).is_none()));
    }
}

#[test]
fn a_dpr_encoder_may_call_itself_bert() {
    let find = |class: &str| Architecture::find("bert", &[class.to_owned()]).unwrap();
    assert_eq!(find("DPRContextEncoder").model_type, "dpr");
    assert_eq!(find("BertModel").model_type, "bert");
}
