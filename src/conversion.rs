//! A model's files, read and joined: the network under its task, the tokenizer, and what is sent of them.

mod agree;
mod description;
mod plan;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::checkpoint::{Checkpoint, CheckpointError, WeightFiles};
use crate::config::{SentenceTransformers, Usage};
use crate::models::{AttentionForm, ConfigError, Inputs, Model, SpecialTokens};
use crate::progress::Progress;
use crate::segmented_bytes::SegmentedBytes;
use crate::source::{ModelFiles, Origin, SourceError};
use crate::tasks::{Embedder, EmbedderError, Facts, Task};
use crate::timings::stage;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::torchscript::operations::{self, Refused};
use crate::torchscript::{Module, OneThread, Quantized, TorchError};
use crate::version::{Target, Version};
pub use agree::{Quantization, Quantize};
pub use description::check_architecture;
use description::{Description, Limit, Loaded, OpenModule, as_wrong_task, refuse_adapter};
pub use plan::{
    Parameters, Plan, PlannedEmbedding, PlannedMemory, PlannedTokenizer, PlannedUsage,
    PlannedWeights, WeightsSeen,
};

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// `config.json` describes no model that can be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A sentence-transformers module cannot be built.
    #[error(transparent)]
    Embedder(#[from] EmbedderError),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// Nobody knows the architecture.
    #[error("the model_type {found} in config.json is not one that can be served; supported: {}", .known.join(", "))]
    ModelType {
        /// What config.json says.
        found: String,
        /// What can be built.
        known: Vec<&'static str>,
    },
    /// The architecture is code of the repository's own.
    #[error(
        "this model runs code of its repository ({class}, auto_map in config.json), which is never run here: it would need \
         the architecture {found} built in; built in are {}", .known.join(", ")
    )]
    OwnCode {
        /// `model_type` in config.json.
        found: String,
        /// The repository's class.
        class: String,
        /// What can be built.
        known: Vec<&'static str>,
    },
    /// LoRA and its like.
    #[error(
        "{folder} holds an adapter (LoRA or another of PEFT's) and no whole model. Its base model is {}: import that, or merge \
         the two (merge_and_unload in PEFT), save the result and give its folder",
        .base.as_deref().unwrap_or("not named in adapter_config.json")
    )]
    Adapter {
        /// The folder.
        folder: std::path::PathBuf,
        /// What it adapts.
        base: Option<String>,
    },
    /// The architecture is known, and known not to be servable.
    #[error(
        "the model_type {0} in config.json cannot be served: {1}. Take a model of another architecture"
    )]
    Unservable(String, &'static str),
    /// The files do not say what the model is for.
    #[error("cannot tell from config.json what the model is for: give --task-type; it can serve {}", names(.can))]
    NoTask {
        /// The tasks for which the checkpoint has all weights.
        can: Vec<Task>,
    },
    /// The checkpoint has no weights or labels for the task.
    #[error("this model cannot serve {task}: {reason}\nIt can serve {}", names(.can))]
    WrongTask {
        /// The task asked for.
        task: Task,
        /// Why not.
        reason: String,
        /// The tasks for which the checkpoint has all weights.
        can: Vec<Task>,
    },
    /// A longer input than the model takes.
    #[error(
        "--max-model-input-length {asked} is more than the {positions} positions that the model has; give at most that"
    )]
    Length {
        /// The option.
        asked: u32,
        /// What the position table holds.
        positions: u32,
    },
    /// There are no prompts to take.
    #[error(
        "--prompts: config_sentence_transformers.json declares no prompt for queries or documents{}. Leave it out, or give \
         --search-prefix and --ingest-prefix", others(.has)
    )]
    NoPrompts {
        /// The names of other prompts.
        has: Vec<String>,
    },
    /// The release that the model is made for lacks something that it needs.
    #[error(
        "Elasticsearch {target} cannot serve this model, which needs {needed} for {what}: make it for {needed} or later"
    )]
    Target {
        /// What `--target-version` says.
        target: Target,
        /// What the model needs.
        needed: Version,
        /// What came with that version.
        what: String,
    },
    /// Elasticsearch would not serve the graph.
    #[error("Elasticsearch would refuse this model: {0}")]
    Refused(#[from] Refused),
    /// There is nothing to quantize.
    #[error("the model has no linear layer that could be quantized; leave out --quantize")]
    NothingToQuantize,
    /// The quantized model is too far from the float one.
    #[error(
        "the quantized model agrees too little with the float one: {report}; --quantize-min-agreement asks for {least}. Leave out \
         --quantize, or lower what is asked for"
    )]
    Agreement {
        /// How far they agree.
        report: Quantization,
        /// The least that was asked for.
        least: f64,
    },
    /// The model computes nothing.
    #[error(
        "the model gives no number (NaN) for a text of {tokens} tokens: its weights are damaged; fetch them again. --no-verify imports \
         it all the same"
    )]
    NotANumber {
        /// Length of the input.
        tokens: i64,
    },
    /// The archive is not what was traced.
    #[error(
        "the saved archive does not compute what the model does: at {tokens} tokens they differ by {difference:e}, and {allowed:e} is \
         allowed. Please report it; --no-verify imports the model all the same"
    )]
    Verification {
        /// Length of the input.
        tokens: i64,
        /// The largest difference.
        difference: f64,
        /// What is allowed.
        allowed: f64,
    },
}

