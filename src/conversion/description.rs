//! Description of a model from its small files: configuration, sizes, tokenizer and task, without the weights.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::lora::LoraChoice;
use super::model_conversion::keeps_own_names;
use super::parts::{Part, PartKind, Parts};
use super::static_embedding::{StaticTable, is_static};
use super::token_table::TableWeights;
use super::tokenization_notes::Comparison;
use super::{ConversionError, Options, model_card, tokenization_notes};
use crate::checkpoint::{CheckpointError, WeightFiles};
use crate::config::keys::{IgnoredKey, ignored_keys};
use crate::config::{Head, ModelConfig, Quantization, SentenceTransformers, Usage};
use crate::models::{
    Architecture, Blueprint, ConfigError, Dimensions, Evidence, Model, TensorShapes, WeightError,
    WeightLoader,
};
use crate::observer::{Progress, Stage};
use crate::source::{ModelFiles, SourceError};
use crate::tasks::{EmbedderError, Task, guess};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// What the small files of a model declare: configuration, sizes and tokenizer.
#[derive(Clone)]
pub(super) struct Description {
    /// The files of the whole model.
    pub(super) files: ModelFiles,
    /// The folder of the transformer within the model.
    pub(super) folder: ModelFiles,
    pub(super) config: ModelConfig,
    pub(super) base: Base,
    pub(super) dimensions: Dimensions,
    pub(super) tokenizer: Tokenizer,
    pub(super) sentence_transformers: Option<SentenceTransformers>,
    pub(super) usage: Usage,
    /// The source of the architecture's name if `config.json` has no `model_type`.
    pub(super) inferred: Option<String>,
    /// Keys of the files that the program does not apply.
    pub(super) ignored: Vec<IgnoredKey>,
    /// The model among those of the repository, if the repository provides several.
    pub(super) part: Option<Part>,
    /// The names of the other models of the repository.
    pub(super) other_parts: Vec<String>,
    /// The LoRA adapters, and the one that is merged.
    pub(super) lora: LoraChoice,
}

/// Whether a model is a table with one weight for each token.
pub(super) fn is_table(part: Option<&Part>, modules: Option<&SentenceTransformers>) -> bool {
    part.is_some_and(|part| part.kind == PartKind::Table)
        || modules.is_some_and(SentenceTransformers::is_token_table)
}

/// What computes the output of a model.
#[derive(Clone)]
pub(super) enum Base {
    /// An architecture of Transformers.
    Architecture(&'static Architecture),
    /// A table with one weight for each token.
    TokenTable(TableWeights),
    /// A table with one vector for each token.
    Static(StaticTable),
}

/// Opens the weights of a sentence-transformers module.
pub(super) type OpenModule<'a> = dyn Fn(&ModelFiles) -> Result<WeightLoader, WeightError> + 'a;

/// A model built from a checkpoint, with facts about the checkpoint.
pub(super) struct Loaded {
    pub(super) model: Box<dyn Model>,
    /// Name of the checkpoint's file.
    pub(super) file: String,
    pub(super) unused: Vec<String>,
    pub(super) bytes: u64,
}

/// Longest input, and the file or option that determines it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) tokens: u32,
    pub(super) by: &'static str,
}

