//! Output of `inspect` and `import --dry-run`, and the small number of bytes that they read.

use std::fs;
use std::path::Path;
use std::process::Output;

use ::hub::{Host, Hub, Repository};
use rust_eland::conversion::{Conversion, Options as Choice};
use rust_eland::source::ModelFiles;
use serde_json::{Value, json};
use standin::{Options, StandIn};
use tempfile::TempDir;

use crate::fixtures::Fixture;
use crate::from_hub::{Cache, files_below, noise, serving};
use crate::program::{ask, message, program, says};

/// Runs the program, which must print a plan with any exit code.
fn inspect(folder: &Path, more: &[&str]) -> (Output, String) {
    let output = program().args(["inspect", "--hub-model-id"]).arg(folder).args(more).output();
    let output = output.unwrap();
    let page = String::from_utf8(output.stdout.clone()).unwrap();
    (output, page)
}

fn json_of(folder: &Path, more: &[&str]) -> Value {
    let (output, page) = inspect(folder, &[more, &["--output", "json"]].concat());
    serde_json::from_str(&page).unwrap_or_else(|_| panic!("{page}{}", message(&output)))
}

/// A copy of a fixture that a test can change.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Fixture::named(name).model();
    for file in files_below(&model) {
        let to = folder.path().join(file.strip_prefix(&model).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    folder
}

/// Changes a JSON file of a folder.
fn edit(folder: &TempDir, name: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join(name);
    let mut json = fs::read(&path).map_or(json!({}), |text| serde_json::from_slice(&text).unwrap());
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn plan_matches_the_configuration_sent_by_import() {
    let standin = StandIn::start(Options::default());
    for name in
        ["bert/st-mean", "roberta/ner", "deberta-v2/zero-shot", "bart/masked-lm", "mobilebert/base"]
    {
        let fixture = Fixture::named(name);
        let task = fixture.tasks()[0].name();
        let arguments = ["--url", &standin.url(), "--es-model-id", "m", "--task-type", task];
        let plan = json_of(&fixture.model(), &arguments);
        let output = program()
            .args(["import", "--clear-previous", "--hub-model-id"])
            .arg(fixture.model())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", message(&output));
        let (_, answer) = ask(&standin, "GET", "/_ml/trained_models/m", None);
        let sent = &answer["trained_model_configs"][0];
        let planned = &plan["configuration"];
        assert_eq!(planned["description"], sent["description"], "{name}");
        // The cluster adds defaults to the configuration.
        let settings = planned["inference_config"][task].as_object().unwrap();
        for (field, value) in settings.iter().filter(|(field, _)| *field != "tokenization") {
            assert_eq!(*value, sent["inference_config"][task][field], "{name} {field}");
        }
        let kind = plan["tokenizer"]["kind"].as_str().unwrap();
        let of = |config: &Value| config["inference_config"][task]["tokenization"][kind].clone();
        for (field, value) in of(planned).as_object().unwrap() {
            assert_eq!(*value, of(sent)[field], "{name} {field}");
        }
        // The estimate without weights is close to the measurement with weights.
        for figure in ["per_deployment_memory_bytes", "per_allocation_memory_bytes"] {
            let of = |config: &Value| config["metadata"][figure].as_f64().unwrap();
            let (estimate, measured) = (of(planned), of(sent));
            assert!((0.8..1.25).contains(&(estimate / measured)), "{name}: {estimate} {measured}");
        }
        let length = fs::read(standin.definition("m").unwrap()).unwrap().len() as f64;
        let estimate = plan["memory"]["definition_bytes"].as_f64().unwrap();
        assert!((estimate - length).abs() < 250_000., "{name}: {estimate} {length}");
        assert_eq!(plan["cluster"]["version"], "9.5.0");
        assert_eq!(plan["cluster"]["has_room"], true);
    }
}

#[test]
fn every_fixture_has_a_plan() {
    for fixture in Fixture::all() {
        let files = ModelFiles::open(&fixture.model()).unwrap();
        // Other tests cover the other tasks.
        for task in fixture.tasks().into_iter().take(1) {
            let options = || {
                let mut options = Choice::of_task(task);
                options.allow_inexact_tokenizer = fixture.has_inexact_tokenizer();
                options
            };
            let plan = rust_eland::conversion::Plan::read(
                &files,
                &rust_eland::conversion::WeightsSeen::Folder,
                options(),
                "m",
            )
            .unwrap();
            let name = format!("{} {task}", fixture.name);
            assert!(plan.problem.is_none(), "{name}: {:?}", plan.problem.map(|it| it.to_string()));
            assert!(plan.tasks.unwrap().contains(&task), "{name}");
            let whole =
                Conversion::read(&files, options(), &rust_eland::observer::Progress::quiet())
                    .unwrap();
            assert_eq!(plan.max_length, Some(whole.max_sequence_length()), "{name}");
            // Buffers computed from parameters are stored but are not parameters.
            let (used, stored) = (plan.parameters.unwrap().used * 4, whole.parameter_bytes());
            assert!(0 < used && used <= stored, "{name}: {used} {stored}");
            assert_eq!(plan.warnings, whole.notes(), "{name}");
        }
    }
}

#[test]
fn plan_shows_declarations_of_the_files() {
    let folder = copy("bert/st-mean");
    edit(&folder, "config_sentence_transformers.json", |config| {
        config["prompts"] = json!({"query": "query: ", "passage": "passage: ", "other": ""});
        config["similarity_fn_name"] = json!("dot");
    });
    edit(&folder, "config.json", |config| config["auto_map"] = json!({"AutoModel": "own.Model"}));
    fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    let card =
        "---\nlicense: mit\nlanguage:\n- en\n- de # German\n- \"pt-br\"\ntags: []\n---\n# A card";
    fs::write(folder.path().join("README.md"), card).unwrap();
    let (output, page) = inspect(folder.path(), &["--es-model-id", "mine"]);
    assert!(output.status.success(), "{}", message(&output));
    says(
        &page,
        &[
            "architecture    bert (BertModel)",
            "weights         safetensors, float32",
            "tokenizer       bert, 166 tokens, lower case",
            "maximum input   64 tokens (the positions in config.json)",
            "languages       en, de, pt-br",
            "chosen          text_embedding: modules.json describes a model of sentence-transformers",
            "embedding       32 dimensions: mean over tokens",
            "max_inner_product for dot (similarity_fn_name in config_sentence_transformers.json)",
            "query prompt    \"query: \"",
            "document prompt \"passage: \"",
            "not sent without --prompts",
            "the import measures them",
            "contains an adapter (adapter_config.json), which is not applied",
            "code of the repository (own.Model, auto_map), which is never run",
            "PUT _ml/trained_models/mine, memory estimated",
            "rust-eland import --hub-model-id",
            "--es-model-id mine --url ADDRESS",
        ],
    );
    let plan = json_of(folder.path(), &["--prompts"]);
    assert_eq!(
        plan["configuration"]["prefix_strings"],
        json!({"ingest": "passage: ", "search": "query: "})
    );
    assert_eq!(plan["minimum_version"], "8.12.0");
}

#[test]
fn plan_shows_obstacles_with_partial_results() {
    let folder = copy("bert/base");
    // Two possible tasks, and no class that identifies one.
    let (output, page) = inspect(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3), "{page}");
    says(
        &page,
        &[
            "architecture    bert",
            "tasks           pass_through, text_embedding",
            "chosen          none",
        ],
    );
    says(&message(&output), &["Set --task-type", "text_embedding"]);

    let (output, page) = inspect(folder.path(), &["--task-type", "ner"]);
    assert_eq!(output.status.code(), Some(3), "{page}");
    says(&message(&output), &["cannot serve ner", "It can serve"]);

    edit(&folder, "config.json", |config| config["hidden_act"] = json!("laughing"));
    let (output, page) = inspect(folder.path(), &["--task-type", "text_embedding"]);
    assert_eq!(output.status.code(), Some(3), "{page}");
    says(&page, &["architecture    bert", "weights         safetensors"]);
    says(&message(&output), &["laughing"]);

    edit(&folder, "config.json", |config| config["model_type"] = json!("xlnet"));
    let plan = json_of(folder.path(), &[]);
    assert_eq!(plan["model_type"], "xlnet");
    assert!(plan["problem"].as_str().unwrap().contains("xlnet"), "{plan}");

    fs::remove_file(folder.path().join("config.json")).unwrap();
    let (output, page) = inspect(folder.path(), &[]);
    assert_eq!((output.status.code(), page.as_str()), (Some(3), ""));
}

/// A repository with the files of a fixture.
fn repository(name: &str) -> Repository {
    let model = Fixture::named(name).model();
    let mut repository = Repository::new("org/model").file("README.md", "---\nlanguage: en\n---\n");
    for path in files_below(&model) {
        let name = path.strip_prefix(&model).unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        repository = match name.ends_with("safetensors") {
            true => repository.large(&name, bytes),
            false => repository.file(&name, bytes),
        };
    }
    repository
}

fn inspect_at(hub: &Hub, cache: &Cache, more: &[&str]) -> (Output, Value) {
    let arguments = ["inspect", "--hub-model-id", "org/model", "--output", "json"];
    let output = cache.program(&hub.url()).args(arguments).args(more).output().unwrap();
    let page = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, page)
}