fn names(tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return "no task: the folder holds no weights that any task could use".into();
    }
    tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(", ")
}

fn others(prompts: &[String]) -> String {
    if prompts.is_empty() {
        return String::new();
    }
    format!(", only for {}", prompts.join(", "))
}

/// The key of a configuration's metadata that says how embeddings are compared, in the words of `dense_vector` fields.
pub const SIMILARITY: &str = "similarity";

/// The similarity of a `dense_vector` field that does what sentence-transformers calls by a name. `dot_product` takes vectors of
/// length 1 only.
fn dense_vector_similarity(name: &str, is_normalized: bool) -> Option<&'static str> {
    match name {
        "cosine" => Some("cosine"),
        "dot" | "dot_product" if is_normalized => Some("dot_product"),
        "dot" | "dot_product" => Some("max_inner_product"),
        "euclidean" => Some("l2_norm"),
        _ => None,
    }
}

/// What the user chooses.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The task; guessed from the files where absent.
    pub task: Option<Task>,
    /// The longest input in tokens, instead of what the files say.
    pub max_length: Option<u32>,
    /// Put before every text at ingest.
    pub ingest_prefix: Option<String>,
    /// Put before every text at search.
    pub search_prefix: Option<String>,
    /// Put before texts what the model's own files declare, where no other prefix is given.
    pub prompts: bool,
    /// The Elasticsearch that it is for.
    pub target: Target,
    /// Where the files come from, if that is known.
    pub origin: Option<Origin>,
    /// Whether and how linear layers get 8-bit weights.
    pub quantize: Option<Quantize>,
    /// Do not compare the saved archive with the model.
    pub no_verify: bool,
    /// Where reading is shown, if anywhere.
    pub progress: Option<Progress>,
}

impl Options {
    /// Fills in the prefixes that are not given.
    fn take_prompts(&mut self, usage: &Usage) -> Result<(), ConversionError> {
        let (query, document) = (usage.query(), usage.document());
        if query.is_none() && document.is_none() {
            let declared = usage.prompts.iter().filter(|(_, prompt)| !prompt.is_empty());
            let has = declared.map(|(name, _)| name.clone()).collect();
            return Err(ConversionError::NoPrompts { has });
        }
        let prefixes = [(&mut self.search_prefix, query), (&mut self.ingest_prefix, document)];
        for (prefix, prompt) in prefixes {
            if prefix.is_none() {
                *prefix = prompt.map(str::to_owned);
            }
        }
        Ok(())
    }
}

/// A model under a task, ready to be traced.
pub struct Conversion {
    task: Task,
    tokenizer: Tokenizer,
    network: Network,
    labels: Vec<String>,
    limit: Limit,
    parameter_bytes: u64,
    /// Similarity of a `dense_vector` field, if the model's files name one.
    similarity: Option<&'static str>,
    options: Options,
    notes: Vec<String>,
}

/// A model with what its task makes of the head's output.
struct Network {
    task: Task,
    model: Box<dyn Model>,
    embedder: Option<Embedder>,
    special: SpecialTokens,
    vocabulary: i64,
    attention: AttentionForm,
}

impl Network {
    fn forward(&self, tensors: &[Tensor]) -> Result<Tensor, TorchError> {
        let inputs = Inputs::of_server(tensors, self.special, self.task.pair(), self.attention)?;
        let output = self.model.forward(&inputs)?;
        match &self.embedder {
            Some(embedder) => embedder.forward(&output, &inputs),
            None => self.task.output(&output, &inputs, self.vocabulary),
        }
    }
}

/// What a traced model is and needs.
pub struct Traced {
    /// The graph, with the weights as constants.
    pub module: Module,
    /// The kinds of its nodes with their number.
    pub operations: BTreeMap<String, usize>,
    /// What was quantized.
    pub quantized: Option<Quantized>,
}

