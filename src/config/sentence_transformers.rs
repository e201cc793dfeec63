//! The files of a sentence-transformers model: `modules.json`, `sentence_bert_config.json` and each module's `config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::source::{ModelFiles, SENTENCE_TRANSFORMERS_CONFIG, SourceError};

/// How a model turns tokens into one embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceTransformers {
    /// Folder of the transformer, empty for the model's own.
    pub transformer: String,
    /// What comes after it, in order.
    pub modules: Vec<Module>,
    /// `sentence_bert_config.json`.
    pub settings: SentenceBertConfig,
}

/// One module behind the transformer.
#[derive(Debug, Clone, PartialEq)]
pub enum Module {
    /// Tokens to one vector.
    Pooling(PoolingConfig),
    /// A linear layer with an activation; its weights lie in the folder.
    Dense {
        /// The module's folder.
        folder: String,
        /// Its settings.
        config: DenseConfig,
    },
    /// Scales to length 1.
    Normalize,
    /// A norm; its weights lie in the folder.
    LayerNorm {
        /// The module's folder.
        folder: String,
        /// Width of the vector.
        dimension: i64,
    },
}

/// A way to pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingMode {
    /// The first token.
    Cls,
    /// The maximum over tokens.
    Max,
    /// The mean over tokens.
    Mean,
    /// The sum over tokens by the root of their number.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
    /// The mean weighted by position, counted from 1.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// `1_Pooling/config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolingConfig {
    /// Width of the token embeddings.
    pub dimension: i64,
    /// The modes whose results are put in a row.
    pub modes: Vec<PoolingMode>,
    /// Whether a prompt's tokens take part.
    pub include_prompt: bool,
}

/// `2_Dense/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DenseConfig {
    /// Width of what comes in.
    pub in_features: i64,
    /// Width of what goes out.
    pub out_features: i64,
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Path of a `torch.nn` class; tanh where absent.
    pub activation_function: Option<String>,
    /// What it reads.
    #[serde(default = "sentence_embedding")]
    pub module_input_name: String,
}

/// `sentence_bert_config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SentenceBertConfig {
    /// The length, in tokens, at which texts are cut.
    pub max_seq_length: Option<u32>,
    /// Whether text is lower-cased, whatever the tokenizer says.
    pub do_lower_case: bool,
}

/// `config_sentence_transformers.json`: how the model wants to be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// What goes before a text, by what the text is.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is used where none is named.
    pub default_prompt: Option<String>,
    /// How embeddings are compared: `cosine`, `dot`, `euclidean`, `manhattan`.
    pub similarity: Option<String>,
}

#[derive(Deserialize)]
struct RawUsage {
    prompts: Option<BTreeMap<String, Option<String>>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
}

/// Names of the prompts for queries and for what is searched: the library's own, then others that are in use.
const QUERY: [&str; 3] = ["query", "search_query", "retrieval.query"];
const DOCUMENT: [&str; 5] =
    ["document", "passage", "corpus", "search_document", "retrieval.passage"];

impl Usage {
    /// Reads the file of a model's folder; one without it says nothing.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn read(files: &ModelFiles) -> Result<Self, SourceError> {
        let Some(raw) = files.json::<RawUsage>(SENTENCE_TRANSFORMERS_CONFIG)? else {
            return Ok(Self::default());
        };
        let prompts = raw.prompts.unwrap_or_default();
        Ok(Self {
            prompts: prompts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect(),
            default_prompt: raw.default_prompt_name,
            similarity: raw.similarity_fn_name,
        })
    }

    /// The prompt for queries, or else the one for all texts. An empty one is none.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.prompt(&QUERY)
    }

    /// The prompt for what is searched, or else the one for all texts. An empty one is none.
    #[must_use]
    pub fn document(&self) -> Option<&str> {
        self.prompt(&DOCUMENT)
    }

    fn prompt(&self, names: &[&str]) -> Option<&str> {
        let by_default = || self.prompts.get(self.default_prompt.as_ref()?);
        let found = names.iter().find_map(|name| self.prompts.get(*name)).or_else(by_default);
        found.map(String::as_str).filter(|prompt| !prompt.is_empty())
    }
}

fn yes() -> bool {
    true
}

fn sentence_embedding() -> String {
    "sentence_embedding".into()
}

/// The names under which releases of the library have kept [`SentenceBertConfig`].
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
struct Entry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    class: String,
}

