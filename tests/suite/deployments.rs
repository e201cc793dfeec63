//! Start of models: options, waiting, failures and the smoke test. Also list, status, stop and delete.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rust_eland::elasticsearch::{Client, Connection, DeploymentError, ServedId, StartOptions};
use rust_eland::observer::Progress;
use serde_json::{Value, json};
use standin::{BuildFlavor, Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::program::{ask, message, program, says};

const MODELS: &str = "/_ml/trained_models";

/// Runs the program against a stand-in.
fn run(standin: &StandIn, arguments: &[&str]) -> Output {
    program().args(arguments).args(["--url", &standin.url()]).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn printed(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Runs a command that must succeed and returns its standard output.
#[track_caller]
fn done(standin: &StandIn, arguments: &[&str]) -> String {
    let output = run(standin, arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", message(&output));
    printed(&output).to_owned()
}

/// Runs a command with `--output json` and returns the single document on standard output.
#[track_caller]
fn json_of(standin: &StandIn, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--output", "json"]].concat();
    let output = run(standin, &arguments);
    serde_json::from_str(printed(&output)).unwrap()
}

/// Asserts that a command fails with an exit code and a message.
#[track_caller]
fn fails(standin: &StandIn, arguments: &[&str], expected: i32, parts: &[&str]) -> String {
    let output = run(standin, arguments);
    assert_eq!(code(&output), expected, "{arguments:?}: {}", message(&output));
    says(&message(&output), parts);
    assert_eq!(printed(&output), "", "{arguments:?}");
    message(&output)
}

/// Arguments for the import of a bundle.
fn importing(bundle: &str) -> [&str; 5] {
    ["import", "--es-model-id", "m", "--bundle", bundle]
}

/// Path of the bundle that most tests import.
fn ner() -> String {
    bundle("ner").to_str().unwrap().to_owned()
}

/// A stand-in with the stored model `m`.
fn stored(options: Options) -> StandIn {
    let standin = StandIn::start(options);
    done(&standin, &importing(&ner()));
    standin
}

fn old(version: &str) -> Options {
    Options { version: version.parse().unwrap(), ..Options::default() }
}

/// Start requests: path, query and body.
fn starts(standin: &StandIn) -> Vec<(String, Option<Value>)> {
    let requests = standin.requests().into_iter();
    let starts = requests.filter(|request| request.path.ends_with("/_start"));
    starts.map(|request| (request.query, request.body)).collect()
}

fn deployments(standin: &StandIn) -> Vec<Value> {
    let (_, stats) = ask(standin, "GET", &format!("{MODELS}/m/_stats"), None);
    let entries = stats["trained_model_stats"].as_array().unwrap();
    entries.iter().filter_map(|entry| entry.get("deployment_stats").cloned()).collect()
}

#[test]
fn start_with_default_or_longest_timeout_reaches_the_server() {
    let standin = StandIn::start(Options::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::to_url(&standin.url()).unwrap();
        connection.proxies = false;
        let client = Client::connect(connection).await.unwrap();
        let model: ServedId = "absent".parse().unwrap();
        for timeout in [StartOptions::default().timeout, Duration::MAX] {
            let mut options = StartOptions::default();
            options.timeout = timeout;
            let error = options.start(&client, &model, &Progress::quiet()).await.unwrap_err();
            assert!(matches!(error, DeploymentError::NotFound { .. }), "{error}");
        }
    });
}

#[test]
fn every_start_option_is_sent() {
    let standin = StandIn::start(Options::default());
    let model = ner();
    let options = [
        "--start",
        "--wait-for",
        "fully_allocated",
        "--start-timeout",
        "2m",
        "--deployment-id",
        "for-search",
        "--number-of-allocations",
        "2",
        "--threads-per-allocation",
        "4",
        "--priority",
        "normal",
        "--queue-capacity",
        "500",
        "--cache-size",
        "10MB",
    ];
    let printed = done(&standin, &[&importing(&model)[..], &options].concat());
    assert_eq!(printed, "for-search started\n");
    let deployment = &deployments(&standin)[0];
    for (name, value) in [
        ("deployment_id", json!("for-search")),
        ("number_of_allocations", json!(2)),
        ("threads_per_allocation", json!(4)),
        ("priority", json!("normal")),
        ("queue_capacity", json!(500)),
        ("cache_size", json!("10mb")),
    ] {
        assert_eq!(deployment[name], value, "{name}");
    }
    // A request waits for at most one minute; then the statistics are polled.
    assert!(starts(&standin)[0].0.starts_with("timeout=60s&wait_for=fully_allocated&"));

    let started = json_of(
        &standin,
        &["start", "m", "--min-allocations", "1", "--max-allocations", "3", "--priority", "low"],
    );
    assert_eq!(started["deployment_id"], "m");
    let adaptive = json!({"enabled": true, "min_number_of_allocations": 1,
        "max_number_of_allocations": 3});
    assert_eq!(started["adaptive_allocations"], adaptive);
    assert_eq!(starts(&standin)[1].1, Some(json!({"adaptive_allocations": adaptive})));
    says(&done(&standin, &["status", "m"]), &["m ", "1/1 (adaptive 1..3)", "for-search"]);
}

#[test]
fn invalid_start_options_are_rejected_before_any_request() {
    let standin = StandIn::start(Options::default());
    let model = ner();
    for (options, part) in [
        (&["--threads-per-allocation", "3"][..], "1, 2, 4, 8, 16 or 32"),
        (&["--threads-per-allocation", "64"], "64"),
        (&["--number-of-allocations", "0"], "0 is not in"),
        (&["--number-of-allocations", "2", "--priority", "low"], "only one allocation"),
        (&["--threads-per-allocation", "2", "--priority", "low"], "only one thread"),
        (&["--priority", "high"], "possible values: normal, low"),
        (&["--number-of-allocations", "2", "--max-allocations", "4"], "adaptive limits"),
        (&["--min-allocations", "3", "--max-allocations", "2"], "must not be larger than"),
        (&["--max-allocations", "0"], "0 is not in"),
        (&["--queue-capacity", "0"], "0 is not in"),
        (&["--cache-size", "10"], "with a unit"),
        (&["--start-timeout", "0s"], "must not be 0"),
        (&["--start-timeout", "soon"], "a duration such as 90s"),
        (&["--wait-for", "ready"], "starting, started, fully_allocated"),
        (&["--deployment-id", "a/b"], "not the id of one"),
        (&["--smoke-test", "--wait-for", "starting"], "needs a deployment that answers"),
    ] {
        fails(&standin, &[&["start", "m"], options].concat(), 2, &[part]);
    }
    let three = ["--start", "--threads-per-allocation", "3"];
    fails(&standin, &[&importing(&model)[..], &three].concat(), 2, &["1, 2, 4, 8, 16 or 32"]);
    // The options are invalid without a start.
    for option in [&["--smoke-test"][..], &["--deployment-id", "d"], &["--wait-for", "started"]] {
        fails(&standin, &[&importing(&model)[..], option].concat(), 2, &["--start"]);
    }
    assert!(standin.requests().is_empty());
}

#[test]
fn options_unsupported_by_the_version_are_rejected_before_the_import() {
    let model = ner();
    for (version, options, parts) in [
        ("8.7.1", &["--deployment-id", "d"][..], ["--deployment-id", "8.8.0", "8.7.1"]),
        ("8.15.5", &["--min-allocations", "0"], ["--min-allocations", "8.16.0", "8.15.5"]),
        ("8.15.5", &["--max-allocations", "2"], ["--max-allocations", "8.16.0", "8.15.5"]),
    ] {
        let standin = StandIn::start(old(version));
        fails(&standin, &[&importing(&model)[..], &["--start"], options].concat(), 6, &parts);
        fails(&standin, &[&["start", "m"], options].concat(), 6, &parts);
        let changes = |request: &standin::Exchange| request.method != "GET";
        assert!(!standin.requests().iter().any(changes), "{:?}", standin.requests());
    }
    let queue = ["start", "m", "--queue-capacity", "100000"];
    let standin = stored(Options::default());
    fails(&standin, &queue, 2, &["less than 100000"]);
    done(&stored(old("8.15.5")), &queue);
    // The version reported by a serverless cluster is ignored.
    let flavor = BuildFlavor::Serverless;
    let standin = stored(Options { build_flavor: flavor, ..Options::default() });
    done(&standin, &["start", "m", "--min-allocations", "1", "--deployment-id", "d"]);
}

#[test]
fn server_timeout_continues_waiting_with_stats() {
    let standin = stored(Options {
        nodes: 2,
        longest_start_wait: Duration::from_millis(50),
        loading_delay: Duration::from_secs(3),
        allocation_delay: Duration::from_millis(700),
        ..Options::default()
    });
    let output = run(
        &standin,
        &["start", "m", "--number-of-allocations", "4", "--wait-for", "fully_allocated"],
    );
    assert_eq!(code(&output), 0, "{}", message(&output));
    says(
        &message(&output),
        &["starting: m: 0 of 4 allocations", "starting: m: 4 of 4 allocations"],
    );
    let answered: Vec<_> = standin
        .requests()
        .into_iter()
        .filter(|request| request.path.ends_with("/_start"))
        .map(|request| request.status)
        .collect();
    assert_eq!(answered, [408]);
    done(&standin, &["stop", "m"]);

    // One allocation is sufficient; the missing ones are reported.
    let output = run(&standin, &["start", "m", "--number-of-allocations", "16"]);
    assert_eq!(code(&output), 0, "{}", message(&output));
    says(&message(&output), &["m runs with", "of 16 allocations"]);
    assert_eq!(printed(&output), "m started\n");
}

#[test]
fn wait_ends_at_its_timeout() {
    let slow = Duration::from_secs(3600);
    for longest_start_wait in [Duration::MAX, Duration::from_millis(10)] {
        let standin =
            stored(Options { loading_delay: slow, longest_start_wait, ..Options::default() });
        fails(
            &standin,
            &["start", "m", "--start-timeout", "2s"],
            8,
            &[
                "m is stored",
                "after 2 s m is not started, with 0 of 1 allocations",
                "rust-eland status m",
                "--start-timeout",
            ],
        );
        assert_eq!(deployments(&standin)[0]["state"], "starting");
        let output = run(&standin, &["status", "m"]);
        assert_eq!(code(&output), 8);
        says(&message(&output), &["does not answer yet: its state is starting"]);
    }
    // `--wait-for starting` does not wait.
    let standin = stored(Options { loading_delay: slow, ..Options::default() });
    assert_eq!(done(&standin, &["start", "m", "--wait-for", "starting"]), "m starting\n");
}

#[test]
fn start_on_a_scaling_cluster_reports_its_reason() {
    let standin =
        stored(Options { allocated_processors: 0, autoscaling: true, ..Options::default() });
    fails(
        &standin,
        &["start", "m", "--start-timeout", "2s"],
        8,
        &["insufficient allocated processors", "--threads-per-allocation", "continues to start"],
    );
}

#[test]
fn node_failure_is_reported_with_a_remedy() {
    let died = "inference native process died unexpectedly: Model graph does not match any supported architecture. \
                Unrecognised operations: aten::erf";
    let memory = "Could not assign (more) allocations on node [n]. Reason: This node has insufficient available memory.";
    for (reason, advice) in [
        (died, "made of operations on its list"),
        (memory, "give the machine learning nodes more memory"),
        ("something that nobody has seen", ""),
    ] {
        let options = || Options {
            nodes: 2,
            node_failures: vec![(0, reason.into()), (1, reason.into())],
            ..Options::default()
        };
        let standin = stored(options());
        fails(&standin, &["start", "m"], 8, &["m is stored", reason, advice]);
        assert!(deployments(&standin).is_empty());

        // The server stops waiting before the node fails, so the deployment remains and blocks the next start.
        let standin = stored(Options {
            longest_start_wait: Duration::from_millis(10),
            loading_delay: Duration::from_millis(500),
            ..options()
        });
        let parts = [reason, advice, "rust-eland stop m"];
        fails(&standin, &["start", "m"], 8, &parts);
        assert_eq!(deployments(&standin)[0]["state"], "failed");
        let output = run(&standin, &["status", "m"]);
        assert_eq!(code(&output), 8);
        says(&message(&output), &["has failed", advice, "rust-eland stop m"]);
        says(printed(&output), &["failed", reason]);
        fails(&standin, &["start", "m"], 8, &["same id [m]", "rust-eland stop"]);
        done(&standin, &["stop", "m"]);
    }
}

#[test]
fn failure_of_one_node_is_a_warning() {
    let standin = stored(Options {
        nodes: 2,
        node_failures: vec![(1, "no space left".into())],
        longest_start_wait: Duration::from_millis(10),
        loading_delay: Duration::from_millis(500),
        ..Options::default()
    });
    // The other node responds.
    let output = run(&standin, &["start", "m", "--number-of-allocations", "2"]);
    assert_eq!(code(&output), 0, "{}", message(&output));
    let parts = ["1 of 2 allocations", "node standin-1: no space left"];
    says(&message(&output), &parts);
    says(&done(&standin, &["status", "m"]), &["standin-1", "failed", "no space left"]);
    done(&standin, &["stop", "m"]);
    let all = ["--number-of-allocations", "2", "--wait-for", "fully_allocated"];
    let arguments = [&["start", "m", "--start-timeout", "2s"], &all[..]].concat();
    fails(&standin, &arguments, 8, &["is not fully_allocated, with 1 of 2", "no space left"]);
}

#[test]
fn repeated_import_waits_for_the_existing_deployment() {
    for version in ["9.5.0", "8.7.0"] {
        let standin = StandIn::start(old(version));
        let model = ner();
        let import = [&importing(&model)[..], &["--start", "--on-conflict", "skip"]].concat();
        for _ in 0..2 {
            assert_eq!(done(&standin, &import), "m started\n");
        }
        done(&standin, &["stop", "m"]);
        assert_eq!(done(&standin, &import), "m started\n");
        let creations = |request: &standin::Exchange| {
            request.method == "PUT" && request.path.ends_with("/trained_models/m")
        };
        assert!(standin.requests().iter().filter(|request| creations(request)).count() <= 1);
    }
}

#[test]
fn too_few_processors_and_existing_deployment_ids_are_reported() {
    let standin = stored(Options { allocated_processors: 4, ..Options::default() });
    for (options, parts) in [
        (
            ["--number-of-allocations", "5"],
            ["not enough resources to provide all requested", "Lower --number-of-allocations"],
        ),
        (
            ["--threads-per-allocation", "8"],
            ["no ML nodes with sufficient capacity", "insufficient allocated processors"],
        ),
    ] {
        fails(&standin, &[&["start", "m"], &options[..]].concat(), 8, &parts);
    }
    let (status, _) = ask(
        &standin,
        "PUT",
        &format!("{MODELS}/other"),
        Some(&json!({"model_type": "pytorch", "inference_config": {"ner": {}}})),
    );
    assert_eq!(status, 200);
    let taken = ["start", "m", "--deployment-id", "other"];
    fails(
        &standin,
        &taken,
        8,
        &["same as an another model", "Choose another id with --deployment-id"],
    );
    let incomplete = ["start", "other"];
    fails(
        &standin,
        &incomplete,
        8,
        &["Could not find trained model definition", "Import the model"],
    );
    fails(&standin, &["start", "absent"], 6, &["no model absent", "rust-eland list"]);
    done(&standin, &["start", "m"]);
    fails(&standin, &["start", "m"], 8, &["same id [m]", "another id with --deployment-id"]);
    let release = stored(old("8.7.0"));
    done(&release, &["start", "m"]);
    fails(&release, &["start", "m"], 8, &["already been started", "stop it first"]);
}

/// Sends Ctrl-C to a command after its first request for the state of the deployment.
#[track_caller]
fn interrupted(standin: &StandIn, arguments: &[&str]) -> Output {
    let child = program()
        .args(arguments)
        .args(["--url", &standin.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waits = |path: &str| path.starts_with("/_ml/trained_models/") && path.ends_with("/_stats");
    while !standin.requests().iter().any(|request| waits(&request.path)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    child.wait_with_output().unwrap()
}

#[test]
fn ctrl_c_ends_the_wait_and_keeps_the_deployment() {
    let slow = || Options { loading_delay: Duration::from_secs(3600), ..Options::default() };
    let standin = StandIn::start(slow());
    let model = ner();
    let output = interrupted(&standin, &[&importing(&model)[..], &["--start"]].concat());
    assert_eq!(code(&output), 130, "{}", message(&output));
    says(&message(&output), &["m is stored", "rust-eland status m", "rust-eland stop m"]);
    assert_eq!(printed(&output), "");
    assert_eq!(standin.model_ids(), ["m"]);
    assert_eq!(deployments(&standin)[0]["state"], "starting");

    let standin = stored(slow());
    let output = interrupted(&standin, &["start", "m", "--deployment-id", "d"]);
    assert_eq!(code(&output), 130, "{}", message(&output));
    says(&message(&output), &["rust-eland status d"]);
}

#[cfg(feature = "torch")]
#[test]
fn smoke_test_sends_a_text_for_the_task() {
    use rust_eland::tasks::Task;

    use crate::fixtures::Fixture;

    let standin = StandIn::start(Options::default());
    for (fixture, task, answer) in [
        ("bert/masked-lm", Task::FillMask, " 0."),
        ("roberta/masked-lm", Task::FillMask, " 0."),
        ("bert/ner", Task::Ner, ""),
        ("bert/base", Task::PassThrough, "numbers"),
        ("bert/question-answering", Task::QuestionAnswering, "probability"),
        ("bert/text-classification", Task::TextClassification, ", "),
        ("bert/st-mean", Task::TextEmbedding, "dimensions: "),
        ("bert/masked-lm", Task::TextExpansion, "tokens"),
        ("bert/cross-encoder", Task::TextSimilarity, "score"),
        ("bert/zero-shot", Task::ZeroShotClassification, "sport "),
    ] {
        let model = Fixture::named(fixture).model();
        let import = ["import", "--es-model-id", "m", "--hub-model-id", model.to_str().unwrap()];
        let more = ["--task-type", task.name(), "--clear-previous", "--start", "--smoke-test"];
        let printed = done(&standin, &[import, more].concat());
        let expected = format!("smoke test ({task}): ");
        says(&printed, &["m started\n", &expected, answer]);
    }
    done(&standin, &["stop", "m"]);
    let started = json_of(&standin, &["start", "m", "--smoke-test", "--deployment-id", "d"]);
    let test = &started["smoke_test"];
    assert_eq!(test["task"], "zero_shot_classification");
    assert_eq!(test["settings"]["labels"], json!(["sport", "cooking"]));
    assert!(test["result"]["prediction_probability"].is_number(), "{started}");
}

/// Stores a model whose graph loads but fails for every text.
#[cfg(feature = "torch")]
fn store_broken(standin: &StandIn) {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rust_eland::torchscript::{Module, TorchError};
    use tch::{Device, Kind, Tensor};

    let example: Vec<_> =
        (0..4).map(|_| Tensor::ones([1, 4], (Kind::Int64, Device::Cpu))).collect();
    // The graph was traced with [1, 4]; texts have other lengths.
    let module: Result<Module, TorchError> =
        Module::trace(&example, |inputs| Ok(inputs[0].f_to_kind(Kind::Float)?.f_view([2, 2])?));
    let mut bytes = Vec::new();
    module.unwrap().save(&mut bytes).unwrap();
    let put = |path: &str, body: Value| {
        let (status, answer) = ask(standin, "PUT", &format!("{MODELS}/m{path}"), Some(&body));
        assert_eq!(status, 200, "{answer}");
    };
    let task = json!({"text_embedding": {"tokenization": {"bert": {}}}});
    put("", json!({"model_type": "pytorch", "inference_config": task}));
    put("/vocabulary", json!({"vocabulary": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]}));
    let definition = STANDARD.encode(&bytes);
    let length = bytes.len();
    put(
        "/definition/0",
        json!({"definition": definition, "total_definition_length": length, "total_parts": 1}),
    );
}

#[cfg(feature = "torch")]
#[test]
fn failed_inference_fails_the_smoke_test() {
    let standin = StandIn::start(Options::default());
    store_broken(&standin);
    let parts = ["m is started, but does not answer the smoke test", "shape"];
    fails(&standin, &["start", "m", "--smoke-test"], 8, &parts);
    assert_eq!(deployments(&standin)[0]["state"], "started");
}

#[test]
fn list_shows_models_with_their_deployments() {
    let standin = stored(Options { nodes: 2, ..Options::default() });
    says(&done(&StandIn::start(Options::default()), &["list"]), &["lang_ident_model_1"]);
    let body = json!({"model_type": "pytorch", "inference_config": {"text_embedding": {}},
        "metadata": {"hub_model_id": "org/name", "hub_commit": "0123456789abcdef0123456789abcdef01234567"}});
    assert_eq!(ask(&standin, "PUT", &format!("{MODELS}/from-hub"), Some(&body)).0, 200);
    done(&standin, &["start", "m"]);
    done(&standin, &["start", "m", "--deployment-id", "second", "--number-of-allocations", "2"]);

    let table = done(&standin, &["list"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    says(lines[0], &["MODEL", "TASK", "SIZE", "STATE", "ALLOCATIONS", "HUB ID", "COMMIT"]);
    says(lines[1], &["from-hub", "text_embedding", "not deployed", "org/name", "0123456789ab"]);
    says(lines[2], &["lang_ident_model_1", "lang_ident ", "MiB"]);
    assert!(!lines[2].contains("deployed"), "{table}");
    says(lines[3], &["m ", "ner", "KiB", "started", "1/1"]);
    says(lines[4], &["m ", "second", "started", "2/2"]);
    assert_eq!(done(&standin, &["list", "from*"]).lines().count(), 2);
    assert_eq!(done(&standin, &["list", "x*"]), "no models\n");
    assert_eq!(done(&standin, &["list", "x"]), "no models\n");

    let list = json_of(&standin, &["list"]);
    let models = list["models"].as_array().unwrap();
    assert_eq!(models[0]["hub_commit"], body["metadata"]["hub_commit"]);
    assert_eq!(models[2]["deployments"][1]["deployment_id"], "second");
    assert_eq!(models[2]["deployments"][1]["allocations"], 2);
    assert!(models[2]["size_bytes"].as_u64().unwrap() > 10_000);
    assert_eq!(json_of(&standin, &["list", "x*"]), json!({"models": []}));
}

#[test]
fn list_reads_all_pages() {
    let existing_models = (0..2100).map(|n| format!("model-{n:04}")).collect();
    let standin = StandIn::start(Options { existing_models, ..Options::default() });
    let list = json_of(&standin, &["list"]);
    let models = list["models"].as_array().unwrap();
    // And the one that every cluster has.
    assert_eq!(models.len(), 2101);
    assert_eq!(models[2100]["model_id"], "model-2099");
    let pages: Vec<_> = standin.requests().into_iter().map(|request| request.query).collect();
    assert!(pages.contains(&"from=2000&size=1000".to_owned()), "{pages:?}");
}

#[test]
fn status_reports_definition_and_deployments() {
    let standin = stored(Options { in_pipelines: vec!["m".into()], ..Options::default() });
    let output = run(&standin, &["status", "m"]);
    assert_eq!(code(&output), 8);
    says(printed(&output), &["definition  complete", "pipelines   1", "deployments none"]);
    says(&message(&output), &["m is not deployed", "rust-eland start m"]);

    done(&standin, &["start", "m", "--deployment-id", "d"]);
    let text = done(&standin, &["status", "m"]);
    says(&text, &["d ", "started", "1/1", "standin"]);
    assert_eq!(done(&standin, &["status", "d"]), text);
    let status = json_of(&standin, &["status", "m"]);
    assert_eq!(status["definition_complete"], true);
    assert_eq!(status["served"], true);
    assert_eq!(status["deployments"][0]["nodes"][0]["state"], "started");

    let body = json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
    assert_eq!(ask(&standin, "PUT", &format!("{MODELS}/half"), Some(&body)).0, 200);
    let output = run(&standin, &["status", "half"]);
    assert_eq!(code(&output), 8);
    says(printed(&output), &["INCOMPLETE"]);
    says(&message(&output), &["upload of half is not complete"]);
    fails(&standin, &["status", "absent"], 6, &["no model or deployment absent"]);
    // Every cluster has one model that is not a PyTorch model.
    says(&done(&standin, &["status", "lang_ident_model_1"]), &["lang_ident"]);
}

#[test]
fn status_of_older_versions_omits_missing_fields() {
    let standin = stored(old("8.7.0"));
    let started = json_of(&standin, &["start", "m"]);
    assert_eq!((&started["deployment_id"], &started["state"]), (&json!("m"), &json!("started")));
    let status = json_of(&standin, &["status", "m"]);
    assert_eq!(status["served"], true);
    assert!(status.get("definition_complete").is_none());
    says(&done(&standin, &["list"]), &["m ", "started", "1/1"]);
    assert_eq!(done(&standin, &["stop", "m"]), "m stopped\n");
    assert_eq!(done(&standin, &["delete", "m"]), "m deleted\n");
}

#[test]
fn stop_stops_deployments() {
    let standin = stored(Options::default());
    for id in ["one", "two", "three"] {
        done(&standin, &["start", "m", "--deployment-id", id]);
    }
    assert_eq!(done(&standin, &["stop", "two"]), "two stopped\n");
    assert_eq!(done(&standin, &["stop", "m", "--deployment-id", "one"]), "one stopped\n");
    fails(&standin, &["stop", "m", "--deployment-id", "one"], 6, &["no deployment one"]);
    let stopped = json_of(&standin, &["stop", "m"]);
    assert_eq!(stopped, json!({"model_id": "m", "stopped": ["three"]}));
    assert_eq!(done(&standin, &["stop", "m"]), "m is not deployed\n");
    fails(&standin, &["stop", "absent"], 6, &["absent", "rust-eland list"]);
    fails(&standin, &["stop", "*"], 2, &["not the id of one"]);
}

#[test]
fn model_in_use_is_stopped_and_deleted_with_force_only() {
    let pipelines = Options { in_pipelines: vec!["m".into()], ..Options::default() };
    let endpoints = Options { in_inference_endpoints: vec!["m".into()], ..Options::default() };
    for (options, parts) in [
        (pipelines, ["referenced by ingest processors", "GET _ingest/pipeline"]),
        (endpoints, ["inference endpoint", "GET _inference/_all"]),
    ] {
        let standin = stored(options);
        done(&standin, &["start", "m"]);
        let parts = [parts[0], parts[1], "--force"];
        fails(&standin, &["stop", "m"], 6, &parts);
        done(&standin, &["stop", "m", "--force"]);
        fails(&standin, &["delete", "m"], 6, &parts);
        assert_eq!(standin.model_ids(), ["m"]);
        let deleted = json_of(&standin, &["delete", "m", "--force"]);
        assert_eq!(deleted, json!({"model_id": "m", "deleted": true}));
        assert!(standin.model_ids().is_empty());
    }
}

#[test]
fn delete_removes_a_model() {
    let standin = stored(Options::default());
    done(&standin, &["start", "m"]);
    fails(&standin, &["delete", "m"], 6, &["currently deployed", "rust-eland stop", "--force"]);
    done(&standin, &["delete", "m", "--force"]);
    fails(&standin, &["delete", "m"], 6, &["no model or deployment m", "rust-eland list"]);
    fails(&standin, &["delete", "lang_ident_model_1"], 6, &["required by machine learning"]);
    fails(&standin, &["delete", "m*"], 2, &["not the id of one"]);
}

#[test]
fn closed_standard_output_is_not_an_error() {
    let existing_models = (0..1500).map(|n| format!("model-{n:04}")).collect();
    let standin = StandIn::start(Options { existing_models, ..Options::default() });
    let mut child = program()
        .args(["list", "--url", &standin.url(), "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", message(&output));
    assert_eq!(message(&output), "");
}
