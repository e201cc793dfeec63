//! `config.json` (`PretrainedConfig` in Transformers).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::SentenceTransformers;
use crate::source::{ModelFiles, SourceError};

/// The parts of `config.json` that every architecture shares.
///
/// A field of an unexpected type counts as missing, because a field that a task does not need must not stop an import. `null` counts as
/// missing, except for `local_rope_theta` and `max_length`, where it has another meaning.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The whole file without nulls, except for `local_rope_theta` and `max_length`. Architectures read their own fields from it.
    pub json: Value,
    /// Name of the architecture.
    pub model_type: Option<String>,
    /// Transformers classes that the model was saved from.
    pub architectures: Vec<String>,
    /// Class of the tokenizer, in some old repositories.
    pub tokenizer_class: Option<String>,
    /// Labels of a classifier.
    pub labels: Labels,
    /// Keys whose value is null, and which are not in `json`.
    pub nulls: Vec<String>,
}

/// Keys that Transformers cannot use if they are null, and other keys that can have their meaning. If one of those has a value, the null
/// may belong to a field that the architecture does not have.
const NEVER_NULL: [(&str, &[&str]); 10] = [
    ("dense_act_fn", &[]),
    ("feed_forward_proj", &[]),
    (
        "hidden_act",
        &["activation", "activation_function", "feed_forward_proj", "hidden_activation"],
    ),
    ("hidden_activation", &[]),
    ("layer_norm_eps", &["layer_norm_epsilon", "norm_eps", "rms_norm_eps"]),
    ("layer_norm_epsilon", &["layer_norm_eps", "norm_eps", "rms_norm_eps"]),
    ("norm_eps", &["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"]),
    ("query_pre_attn_scalar", &[]),
    ("rms_norm_eps", &["layer_norm_eps", "layer_norm_epsilon", "norm_eps"]),
    ("rope_theta", &["rope_parameters"]),
];

/// Keys with another meaning if they are null than if they are missing: the `local_rope_theta` of ModernBERT then equals the global one, and
/// the `max_length` of model2vec is unlimited.
const NULLS: [&str; 2] = ["local_rope_theta", "max_length"];

/// Labels of a classifier, in the order of its logits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    problem: Option<String>,
}

impl Labels {
    /// Labels with these names.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self { names, problem: None }
    }

    /// The names.
    ///
    /// # Errors
    /// The reason why `config.json` does not name a label for each logit.
    pub fn names(&self) -> Result<&[String], String> {
        match &self.problem {
            Some(problem) => Err(problem.clone()),
            None => Ok(&self.names),
        }
    }

    /// Number of logits.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

