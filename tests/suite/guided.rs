//! `import` without arguments asks on a terminal, and never without one.

use std::path::Path;
use std::process::Stdio;

use standin::{Credential, Options, StandIn};

use crate::fixtures::Fixture;
use crate::fronts::Canned;
use crate::program::{ask, message, program, says};
use crate::terminal::Terminal;

fn model() -> String {
    Fixture::named("bert/st-mean").model().display().to_string()
}

/// Answers the questions up to the plan, and returns the output including the plan.
fn answer(terminal: &mut Terminal, url: &str) -> String {
    terminal.connect(url);
    terminal.wait_for("connected to Elasticsearch 9.5.0");
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line("/no/such/folder");
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(&model());
    terminal.wait_for("Task");
    terminal.wait_for("text_embedding (modules.json");
    terminal.type_text("\r");
    terminal.wait_for("Id of the model in Elasticsearch");
    terminal.type_line("Not An Id");
    terminal.answer_last_questions("mine", "y");
    terminal.wait_for("Import the model?")
}

#[test]
fn import_without_options_asks_on_a_terminal() {
    let standin = StandIn::start(Options::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    let plan = answer(&mut terminal, &standin.url());
    says(
        &plan,
        &[
            "architecture    bert",
            "chosen          text_embedding",
            "accepts it      yes",
            "PUT _ml/trained_models/mine",
            "To run this import without questions",
        ],
    );
    let line = plan.lines().find(|line| line.contains("rust-eland import --url")).unwrap().trim();
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/mine", None).0, 404);
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    says(&rest, &["mine started", "mine is imported"]);
    // The printed command line is equivalent to the answers.
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let again = program().args(words).args(["--on-conflict", "skip"]).output().unwrap();
    assert!(again.status.success(), "{line}: {}", message(&again));
    assert_eq!(String::from_utf8_lossy(&again.stdout), "mine started\n");
}

#[test]
fn guided_import_asks_for_the_adapter_the_dimensions_and_the_prompts() {
    let standin = StandIn::start(Options::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("Model: its hub id, a folder");
    let model = Fixture::named("jina3/jina-embeddings-v3").model();
    terminal.type_line(&model.display().to_string());
    let down_and_enter = "\u{1b}[B\r";
    terminal.wait_for("LoRA adapter for the task");
    terminal.type_text(down_and_enter);
    terminal.wait_for("text_embedding (");
    terminal.type_text("\r");
    terminal.wait_for("Dimensions of the embeddings");
    terminal.type_text(down_and_enter);
    let asked = terminal.wait_for("to documents?");
    says(&asked, &["Represent the query for retrieving evidence documents"]);
    terminal.type_text("y");
    terminal.answer_last_questions("mine", "n");
    let plan = terminal.wait_for("Import the model?");
    says(&plan, &["--lora-task retrieval.query", "--dimensions ", "--prompts"]);
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    let stored = standin.configuration("mine").unwrap();
    assert_eq!(stored["metadata"]["lora_task"], "retrieval.query", "{stored}");
    assert!(stored["prefix_strings"]["search"].is_string(), "{stored}");
}

#[test]
fn guided_import_without_confirmation_stores_nothing() {
    let standin = StandIn::start(Options::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    answer(&mut terminal, &standin.url());
    terminal.type_text("n");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    says(&rest, &["Nothing was stored"]);
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/mine", None).0, 404);
}

#[test]
fn guided_import_reports_a_wrong_password_and_hides_it() {
    let credentials = vec![Credential::user("elastic", "right-secret")];
    let standin = StandIn::start(Options { credentials, ..Options::default() });
    let url = standin.url();
    let mut terminal = Terminal::start(&["import"], &[("ES_URL", &url)]);
    let mut shown = String::new();
    for password in ["wrong-secret", "right-secret"] {
        shown += &terminal.wait_for("Address or cloud ID of the cluster");
        terminal.type_line("");
        shown += &terminal.wait_for("How do you log in?");
        terminal.type_text("\r");
        shown += &terminal.wait_for("User name");
        terminal.type_line("");
        shown += &terminal.wait_for("Password");
        terminal.wait_until_hidden();
        terminal.type_line(password);
    }
    shown += &terminal.wait_for("connected to Elasticsearch");
    says(&shown, &["does not accept the credentials"]);
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(&model());
    terminal.wait_for("Task");
    terminal.type_text("\r");
    terminal.wait_for("Id of the model");
    terminal.type_line("mine");
    terminal.wait_for("8-bit");
    terminal.type_text("y");
    terminal.wait_for("Start the model");
    terminal.type_text("n");
    terminal.wait_for("Address of Kibana");
    terminal.type_line("");
    let plan = terminal.wait_for("Import the model?");
    says(&plan, &["--es-username elastic", "--quantize", "ES_PASSWORD"]);
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    for text in [&shown, &plan, &rest] {
        assert!(!text.contains("-secret"), "{text}");
    }
}

#[test]
fn import_without_a_terminal_asks_nothing() {
    let usage = |mut command: std::process::Command| {
        let output = command.arg("import").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", message(&output));
        says(&message(&output), &["required", "--hub-model-id", "Usage"]);
        assert!(output.stdout.is_empty());
    };
    usage(program());
    // Without a terminal on standard error the questions would be invisible, so a terminal on standard input is not sufficient.
    let log = tempfile::NamedTempFile::new().unwrap();
    let line = format!("{} import 2>{}", env!("CARGO_BIN_EXE_rust-eland"), log.path().display());
    let (text, code) = Terminal::start_program(Path::new("sh"), &["-c", &line], &[]).end();
    assert_eq!((text.as_str(), code), ("", Some(2)));
    says(&std::fs::read_to_string(log.path()).unwrap(), &["required"]);
}

#[test]
fn guided_import_of_a_tree_model_asks_for_names_and_labels() {
    let standin = StandIn::start(Options::default());
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("the file of a tree model");
    terminal.type_line("tests/fixtures/trees/xgboost-dump.json");
    terminal.wait_for("save_model");
    terminal.wait_for("the file of a tree model");
    terminal.type_line("tests/fixtures/trees/xgboost-3.2.0-softprob.ubj");
    terminal.wait_for("Id of the model in Elasticsearch");
    terminal.type_line("mine");
    terminal.wait_for("Names of the document fields of the 5 features");
    terminal.type_line("a,b");
    terminal.wait_for("Names of the document fields of the 5 features");
    terminal.type_line("a,b,c,d,e");
    terminal.wait_for("Labels of the classes");
    terminal.type_line("low,middle,high");
    terminal.wait_for("Ingest pipeline to create");
    terminal.type_line("score");
    terminal.wait_for("Address of Kibana");
    terminal.type_line("");
    let plan = terminal.wait_for("Import the model?");
    says(
        &plan,
        &[
            "multi:softprob",
            "a: number",
            "labels       low, middle, high",
            "--feature-names a,b,c,d,e",
            "--create-pipeline score",
        ],
    );
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    says(&rest, &["mine stored"]);
    assert_eq!(ask(&standin, "GET", "/_ml/trained_models/mine", None).0, 200);
    assert_eq!(ask(&standin, "GET", "/_ingest/pipeline/score", None).0, 200);
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn guided_import_creates_a_pipeline_and_synchronizes_kibana() {
    let standin = StandIn::start(Options::default());
    let answer = r#"{"savedObjectsCreated": {}, "savedObjectsDeleted": {}}"#;
    let kibana = Canned::with("200 OK", "", answer);
    let mut terminal = Terminal::start(&["import"], &[]);
    terminal.connect(&standin.url());
    terminal.wait_for("Model: its hub id, a folder");
    terminal.type_line(&model());
    terminal.wait_for("text_embedding (");
    terminal.type_text("\r");
    terminal.wait_for("Id of the model in Elasticsearch");
    terminal.type_line("mine");
    terminal.wait_for("8-bit integers");
    terminal.type_text("n");
    terminal.wait_for("Start the model after the upload?");
    terminal.type_text("y");
    terminal.wait_for("Compare the answers of the started model");
    terminal.type_text("y");
    terminal.wait_for("Ingest pipeline to create");
    terminal.type_line("a/b");
    terminal.wait_for("Ingest pipeline to create");
    terminal.type_line("vectors");
    terminal.wait_for("Field of the documents with the text");
    terminal.type_line("text");
    terminal.wait_for("Address of Kibana");
    terminal.type_line("kibana:5601");
    terminal.wait_for("Address of Kibana");
    terminal.type_line(&kibana.url());
    let plan = terminal.wait_for("Import the model?");
    let options = ["--verify-served", "--create-pipeline vectors", "--input-field text"];
    says(&plan, &[&options[..], &["--kibana-url http://"]].concat());
    terminal.type_text("y");
    let (rest, code) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    says(&rest, &["vectors created", "Kibana lists the model", "64 of 64"]);
    assert_eq!(kibana.heads().len(), 1);
    assert_eq!(ask(&standin, "GET", "/_ingest/pipeline/vectors", None).0, 200);
}
