//! Encoders whose layers attend to all tokens or to a sliding window: the kind of each layer in `config.json`, and rotary positions by
//! kind, in the spelling of Transformers 5.

use serde::Deserialize;

use super::ConfigError;

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
#[serde(default, deny_unknown_fields)]
pub(super) struct RopeByKind {
    full_attention: Rope,
    sliding_attention: Rope,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl RopeByKind {
    /// Base of the angles of layers that attend to all tokens, if stated.
    pub(super) fn full_theta(&self) -> Option<f64> {
        self.full_attention.rope_theta
    }

    /// Base of the angles of layers with a sliding window, if stated.
    pub(super) fn sliding_theta(&self) -> Option<f64> {
        self.sliding_attention.rope_theta
    }

    /// Refuses scaled positions.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let types = [&self.full_attention, &self.sliding_attention];
        let mut types = types.into_iter().filter_map(|rope| rope.rope_type.as_deref());
        match types.find(|name| *name != "default") {
            Some(other) => Err(ConfigError::Unsupported(
                format!("the rope_type {other}"),
                "only unscaled rotary positions (rope_type default) are known for this architecture",
            )),
            None => Ok(()),
        }
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