#[test]
fn inspect_reads_only_the_header_of_weights() {
    // As large as a real model's file, apart from the header.
    let repository = repository("bert/st-mean");
    let hub = serving([repository.clone()]);
    let cache = Cache::new();
    let (output, plan) = inspect_at(&hub, &cache, &[]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!((&plan["task"], &plan["languages"]), (&json!("text_embedding"), &json!(["en"])));
    assert_eq!(plan["hub_commit"], repository.commit().as_str());
    assert_eq!(plan["weights"]["looked_at"], true);
    let local = json_of(&Fixture::named("bert/st-mean").model(), &[]);
    for field in ["parameters", "tasks", "memory", "embedding", "max_length"] {
        assert_eq!(plan[field], local[field], "{field}");
    }
    let requests = hub.requests();
    let of_weights = || requests.iter().filter(|request| request.host == Host::Cdn);
    assert_eq!(of_weights().count(), 1);
    for request in of_weights() {
        assert_eq!((request.from, request.status), (Some(0), 206), "{request:?}");
        assert!(request.to.unwrap() < 128 << 10, "{request:?}");
    }
    let snapshot = cache.snapshot(&repository.commit());
    assert!(snapshot.join("vocab.txt").is_file() && !snapshot.join("model.safetensors").exists());
    assert!(requests.iter().all(|request| !request.path.contains("pytorch_model")));

    // The small files are in the cache now, and the import uses them.
    let standin = StandIn::start(Options::default());
    let mut import = cache.program(&hub.url());
    let arguments = ["import", "--hub-model-id", "org/model", "--url", &standin.url()];
    let output = import.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let asked = hub.requests().iter().filter(|r| r.path.contains("vocab.txt")).count();
    let before = requests.iter().filter(|r| r.path.contains("vocab.txt")).count();
    assert_eq!(asked, before);
    // With the weights in the cache, only the listing is requested.
    let (output, plan) = inspect_at(&hub, &cache, &["--offline"]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(plan["parameters"], local["parameters"]);
}

#[test]
fn long_header_is_read_completely_and_invalid_header_rejected() {
    let mut repository = repository("bert/st-mean");
    let content = repository.files["model.safetensors"].content.clone();
    let length = u64::from_le_bytes(*content.first_chunk().unwrap()) as usize;
    // Spaces may follow the JSON of the header.
    let mut long = (300_000_u64).to_le_bytes().to_vec();
    long.extend_from_slice(&content[8..8 + length]);
    long.resize(8 + 300_000, b' ');
    long.extend_from_slice(&content[8 + length..]);
    repository = repository.large("model.safetensors", long);
    let hub = serving([repository]);
    let (output, plan) = inspect_at(&hub, &Cache::new(), &[]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(plan["parameters"]["used"], 21_066);
    let ends: Vec<_> =
        hub.requests().iter().filter(|r| r.host == Host::Cdn).map(|r| r.to.unwrap()).collect();
    assert_eq!(ends, [(128 << 10) - 1, 300_007]);

    for wrong in [noise(1, 1000), vec![1; 4], 77_u64.to_le_bytes().to_vec()] {
        let hub = serving([self::repository("bert/st-mean").large("model.safetensors", wrong)]);
        let (output, plan) = inspect_at(&hub, &Cache::new(), &[]);
        assert_eq!(output.status.code(), Some(3), "{}", message(&output));
        assert!(plan["problem"].as_str().unwrap().contains("not a valid safetensors file"));
    }
}

#[test]
fn weights_without_header_are_not_downloaded() {
    let mut repository = repository("bert/text-classification");
    repository.files.remove("model.safetensors");
    let repository = repository.large("pytorch_model.bin", noise(3, 500_000));
    let hub = serving([repository]);
    let (output, plan) = inspect_at(&hub, &Cache::new(), &[]);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!((&plan["tasks"], &plan["task"]), (&Value::Null, &json!("text_classification")));
    assert_eq!(plan["weights"]["bytes"], 500_000);
    // config.json gives the same number of parameters as the weights.
    let local = json_of(&Fixture::named("bert/text-classification").model(), &[]);
    assert_eq!(plan["parameters"]["used"], local["parameters"]["used"]);
    assert_eq!(plan["memory"], local["memory"]);
    assert!(hub.requests().iter().all(|request| request.host != Host::Cdn));
    let output = Cache::new()
        .program(&hub.url())
        .args(["inspect", "--hub-model-id", "org/model"])
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    says(
        &page,
        &[
            "from config.json",
            "not read, because the format has no header",
            "unknown until the weights are downloaded",
        ],
    );
}

#[test]
fn dry_run_checks_the_cluster_without_changes() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let model = Fixture::named("bert/st-mean").model();
    let import = |more: &[&str]| {
        let arguments = ["import", "--url", &url, "--es-model-id", "m", "--hub-model-id"];
        program().args(arguments).arg(&model).args(more).output().unwrap()
    };
    let output = import(&["--dry-run"]);
    assert!(output.status.success(), "{}", message(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    says(
        &page,
        &[
            "Cluster",
            "version         9.5.0",
            "accepts it      yes",
            "chosen          text_embedding",
        ],
    );
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/m", None).0, 404);

    assert!(import(&[]).status.success());
    let output = import(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(7));
    says(&String::from_utf8(output.stdout.clone()).unwrap(), &["accepts it      no (see below)"]);
    says(&message(&output), &["already has a model m"]);
    assert!(import(&["--dry-run", "--clear-previous"]).status.success());

    // For a bundle every value is known.
    let folder = tempfile::tempdir().unwrap();
    let output = program()
        .args(["export", "--es-model-id", "b", "--hub-model-id"])
        .arg(&model)
        .arg("--output")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let bundle = folder.path().join("b.metadata.json");
    let arguments = ["import", "--dry-run", "--output", "json", "--url", &url, "--bundle"];
    let output = program().args(arguments).arg(&bundle).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    let metadata: Value = serde_json::from_slice(&fs::read(&bundle).unwrap()).unwrap();
    assert_eq!(
        (&page["sha256"], &page["definition_bytes"]),
        (&metadata["sha256"], &metadata["size"])
    );
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/b", None).0, 404);
}

#[test]
fn plan_reports_old_or_small_cluster() {
    let model = Fixture::named("deberta-v2/text-classification").model();
    let standin =
        StandIn::start(Options { version: "8.15.0".parse().unwrap(), ..Options::default() });
    let (output, page) = inspect(&model, &["--url", &standin.url()]);
    assert!(!output.status.success());
    says(
        &page,
        &["Elasticsearch   8.16.0 or later", "version         8.15.0", "accepts it      no"],
    );
    says(&message(&output), &["8.16.0"]);
}
