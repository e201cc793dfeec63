//! The LoRA adapter of a task, which a conversion merges into the weights.

use super::ConversionError;
use super::description::Description;
use crate::checkpoint::{Checkpoint, Format, WeightFiles};
use crate::config::{LoraForm, LoraTasks, ModelConfig, PeftConfig};
use crate::models::{ConfigError, Lora, TensorShapes};
use crate::source::ModelFiles;

/// Settings of an adapter that PEFT saved.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Files with the factors of an adapter that PEFT saved, in the order in which PEFT looks for them.
const ADAPTER_WEIGHTS: [(Format, &str); 2] =
    [(Format::Safetensors, "adapter_model.safetensors"), (Format::Pytorch, "adapter_model.bin")];

/// The LoRA adapters of a model, and the one that is merged.
#[derive(Debug, Clone, Default)]
pub(super) struct LoraChoice {
    /// Names of the tasks. Empty if the model has no adapters.
    pub(super) tasks: Vec<String>,
    /// The chosen task.
    pub(super) task: Option<String>,
    /// The adapter. `None` without a chosen task, and for an adapter in a folder before [`Description::open_adapter`].
    pub(super) adapter: Option<Lora>,
}

impl LoraChoice {
    /// The adapters that a model has by its `config.json`, and by the names of its tensors or the folders of its adapters.
    pub(super) fn tasks<'a>(
        config: &ModelConfig,
        files: &ModelFiles,
        tensors: &dyn Fn() -> Option<&'a TensorShapes>,
    ) -> Result<Option<LoraTasks>, ConversionError> {
        let declared = LoraTasks::of(config).map_err(ConfigError::Value)?;
        let Some(mut declared) = declared else { return Ok(None) };
        match declared.form {
            LoraForm::Stacked { .. } => {
                let is_factor = |name: &String| name.ends_with(".lora_A");
                let has = tensors().is_none_or(|shapes| shapes.keys().any(is_factor));
                Ok(has.then_some(declared))
            }
            LoraForm::Folders => {
                let mut names = Vec::new();
                for name in declared.names {
                    if files.sub(&LoraTasks::folder(&name))?.find(ADAPTER_CONFIG)?.is_some() {
                        names.push(name);
                    }
                }
                declared.names = names;
                Ok(Some(declared).filter(|declared| !declared.names.is_empty()))
            }
        }
    }

    /// Chooses the adapter of a task.
    pub(super) fn of(
        declared: Option<&LoraTasks>,
        asked: Option<&str>,
    ) -> Result<Self, ConversionError> {
        let tasks = declared.map(|declared| declared.names.clone()).unwrap_or_default();
        let Some(asked) = asked else { return Ok(Self { tasks, ..Self::default() }) };
        let (Some(declared), Some(place)) = (declared, tasks.iter().position(|it| it == asked))
        else {
            return Err(ConversionError::LoraTask { asked: asked.to_owned(), has: tasks });
        };
        let number = |place: usize| i64::try_from(place).unwrap_or(i64::MAX);
        let adapter = match declared.form {
            LoraForm::Folders => None,
            LoraForm::Stacked { rank, .. } if rank < 1 => {
                let problem = format!("lora_rank is {rank}, which is not a valid size");
                return Err(ConfigError::Value(problem).into());
            }
            LoraForm::Stacked { rank, alpha } => {
                let scale = alpha / rank as f64;
                Some(Lora::stacked(number(place), number(tasks.len()), rank, scale))
            }
        };
        Ok(Self { tasks, task: Some(asked.to_owned()), adapter })
    }
}

impl Description {
    /// Opens the adapter of the chosen task, if it is in a folder of its own.
    pub(super) fn open_adapter(&mut self) -> Result<(), ConversionError> {
        let Some(task) = self.lora.task.as_ref().filter(|_| self.lora.adapter.is_none()) else {
            return Ok(());
        };
        let folder = self.files.sub(&LoraTasks::folder(task))?;
        let config: PeftConfig = folder
            .required_json(ADAPTER_CONFIG, "it describes the adapter; download the folder again")?;
        let (rank, scale) = config.rank_and_scale().map_err(|setting| ConversionError::Lora {
            task: task.clone(),
            reason: format!("{ADAPTER_CONFIG} has {setting}, which is not supported"),
        })?;
        for (format, file) in ADAPTER_WEIGHTS {
            if let Some(path) = folder.find(file)? {
                let checkpoint = Checkpoint::open(&WeightFiles::one(format, path))?;
                let adapter = Lora::separate(&checkpoint, rank, scale).map_err(|name| {
                    let reason =
                        format!("{file} has the tensor {name} twice, with and without a prefix");
                    ConversionError::Lora { task: task.clone(), reason }
                })?;
                self.lora.adapter = Some(adapter);
                return Ok(());
            }
        }
        let advice = "it holds the weights of the adapter; download the folder again";
        Err(folder.missing(ADAPTER_WEIGHTS[0].1, advice).into())
    }

    /// Checks, after the model is loaded, that the whole adapter was merged.
    pub(super) fn check_adapter(&self) -> Result<(), ConversionError> {
        let unused = self.lora.adapter.as_ref().map(Lora::unused).unwrap_or_default();
        match &self.lora.task {
            Some(task) if !unused.is_empty() => Err(ConversionError::Lora {
                task: task.clone(),
                reason: format!(
                    "these tensors adapt no weight of the model: {}",
                    unused.join(", ")
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Note about adapters that are not merged.
pub(super) fn note_of_tasks(lora: &LoraChoice) -> Option<String> {
    (!lora.tasks.is_empty() && lora.task.is_none()).then(|| {
        format!(
            "the model has LoRA adapters for the tasks {}, and none is applied; choose one with --lora-task",
            lora.tasks.join(", ")
        )
    })
}
