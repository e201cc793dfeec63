//! Detection of a folder's architecture by `config.json` and the tensors of the checkpoint.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ARCHITECTURES, Architecture};
use crate::checkpoint::Checkpoint;

/// Shapes of the tensors of a checkpoint, by name.
pub type TensorShapes = BTreeMap<String, Vec<i64>>;

/// What a folder reveals about its architecture.
///
/// `model_type` alone does not determine an architecture: JinaBERT v2 has the `model_type` `bert` with other tensors. `auto_map` is no
/// evidence, because it names code that may or may not differ from Transformers.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// `model_type` in `config.json`.
    pub model_type: Option<&'a str>,
    /// Transformers classes in `architectures` of `config.json`.
    pub classes: &'a [String],
    /// Returns the tensors of the checkpoint; `None` if they are unknown before a download. Only called if `config.json` leaves a choice,
    /// because the header of the checkpoint is read for the answer.
    pub tensors: &'a dyn Fn() -> Option<&'a TensorShapes>,
}

impl Evidence<'_> {
    /// Whether `config.json` states the `model_type`.
    #[must_use]
    pub fn is(&self, model_type: &str) -> bool {
        self.model_type == Some(model_type)
    }

    /// Whether `config.json` states no `model_type`, and a tensor has one of `parts` in its name. Parts begin and end with a dot.
    #[must_use]
    pub fn is_untyped_with(&self, parts: &[&str]) -> bool {
        self.model_type.is_none() && parts.iter().any(|part| self.has_tensor(part))
    }

    /// Whether a tensor has `part` in its name. A part begins and ends with a dot.
    #[must_use]
    pub fn has_tensor(&self, part: &str) -> bool {
        (self.tensors)()
            .is_some_and(|tensors| tensors.keys().any(|name| format!(".{name}.").contains(part)))
    }

    /// Rows of the first tensor whose name ends with `end`.
    #[must_use]
    pub fn rows_of_tensor(&self, end: &str) -> Option<i64> {
        let (_, shape) = (self.tensors)()?.iter().find(|(name, _)| name.ends_with(end))?;
        shape.first().copied()
    }
}

/// Names and shapes of the tensors of a checkpoint.
#[must_use]
pub fn tensor_shapes(checkpoint: &Checkpoint) -> TensorShapes {
    let tensors = checkpoint.tensors().iter();
    tensors.map(|(name, stored)| (name.clone(), stored.slice.shape.clone())).collect()
}

impl Architecture {
    /// The architecture of a folder: the first in the table that detects the evidence.
    #[must_use]
    pub fn detect(evidence: &Evidence<'_>) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|known| (known.detects)(evidence))
    }

    /// The architecture of a Transformers class, such as `BertForMaskedLM`.
    #[must_use]
    pub fn of_class(class: &str) -> Option<&'static Self> {
        let follows = |rest: &str| {
            ["For", "Model", "Context", "Question", "Pre", "LM"]
                .iter()
                .any(|part| rest.starts_with(part))
        };
        ARCHITECTURES.iter().find(|known| class.strip_prefix(known.class).is_some_and(follows))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::UNSERVABLE;
    use super::*;

    #[test]
    fn unsupported_and_unknown_architectures_are_distinguished() {
        assert!(Architecture::why_not("xlnet").unwrap().contains("tokenizer"));
        assert!(Architecture::why_not("nobody-knows").is_none());
        for (types, _) in UNSERVABLE {
            assert!(types.iter().all(|known| detected(Some(known), &[], &[]).is_none()));
        }
    }

