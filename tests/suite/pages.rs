//! The HTML pages of `--report`, in a browser.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rust_eland::tasks::Task;
use serde_json::Value;
use standin::{Options, StandIn};

use crate::fixtures::{Fixture, copy};
use crate::program::{message, program};
use crate::proxies::find;

const CHROMIUM: (&str, &str, &str) = ("chromium", "chromium", "HTML reports in a browser");

/// A text that would run code or leave its element if it were not escaped.
const HOSTILE: &str = "</code><img src=x onerror=\"console.error('it ran')\"><script>console.error('it ran')</script>";

/// Opens a page in Chromium. Returns the document after it was loaded, and the messages of the console.
fn shown(page: &Path) -> Option<(String, Vec<String>)> {
    let chromium = find(CHROMIUM)?;
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let log = String::from_utf8_lossy(&output.stderr);
    let console = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    Some((String::from_utf8(output.stdout).unwrap(), console))
}

/// Checks that a page has these elements and texts, loads without a message in the console, and shows hostile text as text.
fn check(page: &Path, parts: &[&str]) {
    let html = fs::read_to_string(page).unwrap();
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    let Some((document, console)) = shown(page) else { return };
    assert_eq!(console, [""; 0]);
    for part in parts {
        assert!(document.contains(part), "{part} is not in {document}");
    }
}

fn successful(output: &Output) {
    assert!(output.status.success(), "{}", message(output));
}

#[test]
fn messages_of_the_console_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, "<script>console.error('it ran')</script>").unwrap();
    let Some((_, console)) = shown(&page) else { return };
    assert!(console.iter().any(|line| line.contains("it ran")), "{console:?}");
}

#[test]
fn pages_of_inspect_import_and_verify_show_plots_and_hostile_text() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The hostile name is part of the title, and the tokenizer of the source does not lower-case texts.
    let (model, source) = (at("model <img src=x>"), at("source"));
    for folder in [&model, &source] {
        fs::create_dir(folder).unwrap();
        copy(&Fixture::named("bert/st-mean").model(), folder);
    }
    let change = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = source.join(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
    };
    change("tokenizer_config.json", &|json| json["do_lower_case"] = false.into());
    change("tokenizer.json", &|json| json["normalizer"]["lowercase"] = false.into());
    let texts = at("texts");
    fs::write(&texts, format!("{HOSTILE}\nThe Same TEXT\nanother text\n")).unwrap();

    let inspect = program()
        .args(["inspect", "--task-type", Task::TextEmbedding.name(), "--hub-model-id"])
        .arg(&model)
        .arg("--texts")
        .arg(&texts)
        .arg("--report")
        .arg(at("inspect.html"))
        .output()
        .unwrap();
    successful(&inspect);
    check(&at("inspect.html"), &["<h2>Model</h2>", "<rect class=\"data\"", "&lt;img src=x&gt;"]);

    let standin = StandIn::start(Options::default());
    let import = program()
        .args([
            "import",
            "--url",
            &standin.url(),
            "--es-model-id",
            "m",
            "--start",
            "--verify-served",
        ])
        .args(["--task-type", Task::TextEmbedding.name(), "--quantize", "--hub-model-id"])
        .arg(&model)
        .arg("--report")
        .arg(at("import.html"))
        .output()
        .unwrap();
    successful(&import);
    check(
        &at("import.html"),
        &[
            "<h2>Quantization</h2>",
            "rank correlation",
            "definition",
            "required memory",
            " instead of ",
            "<h2>Quantized and original model</h2>",
            "cosine similarity of two texts",
            ">cosine similarity</text>",
            "<h2>Verification</h2>",
            "<h2>Cluster and model</h2>",
        ],
    );
    // A scatter plot and a histogram, of the quantized model and of the cluster.
    let html = fs::read_to_string(at("import.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 4, "{html}");
    assert!(html.matches("<circle").count() > 1000, "{html}");

    let verify = program()
        .args(["verify", "--url", &standin.url(), "--es-model-id", "m", "--hub-model-id"])
        .arg(&source)
        .arg("--texts")
        .arg(&texts)
        .arg("--report")
        .arg(at("verify.html"))
        .output()
        .unwrap();
    assert_eq!(verify.status.code(), Some(9), "{}", message(&verify));
    check(
        &at("verify.html"),
        &["<h2>Texts that differ</h2>", "<mark>", "&lt;script&gt;", "<circle"],
    );
}

#[test]
fn report_that_cannot_be_written_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let standin = StandIn::start(Options::default());
    for page in [folder.path().join("missing/page.html"), folder.path().to_owned()] {
        for command in ["inspect", "import", "verify"] {
            let model_id = if command == "verify" { &["--es-model-id", "m"][..] } else { &[] };
            let output = program()
                .args([command, "--url", &standin.url()])
                .args(model_id)
                .arg("--hub-model-id")
                .arg(Fixture::named("bert/base").model())
                .arg("--report")
                .arg(&page)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{}", message(&output));
            assert!(
                message(&output).contains("cannot write the report to"),
                "{}",
                message(&output)
            );
            assert!(output.stdout.is_empty());
        }
    }
    assert!(standin.requests().is_empty());
}