/// What is known of a module once it is saved.
pub struct Saved {
    /// Bytes of parameters and constants, as stored.
    pub per_deployment_memory_bytes: u64,
    /// What quantizing did.
    pub quantization: Option<Quantization>,
}

/// Inputs to measure the memory of a pass with. It may be done on any thread, beside other things.
pub struct PeakMemory {
    longest: i64,
    /// Each with its length.
    inputs: Vec<(i64, Vec<Tensor>)>,
}

impl PeakMemory {
    /// Peak of live bytes in one pass of a module over an input of the greatest length, weights not counted.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn measure(&self, module: &Module) -> Result<u64, TorchError> {
        let _one = OneThread::begin();
        let peaks = self.inputs.iter().map(|(tokens, inputs)| Ok((*tokens, module.peak(inputs)?)));
        let peaks = peaks.collect::<Result<Vec<_>, TorchError>>()?;
        let [first, second, third] = peaks[..] else {
            return Ok(peaks.first().map_or(0, |(_, bytes)| *bytes));
        };
        // The parabola through three equidistant points.
        let at = [first.1 as f64, second.1 as f64, third.1 as f64];
        let steps = (self.longest - first.0) as f64 / (second.0 - first.0) as f64;
        let curvature = at[2] - 2. * at[1] + at[0];
        let bytes = at[0] + steps * (at[1] - at[0]) + steps * (steps - 1.) / 2. * curvature;
        Ok(bytes.max(at[2]) as u64)
    }
}

impl Conversion {
    /// Reads a model's folder.
    ///
    /// # Errors
    /// When anything in it cannot be read, understood or served; see [`ConversionError`].
    pub fn read(files: &ModelFiles, options: Options) -> Result<Self, ConversionError> {
        refuse_adapter(files)?;
        let description = Description::read(files)?;
        let reading = stage("reading the weights");
        let weights = WeightFiles::find(&description.folder)?;
        let checkpoint = Checkpoint::open(&weights)?;
        if let Some(progress) = options.progress {
            checkpoint.show(progress);
        }
        let can = || match Checkpoint::survey(&weights) {
            Ok(survey) => description.servable(&survey),
            Err(_) => Vec::new(),
        };
        let guessed = || description.guess(&options).map(|(task, _)| task);
        let task =
            options.task.or_else(guessed).ok_or_else(|| ConversionError::NoTask { can: can() })?;
        let loaded = description.load(task, options.quantize.is_some(), &checkpoint);
        let loaded = loaded.map_err(|error| as_wrong_task(error, task, &can))?;
        let open = |folder: &ModelFiles| Checkpoint::open(&WeightFiles::find(folder)?);
        let conversion = Self::of(description, task, loaded, options, &open)?;
        drop(reading);
        let Limit { tokens, by } = conversion.limit;
        tracing::info!("max_sequence_length is {tokens}, by {by}");
        Ok(conversion)
    }

    /// Joins a model with what its files say of it. `open` opens the weights of sentence-transformers' modules.
    fn of(
        description: Description,
        task: Task,
        loaded: Loaded,
        mut options: Options,
        open: &OpenModule<'_>,
    ) -> Result<Self, ConversionError> {
        let Description {
            files,
            config,
            dimensions,
            mut tokenizer,
            sentence_transformers,
            usage,
            ..
        } = description;
        let embedding = task == Task::TextEmbedding;
        let modules = sentence_transformers.filter(|_| embedding);
        let embedder = match &modules {
            Some(st) => Some(Embedder::load(&files, &st.modules, dimensions, open)?),
            None => embedding.then(|| Embedder::of_base(dimensions)),
        };
        let parameter_bytes = loaded.bytes + embedder.as_ref().map_or(0, Embedder::parameter_bytes);
        let pools_prompts = modules.as_ref().is_none_or(SentenceTransformers::pools_prompts);
        let settings = modules.map(|st| st.settings).unwrap_or_default();
        if settings.do_lower_case {
            tokenizer.lower_case();
        }
        let mut notes = std::mem::take(&mut tokenizer.warnings);
        if let (Some(class), Some(found)) = (config.own_code(), &config.model_type) {
            notes.push(format!(
                "config.json names code of the repository ({class}, auto_map), which is never run: the model is built as {found}"
            ));
        }
        if !loaded.unused.is_empty() {
            notes.push(format!("not used of {}: {}", loaded.file, loaded.unused.join(", ")));
        }
        let similarity = match (&embedder, usage.similarity.as_deref()) {
            (Some(embedder), Some(name)) => {
                let similarity = dense_vector_similarity(name, embedder.is_normalized());
                if similarity.is_none() {
                    notes.push(format!(
                        "config_sentence_transformers.json compares embeddings by {name}, which Elasticsearch does not know; cosine is the next best"
                    ));
                }
                similarity
            }
            _ => None,
        };
        if options.prompts {
            options.take_prompts(&usage)?;
            if !pools_prompts {
                notes.push(
                    "the model leaves prompts out of its pooling (include_prompt); Elasticsearch cannot, so embeddings differ slightly from the library's"
                        .into(),
                );
            }
        }
        let limit = Limit::of(task, &options, &tokenizer, settings.max_seq_length, dimensions)?;
        Ok(Self {
            task,
            network: Network {
                task,
                model: loaded.model,
                embedder,
                special: tokenizer.special,
                vocabulary: i64::try_from(tokenizer.vocabulary.vocabulary.len())
                    .unwrap_or(i64::MAX),
                attention: if options.target.has(Version::FUSED_ATTENTION) {
                    AttentionForm::Fused
                } else {
                    AttentionForm::Plain
                },
            },
            labels: config.labels,
            limit,
            parameter_bytes,
            similarity,
            tokenizer,
            options,
            notes,
        })
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// The Elasticsearch that it is made for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.options.target
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The longest input in tokens.
    #[must_use]
    pub fn max_sequence_length(&self) -> u32 {
        self.limit.tokens
    }

    /// What the user should know: what the server will do differently, and tensors of the file that are of no use to the task.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes of the parameters.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        self.parameter_bytes
    }

