//! DeBERTa v2 and v3 (He et al. 2020 and 2021, arXiv:2006.03654 and arXiv:2111.09543;
//! `transformers/models/deberta_v2/modeling_deberta_v2.py`): attention between contents and relative positions.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::activation::{Activation, ActivationLayer};
use super::encoder::{FeedForward, Names, PostAttention};
use super::heads::{MaskedLmHead, SequenceHead, TaskHead, decoder};
use super::layers::{Heads, LayerNorm, Linear, attend, embedding, token_type_embedding};
use super::weights::Weights;
use super::{
    Blueprint, ConfigError, Dimensions, Inputs, MAX_SIZE, Model, Output, check_encoder,
    check_heads, check_sizes, read_config,
};
use crate::checkpoint::Spellings;
use crate::torchscript::{Size, TorchError, arange, expand, slice, view};

/// Parameter names in its files. The files contain absolute positions that the input does not use, and heads of other tasks, among them
/// the discriminator that v3 was trained with.
pub(super) static SPELLINGS: Spellings = Spellings {
    base: &["deberta"],
    same: &[&["cls.predictions.bias", "cls.predictions.decoder.bias"]],
    leftover: &[
        "pooler",
        "cls",
        "lm_predictions",
        "mask_predictions",
        "embeddings.position_embeddings",
    ],
};

/// `DebertaV2Config` with its defaults, and additional fields read by the layers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct DebertaV2Config {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    attention_head_size: Option<i64>,
    intermediate_size: i64,
    hidden_act: Activation,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    embedding_size: Option<i64>,
    position_biased_input: bool,
    relative_attention: bool,
    max_relative_positions: i64,
    position_buckets: i64,
    #[serde(deserialize_with = "pos_att_type")]
    pos_att_type: Vec<String>,
    share_att_key: bool,
    norm_rel_ebd: String,
    conv_kernel_size: i64,
    conv_groups: i64,
    conv_act: Activation,
    pooler_hidden_size: Option<i64>,
    pooler_hidden_act: Activation,
    legacy: Option<bool>,
    tie_word_embeddings: bool,
}

impl Default for DebertaV2Config {
    fn default() -> Self {
        Self {
            vocab_size: 128_100,
            hidden_size: 1536,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            attention_head_size: None,
            intermediate_size: 6144,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            embedding_size: None,
            position_biased_input: true,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            pos_att_type: Vec::new(),
            share_att_key: false,
            norm_rel_ebd: "none".into(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            pooler_hidden_size: None,
            pooler_hidden_act: Activation::Gelu,
            legacy: None,
            tie_word_embeddings: true,
        }
    }
}

/// A list, or a string of items separated by `|`, as in published configurations.
fn pos_att_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kinds {
        Joined(String),
        List(Vec<String>),
    }
    Ok(match Option::<Kinds>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Kinds::Joined(kinds)) => items(&kinds),
        Some(Kinds::List(kinds)) => kinds,
    })
}

fn items(joined: &str) -> Vec<String> {
    joined.to_lowercase().split('|').map(|item| item.trim().to_owned()).collect()
}

