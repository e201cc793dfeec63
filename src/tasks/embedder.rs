//! The sentence-transformers modules after the transformer, which compute one vector from hidden states.

use tch::Tensor;

use super::pooling::{pool, rows};
use crate::config::{Module, ModulesError, PoolingConfig, PoolingMode};
use crate::models::activation::Activation;
use crate::models::layers::{LayerNorm, Linear};
use crate::models::{Dimensions, Inputs, Output, Rows, WeightError, WeightLoader};
use crate::source::{ModelFiles, SourceError};
use crate::torchscript::TorchError;

/// Reason why the modules after a transformer cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedderError {
    /// A module that is not supported.
    #[error("{0}")]
    Module(String),
    /// `modules.json` cannot be used.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// A file could not be found or downloaded.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The weights of a module cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

/// The modules after the transformer, which compute one vector from hidden states.
#[derive(Debug)]
pub struct Embedder {
    steps: Vec<Step>,
    size: i64,
    parameter_bytes: u64,
}

#[derive(Debug)]
enum Step {
    Pool(Vec<PoolingMode>),
    Dense(Linear, Activation),
    LayerNorm(LayerNorm),
    Normalize,
    /// Keeps this number of leading components.
    Truncate(i64),
    /// A LayerNorm without weights over this number of components.
    Standardize(i64),
}

/// Lower limit of the denominator in `torch.nn.functional.normalize`, and epsilon of `torch.nn.LayerNorm`.
const NORMALIZE_EPSILON: f64 = 1e-12;
const LAYER_NORM_EPSILON: f64 = 1e-5;

impl Embedder {
    /// The embedder of a folder without `modules.json`: the model's own vector if it has one per row, otherwise the mean over
    /// tokens, as in sentence-transformers.
    #[must_use]
    pub fn of_base(base: Dimensions) -> Self {
        let steps = match base.output {
            Output::Tokens => vec![Step::Pool(vec![PoolingMode::Mean])],
            Output::Row => Vec::new(),
        };
        Self { steps, size: base.hidden, parameter_bytes: 0 }
    }

    /// Builds the modules after a base model. `open` opens the weights in a module's folder.
    ///
    /// # Errors
    /// [`EmbedderError`] if a module is not supported, or its weights are missing or have another shape.
    pub fn load(
        files: &ModelFiles,
        modules: &[Module],
        base: Dimensions,
        open: &dyn Fn(&ModelFiles) -> Result<WeightLoader, WeightError>,
    ) -> Result<Self, EmbedderError> {
        let is_row = base.output == Output::Row;
        if is_row && modules.iter().any(|module| matches!(module, Module::Pooling(_))) {
            return Err(EmbedderError::Module(
                "modules.json pools tokens, but the model returns one vector per row".into(),
            ));
        }
        let mut steps = Vec::new();
        let mut size = base.hidden;
        let mut parameter_bytes = 0;
        let fits = |module: &str, wanted: i64, size: i64| {
            if wanted == size {
                return Ok(());
            }
            Err(EmbedderError::Module(format!(
                "the module {module} expects vectors of {wanted} numbers, but the previous module returns {size}"
            )))
        };
        for module in modules {
            let pooled = is_row || steps.iter().any(|step| matches!(step, Step::Pool(_)));
            let of_tokens = matches!(module, Module::Dense { config, .. } if config.reads_tokens());
            let comes_first = of_tokens || matches!(module, Module::Pooling(_));
            let sparse = matches!(module, Module::SpladePooling(_));
            if comes_first == pooled && !sparse {
                return Err(EmbedderError::Module(
                    "modules.json must have one Pooling after the Transformer. Only Dense can precede it, if it reads token_embeddings".into(),
                ));
            }
            match module {
                Module::Pooling(PoolingConfig { dimension, modes, .. }) => {
                    fits("Pooling", dimension.unwrap_or(size), size)?;
                    size *= modes.len() as i64;
                    steps.push(Step::Pool(modes.clone()));
                }
                Module::Dense { folder, config } => {
                    fits(folder, config.in_features, size)?;
                    if let Some(setting) = config.unknown_setting() {
                        return Err(EmbedderError::Module(format!(
                            "the module {folder} has the setting {setting}, which the class Dense of sentence-transformers does not have"
                        )));
                    }
                    let output = config.module_output_name.as_ref();
                    if let Some(output) = output.filter(|&name| *name != config.module_input_name) {
                        return Err(EmbedderError::Module(format!(
                            "the module {folder} reads {} and names its output {output} (module_output_name); only one name for both can be \
                             served",
                            config.module_input_name
                        )));
                    }
                    if !of_tokens && config.module_input_name != "sentence_embedding" {
                        return Err(EmbedderError::Module(format!(
                            "the module {folder} reads {}; only sentence_embedding and token_embeddings can be served",
                            config.module_input_name
                        )));
                    }
                    let activation = activation(folder, config.activation_function.as_deref())?;
                    size = config.out_features;
                    let linear =
                        weights(&files.sub(folder)?, open, &mut parameter_bytes, |checkpoint| {
                            let weights = checkpoint.weights().sub("linear");
                            let shape = [config.out_features, config.in_features];
                            let bias = config.bias.then(|| weights.tensor("bias", &shape[..1]));
                            Linear::new(weights.tensor("weight", &shape), bias)
                        })?;
                    steps.push(Step::Dense(linear, activation));
                }
                Module::LayerNorm { folder, dimension } => {
                    fits(folder, *dimension, size)?;
                    let norm =
                        weights(&files.sub(folder)?, open, &mut parameter_bytes, |checkpoint| {
                            let weights = checkpoint.weights().sub("norm");
                            LayerNorm::load(&weights, *dimension, LAYER_NORM_EPSILON)
                        })?;
                    steps.push(Step::LayerNorm(norm));
                }
                Module::Normalize => steps.push(Step::Normalize),
                Module::SpladePooling(_) => {
                    return Err(EmbedderError::Module(
                        "modules.json returns sparse vectors (SpladePooling); import the model for text_expansion"
                            .into(),
                    ));
                }
            }
        }
        if steps.is_empty() && !is_row {
            return Err(EmbedderError::Module("modules.json has no Pooling".into()));
        }
        Ok(Self { steps, size, parameter_bytes })
    }