#[derive(Deserialize)]
struct RawPooling {
    #[serde(alias = "word_embedding_dimension")]
    embedding_dimension: i64,
    pooling_mode: Option<Modes>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "yes")]
    include_prompt: bool,
}

/// Releases before 5.4 wrote a flag for each mode, later ones a name or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(PoolingMode),
    Many(Vec<PoolingMode>),
}

impl From<RawPooling> for PoolingConfig {
    fn from(raw: RawPooling) -> Self {
        let flagged = || {
            // The library's own order.
            let modes: Vec<_> = [
                (raw.pooling_mode_cls_token, PoolingMode::Cls),
                (raw.pooling_mode_max_tokens, PoolingMode::Max),
                (raw.pooling_mode_mean_tokens, PoolingMode::Mean),
                (raw.pooling_mode_mean_sqrt_len_tokens, PoolingMode::MeanSqrtLen),
                (raw.pooling_mode_weightedmean_tokens, PoolingMode::WeightedMean),
                (raw.pooling_mode_lasttoken, PoolingMode::LastToken),
            ]
            .into_iter()
            .filter_map(|(on, mode)| on.then_some(mode))
            .collect();
            if modes.is_empty() { vec![PoolingMode::Mean] } else { modes }
        };
        Self {
            dimension: raw.embedding_dimension,
            modes: match raw.pooling_mode {
                Some(Modes::One(mode)) => vec![mode],
                Some(Modes::Many(modes)) => modes,
                None => flagged(),
            },
            include_prompt: raw.include_prompt,
        }
    }
}

impl SentenceTransformers {
    /// Whether the tokens of prompts take part in pooling.
    #[must_use]
    pub fn pools_prompts(&self) -> bool {
        let leaves_out = |module: &Module| {
            matches!(module, Module::Pooling(PoolingConfig { include_prompt: false, .. }))
        };
        !self.modules.iter().any(leaves_out)
    }

    /// Reads `modules.json` and what it names. Nothing for a folder without one.
    ///
    /// # Errors
    /// When a file is missing or not valid, a path leads outside, or a module is one that cannot be built.
    pub fn read(files: &ModelFiles) -> Result<Option<Self>, SourceError> {
        let Some(entries) = files.json::<Vec<Entry>>("modules.json")? else { return Ok(None) };
        let invalid = |name: &str, reason: String| SourceError::Json {
            path: files.folder().join(name),
            source: serde::de::Error::custom(reason),
        };
        let mut transformer = None;
        let mut modules = Vec::new();
        for (i, entry) in entries.into_iter().enumerate() {
            let class = entry.class.rsplit('.').next().unwrap_or_default();
            let folder = files.sub(&entry.path)?;
            let config = |advice| folder.required_json::<Value>("config.json", advice);
            let config_error =
                |source| SourceError::Json { path: folder.folder().join("config.json"), source };
            const NEEDED: &str = "modules.json names this module; fetch its folder too";
            match class {
                "Transformer" if i == 0 => transformer = Some(entry.path),
                "Dropout" => {} // Does nothing once training is over.
                "Normalize" => modules.push(Module::Normalize),
                "Pooling" => {
                    let raw = RawPooling::deserialize(config(NEEDED)?).map_err(config_error)?;
                    modules.push(Module::Pooling(raw.into()));
                }
                "Dense" => {
                    let config = DenseConfig::deserialize(config(NEEDED)?).map_err(config_error)?;
                    modules.push(Module::Dense { folder: entry.path, config });
                }
                "LayerNorm" => {
                    let dimension = config(NEEDED)?["dimension"].as_i64();
                    let dimension = dimension.ok_or_else(|| {
                        config_error(serde::de::Error::missing_field("dimension"))
                    })?;
                    modules.push(Module::LayerNorm { folder: entry.path, dimension });
                }
                _ => {
                    return Err(invalid(
                        "modules.json",
                        format!(
                            "the sentence-transformers module {} cannot be served; a Transformer \
                             followed by Pooling, Dense, LayerNorm, Dropout and Normalize can",
                            entry.class
                        ),
                    ));
                }
            }
        }
        let transformer = transformer.ok_or_else(|| {
            invalid("modules.json", "its first module is not a Transformer".into())
        })?;
        let folder = files.sub(&transformer)?;
        let mut settings = None;
        for name in SETTINGS {
            settings = settings.or(folder.json(name)?);
        }
        Ok(Some(Self { transformer, modules, settings: settings.unwrap_or_default() }))
    }
}
