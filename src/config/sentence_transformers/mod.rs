//! The files of a sentence-transformers model: `modules.json`, `sentence_bert_config.json` and each module's `config.json`.

mod module_settings;
mod router;
mod usage;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{LoraForm, LoraTasks, ModelConfig, lenient};
use crate::source::{ModelFiles, SourceError};
pub use module_settings::{DenseConfig, PoolingConfig, PoolingMode, SpladeConfig};
use module_settings::{RawPooling, RawSplade};
use router::Router;
pub use usage::Usage;

/// The modules of a sentence-transformers model.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceTransformers {
    /// Folder of the transformer; empty for the folder of the model.
    pub transformer: String,
    /// Settings of the transformer.
    pub settings: SentenceBertConfig,
    /// Modules after the transformer, with their folders.
    after: Vec<(ModuleClass, String)>,
    /// Class of the first module.
    first: ModuleClass,
    /// The router of which this is one route, and its folder.
    router: Option<(Router, String)>,
}

/// A module after the transformer.
#[derive(Debug, Clone, PartialEq)]
pub enum Module {
    /// Pools token embeddings to one vector.
    Pooling(PoolingConfig),
    /// A linear layer with an activation. The folder contains its weights.
    Dense {
        /// Folder of the module.
        folder: String,
        /// Settings of the module.
        config: DenseConfig,
    },
    /// Scales the vector to length 1.
    Normalize,
    /// A LayerNorm. The folder contains its weights.
    LayerNorm {
        /// Folder of the module.
        folder: String,
        /// Width of the vector.
        dimension: i64,
    },
    /// Pools logits over the vocabulary to one weight per token of the vocabulary.
    SpladePooling(SpladeConfig),
}

/// The class of a module, recognized by its full path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ModuleClass {
    Transformer,
    /// `custom_st.Transformer`: code of jina's repositories around a transformer with LoRA adapters.
    JinaTransformer,
    MlmTransformer,
    Dropout,
    Normalize,
    Pooling,
    Dense,
    LayerNorm,
    SpladePooling,
    SparseStaticEmbedding,
    StaticEmbedding,
    Router,
    /// Any other class, with its path.
    Other(String),
}

impl ModuleClass {
    /// Recognizes the paths that releases 2 to 5.7 of the library write. Each release accepts the paths of earlier releases.
    fn of_path(path: &str) -> Self {
        const LIBRARY: &str = "sentence_transformers.";
        /// Class, path of its file since release 5.4, and package of that file.
        const CLASSES: [(ModuleClass, &str, &str, &str); 11] = [
            (ModuleClass::Transformer, "Transformer", "transformer", "base.modules"),
            (
                ModuleClass::MlmTransformer,
                "MLMTransformer",
                "mlm_transformer",
                "sparse_encoder.modules",
            ),
            (ModuleClass::Dropout, "Dropout", "dropout", "sentence_transformer.modules"),
            (ModuleClass::Normalize, "Normalize", "normalize", "sentence_transformer.modules"),
            (ModuleClass::Pooling, "Pooling", "pooling", "sentence_transformer.modules"),
            (ModuleClass::Dense, "Dense", "dense", "base.modules"),
            (ModuleClass::LayerNorm, "LayerNorm", "layer_norm", "sentence_transformer.modules"),
            (
                ModuleClass::SpladePooling,
                "SpladePooling",
                "splade_pooling",
                "sparse_encoder.modules",
            ),
            (
                ModuleClass::SparseStaticEmbedding,
                "SparseStaticEmbedding",
                "sparse_static_embedding",
                "sparse_encoder.modules",
            ),
            (
                ModuleClass::StaticEmbedding,
                "StaticEmbedding",
                "static_embedding",
                "sentence_transformer.modules",
            ),
            (ModuleClass::Router, "Router", "router", "base.modules"),
        ];
        /// Packages that export classes under their own names, in some release.
        const PACKAGES: [&str; 6] = [
            "models",
            "sparse_encoder.models",
            "base.modules",
            "sentence_transformer.modules",
            "sparse_encoder.modules",
            "cross_encoder.modules",
        ];
        if path == "custom_st.Transformer" {
            return Self::JinaTransformer;
        }
        let found = path.strip_prefix(LIBRARY).and_then(|path| {
            CLASSES.into_iter().find_map(|(class, name, file, package)| {
                let place = path.strip_suffix(name)?.strip_suffix('.')?;
                let place =
                    place.strip_suffix(name).and_then(|p| p.strip_suffix('.')).unwrap_or(place);
                (PACKAGES.contains(&place) || place == format!("{package}.{file}")).then_some(class)
            })
        });
        found.unwrap_or_else(|| Self::Other(path.to_owned()))
    }
}