    /// Scales every vector to length 1.
    pub fn normalize(&mut self) {
        if !self.is_normalized() {
            self.steps.push(Step::Normalize);
        }
    }

    /// Keeps the leading `dimension` components of each vector, after all modules, as the library does (`truncate_dim`).
    ///
    /// # Errors
    /// [`EmbedderError`] if the number is not positive.
    pub fn truncate(&mut self, dimension: i64) -> Result<(), EmbedderError> {
        if dimension < 1 {
            return Err(EmbedderError::Module(format!(
                "truncate_dim in config_sentence_transformers.json is {dimension}; it must be positive"
            )));
        }
        if dimension < self.size {
            self.steps.push(Step::Truncate(dimension));
            self.size = dimension;
        }
        Ok(())
    }

    /// Keeps the leading `dimensions` components of each vector (Matryoshka). If the last module scales vectors to length 1, the cut vectors
    /// are scaled instead.
    ///
    /// With `is_standardized`, a LayerNorm without weights over all components precedes the cut, and vectors are scaled to length 1, as the
    /// card of nomic-embed-text-v1.5 describes.
    pub fn cut(&mut self, dimensions: i64, is_standardized: bool) {
        let normalizes = self.is_normalized() || is_standardized;
        if self.is_normalized() {
            self.steps.pop();
        }
        if is_standardized {
            self.steps.push(Step::Standardize(self.size));
        }
        if dimensions < self.size {
            self.steps.push(Step::Truncate(dimensions));
            self.size = dimensions;
        }
        if normalizes {
            self.normalize();
        }
    }

