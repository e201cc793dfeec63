//! Which of a repository's files the job needs: config, tokenizer, sentence-transformers' modules, and one form of the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::id::is_inside;
use super::{HubError, RepositoryId};
use crate::source::SENTENCE_TRANSFORMERS_CONFIG;

/// A repository's files, at the hub or in the cache.
pub(super) trait Contents {
    /// The paths of all files.
    fn names(&self) -> BTreeSet<String>;
    /// Reads a small file.
    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError>;
}

/// What is needed of them.
#[derive(Debug)]
pub(super) struct Selected {
    /// The small files first, the weights last.
    pub files: Vec<String>,
    /// The transformer's `config.json`.
    pub config: Value,
}

pub(super) const MODULES: &str = "modules.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CONFIG: &str = "config.json";
const ADAPTER: &str = "adapter_config.json";

/// One file or the index of several, in the order in which they are preferred, which is that of the reader.
const WEIGHTS: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// What a vocabulary may be in.
const VOCABULARIES: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spm.model",
    "spiece.model",
];

const TOKENIZER: [&str; 4] =
    [TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "merges.txt"];

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Adapter {
    base_model_name_or_path: Option<String>,
}

/// Chooses, reading the files that name others on the way.
pub(super) async fn select(
    id: &RepositoryId,
    contents: &impl Contents,
) -> Result<Selected, HubError> {
    let names = contents.names();
    let reader = Reader { id, contents, names: &names };
    let mut files = Vec::new();
    let mut weights = Vec::new();

    let mut modules: Vec<Module> = Vec::new();
    if names.contains(MODULES) {
        modules = reader.json(MODULES).await?;
        files.push(MODULES.to_owned());
    }
    files.extend(
        names
            .contains(SENTENCE_TRANSFORMERS_CONFIG)
            .then(|| SENTENCE_TRANSFORMERS_CONFIG.to_owned()),
    );
    let mut folders = Vec::new();
    for module in &modules {
        let path = module.path.trim_start_matches("./").trim_end_matches('/');
        if !path.is_empty() && !is_inside(path) {
            let reason =
                format!("it names the folder {:?}, which leads out of the repository", module.path);
            return Err(reader.invalid(MODULES, reason));
        }
        folders.push(path);
    }
    let transformer = folders.first().copied().unwrap_or_default();

    let config = within(transformer, CONFIG);
    if !names.contains(&config) {
        return Err(match reader.adapter().await? {
            Some(adapter) => adapter,
            None => HubError::NoConfig { id: id.clone(), has: names.iter().cloned().collect() },
        });
    }
    let read = reader.json(&config).await?;
    files.push(config);
    let of_transformer = |name: &str| {
        VOCABULARIES.contains(&name)
            || TOKENIZER.contains(&name)
            || (name.starts_with("sentence_") && name.ends_with("_config.json"))
    };
    files.extend(names.iter().filter(|path| of_transformer(name_in(transformer, path))).cloned());
    let found = reader.weights(transformer).await?;
    if found.is_empty() {
        if let Some(adapter) = reader.adapter().await? {
            return Err(adapter);
        }
        let weighty: Vec<String> = names.iter().filter(|name| is_weighty(name)).cloned().collect();
        let has = if weighty.is_empty() { names.iter().cloned().collect() } else { weighty };
        return Err(HubError::NoWeights { id: id.clone(), folder: transformer.to_owned(), has });
    }
    weights.extend(found);

    for folder in folders.into_iter().skip(1).filter(|folder| !folder.is_empty()) {
        files.extend(Some(within(folder, CONFIG)).filter(|path| names.contains(path)));
        weights.extend(reader.weights(folder).await?);
    }
    files.append(&mut weights);
    let mut seen = BTreeSet::new();
    files.retain(|path| seen.insert(path.clone()));
    Ok(Selected { files, config: read })
}

/// Whether one of the chosen files is weights.
pub(super) fn is_weights(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".bin")
}

/// Whether there is a vocabulary among the files.
pub(super) fn has_vocabulary(files: &[String]) -> bool {
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    files.iter().any(|path| VOCABULARIES.contains(&name(path).as_str()))
}

struct Reader<'a, C> {
    id: &'a RepositoryId,
    contents: &'a C,
    names: &'a BTreeSet<String>,
}

impl<C: Contents> Reader<'_, C> {
    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, HubError> {
        let bytes = self.contents.read(path).await?;
        // Some editors begin a file with a byte order mark, which JSON does not know.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        serde_json::from_slice(text).map_err(|error| self.invalid(path, error.to_string()))
    }

    fn invalid(&self, path: &str, reason: String) -> HubError {
        HubError::Json { id: self.id.clone(), path: path.to_owned(), reason }
    }

    /// The weights in a folder: a file, or an index and its parts.
    async fn weights(&self, folder: &str) -> Result<Vec<String>, HubError> {
        for (one, index) in WEIGHTS {
            let (one, index) = (within(folder, one), within(folder, index));
            if self.names.contains(&one) {
                return Ok(vec![one]);
            }
            if !self.names.contains(&index) {
                continue;
            }
            let Index { weight_map } = self.json(&index).await?;
            let shards: BTreeSet<String> = weight_map.into_values().collect();
            let mut files = vec![index.clone()];
            for shard in shards {
                let path = within(folder, &shard);
                if shard.contains('/') || !self.names.contains(&path) {
                    return Err(HubError::NoShard { id: self.id.clone(), index, shard });
                }
                files.push(path);
            }
            return Ok(files);
        }
        Ok(Vec::new())
    }

    /// The error that there is only an adapter.
    async fn adapter(&self) -> Result<Option<HubError>, HubError> {
        if !self.names.contains(ADAPTER) {
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

/// The name of a file that lies in a folder itself; nothing for all others.
fn name_in<'a>(folder: &str, path: &'a str) -> &'a str {
    let rest = if folder.is_empty() {
        Some(path)
    } else {
        path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'))
    };
    rest.filter(|rest| !rest.contains('/')).unwrap_or_default()
}

