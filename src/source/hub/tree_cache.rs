//! Listings of commits that huggingface_hub 1.22 and later stores in `trees/COMMIT.json`, format version 1.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::id::is_inside;
use super::listing::{Listing, RepositoryFile};

/// A listing of a thousand files has some 300 kB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize, Serialize)]
struct StoredTree {
    format_version: u64,
    files: BTreeMap<String, StoredFile>,
}

#[derive(Deserialize, Serialize)]
struct StoredFile {
    size: u64,
    blob_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
}

/// Reads a stored listing. Returns `None` if the listing is missing or malformed.
pub(super) fn read(path: &Path) -> Option<Listing> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let listing = parse(&bytes);
    if listing.is_none() {
        tracing::debug!("{} is not a listing in a known format", path.display());
    }
    listing
}

fn parse(bytes: &[u8]) -> Option<Listing> {
    let tree: StoredTree = serde_json::from_slice(bytes).ok()?;
    (tree.format_version == 1).then_some(())?;
    let file = |(path, file): (String, StoredFile)| {
        let (size, hash, pointer) = match (file.lfs_sha256, file.lfs_size) {
            (Some(sha256), Some(size)) => (size, sha256, Some(file.blob_id)),
            _ => (file.size, file.blob_id, None),
        };
        let digest = Digest::parse(&hash)?;
        is_inside(&path).then_some((path, RepositoryFile { size, digest, pointer }))
    };
    tree.files.into_iter().map(file).collect()
}

/// A listing in the format of huggingface_hub, without hashes of Xet.
pub(super) fn text(listing: &Listing) -> String {
    let stored = |(path, file): (&String, &RepositoryFile)| {
        let hash = file.digest.as_str().to_owned();
        let file = match &file.digest {
            Digest::GitBlob(_) => {
                StoredFile { size: file.size, blob_id: hash, lfs_sha256: None, lfs_size: None }
            }
            Digest::Sha256(_) => StoredFile {
                size: file.size,
                blob_id: file.pointer.clone().unwrap_or_default(),
                lfs_sha256: Some(hash),
                lfs_size: Some(file.size),
            },
        };
        (path.clone(), file)
    };
    let tree = StoredTree { format_version: 1, files: listing.iter().map(stored).collect() };
    // Maps with text as keys are always valid JSON.
    serde_json::to_string(&tree).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_listing_gives_sizes_and_hashes() {
        let (sha1, sha256) = ("a".repeat(40), "b".repeat(64));
        let text = format!(
            r#"{{"format_version": 1, "files": {{
                "config.json": {{"size": 5, "blob_id": "{sha1}"}},
                "1_Pooling/model.bin": {{"size": 130, "blob_id": "{sha1}", "lfs_sha256": "{sha256}", "lfs_size": 7, "xet_hash": "x"}}}}}}"#
        );
        let listing = parse(text.as_bytes()).unwrap();
        let file = |path: &str| (listing[path].size, listing[path].digest.as_str().to_owned());
        assert_eq!(file("config.json"), (5, sha1.clone()));
        assert_eq!(file("1_Pooling/model.bin"), (7, sha256));
        let written = super::text(&listing);
        assert_eq!(super::text(&parse(written.as_bytes()).unwrap()), written);
        let fields: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(fields["files"]["1_Pooling/model.bin"]["blob_id"], sha1);
        for other in [
            text.replace("format_version\": 1", "format_version\": 2"),
            text.replace("config.json", "../config.json"),
            text.replace(&sha1, "main"),
            "[]".to_owned(),
        ] {
            assert!(parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}