impl DebertaV2Config {
    fn read(config: &Value) -> Result<Self, ConfigError> {
        check_encoder(config)?;
        let config: Self = read_config(config)?;
        check_sizes(&[
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("embedding_size", config.embedding_size()),
            ("conv_groups", config.conv_groups),
        ])?;
        let wrong = |reason: String| Err(ConfigError::Value(reason));
        if !(0..=MAX_SIZE).contains(&config.type_vocab_size) {
            return wrong(format!(
                "type_vocab_size is {}, which no model has",
                config.type_vocab_size
            ));
        }
        check_heads(
            ("hidden_size", config.hidden_size),
            ("num_attention_heads", config.num_attention_heads),
        )?;
        for (name, size, must) in [
            ("attention_head_size", config.attention_head_size, config.head_size()),
            ("pooler_hidden_size", config.pooler_hidden_size, config.hidden_size),
        ] {
            if let Some(size) = size.filter(|&size| size != must) {
                return wrong(format!(
                    "{name} is {size}; with these other sizes it must be {must}"
                ));
            }
        }
        if config.conv_kernel_size > 0
            && (config.conv_kernel_size % 2 == 0
                || config.conv_kernel_size > MAX_SIZE
                || config.hidden_size % config.conv_groups != 0)
        {
            return wrong(format!(
                "conv_kernel_size {} must be odd, and hidden_size {} a multiple of conv_groups {}",
                config.conv_kernel_size, config.hidden_size, config.conv_groups
            ));
        }
        if config.relative_attention {
            /// Maximum number of positions. Every published model has fewer; the table of distances grows with the number.
            const MOST: i64 = 1 << 16;
            let positions = config.max_position_embeddings.max(config.max_relative_positions);
            if positions > MOST {
                return wrong(format!(
                    "{positions} relative positions are more than any model has"
                ));
            }
            // Outside of this range the logarithms of the bucket formula are those of 0, or are divided by 0.
            let (buckets, distances) = (config.position_buckets, config.relative_positions());
            if buckets > 0 && (buckets < 2 || distances - 1 <= buckets / 2) {
                return wrong(format!(
                    "{distances} relative positions cannot be put into position_buckets {buckets}"
                ));
            }
        }
        Ok(config)
    }

    fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    fn embedding_size(&self) -> i64 {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    /// Largest distance that is distinguished from larger ones.
    fn relative_positions(&self) -> i64 {
        if self.max_relative_positions < 1 {
            self.max_position_embeddings
        } else {
            self.max_relative_positions
        }
    }

    /// Half of the rows of the relative position embeddings.
    fn span(&self) -> i64 {
        if self.position_buckets > 0 { self.position_buckets } else { self.relative_positions() }
    }

    /// Whether the model has the attention `kind` (c2p or p2c).
    fn has(&self, kind: &str) -> bool {
        self.pos_att_type.iter().any(|item| item == kind)
    }

    fn norm(&self, weights: &Weights<'_>) -> LayerNorm {
        LayerNorm::load(&weights.sub("LayerNorm"), self.hidden_size, self.layer_norm_eps)
    }
}

/// Sizes of a DeBERTa.
pub(super) fn dimensions(config: &Value) -> Result<Dimensions, ConfigError> {
    let config = DebertaV2Config::read(config)?;
    Ok(Dimensions {
        hidden: config.hidden_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        output: Output::Tokens,
    })
}

/// Builds a DeBERTa with the requested head.
pub(super) fn load(
    weights: &Weights<'_>,
    blueprint: Blueprint<'_>,
) -> Result<Box<dyn Model>, ConfigError> {
    let config = DebertaV2Config::read(blueprint.config)?;
    let base = weights.base();
    let embeddings = Embeddings::load(&base.sub("embeddings"), &config);
    let encoder = Encoder::load(&base.sub("encoder"), &config);
    let hidden = config.hidden_size;
    let head = TaskHead::load(
        weights,
        blueprint,
        hidden,
        || masked_lm(weights, &config, &embeddings.words),
        // ContextPooler and classifier.
        || SequenceHead {
            dense: Linear::load(&weights.sub("pooler.dense"), hidden, hidden),
            activation: config.pooler_hidden_act.into(),
            classifier: Linear::load(&weights.sub("classifier"), hidden, blueprint.labels),
        },
    );
    Ok(Box::new(Deberta { embeddings, encoder, head }))
}

struct Deberta {
    embeddings: Embeddings,
    encoder: Encoder,
    head: TaskHead,
}

impl Model for Deberta {
    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        // [batch, tokens, 1]
        let mask = inputs.attention_mask.f_to_kind(Kind::Float)?.f_unsqueeze(2)?;
        let embedded = self.embeddings.forward(inputs)?.f_mul(&mask)?;
        let hidden_states = self.encoder.forward(&embedded, &mask, inputs)?;
        self.head.forward(&hidden_states)
    }
}

