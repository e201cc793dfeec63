//! The files of a repository that the import needs: configuration, tokenizer, the modules of sentence-transformers, and one form of
//! the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::id::is_inside;
use super::{HubError, RepositoryId};
use crate::source::SENTENCE_TRANSFORMERS_CONFIG;

/// The files of a repository, on the hub or in the cache.
pub(super) trait RepositoryContents {
    /// The paths of all files.
    fn paths(&self) -> BTreeSet<String>;
    /// Reads a small file.
    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError>;
}

/// The files that the import needs.
#[derive(Debug)]
pub(super) struct Selection {
    /// The paths: small files first, then the weights of the transformer, then the weights of other modules.
    pub files: Vec<String>,
    /// The content of the transformer's `config.json`. Static embeddings do not have one.
    pub config: Option<Value>,
    /// What other small files declare.
    pub declared: DeclaredFiles,
}

impl Selection {
    /// One file that was asked for by name.
    pub(super) fn of_file(path: &str) -> Self {
        Self { files: vec![path.to_owned()], config: None, declared: DeclaredFiles::default() }
    }
}

/// Files of a repository that, beside `config.json`, show which family a model belongs to.
#[derive(Debug, Clone, Default)]
pub struct DeclaredFiles {
    /// The content of the transformer's `tokenizer_config.json`; null without the file.
    pub tokenizer: Value,
    /// The content of `modules.json`; null without the file.
    pub modules: Value,
    /// The paths of all files.
    pub paths: BTreeSet<String>,
}

pub(super) const MODULES: &str = "modules.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CONFIG: &str = "config.json";
const ADAPTER: &str = "adapter_config.json";
/// Folder with a folder for each LoRA adapter of jina-embeddings-v5, and the files of an adapter.
const ADAPTERS: &str = "adapters";
const ADAPTER_FILES: [&str; 3] = [ADAPTER, "adapter_model.safetensors", "adapter_model.bin"];
/// The routes of a sentence-transformers Router, such as one for queries and one for documents.
const ROUTER: &str = "router_config.json";
/// The weights of a SparseStaticEmbedding: one number for each token.
const IDF: &str = "idf.json";
/// The sparse head of BGE-M3.
const SPARSE_HEAD: &str = "sparse_linear.pt";

/// A file of weights and the index of one in parts, in the order in which the checkpoint reader prefers them.
const WEIGHTS: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// The files that can hold a vocabulary.
const VOCABULARIES: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spm.model",
    "spiece.model",
];

/// The other small files of a module.
const SMALL_FILES: [&str; 7] = [
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    ROUTER,
    IDF,
    SPARSE_HEAD,
];

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type", default)]
    class: String,
}

