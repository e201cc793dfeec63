//! Caches of Python's huggingface_hub: `tests/hub/layout.py` lists what its releases create from the repositories of these tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ::hub::Repository;
use rust_eland::source::ModelFiles;
use rust_eland::source::hub::HubError;

use super::{Cache, asked, explained, fetch, serving};
use crate::fixtures::Fixture;
use crate::program::says;

/// The layout of files that are not in Xet, which is the layout that rust-eland writes.
const OWN: &str = include_str!("../../hub/layouts/0.36.2.txt");

/// The layouts by release. Large files are in Xet, which has a store of its own from 1.32 on.
const LAYOUTS: [(&str, &str); 5] = [
    ("0.36.2", OWN),
    ("0.36.2 with Xet", include_str!("../../hub/layouts/0.36.2-xet.txt")),
    ("1.20.1 with Xet", include_str!("../../hub/layouts/1.20.1-xet.txt")),
    ("1.32.0 with Xet", include_str!("../../hub/layouts/1.32.0-xet.txt")),
    ("2.4.0 with Xet", include_str!("../../hub/layouts/2.4.0-xet.txt")),
];

const FIXTURES: [(&str, &str); 2] = [("org/st-mean", "bert/st-mean"), ("org/base", "bert/base")];

fn repositories() -> Vec<Repository> {
    let of =
        |(id, fixture): (&str, &str)| Repository::of_folder(id, &Fixture::named(fixture).model());
    FIXTURES.map(|one| of(one).unwrap()).into()
}

/// Whether layout.py lists the text of a file.
fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let folder = path.parent().unwrap();
    ["CACHEDIR.TAG", ".huggingface-shared-blobs"].contains(&name)
        || name.ends_with(".refs")
        || folder.ends_with("refs")
        || folder.ends_with("trees")
}

/// The listing of a cache, in the format of layout.py.
fn listing(folder: &Path) -> String {
    let mut lines = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let line = if path.is_symlink() {
                format!("link {name} {}", fs::read_link(&path).unwrap().display())
            } else if path.is_dir() {
                folders.push(path.clone());
                format!("folder {name}")
            } else if is_text(&path) {
                let text = serde_json::Value::from(fs::read_to_string(&path).unwrap());
                format!("text {name} {text}")
            } else {
                format!("file {name} {}", fs::metadata(&path).unwrap().len())
            };
            lines.insert(name, line);
        }
    }
    lines.into_values().map(|line| line + "\n").collect()
}

/// Creates the cache that a listing describes.
fn recreate(layout: &str) -> Cache {
    let cache = Cache::new();
    let repositories = repositories();
    let files = repositories.iter().flat_map(|repository| repository.files.values());
    let contents: BTreeMap<String, _> = files
        .flat_map(|file| [file.etag(), file.xet_hash()].map(|name| (name, file.content.clone())))
        .collect();
    for line in layout.lines() {
        let mut parts = line.splitn(3, ' ');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let path = cache.hub().join(name);
        match kind {
            "folder" => fs::create_dir_all(&path).unwrap(),
            "link" => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(parts.next().unwrap(), &path).unwrap();
            }
            "text" => {
                let text: String = serde_json::from_str(parts.next().unwrap()).unwrap();
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, text).unwrap();
            }
            _ => {
                let content = contents.get(name.rsplit('/').next().unwrap());
                fs::write(&path, content.map_or(&b""[..], |content| content)).unwrap();
            }
        }
    }
    assert_eq!(listing(&cache.hub()), layout);
    cache
}

/// The file that holds the weights of the first repository, behind all links.
fn weights(cache: &Cache) -> PathBuf {
    let commit = repositories()[0].commit();
    let snapshot = cache.hub().join("models--org--st-mean/snapshots").join(commit);
    snapshot.join("model.safetensors").canonicalize().unwrap()
}

#[test]
fn cache_has_the_layout_of_python() {
    let hub = serving(repositories());
    let cache = Cache::new();
    for (id, _) in FIXTURES {
        fetch(cache.settings(&hub.url()), id, "main").unwrap();
    }
    assert_eq!(listing(&cache.hub()), OWN);
}

