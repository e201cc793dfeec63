//! `config.json` of a NomicBERT, with the names of GPT-2 (nomic's class), of BERT (Transformers 5), or with both.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::models::activation::Activation;
use crate::models::blocks::Rotary;
use crate::models::rope_parameters::RopeParameters;
use crate::models::weights::Weights;
use crate::models::{
    ConfigError, Dimensions, Output, check_encoder, check_heads, check_sizes, read_config_by,
    read_config_over,
};

/// `NomicBertConfig`.
#[derive(Debug, Deserialize)]
pub(super) struct NomicBertConfig {
    vocab_size: i64,
    pad_vocab_size_multiple: i64,
    pub(super) n_embd: i64,
    pub(super) n_head: i64,
    pub(super) n_layer: i64,
    n_inner: Option<i64>,
    pub(super) n_positions: i64,
    pub(super) type_vocab_size: i64,
    activation_function: Option<ActivationFunction>,
    hidden_act: Option<Activation>,
    pub(super) layer_norm_epsilon: f64,
    pub(super) qkv_proj_bias: bool,
    pub(super) mlp_fc1_bias: bool,
    pub(super) mlp_fc2_bias: bool,
    rotary_emb_fraction: f64,
    rotary_emb_base: f64,
    rotary_scaling_factor: Option<f64>,
    max_trained_positions: i64,
    pub(super) num_experts: i64,
    moe_every_n_layers: i64,
    pub(super) moe_top_k: i64,
    /// Whether the class is that of Transformers 5.
    #[serde(skip)]
    is_native: bool,
}

/// `activation_function`. Three values are names of gated linear units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActivationFunction {
    Geglu,
    Gelu,
    Glu,
    Swiglu,
}

impl ActivationFunction {
    /// Activation in the layers.
    pub(super) fn of_layers(self) -> Activation {
        match self {
            Self::Geglu | Self::Gelu => Activation::Gelu,
            Self::Glu => Activation::Sigmoid,
            Self::Swiglu => Activation::Silu,
        }
    }

    /// Activation in the masked LM head.
    pub(super) fn of_head(self) -> Activation {
        match self {
            Self::Swiglu => Activation::Silu,
            _ => Activation::Gelu,
        }
    }
}

