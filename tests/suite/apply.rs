//! `rust-eland apply`: many imports from one file.

use std::fs;
use std::io::Read;
use std::process::{Output, Stdio};

use serde_json::Value;
use standin::{Credential, Options, StandIn};

use crate::bundle_fixtures::bundle;
use crate::fixtures::{Fixture, copy};
use crate::from_hub::{Cache, asked, serving};
use crate::processes::{end, held, signal, spawn, wait_for};
use crate::program::{message, program, says};
use crate::terminal::Terminal;
use crate::uploads::rules;

/// A folder with two models and a file of imports.
struct Folder(tempfile::TempDir);

const FILE: &str = "\
defaults:
  start: true
models:
  - hub-model-id: ./embedder
    es-model-id: embedder
    task-type: text_embedding
    search-prefix: 'query: '
  - hub-model-id: ./tagger
    es-model-id: tagger
    start: false
";

/// A file that imports bundles, so that nothing is converted.
fn bundles() -> String {
    let path = |task| bundle(task).display().to_string();
    format!(
        "defaults:\n  start: true\nmodels:\n  - bundle: {}\n    es-model-id: embedder\n  - bundle: {}\n    es-model-id: tagger\n    start: false\n",
        path("text_embedding"),
        path("ner")
    )
}

impl Folder {
    fn new(file: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, fixture) in [("embedder", "bert/st-mean"), ("tagger", "bert/ner")] {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            copy(&Fixture::named(fixture).model(), &folder);
        }
        let folder = Self(root);
        folder.write(file);
        folder
    }

    fn write(&self, file: &str) {
        fs::write(self.0.path().join("models.yaml"), file).unwrap();
    }

    fn apply(&self, arguments: &[&str]) -> Output {
        let apply = ["apply", "models.yaml"];
        program().args(apply).args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    /// The document of `--output json`, and the exit code.
    fn document(&self, standin: &StandIn) -> (Value, Option<i32>, String) {
        let output = self.apply(&["--url", &standin.url(), "--output", "json"]);
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (document, output.status.code(), message(&output))
    }
}

/// The values of `key`, one per model.
fn each<'a>(document: &'a Value, key: &str) -> Vec<&'a Value> {
    document["models"].as_array().unwrap().iter().map(|model| &model[key]).collect()
}

/// Number of requests that changed the cluster.
fn changes(standin: &StandIn) -> usize {
    standin.requests().iter().filter(|request| request.method == "PUT").count()
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn second_apply_of_folders_changes_nothing() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new(FILE);
    let (first, code, log) = folder.document(&standin);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(each(&first, "model_id"), ["embedder", "tagger"]);
    assert_eq!(each(&first, "result"), ["stored", "stored"]);
    assert_eq!(each(&first, "state"), [&Value::from("started"), &Value::Null]);
    assert_eq!(each(&first, "line"), [4, 8]);
    assert_eq!(first["failed"], 0);
    let stored = standin.configuration("embedder").unwrap();
    assert_eq!(stored["prefix_strings"]["search"], "query: ");
    assert_eq!(stored["metadata"]["definition_sha256"], *each(&first, "definition_sha256")[0]);

    let before = changes(&standin);
    let (second, code, log) = folder.document(&standin);
    assert_eq!((code, changes(&standin)), (Some(0), before), "{log}");
    assert_eq!(each(&second, "result"), ["unchanged", "unchanged"]);
    assert_eq!(each(&second, "definition_sha256"), each(&first, "definition_sha256"));
    assert!(log.contains("connected"), "{log}");
}