#[test]
fn cache_of_every_python_release_is_read_offline_and_online() {
    for (release, layout) in LAYOUTS {
        let cache = recreate(layout);
        let gone = "http://127.0.0.1:9";
        for (repository, (id, fixture)) in repositories().iter().zip(FIXTURES) {
            // Offline, and online without any request for a full commit hash.
            for (offline, revision) in [(true, "main"), (false, &*repository.commit())] {
                let mut settings = cache.settings(gone);
                settings.offline = offline;
                let snapshot = fetch(settings, id, revision).unwrap();
                assert_eq!(snapshot.origin.commit, repository.commit(), "{release}");
                let files = ModelFiles::open(&snapshot.folder).unwrap();
                for file in &snapshot.files {
                    let expected = fs::read(Fixture::named(fixture).model().join(file)).unwrap();
                    assert!(files.bytes(file).unwrap().unwrap() == expected, "{release} {file}");
                }
            }
            // Online, the branch and its files are listed, and no file is requested.
            let hub = serving(repositories());
            fetch(cache.settings(&hub.url()), id, "main").unwrap();
            let paths: Vec<_> = hub.requests().into_iter().map(|request| request.path).collect();
            let commit = repository.commit();
            let expected = [
                format!("/api/models/{id}/revision/main"),
                format!("/api/models/{id}/tree/{commit}?recursive=true&expand=false"),
            ];
            assert_eq!(paths, expected, "{release}");
        }
        assert_eq!(listing(&cache.hub()), layout, "{release}");
    }
}

#[test]
fn changed_byte_in_any_cache_is_refused_offline_and_replaced_online() {
    let id = FIXTURES[0].0;
    for (release, layout) in LAYOUTS {
        let cache = recreate(layout);
        let path = weights(&cache);
        assert_eq!(path.starts_with(cache.hub().join("blobs")), layout.contains(".refs"));
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut settings = cache.settings("http://127.0.0.1:9");
        settings.offline = true;
        let error = fetch(settings, id, "main").unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{release}: {error}");
        says(&explained(&error), &["model.safetensors", "is damaged", "`download org/st-mean`"]);
        let hub = serving(repositories());
        fetch(cache.settings(&hub.url()), id, "main").unwrap();
        assert_eq!(asked(&hub, "/resolve/").len(), 1, "{release}");
        // The damaged file of the shared store is not overwritten, because other repositories may use it.
        let replaced = weights(&cache);
        assert!(
            replaced.ends_with(format!(
                "blobs/{}",
                repositories()[0].files["model.safetensors"].etag()
            ))
        );
        let is_shared = path != replaced;
        assert_eq!(is_shared, layout.contains(".refs"));
        assert!(!is_shared || fs::read(&path).unwrap() == bytes);
        let mut settings = cache.settings("http://127.0.0.1:9");
        settings.offline = true;
        fetch(settings, id, "main").unwrap();
    }
}

#[test]
fn blob_that_links_out_of_the_cache_is_refused() {
    let (_, layout) = LAYOUTS[4];
    let id = FIXTURES[0].0;
    let elsewhere = tempfile::tempdir().unwrap();
    let content = &repositories()[0].files["model.safetensors"];
    // The right bytes at a wrong place, and a link within the cache that is not an entry of the store.
    let hash = content.xet_hash();
    let outside = elsewhere.path().join(&hash);
    fs::write(&outside, &content.content).unwrap();
    for target in [outside.clone(), PathBuf::from(format!("../../blobs/{hash}"))] {
        let cache = recreate(layout);
        fs::write(cache.hub().join("blobs").join(&hash), &content.content).unwrap();
        let blob = cache.hub().join("models--org--st-mean/blobs").join(content.etag());
        fs::remove_file(&blob).unwrap();
        symlink(&target, &blob).unwrap();
        let mut settings = cache.settings("http://127.0.0.1:9");
        settings.offline = true;
        let error = fetch(settings, id, "main").unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        let hub = serving(repositories());
        fetch(cache.settings(&hub.url()), id, "main").unwrap();
        assert!(!blob.is_symlink());
        assert!(fs::read(&outside).unwrap() == content.content);
    }
}

#[test]
fn stored_listing_reveals_missing_files_offline() {
    let (_, layout) = LAYOUTS[4];
    for file in ["modules.json", "tokenizer_config.json", "1_Pooling/config.json"] {
        let cache = recreate(layout);
        let repository = cache.hub().join("models--org--st-mean");
        let snapshot = repository.join("snapshots").join(repositories()[0].commit());
        fs::remove_file(snapshot.join(file)).unwrap();
        let mut settings = cache.settings("http://127.0.0.1:9");
        settings.offline = true;
        let error = fetch(settings, FIXTURES[0].0, "main").unwrap_err();
        assert!(matches!(error, HubError::PartlyCached { .. }), "{file}: {error}");
        says(&error.to_string(), &[file, "is missing"]);
    }
}
