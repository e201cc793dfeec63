//! A model with the head of a task and its tokenizer, ready to be traced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use tch::Tensor;

use super::configuration::dense_vector_similarity;
use super::description::{
    Base, Description, Limit, Loaded, OpenModule, adapter_note, as_wrong_task, refuse_adapter,
};
use super::lora::note_of_tasks;
use super::parts::{PartKind, UNDECLARED_POOLING, sparse_head};
use super::reference_outputs::InputForm;
use super::refused_families::check_files;
use super::task_modules::{TaskModules, row_form};
use super::token_table::TableWeights;
use super::tokenization_notes::Comparison;
use super::{ConversionError, Options, Quantization, TokenizerDifference};
use crate::checkpoint::{Checkpoint, WeightFiles};
use crate::config::Usage;
use crate::mapped_file::MappedFile;
use crate::models::{
    Architecture, AttentionForm, EntityLabels, Inputs, Model, RowForm, WeightLoader, tensor_shapes,
};
use crate::observer::{Progress, Stage};
use crate::source::ModelFiles;
use crate::special_tokens::SpecialTokens;
use crate::tasks::{AgreementSamples, Embedder, GraphOutput, OccurringTokens, Task};
use crate::tokenizer::{Adaptation, Tokenizer};
use crate::torchscript::{self, Module, OneThread, Quantized, TorchError, operations};
use crate::version::{Target, Version};

/// A model with the head of a task, ready to be traced.
pub struct Conversion {
    pub(super) task: Task,
    pub(super) tokenizer: Tokenizer,
    pub(super) network: Network,
    pub(super) labels: Vec<String>,
    /// Name of the model within a repository that provides several.
    pub(super) part: Option<String>,
    /// Task of the LoRA adapter that is merged into the weights.
    pub(super) lora_task: Option<String>,
    pub(super) limit: Limit,
    pub(super) parameter_bytes: u64,
    /// Rows and width of the word embedding table.
    pub(super) word_table: [u64; 2],
    /// The agreement of the quantized model on single texts, once the bundle is created.
    pub(super) agreement_samples: Option<AgreementSamples>,
    /// Similarity of a `dense_vector` field, if the model's files declare one.
    pub(super) similarity: Option<&'static str>,
    pub(super) options: Options,
    pub(super) notes: Vec<String>,
    /// Which of the notes describe tokens.
    token_notes: Range<usize>,
    pub(super) not_understood: Vec<String>,
    /// How much Elasticsearch's tokens differ from those of the model's own tokenizer. `None` if they were not compared.
    pub(super) tokenizer_difference: Option<TokenizerDifference>,
    /// Whether a large difference is refused rather than only reported.
    pub(super) needs_exact_tokenizer: bool,
    /// The same model without weights and most of its layers, whose passes take as much memory. Only a model with weights has one.
    pub(super) sketch: Option<Box<Conversion>>,
    /// Memory-mapped files that contain weights.
    pub(super) files: Vec<Arc<MappedFile>>,
    pub(super) progress: Progress,
}

/// A model, with the function from the output of its head to the output of the graph.
pub(super) struct Network {
    pub(super) form: RowForm,
    pub(super) model: Box<dyn Model>,
    pub(super) output: GraphOutput,
    pub(super) special: SpecialTokens,
    /// Whether the answers are one for each token of Elasticsearch.
    pub(super) answers_tokens: bool,
    /// The labels, for the task that finds entities.
    pub(super) entities: Option<EntityLabels>,
    pub(super) attention: AttentionForm,
}

impl Network {
    /// Returns the output for the tensors of the server. `longest` is the longest input of the graph in tokens.
    pub(super) fn forward(&self, tensors: &[Tensor], longest: u32) -> Result<Tensor, TorchError> {
        let inputs = Inputs::of_server(tensors, self.special, &self.form, self.attention)?
            .of_at_most(longest.into())
            .answering_tokens(self.answers_tokens)
            .reading(self.output.rows());
        let output = self.output.forward(&self.model.forward(&inputs)?, &inputs)?;
        match &self.entities {
            Some(labels) => inputs.label_removed(&output, labels),
            None => Ok(output),
        }
    }
}

