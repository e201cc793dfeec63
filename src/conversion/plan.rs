//! The plan of an import: what a model is and what would be stored, without reading its weights.

#[cfg(feature = "torch")]
use std::path::Path;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

#[cfg(feature = "torch")]
use super::QuantizeScheme;
#[cfg(feature = "torch")]
use super::description::{Description, as_wrong_task, is_table, read_config, refuse_adapter};
#[cfg(feature = "torch")]
use super::parts::Parts;
#[cfg(feature = "torch")]
use super::peak_memory::DEFAULT_LENGTH;
#[cfg(feature = "torch")]
use super::quantization::smaller_tables;
#[cfg(feature = "torch")]
use super::refused_families::check_files;
#[cfg(feature = "torch")]
use super::static_embedding::is_static;
#[cfg(feature = "torch")]
use super::{Conversion, Saved};
use super::{ConversionError, Options, TokenizerDifference, model_card};
#[cfg(feature = "torch")]
use crate::checkpoint::{Checkpoint, Dtype, Format, WeightFiles};
#[cfg(feature = "torch")]
use crate::config::Usage;
use crate::config::{ModelConfig, SentenceTransformers};
#[cfg(feature = "torch")]
use crate::models::{WeightLoader, tensor_shapes};
#[cfg(feature = "torch")]
use crate::observer::Progress;
use crate::source::ModelFiles;
use crate::tasks::Task;
use crate::tokenizer::Tokenizer;
#[cfg(feature = "torch")]
use crate::torchscript::{self, operations};
use crate::version::Version;

/// Where the names and shapes of a model's weights can be read.
#[derive(Debug)]
pub enum WeightsSeen {
    /// In the model's folder.
    Folder,
    /// Elsewhere: path and size of each file and, for safetensors, its header.
    Elsewhere(Vec<(PathBuf, u64, Option<Vec<u8>>)>),
}

/// What a model is, and what an import would create from it. Unknown values are null.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// `model_type` in `config.json`.
    pub model_type: Option<String>,
    /// Transformers classes in `architectures`.
    pub classes: Vec<String>,
    /// The architecture that is built; null if it is not supported.
    pub architecture: Option<&'static str>,
    /// Whether the model is a table with one weight for each token, without a transformer.
    pub is_token_table: bool,
    /// Whether the model is a table with one vector for each token, without a transformer.
    pub is_static_embedding: bool,
    /// Languages listed in the model card.
    pub languages: Vec<String>,
    /// The models of a repository that provides several; empty if it provides one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PlannedPart>,
    /// Tasks of the model's LoRA adapters; empty if it has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lora_tasks: Vec<String>,
    /// Task of the adapter that an import would merge into the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_task: Option<String>,
    /// Files that contain the weights.
    pub weights: Option<PlannedWeights>,
    /// Number of parameters. The number for the task that would be chosen comes first.
    pub parameters: Option<Parameters>,
    /// The tokenizer, for reports.
    pub tokenizer: Option<PlannedTokenizer>,
    /// The tokenizer as it would be uploaded.
    #[serde(skip)]
    pub uploaded: Option<Tokenizer>,
    /// How much Elasticsearch's tokens differ from those of the model's own tokenizer; null if they were not compared.
    pub tokenizer_difference: Option<TokenizerDifference>,
    /// The tokens that are kept for texts of some scripts; null if all are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scripts: Option<PlannedScripts>,
    /// Tasks that the model can serve; null if the shapes of its weights are unknown.
    #[serde(serialize_with = "names")]
    pub tasks: Option<Vec<Task>>,
    /// Task that an import would choose.
    #[serde(serialize_with = "name")]
    pub task: Option<Task>,
    /// Reason for the choice.
    pub task_reason: Option<String>,
    /// Longest input in tokens.
    pub max_length: Option<u32>,
    /// File or option that determines the longest input.
    pub max_length_reason: Option<&'static str>,
    /// Prompts and similarity declared by the model's files.
    pub usage: PlannedUsage,
    /// Pooling and width of the embedding.
    pub embedding: Option<PlannedEmbedding>,
    /// Memory needs.
    pub memory: Option<PlannedMemory>,
    /// Memory of an allocation by the length of the input, for models that read more than 512 tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_by_length: Vec<MemoryAtLength>,
    /// Memory with quantization schemes that are suggested for models with a large vocabulary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_by_scheme: Vec<MemoryOfScheme>,
    /// The tokens for texts in Latin script, if a model with a large vocabulary has many others; null if the options name scripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_scripts: Option<PlannedScripts>,
    /// Oldest Elasticsearch version that can serve the model.
    #[serde(serialize_with = "shown")]
    pub minimum_version: Option<Version>,
    /// Body of the request that would create the model. Values that only a finished conversion can measure are estimates.
    pub configuration: Option<Map<String, Value>>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Keys of the model's files that are not understood.
    pub not_understood: Vec<String>,
    /// Why the model cannot be imported.
    #[serde(serialize_with = "shown")]
    pub problem: Option<ConversionError>,
}