impl Description {
    /// Reads the small files of the model that `options` select. `tensors` returns the shapes of the weights in a folder, if they are
    /// available.
    pub(super) fn read(
        files: &ModelFiles,
        options: &Options,
        progress: &Progress,
        tensors: &dyn Fn(&ModelFiles) -> Result<Option<TensorShapes>, CheckpointError>,
    ) -> Result<Self, ConversionError> {
        let parts = Parts::of(files)?;
        let part = parts.choose(options.part.as_deref(), options.task)?;
        let other_parts = part.map(|part| parts.others(part)).unwrap_or_default();
        let other_parts = other_parts.into_iter().map(str::to_owned).collect();
        let route = part.map(|part| part.name.as_str());
        let sentence_transformers = SentenceTransformers::read(files, route)?;
        let root = sentence_transformers.as_ref().map_or("", |st| st.transformer.as_str());
        let folder = files.sub(root)?;
        if part.is_some() && !folder.folder().is_dir() {
            return Err(ConversionError::Source(SourceError::Missing {
                folder: files.folder().to_owned(),
                name: root.to_owned(),
                advice: "router_config.json names this folder; download it too",
            }));
        }
        let mut config = read_config(&folder, sentence_transformers.as_ref())?;
        let read_tokenizer = |config: &ModelConfig| {
            progress.run(Stage::ReadTokenizer, || Tokenizer::read(&folder, config))
        };
        let (base, dimensions, tokenizer, inferred);
        let mut lora_tasks = None;
        if is_table(part, sentence_transformers.as_ref()) {
            if options.scripts.is_some() {
                let reason = "its answers have one number for each token of the vocabulary";
                return Err(TokenizerError::Scripts(reason.into()).into());
            }
            let mut read = read_tokenizer(&config)?;
            read.append_tokens();
            read.leave_out_special_tokens();
            let has_modules = sentence_transformers.is_some();
            base = Base::TokenTable(TableWeights::read(files, &folder, has_modules, &read)?);
            (dimensions, tokenizer, inferred) = (TableWeights::dimensions(&read), read, None);
        } else if is_static(&config, sentence_transformers.as_ref()) {
            let read = || Tokenizer::read_without_special_tokens(&folder);
            let mut read = progress.run(Stage::ReadTokenizer, read)?;
            let table = StaticTable::read(&config, tensors(&folder)?.as_ref(), &read)?;
            read.check_embeddings(table.tokens())?;
            read.append_required();
            if let Some(scripts) = &options.scripts {
                read.keep_scripts(scripts, 0)?;
            }
            (dimensions, tokenizer, inferred) = (table.dimensions(), read, None);
            base = Base::Static(table);
        } else {
            let shapes = OnceCell::new();
            // Weights that cannot be read are reported when they are loaded.
            let tensors = || shapes.get_or_init(|| tensors(&folder).ok().flatten()).as_ref();
            let (architecture, source) = detect(&config, &tensors)
                .map_err(|error| or_first_module(error, sentence_transformers.as_ref()))?;
            if let Some(key) = config.refused_null() {
                let problem = format!("{key} is null, and the model needs a value");
                return Err(ConfigError::Value(problem).into());
            }
            lora_tasks = LoraChoice::tasks(&config, files, &tensors)?;
            if source.is_some() {
                config.model_type = Some(architecture.name.to_owned());
            }
            let mut sizes = (architecture.dimensions)(&config.json)?;
            let mut read = read_tokenizer(&config)?;
            read.check_embeddings(sizes.vocabulary)?;
            read.append_tokens();
            if let Some(scripts) = &options.scripts {
                read.keep_scripts(scripts, tokens_with_fixed_ids(architecture, &config.json)?)?;
            }
            if let Some(rows) = read.kept_rows() {
                sizes.vocabulary = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            }
            (base, dimensions) = (Base::Architecture(architecture), sizes);
            (tokenizer, inferred) = (read, source);
        }
        let lora = LoraChoice::of(lora_tasks.as_ref(), options.lora_task.as_deref())?;
        let mut usage = usage(files, options)?;
        if let (Some(tasks), Some(task)) = (&lora_tasks, &lora.task) {
            usage.choose_task(task, &tasks.instructions);
        }
        let ignored = ignored_keys(files, &folder, sentence_transformers.as_ref());
        let files = files.clone();
        Ok(Self {
            files,
            folder,
            config,
            base,
            dimensions,
            tokenizer,
            sentence_transformers,
            usage,
            inferred,
            ignored,
            part: part.cloned(),
            other_parts,
            lora,
        })
    }

