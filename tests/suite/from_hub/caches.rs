//! Complete, incomplete, damaged and hostile caches.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(feature = "torch")]
use ::hub::{Hub, Options, Repository};
use rust_eland::source::hub::{HubError, verify_snapshot};

use super::{Cache, ID, NEEDED, asked, explained, fetch, noise, repository, serving};
use crate::program::{message, says};

const WEIGHTS: &str = "model.safetensors";

fn filled() -> Cache {
    let cache = Cache::new();
    cache.fetch(&serving([repository()])).unwrap();
    cache
}

#[test]
fn damaged_blob_is_downloaded_again_online_and_refused_offline() {
    for (file, content) in [
        // An error page that another tool has stored, and other bytes of the right length.
        (WEIGHTS, b"<html>503</html>".to_vec()),
        (WEIGHTS, noise(99, 300_000)),
        ("vocab.txt", noise(99, 30_000)),
    ] {
        let cache = filled();
        let blob = cache.blob(&repository().files[file].etag());
        fs::write(&blob, content).unwrap();
        let error = cache.fetch_offline("main").unwrap_err();
        assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        says(&explained(&error), &[file, "is damaged", "`offline`"]);
        let hub = serving([repository()]);
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        assert_eq!(asked(&hub, "/resolve/").len(), 1);
        cache.fetch_offline("main").unwrap();
    }
}

