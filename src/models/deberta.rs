//! DeBERTa v1 (He et al. 2020, arXiv:2006.03654; `transformers/models/deberta/modeling_deberta.py`).
//!
//! A DeBERTa v2 whose distances have no buckets, and whose attention has one tensor for query, key and value.

use serde_json::Value;

use super::deberta_v2::{self, DebertaV2Config};
use super::weights::Weights;
use super::{Blueprint, ConfigError, Dimensions, Evidence, Model};

pub(super) use super::deberta_v2::SPELLINGS;

/// Whether a folder contains this architecture.
pub(super) fn detects(evidence: &Evidence<'_>) -> bool {
    evidence.is("deberta") || evidence.is_untyped_with(&[".attention.self.in_proj."])
}

/// Sizes of a DeBERTa v1.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    Ok(DebertaV2Config::read_first_version(config)?.dimensions())
}

/// Builds a DeBERTa v1 with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = DebertaV2Config::read_first_version(blueprint.config)?;
    Ok(deberta_v2::build(weights, blueprint, &config))
}