#[test]
fn second_apply_of_bundles_changes_nothing() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new(&bundles());
    let (first, code, log) = folder.document(&standin);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(each(&first, "model_id"), ["embedder", "tagger"]);
    assert_eq!(each(&first, "state"), [&Value::from("started"), &Value::Null]);
    let before = changes(&standin);
    let (second, code, log) = folder.document(&standin);
    assert_eq!((code, changes(&standin)), (Some(0), before), "{log}");
    assert_eq!(each(&second, "result"), ["unchanged", "unchanged"]);
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn folder_with_links_is_applied() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new("models:\n  - {hub-model-id: ./tagger, es-model-id: tagger}\n");
    let tagger = folder.0.path().join("tagger");
    std::os::unix::fs::symlink("/", tagger.join("everything")).unwrap();
    std::os::unix::fs::symlink("nothing", tagger.join("dangling")).unwrap();
    for expected in ["stored", "unchanged"] {
        let (document, code, log) = folder.document(&standin);
        assert_eq!((code, each(&document, "result")), (Some(0), vec![&expected.into()]), "{log}");
    }
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn hub_model_with_the_same_commit_is_not_converted_again() {
    const ID: &str = "org/tagger";
    let repository = |revision: &str| {
        let model = Fixture::named("bert/ner").model();
        let repository = hub::Repository::of_folder(ID, &model).unwrap();
        repository.file("README.md", format!("Edition {revision}."))
    };
    let (hub, cache) = (serving([repository("1")]), Cache::new());
    let standin = StandIn::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml");
    fs::write(&file, format!("models:\n  - {{hub-model-id: {ID}, es-model-id: m}}\n")).unwrap();
    let apply = || {
        let mut command = cache.program(&hub.url());
        let command = command.arg("apply").arg(&file).args(["--url", &standin.url()]);
        let output = command.args(["--output", "json"]).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let result = each(&document, "result")[0].as_str().unwrap().to_owned();
        (result, message(&output).contains("INFO : converting: "))
    };
    assert_eq!(apply(), ("stored".to_owned(), true));
    // The compared commit is the converted commit: it is requested only once.
    assert_eq!(asked(&hub, "/revision/main").len(), 1);
    let metadata = standin.configuration("m").unwrap()["metadata"].clone();
    assert_eq!(metadata["hub_commit"], repository("1").commit());

    hub.forget();
    assert_eq!(apply(), ("unchanged".to_owned(), false));
    assert_eq!(asked(&hub, "/revision/main").len(), 1);
    // The branch moves to a commit with the same weights.
    hub.replace(repository("2"));
    assert_eq!(apply(), ("unchanged".to_owned(), true));
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn model_of_another_import_is_compared_by_its_definition() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new("models:\n  - {hub-model-id: ./tagger, es-model-id: tagger}\n");
    let mut import = program();
    let import = import.args(["import", "--hub-model-id", "./tagger", "--es-model-id", "tagger"]);
    let import = import.args(["--url", &standin.url()]).current_dir(folder.0.path());
    assert!(import.output().unwrap().status.success());
    let before = changes(&standin);
    let (document, code, log) = folder.document(&standin);
    assert_eq!((code, changes(&standin)), (Some(0), before), "{log}");
    assert_eq!(each(&document, "result"), ["unchanged"]);
    assert!(log.contains("converting"), "{log}");
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn changed_model_is_replaced_with_on_conflict_update_only() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new(FILE);
    assert_eq!(folder.document(&standin).1, Some(0));
    // The definition is the same, and the configuration differs.
    let other = FILE.replace("query: ", "q: ");
    folder.write(&other);
    let before = changes(&standin);
    let (document, code, log) = folder.document(&standin);
    assert_eq!((code, changes(&standin)), (Some(0), before), "{log}");
    assert_eq!(each(&document, "result"), ["unchanged", "unchanged"]);

    folder.write(&other.replace("start: true", "start: true\n  on-conflict: update"));
    let (document, code, log) = folder.document(&standin);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(each(&document, "result"), ["stored", "unchanged"]);
    let prefix =
        |standin: &StandIn| standin.configuration("embedder").unwrap()["prefix_strings"].clone();
    assert_eq!(prefix(&standin)["search"], "q: ");
    let (document, ..) = folder.document(&standin);
    assert_eq!(each(&document, "result"), ["unchanged", "unchanged"]);

    // The definition differs.
    folder.write(FILE);
    copy(&Fixture::named("bert/base").model(), &folder.0.path().join("embedder"));
    let (document, code, _) = folder.document(&standin);
    assert_eq!(code, Some(7));
    assert_eq!(each(&document, "result"), ["failed", "unchanged"]);
    assert_eq!(prefix(&standin)["search"], "q: ");
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn failed_import_does_not_stop_the_others() {
    let standin = StandIn::start(Options::default());
    let folder = Folder::new(
        "models:\n  - {hub-model-id: ./tagger, es-model-id: scorer, task-type: text_similarity}\n\
         \x20 - {hub-model-id: ./nothing/is/here, es-model-id: nothing}\n\
         \x20 - {hub-model-id: ./tagger, es-model-id: tagger}\n",
    );
    let output = folder.apply(&["--url", &standin.url()]);
    assert_eq!(output.status.code(), Some(3));
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<_> =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        lines.iter().map(|line| line[..2].to_vec()).collect::<Vec<_>>(),
        [["MODEL", "RESULT"], ["scorer", "failed"], ["nothing", "failed"], ["tagger", "stored"]]
    );
    says(&table, &["cannot serve text_similarity", "neither an existing folder nor a hub id"]);
    says(
        &message(&output),
        &["ERROR : line 2: ./tagger: this model cannot serve", "error: 2 of 3 models"],
    );
    assert_eq!(standin.model_ids(), ["tagger"]);
}

