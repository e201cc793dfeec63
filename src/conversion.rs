//! Conversion of a model's files to a bundle.
//!
//! Without the feature `torch` no model can be converted: [`Conversion::read`] and [`Plan::read`] then return an error that says
//! so.

#[cfg(feature = "torch")]
mod answers;
#[cfg(feature = "torch")]
mod bundle_creation;
#[cfg(feature = "torch")]
mod configuration;
#[cfg(feature = "torch")]
mod defects;
#[cfg(feature = "torch")]
mod description;
mod error;
#[cfg(feature = "torch")]
mod fewer_scripts;
#[cfg(feature = "torch")]
mod lora;
#[cfg(feature = "torch")]
mod matryoshka;
mod model_card;
#[cfg(feature = "torch")]
mod model_conversion;
mod options;
#[cfg(feature = "torch")]
mod parts;
#[cfg(feature = "torch")]
mod peak_memory;
mod plan;
#[cfg(feature = "torch")]
mod quantization;
#[cfg(feature = "torch")]
mod quantization_report;
#[cfg(feature = "torch")]
mod quantization_savings;
#[cfg(feature = "torch")]
mod quantization_search;
#[cfg(feature = "torch")]
mod reference_outputs;
#[cfg(feature = "torch")]
mod refused_families;
#[cfg(feature = "torch")]
mod requirements;
#[cfg(feature = "torch")]
mod server_rows;
#[cfg(feature = "torch")]
mod static_embedding;
#[cfg(feature = "torch")]
mod task_modules;
mod token_effect;
#[cfg(feature = "torch")]
mod token_table;
#[cfg(feature = "torch")]
mod tokenization_notes;
mod tokenizer_difference;
#[cfg(feature = "torch")]
mod verify;
#[cfg(not(feature = "torch"))]
mod without_torch;

use serde_json::Value;

use crate::scripts::{Scripts, ScriptsError};

#[cfg(feature = "torch")]
pub use defects::Defect;
#[cfg(feature = "torch")]
pub use description::check_architecture;
pub use error::ConversionError;
#[cfg(feature = "torch")]
pub use model_conversion::{Conversion, Saved, Traced};
pub use options::{Options, Quantize, QuantizeScheme};
#[cfg(feature = "torch")]
pub use peak_memory::PeakMemory;
pub use plan::{
    MemoryAtLength, MemoryOfScheme, Parameters, Plan, PlannedEmbedding, PlannedMemory, PlannedPart,
    PlannedScripts, PlannedTokenizer, PlannedUsage, PlannedWeights, WeightsSeen,
};
#[cfg(feature = "torch")]
pub use quantization_report::Quantization;
#[cfg(feature = "torch")]
pub use quantization_savings::{Change, Savings};
#[cfg(feature = "torch")]
pub use refused_families::check_family;
#[cfg(feature = "torch")]
pub use server_rows::ServerRows;
pub use token_effect::TokenEffect;
pub use tokenizer_difference::{Counts, TokenizerDifference, common_ends};
#[cfg(not(feature = "torch"))]
pub use without_torch::{Conversion, check_architecture, check_family};

/// The key of a configuration's metadata that holds the number of dimensions to which embeddings are cut.
pub const DIMENSIONS: &str = "dimensions";

/// The key of a configuration's metadata that holds the names of the scripts whose tokens are kept.
pub const SCRIPTS: &str = "scripts";

/// The scripts whose tokens a model has, as the metadata of its configuration records them; `None` if it has all tokens.
///
/// # Errors
/// [`ScriptsError`] if the names are not those of scripts.
pub fn kept_scripts(metadata: &Value) -> Result<Option<Scripts>, ScriptsError> {
    let names = match metadata.get(SCRIPTS) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(names)) => names.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let name = |name: &Value| name.as_str().map_or_else(|| name.to_string(), str::to_owned);
    let names: Vec<_> = names.iter().map(name).collect();
    names.join(",").parse().map(Some)
}

/// The key of a configuration's metadata that holds the name of the model within a repository that provides several.
pub const PART: &str = "part";

/// The key of a configuration's metadata that holds the task of the LoRA adapter that was merged into the weights.
pub const LORA_TASK: &str = "lora_task";

/// The key of a configuration's metadata that holds the recommended `similarity` of a `dense_vector` field.
pub const SIMILARITY: &str = "similarity";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recorded_scripts_are_read_and_unknown_ones_refused() {
        let kept = |metadata: Value| kept_scripts(&metadata).map(|it| it.map(|it| it.to_string()));
        assert_eq!(kept(json!({})), Ok(None));
        assert_eq!(kept(json!({"scripts": null})), Ok(None));
        assert_eq!(kept(json!({"scripts": ["Latin", "Greek"]})), Ok(Some("Greek,Latin".into())));
        for unknown in [json!(["Latin", "Klingon"]), json!([7]), json!([]), json!({})] {
            assert!(kept(json!({"scripts": unknown})).is_err(), "{unknown}");
        }
    }
}
