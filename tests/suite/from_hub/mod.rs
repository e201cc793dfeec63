//! Models from the hub: downloads, caches, errors and hostile answers, against a stand-in for the hub and its CDN.

mod caches;
#[cfg(feature = "torch")]
mod folders;
mod hostile;
mod interruptions;
mod layout;
#[cfg(feature = "torch")]
mod programs;
mod protocol;
#[cfg(feature = "torch")]
mod refusals;
#[cfg(feature = "torch")]
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ::hub::{Host, Hub, Options, Repository};
use rust_eland::observer::Progress;
use rust_eland::source::hub::{Hub as Client, HubError, HubSettings, Snapshot, Token};
use tempfile::TempDir;

use crate::program::program;

/// The repository of most tests.
pub const ID: &str = "org/model";

/// The files of the repository that the import needs.
pub const NEEDED: [&str; 3] = ["config.json", "vocab.txt", "model.safetensors"];

/// A repository with needed and other files. The weights are not those of a model.
pub fn repository() -> Repository {
    Repository::new(ID)
        .file("README.md", "A model.")
        .file(".gitattributes", "*.safetensors filter=lfs")
        .file("config.json", r#"{"model_type": "bert", "architectures": ["BertModel"]}"#)
        .file("vocab.txt", noise(1, 30_000))
        .large("model.safetensors", noise(2, 300_000))
        .large("pytorch_model.bin", noise(3, 1_000))
        .large("onnx/model.onnx", noise(4, 1_000))
}

/// Pseudo-random bytes that are the same in each run (Knuth's generator).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Starts a hub with these repositories.
pub fn serving(repositories: impl Into<Vec<Repository>>) -> Hub {
    Hub::start(Options { repositories: repositories.into(), ..Options::default() })
}

/// A cache for one test.
pub struct Cache(TempDir);

impl Cache {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The value of `HF_HOME`.
    pub fn home(&self) -> &Path {
        self.0.path()
    }

    /// The folder with the repositories.
    pub fn hub(&self) -> PathBuf {
        self.0.path().join("hub")
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.hub().join("models--org--model/blobs").join(etag)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.hub().join("models--org--model/snapshots").join(commit)
    }

    pub fn settings(&self, endpoint: &str) -> HubSettings {
        let mut settings = HubSettings::new(endpoint, self.hub()).unwrap();
        settings.backoff = Duration::from_millis(1);
        settings
    }

    /// Downloads the branch `main` of the repository.
    pub fn fetch(&self, hub: &Hub) -> Result<Snapshot, HubError> {
        fetch(self.settings(&hub.url()), ID, "main")
    }

    /// Downloads the branch `main` with a token.
    pub fn fetch_as(&self, hub: &Hub, token: &str) -> Result<Snapshot, HubError> {
        let mut settings = self.settings(&hub.url());
        settings.token = Token::new(token, "the test");
        fetch(settings, ID, "main")
    }

    pub fn fetch_offline(&self, revision: &str) -> Result<Snapshot, HubError> {
        let mut settings = self.settings("http://127.0.0.1:9");
        settings.offline = true;
        fetch(settings, ID, revision)
    }

    /// The program, with this cache.
    pub fn program(&self, endpoint: &str) -> Command {
        let mut program = program();
        program.env("HF_HOME", self.home()).env("HF_ENDPOINT", endpoint);
        program
    }

    pub fn download(&self, hub: &Hub, arguments: &[&str]) -> Output {
        let mut program = self.program(&hub.url());
        program.args(["download", "--hub-model-id", ID]).args(arguments).output().unwrap()
    }

    /// Fails unless the snapshot holds the needed files of the repository, and all blobs are sound.
    #[track_caller]
    pub fn holds(&self, repository: &Repository) {
        let snapshot = self.snapshot(&repository.commit());
        for path in NEEDED {
            let content = fs::read(snapshot.join(path)).unwrap();
            assert!(
                content == repository.files[path].content,
                "{path} differs from the repository's"
            );
        }
        self.is_sound();
    }

    /// Fails unless every blob has the hash in its name, and no temporary file is left.
    #[track_caller]
    pub fn is_sound(&self) {
        for path in files_below(self.home()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.parent().unwrap().ends_with("blobs") && !name.ends_with(".incomplete") {
                let content = fs::read(&path).unwrap();
                let file =
                    ::hub::File { content: content.into(), large: name.len() == 64, xet: false };
                assert_eq!(file.etag(), name);
            }
            assert!(![".link-", ".ref-", ".copy-"].iter().any(|start| name.starts_with(start)));
        }
    }
}

/// Downloads a revision of a repository.
pub fn fetch(settings: HubSettings, id: &str, revision: &str) -> Result<Snapshot, HubError> {
    runtime().block_on(async {
        let (id, revision) = (id.parse()?, revision.parse()?);
        let plan = Client::new(settings)?.plan(&id, &revision).await?;
        plan.download(&Progress::quiet()).await
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The message of an error and its hint.
pub fn explained(error: &HubError) -> String {
    format!("{error}\n{}", error.hint().map(|hint| hint.to_string()).unwrap_or_default())
}

/// All files below a folder, including links.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The requests whose path contains a text, as (host, first requested byte, status).
pub fn asked(hub: &Hub, path: &str) -> Vec<(Host, Option<u64>, u16)> {
    let requests = hub.requests();
    let requests = requests.iter().filter(|request| request.path.contains(path));
    requests.map(|request| (request.host, request.from, request.status)).collect()
}

/// The name of a file of the repository on the CDN.
pub fn on_cdn(repository: &Repository, path: &str) -> String {
    format!("/{}", repository.files[path].sha256())
}