/// `DebertaV2Embeddings`, without the mask.
struct Embeddings {
    words: Tensor,
    positions: Option<Tensor>,
    token_types: Option<Tensor>,
    types: i64,
    projection: Option<Linear>,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let (width, types) = (config.embedding_size(), config.type_vocab_size);
        let table = |name: &str, rows| weights.sub(name).tensor("weight", &[rows, width]);
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions: config
                .position_biased_input
                .then(|| table("position_embeddings", config.max_position_embeddings)),
            token_types: (types > 0).then(|| table("token_type_embeddings", types)),
            types,
            projection: (width != config.hidden_size).then(|| {
                let shape = [config.hidden_size, width];
                Linear::new(weights.sub("embed_proj").tensor("weight", &shape), None)
            }),
            norm: config.norm(weights),
        }
    }

    fn forward(&self, inputs: &Inputs) -> Result<Tensor, TorchError> {
        let mut states = embedding(&self.words, &inputs.input_ids)?;
        if let Some(positions) = &self.positions {
            states = states.f_add(&slice(positions, 0, &inputs.tokens)?)?;
        }
        if let Some(token_types) = &self.token_types {
            states = states.f_add(&token_type_embedding(token_types, self.types, inputs)?)?;
        }
        if let Some(projection) = &self.projection {
            states = projection.forward(&states)?;
        }
        self.norm.forward(&states)
    }
}

/// `DebertaV2Encoder`.
struct Encoder {
    /// Relative positions, if attention uses them.
    distances: Option<Distances>,
    layers: Vec<Layer>,
    convolution: Option<Convolution>,
}

impl Encoder {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let relative = Relative::load(weights, config);
        let layer = weights.sub("layer");
        Self {
            distances: relative.is_some().then(|| Distances::load(weights, config)),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(&layer.sub(i), config, relative.as_ref()))
                .collect(),
            convolution: (config.conv_kernel_size > 0)
                .then(|| Convolution::load(&weights.sub("conv"), config)),
        }
    }

    fn forward(
        &self,
        embedded: &Tensor,
        mask: &Tensor,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        // Padding attends to nothing: all of its scores are equal. [batch, 1, tokens, tokens]
        let both = mask.f_mul(&mask.f_transpose(1, 2)?)?.f_unsqueeze(1)?;
        let bias = both.f_sub_scalar(1.)?.f_mul_scalar(f64::from(f32::MAX))?;
        let places = match (&self.distances, self.layers.first()) {
            (Some(distances), Some(layer)) => {
                Some(distances.places(layer.attention.heads.count, inputs)?)
            }
            _ => None,
        };
        let mut states = embedded.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let output = layer.forward(&states, &bias, places.as_ref(), inputs)?;
            states = match &self.convolution {
                Some(convolution) if i == 0 => convolution.forward(&states, &output, mask)?,
                _ => output,
            };
        }
        Ok(states)
    }
}

/// Row of each distance in a layer's table of relative positions.
///
/// Rows are sorted by distance: 0, -1, 1, -2, 2, …. A text of n tokens needs the first 2 n rows only,
/// so its graph multiplies by these only.
struct Distances {
    /// Row by the distance `query - key`; negative distances count from the end. int64 `[2 * positions - 1]`.
    rows: Tensor,
    /// Whether the rows are sorted by distance. This fails only if there are almost as many buckets as distances.
    sorted: bool,
}

/// [`Distances`] for the length of a text.
struct Places<'a> {
    /// Row for each pair of query and key, int64 `[batch, heads, tokens, tokens]`, a view of `[tokens, tokens]`.
    rows: Tensor,
    /// Half of the number of required rows; `None` if all rows are required.
    pairs: Option<&'a Size>,
}

impl Distances {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let span = config.span();
        let row = |bucket: i64| {
            let bucket = bucket.clamp(-span, span - 1);
            if bucket < 0 { -2 * bucket - 1 } else { 2 * bucket }
        };
        let mut sorted = true;
        let rows = weights.derived(|| {
            let buckets = buckets(config.max_position_embeddings, config)?;
            sorted = (0..).zip(&buckets).all(|(distance, &bucket)| bucket <= distance);
            let behind = buckets.iter().copied();
            let ahead = buckets.iter().skip(1).rev().map(|bucket| -bucket);
            let rows: Vec<i64> = behind.chain(ahead).map(row).collect();
            Ok(Tensor::f_from_slice(&rows)?)
        });
        Self { rows, sorted }
    }

    fn places<'a>(&self, heads: i64, inputs: &'a Inputs) -> Result<Places<'a>, TorchError> {
        let places = arange(&inputs.tokens)?;
        let distances = places.f_unsqueeze(1)?.f_sub(&places)?;
        let rows = self.rows.f_index(&[Some(&distances)])?;
        let tokens = (&inputs.tokens).into();
        Ok(Places {
            rows: expand(&rows, &[(&inputs.batch).into(), heads.into(), tokens, tokens])?,
            pairs: self.sorted.then_some(&inputs.tokens),
        })
    }
}