    /// The oldest Elasticsearch that knows the tokenizer and the settings. The graph may need a later one.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        self.needs().map(|(version, _)| version).max().unwrap_or(Version::OLDEST)
    }

    /// Checks that the release that the model is made for has all that it needs.
    ///
    /// # Errors
    /// [`ConversionError::Target`] when it has not.
    pub fn check_target(&self) -> Result<(), ConversionError> {
        let target = self.options.target;
        let lacks =
            |(version, _): &(Version, String)| target != Target::Any && !target.has(*version);
        match self.needs().filter(lacks).max() {
            Some((needed, what)) => Err(ConversionError::Target { target, needed, what }),
            None => Ok(()),
        }
    }

    /// What is needed beyond the oldest release, and the version that it came with.
    fn needs(&self) -> impl Iterator<Item = (Version, String)> {
        let kind = self.tokenizer.kind;
        let prefixed = self.options.ingest_prefix.is_some() || self.options.search_prefix.is_some();
        let prefixes = prefixed.then(|| (Version::PREFIX_STRINGS, "the prefixes".to_owned()));
        let tokenizer = (kind.since(), format!("its tokenizer ({})", kind.name()));
        [Some((Version::OLDEST, "its libtorch".to_owned())), Some(tokenizer), prefixes]
            .into_iter()
            .flatten()
    }

    /// Runs the model on the tensors that the server passes, without a graph.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn forward(&self, tensors: &[Tensor]) -> Result<Tensor, TorchError> {
        tch::no_grad(|| self.network.forward(tensors))
    }

    /// Traces the model, quantizes it if asked, and checks that Elasticsearch would accept the graph.
    ///
    /// # Errors
    /// When it would not, or libtorch fails.
    pub fn trace(&self) -> Result<Traced, ConversionError> {
        let mut module = stage("tracing").in_scope(|| self.trace_float())?;
        let mut quantized = None;
        if self.options.quantize.is_some() {
            let _stage = stage("quantizing").entered();
            let (with_bytes, done) = module.quantize()?;
            if done.layers == 0 {
                return Err(ConversionError::NothingToQuantize);
            }
            (module, quantized) = (with_bytes, Some(done));
        }
        let operations = module.operations()?;
        operations::check(&operations)?;
        Ok(Traced { module, operations, quantized })
    }

    fn trace_float(&self) -> Result<Module, TorchError> {
        /// Any length serves; a short one is traced faster.
        const TOKENS: i64 = 16;
        let _one = OneThread::begin();
        let example = self.example(TOKENS.min(self.limit.tokens.into()))?;
        Module::trace(&example, |tensors| self.network.forward(tensors))
    }

    /// Loads the archive that a traced module was saved as, as the cluster will, and checks what it computes.
    ///
    /// # Errors
    /// When it is not the traced module, or a quantized one agrees too little with the model.
    pub fn check(
        &self,
        traced: &Traced,
        archive: Arc<SegmentedBytes>,
    ) -> Result<Saved, ConversionError> {
        let (loaded, per_deployment_memory_bytes) = Module::load_mapped(archive)?;
        if !self.options.no_verify {
            let _one = OneThread::begin();
            stage("verifying").in_scope(|| self.verify(traced, &loaded))?;
        }
        let quantization = match (&self.options.quantize, traced.quantized) {
            (Some(quantize), Some(done)) => {
                Some(stage("comparing").in_scope(|| self.compare(quantize, done, &loaded))?)
            }
            _ => None,
        };
        Ok(Saved { per_deployment_memory_bytes, quantization })
    }

    /// What is needed to measure the bytes that are live at the peak of a pass over one row of the greatest length.
    ///
    /// Up to 1,024 tokens it is measured. A pass over 8,192 would take minutes and, without fused attention, many gigabytes; what is
    /// live is a sum of tensors whose sizes grow with the length or its square, so three shorter lengths tell it. They lie above the
    /// length at which attention outgrows the feed-forward (256 in models of the usual proportions), where the sum becomes another.
    ///
    /// # Errors
    /// libtorch's own.
    pub fn peak_memory(&self) -> Result<PeakMemory, TorchError> {
        const LENGTHS: [i64; 3] = [512, 768, 1024];
        let longest = i64::from(self.limit.tokens);
        let lengths = if longest <= LENGTHS[2] { vec![longest] } else { LENGTHS.to_vec() };
        let inputs = lengths.into_iter().map(|tokens| Ok((tokens, self.example(tokens)?)));
        Ok(PeakMemory { longest, inputs: inputs.collect::<Result<_, TorchError>>()? })
    }

    /// Inputs of one row without padding.
    fn example(&self, tokens: i64) -> Result<Vec<Tensor>, TorchError> {
        let separator = self.tokenizer.special.separator;
        self.inputs(&Tensor::f_full([1, tokens], separator, (Kind::Int64, tch::Device::Cpu))?)
    }

    /// What the server feeds the graph for ids `[batch, tokens]` (contract 3.4): padding has the padding token's id in the mask too.
    fn inputs(&self, ids: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let padding = self.tokenizer.special.padding;
        let tokens = ids.size().last().copied().unwrap_or_default();
        let positions = Tensor::f_arange(tokens, (Kind::Int64, tch::Device::Cpu))?;
        let mask = ids.f_ones_like()?.f_masked_fill(&ids.f_eq(padding)?, padding)?;
        let positions = positions.f_expand_as(ids)?.f_contiguous()?;
        let mut tensors = vec![ids.shallow_clone(), mask, ids.f_zeros_like()?, positions];
        tensors.truncate(self.tokenizer.kind.inputs());
        Ok(tensors)
    }

    /// The body of the request that creates the model. `title` names it in the description.
    #[must_use]
    pub fn configuration(
        &self,
        title: &str,
        saved: &Saved,
        per_allocation_memory_bytes: u64,
    ) -> Map<String, Value> {
        let facts = Facts {
            tokenizer: self.tokenizer.kind.name(),
            tokenization: &self.tokenizer.settings,
            max_sequence_length: self.limit.tokens,
            labels: &self.labels,
            embedding_size: self.network.embedder.as_ref().map(Embedder::size),
        };
        let mut configuration = Map::new();
        let mut set = |name: &str, value| configuration.insert(name.to_owned(), value);
        set("description", format!("Model {title} for task type '{}'", self.task).into());
        set("model_type", "pytorch".into());
        set("inference_config", self.task.inference_config(&facts));
        set("input", json!({ "field_names": ["text_field"] }));
        let mut metadata = json!({
            "per_deployment_memory_bytes": saved.per_deployment_memory_bytes,
            "per_allocation_memory_bytes": per_allocation_memory_bytes,
        });
        if let Some(origin) = &self.options.origin {
            metadata["hub_model_id"] = origin.model_id.as_str().into();
            metadata["hub_commit"] = origin.commit.as_str().into();
        }
        if let Some(similarity) = self.similarity {
            metadata[SIMILARITY] = similarity.into();
        }
        if let Some(quantization) = &saved.quantization {
            metadata["quantization"] = json!(quantization);
        }
        if self.options.quantize.is_some() {
            set("platform_architecture", agree::platform_architecture().into());
        }
        set("metadata", metadata);
        let prefixes: Map<String, Value> =
            [("ingest", &self.options.ingest_prefix), ("search", &self.options.search_prefix)]
                .into_iter()
                .filter_map(|(key, prefix)| Some((key.to_owned(), prefix.clone()?.into())))
                .collect();
        if !prefixes.is_empty() {
            set("prefix_strings", prefixes.into());
        }
        configuration
    }
}
