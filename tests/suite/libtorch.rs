//! libtorch is loaded by the commands that need a graph, and by no others. Loading takes half a second.

use std::fs;
use std::process::Output;

use standin::{Options, StandIn};

use crate::program::{message, program};

/// Runs the program. Also returns whether it loaded libtorch, according to the loader of glibc.
fn run(arguments: &[&str]) -> (Output, bool) {
    let folder = tempfile::tempdir().unwrap();
    let output = program()
        .args(arguments)
        .env("LD_DEBUG", "files")
        .env("LD_DEBUG_OUTPUT", folder.path().join("loader"))
        .output()
        .unwrap();
    let logs = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<String> = logs.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(logs.iter().any(|log| log.contains("libc.so")), "the loader wrote no log");
    (output, logs.iter().any(|log| log.contains("libtorch_cpu")))
}

#[track_caller]
fn runs_without_libtorch(arguments: &[&str]) {
    let (output, is_loaded) = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", message(&output));
    assert!(
        !is_loaded,
        "{arguments:?} loaded libtorch; LD_DEBUG=files shows when, and a breakpoint on re_load in gdb shows where"
    );
}

const TREES: &str = "tests/fixtures/trees/lightgbm-3.3.5-binary.txt";

#[test]
fn commands_without_a_graph_do_not_load_libtorch() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    runs_without_libtorch(&["--version"]);
    runs_without_libtorch(&["--help"]);
    runs_without_libtorch(&["completions", "bash"]);
    runs_without_libtorch(&["man", "import"]);
    for command in rust_eland::cli::definition().get_subcommands() {
        runs_without_libtorch(&[command.get_name(), "--help"]);
    }
    runs_without_libtorch(&["inspect", "--tree-model", TREES]);
    runs_without_libtorch(&[
        "export",
        "--tree-model",
        TREES,
        "--es-model-id",
        "t",
        "--output",
        folder,
    ]);
}

#[test]
fn commands_on_a_cluster_do_not_load_libtorch() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let on_cluster = |command: &str, more: &[&str]| {
        runs_without_libtorch(&[&[command, "--url", &url][..], more].concat());
    };
    let bundle = program()
        .args(["import", "--url", &url, "--bundle", "tests/fixtures/bundles/ner.metadata.json"])
        .args(["--es-model-id", "m"])
        .output()
        .unwrap();
    assert!(bundle.status.success(), "{}", message(&bundle));
    on_cluster("import", &["--tree-model", TREES, "--es-model-id", "t"]);
    on_cluster("check", &[]);
    on_cluster("list", &[]);
    on_cluster("start", &["m"]);
    on_cluster("status", &["m"]);
    on_cluster("infer", &["--es-model-id", "m", "Berlin"]);
    on_cluster("stop", &["m"]);
    on_cluster("delete", &["m"]);
}

#[test]
fn conversion_loads_libtorch() {
    // Proves that the other tests would notice.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let model = "tests/fixtures/bert/st-mean/model";
    let (output, is_loaded) = run(&["export", "--hub-model-id", model, "--output", folder]);
    assert!(output.status.success(), "{}", message(&output));
    assert!(is_loaded);
}
