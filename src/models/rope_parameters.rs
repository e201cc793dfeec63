//! Rotary positions in `config.json`, in the spellings of Transformers 4 (`rope_theta` and `rope_scaling`) and 5 (`rope_parameters`).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ConfigError, read_config};

/// Rotary positions that all layers share.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RopeParameters {
    /// Base of the angles.
    pub(super) theta: Option<f64>,
    /// Scaling of the angles for longer texts.
    pub(super) scaling: Option<RopeScaling>,
}

/// A formula that scales the angles for longer texts. The factor is at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RopeScaling {
    /// Positions divided by the factor.
    Linear {
        /// How many times longer the texts are.
        factor: f64,
    },
    /// NTK scaling at every length.
    Ntk {
        /// How many times longer the texts are.
        factor: f64,
        /// Exponent of mixed NTK scaling.
        mixed_b: Option<f64>,
    },
}

/// The object under `rope_scaling` or `rope_parameters`.
#[derive(Debug, Default, Deserialize)]
struct Fields {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    r#type: Option<String>,
    factor: Option<f64>,
    mixed_b: Option<f64>,
    /// Fields of other formulas.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl RopeParameters {
    /// Reads all spellings.
    ///
    /// # Errors
    /// [`ConfigError`] if spellings contradict each other, or a field or value is not known.
    pub(super) fn read(config: &Value) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        // The scaling of the first object that has a type.
        let mut stated = None;
        let mut merge = |found: Self, has_type: bool| -> Result<(), ConfigError> {
            if all.theta.is_some_and(|known| found.theta.is_some_and(|theta| theta != known))
                || has_type && stated.is_some_and(|stated| stated != found.scaling)
            {
                return Err(ConfigError::Value(
                    "rope_theta, rope_scaling and rope_parameters contradict each other; keep the values that the model was trained with".into(),
                ));
            }
            if has_type {
                stated = Some(found.scaling);
            }
            all.theta = all.theta.or(found.theta);
            all.scaling = all.scaling.or(found.scaling);
            Ok(())
        };
        if let Some(theta) = config.get("rope_theta") {
            merge(Self { theta: read_config(theta)?, scaling: None }, false)?;
        }
        for name in ["rope_scaling", "rope_parameters"] {
            if let Some(object) = config.get(name).filter(|object| !object.is_null()) {
                let fields: Fields = read_config(object)?;
                let has_type = fields.rope_type.is_some() || fields.r#type.is_some();
                merge(fields.parameters(name)?, has_type)?;
            }
        }
        match all.theta {
            Some(theta) if theta.is_nan() || theta <= 0. => Err(ConfigError::Value(format!(
                "rope_theta is {theta}, which is no base of angles"
            ))),
            _ => Ok(all),
        }
    }
}

impl Fields {
    fn parameters(self, name: &str) -> Result<RopeParameters, ConfigError> {
        check_known(&self.others, name)?;
        if let (Some(old), Some(new)) = (&self.r#type, &self.rope_type)
            && old != new
        {
            return Err(ConfigError::Value(format!(
                "{name} has the type {old} and the rope_type {new}; keep the value that the model was trained with"
            )));
        }
        let kind = self.r#type.or(self.rope_type).unwrap_or_else(|| "default".to_owned());
        let scaling = match (kind.as_str(), self.factor.filter(|&factor| factor >= 1.)) {
            ("default", _) => None,
            ("linear", Some(factor)) => Some(RopeScaling::Linear { factor }),
            ("ntk", Some(factor)) => Some(RopeScaling::Ntk { factor, mixed_b: self.mixed_b }),
            ("linear" | "ntk", None) => {
                return Err(ConfigError::Value(format!(
                    "{name} has the type {kind}, which requires a factor of at least 1"
                )));
            }
            _ => {
                return Err(ConfigError::Unsupported(
                    format!("{kind} in {name}"),
                    "only default, linear and ntk are known",
                ));
            }
        };
        Ok(RopeParameters { theta: self.rope_theta, scaling })
    }
}

/// Refuses fields of `name` that are not known.
pub(super) fn check_known(others: &Map<String, Value>, name: &str) -> Result<(), ConfigError> {
    match others.iter().find(|(_, value)| !value.is_null()) {
        Some((field, _)) => Err(ConfigError::Unsupported(
            format!("{field} in {name}"),
            "it changes the rotary positions in a way that is not known",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spellings_of_both_generations_are_equal() {
        let ntk = |mixed_b| Some(RopeScaling::Ntk { factor: 2., mixed_b });
        for (config, theta, scaling) in [
            (json!({}), None, None),
            (json!({ "rope_theta": 500, "rope_scaling": null }), Some(500.), None),
            (
                json!({ "rope_theta": 500, "rope_scaling": { "type": "ntk", "factor": 2.0 } }),
                Some(500.),
                ntk(None),
            ),
            (
                json!({ "rope_parameters": { "rope_theta": 500, "rope_type": "default" } }),
                Some(500.),
                None,
            ),
            (
                json!({
                    "rope_theta": 500,
                    "rope_scaling": { "type": "ntk", "rope_type": "ntk", "factor": 2, "mixed_b": 0.5 },
                }),
                Some(500.),
                ntk(Some(0.5)),
            ),
        ] {
            assert_eq!(RopeParameters::read(&config).unwrap(), RopeParameters { theta, scaling });
        }
    }

    #[test]
    fn contradictions_and_unknown_fields_are_refused() {
        for config in [
            json!({ "rope_theta": 500, "rope_parameters": { "rope_theta": 1000 } }),
            json!({ "rope_theta": 0 }),
            json!({ "rope_theta": "many" }),
            json!({ "rope_scaling": { "type": "ntk" } }),
            json!({ "rope_scaling": { "type": "ntk", "factor": 0.5 } }),
            json!({ "rope_scaling": { "type": "ntk", "factor": 2, "beta_fast": 32 } }),
            json!({ "rope_scaling": { "type": "yarn", "factor": 2 } }),
            json!({ "rope_parameters": { "full_attention": { "rope_theta": 500 } } }),
            json!({ "rope_parameters": { "type": "linear", "rope_type": "default", "factor": 4 } }),
            json!({
                "rope_scaling": { "type": "linear", "factor": 2 },
                "rope_parameters": { "rope_type": "default", "rope_theta": 500 },
            }),
            json!({
                "rope_scaling": { "type": "default" },
                "rope_parameters": { "rope_type": "linear", "factor": 2 },
            }),
        ] {
            assert!(RopeParameters::read(&config).is_err(), "{config}");
        }
    }
}