/// The names in Transformers 5, which take precedence.
const NAMES: [(&str, &str); 6] = [
    ("hidden_size", "n_embd"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("layer_norm_eps", "layer_norm_epsilon"),
    ("max_position_embeddings", "n_positions"),
    ("intermediate_size", "n_inner"),
];

/// The names whose values must be equal if both are present. Published files have a longer input in `n_positions`, and
/// `intermediate_size` is the rounded width.
const EQUAL_NAMES: &[(&str, &str)] = NAMES.split_at(4).0;

impl NomicBertConfig {
    /// Parses and validates `config.json`.
    pub(super) fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        check_variants(config)?;
        let has = |name: &str| config.get(name).is_some_and(|value| !value.is_null());
        let is_native = !has("n_embd");
        let rope = RopeParameters::read(config)?;
        if rope.scaling.is_some() {
            return Err(ConfigError::Unsupported("rope_parameters".into(), "no scaling is known"));
        }
        let mut defaults = json!({
            "vocab_size": 50257, "pad_vocab_size_multiple": 1, "type_vocab_size": 2,
            "n_head": 12, "n_layer": 12, "n_positions": 1024, "layer_norm_epsilon": 1e-5,
            "qkv_proj_bias": true, "mlp_fc1_bias": true, "mlp_fc2_bias": true,
            "rotary_emb_fraction": 0, "rotary_emb_base": 10_000, "max_trained_positions": 2048,
            "num_experts": 0, "moe_every_n_layers": 0, "moe_top_k": 0,
        });
        if is_native {
            let of_native = json!({
                "vocab_size": 30528, "n_embd": 768, "n_inner": 3072, "n_positions": 2048,
                "layer_norm_epsilon": 1e-12, "hidden_act": "silu",
                "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false,
                "rotary_emb_fraction": 1, "rotary_emb_base": rope.theta.unwrap_or(1000.),
            });
            defaults = read_config_over(defaults, &of_native)?;
        }
        // The inner width of Transformers 5 is the rounded one.
        let names = if has("n_inner") { &NAMES[..5] } else { &NAMES[..] };
        let mut read: Self = read_config_by(names, &read_config_over(defaults, config)?)?;
        read.is_native = is_native;
        if is_native {
            read.activation_function = match read.hidden_act {
                Some(Activation::Silu) => Some(ActivationFunction::Swiglu),
                Some(Activation::Gelu) => Some(ActivationFunction::Geglu),
                _ => None,
            };
        }
        if read.activation_function.is_none() {
            return Err(ConfigError::Value(
                "activation_function or hidden_act is missing or not known".into(),
            ));
        }
        let activation = read.function().of_layers();
        let contradiction = if rope.theta.is_some_and(|theta| theta != read.rotary_emb_base) {
            Some(("rope_theta", "rotary_emb_base"))
        } else if read.hidden_act.is_some_and(|act| act != activation) {
            Some(("hidden_act", "activation_function"))
        } else {
            let number = |name: &str| config.get(name).and_then(Value::as_f64);
            let differ = |names: &&(&str, &str)| {
                number(names.0).zip(number(names.1)).is_some_and(|(a, b)| a != b)
            };
            EQUAL_NAMES.iter().find(differ).copied()
        };
        if let Some((native, own)) = contradiction {
            return Err(ConfigError::Value(format!(
                "{native} (a name of Transformers 5) and {own} (a name of nomic's class) have different values; keep the value that \
                 the model was trained with"
            )));
        }
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("pad_vocab_size_multiple", self.pad_vocab_size_multiple),
            ("n_embd", self.n_embd),
            ("n_head", self.n_head),
            ("n_layer", self.n_layer),
            ("n_inner", self.n_inner.unwrap_or(1)),
            ("n_positions", self.n_positions),
            ("max_trained_positions", self.max_trained_positions),
        ])?;
        if self.type_vocab_size != 0 {
            check_sizes(&[("type_vocab_size", self.type_vocab_size)])?;
        }
        check_heads(("n_embd", self.n_embd), ("n_head", self.n_head))?;
        let (experts, top) = (self.num_experts, self.moe_top_k);
        let is_mixture = 0 < top && top <= experts && experts <= 256 && self.moe_every_n_layers > 0;
        if experts != 0 && !is_mixture {
            return Err(ConfigError::Value(format!(
                "num_experts {experts}, moe_top_k {top} and moe_every_n_layers {} are not a mixture of experts",
                self.moe_every_n_layers
            )));
        }
        let width = self.rotary_emb_fraction * (self.n_embd / self.n_head) as f64;
        let least = if self.scaling_factor().is_some() { 4. } else { 0. };
        if !(0. ..=1.).contains(&self.rotary_emb_fraction) || width % 2. != 0. || width < least {
            return Err(ConfigError::Value(format!(
                "rotary_emb_fraction {} rotates {width} elements of a head",
                self.rotary_emb_fraction
            )));
        }
        if self.rotary_emb_base <= 0. || self.scaling_factor().is_some_and(|factor| factor < 1.) {
            return Err(ConfigError::Value(
                "rotary_emb_base and rotary_scaling_factor describe no rotation".into(),
            ));
        }
        Ok(())
    }

    /// Rows of the word embeddings.
    pub(super) fn vocabulary(&self) -> i64 {
        let multiple = self.pad_vocab_size_multiple;
        self.vocab_size + (multiple - self.vocab_size % multiple) % multiple
    }

    /// Width of the feed-forward's inner layer. nomic's class rounds it up to a multiple of 256 if the layer is gated.
    pub(super) fn inner(&self) -> i64 {
        match self.n_inner {
            Some(inner) if self.is_native || self.function() == ActivationFunction::Gelu => inner,
            None if self.function() == ActivationFunction::Gelu => 4 * self.n_embd,
            inner => (inner.unwrap_or(8 * self.n_embd / 3) + 255) / 256 * 256,
        }
    }

    /// Number of elements of each head that are rotated. 0 if the positions are learned.
    pub(super) fn rotated(&self) -> i64 {
        (self.rotary_emb_fraction * (self.n_embd / self.n_head) as f64) as i64
    }

    /// Rotary positions. Texts with more than `max_trained_positions` tokens are scaled if there is a factor.
    pub(super) fn rotary(&self, weights: &Weights<'_>) -> Rotary {
        let (width, base) = (self.rotated(), self.rotary_emb_base);
        match self.scaling_factor() {
            None => Rotary::new(weights, width, base),
            Some(factor) => {
                let trained = self.max_trained_positions;
                Rotary::with_dynamic_ntk(weights, width, base, factor, trained)
            }
        }
    }

    /// The kind of feed-forward.
    pub(super) fn function(&self) -> ActivationFunction {
        self.activation_function.unwrap_or(ActivationFunction::Gelu)
    }

    /// Whether the masked LM head has biases.
    pub(super) fn head_bias(&self) -> bool {
        self.is_native || self.mlp_fc1_bias
    }

    /// Whether a layer has experts instead of one feed-forward.
    pub(super) fn has_experts(&self, layer: i64) -> bool {
        self.num_experts > 0 && layer % self.moe_every_n_layers == 1
    }

    fn scaling_factor(&self) -> Option<f64> {
        self.rotary_scaling_factor.filter(|&factor| factor != 0.)
    }
}

/// Refuses variants of nomic's class that no published model has.
fn check_variants(config: &Value) -> Result<(), ConfigError> {
    let usual = json!({
        "prenorm": false, "parallel_block": false, "norm_mlp": false, "causal": false,
        "rotary_emb_interleaved": false, "rotary_emb_scale_base": null, "register_tokens": 0,
        "scale_attn_weights": true, "scale_attn_by_inverse_layer_idx": false,
        "expert_choice_router": false, "moe_normalize_expert_weights": false,
        "num_shared_experts": 0, "ffn_div": 1,
    });
    let is_unusual = |(name, usual): &(&String, &Value)| {
        config.get(name.as_str()).is_some_and(|value| !value.is_null() && value != *usual)
    };
    match usual.as_object().into_iter().flatten().find(is_unusual) {
        Some((name, _)) => {
            Err(ConfigError::Unsupported(name.clone(), "no published NomicBERT uses this variant"))
        }
        None => Ok(()),
    }
}

/// Sizes of a NomicBERT.
pub(in crate::models) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = NomicBertConfig::read(config)?;
    Ok(Dimensions {
        hidden: config.n_embd,
        output: Output::Tokens,
        vocabulary: config.vocabulary(),
        positions: config.n_positions,
    })
}
