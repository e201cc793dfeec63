//! The program from the hub to the cluster, as a user runs it.

use std::fs;
use std::io::Read;
use std::process::Command;

use ::hub::{Hub, Options, Repository};
use serde_json::{Value, json};
use standin::StandIn;

use super::{Cache, ID, asked, files_below, repository, serving};
use crate::fixtures::Fixture;
use crate::program::{ask, message, message_without_tokenizer_warnings, program, says};

const ST: &str = "sentence-transformers/tiny-mean";

fn tiny() -> Repository {
    Repository::of_folder(ST, &Fixture::named("bert/st-mean").model()).unwrap().revision("v1")
}

fn import(cache: &Cache, endpoint: &str, standin: &StandIn, id: &str) -> Command {
    let mut program = cache.program(endpoint);
    program.args(["import", "--url", &standin.url(), "--hub-model-id", id]);
    program
}

#[test]
fn model_is_imported_from_the_hub_and_offline_from_the_cache() {
    let hub = serving([tiny()]);
    let standin = StandIn::start(standin::Options::default());
    let cache = Cache::new();
    let output = import(&cache, &hub.url(), &standin, ST).arg("--start").output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let id = "sentence-transformers__tiny-mean";
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id} started\n"));
    let commit = tiny().commit();
    // The log announces the download, and then reports each file.
    let log = message(&output);
    says(&log, &["downloading", "model.safetensors (90", ST, &commit, "model.safetensors: 90"]);
    assert!(log.find("downloading").unwrap() < log.find("model.safetensors: 90").unwrap());
    let described = |standin: &StandIn, id: &str| {
        let config = standin.configuration(id).unwrap();
        assert_eq!(config["metadata"]["hub_model_id"], ST);
        assert_eq!(config["metadata"]["hub_commit"], commit);
        assert_eq!(config["description"], format!("Model {ST} for task type 'text_embedding'"));
        fs::read(standin.definition(id).unwrap()).unwrap()
    };
    let definition = described(&standin, id);
    let body = json!({"docs": [{"text_field": "a test"}]});
    let path = format!("/_ml/trained_models/{id}/_infer");
    assert_eq!(ask(&standin, "POST", &path, Some(&body)).0, 200);
    // The folder of the fixture gives the same graph.
    let folder = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "folder", "--hub-model-id"])
        .arg(Fixture::named("bert/st-mean").model())
        .output()
        .unwrap();
    assert!(folder.status.success());
    assert!(fs::read(standin.definition("folder").unwrap()).unwrap() == definition);
    let metadata = &standin.configuration("folder").unwrap()["metadata"];
    assert!(metadata.get("hub_model_id").is_none());

    let endpoint = hub.url();
    drop(hub);
    let flag = ["--offline", "--clear-previous"];
    let offline = import(&cache, &endpoint, &standin, ST).args(flag).output().unwrap();
    assert!(offline.status.success(), "{}", message(&offline));
    assert!(described(&standin, id) == definition);
    let variable = import(&cache, &endpoint, &standin, &format!("{ST}@{commit}"))
        .args(["--es-model-id", "again"])
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(variable.status.success(), "{}", message(&variable));
    assert!(described(&standin, "again") == definition);
    // The path of the snapshot folder contains the id and the commit too.
    let snapshot =
        cache.hub().join("models--sentence-transformers--tiny-mean/snapshots").join(&commit);
    let folder = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "snapshot", "--hub-model-id"])
        .arg(&snapshot)
        .output()
        .unwrap();
    assert!(folder.status.success(), "{}", message(&folder));
    let config = standin.configuration("snapshot").unwrap();
    assert_eq!(config["metadata"]["hub_commit"], commit);
    assert_eq!(config["metadata"]["hub_model_id"], ST);
    // A cache without the model is an error.
    let other = Cache::new();
    let output = import(&other, &endpoint, &standin, ST)
        .args(["--offline", "--es-model-id", "none"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["not in the cache", ST]);
}