    /// Task that the files suggest, and the reason.
    pub(super) fn guess(&self, options: &Options) -> Option<(Task, String)> {
        if let Some(Part { name, kind, task }) = &self.part
            && !matches!(kind, PartKind::Route | PartKind::Dense)
        {
            return Some((*task, format!("{name} is a sparse model of the repository")));
        }
        if let Base::Static(_) = self.base {
            return Some((Task::TextEmbedding, "it is a table of static embeddings".into()));
        }
        // eland does the same for repositories of the sentence-transformers organization that lack modules.json.
        let of_library = options
            .origin
            .as_ref()
            .is_some_and(|origin| origin.model_id.starts_with("sentence-transformers/"));
        match guess(&self.config, self.sentence_transformers.as_ref(), &self.usage) {
            Some((Task::FillMask, _)) | None if of_library => {
                Some((Task::TextEmbedding, "it is a repository of sentence-transformers".into()))
            }
            guessed => guessed,
        }
    }

    /// Compares Elasticsearch's tokenizer with the model's own. The comparison builds both tokenizers.
    pub(super) fn compare_tokenizers(
        &self,
        files: &ModelFiles,
        task: Task,
        options: &Options,
        progress: &Progress,
    ) -> Result<Comparison, ConversionError> {
        let mut tokenizer = Cow::Borrowed(&self.tokenizer);
        if keeps_own_names(task, options.target) {
            tokenizer.to_mut().keep_names();
        }
        let languages = model_card::languages(files);
        let compare =
            || tokenization_notes::compare(&self.folder, &tokenizer, task.pair(), &languages);
        progress.run(Stage::CompareTokenizers, compare)
    }

    /// The architecture of the model; `None` for a table of token weights.
    pub(super) fn architecture(&self) -> Option<&'static Architecture> {
        match &self.base {
            Base::Architecture(architecture) => Some(architecture),
            Base::TokenTable(_) | Base::Static(_) => None,
        }
    }

    /// The tasks for which a checkpoint has labels and all weights.
    pub(super) fn servable(&self, survey: &WeightLoader) -> Vec<Task> {
        Task::ALL.into_iter().filter(|task| self.load(*task, false, survey).is_ok()).collect()
    }

    /// Builds the model with the head of a task.
    pub(super) fn load(
        &self,
        task: Task,
        quantize: bool,
        checkpoint: &WeightLoader,
    ) -> Result<Loaded, ConversionError> {
        let Self { config, tokenizer, .. } = self;
        let architecture = match &self.base {
            Base::Architecture(architecture) => architecture,
            Base::TokenTable(weights) => return weights.load(task, tokenizer, checkpoint),
            Base::Static(table) => return table.load(task, tokenizer, checkpoint),
        };
        task.served_labels(&config.labels)
            .map_err(|reason| ConversionError::wrong_task(task, reason))?;
        let declared = match config.quantization() {
            Some(Quantization::Other(scheme)) => Some(scheme),
            _ => None,
        };
        if let Some(scheme) = declared.or_else(|| checkpoint.quantization().map(str::to_owned)) {
            return Err(ConversionError::QuantizedCheckpoint(scheme));
        }
        check_pruned_heads(config)?;
        let labels = i64::try_from(config.labels.count()).unwrap_or(i64::MAX);
        let head = self.head(task)?;
        let blueprint = Blueprint { config: &config.json, head, labels, quantize };
        if tokenizer.kept.is_some() && head == Head::MaskedLm {
            let reason = format!("{task} returns a number for each token of the vocabulary");
            return Err(TokenizerError::Scripts(reason).into());
        }
        let weights = checkpoint.weights().spelled(architecture.spellings);
        let weights = weights.adapted(self.lora.adapter.as_ref());
        let weights = weights.with_rows(tokenizer.kept_rows());
        let model = (architecture.load)(&weights, blueprint)?;
        if tokenizer.kept_rows().is_some() && !checkpoint.has_vocabulary() {
            let reason = format!("the word embeddings of {} are not known", architecture.name);
            return Err(TokenizerError::Scripts(reason).into());
        }
        let (unused, bytes) = checkpoint.finish()?;
        Ok(Loaded { model, file: checkpoint.file_name(), unused, bytes })
    }
}