/// Reason why the modules in `modules.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A module, or an order of modules, that is not supported.
    #[error("{0}")]
    Unsupported(String),
}

/// `sentence_bert_config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SentenceBertConfig {
    /// Maximum length of a text in tokens.
    #[serde(deserialize_with = "lenient::count")]
    pub max_seq_length: Option<u32>,
    /// Whether text is lower-cased before it reaches the tokenizer. Accents are kept.
    #[serde(deserialize_with = "lenient::flag_or_false")]
    pub do_lower_case: bool,
    /// Task that selects the Transformers class, such as `fill-mask` (since 5.4).
    #[serde(deserialize_with = "lenient::text")]
    pub transformer_task: Option<String>,
    /// Output of the transformer that the next module reads (since 5.4).
    #[serde(deserialize_with = "lenient::text")]
    pub module_output_name: Option<String>,
    /// Methods for each kind of input (since 5.4).
    pub modality_config: Option<Value>,
}

/// Names of the file [`SentenceBertConfig`] in releases of the library.
const SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

#[derive(Deserialize)]
struct ModuleEntry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    class: String,
}

impl SentenceTransformers {
    /// Reads `modules.json` and the settings of the transformer. `None` for a folder without `modules.json`.
    ///
    /// If the first module is a Router, the modules are those of one of its routes, followed by the modules after the Router. `route` is the
    /// name of the route; by default, and for a name that no route has, it is the default route or else the first.
    ///
    /// # Errors
    /// [`SourceError`] if a file is not valid, or a path leads out of the folder.
    pub fn read(files: &ModelFiles, route: Option<&str>) -> Result<Option<Self>, SourceError> {
        let Some(entries) = files.json::<Vec<ModuleEntry>>("modules.json")? else {
            return Ok(None);
        };
        too_many(files, "modules.json", entries.len())?;
        let mut modules: Vec<_> = entries
            .into_iter()
            .map(|entry| (ModuleClass::of_path(&entry.class), entry.path))
            .collect();
        let mut router = None;
        if let Some((ModuleClass::Router, folder)) = modules.first()
            && let Some(found) = Router::read(files, folder)?
        {
            let folder = folder.clone();
            let chosen = route.and_then(|name| found.routes.get(name));
            let chosen = chosen.or_else(|| found.routes.get(found.default_route()?));
            let chosen = chosen.or_else(|| found.routes.values().next());
            modules.splice(..1, chosen.cloned().unwrap_or_default());
            too_many(files, &format!("{folder}/router_config.json"), modules.len())?;
            router = Some((found, folder));
        }
        let mut modules = modules.into_iter();
        let (first, transformer) =
            modules.next().unwrap_or((ModuleClass::Other("no class".into()), String::new()));
        let after = modules.collect();
        let folder = files.sub(&transformer)?;
        let mut settings = None;
        for name in SETTINGS {
            settings = settings.or(folder.json(name)?);
        }
        let settings = settings.unwrap_or_default();
        Ok(Some(Self { transformer, settings, after, first, router }))
    }

    /// The names of the routes, if the first module is a Router.
    #[must_use]
    pub fn routes(&self) -> Vec<String> {
        let routes = self.router.iter().flat_map(|(router, _)| router.routes.keys());
        routes.cloned().collect()
    }

    /// The name of the route for documents, or else of the route that the library uses by default.
    #[must_use]
    pub fn default_route(&self) -> Option<&str> {
        self.router.as_ref()?.0.default_route()
    }

    /// The folder of the Router, if there is one.
    pub(super) fn router_folder(&self) -> Option<&str> {
        self.router.as_ref().map(|(_, folder)| folder.as_str())
    }

    /// Whether the model is a table with one weight for each token, without a transformer. Its folder is that of the transformer.
    #[must_use]
    pub fn is_token_table(&self) -> bool {
        self.first == ModuleClass::SparseStaticEmbedding
    }

    /// Whether the model is a table with one vector for each token, whose mean is the embedding of a text. Its folder is that of the
    /// transformer.
    #[must_use]
    pub fn is_static_embedding(&self) -> bool {
        self.first == ModuleClass::StaticEmbedding
    }

