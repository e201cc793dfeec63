//! Errors of downloads from the hub and of its cache. [`HubError::hint`] returns what to do about each.

use std::io;
use std::path::PathBuf;

use super::RepositoryId;
use crate::byte_count::ByteCount;
use crate::error_chain::ErrorChain;
use crate::hint::{Command, Hint, Setting, hint};

/// Why a model could not be downloaded from the hub or read from its cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name of a model is neither a folder nor a hub id.
    #[error("{name:?} is neither an existing folder nor a hub id: {reason}")]
    Id {
        /// The name.
        name: String,
        /// Why the name is not a hub id.
        reason: &'static str,
    },
    /// The name of a revision cannot be a branch, tag or commit.
    #[error("{0:?} is not a valid revision: a revision is a branch, a tag or a commit")]
    Revision(String),
    /// A setting has an invalid value.
    #[error("{name} is not valid: {reason}")]
    Setting {
        /// The variable or option.
        name: &'static str,
        /// Why the value is not valid. Contains no secret.
        reason: String,
    },
    /// The file of certificates for the hub is not valid.
    #[error("no certificates could be read from {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        reason: String,
    },
    /// Offline, and the cache does not have the revision.
    #[error(
        "{id} at revision {revision} is not in the cache {cache}, and offline mode forbids downloading it"
    )]
    NotCached {
        /// The repository.
        id: RepositoryId,
        /// The branch, tag or commit.
        revision: String,
        /// The folder of the cache.
        cache: PathBuf,
        /// The name to download: the repository with file and revision.
        name: String,
    },
    /// Offline, and the cache has only a part of the repository.
    #[error("the cache contains only a part of {id}: {reason} in {snapshot}")]
    PartlyCached {
        /// The repository.
        id: RepositoryId,
        /// The folder of the snapshot.
        snapshot: PathBuf,
        /// What is missing.
        reason: String,
        /// The name to download: the repository with file and revision.
        name: String,
    },
    /// The bytes of a cached file do not have the hash in the file's name.
    #[error(
        "{path} is damaged: its content is not what the hub serves under this hash. Another program may have stored an error \
         page, or the disk may be faulty"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The name to download: the repository with file and revision.
        name: String,
    },
    /// The hub did not respond.
    #[error("cannot reach the hub at {host}{}: {reason}",
        .proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
    )]
    Unreachable {
        /// Host name and port.
        host: String,
        /// The proxy for this address, without user and password.
        proxy: Option<String>,
        /// What failed, to the innermost cause.
        reason: String,
        /// The repository.
        id: RepositoryId,
        /// What failed, cause by cause.
        #[source]
        cause: Box<ErrorChain>,
    },
    /// The certificate of the hub is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Untrusted {
        /// Host name and port.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The answers are not those of a hub.
    #[error("{host} does not respond like a Hugging Face hub: {reason}")]
    NotAHub {
        /// Host name and port.
        host: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// 401 without a token, or 404 with a valid one. The hub does not reveal whether the repository exists.
    #[error("the repository {id} was not found on the hub{}",
        if *.token { ": it does not exist, or your token may not read it" } else { ": it does not exist, or it is private" })]
    NotFound {
        /// The repository.
        id: RepositoryId,
        /// Whether a token was sent.
        token: bool,
    },
    /// The repository exists, and the revision does not.
    #[error("the repository {id} has no branch, tag or commit {revision}")]
    NoRevision {
        /// The repository.
        id: RepositoryId,
        /// The revision.
        revision: String,
    },
    /// The repository does not have the file that was asked for by name.
    #[error("{id} has no file {path}; its files are {}", some(.files))]
    FileNotFound {
        /// The repository.
        id: RepositoryId,
        /// The path of the file.
        path: String,
        /// All files of the repository.
        files: Vec<String>,
    },
    /// The authors of the repository must grant access.
    #[error("access to {id} is restricted by its authors{}",
        if *.token { ", and the account of your token does not have it" } else { ", and no token was sent" })]
    Gated {
        /// The repository.
        id: RepositoryId,
        /// The page where access is requested.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub rejected the token (401).
    #[error(
        "the hub does not accept the token from {origin}: the token is expired, revoked or mistyped"
    )]
    Token {
        /// The setting or file that holds the token.
        origin: &'static str,
        /// Whether `hf auth login` has stored the token.
        stored: bool,
    },
    /// The hub rejected the request with 403, for a reason that this program does not recognize.
    #[error("the hub refuses access to {id}: {reason}")]
    Forbidden {
        /// The repository.
        id: RepositoryId,
        /// The text of the answer.
        reason: String,
    },
    /// The hub returned 429 for longer than this program waits.
    #[error("the hub still refuses requests because there were too many{}",
        .seconds.map(|s| format!("; it asks to wait {s} s")).unwrap_or_default())]
    RateLimit {
        /// The wait that the hub asks for.
        seconds: Option<u64>,
        /// Whether a token was sent.
        token: bool,
    },
    /// Repeated server errors.
    #[error("{host} could not serve {what}: {reason}")]
    Unavailable {
        /// Host name and port.
        host: String,
        /// What was requested.
        what: String,
        /// The answer.
        reason: String,
    },
    /// The listing contains a file that the hub does not serve.
    #[error("{id} lists {path}, but the hub does not serve it: {reason}")]
    NoFile {
        /// The repository.
        id: RepositoryId,
        /// The path of the file.
        path: String,
        /// The text of the answer.
        reason: String,
    },
    /// The bytes of a file do not have the hash that the hub lists.
    #[error(
        "{host} sent {path} with the wrong size or hash {times} times in a row. None of it was kept"
    )]
    Mismatch {
        /// The path of the file.
        path: String,
        /// The host that sent the last bytes.
        host: String,
        /// How many times the file was downloaded.
        times: u32,
    },
    /// The listing or a header contains something that a real hub does not send.
    #[error("the responses of {host} cannot be trusted: {reason}")]
    Hostile {
        /// Host name and port.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The repository does not hold a Transformers model.
    #[error("{id} has no config.json, so it is not a Transformers model; its files are {}", some(.files))]
    NoConfig {
        /// The repository.
        id: RepositoryId,
        /// All files of the repository.
        files: Vec<String>,
    },
    /// A JSON file of the repository is not valid.
    #[error("{path} of {id} is not valid: {reason}")]
    Json {
        /// The repository.
        id: RepositoryId,
        /// The path of the file.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// The repository has no weights in a format that this program reads.
    #[error(
        "{id} has no weights in a supported format (model.safetensors, pytorch_model.bin, or either in parts with an index){}; \
         its files are {}",
        if .folder.is_empty() { String::new() } else { format!(" in {}", .folder) }, some(.files)
    )]
    NoWeights {
        /// The repository.
        id: RepositoryId,
        /// The folder in the repository. Empty for its root.
        folder: String,
        /// All files of the repository, or those that are weights in other formats.
        files: Vec<String>,
    },
    /// An index names a file of weights that does not exist.
    #[error("{index} of {id} names the file {shard:?}, which does not exist in the repository")]
    NoShard {
        /// The repository.
        id: RepositoryId,
        /// The path of the index.
        index: String,
        /// The name of the missing file.
        shard: String,
    },
    /// The repository contains only an adapter, such as LoRA.
    #[error("{id} contains only an adapter (LoRA or another PEFT method); its base model is {}",
        .base.as_deref().unwrap_or("not named in adapter_config.json"))]
    Adapter {
        /// The repository.
        id: RepositoryId,
        /// The base model.
        base: Option<String>,
    },
    /// The disk does not have enough space.
    #[error("{} {}, but only {} are free at {path}",
        if *.is_output { "the copy of the model needs" } else { "the download needs" }, ByteCount(*.needed), ByteCount(*.free))]
    Space {
        /// Bytes that are still to be downloaded.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The folder.
        path: PathBuf,
        /// Whether the space is needed in the output folder. Otherwise it is needed in the cache.
        is_output: bool,
    },
    /// The folder for the downloaded files contains other files.
    #[error("the model cannot be copied to {output}: {reason}")]
    OutputInUse {
        /// The folder.
        output: PathBuf,
        /// The file that differs, or does not belong to the download.
        reason: String,
    },
    /// A file could not be written to the output folder.
    #[error("cannot {what} {path}: {source}")]
    Output {
        /// The action.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The action.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The caller stopped the download.
    #[error("the download was stopped")]
    Stopped,
}