    /// Width of the vector.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.size
    }

    /// Whether every vector has length 1.
    #[must_use]
    pub fn is_normalized(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Normalize))
    }

    /// Descriptions of the steps from the output of the base model to the vector.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        let pooling = |mode: &PoolingMode| match mode {
            PoolingMode::Cls => "first token",
            PoolingMode::Max => "maximum over tokens",
            PoolingMode::Mean => "mean over tokens",
            PoolingMode::MeanSqrtLen => "sum over tokens by the root of their number",
            PoolingMode::WeightedMean => "mean over tokens weighted by position",
            PoolingMode::LastToken => "last token",
        };
        let step = |step: &Step| match step {
            Step::Pool(modes) => modes.iter().map(pooling).collect::<Vec<_>>().join(" beside "),
            Step::Dense(..) => "dense layer".to_owned(),
            Step::LayerNorm(_) => "layer norm".to_owned(),
            Step::Normalize => "length 1".to_owned(),
            Step::Truncate(dimension) => format!("first {dimension} components"),
            Step::Standardize(_) => "layer norm without weights".to_owned(),
        };
        self.steps.iter().map(step).collect()
    }

    /// Size of the modules' parameters in bytes.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        self.parameter_bytes
    }

    /// Maps the output of the base model to `[batch, size]`.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, hidden_states: &Tensor, inputs: &Inputs) -> Result<Tensor, TorchError> {
        self.forward_with(hidden_states, inputs, None, true)
    }

    /// The pooling mode, if there is exactly one.
    #[must_use]
    pub fn pooling(&self) -> Option<PoolingMode> {
        self.steps.iter().find_map(|step| match step {
            Step::Pool(modes) => modes.first().copied().filter(|_| modes.len() == 1),
            _ => None,
        })
    }

    /// The tokens whose hidden states are read: the first one if every pooling mode reads only that.
    #[must_use]
    pub fn rows(&self) -> Rows {
        let reads_first = |step: &Step| match step {
            Step::Pool(modes) => modes.iter().all(|&mode| rows(mode) == Rows::First),
            _ => false,
        };
        if self.steps.iter().any(reads_first) { Rows::First } else { Rows::All }
    }

    /// Maps the output of the base model like [`forward`](Self::forward), with another pooling mode or without scaling to length 1.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward_with(
        &self,
        hidden_states: &Tensor,
        inputs: &Inputs,
        pooling: Option<PoolingMode>,
        normalizes: bool,
    ) -> Result<Tensor, TorchError> {
        let mut vector = hidden_states.shallow_clone();
        for step in &self.steps {
            vector = match step {
                Step::Pool(own) => {
                    let modes = pooling.as_ref().map_or(own.as_slice(), std::slice::from_ref);
                    let pooled = modes.iter().map(|&mode| pool(mode, &vector, inputs));
                    let mut pooled = pooled.collect::<Result<Vec<_>, _>>()?;
                    if pooled.len() == 1 { pooled.remove(0) } else { Tensor::f_cat(&pooled, 1)? }
                }
                Step::Dense(linear, activation) => activation.forward(&linear.forward(&vector)?)?,
                Step::LayerNorm(norm) => norm.forward(&vector)?,
                Step::Normalize if !normalizes => vector,
                Step::Normalize => {
                    let length = vector.f_norm_scalaropt_dim(2, [-1i64], true)?;
                    vector.f_div(&length.f_clamp_min(NORMALIZE_EPSILON)?)?
                }
                Step::Truncate(dimension) => vector.f_slice(1, 0, *dimension, 1)?,
                Step::Standardize(size) => {
                    let none = None::<&Tensor>;
                    vector.f_layer_norm([*size], none, none, LAYER_NORM_EPSILON, false)?
                }
            };
        }
        Ok(vector)
    }
}

/// Loads the weights of a module, and adds their size in bytes to `bytes`.
fn weights<T>(
    folder: &ModelFiles,
    open: &dyn Fn(&ModelFiles) -> Result<WeightLoader, WeightError>,
    bytes: &mut u64,
    load: impl FnOnce(&WeightLoader) -> T,
) -> Result<T, EmbedderError> {
    let checkpoint = open(folder)?;
    let loaded = load(&checkpoint);
    let (unused, size) = checkpoint.finish()?;
    if !unused.is_empty() {
        let (path, names) = (folder.folder().display(), unused.join(", "));
        return Err(EmbedderError::Module(format!(
            "the weights in {path} have tensors that the module does not have by its config.json: {names}; use the config.json that belongs to the weights"
        )));
    }
    *bytes += size;
    Ok(loaded)
}

fn activation(folder: &str, path: Option<&str>) -> Result<Activation, EmbedderError> {
    let Some(path) = path else { return Ok(Activation::Tanh) };
    path.strip_prefix("torch.nn.")
        .and_then(|path| path.rsplit('.').next())
        .and_then(Activation::of_torch_class)
        .ok_or_else(|| {
            EmbedderError::Module(format!(
                "the module {folder} has the activation {path}, which is not supported"
            ))
        })
}