/// A traced model.
pub struct Traced {
    /// The graph, with the weights as constants.
    pub module: Module,
    /// Number of nodes of each operation in the graph.
    pub operations: BTreeMap<String, usize>,
    /// The quantized layers; `None` without quantization.
    pub quantized: Option<Quantized>,
}

/// Measurements of a saved module.
pub struct Saved {
    /// Bytes of parameters and constants in the archive.
    pub per_deployment_memory_bytes: u64,
    /// Effect of the quantization; `None` without quantization.
    pub quantization: Option<Quantization>,
}

impl Conversion {
    /// Reads a model's folder. The later stages of the conversion also report to `progress`.
    ///
    /// # Errors
    /// [`ConversionError`] if a file cannot be read, or the model is not supported.
    pub fn read(
        files: &ModelFiles,
        options: Options,
        progress: &Progress,
    ) -> Result<Self, ConversionError> {
        refuse_adapter(files)?;
        check_files(files, None)?;
        let by_weights = |folder: &ModelFiles| {
            let checkpoint = Checkpoint::open(&WeightFiles::find(folder)?)?;
            Ok(Some(tensor_shapes(&checkpoint)))
        };
        let mut description = Description::read(files, &options, progress, &by_weights)?;
        description.open_adapter()?;
        let weights = match description.base {
            Base::TokenTable(TableWeights::Json(_)) => None,
            _ => Some(WeightFiles::find(&description.folder)?),
        };
        let open = |weights: &Option<WeightFiles>| match weights {
            Some(weights) => Checkpoint::open(weights),
            None => Ok(Checkpoint::empty()),
        };
        let checkpoint = WeightLoader::read(open(&weights)?);
        let shapes = tensor_shapes(checkpoint.checkpoint());
        check_files(files, Some(&shapes))?;
        let can = || match open(&weights) {
            Ok(survey) => description.servable(&WeightLoader::survey(survey)),
            Err(_) => Vec::new(),
        };
        let guessed = || description.guess(&options).map(|(task, _)| task);
        let task =
            options.task.or_else(guessed).ok_or_else(|| ConversionError::NoTask { can: can() })?;
        // Meanwhile, another thread loads libtorch.
        let comparison = description.compare_tokenizers(files, task, &options, progress)?;
        torchscript::load()?;
        checkpoint.show(progress);
        let loaded = description.load(task, options.quantizes_linear_layers(), &checkpoint);
        let loaded = loaded.map_err(|error| as_wrong_task(error, task, &can))?;
        description.check_adapter()?;
        let mapped = RefCell::new(checkpoint.checkpoint().files().to_vec());
        let open = |folder: &ModelFiles| {
            let loader = WeightLoader::open(&WeightFiles::find(folder)?)?;
            mapped.borrow_mut().extend(loader.checkpoint().files().iter().cloned());
            Ok(loader)
        };
        let (asked, others) = (options.part.clone(), description.other_parts.clone());
        let sketch = Self::sketch(description.clone(), task, &options)?;
        let mut conversion = Self::of(description, task, loaded, options, &open)?;
        conversion.take(comparison);
        conversion.files.append(&mut mapped.into_inner());
        conversion.progress = progress.clone();
        conversion.sketch = Some(Box::new(sketch));
        conversion.limit_memory()?;
        if let (Some(part), None) = (&conversion.part, &asked) {
            let others = others.join(" and ");
            tracing::info!(
                "this is the model {part} of the repository, which also provides {others}"
            );
        }
        let Limit { tokens, by } = conversion.limit;
        tracing::info!("max_sequence_length is {tokens} (from {by})");
        for key in &conversion.not_understood {
            tracing::warn!("{key}, so it is not applied");
        }
        Ok(conversion)
    }

