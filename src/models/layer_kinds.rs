//! Encoders whose layers attend to all tokens or to a sliding window: the kind of each layer in `config.json`, and rotary positions by
//! kind, in the spelling of Transformers 5.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ConfigError;
use super::rope_parameters::check_known;

/// An entry of `layer_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayerKind {
    /// All tokens attend to each other.
    FullAttention,
    /// Tokens attend to tokens at a limited distance.
    SlidingAttention,
}

/// `rope_parameters` with one entry for each kind of layer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RopeByKind {
    full_attention: Option<Rope>,
    sliding_attention: Option<Rope>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Rotary positions of one kind of layer, or `rope_scaling`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    r#type: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Rope {
    /// Refuses positions that are scaled, and fields that are not known. `name` is the object's name in `config.json`.
    pub(super) fn check_unscaled(&self, name: &str) -> Result<(), ConfigError> {
        let mut types = [&self.rope_type, &self.r#type].into_iter().flatten();
        match types.find(|kind| *kind != "default") {
            Some(other) => Err(ConfigError::Unsupported(
                format!("the rope_type {other}"),
                "only unscaled rotary positions (rope_type default) are known for this architecture",
            )),
            None => check_known(&self.others, name),
        }
    }
}

impl Rope {
    /// Refuses an object under `rope_scaling` that scales positions, or has fields that are not known or a theta. Transformers 4 ignores
    /// such a theta, and Transformers 5 applies it.
    pub(super) fn check_scaling(&self) -> Result<(), ConfigError> {
        self.check_unscaled("rope_scaling")?;
        match self.rope_theta {
            Some(_) => Err(ConfigError::Unsupported(
                "rope_theta in rope_scaling".into(),
                "releases of Transformers read it differently",
            )),
            None => Ok(()),
        }
    }
}

impl RopeByKind {
    /// Base of the angles of layers that attend to all tokens, if stated.
    pub(super) fn full_theta(&self) -> Option<f64> {
        self.full_attention.as_ref()?.rope_theta
    }

    /// Base of the angles of layers with a sliding window, if stated.
    pub(super) fn sliding_theta(&self) -> Option<f64> {
        self.sliding_attention.as_ref()?.rope_theta
    }

    /// Refuses scaled positions, unknown fields, and thetas other than those under the names of Transformers 4 in `config`: the names for
    /// full and for sliding attention.
    pub(super) fn check(&self, config: &Value, names: [&str; 2]) -> Result<(), ConfigError> {
        for rope in [&self.full_attention, &self.sliding_attention].into_iter().flatten() {
            rope.check_unscaled("rope_parameters")?;
        }
        check_known(&self.others, "rope_parameters")?;
        for (name, theta) in names.into_iter().zip([self.full_theta(), self.sliding_theta()]) {
            // -1 stands for the other theta.
            let stated = config.get(name).and_then(Value::as_f64).filter(|stated| *stated > 0.);
            if let Some((stated, theta)) =
                stated.zip(theta).filter(|(stated, theta)| stated != theta)
            {
                return Err(ConfigError::Value(format!(
                    "{name} is {stated} and rope_parameters has the rope_theta {theta}; keep the value that the model was trained with"
                )));
            }
        }
        Ok(())
    }
}

/// Refuses numbers that are not bases of angles.
pub(super) fn check_thetas(thetas: [f64; 2]) -> Result<(), ConfigError> {
    match thetas.into_iter().find(|theta| !(theta.is_finite() && *theta > 0.)) {
        Some(theta) => Err(ConfigError::Value(format!(
            "the rope_theta {theta} is not a base of angles; use the config.json that belongs to the weights"
        ))),
        None => Ok(()),
    }
}

/// The kind of a layer, if `layer_types` is present.
pub(super) fn kind_of(kinds: Option<&[LayerKind]>, layer: i64) -> Option<LayerKind> {
    kinds?.get(usize::try_from(layer).ok()?).copied()
}

/// Refuses a list of kinds with another number of entries than layers.
pub(super) fn check_kinds(kinds: Option<&[LayerKind]>, layers: i64) -> Result<(), ConfigError> {
    match kinds.map(<[_]>::len).filter(|entries| *entries as i64 != layers) {
        Some(entries) => Err(ConfigError::Value(format!(
            "layer_types has {entries} entries, and num_hidden_layers is {layers}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn theta_in_rope_scaling_is_refused() {
        let check = |rope: Value| serde_json::from_value::<Rope>(rope).unwrap().check_scaling();
        check(json!({"rope_type": "default"})).unwrap();
        let error = check(json!({"rope_theta": 55.0})).unwrap_err().to_string();
        assert!(error.contains("rope_theta in rope_scaling"), "{error}");
        assert!(check(json!({"rope_type": "linear", "factor": 2})).is_err());
    }

    #[test]
    fn layer_types_need_an_entry_for_each_layer() {
        let kinds = [LayerKind::FullAttention; 3];
        check_kinds(Some(&kinds), 3).unwrap();
        check_kinds(None, 3).unwrap();
        for layers in [2, 4] {
            let error = check_kinds(Some(&kinds), layers).unwrap_err().to_string();
            assert!(error.contains("layer_types has 3 entries"), "{error}");
        }
    }
}
