//! Reads the fixtures: tiny checkpoints with reference outputs (see tests/fixtures/README.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[cfg(feature = "torch")]
use rust_eland::checkpoint::safetensors;
#[cfg(feature = "torch")]
use rust_eland::mapped_file::MappedFile;
use rust_eland::tasks::Task;
use serde::Deserialize;
#[cfg(feature = "torch")]
use tch::Tensor;

/// Folders of fixtures that no test reads yet, because the program cannot read their models, or a fixture in such a folder. Whoever adds a
/// reader removes its folder.
const WITHOUT_READER: &[&str] = &[];

/// Copies the files of a folder and of its subfolders.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// A fixture: a checkpoint with references.
pub struct Fixture {
    /// `architecture/variant`.
    pub name: String,
    folder: PathBuf,
    reference: Reference,
}

#[derive(Deserialize)]
struct Reference {
    /// `model_type` of the model, if the folder has another name.
    architecture: Option<String>,
    tasks: BTreeMap<String, Cases>,
    /// Cases of the other models of the repository, by part and task.
    #[serde(default)]
    models: BTreeMap<String, BTreeMap<String, Cases>>,
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<NamedCase>,
}

#[derive(Deserialize)]
struct NamedCase {
    name: String,
    texts: Option<Vec<Vec<String>>>,
}

/// A batch of texts with the reference output.
#[cfg(feature = "torch")]
pub struct Case {
    /// Name of the case.
    pub name: String,
    /// Texts, in pairs for tasks with two inputs; `None` if the case only has ids.
    pub texts: Option<Vec<Vec<String>>>,
    /// Token ids of Hugging Face's tokenizer, `[batch, tokens]`.
    pub input_ids: Tensor,
    /// Attention mask `[batch, tokens]`, 0 at padding.
    pub attention_mask: Tensor,
    /// Output of Hugging Face's model.
    pub output: Tensor,
    /// Embeddings that the library cut to 16 dimensions, if the fixture has them.
    pub output_16: Option<Tensor>,
}

impl Fixture {
    /// All fixtures of models that the program reads, sorted by name.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let folders = |path: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect();
            names.sort();
            names
        };
        folders(&root)
            .iter()
            .flat_map(|architecture| folders(architecture))
            .filter(|folder| folder.join("reference.json").is_file())
            .filter(|folder| WITHOUT_READER.iter().all(|name| !folder.starts_with(root.join(name))))
            .map(|folder| {
                let reference = std::fs::read(folder.join("reference.json")).unwrap();
                let name = folder.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                Self { name, reference: serde_json::from_slice(&reference).unwrap(), folder }
            })
            .collect()
    }

    /// The fixture with this name.
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|fixture| fixture.name == name).expect(name)
    }

    /// Whether Elasticsearch cannot follow the model's tokenizer exactly, though in the texts of the fixture. An import must accept the
    /// difference.
    pub fn has_inexact_tokenizer(&self) -> bool {
        let inexact =
            ["albert/", "eurobert/", "gemma3/", "modernbert/mmbert-", "t5/", "windows/gemma3"];
        // The normalization table of this T5 is that of Elasticsearch.
        inexact.iter().any(|start| self.name.starts_with(start))
            && self.name != "t5/sentence-t5-base"
    }

    /// Name of the architecture.
    pub fn architecture(&self) -> &str {
        let folder = self.name.split('/').next().unwrap();
        match self.reference.architecture.as_deref() {
            // JinaBERT has BERT's model_type.
            _ if folder == "jina" => "jina_bert",
            // jina-embeddings-v3 has XLM-RoBERTa's.
            _ if folder == "jina3" => "xlm-roberta-flash",
            Some("jina_embeddings_v5") => "eurobert",
            Some("new") => "gte",
            named => named.unwrap_or(folder),
        }
    }

    /// Folder of the model.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// Tasks with references.
    pub fn tasks(&self) -> Vec<Task> {
        self.reference.tasks.keys().map(|name| name.parse().unwrap()).collect()
    }

    /// References of a task.
    #[cfg(feature = "torch")]
    pub fn cases(&self, task: Task) -> Vec<Case> {
        self.read(&self.reference.tasks[task.name()], task.name())
    }

    /// References of another model of the repository.
    #[cfg(feature = "torch")]
    pub fn part_cases(&self, part: &str, task: Task) -> Vec<Case> {
        self.read(&self.reference.models[part][task.name()], &format!("{part}/{task}"))
    }

    /// Cases whose tensors have names that start with `prefix`.
    #[cfg(feature = "torch")]
    fn read(&self, cases: &Cases, prefix: &str) -> Vec<Case> {
        let map = MappedFile::open(&self.folder.join("reference.safetensors")).unwrap();
        let slices = safetensors::read(map.bytes()).unwrap();
        cases
            .cases
            .iter()
            .map(|case| {
                let found = |part: &str| {
                    let slice = slices.get(&format!("{prefix}/{}/{part}", case.name))?;
                    let bytes = &map.bytes()[slice.offset..slice.offset + slice.length];
                    Some(Tensor::from_data_size(bytes, &slice.shape, slice.dtype.into()))
                };
                let tensor = |part: &str| found(part).expect(part);
                Case {
                    name: case.name.clone(),
                    texts: case.texts.clone(),
                    input_ids: tensor("input_ids"),
                    attention_mask: tensor("attention_mask"),
                    output: tensor("output"),
                    output_16: found("output_16"),
                }
            })
            .collect()
    }
}
