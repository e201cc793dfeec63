//! `PUT /_ml/trained_models/{id}`: the configuration of a model (contract, 2).

pub(crate) mod identifier;
pub(crate) mod task;
pub(crate) mod tokenization;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::errors::ApiError;
use crate::json::Object;
use crate::version::{Version, since};
use task::InferenceConfig;

/// Index for models created by users, including vocabulary and definition.
const INDEX: &str = ".ml-inference-native-000002";

const PARSER: &str = "trained_model_config";

/// Fields set by the server only.
const ILLEGAL: [&str; 6] =
    ["version", "created_by", "create_time", "license_level", "location", "model_package"];

/// Keys of `metadata` set by the server only.
const ILLEGAL_METADATA: [&str; 2] = ["total_feature_importance", "model_aliases"];

/// Fields omitted by `GET` with `exclude_generated`.
pub(crate) const GENERATED: [&str; 6] = [
    "created_by",
    "version",
    "create_time",
    "model_size_bytes",
    "estimated_operations",
    "license_level",
];

/// A stored configuration.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) model_id: String,
    pub(crate) tags: Vec<String>,
    /// Names of the required fields of a document.
    pub(crate) inputs: Vec<String>,
    pub(crate) inference: InferenceConfig,
    /// Configuration as returned by `GET`.
    pub(crate) document: Map<String, Value>,
}

impl Configuration {
    /// Parses and validates a new configuration.
    pub(crate) fn create(model_id: &str, body: Value, version: Version) -> Result<Self, ApiError> {
        let mut fields = Object::new(PARSER, body)?;
        let mut complaints = Vec::new();

        if let Some(supplied) = fields.string("model_id")?.filter(|supplied| supplied != model_id) {
            return Err(ApiError::illegal_argument(format!(
                "Inconsistent model_id; '{supplied}' specified in the body differs from '{model_id}' specified as a URL argument"
            )));
        }
        let model_type = fields.string("model_type")?;
        let description = fields.string("description")?;
        let tags = fields.strings("tags")?.unwrap_or_default();
        let metadata = fields.object("metadata")?;
        let inputs = match fields.take("input") {
            Some(input) => Some(read_input(input)?),
            None => None,
        };
        let inference = match fields.take("inference_config") {
            Some(value) => Some(
                InferenceConfig::parse(value, version)
                    .map_err(|error| error.while_parsing(PARSER, "inference_config"))?,
            ),
            None => None,
        };
        let model_size = match fields.long("model_size_bytes")? {
            Some(size) => Some(size),
            None => fields.long("estimated_heap_memory_usage_bytes")?,
        };
        let operations = fields.long("estimated_operations")?;
        let default_field_map = fields.object("default_field_map")?;
        let definition = fields.take("definition").is_some();
        let compressed = fields.take("compressed_definition").is_some();
        let prefix_strings = if version >= since::PREFIX_STRINGS {
            fields.take("prefix_strings").map(read_prefix_strings).transpose()?
        } else {
            None
        };
        let platform = if version >= since::PLATFORM_ARCHITECTURE {
            fields.string("platform_architecture")?
        } else {
            None
        };
        for name in ILLEGAL {
            if fields.take(name).is_some() {
                complaints.push(illegal(name));
            }
        }
        fields.finish()?;

        if let Some(other) = model_type.as_deref().filter(|name| *name != "pytorch") {
            return Err(ApiError::not_implemented(format!(
                "the stand-in keeps PyTorch models only, not [{other}]"
            )));
        }
        if definition && compressed {
            complaints
                .push("both [compressed_definition] and [definition] cannot be set.".to_owned());
        }
        match model_type {
            None if !definition && !compressed => {
                complaints
                    .push("[model_type] must be set if [definition] is not defined.".to_owned());
            }
            Some(_) if definition || compressed => complaints.push(
                "[definition] and [location] are both defined but only one can be used.".to_owned(),
            ),
            _ => {}
        }
        complaints.extend(identifier::complaints(model_id));
        complaints.extend(identifier::tag_complaints(model_id, &tags));
        for name in ILLEGAL_METADATA {
            if metadata.as_ref().is_some_and(|metadata| metadata.contains_key(name)) {
                complaints.push(illegal(&format!("metadata.{name}")));
            }
        }
        for (name, value) in
            [("model_size_bytes", model_size), ("estimated_operations", operations)]
        {
            if value.is_some_and(|value| value < 0) {
                complaints.push(format!("[{name}] must be greater than or equal to 0"));
            }
        }
        if let Some(map) = &default_field_map
            && !map.values().all(Value::is_string)
        {
            return Err(ApiError::parse(format!(
                "[1:1] [{PARSER}] failed to parse field [default_field_map]"
            )));
        }
        if !complaints.is_empty() {
            return Err(ApiError::validation(&complaints));
        }
        let Some(inference) = inference else {
            return Err(ApiError::illegal_argument("[inference_config] must not be null."));
        };
        if definition || compressed {
            return Err(ApiError::not_implemented("the stand-in keeps PyTorch models only"));
        }

        let inputs = inputs.unwrap_or_else(|| vec!["input".to_owned()]);
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put("model_id", model_id.into());
        put("model_type", "pytorch".into());
        put("created_by", "api_user".into());
        put("version", config_version(version).into());
        put("create_time", milliseconds_now().into());
        put("model_size_bytes", model_size.unwrap_or(0).into());
        put("estimated_operations", operations.unwrap_or(0).into());
        put("license_level", "platinum".into());
        if let Some(description) = description {
            put("description", description.into());
        }
        put("tags", tags.clone().into());
        if let Some(metadata) = metadata {
            put("metadata", metadata.into());
        }
        if let Some(map) = default_field_map {
            put("default_field_map", map.into());
        }
        put("input", json!({"field_names": inputs}));
        put("inference_config", inference.to_json(INDEX));
        put("location", json!({"index": {"name": INDEX}}));
        if let Some(prefixes) = prefix_strings {
            put("prefix_strings", prefixes);
        }
        if let Some(platform) = platform {
            put("platform_architecture", platform.into());
        }
        Ok(Self { model_id: model_id.to_owned(), tags, inputs, inference, document })
    }