impl Description {
    /// Bytes of the parameters of the tokens that are left out, in float32.
    pub(super) fn left_out_bytes(&self, task: Task, checkpoint: &WeightLoader) -> u64 {
        let mut whole = self.clone();
        whole.tokenizer.kept = None;
        let bytes = |it: &Self| it.load(task, false, checkpoint).map_or(0, |loaded| loaded.bytes);
        bytes(&whole).saturating_sub(bytes(self))
    }

    /// Leaves out all layers but three of each stack. The peak of live tensors in a pass depends neither on the number of layers nor on the
    /// values of the weights. The first two layers of a stack can differ in their attention, and a graph can compute one token alone in the
    /// last layer.
    pub(super) fn reduce_layers(&mut self) {
        const KEPT: usize = 3;
        const NUMBERS: [&str; 6] = [
            "num_hidden_layers",
            "num_layers",
            "n_layers",
            "n_layer",
            "encoder_layers",
            "decoder_layers",
        ];
        let Some(fields) = self.config.json.as_object_mut() else { return };
        for (name, value) in fields {
            match value {
                Value::Array(layers) if name == "layer_types" || name == "attention_window" => {
                    layers.truncate(KEPT);
                }
                value if NUMBERS.contains(&name.as_str()) && value.as_u64() > Some(KEPT as u64) => {
                    *value = KEPT.into();
                }
                _ => (),
            }
        }
    }

    /// The head of the architecture for a task.
    fn head(&self, task: Task) -> Result<Head, ConversionError> {
        let wrong = |part: &Part, kind| {
            let (name, others) = (&part.name, self.other_parts.join(" and "));
            let reason = format!(
                "{name} is the {kind} model of the repository, which also provides {others}"
            );
            ConversionError::wrong_task(task, reason)
        };
        let part = match &self.part {
            Some(part) if part.kind == PartKind::Dense && task == Task::TextExpansion => {
                return Err(wrong(part, "dense"));
            }
            Some(part) if part.kind.has_token_weights() => part,
            _ => return Ok(task.head()),
        };
        if task != part.task {
            return Err(wrong(part, "sparse"));
        }
        Ok(match part.kind {
            PartKind::TokenClassifier => Head::TokenClassification,
            _ => Head::Base,
        })
    }
}

/// How a model is meant to be used: by its own file, and by the family that the name of its repository or folder reveals.
fn usage(files: &ModelFiles, options: &Options) -> Result<Usage, ConversionError> {
    let mut usage = Usage::read(files)?;
    if let Some(name) = name(files, options) {
        usage.assume_family(&name);
    }
    Ok(usage)
}

/// The name of a model's repository, or else of its folder.
pub(super) fn name(files: &ModelFiles, options: &Options) -> Option<String> {
    let folder = || files.folder().file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = options.origin.as_ref().map(|origin| origin.model_id.clone());
    repository.or_else(folder)
}

/// Number of tokens from the first on that keep their ids if others are left out: some graphs contain ids of `config.json`, or count
/// positions from the id of padding.
fn tokens_with_fixed_ids(
    architecture: &Architecture,
    config: &Value,
) -> Result<usize, TokenizerError> {
    const ARCHITECTURES: [&str; 6] =
        ["bart", "camembert", "longformer", "roberta", "xlm-roberta", "xlm-roberta-flash"];
    const FIELDS: [&str; 4] =
        ["pad_token_id", "sep_token_id", "eos_token_id", "decoder_start_token_id"];
    /// The defaults of the fields, and the id in the code of MPNet, are smaller.
    const LEAST: usize = 3;
    /// Larger ids follow those of ordinary tokens.
    const MOST: usize = 1024;
    if !ARCHITECTURES.contains(&architecture.name) {
        return Ok(LEAST);
    }
    let id = |field: &str| usize::try_from(config.get(field)?.as_u64()?).ok();
    match FIELDS.into_iter().filter_map(id).max() {
        Some(last) if last >= MOST => {
            let reason =
                format!("config.json names the special token {last}, whose id would change");
            Err(TokenizerError::Scripts(reason))
        }
        last => Ok(LEAST.max(last.map_or(0, |last| last + 1))),
    }
}