/// `router_config.json`: the modules of each route, by folder.
#[derive(Deserialize)]
struct Router {
    #[serde(default)]
    structure: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Adapter {
    base_model_name_or_path: Option<String>,
}

/// Selects files. Reads those that name others.
pub(super) async fn select(
    id: &RepositoryId,
    contents: &impl RepositoryContents,
) -> Result<Selection, HubError> {
    let paths = contents.paths();
    let reader = Reader { id, contents, paths: &paths };
    let (folders, needs_config) = reader.folders().await?;
    let transformer = reader.transformer(&folders).await?;
    let mut files: Vec<String> = [MODULES, SENTENCE_TRANSFORMERS_CONFIG].map(str::to_owned).into();
    files.push(within(transformer, CONFIG));
    files.push(ADAPTER.to_owned());
    files.retain(|path| paths.contains(path));
    let has_config = paths.contains(&within(transformer, CONFIG));
    if !has_config && needs_config {
        let all = || paths.iter().cloned().collect();
        let adapter = reader.adapter().await?;
        return Err(adapter.unwrap_or_else(|| HubError::NoConfig { id: id.clone(), files: all() }));
    }
    let config =
        if has_config { Some(reader.json(&within(transformer, CONFIG)).await?) } else { None };

    // The transformer's files come first, because its weights are the largest.
    let others = folders.iter().map(String::as_str).filter(|folder| *folder != transformer);
    let mut weights = Vec::new();
    for folder in std::iter::once(transformer).chain(others) {
        files.extend(paths.iter().filter(|path| is_small_file(name_in(folder, path))).cloned());
        let found = reader.weights(folder).await?;
        if folder == transformer && found.is_empty() && !paths.contains(&within(folder, IDF)) {
            return Err(reader.no_weights(folder).await);
        }
        weights.extend(found);
    }
    files.append(&mut weights);
    files.extend(config.iter().flat_map(|config| adapters(config, &paths)));
    let mut seen = BTreeSet::new();
    files.retain(|path| seen.insert(path.clone()));
    let mut declared = DeclaredFiles::default();
    let tokenizer = within(transformer, TOKENIZER_CONFIG);
    for (path, value) in
        [(tokenizer.as_str(), &mut declared.tokenizer), (MODULES, &mut declared.modules)]
    {
        if paths.contains(path) {
            // The reader of the file reports what is not valid.
            *value = reader.json(path).await.unwrap_or_default();
        }
    }
    declared.paths.clone_from(&paths);
    Ok(Selection { files, config, declared })
}

/// The files of the LoRA adapters that `config.json` declares (`task_names`).
fn adapters(config: &Value, paths: &BTreeSet<String>) -> Vec<String> {
    let names = config.get("task_names").and_then(Value::as_array).into_iter().flatten();
    let folders = names.filter_map(Value::as_str).map(|name| within(ADAPTERS, name));
    let files = folders.flat_map(|folder| ADAPTER_FILES.map(|name| within(&folder, name)));
    files.filter(|path| is_inside(path) && paths.contains(path)).collect()
}

/// Whether a selected file is weights.
pub(super) fn is_weights(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".bin")
}

/// Whether a selected file can hold a vocabulary.
pub(super) fn is_vocabulary(path: &str) -> bool {
    VOCABULARIES.contains(&path.rsplit('/').next().unwrap_or_default())
}

fn is_small_file(name: &str) -> bool {
    name == CONFIG
        || VOCABULARIES.contains(&name)
        || SMALL_FILES.contains(&name)
        || (name.starts_with("sentence_") && name.ends_with("_config.json"))
}

struct Reader<'a, C> {
    id: &'a RepositoryId,
    contents: &'a C,
    paths: &'a BTreeSet<String>,
}