/// One of several models in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedPart {
    /// Name of the model in the repository.
    pub part: String,
    /// Task of the model.
    #[serde(serialize_with = "task_name")]
    pub task: Task,
    /// Whether an import with the same options would store this model.
    pub is_chosen: bool,
}

/// Files that contain the weights.
#[derive(Debug, Serialize)]
pub struct PlannedWeights {
    /// `safetensors` or `pytorch`.
    pub format: &'static str,
    /// Number of files.
    pub files: usize,
    /// Total size in bytes.
    pub bytes: u64,
    /// Element type of most tensors.
    pub number_type: Option<&'static str>,
    /// Whether names and shapes were read. They are unknown for formats without a header, which would have to be downloaded
    /// completely.
    pub looked_at: bool,
}

/// Number of parameters of a model.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Parameters {
    /// Parameters that the task uses.
    pub used: u64,
    /// Parameters in the files.
    pub stored: Option<u64>,
}

/// Tokenizer of the model.
#[derive(Debug, Serialize)]
pub struct PlannedTokenizer {
    /// Name of the tokenization in Elasticsearch's API.
    pub kind: &'static str,
    /// Number of tokens that are uploaded.
    pub vocabulary_size: usize,
    /// Whether text is lower-cased; null for tokenizations without this setting.
    pub lower_case: Option<bool>,
}

/// The tokens that are kept for texts of some scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedScripts {
    /// Names of the scripts.
    pub names: Vec<&'static str>,
    /// Number of the model's tokens that are kept.
    pub kept: usize,
    /// Number of the model's tokens.
    pub of: usize,
    /// Size of the tokens that are left out, in float32.
    pub left_out_bytes: u64,
}

/// What a model's own files declare about its use.
#[derive(Debug, Default, Serialize)]
pub struct PlannedUsage {
    /// Text to prepend to each query.
    pub query_prompt: Option<String>,
    /// Text to prepend to each document.
    pub document_prompt: Option<String>,
    /// Similarity of two embeddings, with the name in the model's files.
    pub similarity: Option<String>,
}

/// Embedding of a text.
#[derive(Debug, Serialize)]
pub struct PlannedEmbedding {
    /// Number of dimensions.
    pub size: u64,
    /// Steps from token states to one vector.
    pub pooling: Vec<String>,
    /// Similarity in a `dense_vector` field.
    pub similarity: Option<&'static str>,
    /// Numbers of dimensions to which the model's files declare that embeddings can be cut (Matryoshka).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matryoshka_dimensions: Vec<i64>,
}

/// Estimated sizes in bytes. An import measures them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PlannedMemory {
    /// Size of the definition.
    pub definition_bytes: u64,
    /// Memory of a deployment that its allocations share.
    pub per_deployment_bytes: u64,
    /// Additional memory of each allocation, for the longest input.
    pub per_allocation_bytes: u64,
}

/// Additional memory of an allocation for inputs of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryAtLength {
    /// Length in tokens.
    pub tokens: u32,
    /// Bytes.
    pub bytes: u64,
}

/// Memory with a quantization scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryOfScheme {
    /// Name of the scheme.
    pub scheme: &'static str,
    /// Size of the definition.
    pub definition_bytes: u64,
    /// Memory of a deployment that its allocations share.
    pub per_deployment_bytes: u64,
}

fn task_name<S: Serializer>(task: &Task, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(task.name())
}

fn name<S: Serializer>(task: &Option<Task>, to: S) -> Result<S::Ok, S::Error> {
    task.map(Task::name).serialize(to)
}

