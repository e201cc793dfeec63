//! Listings of commits that huggingface_hub 1.22 and later stores in `trees/COMMIT.json`, format version 1.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::digest::Digest;
use super::id::is_inside;
use super::listing::{Listing, RepositoryFile};

/// A listing of a thousand files has some 300 kB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct StoredTree {
    format_version: u64,
    files: BTreeMap<String, StoredFile>,
}

#[derive(Deserialize)]
struct StoredFile {
    size: u64,
    blob_id: String,
    lfs_sha256: Option<String>,
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
        let (size, hash) = match (file.lfs_sha256, file.lfs_size) {
            (Some(sha256), Some(size)) => (size, sha256),
            _ => (file.size, file.blob_id),
        };
        let digest = Digest::parse(&hash)?;
        is_inside(&path).then_some((path, RepositoryFile { size, digest }))
    };
    tree.files.into_iter().map(file).collect()
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