/// Buckets of the distances from 0 to `far` (exclusive): small distances have their own bucket, larger ones share buckets by logarithm
/// (`make_log_bucket_position`). Negative distances have the negated bucket.
fn buckets(far: i64, config: &DebertaV2Config) -> Result<Vec<i64>, TorchError> {
    if config.position_buckets <= 0 {
        return Ok((0..far).collect());
    }
    let half = config.position_buckets / 2;
    let farthest = ((config.relative_positions() - 1) as f64 / half as f64) as f32;
    // Computed by libtorch in float32, because a logarithm that is rounded differently may select the next bucket.
    let distances = Tensor::f_arange(far, (Kind::Int64, tch::Device::Cpu))?;
    let logarithm = distances.f_clamp_min(half - 1)?.f_div_scalar(half)?.f_log()?;
    let shared = logarithm.f_div(&Tensor::f_from_slice(&[farthest])?.f_log()?)?;
    let shared = shared.f_mul_scalar(half - 1)?.f_ceil()?.f_add_scalar(half)?;
    let shared = Vec::<i64>::try_from(shared.f_to_kind(Kind::Int64)?)?;
    Ok((0..far)
        .zip(shared)
        .map(|(near, shared)| if near <= half { near } else { shared })
        .collect())
}

/// Relative position embeddings, shared by all layers.
struct Relative {
    /// Embeddings `[2 * span, hidden]` by bucket.
    table: Tensor,
    norm: Option<LayerNorm>,
    /// Rows of `table` in the order of [`Distances`].
    order: Vec<i64>,
}

impl Relative {
    /// `None` if no attention uses relative positions.
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Option<Self> {
        if !config.relative_attention || !(config.has("c2p") || config.has("p2c")) {
            weights.ignore_all("rel_embeddings");
            weights.ignore_all("LayerNorm");
            return None;
        }
        let span = config.span();
        let normed = items(&config.norm_rel_ebd).iter().any(|item| item == "layer_norm");
        Some(Self {
            table: weights.sub("rel_embeddings").tensor("weight", &[2 * span, config.hidden_size]),
            norm: normed.then(|| config.norm(weights)),
            order: (0..span).flat_map(|i| [span + i, span - 1 - i]).collect(),
        })
    }

    /// Projection of the table by a layer: `[span, 2, heads, head_size]`.
    fn projected(
        &self,
        projection: &Linear,
        config: &DebertaV2Config,
    ) -> Result<Tensor, TorchError> {
        let table = match &self.norm {
            Some(norm) => norm.forward(&self.table)?,
            None => self.table.shallow_clone(),
        };
        let table = table.f_index_select(0, &Tensor::f_from_slice(&self.order)?)?;
        let heads = [-1, 2, config.num_attention_heads, config.head_size()];
        Ok(projection.forward(&table)?.f_view(heads)?)
    }
}

/// `DebertaV2Layer`.
struct Layer {
    attention: DisentangledAttention,
    rest: PostAttention,
}

impl Layer {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config, relative: Option<&Relative>) -> Self {
        let names = Names::BERT;
        let sizes = FeedForward {
            hidden: config.hidden_size,
            attention: config.hidden_size,
            intermediate: config.intermediate_size,
            activation: config.hidden_act,
            epsilon: config.layer_norm_eps,
        };
        Self {
            attention: DisentangledAttention::load(&weights.sub(names.attention), config, relative),
            rest: PostAttention::load(weights, &names, sizes),
        }
    }

    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        places: Option<&Places<'_>>,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let context = self.attention.forward(hidden_states, bias, places, inputs)?;
        self.rest.forward(&context, hidden_states)
    }
}

