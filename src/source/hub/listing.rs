//! What a repository holds at a commit.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::Client;
use super::digest::Digest;
use super::id::is_inside;
use super::settings::host;
use super::{Commit, HubError, RepositoryId, Revision};

/// A file of a repository.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Bytes.
    pub size: u64,
    pub digest: Digest,
}

/// The files of a repository, by path.
pub(super) type Listing = BTreeMap<String, Entry>;

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

/// The commit that a revision is.
pub(super) async fn resolve(
    client: &Client,
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
    Commit::parse(&info.sha).ok_or_else(|| HubError::Hostile {
        host: host(&settings.endpoint),
        reason: "the commit that it names is none".into(),
    })
}

/// Lists a commit's files.
pub(super) async fn list(
    client: &Client,
    id: &RepositoryId,
    commit: &Commit,
) -> Result<Listing, HubError> {
    /// Of some 1,000 entries each: far more than any model has.
    const MAX_PAGES: usize = 200;
    let settings = client.settings();
    let hostile = |reason: String| HubError::Hostile { host: host(&settings.endpoint), reason };
    let mut parts = vec!["api", "models"];
    parts.extend(id.as_str().split('/'));
    parts.extend(["tree", commit.as_str()]);
    let mut url = settings.url(&parts);
    url.set_query(Some("recursive=true&expand=false"));
    let mut listing = Listing::new();
    for _ in 0..MAX_PAGES {
        let (nodes, next) = client.json::<Vec<Node>>(url, id, commit.as_str()).await?;
        for node in nodes.into_iter().filter(|node| node.kind == "file") {
            // Nothing that the job needs has such a name; it must not come to a path, either.
            if !is_inside(&node.path) {
                tracing::warn!(
                    "left out of the listing of {id}: {:?}, which is no name",
                    node.path
                );
                continue;
            }
            let (name, size) = match node.lfs {
                Some(lfs) => (Some(lfs.oid), Some(lfs.size)),
                None => (node.oid, node.size),
            };
            let digest = name.as_deref().and_then(Digest::parse);
            let (Some(digest), Some(size)) = (digest, size) else {
                return Err(hostile(format!(
                    "it lists {} without a size or a valid hash",
                    node.path
                )));
            };
            if listing.insert(node.path.clone(), Entry { size, digest }).is_some() {
                return Err(hostile(format!("it lists {} twice", node.path)));
            }
        }
        let Some(next) = next else { return Ok(listing) };
        // The token goes along, and the pages are one listing.
        if !settings.is_endpoint(&next) {
            return Err(hostile("its listing goes on at another host".into()));
        }
        url = next;
    }
    Err(hostile("its listing does not end".into()))
}