    /// Parses a stored configuration.
    pub(crate) fn from_document(document: Map<String, Value>) -> Result<Self, ApiError> {
        let strings = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let mut inference = document.get("inference_config").cloned().unwrap_or_default();
        for task in inference.as_object_mut().into_iter().flat_map(Map::values_mut) {
            // Only stored configurations may contain the location of the vocabulary.
            if let Some(settings) = task.as_object_mut() {
                settings.shift_remove("vocabulary");
            }
        }
        Ok(Self {
            model_id: document
                .get("model_id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            tags: document.get("tags").map(strings).unwrap_or_default(),
            inputs: document
                .get("input")
                .map(|input| strings(&input["field_names"]))
                .unwrap_or_default(),
            // A newer server must read what an older one stored, so fields of every version are accepted.
            inference: InferenceConfig::parse(inference, Version::new(u32::MAX, 0, 0))?,
            document,
        })
    }

    /// Numeric value of a key of `metadata`, as used by the memory estimate.
    pub(crate) fn metadata_number(&self, key: &str) -> Option<f64> {
        self.document.get("metadata")?.get(key)?.as_f64()
    }
}

fn illegal(name: &str) -> String {
    format!("illegal to set [{name}] at inference model creation")
}

fn read_input(value: Value) -> Result<Vec<String>, ApiError> {
    let mut fields = Object::new("trained_model_config_input", value)
        .map_err(|error| error.while_parsing(PARSER, "input"))?;
    let names = fields.strings("field_names")?;
    fields.finish()?;
    let Some(names) = names else {
        return Err(ApiError::illegal_argument("Required [field_names]"));
    };
    if names.is_empty() {
        return Err(ApiError::validation(&["[input.field_names] must not be empty".to_owned()]));
    }
    if names.iter().any(|name| name.split('.').any(str::is_empty)) {
        return Err(ApiError::validation(&[
            "[input.field_names] must only contain valid dot delimited field names".to_owned(),
        ]));
    }
    Ok(names)
}

fn read_prefix_strings(value: Value) -> Result<Value, ApiError> {
    let mut fields = Object::new("prefix_strings", value)
        .map_err(|error| error.while_parsing(PARSER, "prefix_strings"))?;
    let mut prefixes = Map::new();
    for name in ["ingest", "search"] {
        if let Some(prefix) = fields.string(name)? {
            prefixes.insert(name.to_owned(), prefix.into());
        }
    }
    fields.finish()?;
    Ok(prefixes.into())
}

/// Since 8.10, configurations have their own version.
fn config_version(version: Version) -> String {
    if version >= Version::new(8, 10, 0) { "12.0.0".to_owned() } else { version.to_string() }
}

pub(crate) fn milliseconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(body: Value) -> Result<Configuration, ApiError> {
        Configuration::create("m", body, Version::default())
    }