    /// Combines a model with the settings in its files. `open` opens the weights of sentence-transformers modules.
    pub(super) fn of(
        description: Description,
        task: Task,
        loaded: Loaded,
        mut options: Options,
        open: &OpenModule<'_>,
    ) -> Result<Self, ConversionError> {
        // Only a cut needs the declarations, for which the model card is read.
        let cut = options.dimensions.map(|asked| (asked, description.matryoshka(&options)));
        let Description {
            files,
            folder,
            config,
            base,
            dimensions,
            mut tokenizer,
            sentence_transformers,
            usage,
            inferred,
            ignored,
            part,
            lora,
            ..
        } = description;
        let kind = part.as_ref().map(|part| part.kind);
        let has_token_weights = kind.is_some_and(PartKind::has_token_weights);
        let architecture = if let Base::Architecture(it) = &base { Some(*it) } else { None };
        let is_table = matches!(base, Base::TokenTable(_));
        let table = if let Base::Static(table) = &base { Some(table) } else { None };
        let labels = task
            .served_labels(&config.labels)
            .map_err(|reason| ConversionError::wrong_task(task, reason))?;
        let modules = TaskModules::of(sentence_transformers, &usage, task, &files)?;
        options.check_dimensions(task)?;
        let embedding = task == Task::TextEmbedding;
        let mut embedder = match &modules.list {
            Some(list) if embedding => Some(Embedder::load(&files, list, dimensions, open)?),
            _ => embedding.then(|| Embedder::of_base(dimensions)),
        };
        if let (Some(embedder), true) = (&mut embedder, table.is_some_and(|it| it.is_normalized)) {
            embedder.normalize();
        }
        let is_normalized_by_module = table.is_some_and(|it| it.is_model2vec && !it.is_normalized)
            && embedder.as_ref().is_some_and(Embedder::is_normalized);
        let mut note_of_dimensions = None;
        if let Some(embedder) = &mut embedder {
            match (&cut, usage.truncate_dim.filter(|_| modules.list.is_some())) {
                // As in the library, an argument replaces the number in the file.
                (Some((asked, matryoshka)), _) => {
                    note_of_dimensions = matryoshka.cut(embedder, *asked)?;
                }
                (None, Some(dimension)) => embedder.truncate(dimension)?,
                (None, None) => (),
            }
        }
        let parameter_bytes = loaded.bytes + embedder.as_ref().map_or(0, Embedder::parameter_bytes);
        let settings = &modules.settings;
        if settings.do_lower_case {
            tokenizer.lower_case();
        }
        let special_ids = tokenizer.special_ids();
        if keeps_own_names(task, options.target) {
            tokenizer.keep_names();
        }
        let form = row_form(task, &tokenizer)?;
        let mut notes = std::mem::take(&mut tokenizer.warnings);
        if let (Some(by), Some(model_type)) = (inferred, &config.model_type) {
            notes.push(format!(
                "config.json has no model_type; the model is built as {model_type}, because of {by}"
            ));
        }
        if let (Some(class), Some(architecture)) = (config.own_code(), architecture) {
            let name = architecture.name;
            notes.push(format!(
                "config.json names code of the repository ({class}, auto_map), which is never run; the model is built as {name}"
            ));
        }
        notes.extend(adapter_note(&files));
        notes.extend(note_of_tasks(&lora));
        let (effects, not_understood): (Vec<_>, Vec<_>) =
            ignored.into_iter().partition(|key| key.effect.is_some());
        notes.extend(effects.iter().map(ToString::to_string));
        let not_understood = not_understood.iter().map(ToString::to_string).collect();
        if config.quantization().is_some() {
            notes.push(
                "the checkpoint has 8-bit weights (bitsandbytes); they are converted to float32, which does not restore the lost precision"
                    .into(),
            );
        }
        if (kind, task) == (Some(PartKind::MaskedLm), Task::TextExpansion) {
            notes.push(UNDECLARED_POOLING.into());
        }
        if is_normalized_by_module {
            notes.push(
                "config.json does not have normalize true, but modules.json has the module Normalize; embeddings are scaled to length 1 as in \
                 sentence-transformers, and not in model2vec"
                    .into(),
            );
        }
        notes.extend(labels.note.clone());
        notes.extend(note_of_dimensions);
        let problem_type = config.json.get("problem_type").and_then(Value::as_str);
        if let (
            Task::TextClassification,
            Some(kind @ ("multi_label_classification" | "regression")),
        ) = (task, problem_type)
        {
            notes.push(format!(
                "the model was trained for {kind} (problem_type in config.json), where the scores of the labels are independent; Elasticsearch \
                 applies softmax, so its probabilities differ from the model's"
            ));
        }
        if !loaded.unused.is_empty() {
            notes.push(format!("unused tensors in {}: {}", loaded.file, loaded.unused.join(", ")));
        }
        let similarity = match (&embedder, usage.similarity.as_deref()) {
            (Some(embedder), Some(name)) => {
                let similarity = dense_vector_similarity(name, embedder.is_normalized());
                if similarity.is_none() {
                    notes.push(format!(
                        "config_sentence_transformers.json compares embeddings with the similarity {name}, which Elasticsearch does not support; use cosine instead"
                    ));
                }
                similarity
            }
            _ => None,
        };
        if let (Task::TextSimilarity, Some((name, text))) = (task, usage.default_prompt()) {
            notes.push(format!(
                "sentence-transformers prepends the model's default prompt {name:?} ({text:?}); Elasticsearch does not for {task}"
            ));
        }
        if let (Some(theirs), Some(ours)) = (settings.max_seq_length, tokenizer.max_length)
            && theirs > ours
            && options.max_length.is_none()
        {
            notes.push(format!(
                "sentence-transformers reads {theirs} tokens of a text (max_seq_length in sentence_bert_config.json), and \
                 tokenizer_config.json allows {ours}: longer texts are truncated earlier. --max-model-input-length changes the limit"
            ));
        }
        if matches!(task, Task::TextEmbedding | Task::TextExpansion)
            && !options.prompts
            && options.search_prefix.is_none()
            && options.ingest_prefix.is_none()
        {
            notes.extend(note_of_prompts(&usage));
        }
        if options.prompts {
            options.take_prompts(&usage)?;
            if !modules.pools_prompts() {
                notes.push(
                    "the model excludes prompts from its pooling (include_prompt); Elasticsearch cannot, so embeddings differ slightly from the library's"
                        .into(),
                );
            }
        }
        let is_established = architecture.is_some_and(Architecture::is_established);
        let needs_exact_tokenizer = tokenizer.adaptation.needs_exactness(is_established);
        let limit =
            Limit::of(task, &options, &tokenizer, settings.max_seq_length, &base, dimensions)?
                .of_server(form.added_tokens(), &options, dimensions)?;
        let vocabulary = tokenizer.model_tokens();
        let mut head_files = Vec::new();
        let output = if let Some(embedder) = embedder {
            GraphOutput::Embedding(embedder)
        } else if has_token_weights {
            let has_file = kind == Some(PartKind::SparseHead);
            let load = || sparse_head(&folder, dimensions.hidden, &mut head_files);
            let linear = has_file.then(load).transpose()?;
            let special = special_ids;
            GraphOutput::OccurringTokens(OccurringTokens { linear, special, vocabulary })
        } else if is_table {
            GraphOutput::Head
        } else if let Some(splade) = modules.splade() {
            GraphOutput::TokenWeights { vocabulary, splade }
        } else if let Some(entailment) = labels.entailment_of_two {
            GraphOutput::InferenceOfTwo { entailment }
        } else if let Some(groups) = labels.grouped {
            GraphOutput::GroupedLabels { groups, adds_outside: labels.adds_outside }
        } else if task == Task::FillMask && architecture.is_some_and(Architecture::cuts_logits) {
            GraphOutput::Vocabulary { vocabulary }
        } else {
            GraphOutput::of_task(task, vocabulary)
        };
        Ok(Self {
            task,
            network: Network {
                form,
                model: loaded.model,
                output,
                special: match base {
                    // The table leaves out tokens that it has no row for.
                    Base::Static(_) => {
                        SpecialTokens { without_embedding: None, ..tokenizer.special }
                    }
                    _ => tokenizer.special,
                },
                answers_tokens: task.answers_tokens(),
                entities: match task {
                    Task::Ner => Some(EntityLabels::of(&labels.names)?),
                    _ => None,
                },
                attention: if options.target.has(Version::FUSED_ATTENTION) {
                    AttentionForm::Fused
                } else {
                    AttentionForm::Plain
                },
            },
            labels: labels.names,
            part: part.map(|part| part.name),
            lora_task: lora.task,
            limit,
            parameter_bytes,
            word_table: [dimensions.vocabulary, dimensions.hidden]
                .map(|it| it.try_into().unwrap_or_default()),
            agreement_samples: None,
            similarity,
            tokenizer,
            options,
            notes,
            token_notes: 0..0,
            not_understood,
            tokenizer_difference: None,
            needs_exact_tokenizer,
            sketch: None,
            files: head_files,
            progress: Progress::quiet(),
        })
    }