/// Rejects pruned attention heads in an architecture that is not built with them.
fn check_pruned_heads(config: &ModelConfig) -> Result<(), ConfigError> {
    const BUILT: [&str; 7] =
        ["bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta"];
    let pruned = config.json.get("pruned_heads").and_then(Value::as_object);
    let is_built = config.model_type.as_deref().is_some_and(|name| BUILT.contains(&name));
    if is_built || pruned.is_none_or(Map::is_empty) {
        return Ok(());
    }
    Err(ConfigError::Unsupported(
        "pruned_heads".into(),
        "attention heads were removed from the model, which is supported for BERT, ERNIE, RoBERTa, ELECTRA and DistilBERT only",
    ))
}

/// Turns an error about missing weights or labels into [`ConversionError::WrongTask`], with the tasks that the model can serve.
pub(super) fn as_wrong_task(
    error: ConversionError,
    task: Task,
    can: &dyn Fn() -> Vec<Task>,
) -> ConversionError {
    let reason = match error {
        ConversionError::WrongTask { reason, .. } => reason,
        ConversionError::Weights(WeightError::Mismatch { .. })
        | ConversionError::Config(ConfigError::NoHead(..)) => error.to_string(),
        other => return other,
    };
    ConversionError::WrongTask { task, reason, can: can() }
}

/// Reads `config.json` in the folder of the first module.
pub(super) fn read_config(
    folder: &ModelFiles,
    modules: Option<&SentenceTransformers>,
) -> Result<ModelConfig, ConversionError> {
    ModelConfig::of_module(folder, modules).map_err(|error| or_first_module(error.into(), modules))
}

/// The error of an unsupported first module, which explains why its folder contains no architecture; otherwise `error`.
fn or_first_module(
    error: ConversionError,
    modules: Option<&SentenceTransformers>,
) -> ConversionError {
    match modules.and_then(SentenceTransformers::unsupported_first) {
        Some(first) => EmbedderError::from(first).into(),
        None => error,
    }
}

/// The architecture of a folder. If `config.json` states no `model_type`, also the source of the architecture: the classes in
/// `architectures`, or else the names of the weights.
fn detect<'a>(
    config: &'a ModelConfig,
    tensors: &'a dyn Fn() -> Option<&'a TensorShapes>,
) -> Result<(&'static Architecture, Option<String>), ConversionError> {
    let model_type = config.model_type.as_deref();
    if model_type.is_none() {
        let by_class = |class: &String| {
            Some((Architecture::of_class(class)?, format!("{class} in architectures")))
        };
        if let Some((architecture, source)) = config.architectures.iter().find_map(by_class) {
            return Ok((architecture, Some(source)));
        }
    }
    let (json, classes) = (&config.json, &config.architectures[..]);
    let evidence = Evidence { config: json, model_type, classes, tensors };
    if let Some(architecture) = Architecture::detect(&evidence) {
        let source = model_type.is_none().then(|| "the names of the weights".to_owned());
        return Ok((architecture, source));
    }
    let (found, known) = (model_type.unwrap_or("(none)").to_owned(), Architecture::names());
    Err(match (Architecture::why_not(&found), config.own_code()) {
        (Some(reason), _) => ConversionError::Unservable(found, reason),
        (None, Some(class)) => ConversionError::OwnCode { found, class: class.to_owned(), known },
        (None, None) => ConversionError::ModelType { found, known },
    })
}