    fn with(name: &str, value: Value) -> Value {
        let mut body = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
        body[name] = value;
        body
    }

    #[test]
    fn minimal_configuration_is_valid_and_parses_again() {
        let body = json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
        let config = create(body).unwrap();
        assert_eq!(config.inputs, ["input"]);
        assert_eq!(config.document["inference_config"]["ner"]["vocabulary"]["index"], INDEX);
        assert_eq!(config.document["version"], "12.0.0");
        let again = Configuration::from_document(config.document.clone()).unwrap();
        assert_eq!(again.inference, config.inference);
        assert_eq!((again.model_id.as_str(), again.inputs), ("m", vec!["input".to_owned()]));
    }

    #[test]
    fn invalid_configuration_is_rejected_with_the_contract_message() {
        for (body, text) in [
            (
                json!({"inference_config": {"ner": {}}}),
                "[model_type] must be set if [definition] is not defined.",
            ),
            (json!({"model_type": "pytorch"}), "[inference_config] must not be null."),
            (
                with("model_id", json!("n")),
                "Inconsistent model_id; 'n' specified in the body differs from 'm'",
            ),
            (with("nothing", json!(1)), "[trained_model_config] unknown field [nothing]"),
            (
                with("created_by", json!("me")),
                "illegal to set [created_by] at inference model creation",
            ),
            (with("location", json!({})), "illegal to set [location] at inference model creation"),
            (
                with("metadata", json!({"model_aliases": []})),
                "illegal to set [metadata.model_aliases] at inference model creation",
            ),
            (with("input", json!({"field_names": []})), "[input.field_names] must not be empty"),
            (with("input", json!({"field_names": ["a..b"]})), "valid dot delimited field names"),
            (with("input", json!({"names": ["a"]})), "unknown field [names]"),
            (with("tags", json!(["m"])), "none of the tags must equal the model_id"),
            (with("tags", json!(["No"])), "Invalid tags [No]; must only can contain"),
            (
                with("prefix_strings", json!({"query": "q"})),
                "[prefix_strings] unknown field [query]",
            ),
            (
                with("description", json!(5)),
                "description doesn't support values of type: VALUE_NUMBER",
            ),
            (with("definition", json!({})), "[definition] and [location] are both defined"),
            (with("model_size_bytes", json!(-1)), "[model_size_bytes] must be"),
        ] {
            let complaint = create(body).unwrap_err().everything();
            assert!(complaint.contains(text), "{complaint}");
        }
    }

    #[test]
    fn invalid_id_is_reported_with_all_messages() {
        let body = json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
        let id = "Upper".repeat(20);
        let complaint =
            Configuration::create(&id, body, Version::default()).unwrap_err().everything();
        assert!(complaint.contains("can contain lowercase alphanumeric"), "{complaint}");
        assert!(complaint.contains("cannot contain more than 64 characters."), "{complaint}");
    }

    #[test]
    fn newer_fields_are_rejected_by_older_servers() {
        let old = Version::new(8, 11, 0);
        let prefixed = with("prefix_strings", json!({"search": "query: "}));
        let refused = Configuration::create("m", prefixed.clone(), old).unwrap_err();
        assert!(refused.everything().contains("unknown field [prefix_strings]"));
        assert!(Configuration::create("m", prefixed, Version::new(8, 12, 0)).is_ok());
        let platform = with("platform_architecture", json!("linux-x86_64"));
        assert!(Configuration::create("m", platform, Version::new(8, 9, 0)).is_err());
    }
}