impl<C: RepositoryContents> Reader<'_, C> {
    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, HubError> {
        let bytes = self.contents.read(path).await?;
        // Some editors write a byte order mark, which is not part of JSON.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        serde_json::from_slice(text).map_err(|error| self.invalid(path, error.to_string()))
    }

    fn invalid(&self, path: &str, reason: String) -> HubError {
        HubError::Json { id: self.id.clone(), path: path.to_owned(), reason }
    }

    /// The folders of all modules, those of routers included. Only the root, if the repository declares no modules. Returns also
    /// whether the first module is a transformer, which needs a `config.json`.
    async fn folders(&self) -> Result<(Vec<String>, bool), HubError> {
        let mut folders = Vec::new();
        let mut needs_config = true;
        if self.paths.contains(MODULES) {
            let modules: Vec<Module> = self.json(MODULES).await?;
            let class = modules.first().map(|module| module.class.as_str());
            needs_config = class.is_none_or(|class| class.ends_with("Transformer"));
            for module in modules {
                self.add_folder(&mut folders, MODULES, "", &module.path)?;
            }
        }
        if folders.is_empty() {
            folders.push(String::new());
        }
        // Routers can contain routers, so the list grows while it is read.
        let mut position = 0;
        while let Some(folder) = folders.get(position).cloned() {
            position += 1;
            let path = within(&folder, ROUTER);
            if !self.paths.contains(&path) {
                continue;
            }
            let Router { structure } = self.json(&path).await?;
            for module in structure.values().flatten() {
                self.add_folder(&mut folders, &path, &folder, module)?;
            }
        }
        Ok((folders, needs_config))
    }

    /// Adds the folder of a module, which `file` in the folder `base` names.
    fn add_folder(
        &self,
        folders: &mut Vec<String>,
        file: &str,
        base: &str,
        name: &str,
    ) -> Result<(), HubError> {
        /// Models have fewer than ten. The time to select files grows with the number of folders times the number of files.
        const MAX_FOLDERS: usize = 200;
        let folder = self.folder(file, base, name)?;
        if folders.contains(&folder) {
            return Ok(());
        }
        if folders.len() == MAX_FOLDERS {
            let reason = format!("it names more than {MAX_FOLDERS} folders of modules");
            return Err(self.invalid(file, reason));
        }
        folders.push(folder);
        Ok(())
    }

    /// The path of a module's folder, which `file` in the folder `base` names.
    fn folder(&self, file: &str, base: &str, name: &str) -> Result<String, HubError> {
        let path = name.trim_start_matches("./").trim_end_matches('/');
        if path.is_empty() || path == "." {
            return Ok(base.to_owned());
        }
        if !is_inside(path) {
            let reason = format!("it names the folder {name:?}, which is outside the repository");
            return Err(self.invalid(file, reason));
        }
        Ok(within(base, path))
    }

    /// The folder of the transformer: the first module whose `config.json` declares an architecture, or else the first module.
    async fn transformer<'a>(&self, folders: &'a [String]) -> Result<&'a str, HubError> {
        let first = folders.first().map_or("", String::as_str);
        if folders.len() < 2 {
            return Ok(first);
        }
        for folder in folders {
            let path = within(folder, CONFIG);
            if self.paths.contains(&path) {
                let config: Value = self.json(&path).await?;
                if config.get("model_type").or(config.get("architectures")).is_some() {
                    return Ok(folder);
                }
                // A transformer without these keys is the first module. Only routers put it elsewhere.
                if folder == first && !self.paths.iter().any(|path| path.ends_with(ROUTER)) {
                    return Ok(first);
                }
            }
        }
        Ok(first)
    }

    /// The weights in a folder: a file, or an index and its parts.
    async fn weights(&self, folder: &str) -> Result<Vec<String>, HubError> {
        for (one, index) in WEIGHTS {
            let (one, index) = (within(folder, one), within(folder, index));
            if self.paths.contains(&one) {
                return Ok(vec![one]);
            }
            if !self.paths.contains(&index) {
                continue;
            }
            let Index { weight_map } = self.json(&index).await?;
            let shards: BTreeSet<String> = weight_map.into_values().collect();
            let mut files = vec![index.clone()];
            for shard in shards {
                let path = within(folder, &shard);
                if shard.contains('/') || !self.paths.contains(&path) {
                    return Err(HubError::NoShard { id: self.id.clone(), index, shard });
                }
                files.push(path);
            }
            return Ok(files);
        }
        Ok(Vec::new())
    }

    /// The error for a transformer without weights.
    async fn no_weights(&self, folder: &str) -> HubError {
        match self.adapter().await {
            Ok(Some(error)) | Err(error) => return error,
            Ok(None) => {}
        }
        let unsupported: Vec<String> =
            self.paths.iter().filter(|path| is_any_weights(path)).cloned().collect();
        let all = || self.paths.iter().cloned().collect();
        let files = if unsupported.is_empty() { all() } else { unsupported };
        HubError::NoWeights { id: self.id.clone(), folder: folder.to_owned(), files }
    }

    /// The error for a repository that holds only an adapter.
    async fn adapter(&self) -> Result<Option<HubError>, HubError> {
        if !self.paths.contains(ADAPTER) {
            return Ok(None);
        }
        let Adapter { base_model_name_or_path: base } = self.json(ADAPTER).await?;
        let printable = |base: &String| base.len() < 256 && !base.chars().any(char::is_control);
        Ok(Some(HubError::Adapter { id: self.id.clone(), base: base.filter(printable) }))
    }
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The name of a file that lies directly in a folder. Empty for all other files.
fn name_in<'a>(folder: &str, path: &'a str) -> &'a str {
    let rest = if folder.is_empty() {
        Some(path)
    } else {
        path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'))
    };
    rest.filter(|rest| !rest.contains('/')).unwrap_or_default()
}

/// Whether a file is weights in any format.
fn is_any_weights(path: &str) -> bool {
    const EXTENSIONS: [&str; 10] =
        ["bin", "ckpt", "gguf", "h5", "msgpack", "onnx", "ot", "pt", "safetensors", "tflite"];
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
mod tests;