/// Maximum number of labels. It is above every real model, and default names for all of them need little memory.
const MAX_LABELS: u64 = 1 << 20;

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`SourceError`] if the file is missing or is not a JSON object.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let json: Map<String, Value> = files.required_json(
            "config.json",
            "it describes a Transformers model; check that this is the folder of the model",
        )?;
        Ok(Self::parse(json))
    }

    /// Reads `config.json` in the folder of the first module of a repository. A table of tokens needs no such file.
    ///
    /// # Errors
    /// [`SourceError`] if a required file is missing, or the file is not a JSON object.
    pub fn of_module(
        folder: &ModelFiles,
        modules: Option<&SentenceTransformers>,
    ) -> Result<Self, SourceError> {
        match modules {
            Some(modules) if modules.is_token_table() || modules.is_static_embedding() => {
                Ok(Self::parse(folder.json("config.json")?.unwrap_or_default()))
            }
            _ => Self::read(folder),
        }
    }

    /// Whether the model is a table of model2vec. Its `StaticModel.save_pretrained` writes these keys, and `model_type` only for distilled
    /// models.
    #[must_use]
    pub fn is_model2vec(&self) -> bool {
        const KEYS: [&str; 3] = ["embedding_dtype", "normalize", "vocabulary_quantization"];
        match self.model_type.as_deref() {
            Some(name) => name == "model2vec",
            None => KEYS.iter().any(|key| self.json.get(*key).is_some()),
        }
    }

    /// Interprets the content of `config.json`.
    #[must_use]
    pub fn parse(mut json: Map<String, Value>) -> Self {
        let nulls = json.iter().filter(|(_, value)| value.is_null());
        let nulls = nulls.map(|(key, _)| key.clone()).collect();
        json.retain(|key, value| !value.is_null() || NULLS.contains(&key.as_str()));
        let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        let architectures = match json.get("architectures") {
            Some(Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::String(name)) => vec![name.clone()],
            _ => Vec::new(),
        };
        Self {
            model_type: text("model_type").filter(|name| !name.is_empty()),
            architectures,
            tokenizer_class: text("tokenizer_class"),
            labels: labels(json.get("id2label"), json.get("num_labels")),
            json: Value::Object(json),
            nulls,
        }
    }

    /// A key that is null, although Transformers needs a value.
    #[must_use]
    pub fn refused_null(&self) -> Option<&str> {
        let is_null = |key: &str| self.nulls.iter().any(|null| null == key);
        let is_refused = |(key, others): &(&str, &[&str])| {
            is_null(key) && others.iter().all(|other| self.json.get(*other).is_none())
        };
        NEVER_NULL.into_iter().find(is_refused).map(|(key, _)| key)
    }

    /// Python class in the repository that the model needs (`auto_map`), if there is one.
    #[must_use]
    pub fn own_code(&self) -> Option<&str> {
        let map = self.json.get("auto_map")?.as_object()?;
        // A configuration class alone does not change how the model computes.
        let models = map.iter().filter(|(auto, _)| auto.starts_with("AutoModel"));
        models.filter_map(|(_, class)| class.as_str()).next()
    }

    /// Quantization of the checkpoint (`quantization_config`); `None` if it is not quantized.
    #[must_use]
    pub fn quantization(&self) -> Option<Quantization> {
        // Older releases of compressed-tensors have a key of their own.
        let mut fields = ["quantization_config", "compression_config"]
            .iter()
            .find_map(|key| self.json.get(*key)?.as_object())?;
        if let (None, Some(inner)) = (
            fields.get("quant_method"),
            fields.get("compression_config").and_then(Value::as_object),
        ) {
            fields = inner;
        }
        let is = |name: &str| fields.get(name) == Some(&Value::Bool(true));
        let method = fields.get("quant_method").and_then(Value::as_str);
        let denies = |name: &str| fields.get(name) == Some(&Value::Bool(false));
        if method.is_none_or(|method| method == "bitsandbytes")
            && ["load_in_8bit", "load_in_4bit"].iter().all(|name| denies(name))
            && !["_load_in_8bit", "_load_in_4bit"].iter().any(|name| is(name))
        {
            return None;
        }
        Some(match method {
            Some("bitsandbytes") | None if is("load_in_8bit") || is("_load_in_8bit") => {
                Quantization::BitsAndBytes8
            }
            Some("bitsandbytes") | None if is("load_in_4bit") || is("_load_in_4bit") => {
                Quantization::Other("bitsandbytes, 4 bits".to_owned())
            }
            Some(method) => {
                let bits = ["bits", "num_bits"].iter().find_map(|key| fields.get(*key)?.as_u64());
                let bits = bits.map(|bits| format!(", {bits} bits")).unwrap_or_default();
                Quantization::Other(format!("{method}{bits}"))
            }
            None => Quantization::Other("quantization_config names no quant_method".to_owned()),
        })
    }
}

/// Quantization of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantization {
    /// 8-bit weights of bitsandbytes: rows of int8 with one scale (`SCB`) per row, which can be converted to float32 without loss.
    BitsAndBytes8,
    /// Another scheme, with its name.
    Other(String),
}

/// Labels in the order of their ids. As in Transformers, `id2label` takes precedence over `num_labels`, and the default is two
/// labels.
fn labels(id2label: Option<&Value>, num_labels: Option<&Value>) -> Labels {
    let defaults = |n: u64| {
        if n > MAX_LABELS {
            let problem = Some(format!("num_labels is {n}, which is not a valid number"));
            return Labels { names: Vec::new(), problem };
        }
        Labels::new((0..n).map(|i| format!("LABEL_{i}")).collect())
    };
    let named = match id2label {
        Some(Value::Object(named)) => named,
        Some(Value::Array(names)) => {
            return Labels::new(names.iter().map(label).collect());
        }
        _ => return defaults(num_labels.and_then(Value::as_u64).unwrap_or(2)),
    };
    let mut by_id = BTreeMap::new();
    let mut problem = None;
    for (id, name) in named {
        match id.trim().parse::<usize>() {
            Ok(number) => drop(by_id.insert(number, label(name))),
            Err(_) => problem = Some(format!("id2label: {id:?} is not an id")),
        }
    }
    if let (None, Some((i, _))) = (&problem, by_id.keys().enumerate().find(|(i, id)| i != *id)) {
        problem = Some(format!(
            "id2label in config.json names {} labels, and none of them has id {i}: number the labels from 0 without a gap, in the order \
             of the model's logits",
            by_id.len()
        ));
    }
    if by_id.is_empty() && problem.is_none() {
        return defaults(num_labels.and_then(Value::as_u64).unwrap_or(2));
    }
    Labels { names: by_id.into_values().collect(), problem }
}

