//! The program as a user runs it, from the hub into the cluster.

use std::fs;
use std::io::Read;
use std::process::Command;

use ::hub::{Hub, Options, Repository};
use serde_json::{Value, json};
use standin::StandIn;

use super::{Cache, ID, asked, files_below, repository, serving};
use crate::fixtures::Fixture;
use crate::program::{ask, message, program, says};

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
fn a_model_goes_from_the_hub_into_the_cluster_and_offline_again() {
    let hub = serving([tiny()]);
    let standin = StandIn::start(standin::Options::default());
    let cache = Cache::new();
    let output = import(&cache, &hub.url(), &standin, ST).arg("--start").output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let id = "sentence-transformers__tiny-mean";
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id} started\n"));
    let commit = tiny().commit();
    // What will be fetched is said before, and then each file.
    let told = message(&output);
    says(&told, &["fetching", "model.safetensors (90", ST, &commit, "model.safetensors: 90"]);
    assert!(told.find("fetching").unwrap() < told.find("model.safetensors: 90").unwrap());
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
    // The folder itself gives the very same graph.
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
    // So does the snapshot's folder, whose path tells the same.
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
    // In a cache without it there is nothing to take.
    let other = Cache::new();
    let output = import(&other, &endpoint, &standin, ST)
        .args(["--offline", "--es-model-id", "none"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["not in the cache", ST]);
}

#[test]
fn an_exported_bundle_carries_the_commit() {
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
fn the_cluster_is_asked_before_the_hub() {
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
fn repositories_of_sentence_transformers_are_embeddings() {
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
fn a_download_is_carried_to_where_there_is_no_network() {
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
    // Nothing half-written lies beside it, and what is there is not written over.
    assert_eq!(fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
    hub.forget();
    let again = download();
    assert_eq!(again.status.code(), Some(2));
    says(&message(&again), &["not empty"]);
    assert!(hub.requests().is_empty());

    let standin = StandIn::start(standin::Options::default());
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert!(standin.configuration("m").unwrap()["metadata"].get("hub_commit").is_none());
    // A folder is no id.
    let output =
        cache.program(&hub.url()).args(["download", "--hub-model-id"]).arg(&folder).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

#[test]
fn quiet_is_quiet() {
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
    assert_eq!(message(&output), "");
}

#[test]
fn each_file_has_a_plain_line_where_there_is_no_terminal() {
    let hub = serving([repository()]);
    let output = Cache::new().download(&hub, &[]);
    let told = message(&output);
    for line in ["vocab.txt: 29.30 KiB in ", "model.safetensors: 292.97 KiB in "] {
        assert_eq!(told.matches(line).count(), 1, "{told}");
    }
    assert!(!told.contains('\r') && !told.contains("README"), "{told}");
}

#[test]
fn each_file_has_a_line_of_its_own_on_a_terminal() {
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
    // Both are under way when the hub holds back; how far they are is drawn until then.
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
    // At the end of the process reading fails.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        shown += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("/s "), "{shown}");
    cache.holds(&repository());
}

#[test]
fn exit_codes_tell_what_failed() {
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