    /// Adds the notes and the figures of a comparison of tokenizers.
    pub(super) fn take(&mut self, comparison: Comparison) {
        let first = self.notes.len();
        self.notes.extend(comparison.notes);
        self.token_notes = first..self.notes.len();
        self.tokenizer_difference = comparison.difference;
    }

    /// Checks that Elasticsearch follows the model's tokenizer closely enough, or that the options accept the difference.
    ///
    /// # Errors
    /// [`ConversionError::InexactTokenizer`] if the difference is too large, or [`ConversionError::UnmeasuredTokenizer`] if the tokenizer
    /// is approximated and has no `tokenizer.json`.
    pub fn check_tokenizer(&self) -> Result<(), ConversionError> {
        if !self.needs_exact_tokenizer || self.options.allow_inexact_tokenizer {
            return Ok(());
        }
        match &self.tokenizer_difference {
            Some(difference) if difference.is_too_large() => {
                Err(ConversionError::InexactTokenizer(difference.clone()))
            }
            None if self.tokenizer.adaptation == Adaptation::Approximated => {
                Err(ConversionError::UnmeasuredTokenizer)
            }
            _ => Ok(()),
        }
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// Name of the model within a repository that provides several.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    /// Elasticsearch version that the model is converted for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.options.target
    }

    /// Receiver of the conversion's progress.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How much the quantized model agrees with the original on single texts, once its [`bundle`](Self::bundle) is created.
    #[must_use]
    pub fn agreement_samples(&self) -> Option<&AgreementSamples> {
        self.agreement_samples.as_ref()
    }