#[test]
fn invalid_models_file_is_refused_before_any_request() {
    let standin = StandIn::start(Options::default());
    let tagger = "models:\n  - hub-model-id: ./tagger\n";
    let cases = [
        (
            "models:\n  - hub-model: ./tagger\n".to_owned(),
            "line 2: unknown option \"hub-model\": did you mean hub-model-id?",
        ),
        (
            format!("{tagger}    task_type: ner\n"),
            "line 3: unknown option \"task_type\": did you mean task-type?",
        ),
        (format!("{tagger}    task-type: embedding\n"), "did you mean 'text_embedding'?"),
        (
            format!("{tagger}    task-type: translation\n"),
            "no task for Hugging Face's pipeline tag \"translation\"",
        ),
        (format!("{tagger}    start: yes\n"), "line 3: start must be true or false, not \"yes\""),
        (format!("{tagger}    es-model-id: [a, b]\n"), "line 3: es-model-id must be one value"),
        (
            format!("{tagger}    es-password: hunter2hunter2\n"),
            "line 3: es-password is a secret and cannot be stored in the file; set the environment variable ES_PASSWORD",
        ),
        (
            format!("{tagger}    hub-access-token: hf_abcdefgh\n"),
            "set the environment variable HUB_ACCESS_TOKEN",
        ),
        (
            format!("{tagger}    header: ['Authorization: x']\n"),
            "set the environment variable ES_HEADERS",
        ),
        (
            format!("{tagger}    url: http://me:hunter2hunter2@host\n"),
            "ES_USERNAME and ES_PASSWORD",
        ),
        (
            format!("{tagger}    wait-for: started\n"),
            "line 2: the following required arguments were not provided: --start",
        ),
        (
            "models:\n  - start: true\n".to_owned(),
            "line 2: the following required arguments were not provided: <--hub-model-id",
        ),
        (
            "defaults:\n  task-type: ner\nmodels:\n  - bundle: x.metadata.json\n".to_owned(),
            "line 4: the argument '--bundle <PATH>' cannot be used with",
        ),
        (
            format!("{tagger}    quantize: all\n    target-agreement: 0.9\n"),
            "line 2: --target-agreement cannot be used with --quantize=all",
        ),
        (
            format!("{tagger}    create-pipeline: p\n"),
            "line 2: an ingest pipeline is tried before it is created",
        ),
        (
            format!("{tagger}    start: true\n    create-pipeline: p\n    output-field: body\n"),
            "line 2: the ingest pipeline p cannot store its result in the field body",
        ),
        (format!("{tagger}  - hub-model-id: ./tagger\n"), "line 3: the model id"),
        (format!("{tagger}    es-model-id: 'A B'\n"), "cannot be a model id"),
        ("models:\n  - hub-model-id: 'x\n".to_owned(), "line 2: "),
    ];
    for (file, part) in cases {
        let folder = Folder::new(&file);
        let output = folder.apply(&["--url", &standin.url()]);
        let message = message(&output);
        assert_eq!(output.status.code(), Some(2), "{file}: {message}");
        says(&message, &["error: models.yaml is invalid, so nothing was imported:", part]);
        assert!(!message.contains("hunter2") && output.stdout.is_empty(), "{message}");
    }
    // All invalid names are reported at once.
    let folder = Folder::new(&format!("{tagger}    strat: true\n    task-typ: ner\n"));
    says(&message(&folder.apply(&[])), &["line 3: ", "line 4: "]);
    fs::rename(folder.0.path().join("models.yaml"), folder.0.path().join("model.yaml")).unwrap();
    says(&message(&folder.apply(&[])), &["cannot read models.yaml", "did you mean 'model.yaml'?"]);
    assert!(standin.requests().is_empty());
}

