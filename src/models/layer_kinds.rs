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

/// Refuses a list of kinds with fewer entries than layers.
pub(super) fn check_kinds(kinds: Option<&[LayerKind]>, layers: i64) -> Result<(), ConfigError> {
    if kinds.is_some_and(|kinds| (kinds.len() as i64) < layers) {
        return Err(ConfigError::Value(format!(
            "layer_types has fewer entries than num_hidden_layers {layers}"
        )));
    }
    Ok(())
}