/// Name of a label, formatted as Python prints it.
fn label(name: &Value) -> String {
    match name {
        Value::String(name) => name.clone(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(id2label: Value, num_labels: Value) -> Result<Vec<String>, String> {
        let json = json!({"id2label": id2label, "num_labels": num_labels});
        let Value::Object(json) = json else { unreachable!() };
        ModelConfig::parse(json).labels.names().map(<[String]>::to_vec)
    }

    #[test]
    fn labels_are_ordered_by_id() {
        let many: Map<_, _> = (0..12).map(|i| (i.to_string(), json!(format!("L{i}")))).collect();
        assert_eq!(read(many.into(), json!(null)).unwrap()[9..], ["L9", "L10", "L11"]);
        assert_eq!(read(json!(null), json!(3)).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        assert_eq!(read(json!(null), json!(null)).unwrap().len(), 2);
        assert_eq!(read(json!({"0": 1, "1": null}), json!(null)).unwrap(), ["1", "None"]);
    }

    #[test]
    fn id2label_takes_precedence_over_num_labels() {
        assert_eq!(read(json!({"0": "a"}), json!(2)).unwrap(), ["a"]);
        assert_eq!(read(json!({"0": "a", "1": "b"}), json!("x")).unwrap(), ["a", "b"]);
    }

    #[test]
    fn labels_with_a_gap_report_the_missing_id() {
        let problem = read(json!({"1": "a", "2": "b"}), json!(null)).unwrap_err();
        assert!(problem.contains("none of them has id 0"), "{problem}");
        assert!(read(json!({"x": "a"}), json!(null)).is_err());
        assert!(read(json!(null), json!(1u64 << 40)).is_err());
    }

    #[test]
    fn fields_of_an_unexpected_type_count_as_missing() {
        let json = json!({"model_type": 3, "architectures": "BertModel", "tokenizer_class": null, "x": null});
        let Value::Object(json) = json else { unreachable!() };
        let config = ModelConfig::parse(json);
        assert_eq!((config.model_type, config.tokenizer_class), (None, None));
        assert_eq!(config.architectures, ["BertModel"]);
        assert!(config.json.get("x").is_none());
    }

    #[test]
    fn nulls_that_transformers_cannot_use_are_refused() {
        let refused = |json: Value| {
            let Value::Object(json) = json else { unreachable!() };
            ModelConfig::parse(json).refused_null().map(str::to_owned)
        };
        for key in ["layer_norm_eps", "hidden_act", "feed_forward_proj", "rope_theta"] {
            assert_eq!(refused(json!({ key: null })).as_deref(), Some(key));
        }
        assert_eq!(refused(json!({"hidden_act": null, "hidden_activation": "gelu"})), None);
        assert_eq!(refused(json!({"rope_theta": null, "rope_parameters": {}})), None);
        assert_eq!(refused(json!({"num_key_value_heads": null, "hidden_act": "gelu"})), None);
    }

    #[test]
    fn quantization_config_names_its_scheme() {
        let scheme = |fields: Value| {
            let Value::Object(json) = json!({ "quantization_config": fields }) else {
                unreachable!()
            };
            ModelConfig::parse(json).quantization().unwrap()
        };
        let eight = json!({"load_in_8bit": true, "quant_method": "bitsandbytes"});
        assert_eq!(scheme(eight), Quantization::BitsAndBytes8);
        for (fields, name) in [
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "bitsandbytes, 4 bits"),
            (json!({"quant_method": "gptq", "bits": 4}), "gptq, 4 bits"),
            (json!({"quant_method": "fp8"}), "fp8"),
            (
                json!({"compression_config": {"quant_method": "compressed-tensors"}}),
                "compressed-tensors",
            ),
        ] {
            assert_eq!(scheme(fields), Quantization::Other(name.to_owned()));
        }
    }
}