#[test]
fn exported_bundle_records_the_commit() {
    let hub = serving([tiny()]);
    let (cache, out) = (Cache::new(), tempfile::tempdir().unwrap());
    let export = |id: &str, arguments: &[&str]| -> Value {
        let output = cache
            .program(&hub.url())
            .args(["export", "--es-model-id", "m", "--hub-model-id", id, "--output"])
            .arg(out.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        serde_json::from_slice(&fs::read(out.path().join("m.metadata.json")).unwrap()).unwrap()
    };
    let at_tag = export(&format!("{ST}@v1"), &[]);
    assert_eq!(at_tag["metadata"]["hub_commit"], tiny().commit());
    assert_eq!(export(ST, &["--revision", "v1"]), at_tag);
    assert_eq!(export(ST, &["--revision", &tiny().commit(), "--offline"]), at_tag);
    assert_eq!(asked(&hub, "/revision/v1").len(), 2);
}

#[test]
fn cluster_is_checked_before_the_hub() {
    let hub = serving([tiny()]);
    let standin = StandIn::start(standin::Options::default());
    let cache = Cache::new();
    let one = |arguments: &[&str]| {
        let mut command = import(&cache, &hub.url(), &standin, ST);
        command.args(arguments).output().unwrap()
    };
    assert!(one(&[]).status.success());
    hub.forget();
    assert_eq!(one(&[]).status.code(), Some(7));
    let output = cache
        .program(&hub.url())
        .args(["import", "--url", "http://127.0.0.1:9", "--hub-model-id", ST])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", message(&output));
    assert!(hub.requests().is_empty());
}

#[test]
fn repository_of_sentence_transformers_is_an_embedding_model() {
    let mut plain = Repository::of_folder(ST, &Fixture::named("bert/masked-lm").model()).unwrap();
    assert!(!plain.files.contains_key("modules.json"));
    let other = Repository { id: "org/tiny".into(), ..plain.clone() };
    plain.aliases.clear();
    let hub = serving([plain, other]);
    let standin = StandIn::start(standin::Options::default());
    let cache = Cache::new();
    for (id, task) in [(ST, "text_embedding"), ("org/tiny", "fill_mask")] {
        let output = import(&cache, &hub.url(), &standin, id).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let config = standin.configuration(&id.replace('/', "__")).unwrap();
        assert!(config["inference_config"].get(task).is_some(), "{config}");
    }
}

#[test]
fn downloaded_folder_is_imported_without_network() {
    let hub = serving([tiny()]);
    let (cache, root) = (Cache::new(), tempfile::tempdir().unwrap());
    let folder = root.path().join("deep/model");
    let download = || {
        let mut program = cache.program(&hub.url());
        program.args(["download", "--hub-model-id", ST, "--output"]).arg(&folder).output().unwrap()
    };
    let output = download();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", folder.display()));
    says(&message(&output), &[&tiny().commit()]);
    let mut files = files_below(&folder);
    assert!(files.iter().all(|file| !file.is_symlink()));
    files.retain(|file| {
        let name = file.strip_prefix(&folder).unwrap().to_str().unwrap();
        fs::read(file).unwrap() != tiny().files[name].content
    });
    assert!(files.is_empty(), "{files:?}");
    // No temporary folder is left beside the folder.
    assert_eq!(fs::read_dir(root.path().join("deep")).unwrap().count(), 1);

    let standin = StandIn::start(standin::Options::default());
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert!(standin.configuration("m").unwrap()["metadata"].get("hub_commit").is_none());
    // A folder is not an id.
    let output =
        cache.program(&hub.url()).args(["download", "--hub-model-id"]).arg(&folder).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

#[test]
fn second_download_to_a_folder_confirms_completes_or_refuses_it() {
    let hub = serving([tiny()]);
    let (cache, root) = (Cache::new(), tempfile::tempdir().unwrap());
    let folder = root.path().join("model");
    let download = || {
        let mut program = cache.program(&hub.url());
        program.args(["download", "--hub-model-id", ST, "--output"]).arg(&folder).output().unwrap()
    };
    assert!(download().status.success());
    let content = |name: &str| fs::read(folder.join(name)).unwrap();
    let is_whole = || tiny().files.iter().all(|(name, file)| content(name) == file.content);
    assert!(is_whole());
    // A complete folder is confirmed, even if the cache is gone.
    fs::remove_dir_all(cache.hub()).unwrap();
    hub.forget();
    let again = download();
    assert!(again.status.success(), "{}", message(&again));
    says(&message(&again), &["already complete", &tiny().commit()]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), format!("{}\n", folder.display()));
    assert!(asked(&hub, "model.safetensors").is_empty());
    // Missing files are added, and other files are kept and named.
    fs::remove_file(folder.join("vocab.txt")).unwrap();
    fs::remove_dir_all(folder.join("1_Pooling")).unwrap();
    fs::create_dir(folder.join("notes")).unwrap();
    fs::write(folder.join("notes/mine.txt"), "mine").unwrap();
    let completed = download();
    assert!(completed.status.success(), "{}", message(&completed));
    says(&message(&completed), &["not part of this download", "notes/mine.txt"]);
    assert!(is_whole() && content("notes/mine.txt") == b"mine");
    let names: Vec<_> =
        files_below(&folder).into_iter().map(|path| path.display().to_string()).collect();
    assert!(!names.iter().any(|name| name.contains("partial")), "{names:?}");
    // A file with other bytes is never overwritten, and nothing is downloaded.
    fs::write(folder.join("vocab.txt"), "other").unwrap();
    fs::remove_dir_all(cache.hub()).unwrap();
    hub.forget();
    let refused = download();
    assert_eq!(refused.status.code(), Some(2), "{}", message(&refused));
    says(&message(&refused), &["cannot be copied", "vocab.txt differs", "--output"]);
    assert!(asked(&hub, "model.safetensors").is_empty() && content("vocab.txt") == b"other");
    // A folder without any file of the model is something else.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("thesis.tex"), "mine").unwrap();
    let refused = download();
    assert_eq!(refused.status.code(), Some(2), "{}", message(&refused));
    says(&message(&refused), &["cannot be copied", "other files, and none of the model's"]);
}

#[test]
fn download_fills_an_empty_folder_that_exists() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    let root = tempfile::tempdir().unwrap();
    // The working folder cannot be replaced, and neither can the mount point of a volume.
    let output = cache
        .program(&hub.url())
        .current_dir(root.path())
        .args(["download", "--hub-model-id", ID, "--output", "."])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let mut names: Vec<_> =
        fs::read_dir(root.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "vocab.txt"]);
    // A folder with the name of the repository is the output folder of the first run, not a model to import.
    for part in ["is in", "already complete"] {
        let output = cache
            .program(&hub.url())
            .current_dir(root.path())
            .args(["download", "--hub-model-id", ID, "--output", ID])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", message(&output));
        says(&message(&output), &[part, ID]);
    }
}

