//! Tests of the table of architectures with unusual files.

use serde_json::json;

use super::*;
use crate::checkpoint::{Format, WeightFiles};

const HEADS: [Head; 5] = [
    Head::Base,
    Head::MaskedLm,
    Head::TokenClassification,
    Head::SequenceClassification,
    Head::QuestionAnswering,
];

fn named(name: &str) -> &'static Architecture {
    ARCHITECTURES.iter().find(|known| known.name == name).unwrap()
}

/// A checkpoint of zeros.
pub(super) fn checkpoint(tensors: &[(String, Vec<i64>)]) -> WeightLoader {
    checkpoint_of(tensors, || 0.)
}

/// A checkpoint of the numbers that `value` returns.
fn checkpoint_of(tensors: &[(String, Vec<i64>)], mut value: impl FnMut() -> f32) -> WeightLoader {
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
    bytes.extend((0..end / 4).flat_map(|_| value().to_le_bytes()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    WeightLoader::open(&WeightFiles::one(Format::Safetensors, file.path().to_owned())).unwrap()
}

/// A model with weights from -0.5 to 0.5.
pub(super) fn loaded_with_random_weights(
    model_type: &str,
    config: &Value,
    head: Head,
) -> Box<dyn Model> {
    let architecture = named(model_type);
    let mut state = 1u32;
    let random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let checkpoint = checkpoint_of(&wanted(architecture, config, head), random);
    let blueprint = Blueprint { config, head, labels: 3, quantize: false };
    let weights = checkpoint.weights().spelled(architecture.spellings);
    let model = (architecture.load)(&weights, blueprint).unwrap();
    checkpoint.finish().unwrap();
    model
}

/// Tiny configurations of all architectures, with several layers where the variant allows it.
pub(super) fn variants() -> Vec<(&'static str, Value)> {
    let family = ["bert", "roberta", "electra", "distilbert", "mpnet"];
    let family = family.into_iter().flat_map(|model_type| {
        let relative = json!({ "position_embedding_type": RELATIVE });
        [(model_type, json!({})), (model_type, relative)]
    });
    let others = others().into_iter().map(|(model_type, more, _)| (model_type, more));
    family.chain(others).map(|(model_type, more)| (model_type, tiny(model_type, more))).collect()
}

fn load(
    architecture: &Architecture,
    config: &Value,
    head: Head,
    checkpoint: &WeightLoader,
) -> Result<Vec<String>, WeightError> {
    let blueprint = Blueprint { config, head, labels: 3, quantize: false };
    (architecture.load)(&checkpoint.weights().spelled(architecture.spellings), blueprint).unwrap();
    Ok(checkpoint.finish()?.0)
}

/// Names and shapes of all tensors that a model reads.
fn wanted(architecture: &Architecture, config: &Value, head: Head) -> Vec<(String, Vec<i64>)> {
    match load(architecture, config, head, &checkpoint(&[])) {
        Err(WeightError::Mismatch { problems, .. }) => problems
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
fn bert_reads_expected_tensors_and_reports_missing_ones() {
    for architecture in ["bert", "roberta", "electra", "distilbert", "mpnet"] {
        let architecture = named(architecture);
        let relative = json!({ "position_embedding_type": RELATIVE, "hidden_act": "prelu" });
        for more in [json!({}), relative, json!({ "tie_word_embeddings": false })] {
            let config = tiny(architecture.name, more);
            for head in HEADS {
                let wanted = wanted(architecture, &config, head);
                let unused = load(architecture, &config, head, &checkpoint(&wanted)).unwrap();
                assert_eq!(unused, Vec::<String>::new());
            }
        }
    }
}

/// Configurations of architectures outside the BERT family, and their heads.
fn others() -> Vec<(&'static str, Value, &'static [Head])> {
    let deberta = |more: Value| {
        let relative =
            json!({ "relative_attention": true, "position_buckets": 4, "pos_att_type": "p2c|c2p" });
        ("deberta-v2", read_config_over(relative, &more).unwrap(), HEADS.as_slice())
    };
    let deberta_v1 = |more: Value| {
        let relative = json!({ "relative_attention": true, "pos_att_type": "c2p|p2c" });
        ("deberta", read_config_over(relative, &more).unwrap(), HEADS.as_slice())
    };
    let albert = |groups: i64, inner: i64| {
        let more = json!({ "num_hidden_layers": 3, "num_hidden_groups": groups, "inner_group_num": inner });
        ("albert", more, HEADS.as_slice())
    };
    let ernie = |used: bool| {
        (
            "ernie",
            json!({ "use_task_id": used, "position_embedding_type": RELATIVE }),
            HEADS.as_slice(),
        )
    };
    let longformer = |windows: Value| {
        let more = json!({ "attention_window": windows, "num_hidden_layers": 2 });
        ("longformer", more, HEADS.as_slice())
    };
    let t5 = |form: &str| {
        let heads: &[Head] = &[Head::Base, Head::TokenClassification];
        ("t5", json!({ "feed_forward_proj": form, "d_kv": 4, "d_ff": 5 }), heads)
    };
    let mobilebert = |more: Value| ("mobilebert", more, HEADS.as_slice());
    let modernbert = |more: Value| {
        let sizes = json!({ "hidden_size": 8, "num_hidden_layers": 2 });
        ("modernbert", read_config_over(sizes, &more).unwrap(), HEADS.as_slice())
    };
    let gemma3 = |more: Value| {
        let sizes = json!({
            "use_bidirectional_attention": true,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_hidden_layers": 2,
            "sliding_window_pattern": 2,
        });
        ("gemma3_text", read_config_over(sizes, &more).unwrap(), &[Head::Base][..])
    };
    let squeezebert = |groups: i64, tied: bool| {
        let groups = json!({
            "embedding_size": 6,
            "intermediate_size": 6,
            "q_groups": groups,
            "k_groups": 1,
            "v_groups": 6,
            "intermediate_groups": groups,
            "output_groups": groups,
            "tie_word_embeddings": tied,
        });
        ("squeezebert", groups, HEADS.as_slice())
    };
    let bart = |tied: bool| {
        let sizes = json!({
            "d_model": 6,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_layers": 1,
            "decoder_attention_heads": 3,
            "activation_function": "prelu",
            "tie_word_embeddings": tied,
        });
        let heads: &[Head] =
            &[Head::Base, Head::MaskedLm, Head::SequenceClassification, Head::QuestionAnswering];
        ("bart", sizes, heads)
    };
    let gte = |more: Value| {
        let rope = json!({ "rope_theta": 100, "hidden_size": 8 });
        ("gte", read_config_over(rope, &more).unwrap(), HEADS.as_slice())
    };
    let jina_bert = |more: Value| {
        let geglu = json!({ "position_embedding_type": "alibi", "feed_forward_type": "geglu" });
        ("jina_bert", read_config_over(geglu, &more).unwrap(), HEADS.as_slice())
    };
    let nomic_bert = |more: Value| {
        let swiglu = json!({
            "n_embd": 8,
            "hidden_size": 8,
            "activation_function": "swiglu",
            "layer_norm_epsilon": 1e-12,
        });
        ("nomic_bert", read_config_over(swiglu, &more).unwrap(), HEADS.as_slice())
    };
    let without_bias = json!({
        "rotary_emb_fraction": 1,
        "qkv_proj_bias": false,
        "mlp_fc1_bias": false,
        "mlp_fc2_bias": false,
        "pad_vocab_size_multiple": 8,
    });
    let mixture = json!({
        "activation_function": "gelu",
        "num_hidden_layers": 2,
        "num_experts": 4,
        "moe_every_n_layers": 2,
        "moe_top_k": 2,
    });
    let eurobert = |more: Value| {
        let sizes = json!({ "hidden_size": 8, "num_key_value_heads": 1 });
        ("eurobert", read_config_over(sizes, &more).unwrap(), &HEADS[..4])
    };
    let flash = |more: Value| {
        let rotary = json!({ "hidden_size": 8, "position_embedding_type": "rotary" });
        ("xlm-roberta-flash", read_config_over(rotary, &more).unwrap(), HEADS.as_slice())
    };
    vec![
        eurobert(json!({})),
        eurobert(json!({ "attention_bias": true, "mlp_bias": true, "head_dim": 6 })),
        eurobert(json!({ "tie_word_embeddings": true, "clf_pooling": "mean" })),
        flash(json!({})),
        flash(json!({ "position_embedding_type": "absolute", "type_vocab_size": 1 })),
        bart(true),
        bart(false),
        albert(1, 1),
        albert(2, 2),
        deberta_v1(json!({})),
        deberta_v1(
            json!({ "embedding_size": 6, "type_vocab_size": 2, "position_biased_input": false }),
        ),
        ernie(true),
        ernie(false),
        longformer(json!(4)),
        longformer(json!([2, 4])),
        t5("relu"),
        t5("gated-gelu"),
        deberta(json!({})),
        deberta(
            json!({ "share_att_key": true, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3, "num_hidden_layers": 2 }),
        ),
        deberta(json!({ "embedding_size": 6, "type_vocab_size": 2, "tie_word_embeddings": false })),
        deberta(json!({ "relative_attention": false, "position_biased_input": false })),
        gte(json!({})),
        gte(json!({ "pack_qkv": false, "type_vocab_size": 0, "tie_word_embeddings": false })),
        gte(json!({ "position_embedding_type": "absolute", "type_vocab_size": 2 })),
        jina_bert(json!({})),
        jina_bert(json!({ "feed_forward_type": "reglu", "position_embedding_type": "absolute" })),
        jina_bert(json!({ "auto_map": { "AutoModel": "jinaai/jina-bert-v2-qk-post-norm--x" } })),
        nomic_bert(json!({})),
        nomic_bert(without_bias),
        nomic_bert(mixture),
        ("dpr", json!({ "projection_dim": 3 }), &[Head::Base]),
        mobilebert(json!({})),
        mobilebert(json!({ "normalization_type": "layer_norm", "use_bottleneck": false })),
        mobilebert(json!({ "use_bottleneck_attention": true, "tie_word_embeddings": false })),
        mobilebert(json!({ "classifier_activation": false, "hidden_act": "prelu" })),
        modernbert(json!({})),
        modernbert(json!({ "norm_bias": true, "attention_bias": true, "mlp_bias": true })),
        modernbert(json!({ "decoder_bias": false, "classifier_bias": true })),
        modernbert(json!({ "tie_word_embeddings": false, "classifier_pooling": "mean" })),
        gemma3(json!({})),
        gemma3(json!({ "attention_bias": true, "num_key_value_heads": 1 })),
        ("retribert", json!({}), &[Head::Base]),
        squeezebert(2, true),
        squeezebert(3, false),
    ]
}

#[test]
fn other_architectures_read_expected_tensors() {
    for (model_type, more, heads) in others() {
        let architecture = named(model_type);
        let config = tiny(model_type, more);
        for &head in heads {
            let wanted = wanted(architecture, &config, head);
            let unused = load(architecture, &config, head, &checkpoint(&wanted)).unwrap();
            assert_eq!(unused, Vec::<String>::new(), "{config} {head}");
        }
    }
}

/// Parameter names below the prefix of the base model, and additional tensors of old versions.
#[test]
fn other_architectures_read_old_parameter_names() {
    let old: &[(&str, &str, &[&str])] = &[
        (
            "bart",
            "model",
            &["model.encoder.version", "model.decoder.embed_tokens.weight", "lm_head.weight"],
        ),
        (
            "deberta-v2",
            "deberta",
            &[
                "deberta.embeddings.position_ids",
                "mask_predictions.classifier.weight",
                "cls.predictions.decoder.weight",
                "pooler.dense.weight",
            ],
        ),
        ("eurobert", "model", &["lm_head.weight"]),
        ("xlm-roberta-flash", "roberta", &["roberta.pooler.dense.weight", "lm_head.bias"]),
        (
            "albert",
            "albert",
            &["albert.pooler.weight", "predictions.bias", "sop_classifier.classifier.bias"],
        ),
        (
            "deberta",
            "deberta",
            &[
                "deberta.embeddings.position_ids",
                "lm_predictions.lm_head.bias",
                "cls.predictions.bias",
            ],
        ),
        ("ernie", "ernie", &["ernie.pooler.dense.weight", "cls.predictions.bias"]),
        (
            "longformer",
            "longformer",
            &[
                "longformer.encoder.layer.0.attention.self.query_global.weight",
                "longformer.pooler.dense.weight",
                "lm_head.bias",
            ],
        ),
        (
            "t5",
            "transformer",
            &[
                "transformer.encoder.embed_tokens.weight",
                "transformer.decoder.block.0.layer.0.SelfAttention.q.weight",
                "lm_head.weight",
            ],
        ),
        ("gte", "new", &["new.pooler.dense.weight", "lm_head.dense.bias"]),
        ("jina_bert", "bert", &["bert.pooler.dense.weight", "cls.predictions.bias"]),
        ("nomic_bert", "bert", &["bert.pooler.dense.weight", "cls.predictions.decoder.weight"]),
        ("dpr", "ctx_encoder", &["ctx_encoder.bert_model.pooler.dense.bias"]),
        ("dpr", "question_encoder", &["question_encoder.bert_model.embeddings.position_ids"]),
        (
            "mobilebert",
            "mobilebert",
            &["mobilebert.pooler.dense.weight", "cls.seq_relationship.bias"],
        ),
        ("gemma3_text", "model", &["lm_head.weight"]),
        ("modernbert", "model", &["head.dense.weight", "decoder.bias"]),
        (
            "retribert",
            "retribert",
            &["retribert.bert_doc.pooler.dense.weight", "retribert.project_doc.weight"],
        ),
        ("squeezebert", "transformer", &["transformer.pooler.dense.bias", "cls.predictions.bias"]),
    ];
    for (model_type, more, _) in others() {
        let architecture = named(model_type);
        let config = tiny(model_type, more);
        for (_, prefix, extra) in old.iter().filter(|old| old.0 == model_type) {
            let old_name = |name: String| match model_type {
                "dpr" if !name.starts_with("encode_proj") => format!("{prefix}.bert_model.{name}"),
                _ => format!("{prefix}.{name}"),
            };
            let base = wanted(architecture, &config, Head::Base).into_iter();
            let mut tensors: Vec<_> = base.map(|(name, shape)| (old_name(name), shape)).collect();
            tensors.extend(extra.iter().map(|name| ((*name).to_owned(), vec![1])));
            let unused = load(architecture, &config, Head::Base, &checkpoint(&tensors)).unwrap();
            assert_eq!(unused, Vec::<String>::new(), "{config}");
        }
    }
}

#[test]
fn bart_reads_embeddings_under_every_name() {
    let architecture = named("bart");
    let more = others().into_iter().find(|(name, ..)| *name == "bart").unwrap().1;
    let config = tiny("bart", more);
    for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        let mut tensors = wanted(architecture, &config, Head::Base);
        tensors.iter_mut().for_each(|(known, _)| {
            if known == "shared.weight" {
                name.clone_into(known);
            }
        });
        load(architecture, &config, Head::Base, &checkpoint(&tensors)).unwrap();
    }
}

/// Files of old versions: parameters of the base model with its prefix, tied weights stored twice, buffers, poolers, pre-training
/// heads, and the second name of a bias.
#[test]
fn old_parameter_names_are_read_or_ignored() {
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
        let architecture = named(model_type);
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
fn invalid_configurations_are_rejected() {
    let refused = |model_type: &str, more: Value| {
        let architecture = named(model_type);
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
    let rope = |theta| json!({ "sliding_attention": { "rope_theta": theta }});
    refused("modernbert", json!({ "local_rope_theta": 500., "rope_parameters": rope(600.) }));
    refused("modernbert", json!({ "local_attention": 8, "sliding_window": 8 }));
    refused("nomic_bert", json!({ "n_head": 1, "num_attention_heads": 2 }));
    refused("nomic_bert", json!({ "n_layer": 3, "num_hidden_layers": 2 }));
    for padding in [-1, 7, i64::MAX] {
        refused("roberta", json!({ "pad_token_id": padding }));
    }
    refused("mpnet", json!({ "relative_attention_num_buckets": 31 }));
    refused("electra", json!({ "embedding_size": 0 }));
    for (model_type, more, _) in others() {
        let but = |field: &str, value: Value| {
            refused(model_type, read_config_over(more.clone(), &json!({ field: value })).unwrap());
        };
        for size in [-1, 0, i64::MAX] {
            but("vocab_size", json!(size));
            but(
                if model_type == "t5" { "n_positions" } else { "max_position_embeddings" },
                json!(size),
            );
            but("hidden_size", json!(size));
        }
        but("is_decoder", json!(true));
    }
    for (model_type, field, value) in [
        ("albert", "num_hidden_groups", json!(0)),
        ("albert", "inner_group_num", json!(1025)),
        ("bart", "decoder_start_token_id", json!(11)),
        ("bart", "decoder_attention_heads", json!(5)),
        ("deberta-v2", "attention_head_size", json!(4)),
        ("deberta-v2", "conv_kernel_size", json!(2)),
        ("deberta-v2", "type_vocab_size", json!(-1)),
        ("dpr", "architectures", json!(["DPRReader"])),
        ("ernie", "task_type_vocab_size", json!(0)),
        ("longformer", "attention_window", json!(3)),
        ("longformer", "attention_window", json!([2, 2, 2])),
        ("t5", "feed_forward_proj", json!("gated-xielu")),
        ("t5", "relative_attention_max_distance", json!(8)),
        ("t5", "relative_attention_num_buckets", json!(3)),
        ("gte", "layer_norm_type", json!("rms_norm")),
        ("gte", "logn_attention_scale", json!(true)),
        ("gte", "logn_attention_clip1", json!(true)),
        ("gte", "position_embedding_type", json!("alibi")),
        ("gte", "rope_scaling", json!({ "type": "yarn", "factor": 2.0 })),
        ("gte", "rope_theta", json!(null)),
        ("jina_bert", "feed_forward_type", json!("original")),
        ("jina_bert", "position_embedding_type", json!("relative_key")),
        ("nomic_bert", "activation_function", json!("gelu_new")),
        ("nomic_bert", "causal", json!(true)),
        ("nomic_bert", "layer_norm_eps", json!(1e-6)),
        ("nomic_bert", "moe_normalize_expert_weights", json!(true)),
        ("nomic_bert", "num_experts", json!(4)),
        ("nomic_bert", "prenorm", json!(true)),
        ("nomic_bert", "rope_parameters", json!({ "rope_theta": 1000 })),
        ("nomic_bert", "rotary_emb_fraction", json!(0.6)),
        ("nomic_bert", "rotary_emb_interleaved", json!(true)),
        ("nomic_bert", "rotary_emb_scale_base", json!(512)),
        ("mobilebert", "num_feedforward_networks", json!(0)),
        ("mobilebert", "normalization_type", json!("batch_norm")),
        ("mobilebert", "key_query_shared_bottleneck", json!(false)),
        ("gemma3_text", "attn_logit_softcapping", json!(50.)),
        ("gemma3_text", "head_dim", json!(5)),
        ("gemma3_text", "layer_types", json!(["full_attention"])),
        ("gemma3_text", "num_key_value_heads", json!(3)),
        ("gemma3_text", "query_pre_attn_scalar", json!(0)),
        ("gemma3_text", "rope_parameters", json!({ "full_attention": { "rope_type": "linear" } })),
        ("gemma3_text", "rope_scaling", json!({ "rope_type": "linear", "factor": 8.0 })),
        ("gemma3_text", "use_bidirectional_attention", json!(false)),
        ("modernbert", "num_attention_heads", json!(8)),
        ("modernbert", "classifier_pooling", json!("max")),
        ("modernbert", "layer_types", json!(["full_attention"])),
        ("modernbert", "rope_scaling", json!({ "factor": 2. })),
        ("modernbert", "rope_parameters", json!({ "full_attention": { "rope_type": "yarn" } })),
        ("modernbert", "rope_parameters", json!({ "rope_theta": 10_000. })),
        ("modernbert", "global_rope_theta", json!(0.)),
        ("squeezebert", "q_groups", json!(4)),
        ("squeezebert", "embedding_size", json!(4)),
    ] {
        let (_, more, _) = others().into_iter().find(|other| other.0 == model_type).unwrap();
        refused(model_type, read_config_over(more, &json!({ field: value })).unwrap());
    }
}

#[test]
fn position_count_excludes_padding_offset() {
    let positions = |model_type: &str, more: Value| {
        let architecture = named(model_type);
        (architecture.dimensions)(&tiny(model_type, more)).unwrap().positions
    };
    assert_eq!(positions("bert", json!({})), 8);
    assert_eq!(positions("xlm-roberta", json!({})), 6);
    assert_eq!(positions("roberta", json!({ "pad_token_id": 0 })), 7);
    assert_eq!(positions("roberta", json!({ "position_embedding_type": RELATIVE })), 8);
    assert_eq!(positions("mpnet", json!({ "pad_token_id": 0 })), 6);
}