/// `DisentangledSelfAttention`: content to content, content to position and position to content.
///
/// The projections of the relative positions are the same for every text, so they are constants of the graph.
struct DisentangledAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: Heads,
    scale: f64,
    /// Keys of positions for the queries of contents, `[heads, head_size, span, 2]`.
    content_to_position: Option<Tensor>,
    /// Queries of positions, scaled, for the keys of contents, `[heads, span, 2, head_size]`.
    position_to_content: Option<Tensor>,
}

impl DisentangledAttention {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config, relative: Option<&Relative>) -> Self {
        let hidden = config.hidden_size;
        let linear = |name: &str| Linear::load(&weights.sub(name), hidden, hidden);
        // Every listed kind counts, even if it is not used.
        let kinds = 1 + i64::from(config.has("c2p")) + i64::from(config.has("p2c"));
        let scale = ((config.head_size() * kinds) as f64).sqrt().recip();
        let (query, key) = (linear("query_proj"), linear("key_proj"));
        let projected = |kind: &str, own: &str, shared: &Linear, order: [i64; 4], scale: f64| {
            let relative = relative.filter(|_| config.has(kind))?;
            let own = (!config.share_att_key).then(|| linear(own));
            let projection = own.as_ref().unwrap_or(shared);
            Some(weights.derived(|| {
                let projected = relative.projected(projection, config)?.f_mul_scalar(scale)?;
                Ok(projected.f_permute(order)?.f_contiguous()?)
            }))
        };
        Self {
            content_to_position: projected("c2p", "pos_key_proj", &key, [2, 3, 0, 1], 1.),
            position_to_content: projected("p2c", "pos_query_proj", &query, [2, 0, 1, 3], scale),
            query,
            key,
            value: linear("value_proj"),
            heads: Heads::of(hidden, config.num_attention_heads),
            scale,
        }
    }

    /// Returns the attended values `[batch, tokens, hidden]`. `bias` is the mask.
    fn forward(
        &self,
        hidden_states: &Tensor,
        bias: &Tensor,
        places: Option<&Places<'_>>,
        inputs: &Inputs,
    ) -> Result<Tensor, TorchError> {
        let by_head = |states: &Tensor| self.heads.split(states, inputs);
        let query = by_head(&self.query.forward(hidden_states)?.f_mul_scalar(self.scale)?)?;
        let key = by_head(&self.key.forward(hidden_states)?)?;
        let value = by_head(&self.value.forward(hidden_states)?)?;
        let positions = match places {
            Some(places) => self.position_scores(&query, &key, places)?,
            None => None,
        };
        let context = match positions {
            Some(mut scores) => {
                // In-place addition is safe, because this layer computed the tensor.
                let _ = scores.f_add_(bias)?;
                attend([&query, &key, &value], &scores, 1., inputs)?
            }
            None => attend([&query, &key, &value], bias, 1., inputs)?,
        };
        self.heads.join(&context, inputs)
    }

    /// Scores from relative positions, `[batch, heads, tokens, tokens]`.
    fn position_scores(
        &self,
        query: &Tensor,
        key: &Tensor,
        places: &Places<'_>,
    ) -> Result<Option<Tensor>, TorchError> {
        let needed = |table: &Tensor, axis| match places.pairs {
            Some(pairs) => slice(table, axis, pairs),
            None => Ok(table.shallow_clone()),
        };
        let (heads, size) = (self.heads.count.into(), self.heads.size.into());
        let content_to_position = match &self.content_to_position {
            Some(keys) => {
                let keys = view(&needed(keys, 2)?, &[heads, size, (-1).into()])?;
                Some(query.f_matmul(&keys)?.f_gather(-1, &places.rows, false)?)
            }
            None => None,
        };
        let position_to_content = match &self.position_to_content {
            Some(queries) => {
                let queries = view(&needed(queries, 1)?, &[heads, (-1).into(), size])?;
                let scores = queries.f_matmul(&key.f_transpose(-1, -2)?)?;
                Some(scores.f_gather(-2, &places.rows, false)?)
            }
            None => None,
        };
        Ok(match (content_to_position, position_to_content) {
            (Some(mut scores), Some(others)) => {
                let _ = scores.f_add_(&others)?;
                Some(scores)
            }
            (scores, others) => scores.or(others),
        })
    }
}

