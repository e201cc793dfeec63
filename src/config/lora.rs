//! LoRA adapters of a repository, one for each task: where they are and how they are scaled.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ModelConfig;

/// Folder with a folder for each adapter of jina-embeddings-v5.
const ADAPTERS: &str = "adapters";

/// LoRA adapters of a repository, one for each task.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraTasks {
    /// Names of the tasks, in the order of the adapters.
    pub names: Vec<String>,
    /// Where the adapters are.
    pub form: LoraForm,
    /// Texts to prepend to the texts of a task, by the name of the task (`task_instructions` in `config.json`).
    pub instructions: BTreeMap<String, String>,
}

/// Where the adapters of a repository are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoraForm {
    /// In the checkpoint, beside the adapted weights (jina-embeddings-v3).
    Stacked {
        /// Rank of the factors.
        rank: i64,
        /// The scale is `alpha / rank`.
        alpha: f64,
    },
    /// In a folder for each task, as the library PEFT saves them (jina-embeddings-v5).
    Folders,
}

impl LoraTasks {
    /// Reads the tasks from `config.json`: `lora_adaptations` for adapters in the checkpoint, or `task_names` for folders of adapters.
    /// `None` if there are none. A checkpoint into which an adapter was merged can keep these keys.
    #[must_use]
    pub fn of(config: &ModelConfig) -> Option<Self> {
        let names = |key: &str| -> Option<Vec<String>> {
            let names = config.json.get(key)?.as_array()?.iter();
            let names: Option<Vec<_>> = names.map(|name| Some(name.as_str()?.to_owned())).collect();
            names.filter(|names| !names.is_empty())
        };
        let number = |key: &str| config.json.get(key).and_then(Value::as_f64);
        // The defaults of XLMRobertaFlashConfig.
        let rank = config.json.get("lora_rank").and_then(Value::as_i64).unwrap_or(4);
        let alpha = number("lora_alpha").unwrap_or(1.);
        let stacked =
            names("lora_adaptations").map(|names| (names, LoraForm::Stacked { rank, alpha }));
        let (names, form) =
            stacked.or_else(|| names("task_names").map(|names| (names, LoraForm::Folders)))?;
        let instructions = config.json.get("task_instructions").and_then(Value::as_object);
        let instructions = instructions.into_iter().flatten();
        let instructions = instructions
            .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
            .collect();
        Some(Self { names, form, instructions })
    }

    /// Folder of the adapter for a task.
    #[must_use]
    pub fn folder(task: &str) -> String {
        format!("{ADAPTERS}/{task}")
    }
}

/// `adapter_config.json` of an adapter that the library PEFT saved.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PeftConfig {
    #[serde(default)]
    peft_type: String,
    r: i64,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl PeftConfig {
    /// Rank of the factors, and the scale of their product.
    ///
    /// # Errors
    /// The name of a setting that changes the weights in another way than by one product.
    pub fn rank_and_scale(&self) -> Result<(i64, f64), String> {
        /// Settings that have no effect if they are missing, null, false or empty.
        const VARIANTS: [&str; 13] = [
            "alora_invocation_tokens",
            "alpha_pattern",
            "arrow_config",
            "fan_in_fan_out",
            "layer_replication",
            "lora_bias",
            "modules_to_save",
            "rank_pattern",
            "target_parameters",
            "trainable_token_indices",
            "use_bdlora",
            "use_dora",
            "use_qalora",
        ];
        if self.peft_type != "LORA" {
            return Err(format!("peft_type {}", self.peft_type));
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| *bias != "none") {
            return Err(format!("bias {bias}"));
        }
        let is_set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if let Some(name) = VARIANTS.into_iter().find(|it| self.others.get(*it).is_some_and(is_set))
        {
            return Err(name.to_owned());
        }
        if self.r < 1 {
            return Err(format!("r {}", self.r));
        }
        let rank = self.r as f64;
        Ok((self.r, self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tasks(config: Value) -> Option<LoraTasks> {
        let Value::Object(config) = config else { unreachable!() };
        LoraTasks::of(&ModelConfig::parse(config))
    }

    #[test]
    fn tasks_are_read_from_both_keys() {
        let found = tasks(json!({
            "lora_adaptations": ["retrieval.query", "separation"], "lora_rank": 8, "lora_alpha": 2,
            "task_instructions": {"retrieval.query": "Find: ", "separation": ""},
        }))
        .unwrap();
        assert_eq!(found.names, ["retrieval.query", "separation"]);
        assert_eq!(found.form, LoraForm::Stacked { rank: 8, alpha: 2. });
        assert_eq!(found.instructions["retrieval.query"], "Find: ");
        let found = tasks(json!({"task_names": ["retrieval"]})).unwrap();
        assert_eq!((found.names, found.form), (vec!["retrieval".to_owned()], LoraForm::Folders));
        assert_eq!(tasks(json!({"lora_adaptations": []})), None);
        assert_eq!(tasks(json!({"lora_adaptations": null, "task_names": [1]})), None);
    }

    #[test]
    fn scale_follows_peft_and_variants_are_refused() {
        let read = |more: Value| {
            let mut config = json!({"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none",
                "use_dora": false, "rank_pattern": {}, "modules_to_save": null});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<PeftConfig>(config).unwrap().rank_and_scale()
        };
        assert_eq!(read(json!({})), Ok((16, 2.)));
        assert_eq!(read(json!({"use_rslora": true})), Ok((16, 8.)));
        for (more, name) in [
            (json!({"use_dora": true}), "use_dora"),
            (json!({"rank_pattern": {"q_proj": 4}}), "rank_pattern"),
            (json!({"modules_to_save": ["classifier"]}), "modules_to_save"),
            (json!({"bias": "all"}), "bias all"),
            (json!({"peft_type": "IA3"}), "peft_type IA3"),
            (json!({"r": 0}), "r 0"),
        ] {
            assert_eq!(read(more), Err(name.to_owned()));
        }
    }
}