fn names<S: Serializer>(tasks: &Option<Vec<Task>>, to: S) -> Result<S::Ok, S::Error> {
    let names = tasks.as_ref().map(|tasks| tasks.iter().map(|task| task.name()).collect());
    <Option<Vec<&str>>>::serialize(&names, to)
}

fn shown<S: Serializer>(what: &Option<impl ToString>, to: S) -> Result<S::Ok, S::Error> {
    what.as_ref().map(ToString::to_string).serialize(to)
}

impl Plan {
    /// Reads a model's small files, and the names and shapes of its weights if they are available. `title` is the name of the model
    /// in its description. A reason that prevents an import becomes part of the plan.
    ///
    /// # Errors
    /// [`ConversionError`] if no `config.json` describes the model.
    pub fn read(
        files: &ModelFiles,
        seen: &WeightsSeen,
        options: Options,
        title: &str,
    ) -> Result<Self, ConversionError> {
        #[cfg(feature = "torch")]
        if matches!(seen, WeightsSeen::Folder) {
            refuse_adapter(files)?;
        }
        // A folder of such a family can lack config.json.
        #[cfg(feature = "torch")]
        if files.find("config.json")?.is_none() {
            check_files(files, None)?;
        }
        let config = match SentenceTransformers::read(files, options.part.as_deref()) {
            Ok(Some(modules)) => {
                ModelConfig::of_module(&files.sub(&modules.transformer)?, Some(&modules))?
            }
            other => ModelConfig::read(files).map_err(|error| other.err().unwrap_or(error))?,
        };
        let mut plan = Self {
            model_type: config.model_type,
            classes: config.architectures,
            architecture: None,
            is_token_table: false,
            is_static_embedding: false,
            languages: model_card::languages(files),
            parts: Vec::new(),
            lora_tasks: Vec::new(),
            lora_task: None,
            weights: None,
            parameters: None,
            tokenizer: None,
            uploaded: None,
            tokenizer_difference: None,
            scripts: None,
            tasks: None,
            task: None,
            task_reason: None,
            max_length: None,
            max_length_reason: None,
            usage: PlannedUsage::default(),
            embedding: None,
            memory: None,
            memory_by_length: Vec::new(),
            memory_by_scheme: Vec::new(),
            suggested_scripts: None,
            minimum_version: None,
            configuration: None,
            warnings: Vec::new(),
            not_understood: Vec::new(),
            problem: None,
        };
        plan.problem = plan.fill(files, seen, options, title).err();
        Ok(plan)
    }
}

impl Plan {
    /// Name of the model that an import would store, if the repository provides several.
    #[must_use]
    pub fn chosen_part(&self) -> Option<&str> {
        self.parts.iter().find(|part| part.is_chosen).map(|part| part.part.as_str())
    }
}

#[cfg(not(feature = "torch"))]
impl Plan {
    fn fill(
        &mut self,
        _files: &ModelFiles,
        _seen: &WeightsSeen,
        _options: Options,
        _title: &str,
    ) -> Result<(), ConversionError> {
        Err(ConversionError::NoLibtorch)
    }
}