    /// Class and folder of each module that has a `config.json`.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.after.iter().filter_map(|(class, path)| {
            let name = match class {
                ModuleClass::Pooling => "Pooling",
                ModuleClass::Dense => "Dense",
                ModuleClass::LayerNorm => "LayerNorm",
                ModuleClass::SpladePooling => "SpladePooling",
                _ => return None,
            };
            Some((name, path.as_str()))
        })
    }

    /// Whether the model returns sparse vectors (SPLADE).
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        matches!(self.first, ModuleClass::MlmTransformer | ModuleClass::SparseStaticEmbedding)
            || self.after.iter().any(|(class, _)| *class == ModuleClass::SpladePooling)
    }

    /// Whether the transformer is a classifier, as in a CrossEncoder.
    #[must_use]
    pub fn is_classifier(&self) -> bool {
        self.settings.transformer_task.as_deref() == Some("sequence-classification")
    }

    /// The reason why the class of the first module is not supported. `None` for a class that can come first.
    #[must_use]
    pub fn unsupported_first(&self) -> Option<ModulesError> {
        match &self.first {
            ModuleClass::Transformer
            | ModuleClass::JinaTransformer
            | ModuleClass::MlmTransformer
            | ModuleClass::StaticEmbedding
            | ModuleClass::SparseStaticEmbedding => None,
            ModuleClass::Other(class) => Some(unsupported(class)),
            ModuleClass::Router => Some(ModulesError::Unsupported(
                "the first module in modules.json is a Router without router_config.json; download this file too".into(),
            )),
            other => Some(ModulesError::Unsupported(format!(
                "the first module in modules.json is a {other:?}; it must be a Transformer"
            ))),
        }
    }

    /// Modules after the transformer, in order. Dropout is omitted, because it has no effect in inference.
    ///
    /// # Errors
    /// [`ModulesError`] if a module is not supported, has a class outside the library, or lacks files.
    pub fn modules(&self, files: &ModelFiles) -> Result<Vec<Module>, ModulesError> {
        if let Some(error) = self.unsupported_first() {
            return Err(error);
        }
        // Jina's code computes what the library's Transformer computes, or also pools as the last token and normalizes.
        if self.first == ModuleClass::JinaTransformer {
            let config = ModelConfig::read(&files.sub(&self.transformer)?)?;
            let tasks = LoraTasks::of(&config)
                .map_err(|reason| ModulesError::Unsupported(format!("config.json: {reason}")))?;
            match tasks.map(|tasks| tasks.form) {
                Some(LoraForm::Stacked { .. }) => (),
                Some(LoraForm::Folders) if self.after.is_empty() => {
                    let pooling = PoolingConfig {
                        dimension: None,
                        modes: vec![PoolingMode::LastToken],
                        include_prompt: true,
                    };
                    return Ok(vec![Module::Pooling(pooling), Module::Normalize]);
                }
                _ => return Err(unsupported("custom_st.Transformer")),
            }
        }
        let mut modules = Vec::new();
        for (class, path) in &self.after {
            let folder = files.sub(path)?;
            match class {
                ModuleClass::Dropout => (),
                ModuleClass::Normalize => modules.push(Module::Normalize),
                ModuleClass::Pooling => {
                    modules.push(Module::Pooling(module_config::<RawPooling>(&folder)?.into()));
                }
                ModuleClass::Dense => {
                    let config = module_config(&folder)?;
                    modules.push(Module::Dense { folder: path.clone(), config });
                }
                ModuleClass::LayerNorm => {
                    #[derive(Deserialize)]
                    struct Norm {
                        dimension: i64,
                    }
                    let Norm { dimension } = module_config(&folder)?;
                    modules.push(Module::LayerNorm { folder: path.clone(), dimension });
                }
                ModuleClass::SpladePooling => {
                    let raw: RawSplade = module_config(&folder)?;
                    modules.push(Module::SpladePooling(raw.read()?));
                }
                ModuleClass::Transformer
                | ModuleClass::JinaTransformer
                | ModuleClass::MlmTransformer => {
                    return Err(ModulesError::Unsupported(
                        "modules.json names a second transformer, which is not supported".into(),
                    ));
                }
                ModuleClass::SparseStaticEmbedding
                | ModuleClass::StaticEmbedding
                | ModuleClass::Router => {
                    return Err(ModulesError::Unsupported(format!(
                        "modules.json names a {class:?} after another module, which is not supported"
                    )));
                }
                ModuleClass::Other(class) => return Err(unsupported(class)),
            }
        }
        self.check_output(&modules)?;
        Ok(modules)
    }

    /// Checks that the first module after the transformer can read the output of the transformer.
    fn check_output(&self, modules: &[Module]) -> Result<(), ModulesError> {
        let settings = &self.settings;
        let sparse = matches!(modules.first(), Some(Module::SpladePooling(_)));
        let task = settings.transformer_task.as_deref();
        let task = if self.first == ModuleClass::MlmTransformer { Some("fill-mask") } else { task };
        let (wanted, output) = if sparse {
            ("fill-mask", "logits")
        } else {
            ("feature-extraction", "last_hidden_state")
        };
        let found = task.unwrap_or("feature-extraction");
        let unsupported = |reason: String| Err(ModulesError::Unsupported(reason));
        if found != wanted && !modules.is_empty() {
            return unsupported(format!(
                "the transformer is loaded for {found} (transformer_task in sentence_bert_config.json), but the module after it needs {wanted}"
            ));
        }
        let text = settings.modality_config.as_ref().and_then(|config| config.get("text"));
        if let Some(text) = text.filter(|_| !modules.is_empty()) {
            let says = |key: &str, value: &str| {
                text.get(key).is_none_or(|found| found.as_str() == Some(value))
            };
            if !says("method", "forward") || !says("method_output_name", output) {
                return unsupported(format!(
                    "modality_config in sentence_bert_config.json reads text as {text}; only forward with {output} is supported"
                ));
            }
        }
        match settings.module_output_name.as_deref() {
            None | Some("token_embeddings") => Ok(()),
            Some(_) if modules.is_empty() => Ok(()),
            Some(other) => unsupported(format!(
                "the transformer outputs {other} (module_output_name in sentence_bert_config.json); only token_embeddings is supported"
            )),
        }
    }
}

