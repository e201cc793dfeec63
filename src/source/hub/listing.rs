//! The files of a repository at a commit, as the hub lists them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::client::HubClient;
use super::digest::Digest;
use super::id::is_inside;
use super::settings::host;
use super::{Commit, HubError, RepositoryId, Revision};

/// Size and hash of a file of a repository.
#[derive(Debug, Clone)]
pub(super) struct RepositoryFile {
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
    /// git's name of the LFS pointer, for files in LFS.
    pub pointer: Option<String>,
}

impl RepositoryFile {
    /// Whether the file at a path has this size and hash.
    pub(super) fn is(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() == self.size)
            && self.digest.matches(path).unwrap_or(false)
    }
}

/// The files of a repository, by path.
pub(super) type Listing = BTreeMap<String, RepositoryFile>;

#[derive(Deserialize)]
struct Info {
    sha: String,
}

/// An element of the tree. The other call that lists files (`?blobs=true`) names the hash `sha256`.
#[derive(Deserialize)]
struct Node {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    oid: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "sha256")]
    oid: String,
    size: u64,
}

/// The commit of a revision.
pub(super) async fn resolve(
    client: &HubClient,
    id: &RepositoryId,
    revision: &Revision,
) -> Result<Commit, HubError> {
    if let Some(commit) = Commit::parse(revision.as_str()) {
        return Ok(commit);
    }
    let settings = client.settings();
    let mut parts = vec!["api", "models"];
    parts.extend(id.as_str().split('/'));
    parts.extend(["revision", revision.as_str()]);
    let (info, _) = client.json::<Info>(settings.url(&parts), id, revision.as_str()).await?;
    let hostile = || HubError::Hostile {
        host: host(&settings.endpoint),
        reason: "the commit in its answer is not a commit hash".into(),
    };
    Commit::parse(&info.sha).ok_or_else(hostile)
}

/// The files of a commit.
pub(super) async fn list(
    client: &HubClient,
    id: &RepositoryId,
    commit: &Commit,
) -> Result<Listing, HubError> {
    /// A page has about 1,000 entries, so this is far more than any model has.
    const MAX_PAGES: usize = 200;
    /// How many unsafe names are shown.
    const SHOWN: usize = 5;
    let settings = client.settings();
    let hostile = |reason: String| HubError::Hostile { host: host(&settings.endpoint), reason };
    let mut parts = vec!["api", "models"];
    parts.extend(id.as_str().split('/'));
    parts.extend(["tree", commit.as_str()]);
    let mut url = settings.url(&parts);
    url.set_query(Some("recursive=true&expand=false"));
    let mut listing = Listing::new();
    let mut unsafe_names = 0;
    for _ in 0..MAX_PAGES {
        let (nodes, next) = client.json::<Vec<Node>>(url, id, commit.as_str()).await?;
        for node in nodes.into_iter().filter(|node| node.kind == "file") {
            // No model needs a file with such a name, and the name must not become a path.
            if !is_inside(&node.path) {
                unsafe_names += 1;
                if unsafe_names <= SHOWN {
                    tracing::warn!("ignoring {:?} in the listing of {id}: unsafe name", node.path);
                }
                continue;
            }
            let (name, size, pointer) = match node.lfs {
                Some(lfs) => (Some(lfs.oid), Some(lfs.size), node.oid),
                None => (node.oid, node.size, None),
            };
            let digest = name.as_deref().and_then(Digest::parse);
            let (Some(digest), Some(size)) = (digest, size) else {
                let reason = format!("it lists {} without a size or a valid hash", node.path);
                return Err(hostile(reason));
            };
            let file = RepositoryFile { size, digest, pointer };
            if listing.insert(node.path.clone(), file).is_some() {
                return Err(hostile(format!("it lists {} twice", node.path)));
            }
        }
        let Some(next) = next else {
            if unsafe_names > SHOWN {
                tracing::warn!(
                    "ignored {unsafe_names} files with unsafe names in the listing of {id}"
                );
            }
            return Ok(listing);
        };
        // The token is sent along, and the pages belong together.
        if !settings.is_hub(&next) {
            return Err(hostile("its listing continues on another host".into()));
        }
        url = next;
    }
    Err(hostile("its listing has too many pages".into()))
}
