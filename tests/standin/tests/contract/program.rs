//! The program: its first line, its options, and its end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{get, post, put, send};

/// A running program, killed on drop.
struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_standin"))
            .arg("--data")
            .arg(data)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Self { child, url }
    }

    /// Stops the program with a signal and returns its output after the first line.
    fn end(mut self, signal: &str) -> String {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn program_keeps_models_over_a_restart_and_stops_on_a_signal() {
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(data.path(), &["--version", "8.18.0"]);
    assert_eq!(get(&program.url, "/").ok()["version"]["number"], "8.18.0");
    let configuration =
        serde_json::json!({"model_type": "pytorch", "inference_config": {"ner": {}}});
    put(&program.url, "/_ml/trained_models/m", &configuration).ok();
    assert_eq!(program.end("-TERM"), "");
    let program = Program::start(data.path(), &["--serverless"]);
    get(&program.url, "/_ml/trained_models/m").ok();
    assert_eq!(get(&program.url, "/").ok()["version"]["build_flavor"], "serverless");
    program.end("-INT");
}

#[test]
fn program_keeps_tree_models_and_pipelines_over_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let model = "/_ml/trained_models/trees";
    let tree =
        serde_json::json!({"tree": {"feature_names": [], "tree_structure": [{"leaf_value": 2.5}]}});
    let ensemble = serde_json::json!({
        "trained_models": [tree], "aggregate_output": {"weighted_sum": {}}, "target_type": "regression"
    });
    let configuration = serde_json::json!({
        "inference_config": {"regression": {}},
        "input": {"field_names": ["x"]},
        "definition": {"trained_model": {"ensemble": ensemble}},
    });
    let pipeline = serde_json::json!({"processors": [{"inference": {"model_id": "trees"}}]});
    let program = Program::start(data.path(), &["--license", "enterprise"]);
    assert_eq!(get(&program.url, "/_license").ok()["license"]["type"], "enterprise");
    put(&program.url, model, &configuration).ok();
    put(&program.url, "/_ingest/pipeline/p", &pipeline).ok();
    let before = get(&program.url, model).ok();
    program.end("-TERM");

    let program = Program::start(data.path(), &["--license", "basic"]);
    assert_eq!(get(&program.url, "/_license").ok()["license"]["type"], "basic");
    assert_eq!(get(&program.url, model).ok(), before);
    assert_eq!(get(&program.url, "/_ingest/pipeline/p").ok()["p"], pipeline);
    program.end("-TERM");

    let program = Program::start(data.path(), &[]);
    let documents = serde_json::json!({"docs": [{"x": 1}]});
    let answer = post(&program.url, &format!("{model}/_infer"), &documents).ok();
    assert_eq!(answer["inference_results"][0]["predicted_value"], 2.5);
    let delete = |path: &str| send(&program.url, "DELETE", path, &[], b"");
    delete(model).refused(409, "status_exception", "ingest processors");
    delete("/_ingest/pipeline/p").ok();
    delete(model).ok();
    assert_eq!(get(&program.url, model).status, 404);
    program.end("-TERM");
    let program = Program::start(data.path(), &[]);
    assert_eq!(get(&program.url, model).status, 404);
}

#[test]
fn program_requires_the_configured_credentials() {
    let data = tempfile::tempdir().unwrap();
    let options = ["--user", "elastic", "--password", "secret", "--api-key", "aWQ6a2V5"];
    let program = Program::start(data.path(), &options);
    assert_eq!(get(&program.url, "/").status, 401);
    send(&program.url, "GET", "/", &[("authorization", "ApiKey aWQ6a2V5")], b"").ok();
    let basic = [("authorization", "Basic ZWxhc3RpYzpzZWNyZXQ=")];
    send(&program.url, "GET", "/", &basic, b"").ok();
}

#[test]
fn program_injects_the_configured_faults() {
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(data.path(), &["--fault", "info@2-3=502", "--body-limit", "10"]);
    let statuses = [0; 4].map(|_| get(&program.url, "/").status);
    assert_eq!(statuses, [200, 502, 502, 200]);
    let configuration = serde_json::json!({"model_type": "pytorch"});
    assert_eq!(put(&program.url, "/_ml/trained_models/m", &configuration).status, 413);
    drop(program);
    let always = ["--random-faults", "1000", "--fault-seed", "7", "--fault-kinds", "rejected"];
    let program = Program::start(data.path(), &always);
    assert_eq!(get(&program.url, "/").status, 429);
}

#[test]
fn invalid_options_are_rejected() {
    let program = env!("CARGO_BIN_EXE_standin");
    for arguments in [
        &["--data", "/tmp", "--version", "7.17.0"][..],
        &["--port", "0"],
        &["--data", "/tmp", "--fault", "part=explode"],
        &["--data", "/dev/null/x"],
    ] {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(!output.status.success());
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}