fn is_weighty(path: &str) -> bool {
    const EXTENSIONS: [&str; 10] =
        ["bin", "ckpt", "gguf", "h5", "msgpack", "onnx", "ot", "pt", "safetensors", "tflite"];
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(BTreeMap<&'static str, &'static str>);

    impl Contents for Files {
        fn names(&self) -> BTreeSet<String> {
            self.0.keys().map(|&name| name.to_owned()).collect()
        }

        async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
            Ok(self.0[path].as_bytes().to_vec())
        }
    }

    async fn selected(files: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
        let id = "org/name".parse().unwrap();
        let files = Files(files.iter().copied().collect());
        select(&id, &files).await.map(|selected| selected.files).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_form_of_the_weights_and_nothing_else_is_chosen() {
        let mut files = vec![("config.json", "{}"), ("model.safetensors", ""), ("vocab.txt", "")];
        let expected = ["config.json", "vocab.txt", "model.safetensors"];
        files.extend([
            ("README.md", ""),
            (".gitattributes", ""),
            ("pytorch_model.bin", ""),
            ("tf_model.h5", ""),
            ("flax_model.msgpack", ""),
            ("rust_model.ot", ""),
            ("onnx/model.onnx", ""),
            ("onnx/vocab.txt", ""),
            ("openvino/openvino_model.bin", ""),
            ("model.Q4_K_M.gguf", ""),
            ("optimizer.pt", ""),
            ("training_args.bin", ""),
            ("model.fp16.safetensors", ""),
            ("checkpoint-1/model.safetensors", ""),
        ]);
        assert_eq!(selected(&files).await.unwrap(), expected);
        files.retain(|(name, _)| *name != "model.safetensors");
        let old = selected(&files).await.unwrap();
        assert_eq!(old, ["config.json", "vocab.txt", "pytorch_model.bin"]);
    }

    #[tokio::test]
    async fn parts_and_modules_are_those_that_are_named() {
        let chosen = selected(&[
            (
                "modules.json",
                r#"[{"path": "0_Transformer", "type": "t"}, {"path": "./2_Dense/"}, {"path": "3_Normalize"}]"#,
            ),
            ("0_Transformer/config.json", "{}"),
            ("0_Transformer/vocab.txt", ""),
            ("0_Transformer/sentence_bert_config.json", ""),
            (
                "0_Transformer/model.safetensors.index.json",
                r#"{"weight_map": {"a": "2.st", "b": "1.st", "c": "2.st"}}"#,
            ),
            ("0_Transformer/1.st", ""),
            ("0_Transformer/2.st", ""),
            ("0_Transformer/3.st", ""),
            ("2_Dense/config.json", ""),
            ("2_Dense/model.safetensors", ""),
            ("2_Dense/pytorch_model.bin", ""),
            ("config.json", ""),
        ]);
        assert_eq!(
            chosen.await.unwrap(),
            [
                "modules.json",
                "0_Transformer/config.json",
                "0_Transformer/sentence_bert_config.json",
                "0_Transformer/vocab.txt",
                "2_Dense/config.json",
                "0_Transformer/model.safetensors.index.json",
                "0_Transformer/1.st",
                "0_Transformer/2.st",
                "2_Dense/model.safetensors",
            ]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_imported_is_said() {
        let config = ("config.json", "{}");
        let refused = async |files: &[(&'static str, &'static str)], parts: &[&str]| {
            let message = selected(files).await.unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
        };
        refused(&[("README.md", "")], &["no config.json", "README.md"]).await;
        let gguf = [config, ("x.gguf", ""), ("README.md", "")];
        refused(&gguf, &["no weights that can be read", "it holds x.gguf"]).await;
        let adapter = ("adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
        let lora = ("adapter_model.safetensors", "");
        refused(&[adapter, lora], &["adapter", "org/base"]).await;
        refused(&[config, adapter, lora], &["adapter", "org/base"]).await;
        refused(&[("config.json", "[")], &["config.json of org/name is not valid"]).await;
        let out = ("modules.json", r#"[{"path": "../../x"}]"#);
        refused(&[out, config], &["modules.json", "leads out"]).await;
        let index = ("model.safetensors.index.json", r#"{"weight_map": {"a": "../x"}}"#);
        refused(&[config, index], &["index.json", "../x"]).await;
    }
}