/// Checks, by `config.json` alone, that the architecture is supported. The check runs before large files are downloaded.
///
/// # Errors
/// [`ConversionError`] if the architecture is not supported.
pub fn check_architecture(config: &Value) -> Result<(), ConversionError> {
    let config = ModelConfig::parse(config.as_object().cloned().unwrap_or_default());
    if config.model_type.is_none() || config.is_model2vec() {
        // The names of the weights may reveal the architecture; a table of model2vec has none.
        return Ok(());
    }
    detect(&config, &|| None).map(drop)
}

/// Note about an adapter that is stored beside a whole model.
pub(super) fn adapter_note(files: &ModelFiles) -> Option<String> {
    let adapter: Value = files.json("adapter_config.json").ok()??;
    let text = |name: &str| adapter.get(name).and_then(Value::as_str);
    let kind = text("peft_type").unwrap_or("adapter");
    let base =
        text("base_model_name_or_path").map(|base| format!(" of {base}")).unwrap_or_default();
    Some(format!(
        "the folder also contains an adapter (adapter_config.json), which is not applied: {kind}{base}. The weights are imported without it"
    ))
}

/// Rejects a folder that contains only an adapter, which has no weights of its own.
pub(super) fn refuse_adapter(files: &ModelFiles) -> Result<(), ConversionError> {
    #[derive(serde::Deserialize)]
    struct Adapter {
        base_model_name_or_path: Option<String>,
    }
    if !matches!(WeightFiles::find(files), Err(CheckpointError::NoWeights { .. })) {
        return Ok(());
    }
    match files.json::<Adapter>("adapter_config.json")? {
        None => Ok(()),
        Some(adapter) => Err(ConversionError::Adapter {
            folder: files.folder().to_owned(),
            base: adapter.base_model_name_or_path,
        }),
    }
}

impl Limit {
    /// The smallest limit of the tokenizer, sentence-transformers, the position table and the task. A limit set by the user
    /// replaces all of them, but it must not exceed the position table.
    pub(super) fn of(
        task: Task,
        options: &Options,
        tokenizer: &Tokenizer,
        max_seq_length: Option<u32>,
        base: &Base,
        dimensions: Dimensions,
    ) -> Result<Self, ConversionError> {
        let positions = u32::try_from(dimensions.positions).unwrap_or(u32::MAX);
        let by = match base {
            Base::Architecture(_) => "the positions in config.json",
            Base::TokenTable(_) | Base::Static(_) => "the limit for tables",
        };
        let table = Self { tokens: positions, by };
        let (library, tokenizer_length) = match base {
            Base::Static(table) => (table.limit, None),
            _ => (None, tokenizer.max_length),
        };
        Ok(match options.max_length {
            Some(asked) if asked > positions => {
                return Err(ConversionError::Length { asked, positions });
            }
            Some(tokens) => Self { tokens, by: "max_model_input_length" },
            None => [
                Some(table),
                library,
                tokenizer_length.map(|tokens| Self { tokens, by: "tokenizer_config.json" }),
                max_seq_length.map(|tokens| Self { tokens, by: "sentence_bert_config.json" }),
                task.max_sequence_length().map(|tokens| Self { tokens, by: "the task" }),
            ]
            .into_iter()
            .flatten()
            .min_by_key(|limit| limit.tokens)
            .unwrap_or(table),
        })
    }

    /// The same limit for Elasticsearch's rows, to which the graph adds `added` tokens.
    pub(super) fn of_server(
        self,
        added: i64,
        options: &Options,
        dimensions: Dimensions,
    ) -> Result<Self, ConversionError> {
        if added == 0 {
            return Ok(self);
        }
        let tokens = |of: i64| u32::try_from(of.saturating_sub(added).max(1)).unwrap_or(u32::MAX);
        let positions = tokens(dimensions.positions);
        match options.max_length {
            Some(asked) if asked > positions => Err(ConversionError::Length { asked, positions }),
            Some(_) => Ok(self),
            None => Ok(Self { tokens: tokens(self.tokens.into()).min(positions), ..self }),
        }
    }
}
