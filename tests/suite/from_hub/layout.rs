//! The cache's layout is Python's: `tests/hub/layout.txt` is what huggingface_hub makes of the same repositories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ::hub::{Hub, Repository};

use super::{Cache, fetch, serving};
use crate::fixtures::Fixture;

const LAYOUT: &str = include_str!("../../hub/layout.txt");
const FIXTURES: [(&str, &str); 2] = [("org/st-mean", "bert/st-mean"), ("org/base", "bert/base")];

fn repositories() -> Vec<Repository> {
    let of =
        |(id, fixture): (&str, &str)| Repository::of_folder(id, &Fixture::named(fixture).model());
    FIXTURES.map(|one| of(one).unwrap()).into()
}

/// As layout.py writes it.
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
            } else if path.parent().unwrap().ends_with("refs") {
                format!("ref {name} {}", fs::read_to_string(&path).unwrap())
            } else {
                format!("file {name} {}", fs::metadata(&path).unwrap().len())
            };
            lines.insert(name, line);
        }
    }
    lines.into_values().map(|line| line + "\n").collect()
}

/// Makes the cache that the listing describes.
fn recreate(folder: &Path) {
    let repositories = repositories();
    let files = repositories.iter().flat_map(|repository| repository.files.values());
    let contents: BTreeMap<String, _> =
        files.map(|file| (file.etag(), file.content.clone())).collect();
    for line in LAYOUT.lines() {
        let mut parts = line.split(' ');
        let (kind, name) = (parts.next().unwrap(), parts.next().unwrap());
        let path = folder.join(name);
        match kind {
            "folder" => fs::create_dir_all(&path).unwrap(),
            "link" => symlink(parts.next().unwrap(), &path).unwrap(),
            "ref" => fs::write(&path, parts.next().unwrap()).unwrap(),
            _ if name.contains("/blobs/") => {
                fs::write(&path, &contents[name.rsplit('/').next().unwrap()]).unwrap();
            }
            _ => fs::write(&path, "").unwrap(),
        }
    }
}

#[test]
fn the_cache_is_laid_out_as_python_does() {
    let hub = serving(repositories());
    let cache = Cache::new();
    for (id, _) in FIXTURES {
        fetch(cache.settings(&hub.url()), id, "main").unwrap();
    }
    assert_eq!(listing(&cache.hub()), LAYOUT);
}

#[test]
fn a_cache_that_python_wrote_is_read() {
    let cache = Cache::new();
    recreate(&cache.hub());
    assert_eq!(listing(&cache.hub()), LAYOUT);
    let gone = "http://127.0.0.1:9";
    for (repository, (id, fixture)) in repositories().iter().zip(FIXTURES) {
        // Offline; and for a whole commit online as well, without a single request.
        for (offline, revision) in [(true, "main"), (false, &*repository.commit())] {
            let mut settings = cache.settings(gone);
            settings.offline = offline;
            let snapshot = fetch(settings, id, revision).unwrap();
            assert_eq!(snapshot.origin.commit, repository.commit());
            for file in &snapshot.files {
                let expected = fs::read(Fixture::named(fixture).model().join(file)).unwrap();
                assert!(fs::read(snapshot.folder.join(file)).unwrap() == expected, "{file}");
            }
        }
        // Online the branch is asked for, and no file.
        let hub: Hub = serving(repositories());
        fetch(cache.settings(&hub.url()), id, "main").unwrap();
        let paths: Vec<_> = hub.requests().into_iter().map(|request| request.path).collect();
        let expected = [
            format!("/api/models/{id}/revision/main"),
            format!("/api/models/{id}/tree/{}?recursive=true&expand=false", repository.commit()),
        ];
        assert_eq!(paths, expected);
    }
    assert_eq!(listing(&cache.hub()), LAYOUT);
}