#[cfg(feature = "torch")]
impl Plan {
    /// Sets as many fields as the available files allow.
    fn fill(
        &mut self,
        files: &ModelFiles,
        seen: &WeightsSeen,
        options: Options,
        title: &str,
    ) -> Result<(), ConversionError> {
        // Also for a model that cannot be described.
        self.show_usage(&Usage::read(files)?);
        check_files(files, None)?;
        let parts = Parts::of(files)?;
        let part = parts.choose(options.part.as_deref(), options.task);
        self.parts = parts.planned(part.as_ref().ok().copied().flatten());
        let part = part?;
        let modules = SentenceTransformers::read(files, part.map(|part| part.name.as_str()))?;
        let root = modules.as_ref().map_or("", |modules| modules.transformer.as_str());
        self.is_token_table = is_table(part, modules.as_ref());
        let survey = match self.is_token_table {
            true => None,
            false => self.survey(&files.sub(root)?, seen)?,
        };

        let shapes = survey.as_ref().map(|survey| tensor_shapes(survey.checkpoint()));
        check_files(files, shapes.as_ref())?;
        let config = read_config(&files.sub(root)?, modules.as_ref())?;
        self.is_static_embedding = !self.is_token_table && is_static(&config, modules.as_ref());
        let by_weights = |_: &ModelFiles| Ok(shapes.clone());
        let mut description = Description::read(files, &options, &Progress::quiet(), &by_weights)?;
        self.architecture = description.architecture().map(|known| known.name);
        self.show_usage(&description.usage);
        self.lora_tasks.clone_from(&description.lora.tasks);
        self.lora_task.clone_from(&description.lora.task);
        self.show_tokenizer(&description.tokenizer);
        torchscript::load()?;
        // Without the shapes of the weights, the tasks are unknown.
        self.tasks = match &survey {
            Some(survey) => Some(description.servable(survey)),
            None if self.is_token_table => Some(vec![Task::TextExpansion]),
            None => None,
        };
        let survey = survey.unwrap_or_else(WeightLoader::outline);
        let can = || description.servable(&survey);
        let (task, reason) = match options.task {
            Some(task) => (task, "it was requested".to_owned()),
            None => {
                description.guess(&options).ok_or_else(|| ConversionError::NoTask { can: can() })?
            }
        };
        let quantize = options.quantizes_linear_layers();
        let quantize_scheme = options.quantize.as_ref().map(|quantize| quantize.scheme);
        let loaded = description
            .load(task, quantize, &survey)
            .map_err(|error| as_wrong_task(error, task, &can))?;
        (self.task, self.task_reason) = (Some(task), Some(reason));
        self.scripts = description.tokenizer.kept.as_ref().map(|kept| PlannedScripts {
            names: kept.scripts.names().collect(),
            kept: kept.ids().len(),
            of: kept.of,
            left_out_bytes: description.left_out_bytes(task, &survey),
        });
        let (unused, bytes, file) = (loaded.unused, loaded.bytes, loaded.file);
        let dimensions = description.dimensions;

        description.reduce_layers();
        let mut loaded = description.load(task, quantize, &WeightLoader::sketch())?;
        (loaded.unused, loaded.bytes, loaded.file) = (unused, bytes, file);
        let open = |_: &ModelFiles| Ok(WeightLoader::sketch());
        let kind_without_task = description.tokenizer.kind;
        let matryoshka = description.matryoshka(&options);
        let comparison =
            description.compare_tokenizers(files, task, &options, &Progress::quiet())?;
        let mut conversion = Conversion::of(description, task, loaded, options, &open)?;
        conversion.take(comparison);
        if kind_without_task != conversion.tokenizer().kind {
            self.show_tokenizer(conversion.tokenizer());
        }
        self.tokenizer_difference = conversion.tokenizer_difference.clone();
        if conversion.limits_memory() {
            conversion.store_scores();
        }
        let module = conversion.trace_float()?;
        operations::check(&module.operations()?)?;
        let curve = conversion.peak_memory_by_length()?.curve(&module)?;
        let longest = conversion.limit.tokens;
        conversion.limit_memory_to(&curve);
        self.max_length = Some(conversion.limit.tokens);
        self.max_length_reason = Some(conversion.limit.by);
        self.minimum_version = Some(conversion.minimum_version());
        self.warnings.extend(conversion.notes().iter().cloned());
        self.not_understood = conversion.not_understood().to_vec();
        if let Some(embedder) = conversion.network.output.embedder() {
            self.embedding = Some(PlannedEmbedding {
                size: embedder.size().try_into().unwrap_or_default(),
                pooling: embedder.steps(),
                similarity: conversion.similarity,
                matryoshka_dimensions: matryoshka.dimensions,
            });
        }
        let bytes = conversion.parameter_bytes();
        let stored = self.parameters.and_then(|parameters| parameters.stored);
        self.parameters = Some(Parameters { used: bytes / 4, stored });
        let table = dimensions.vocabulary.saturating_mul(dimensions.hidden).saturating_mul(4);
        let table = bytes.min(table.try_into().unwrap_or_default());
        let width = dimensions.hidden.try_into().unwrap_or_default();
        let is_tied = matches!(task, Task::FillMask | Task::TextExpansion);
        let estimated =
            |scheme: QuantizeScheme| scheme.estimated_bytes(bytes, table, width, is_tied);
        let held = quantize_scheme.map_or(bytes, estimated);
        let memory = PlannedMemory {
            definition_bytes: held.saturating_add(CODE),
            per_deployment_bytes: held,
            per_allocation_bytes: curve.at(conversion.limit.tokens.into()),
        };
        self.memory = Some(memory);
        if quantize_scheme.is_none() {
            let schemes = smaller_tables(task, bytes, conversion.word_table);
            let memory_of = |(scheme, bytes): (QuantizeScheme, u64)| MemoryOfScheme {
                scheme: scheme.name(),
                definition_bytes: bytes.saturating_add(CODE),
                per_deployment_bytes: bytes,
            };
            self.memory_by_scheme = schemes.into_iter().map(memory_of).collect();
            self.suggested_scripts = conversion.fewer_scripts();
        }
        if longest > DEFAULT_LENGTH {
            let lengths = [DEFAULT_LENGTH, 2048, longest].into_iter().filter(|it| *it <= longest);
            let bytes = |tokens: u32| MemoryAtLength { tokens, bytes: curve.at(tokens.into()) };
            self.memory_by_length = lengths.map(bytes).collect();
            self.memory_by_length.dedup();
        }
        self.configuration = Some(conversion.configuration(
            title,
            &Saved { per_deployment_memory_bytes: memory.per_deployment_bytes, quantization: None },
            memory.per_allocation_bytes,
        ));
        conversion.check_tokenizer()?;
        conversion.check_target()
    }