impl HubError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        let hint = match self {
            Self::Id { .. } => {
                hint!(
                    "Set ",
                    Setting::HubModelId,
                    " to a folder, or to an id such as sentence-transformers/all-MiniLM-L6-v2."
                )
            }
            Self::Revision(_) => hint!("Check ", Setting::Revision, "."),
            Self::Setting { .. } => return None,
            Self::Certificates { .. } => {
                hint!(
                    "Set ",
                    Setting::HubCaCertificates,
                    " to a file of certificates in PEM format."
                )
            }
            Self::NotCached { name, .. } => hint!(
                "Run ",
                Command::Download(Some(name.clone())),
                " on a machine with network access and the same HF_HOME, or switch off ",
                Setting::Offline,
                " (HF_HUB_OFFLINE)."
            ),
            Self::PartlyCached { name, .. } => hint!(
                "Run ",
                Command::Download(Some(name.clone())),
                " without ",
                Setting::Offline,
                " (HF_HUB_OFFLINE) to download the rest."
            ),
            Self::Damaged { name, .. } => hint!(
                "Run ",
                Command::Download(Some(name.clone())),
                " without ",
                Setting::Offline,
                " (HF_HUB_OFFLINE) to download the file again."
            ),
            Self::Unreachable { id, .. } => hint!(
                "Check the network connection, and set HTTPS_PROXY if the network needs a proxy. For a machine without network \
                 access, run ",
                Command::Download(Some(id.to_string())),
                " with ",
                Setting::Output,
                " elsewhere (or `git clone` with Git LFS), copy the folder, and set ",
                Setting::HubModelId,
                " to its path."
            ),
            Self::Untrusted { .. } => hint!(
                "If a proxy of your organization re-signs connections, set ",
                Setting::HubCaCertificates,
                " (or SSL_CERT_FILE) to its certificate."
            ),
            Self::NotAHub { .. } => {
                hint!("Check HF_ENDPOINT. The login page of a proxy may have answered.")
            }
            Self::NotFound { token: false, .. } => hint!(
                "Check the spelling of the id. For a private repository, set ",
                Setting::HubAccessToken,
                " or HF_TOKEN, or run `hf auth login`."
            ),
            Self::NotFound { token: true, .. } => hint!(
                "Check the spelling of the id, and that the account of your token is a member of the organization."
            ),
            Self::NoRevision { .. } => hint!(
                "Set ",
                Setting::Revision,
                " to a branch or tag of the repository, or to a full commit hash."
            ),
            Self::FileNotFound { .. } => {
                hint!("Check the path of the file in ", Setting::HubModelId, ".")
            }
            Self::Gated { page, token: true, .. } => {
                hint!("Request access at ", page.as_str(), ", then run again.")
            }
            Self::Gated { page, token: false, .. } => hint!(
                "Request access at ",
                page.as_str(),
                ", then set ",
                Setting::HubAccessToken,
                " or HF_TOKEN to a token of that account."
            ),
            Self::Token { stored: true, .. } => hint!(
                "Run `hf auth login` again: tokens that it stores can expire. Public models do not need a token."
            ),
            Self::Token { stored: false, .. } => hint!(
                "Create a token in the settings of your account. Public models do not need a token."
            ),
            Self::Forbidden { .. } => hint!(
                "Set ",
                Setting::HubAccessToken,
                " or HF_TOKEN to a token of an account that may read the repository."
            ),
            Self::RateLimit { token: true, .. } => hint!("Try again later."),
            Self::RateLimit { token: false, .. } => hint!(
                "Try again later, or set ",
                Setting::HubAccessToken,
                " or HF_TOKEN, which raises the limit."
            ),
            Self::Unavailable { .. } => {
                hint!("Run again later. Files that have been downloaded are kept.")
            }
            Self::NoFile { .. } => {
                hint!("Try again later, or choose another ", Setting::Revision, ".")
            }
            Self::Hostile { .. } => {
                hint!(
                    "A proxy or a mirror may change the answers. Check HTTPS_PROXY and HF_ENDPOINT."
                )
            }
            Self::Mismatch { .. } => {
                hint!("A proxy or a mirror may change the file. Check HTTPS_PROXY and HF_ENDPOINT.")
            }
            Self::NoConfig { .. } | Self::NoWeights { .. } => hint!(
                "Choose a repository with config.json and weights in one of these formats. Many authors publish one repository \
                 per format."
            ),
            Self::Json { .. } | Self::NoShard { .. } => hint!(
                "Choose another ",
                Setting::Revision,
                ", or download the repository, correct the file, and set ",
                Setting::HubModelId,
                " to the folder."
            ),
            Self::Adapter { .. } => hint!(
                "Import the base model. Or merge the adapter into it (`merge_and_unload` in PEFT), save the result, and set ",
                Setting::HubModelId,
                " to its folder."
            ),
            Self::Space { is_output: false, .. } => {
                hint!("Free some space, or set HF_HOME to a folder on another disk.")
            }
            Self::Space { is_output: true, .. } => {
                hint!(
                    "Free some space, or set ",
                    Setting::Output,
                    " or HF_HOME to a folder on another disk."
                )
            }
            Self::OutputInUse { .. } => hint!("Set ", Setting::Output, " to another folder."),
            Self::Output { .. } => {
                hint!(
                    "Check the permissions and the disk, or set ",
                    Setting::Output,
                    " to another folder."
                )
            }
            Self::Io { .. } => {
                hint!(
                    "Check the permissions and the disk. HF_HOME or HF_HUB_CACHE set the folder of the cache."
                )
            }
            Self::Stopped => {
                hint!("Run again to continue. Files that have been downloaded are kept.")
            }
        };
        Some(hint)
    }

    /// Adds the action and the path to an error of the operating system.
    pub(super) fn io<P: Into<PathBuf>>(
        what: &'static str,
        path: P,
    ) -> impl FnOnce(io::Error) -> Self + use<P> {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Adds the action and the path to an error of the operating system in the output folder.
    pub(super) fn output<P: Into<PathBuf>>(
        what: &'static str,
        path: P,
    ) -> impl FnOnce(io::Error) -> Self + use<P> {
        let path = path.into();
        move |source| Self::Output { what, path, source }
    }

    /// Whether the hub cannot be reached or does not work, so that the cache is used instead. Another server may answer in its place,
    /// such as the login page of a network.
    pub(super) fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Unavailable { .. }
                | Self::RateLimit { .. }
                | Self::NotAHub { .. }
        )
    }
}

/// Some names for a message.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