#[test]
fn one_file_of_a_repository_is_downloaded_by_its_name() {
    let hub = serving([tiny().file("trees/model.json", "{}")]);
    let cache = Cache::new();
    for name in [format!("{ST}/trees/model.json@main"), format!("hf://{ST}@v1/trees/model.json")] {
        let output =
            cache.program(&hub.url()).args(["download", "--hub-model-id", &name]).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let path = String::from_utf8(output.stdout).unwrap();
        assert!(path.trim_end().ends_with("/trees/model.json"), "{path}");
        assert_eq!(fs::read_to_string(path.trim_end()).unwrap(), "{}");
    }
    assert!(asked(&hub, "model.safetensors").is_empty());
    let missing = format!("{ST}/other.json");
    let output =
        cache.program(&hub.url()).args(["download", "--hub-model-id", &missing]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    says(&message(&output), &["no file other.json", "trees/model.json"]);
    // The advice names the file and the revision.
    let output = cache
        .program(&hub.url())
        .args(["download", "--offline", "--hub-model-id", &format!("{missing}@v1")])
        .output()
        .unwrap();
    let advice = format!("download --hub-model-id {ST}/other.json@v1");
    says(&message(&output), &["other.json is missing", &advice]);
    // An import needs a whole repository.
    let standin = StandIn::start(standin::Options::default());
    let name = format!("{ST}/trees/model.json");
    let output = import(&cache, &hub.url(), &standin, &name).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["one file of the repository", ST]);
}