#[cfg_attr(not(feature = "torch"), ignore = "converts a model with libtorch")]
#[test]
fn command_line_overrides_the_file_and_models_override_defaults() {
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let folder = Folder::new(
        "defaults: {url: 'http://127.0.0.1:1', task-type: text_embedding, ingest-prefix: 'a: '}\nmodels:\n  - hub-model-id: \
         ./tagger\n    es-model-id: one\n    task-type: token-classification\n    ingest-prefix: ~\n  - hub-model-id: ./embedder\n    es-model-id: two\n",
    );
    let output = program()
        .args(["apply", "models.yaml"])
        .env("ES_URL", &url)
        .current_dir(folder.0.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert!(standin.configuration("one").unwrap()["prefix_strings"].is_null());
    assert_eq!(standin.configuration("two").unwrap()["prefix_strings"]["ingest"], "a: ");
    folder.write(&format!(
        "models:\n  - {{hub-model-id: ./tagger, es-model-id: three, url: '{url}'}}\n"
    ));
    assert!(folder.apply(&[]).status.success());
    // The file comes from standard input, like the output of a template.
    let file = fs::File::open(folder.0.path().join("models.yaml")).unwrap();
    let piped = program().args(["apply", "-"]).stdin(file).current_dir(folder.0.path()).output();
    says(&String::from_utf8(piped.unwrap().stdout).unwrap(), &["three", "unchanged"]);
}

#[test]
fn password_is_asked_for_once() {
    let credentials = vec![Credential::user("me", "correct horse")];
    let standin = StandIn::start(Options { credentials, ..Options::default() });
    let folder = Folder::new(&bundles());
    let path = folder.0.path().join("models.yaml");
    let arguments = ["apply", path.to_str().unwrap(), "--url", &standin.url(), "-u", "me"];
    let mut terminal = Terminal::start(&arguments, &[]);
    terminal.wait_for("Password of me: ");
    terminal.wait_until_hidden();
    terminal.type_line("correct horse");
    let (shown, code) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    says(&shown, &["embedder", "tagger", "stored"]);
    assert!(!shown.contains("Password") && !shown.contains("correct horse"), "{shown}");
}

#[test]
fn ctrl_c_skips_the_remaining_models_and_the_next_run_resumes() {
    let standin = StandIn::start(Options::default());
    let settings = "  part-size: 2KiB\n  upload-concurrency: 4";
    let folder = Folder::new(&bundles().replace("  start: true", settings));
    standin.set_faults(rules(&["part@5-8=hold"]));
    let state = tempfile::tempdir().unwrap();
    let apply = || {
        let mut command = program();
        command
            .args(["apply", "models.yaml", "--url", &standin.url(), "--output", "json"])
            .current_dir(folder.0.path())
            .env("RUST_ELAND_STATE_DIR", state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let (mut child, mut stderr) = spawn(apply());
    assert!(held(&standin, 4, &mut child));
    signal(&child, "-INT");
    wait_for(&mut stderr, "once more");
    standin.release();
    let mut stdout = child.stdout.take().unwrap();
    let (code, rest) = end(child, stderr);
    assert_eq!(code, Some(130), "{rest}");
    let mut document = String::new();
    stdout.read_to_string(&mut document).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(each(&document, "result"), ["failed", "skipped"]);
    assert_eq!(each(&document, "exit_code"), [130, 130]);

    standin.set_faults(standin::Faults::default());
    let output = apply().output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["resuming the upload of embedder: 8 of"]);
    assert_eq!(standin.model_ids(), ["embedder", "tagger"]);
}
