//! `--prompts`, `--create-endpoint`, and the summary at the end of an import.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use standin::{Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::program::{ask, message, message_without_tokenizer_warnings, program, says};

/// Imports a bundle, or a model's folder.
fn import(standin: &StandIn, model: &Path, more: &[&str]) -> Output {
    let kind = if model.is_dir() { "--hub-model-id" } else { "--bundle" };
    let arguments = ["import", "--es-model-id", "m", "--url", &standin.url(), kind];
    program().args(arguments).arg(model).args(more).output().unwrap()
}

#[track_caller]
fn done(standin: &StandIn, model: &Path, more: &[&str]) -> Value {
    let output = import(standin, model, &[more, &["--output", "json"]].concat());
    assert!(output.status.success(), "{}", message(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(standin: &StandIn, model: &Path, more: &[&str], code: i32, parts: &[&str]) {
    let output = import(standin, model, more);
    assert_eq!(output.status.code(), Some(code), "{}", message(&output));
    says(&message(&output), parts);
    assert!(output.stdout.is_empty());
}

#[cfg(feature = "torch")]
fn model_of(name: &str) -> std::path::PathBuf {
    crate::fixtures::Fixture::named(name).model()
}

/// An embedding model that declares prompts and a similarity.
#[cfg(feature = "torch")]
fn declaring(usage: &Value) -> tempfile::TempDir {
    use std::fs;

    use crate::from_hub::files_below;

    let folder = tempfile::tempdir().unwrap();
    let model = model_of("bert/st-mean");
    for file in files_below(&model) {
        let to = folder.path().join(file.strip_prefix(&model).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    fs::write(folder.path().join("config_sentence_transformers.json"), usage.to_string()).unwrap();
    folder
}

fn stored(standin: &StandIn) -> Value {
    ask(standin, "GET", "/_ml/trained_models/m", None).1["trained_model_configs"][0].clone()
}

fn endpoint(standin: &StandIn, id: &str) -> Option<Value> {
    let (status, answer) = ask(standin, "GET", &format!("/_inference/{id}"), None);
    (status == 200).then(|| answer["endpoints"][0].clone())
}

const FRESH: &str = "--clear-previous";

#[cfg(feature = "torch")]
#[test]
fn declared_prompts_become_prefixes() {
    let standin = StandIn::start(Options::default());
    let prompts = json!({"prompts": {"query": "q: ", "passage": "p: ", "other": "o: "}});
    let model = declaring(&prompts);
    let output = import(&standin, model.path(), &[FRESH]);
    assert!(output.status.success(), "{}", message(&output));
    let expected = r#"expects "q: " before queries and "p: " before documents"#;
    says(&message(&output), &[expected, "--prompts"]);
    assert_eq!(stored(&standin)["prefix_strings"], Value::Null);
    done(&standin, model.path(), &[FRESH, "--prompts"]);
    assert_eq!(stored(&standin)["prefix_strings"], json!({"ingest": "p: ", "search": "q: "}));
    // An option overrides the declared prompt.
    done(&standin, model.path(), &[FRESH, "--prompts", "--search-prefix", "mine "]);
    assert_eq!(stored(&standin)["prefix_strings"], json!({"ingest": "p: ", "search": "mine "}));

    // A prompt for all texts, and an empty one.
    let model = declaring(&json!({
        "prompts": {"all": "x: ", "document": "", "unset": null}, "default_prompt_name": "all"
    }));
    done(&standin, model.path(), &[FRESH, "--prompts"]);
    assert_eq!(stored(&standin)["prefix_strings"], json!({"search": "x: "}));

    for (usage, has) in [
        (json!({"prompts": {"classification": "c: "}}), "only for classification"),
        (json!({"prompts": null}), "declares no prompt"),
    ] {
        let model = declaring(&usage);
        fails(
            &standin,
            model.path(),
            &[FRESH, "--prompts"],
            3,
            &["--prompts", has, "--search-prefix"],
        );
    }
    let old = StandIn::start(Options { version: "8.11.0".parse().unwrap(), ..Options::default() });
    let model = declaring(&prompts);
    fails(&old, model.path(), &["--prompts"], 6, &["8.12.0"]);
}

#[cfg(feature = "torch")]
#[test]
fn endpoint_has_the_similarity_of_the_model() {
    for (declared, of_field, of_endpoint) in [
        (json!("dot"), "max_inner_product", json!("dot_product")),
        (json!("euclidean"), "l2_norm", json!("l2_norm")),
        (Value::Null, "cosine", json!("cosine")),
    ] {
        let standin = StandIn::start(Options::default());
        let model = declaring(&json!({"similarity_fn_name": declared}));
        let printed = done(&standin, model.path(), &["--create-endpoint", "e"]);
        assert_eq!(
            printed["endpoint"],
            json!({"inference_id": "e", "task_type": "text_embedding", "state": "created"})
        );
        let field = json!({"type": "dense_vector", "dims": 32, "similarity": of_field});
        assert_eq!(printed["next"]["dense_vector"], field);
        let semantic = json!({"type": "semantic_text", "inference_id": "e"});
        assert_eq!(printed["next"]["semantic_text"], semantic);
        let made = endpoint(&standin, "e").unwrap();
        let settings = &made["service_settings"];
        assert_eq!((&settings["model_id"], &settings["similarity"]), (&json!("m"), &of_endpoint));
        // The endpoint starts the model, without a start request.
        let (_, stats) = ask(&standin, "GET", "/_ml/trained_models/m/_stats", None);
        let deployment = &stats["trained_model_stats"][0]["deployment_stats"];
        assert_eq!(
            (&deployment["deployment_id"], &deployment["state"]),
            (&json!("e"), &json!("started"))
        );
    }
}

#[test]
fn endpoint_uses_the_deployment_of_start() {
    let standin = StandIn::start(Options::default());
    for (of_model, task) in [("text_similarity", "rerank"), ("text_expansion", "sparse_embedding")]
    {
        let id = task.replace('_', "-");
        let more = ["--start", "--create-endpoint", &id, FRESH];
        let printed = done(&standin, &bundle(of_model), &more);
        assert_eq!(printed["endpoint"]["task_type"], task);
        assert_eq!(endpoint(&standin, &id).unwrap()["service_settings"]["deployment_id"], "m");
        let (_, stats) = ask(&standin, "GET", "/_ml/trained_models/m/_stats", None);
        assert_eq!(stats["trained_model_stats"].as_array().unwrap().len(), 1, "{stats}");
        let asked = &printed["next"]["endpoint"];
        assert_eq!(asked["path"], format!("_inference/{task}/{id}"));
        assert_eq!(ask(&standin, "DELETE", &format!("/_inference/{id}"), None).0, 200);
        assert_eq!(ask(&standin, "POST", "/_ml/trained_models/m/deployment/_stop", None).0, 200);
    }
}

#[test]
fn existing_endpoint_is_accepted_for_the_same_model_only() {
    let standin = StandIn::start(Options::default());
    let model = bundle("text_embedding");
    let skip = ["--on-conflict", "skip", "--create-endpoint", "e"];
    done(&standin, &model, &skip);
    let again = done(&standin, &model, &skip);
    assert_eq!(
        (&again["state"], &again["endpoint"]["state"]),
        (&json!("unchanged"), &json!("unchanged"))
    );

    let output = program()
        .args([
            "import",
            "--url",
            &standin.url(),
            "--es-model-id",
            "other",
            "--create-endpoint",
            "e",
        ])
        .arg("--bundle")
        .arg(&model)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", message(&output));
    says(&message(&output), &["already has an inference endpoint e", "text_embedding by m"]);
    // Rejected before the import begins.
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/other", None).0, 404);
}

#[test]
fn task_without_endpoint_is_rejected_before_the_import() {
    let standin = StandIn::start(Options::default());
    let of_id = |id: &'static str| ["--create-endpoint", id];
    let refused = &["no inference endpoints for the task ner"];
    fails(&standin, &bundle("ner"), &of_id("e"), 2, refused);
    #[cfg(feature = "torch")]
    for task in [&["--task-type", "ner"][..], &[]] {
        fails(&standin, &model_of("bert/ner"), &[task, &of_id("e")].concat(), 2, refused);
    }
    let model = bundle("text_embedding");
    fails(&standin, &model, &of_id("Not-One"), 2, &["lower-case"]);
    fails(&standin, &model, &of_id("m"), 2, &["cannot have the id of the model"]);
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/m", None).0, 404);

    let of = |version: &str| {
        StandIn::start(Options { version: version.parse().unwrap(), ..Options::default() })
    };
    let needs = &["the inference endpoint needs Elasticsearch 8.13.0 or later"];
    fails(&of("8.12.0"), &model, &of_id("e"), 6, needs);
    fails(&of("8.13.0"), &bundle("text_similarity"), &of_id("e"), 6, &["8.14.0"]);
    let old = of("8.17.0");
    fails(&old, &model, &["--start", "--create-endpoint", "e"], 2, &["Leave out --start"]);
    done(&old, &model, &of_id("e"));
}

#[test]
fn failed_endpoint_keeps_the_model() {
    let options = Options { allocated_processors: 0, ..Options::default() };
    let standin = StandIn::start(options);
    let model = bundle("text_embedding");
    let parts = ["the model m is stored, but the inference endpoint e could not be created"];
    fails(&standin, &model, &["--create-endpoint", "e"], 8, &parts);
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/m", None).0, 200);
}

#[cfg(feature = "torch")]
#[test]
fn import_prints_summary_and_suggestions() {
    use std::fs;

    let standin = StandIn::start(Options::default());
    for (name, task, words) in [
        ("bert/st-mean", "text_embedding", ["\"dims\":32", "\"similarity\":\"cosine\""]),
        (
            "bert/cross-encoder",
            "text_similarity",
            ["PUT _inference/rerank/m-endpoint", "num_threads"],
        ),
        (
            "bert/masked-lm",
            "text_expansion",
            ["PUT _inference/sparse_embedding/m-endpoint", "\"m\""],
        ),
        ("bert/ner", "ner", ["Ada Lovelace", "docs"]),
        ("bert/question-answering", "question_answering", ["\"question\":", "docs"]),
    ] {
        let output = import(&standin, &model_of(name), &["--task-type", task, "--start", FRESH]);
        assert!(output.status.success(), "{}", message(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "m started\n");
        let definition = fs::metadata(standin.definition("m").unwrap()).unwrap().len();
        let sha256 = stored(&standin)["metadata"]["definition_sha256"].as_str().unwrap().to_owned();
        let text = message(&output);
        says(&text, &["m is imported", "parameters ", "in one part", &sha256, "took  "]);
        says(&text, &["deployment  m started, 1 of 1 allocations", "Kibana lists the model"]);
        says(&text, &["POST _ml/trained_models/m/_infer"]);
        says(&text, &words);
        assert!(definition > 0 && !text.contains("Start the model:"), "{text}");
    }
    // The suggested request works unchanged.
    let printed = done(&standin, &model_of("bert/zero-shot"), &["--start", FRESH]);
    let infer = &printed["next"]["infer"];
    let path = format!("/{}", infer["path"].as_str().unwrap());
    let (status, answer) = ask(&standin, "POST", &path, Some(&infer["body"]));
    assert_eq!(status, 200, "{answer}");
    assert!(printed["timings"]["stages"].as_array().unwrap().len() > 3, "{printed}");
    assert_eq!(printed["parts"], 1);
    // The suggested request for the endpoint works too.
    let printed =
        done(&standin, &model_of("bert/cross-encoder"), &["--task-type", "text_similarity", FRESH]);
    let create = &printed["next"]["create_endpoint"];
    let path = format!("/{}", create["path"].as_str().unwrap());
    let (status, answer) = ask(&standin, "PUT", &path, Some(&create["body"]));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(printed["next"]["start"], "rust-eland start m");

    let output = program()
        .args(["import", "--quiet", "--es-model-id", "quiet", "--url", &standin.url()])
        .arg("--hub-model-id")
        .arg(model_of("bert/st-mean"))
        .output()
        .unwrap();
    assert_eq!(message_without_tokenizer_warnings(&output), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "quiet stored\n");
}
