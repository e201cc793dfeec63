//! LoRA adapters of a repository, one for each task: where they are and how they are scaled.

use std::collections::{BTreeMap, BTreeSet};

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
    ///
    /// # Errors
    /// The reason, if a number has another type or a task is listed twice.
    pub fn of(config: &ModelConfig) -> Result<Option<Self>, String> {
        let names = |key: &str| -> Option<Vec<String>> {
            let names = config.json.get(key)?.as_array()?.iter();
            let names: Option<Vec<_>> = names.map(|name| Some(name.as_str()?.to_owned())).collect();
            names.filter(|names| !names.is_empty())
        };
        let (key, names, form) = if let Some(names) = names("lora_adaptations") {
            // The defaults of XLMRobertaFlashConfig.
            let rank = number(config, "lora_rank", 4, Value::as_i64)?;
            let alpha = number(config, "lora_alpha", 1., Value::as_f64)?;
            ("lora_adaptations", names, LoraForm::Stacked { rank, alpha })
        } else if let Some(names) = names("task_names") {
            ("task_names", names, LoraForm::Folders)
        } else {
            return Ok(None);
        };
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("{key} lists the task {twice} twice"));
        }
        let instructions = config.json.get("task_instructions").and_then(Value::as_object);
        let instructions = instructions.into_iter().flatten();
        let instructions = instructions
            .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
            .collect();
        Ok(Some(Self { names, form, instructions }))
    }

    /// Folder of the adapter for a task.
    #[must_use]
    pub fn folder(task: &str) -> String {
        format!("{ADAPTERS}/{task}")
    }
}

/// The number under `key`, or `default` if the key is missing.
fn number<T>(
    config: &ModelConfig,
    key: &str,
    default: T,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<T, String> {
    match config.json.get(key) {
        None if config.nulls.iter().any(|null| null == key) => Err(format!("{key} is null")),
        None => Ok(default),
        Some(value) => read(value).ok_or_else(|| format!("{key} is {value}, which is not valid")),
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
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl PeftConfig {
    /// Rank of the factors, and the scale of their product.
    ///
    /// # Errors
    /// The name of a setting that can change the weights in another way than by one product, or is not known.
    pub fn rank_and_scale(&self) -> Result<(i64, f64), String> {
        /// Settings without an effect on an adapter whose factors are saved. All others have none only if they are null, false or empty.
        const WITHOUT_EFFECT: [&str; 10] = [
            "auto_mapping",
            "base_model_name_or_path",
            "inference_mode",
            "lora_dropout",
            "megatron_core",
            "peft_version",
            "qalora_group_size",
            "revision",
            "target_modules",
            "task_type",
        ];
        if self.peft_type != "LORA" {
            return Err(format!("peft_type {}", self.peft_type));
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| *bias != "none") {
            return Err(format!("bias {bias}"));
        }
        // Other initializations change the weights of the base model.
        match &self.init_lora_weights {
            Value::Null | Value::Bool(_) => (),
            Value::String(kind) if kind == "gaussian" => (),
            other => return Err(format!("init_lora_weights {other}")),
        }
        let is_set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        let mut set = self.others.iter().filter(|(_, value)| is_set(value));
        if let Some((name, _)) = set.find(|(name, _)| !WITHOUT_EFFECT.contains(&name.as_str())) {
            return Err(name.clone());
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

    fn read(config: Value) -> Result<Option<LoraTasks>, String> {
        let Value::Object(config) = config else { unreachable!() };
        LoraTasks::of(&ModelConfig::parse(config))
    }

    fn tasks(config: Value) -> Option<LoraTasks> {
        read(config).unwrap()
    }

    #[test]
    fn numbers_of_another_type_and_repeated_tasks_are_refused() {
        for (key, value, reason) in [
            ("lora_alpha", json!("8"), "lora_alpha is \"8\""),
            ("lora_rank", json!("8"), "lora_rank is \"8\""),
            ("lora_rank", json!(4.5), "lora_rank is 4.5"),
            ("lora_alpha", json!(null), "lora_alpha is null"),
            ("lora_adaptations", json!(["a", "b", "a"]), "lists the task a twice"),
        ] {
            let mut config = json!({"lora_adaptations": ["a"]});
            config[key] = value;
            let found = read(config).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
        let defaults = tasks(json!({"lora_adaptations": ["a"]})).unwrap();
        assert_eq!(defaults.form, LoraForm::Stacked { rank: 4, alpha: 1. });
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
                "use_dora": false, "rank_pattern": {}, "modules_to_save": null, "layers_to_transform": [],
                "target_modules": ["q_proj"], "init_lora_weights": "gaussian", "task_type": "FEATURE_EXTRACTION"});
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
            (json!({"init_lora_weights": "pissa"}), "init_lora_weights \"pissa\""),
            (json!({"layers_to_transform": [0]}), "layers_to_transform"),
            (json!({"layers_pattern": "layers"}), "layers_pattern"),
            (json!({"loftq_config": {"loftq_bits": 4}}), "loftq_config"),
            (json!({"new_variant": 1}), "new_variant"),
        ] {
            assert_eq!(read(more), Err(name.to_owned()));
        }
    }
}