/// `ConvLayer`: a convolution over the embeddings, parallel to the first layer.
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
    groups: i64,
    activation: Activation,
    norm: LayerNorm,
}

impl Convolution {
    fn load(weights: &Weights<'_>, config: &DebertaV2Config) -> Self {
        let (hidden, kernel, groups) =
            (config.hidden_size, config.conv_kernel_size, config.conv_groups);
        let convolution = weights.sub("conv");
        Self {
            weight: convolution.tensor("weight", &[hidden, hidden / groups, kernel]),
            bias: convolution.tensor("bias", &[hidden]),
            padding: (kernel - 1) / 2,
            groups,
            activation: config.conv_act,
            norm: config.norm(weights),
        }
    }

    /// `embedded` is the input of the layer and `output` its output.
    fn forward(
        &self,
        embedded: &Tensor,
        output: &Tensor,
        mask: &Tensor,
    ) -> Result<Tensor, TorchError> {
        let channels = embedded.f_transpose(1, 2)?;
        let bias = Some(&self.bias);
        let convolved = channels.f_conv1d(&self.weight, bias, 1, self.padding, 1, self.groups)?;
        let convolved = self.activation.forward(&convolved.f_transpose(1, 2)?)?;
        // Transformers also sets the convolution's output at padding to 0. This product has the same effect.
        Ok(self.norm.forward(&output.f_add(&convolved)?)?.f_mul(mask)?)
    }
}

/// `LegacyDebertaV2LMPredictionHead` or `DebertaV2LMPredictionHead`.
fn masked_lm(weights: &Weights<'_>, config: &DebertaV2Config, words: &Tensor) -> MaskedLmHead {
    let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
    let activation = |weights: &Weights<'_>| {
        ActivationLayer::load(config.hidden_act, &weights.sub("transform_act_fn"))
    };
    let (old, new) = (weights.sub("cls.predictions"), weights.sub("lm_predictions.lm_head"));
    // Microsoft's files contain the new head, but config.json does not state it, so the parameters in the file decide.
    let (in_old, in_new) = (old.has("transform.dense.weight"), new.has("dense.weight"));
    if in_new && !(in_old && config.legacy.unwrap_or(true)) {
        return MaskedLmHead {
            dense: Linear::load(&new.sub("dense"), hidden, hidden),
            activation: activation(&new),
            norm: config.norm(&new),
            decoder: decoder(&new, "decoder", "bias", words, [vocabulary, hidden], true),
        };
    }
    let (transform, width) = (old.sub("transform"), config.embedding_size());
    let shape = [vocabulary, width];
    let tied = config.tie_word_embeddings;
    MaskedLmHead {
        dense: Linear::load(&transform.sub("dense"), hidden, width),
        activation: activation(&transform),
        norm: LayerNorm::load(&transform.sub("LayerNorm"), width, config.layer_norm_eps),
        decoder: decoder(&old, "decoder", "bias", words, shape, tied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_match_transformers() {
        // Sum of (distance + 1) * bucket, computed with make_log_bucket_position of Transformers 4.57.6.
        for (position_buckets, positions, expected) in [
            (256, 512, 27_544_510),
            (8, 64, 14_108),
            (32, 512, 3_846_563),
            (512, 1024, 220_309_019),
        ] {
            let config = DebertaV2Config {
                position_buckets,
                max_position_embeddings: positions,
                ..DebertaV2Config::default()
            };
            let buckets = buckets(positions, &config).unwrap();
            assert_eq!((1..).zip(buckets).map(|(i, bucket)| i * bucket).sum::<i64>(), expected);
        }
    }

    #[test]
    fn positions_beyond_the_buckets_are_rejected() {
        let read = |buckets, positions| {
            DebertaV2Config::read(&serde_json::json!({
                "relative_attention": true,
                "position_buckets": buckets,
                "max_position_embeddings": positions,
                "pos_att_type": "p2c|c2p",
            }))
        };
        assert!(read(256, 512).unwrap().has("c2p"));
        assert!(read(-1, 512).is_ok());
        for (buckets, positions) in [(1, 512), (512, 257), (4, 3), (-1, 1 << 20)] {
            assert!(read(buckets, positions).is_err(), "{buckets} {positions}");
        }
    }
}