    /// Name of the architecture that is detected by `model_type`, classes, and names and rows of tensors.
    fn detected(
        model_type: Option<&str>,
        classes: &[&str],
        tensors: &[(&str, i64)],
    ) -> Option<&'static str> {
        let tensors =
            tensors.iter().map(|(name, rows)| ((*name).to_owned(), vec![*rows, 4])).collect();
        let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
        let config = json!({ "model_type": model_type });
        let tensors = &|| Some(&tensors);
        let evidence = Evidence { config: &config, model_type, classes: &classes, tensors };
        Architecture::detect(&evidence).map(|found| found.name)
    }

    #[test]
    fn every_architecture_is_detected_by_its_model_type() {
        // The model_type of JinaBERT is bert, that of jina-embeddings-v3 is xlm-roberta, and Gemma 3 is an encoder only if config.json
        // states so.
        let others = ["gemma3_text", "jina_bert", "xlm-roberta-flash"];
        for name in Architecture::names().into_iter().filter(|name| !others.contains(name)) {
            assert_eq!(detected(Some(name), &[], &[]), Some(name));
        }
        assert_eq!(detected(Some("new"), &[], &[]), Some("gte"));
    }

    #[test]
    fn jina_bert_is_detected_by_its_positions_or_its_tensors() {
        let with = |config: Value| {
            let evidence = Evidence {
                config: &config,
                model_type: config["model_type"].as_str(),
                classes: &[],
                tensors: &|| None,
            };
            Architecture::detect(&evidence).map(|found| found.name)
        };
        let of = |positions: &str| {
            with(json!({ "model_type": "bert", "position_embedding_type": positions }))
        };
        assert_eq!([of("alibi"), of("absolute")], [Some("jina_bert"), Some("bert")]);
        for name in ["gated_layers", "up_gated_layer"] {
            let name = format!("encoder.layer.0.mlp.{name}.weight");
            assert_eq!(detected(Some("bert"), &[], &[(&name, 10)]), Some("jina_bert"));
            assert_eq!(detected(None, &[], &[(&name, 10)]), Some("jina_bert"));
        }
    }

    #[test]
    fn xlm_roberta_flash_is_detected_by_its_positions_or_its_tensors() {
        let name = "roberta.encoder.layers.0.mixer.Wqkv.parametrizations.weight.original";
        for model_type in [Some("xlm-roberta"), None] {
            let found = detected(model_type, &[], &[(name, 12)]);
            assert_eq!(found, Some("xlm-roberta-flash"), "{model_type:?}");
        }
        let of = |positions: &str| {
            let config =
                json!({ "model_type": "xlm-roberta", "position_embedding_type": positions });
            let model_type = Some("xlm-roberta");
            let evidence =
                Evidence { config: &config, model_type, classes: &[], tensors: &|| None };
            Architecture::detect(&evidence).map(|found| found.name)
        };
        assert_eq!([of("rotary"), of("absolute")], ["xlm-roberta-flash", "xlm-roberta"].map(Some));
    }

    #[test]
    fn gemma_3_is_detected_if_it_attends_in_both_directions() {
        let detected = |config: &Value| {
            let evidence = Evidence {
                config,
                model_type: config["model_type"].as_str(),
                classes: &[],
                tensors: &|| None,
            };
            Architecture::detect(&evidence).map(|found| found.name)
        };
        let mut config = json!({ "model_type": "gemma3_text" });
        assert_eq!(detected(&config), None);
        assert!(Architecture::why_not("gemma3_text").unwrap().contains("a decoder"));
        config["use_bidirectional_attention"] = true.into();
        assert_eq!(detected(&config), Some("gemma3_text"));
    }

    #[test]
    fn dpr_encoder_with_bert_model_type_is_detected() {
        assert_eq!(detected(Some("bert"), &["DPRContextEncoder"], &[]), Some("dpr"));
        assert_eq!(detected(Some("bert"), &["BertModel"], &[]), Some("bert"));
    }

    #[test]
    fn folder_without_model_type_is_detected_by_its_tensors() {
        let query = "encoder.layer.0.attention.self.query.weight";
        let types = "embeddings.token_type_embeddings.weight";
        let bert = [(query, 4), (types, 2)];
        for (tensors, expected) in [
            (&bert[..], Some("bert")),
            (&[(query, 4), (types, 1)], Some("roberta")),
            (&[("roberta.encoder.layer.0.attention.self.query.weight", 4)], Some("roberta")),
            (&[("electra.encoder.layer.0.attention.self.query.weight", 4)], Some("electra")),
            (&[("bert_query.encoder.layer.0.attention.self.query.weight", 4)], Some("retribert")),
            (
                &[("ctx_encoder.bert_model.encoder.layer.0.attention.self.query.weight", 4)],
                Some("dpr"),
            ),
            (&[("encoder.layer.0.attention.attn.q.weight", 4)], Some("mpnet")),
            (&[("new.encoder.layer.0.attention.qkv_proj.weight", 12)], Some("gte")),
            (&[("bert.encoder.layers.0.attn.out_proj.weight", 4)], Some("nomic_bert")),
            (&[("model.embeddings.tok_embeddings.weight", 4)], Some("modernbert")),
            (&[("deberta.encoder.layer.0.attention.self.in_proj.weight", 12)], Some("deberta")),
            (&[("encoder.block.0.layer.0.SelfAttention.q.weight", 4)], Some("t5")),
            (
                &[(query, 4), ("encoder.layer.0.attention.self.query_global.weight", 4)],
                Some("longformer"),
            ),
            (&[("encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", 4)], Some("albert")),
            (&[(query, 4), ("embeddings.task_type_embeddings.weight", 3)], Some("ernie")),
            (&[("wte.weight", 4)], None),
        ] {
            assert_eq!(detected(None, &[], tensors), expected, "{tensors:?}");
        }
    }

    #[test]
    fn class_names_belong_to_one_architecture() {
        let of = |class: &str| Architecture::of_class(class).map(|found| found.name);
        assert_eq!(of("XLMRobertaForMaskedLM"), Some("xlm-roberta"));
        assert_eq!(of("BertLMHeadModel"), Some("bert"));
        assert_eq!(of("DPRQuestionEncoder"), Some("dpr"));
        assert_eq!(of("BertoldModel"), None);
    }
}