/// The error for a class that is not supported.
fn unsupported(class: &str) -> ModulesError {
    let own = if class.starts_with("sentence_transformers.") {
        "a module of sentence-transformers that is not supported"
    } else {
        "code of the repository or of another library, which is never run"
    };
    ModulesError::Unsupported(format!(
        "modules.json names the class {class}: {own}. Supported are the library's own Transformer followed by Pooling, Dense, \
         LayerNorm, Dropout and Normalize, MLMTransformer or Transformer followed by SpladePooling, StaticEmbedding followed by Dense, \
         LayerNorm and Normalize, SparseStaticEmbedding, and a Router of these"
    ))
}

/// Maximum number of modules. It is above every real model.
const MAX_MODULES: usize = 100;

/// Refuses a chain of modules that is too long. `name` is the file that lists them.
fn too_many(files: &ModelFiles, name: &str, modules: usize) -> Result<(), SourceError> {
    if modules <= MAX_MODULES {
        return Ok(());
    }
    let reason = format!("it lists {modules} modules, and at most {MAX_MODULES} are supported");
    let (path, source) = (files.folder().join(name), serde::de::Error::custom(reason));
    Err(SourceError::Json { path, source })
}

/// `config.json` of a module.
fn module_config<T: DeserializeOwned>(folder: &ModelFiles) -> Result<T, SourceError> {
    folder.required_json("config.json", "modules.json names this module; download its folder too")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_paths_of_all_releases_are_recognized() {
        for path in [
            "sentence_transformers.models.Pooling",
            "sentence_transformers.models.Pooling.Pooling",
            "sentence_transformers.sentence_transformer.modules.Pooling",
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::Pooling, "{path}");
        }
        for path in [
            "sentence_transformers.sparse_encoder.models.SpladePooling",
            "sentence_transformers.sparse_encoder.models.SpladePooling.SpladePooling",
            "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::SpladePooling, "{path}");
        }
        for path in [
            "sentence_transformers.models.StaticEmbedding",
            "sentence_transformers.models.StaticEmbedding.StaticEmbedding",
            "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::StaticEmbedding, "{path}");
        }
        for path in [
            "sentence_transformers.models.Router",
            "sentence_transformers.models.Router.Router",
            "sentence_transformers.base.modules.router.Router",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::Router, "{path}");
        }
        for path in [
            "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding",
            "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding.SparseStaticEmbedding",
            "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::SparseStaticEmbedding, "{path}");
        }
    }

    #[test]
    fn class_outside_the_library_is_not_recognized() {
        for path in [
            "custom_st.Pooling",
            "Pooling",
            "sentence_transformers.Pooling",
            "sentence_transformers.models.BoW",
            "sentence_transformers.evil.models.Pooling",
            "sentence_transformers_fork.models.Pooling",
        ] {
            assert_eq!(ModuleClass::of_path(path), ModuleClass::Other(path.to_owned()));
        }
    }
}
