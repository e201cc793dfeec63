//! What can go wrong between a hub id and the model's files, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::RepositoryId;
use crate::byte_count::ByteCount;
use crate::error_chain::ErrorChain;

/// Why a model cannot be had from the hub or its cache.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a folder nor an id.
    #[error(
        "{name:?} is neither a folder that exists nor a hub id ({reason}): give a folder, or an id such as \
         sentence-transformers/all-MiniLM-L6-v2"
    )]
    Id {
        /// What was given.
        name: String,
        /// Why it is no id.
        reason: &'static str,
    },
    /// Not a branch, tag or commit.
    #[error("{0:?} cannot be a revision: give a branch, a tag or a commit")]
    Revision(String),
    /// A setting of the environment.
    #[error("{name} cannot be used: {reason}")]
    Setting {
        /// The variable or option.
        name: &'static str,
        /// Why not. Holds no secret.
        reason: String,
    },
    /// The file of `--hub-ca-certs`.
    #[error(
        "no certificates can be read from {path} (--hub-ca-certs): {reason}; name a file of certificates in PEM form"
    )]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Offline, and the cache knows no such revision.
    #[error(
        "{id} at revision {revision} is not in the cache {cache}, and --offline (or HF_HUB_OFFLINE) forbids to fetch it.\n\
         Run `rust-eland download --hub-model-id {id}` where there is a network, with the same HF_HOME"
    )]
    NotCached {
        /// The repository.
        id: RepositoryId,
        /// The branch, tag or commit.
        revision: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// Offline, and the cache holds a part only.
    #[error(
        "the cache holds only a part of {id}: {reason} in {snapshot}. Fetch the rest without --offline (HF_HUB_OFFLINE), \
         or with `rust-eland download --hub-model-id {id}`"
    )]
    PartlyCached {
        /// The repository.
        id: RepositoryId,
        /// The snapshot's folder.
        snapshot: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A cached file is not what its name says.
    #[error(
        "{path} does not hold what the hub gave out under that name: it is damaged, or an error page that another tool \
         stored. Run once without --offline (HF_HUB_OFFLINE), which fetches it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No answer.
    #[error(
        "cannot reach the hub at {host}{}: {reason}\nIs there a network, or a proxy to name in HTTPS_PROXY? Where there is \
         none: fetch the model on another machine with `rust-eland download --hub-model-id {id} --output FOLDER` (or \
         `git clone` with Git LFS), copy the folder here, and give it as --hub-model-id",
        .proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
    )]
    Unreachable {
        /// Name and port.
        host: String,
        /// The proxy on the way, without user and password.
        proxy: Option<String>,
        /// What failed, to the innermost cause.
        reason: String,
        /// The repository.
        id: RepositoryId,
        /// What failed, cause by cause.
        #[source]
        cause: Box<ErrorChain>,
    },
    /// TLS does not trust the other side.
    #[error(
        "the certificate of {host} is not trusted: {reason}\nIf a proxy of your company re-signs connections, name its \
         certificate with --hub-ca-certs (or SSL_CERT_FILE)"
    )]
    Untrusted {
        /// Name and port.
        host: String,
        /// What failed.
        reason: String,
    },
    /// Something answers that is not a hub.
    #[error(
        "{host} does not answer as the hub does: {reason}\nCheck HF_ENDPOINT; the login page of a proxy may be answering"
    )]
    NotAHub {
        /// Name and port.
        host: String,
        /// How one can tell.
        reason: String,
    },
    /// 401 without a token: the hub does not tell whether there is such a repository.
    #[error(
        "the hub shows no repository {id} to the public. Either there is none (is the id spelt right?), or it is private: then \
         give a token that may read it with --hub-access-token, HF_TOKEN or `hf auth login`"
    )]
    UnknownOrPrivate {
        /// The repository.
        id: RepositoryId,
    },
    /// 404, to a valid token.
    #[error(
        "there is no repository {id} on the hub that your token may read: is the id spelt right, and is the token of a member of \
         its organization?"
    )]
    NoRepository {
        /// The repository.
        id: RepositoryId,
    },
    /// The repository is there, the revision is not.
    #[error(
        "{id} has no revision {revision}: name one of its branches or tags, or a whole commit, with --revision"
    )]
    NoRevision {
        /// The repository.
        id: RepositoryId,
        /// What was asked for.
        revision: String,
    },
    /// Access must be asked for.
    #[error(
        "access to {id} is restricted by its authors: ask for it at {page}, then {}",
        if *.token { "run again; the token that was sent does not have it yet" } else {
            "give a token of that account with --hub-access-token or HF_TOKEN; none was sent" }
    )]
    Gated {
        /// The repository.
        id: RepositoryId,
        /// Where access is asked for.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// 401 to a token.
    #[error(
        "the hub does not accept the token (from {origin}): it is revoked, expired or mistyped. Make another in the settings of \
         your account; public models need none"
    )]
    Token {
        /// Where it came from.
        origin: &'static str,
    },
    /// 403 without a reason that is known here.
    #[error(
        "the hub refuses access to {id}: {reason}\nGive a token of an account that may read it with --hub-access-token or HF_TOKEN"
    )]
    Forbidden {
        /// The repository.
        id: RepositoryId,
        /// Its own words.
        reason: String,
    },
    /// 429, for too long.
    #[error(
        "the hub goes on refusing requests because there were too many{}: {}",
        .seconds.map(|s| format!(" (come back in {s} s)")).unwrap_or_default(),
        if *.token { "try again later" } else { "try again later, or give a token (HF_TOKEN), which raises the limit" }
    )]
    RateLimit {
        /// How long it wants one to wait.
        seconds: Option<u64>,
        /// Whether a token was sent.
        token: bool,
    },
    /// 5xx and the like, again and again.
    #[error(
        "{host} cannot serve {what} just now: {reason}. Run again later; what has been fetched is kept"
    )]
    Unavailable {
        /// Name and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The answer.
        reason: String,
    },
    /// The listing has it, the download does not.
    #[error(
        "{id} lists {path}, but does not give it out: {reason}; try again later, or give another --revision"
    )]
    NoFile {
        /// The repository.
        id: RepositoryId,
        /// The file.
        path: String,
        /// The hub's words.
        reason: String,
    },
    /// Bytes that are not the file's.
    #[error(
        "what {host} sends for {path} is not the file: size or hash are not those that the hub lists, {times} times in a row. \
         A proxy or a mirror may be changing it; nothing of it was kept"
    )]
    Mismatch {
        /// The file.
        path: String,
        /// Who sent the last of it.
        host: String,
        /// How often it was fetched.
        times: u32,
    },
    /// The listing or a header holds what no hub sends.
    #[error("what {host} sends cannot be trusted: {reason}; nothing of it was used")]
    Hostile {
        /// Name and port.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository does not hold a Transformers model.
    #[error(
        "{id} holds no config.json, which every Transformers model has: give a repository that holds one; it holds {}", some(.has)
    )]
    NoConfig {
        /// The repository.
        id: RepositoryId,
        /// Its files.
        has: Vec<String>,
    },
    /// A JSON file of the repository.
    #[error(
        "{path} of {id} is not valid: {reason}; give another --revision, or a folder in which it is mended"
    )]
    Json {
        /// The repository.
        id: RepositoryId,
        /// The file.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// No weights that can be read.
    #[error(
        "{id} holds no weights that can be read (model.safetensors or pytorch_model.bin, or one in parts with its index){}; it \
         holds {}",
        if .folder.is_empty() { String::new() } else { format!(" in {}", .folder) }, some(.has)
    )]
    NoWeights {
        /// The repository.
        id: RepositoryId,
        /// The folder in it; empty for its root.
        folder: String,
        /// Its files.
        has: Vec<String>,
    },
    /// Weights in parts, of which one is not there.
    #[error(
        "{index} of {id} names the weights {shard:?}, which the repository does not hold; give another --revision"
    )]
    NoShard {
        /// The repository.
        id: RepositoryId,
        /// The index.
        index: String,
        /// The part.
        shard: String,
    },
    /// LoRA and its like.
    #[error(
        "{id} holds an adapter (LoRA or another of PEFT's) and no whole model. Its base model is {}: import that, or merge the two \
         (merge_and_unload in PEFT), save the result and give its folder",
        .base.as_deref().unwrap_or("not named in adapter_config.json")
    )]
    Adapter {
        /// The repository.
        id: RepositoryId,
        /// What it adapts.
        base: Option<String>,
    },
    /// The disk is too full.
    #[error(
        "{} are to be fetched to {path}, where {} are free: make room, or set HF_HOME to a folder on another disk",
        ByteCount(*.needed), ByteCount(*.free)
    )]
    Space {
        /// Bytes still to be fetched.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {source}. The cache is where HF_HOME or HF_HUB_CACHE say")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The work was given up from outside.
    #[error("the download was stopped; run again to go on, what has been fetched is kept")]
    Stopped,
}

impl HubError {
    pub(super) fn io<P: Into<PathBuf>>(
        what: &'static str,
        path: P,
    ) -> impl FnOnce(io::Error) -> Self + use<P> {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the hub is at fault or out of reach, so that what the cache holds is better than nothing.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::RateLimit { .. })
    }
}

/// A few names for a message.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len() {
        0 => "no files".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
