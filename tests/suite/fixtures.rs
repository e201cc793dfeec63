//! Reads the fixtures: tiny checkpoints with what Hugging Face's classes compute (see README.md beside this file).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rust_eland::checkpoint::safetensors;
use rust_eland::mapped_file::MappedFile;
use rust_eland::tasks::Task;
use rust_eland::torchscript::tensor_over;
use serde::Deserialize;
use tch::Tensor;

/// One checkpoint.
pub struct Fixture {
    /// `architecture/variant`.
    pub name: String,
    folder: PathBuf,
    reference: Reference,
}

#[derive(Deserialize)]
struct Reference {
    tasks: BTreeMap<String, Cases>,
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

/// One batch of texts.
pub struct Case {
    /// Its name.
    pub name: String,
    /// The texts, in pairs for tasks that have two; none where the ids are given as such.
    pub texts: Option<Vec<Vec<String>>>,
    /// What Hugging Face's tokenizer makes of them.
    pub input_ids: Tensor,
    /// 0 at padding.
    pub attention_mask: Tensor,
    /// What Hugging Face's model gives.
    pub output: Tensor,
}

impl Fixture {
    /// All of them, by name.
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
            .map(|folder| {
                let reference = std::fs::read(folder.join("reference.json")).unwrap();
                let name = folder.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                Self { name, reference: serde_json::from_slice(&reference).unwrap(), folder }
            })
            .collect()
    }

    /// The fixture of this name.
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|fixture| fixture.name == name).expect(name)
    }

    /// The model's folder.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// The tasks with references.
    pub fn tasks(&self) -> Vec<Task> {
        self.reference.tasks.keys().map(|name| name.parse().unwrap()).collect()
    }

    /// The references of a task.
    pub fn cases(&self, task: Task) -> Vec<Case> {
        let map = Arc::new(MappedFile::open(&self.folder.join("reference.safetensors")).unwrap());
        let slices = safetensors::read((*map).as_ref()).unwrap();
        self.reference.tasks[task.name()]
            .cases
            .iter()
            .map(|case| {
                let tensor = |part: &str| {
                    let slice = &slices[&format!("{task}/{}/{part}", case.name)];
                    tensor_over(Arc::clone(&map), slice.offset, slice.kind, &slice.shape).unwrap()
                };
                Case {
                    name: case.name.clone(),
                    texts: case.texts.clone(),
                    input_ids: tensor("input_ids"),
                    attention_mask: tensor("attention_mask"),
                    output: tensor("output"),
                }
            })
            .collect()
    }
}