#[test]
fn address_of_the_hub_is_imported_like_the_id() {
    let hub = serving([tiny()]);
    let standin = StandIn::start(standin::Options::default());
    let cache = Cache::new();
    let addresses = ["https://huggingface.co/ID", "https://hf.co/ID/tree/v1", "hf://ID@v1"];
    for address in addresses {
        let name = address.replace("ID", ST);
        let output =
            import(&cache, &hub.url(), &standin, &name).arg("--clear-previous").output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
        let config = standin.configuration("sentence-transformers__tiny-mean").unwrap();
        assert_eq!(config["metadata"]["hub_model_id"], ST);
        assert_eq!(config["metadata"]["hub_commit"], tiny().commit());
    }
}

#[test]
fn quiet_download_prints_only_the_folder() {
    let hub = serving([repository()]);
    for flag in ["--quiet", "-q"] {
        let cache = Cache::new();
        let output = cache.download(&hub, &[flag]);
        assert!(output.status.success());
        assert_eq!(message(&output), "");
        assert!(String::from_utf8_lossy(&output.stdout).ends_with(&(repository().commit() + "\n")));
    }
    let standin = StandIn::start(standin::Options::default());
    let output = import(&Cache::new(), &serving([tiny()]).url(), &standin, ST)
        .arg("--quiet")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(message_without_tokenizer_warnings(&output), "");
}

#[test]
fn each_file_has_a_log_line_without_a_terminal() {
    let hub = serving([repository()]);
    let output = Cache::new().download(&hub, &[]);
    let log = message(&output);
    for line in ["vocab.txt: 29.30 KiB in ", "model.safetensors: 292.97 KiB in "] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    assert!(!log.contains('\r') && !log.contains("README"), "{log}");
}

#[test]
fn each_file_has_a_progress_bar_on_a_terminal() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    let (mut terminal, other_end) = pty_process::blocking::open().unwrap();
    terminal.resize(pty_process::Size::new(24, 120)).unwrap();
    hub.hold_after(200_000);
    let mut child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_rust-eland"))
        .env_clear()
        .envs([("TERM", "xterm"), ("NO_PROXY", "127.0.0.1"), ("HF_ENDPOINT", &hub.url())])
        .env("HF_HOME", cache.home())
        .args(["download", "--hub-model-id", ID])
        .spawn(other_end)
        .unwrap();
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    // Both files are in progress when the hub stops sending.
    let complete = |shown: &str| {
        let last = shown.rfind("model.safetensors [").map_or("", |at| &shown[at..]);
        shown.contains("vocab.txt [") && last.contains("KiB/292.97 KiB") && last.contains(" left")
    };
    while !complete(&shown) {
        let read = terminal.read(&mut buffer).unwrap();
        assert!(read > 0, "{shown}");
        shown += &String::from_utf8_lossy(&buffer[..read]);
    }
    hub.release();
    // Reading fails when the process ends.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        shown += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("/s "), "{shown}");
    cache.holds(&repository());
}

#[test]
fn gated_repository_has_exit_code_4() {
    let hub = Hub::start(Options {
        repositories: vec![repository().access(::hub::Access::Gated)],
        token: Some("hf_granted".into()),
        ..Options::default()
    });
    let cache = Cache::new();
    let output = cache.download(&hub, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &[&format!("{}/{ID}", hub.url())]);
    let output = cache.download(&hub, &["--hub-access-token", "hf_granted"]);
    assert!(output.status.success(), "{}", message(&output));
}