    /// Longest input in tokens.
    #[must_use]
    pub fn max_sequence_length(&self) -> u32 {
        self.limit.tokens
    }

    /// Notes for the user: differences between the server's results and the model's, and tensors that the task does not use.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Logs the notes as warnings, except what the error of [`check_tokenizer`](Self::check_tokenizer) says, and what would make
    /// a model with a large vocabulary smaller.
    pub fn log_notes(&self) {
        let difference = self.tokenizer_difference.as_ref().and_then(TokenizerDifference::note);
        let in_error = difference.filter(|_| self.check_tokenizer().is_err());
        let notes = self.notes.iter().filter(|note| in_error.as_ref() != Some(note));
        notes.for_each(|note| tracing::warn!("{note}"));
        self.log_smaller_tables();
        self.log_fewer_scripts();
    }

    /// Logs the notes for a user who sees the results of the server's tokens: notes on tokens as information, the others as warnings.
    pub fn log_notes_beside_results(&self) {
        for (at, note) in self.notes.iter().enumerate() {
            if self.token_notes.contains(&at) {
                tracing::info!("{note}");
            } else {
                tracing::warn!("{note}");
            }
        }
    }

    /// Keys of the model's files that are not understood, with the names of the files.
    #[must_use]
    pub fn not_understood(&self) -> &[String] {
        &self.not_understood
    }