#[test]
fn link_out_of_the_cache_is_not_followed() {
    let cache = filled();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(elsewhere.path(), "secret of another program").unwrap();
    for target in [elsewhere.path(), Path::new("../../refs/main"), Path::new("../../blobs/none")] {
        let pointer = cache.snapshot(&repository().commit()).join("vocab.txt");
        fs::remove_file(&pointer).unwrap();
        std::os::unix::fs::symlink(target, &pointer).unwrap();
        let out = tempfile::tempdir().unwrap();
        let output = cache
            .program("http://127.0.0.1:9")
            .args(["download", "--offline", "--hub-model-id", ID, "--output"])
            .arg(out.path().join("model"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "{}", message(&output));
        assert!(fs::read_dir(out.path()).unwrap().next().is_none());
    }
    cache.fetch(&serving([repository()])).unwrap();
    cache.holds(&repository());
    assert_eq!(fs::read_to_string(elsewhere.path()).unwrap(), "secret of another program");
}

#[test]
fn incomplete_snapshot_is_refused_offline_and_completed_online() {
    for (file, reason) in [
        (WEIGHTS, "weights in a supported format"),
        ("config.json", "config.json is missing"),
        ("vocab.txt", "a vocabulary"),
    ] {
        let cache = filled();
        fs::remove_file(cache.snapshot(&repository().commit()).join(file)).unwrap();
        let error = cache.fetch_offline("main").unwrap_err();
        assert!(matches!(error, HubError::PartlyCached { .. }), "{error}");
        says(&explained(&error), &[reason, "`offline`"]);
        // The blob still exists.
        let hub = serving([repository()]);
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        assert!(asked(&hub, "/resolve").is_empty());
    }
    let error = Cache::new().fetch_offline("main").unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");
    says(&explained(&error), &[ID, "main", "offline", "`download org/model`"]);
    let cache = filled();
    for revision in ["v1", &"0".repeat(40)] {
        assert!(matches!(cache.fetch_offline(revision), Err(HubError::NotCached { .. })));
    }
    // The file of a branch that does not hold a commit is ignored.
    let reference = cache.hub().join("models--org--model/refs/main");
    fs::write(reference, "../../../../etc").unwrap();
    assert!(matches!(cache.fetch_offline("main"), Err(HubError::NotCached { .. })));
}

#[test]
fn missing_shard_is_named_offline() {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let mut parts = repository()
        .file("model.safetensors.index.json", index)
        .large("model-1.safetensors", noise(20, 1000))
        .large("model-2.safetensors", noise(21, 1000))
        .large("model-3.safetensors", noise(22, 1000));
    parts.files.remove(WEIGHTS);
    let cache = Cache::new();
    let hub = serving([parts.clone()]);
    let snapshot = cache.fetch(&hub).unwrap();
    assert_eq!(snapshot.files.len(), 5);
    assert!(asked(&hub, "model-3").is_empty() && asked(&hub, "pytorch_model").is_empty());
    cache.fetch_offline("main").unwrap();
    fs::remove_file(snapshot.folder.join("model-2.safetensors")).unwrap();
    let error = cache.fetch_offline("main").unwrap_err();
    assert!(matches!(error, HubError::PartlyCached { .. }), "{error}");
    says(&error.to_string(), &["model-2.safetensors"]);
}

#[test]
fn complete_cache_replaces_a_hub_that_fails() {
    let cache = filled();
    for hub in [None, Some(serving([repository()]))] {
        let mut url = "http://127.0.0.1:9".to_owned();
        if let Some(hub) = &hub {
            hub.inject(::hub::Fault::hub("", usize::MAX, ::hub::Break::status(503, &[])));
            url = hub.url();
        }
        let snapshot = fetch(cache.settings(&url), ID, "main").unwrap();
        assert_eq!(snapshot.origin.commit, repository().commit());
    }
    // The login page of a network, sent in place of the hub's answer, or at an address to which it redirects.
    let location = [("Location", "http://login.example/")];
    for page in [::hub::Break::status(200, &[]), ::hub::Break::status(302, &location)] {
        let hub = serving([repository()]);
        hub.inject(::hub::Fault::hub("", usize::MAX, page));
        cache.fetch(&hub).unwrap();
        assert!(matches!(Cache::new().fetch(&hub), Err(HubError::NotAHub { .. })));
    }
    let error = fetch(Cache::new().settings("http://127.0.0.1:9"), ID, "main").unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    says(&explained(&error), &["127.0.0.1:9", "git clone", "LFS", "`output`", "HTTPS_PROXY"]);
}

#[cfg_attr(not(feature = "torch"), ignore = "imports a model with libtorch")]
#[test]
fn complete_cache_costs_an_unresponsive_hub_one_request() {
    let cache = filled();
    for path in ["/revision/", "/tree/"] {
        let hub = serving([repository()]);
        hub.inject(::hub::Fault::hub(path, usize::MAX, ::hub::Break::Silence));
        let mut settings = cache.settings(&hub.url());
        settings.listing_timeout = Duration::from_millis(500);
        let begun = Instant::now();
        let snapshot = fetch(settings, ID, "main").unwrap();
        // The default timeouts would take 150 s.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(snapshot.origin.commit, repository().commit());
        assert_eq!(asked(&hub, path).len(), 1);
    }
    // The variable sets the timeout, and the user is warned.
    let hub = serving([repository()]);
    hub.inject(::hub::Fault::hub("", usize::MAX, ::hub::Break::Silence));
    let output = cache
        .program(&hub.url())
        .args(["download", "--hub-model-id", ID])
        .env("HF_HUB_ETAG_TIMEOUT", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    says(
        &message(&output),
        &["no answer within 1 s", "using the cached files", &repository().commit()],
    );
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn damaged_cache_does_not_replace_a_hub_that_fails_once() {
    let cache = filled();
    fs::write(cache.blob(&repository().files[WEIGHTS].etag()), noise(99, 300_000)).unwrap();
    let hub = serving([repository()]);
    hub.inject(::hub::Fault::hub("/revision/", 1, ::hub::Break::status(503, &[])));
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
}

#[cfg_attr(not(feature = "torch"), ignore = "imports a model with libtorch")]
#[test]
fn disabled_links_give_a_snapshot_of_files() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    let run = |arguments: &[&str]| {
        let mut program = cache.program(&hub.url());
        program.env("HF_HUB_DISABLE_SYMLINKS", "1").args(["download", "--hub-model-id", ID]);
        let output = program.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
    };
    run(&[]);
    let snapshot = cache.snapshot(&repository().commit());
    for name in NEEDED {
        let path = snapshot.join(name);
        assert!(!path.is_symlink());
        assert!(fs::read(&path).unwrap() == repository().files[name].content);
    }
    // The weights exist once: the blob was moved.
    assert!(!cache.blob(&repository().files[WEIGHTS].etag()).exists());
    hub.forget();
    run(&[]);
    run(&["--offline"]);
    assert!(asked(&hub, "/resolve").is_empty());
}

#[test]
fn changed_byte_is_found_offline_without_links_too() {
    let cache = Cache::new();
    let hub = serving([repository()]);
    let mut settings = cache.settings(&hub.url());
    settings.links = false;
    let snapshot = fetch(settings, ID, "main").unwrap();
    cache.fetch_offline("main").unwrap();
    let path = snapshot.folder.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = cache.fetch_offline("main").unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
}

#[test]
fn changed_byte_in_a_snapshot_folder_is_refused() {
    let cache = filled();
    let verified = |folder: &Path| super::runtime().block_on(verify_snapshot(folder));
    let snapshot = cache.snapshot(&repository().commit());
    verified(&snapshot).unwrap();
    let blob = cache.blob(&repository().files["vocab.txt"].etag());
    fs::write(&blob, noise(99, 30_000)).unwrap();
    let error = verified(&snapshot).unwrap_err();
    let advice = format!("`download org/model@{}`", repository().commit());
    says(&explained(&error), &["vocab.txt is damaged", &advice]);
    // Nothing records what another folder should contain.
    let copy = cache.home().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in NEEDED {
        fs::copy(snapshot.join(name), copy.join(name)).unwrap();
    }
    verified(&copy).unwrap();
}

#[test]
fn preview_does_not_need_the_model_card() {
    let cache = filled();
    let card = cache.snapshot(&repository().commit()).join("README.md");
    fs::remove_file(fs::canonicalize(&card).unwrap()).unwrap();
    fs::remove_file(card).unwrap();
    let hub = serving([repository()]);
    hub.inject(::hub::Fault::hub("README.md", usize::MAX, ::hub::Break::status(404, &[])));
    let preview = super::runtime().block_on(async {
        let (id, revision) = (ID.parse().unwrap(), "main".parse().unwrap());
        let client = rust_eland::source::hub::Hub::new(cache.settings(&hub.url())).unwrap();
        client.plan(&id, &revision).await?.preview().await
    });
    assert!(preview.unwrap().weights.is_none());
    assert!(!asked(&hub, "README.md").is_empty());
}

#[test]
fn moved_branch_is_followed() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    let newer = repository().file("vocab.txt", noise(30, 100));
    hub.replace(newer.clone());
    hub.forget();
    cache.fetch(&hub).unwrap();
    cache.holds(&newer);
    cache.holds(&repository());
    // A file that both commits have is downloaded once.
    assert!(asked(&hub, WEIGHTS).is_empty() && !asked(&hub, "vocab.txt").is_empty());
    assert_eq!(cache.fetch_offline("main").unwrap().origin.commit, newer.commit());
    let older = cache.fetch_offline(&repository().commit()).unwrap();
    assert_eq!(older.origin.commit, repository().commit());
}

#[test]
fn snapshot_without_links_is_used() {
    // The layout that Python creates on file systems without links.
    let cache = Cache::new();
    let snapshot = cache.snapshot(&repository().commit());
    fs::create_dir_all(&snapshot).unwrap();
    for name in NEEDED {
        fs::write(snapshot.join(name), &repository().files[name].content).unwrap();
    }
    let hub = serving([repository()]);
    cache.fetch(&hub).unwrap();
    assert!(asked(&hub, "/resolve").is_empty());
    cache.fetch_offline("main").unwrap();
    // A file that differs from the listing is replaced.
    fs::write(snapshot.join("vocab.txt"), "other").unwrap();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
}

#[test]
fn link_to_a_wrong_blob_is_corrected() {
    let cache = filled();
    let pointer = cache.snapshot(&repository().commit()).join("vocab.txt");
    fs::remove_file(&pointer).unwrap();
    let other = Path::new("../../blobs").join(repository().files["config.json"].etag());
    std::os::unix::fs::symlink(other, &pointer).unwrap();
    cache.fetch(&serving([repository()])).unwrap();
    cache.holds(&repository());
}

#[test]
fn files_with_equal_content_are_one_blob() {
    let same = noise(40, 10_000);
    let repository = repository()
        .file("added_tokens.json", "{}")
        .file("special_tokens_map.json", "{}")
        .file("merges.txt", "")
        .large(WEIGHTS, same.clone())
        .large("2_Dense/model.safetensors", same)
        .file("2_Dense/config.json", "{}")
        .file("modules.json", r#"[{"path": ""}, {"path": "2_Dense"}]"#);
    let hub = serving([repository.clone()]);
    let cache = Cache::new();
    let snapshot = cache.fetch(&hub).unwrap();
    for file in &snapshot.files {
        assert!(fs::read(snapshot.folder.join(file)).unwrap() == repository.files[file].content);
    }
    let sha256 = repository.files[WEIGHTS].sha256();
    assert_eq!(asked(&hub, &sha256).len(), 1);
    // An empty file needs no request.
    assert!(asked(&hub, "merges.txt").is_empty());
}

#[test]
fn complete_read_only_cache_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let cache = filled();
    let folder = cache.hub().join("models--org--model");
    let modes = |mode| {
        for path in [&folder, &folder.join("refs"), &folder.join("blobs"), &cache.hub()] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    modes(0o555);
    let online = cache.fetch(&serving([repository()]));
    let offline = cache.fetch_offline("main");
    modes(0o755);
    online.unwrap();
    offline.unwrap();
}

#[test]
fn cache_that_cannot_be_written_is_named() {
    let cache = Cache::new();
    fs::write(cache.home().join("hub"), "a file where the folder should be").unwrap();
    let hub = serving([repository()]);
    let output = cache.download(&hub, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["cannot create the folder", "HF_HOME"]);
}

#[cfg(feature = "torch")]
#[test]
fn fixture_from_the_hub_equals_its_folder() {
    use crate::fixtures::Fixture;
    use rust_eland::conversion::{Conversion, Options as Choice};
    use rust_eland::source::ModelFiles;

    let id = |fixture: &Fixture| format!("org/{}", fixture.name.replace('/', "."));
    // Fixtures of a family with the same files are downloaded alike.
    let mut layouts = std::collections::BTreeSet::new();
    let (mut fixtures, mut repositories) = (Vec::new(), Vec::new());
    for fixture in Fixture::all() {
        let repository = Repository::of_folder(&id(&fixture), &fixture.model()).unwrap();
        let family = fixture.name.split('/').next().map(str::to_owned);
        let files: Vec<String> = repository.files.keys().cloned().collect();
        if layouts.insert((family, files)) {
            fixtures.push(fixture);
            repositories.push(repository);
        }
    }
    let hub = Hub::start(Options { repositories, ..Options::default() });
    let cache = Cache::new();
    for fixture in &fixtures {
        let snapshot = fetch(cache.settings(&hub.url()), &id(fixture), "main").unwrap();
        let read = |folder: &Path| {
            let task = fixture.tasks().into_iter().next();
            let files = ModelFiles::open(folder).unwrap();
            let mut options = Choice::default();
            options.task = task;
            let progress = rust_eland::observer::Progress::quiet();
            let conversion = Conversion::read(&files, options, &progress).unwrap();
            let vocabulary = serde_json::to_value(&conversion.tokenizer().vocabulary).unwrap();
            let facts = (conversion.max_sequence_length(), conversion.parameter_bytes());
            (vocabulary, facts, conversion.notes().to_vec())
        };
        assert!(read(&snapshot.folder) == read(&fixture.model()), "{}", fixture.name);
    }
}