    fn show_usage(&mut self, usage: &Usage) {
        self.usage = PlannedUsage {
            query_prompt: usage.query().map(str::to_owned),
            document_prompt: usage.document().map(str::to_owned),
            similarity: usage.similarity.clone(),
        };
    }

    fn show_tokenizer(&mut self, tokenizer: &Tokenizer) {
        self.tokenizer = Some(PlannedTokenizer {
            kind: tokenizer.kind.name(),
            vocabulary_size: tokenizer.vocabulary.vocabulary.len(),
            lower_case: tokenizer.settings.get("do_lower_case").and_then(Value::as_bool),
        });
        self.uploaded = Some(tokenizer.clone());
    }

    /// Reads names and shapes of the weights. `None` if the format has no header.
    fn survey(
        &mut self,
        folder: &ModelFiles,
        seen: &WeightsSeen,
    ) -> Result<Option<WeightLoader>, ConversionError> {
        let (format, sizes, survey) = match seen {
            WeightsSeen::Folder => {
                let weights = WeightFiles::find(folder)?;
                let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
                let sizes: Vec<u64> = weights.shards.iter().map(size).collect();
                (weights.format, sizes, Some(Checkpoint::open(&weights)?))
            }
            WeightsSeen::Elsewhere(files) => {
                let sizes = files.iter().map(|(_, size, _)| *size).collect();
                let headers = files
                    .iter()
                    .map(|(path, size, header)| Some((path.clone(), header.clone()?, *size)));
                match headers.collect::<Option<Vec<_>>>() {
                    Some(headers) => {
                        let path = match &headers[..] {
                            [(path, ..)] => path.clone(),
                            _ => Path::new("model.safetensors.index.json").to_owned(),
                        };
                        let survey = Checkpoint::from_headers(path, &headers)?;
                        (Format::Safetensors, sizes, Some(survey))
                    }
                    None => (Format::Pytorch, sizes, None),
                }
            }
        };
        let known = survey.as_ref().map(Checkpoint::parameters);
        self.weights = Some(PlannedWeights {
            format: match format {
                Format::Safetensors => "safetensors",
                Format::Pytorch => "pytorch",
            },
            files: sizes.len(),
            bytes: sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)),
            number_type: known.and_then(|(dtype, _)| dtype).map(number_type),
            looked_at: survey.is_some(),
        });
        self.parameters =
            known.map(|(_, stored)| Parameters { used: stored, stored: Some(stored) });
        Ok(survey.map(WeightLoader::survey))
    }
}

/// Approximate size of an archive without its weights.
#[cfg(feature = "torch")]
const CODE: u64 = 64 << 10;

#[cfg(feature = "torch")]
fn number_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        Dtype::F64 => "float64",
        _ => "float32",
    }
}