    /// Size of the parameters in bytes.
    #[must_use]
    pub fn parameter_bytes(&self) -> u64 {
        self.parameter_bytes
    }

    /// Runs the model on the tensors that the server passes, without a graph.
    ///
    /// # Errors
    /// Errors of libtorch.
    pub fn forward(&self, tensors: &[Tensor]) -> Result<Tensor, TorchError> {
        tch::no_grad(|| self.network.forward(tensors, self.limit.tokens))
    }

    /// Traces the model, quantizes it if requested, and checks the graph against Elasticsearch's list of operations.
    ///
    /// # Errors
    /// [`ConversionError`] if Elasticsearch would reject the graph, or libtorch fails.
    pub fn trace(&self) -> Result<Traced, ConversionError> {
        let mut module = self.progress.run(Stage::Trace, || self.trace_float())?;
        let mut quantized = None;
        if let Some(quantize) = &self.options.quantize {
            let (smaller, done) =
                self.progress.run(Stage::Quantize, || self.quantize(module, quantize))?;
            (module, quantized) = (smaller, Some(done));
        }
        let operations = module.operations()?;
        operations::check(&operations)?;
        Ok(Traced { module, operations, quantized })
    }

    pub(super) fn trace_float(&self) -> Result<Module, TorchError> {
        /// The graph does not depend on the length. A short input is traced faster.
        const TOKENS: i64 = 16;
        let _one = OneThread::begin();
        let example = self.example(TOKENS.min(self.limit.tokens.into()))?;
        Module::trace(&example, |tensors| self.network.forward(tensors, self.limit.tokens))
    }

    /// Inputs of one row without padding, as Elasticsearch passes them to the graph.
    pub(super) fn example(&self, tokens: i64) -> Result<Vec<Tensor>, TorchError> {
        let tokens = usize::try_from(tokens).unwrap_or_default();
        self.inputs(&[vec![self.tokenizer.special.separator; tokens]])
    }

    /// Inputs of rows of token ids, as Elasticsearch passes them to the graph.
    pub(super) fn inputs(&self, rows: &[impl AsRef<[i64]>]) -> Result<Vec<Tensor>, TorchError> {
        self.input_form().inputs(rows)
    }

    /// How rows of ids become the inputs of the graph.
    pub(super) fn input_form(&self) -> InputForm {
        InputForm { padding: self.tokenizer.special.padding, count: self.tokenizer.kind.inputs() }
    }
}

/// Whether special tokens keep the model's names, because the task returns tokens and its texts contain the mask.
pub(super) fn keeps_own_names(task: Task, target: Target) -> bool {
    matches!(task, Task::FillMask | Task::TextExpansion) && target.has(Version::BYTE_LEVEL_BPE)
}

/// Note on the prompts that a model expects before texts, which Elasticsearch prepends only on request.
fn note_of_prompts(usage: &Usage) -> Option<String> {
    if let Some((name, text)) = usage.default_prompt() {
        return Some(format!(
            "sentence-transformers prepends the model's default prompt {name:?} ({text:?}) to every text; Elasticsearch does so only if \
             you import with --prompts"
        ));
    }
    if let (Some(query), true) = (usage.query(), usage.query() == usage.document()) {
        return Some(format!(
            "the model expects {query:?} before every text; Elasticsearch prepends this only if you import with --prompts"
        ));
    }
    let before = |prompt: Option<&str>, texts| Some(format!("{:?} before {texts}", prompt?));
    let expected: Vec<String> =
        [before(usage.query(), "queries"), before(usage.document(), "documents")]
            .into_iter()
            .flatten()
            .collect();
    (!expected.is_empty()).then(|| {
        format!(
            "the model expects {}; Elasticsearch prepends this only if you import with --prompts",
            expected.join(" and ")
        )
    })
}
