//! Imports that are killed, interrupted or concurrent: their remaining state, and how they resume.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use serde_json::json;
use standin::{Exchange, Faults, Options, StandIn};

use crate::bundle_fixtures::{bundle, definition};
use crate::processes::{end, held, signal, spawn, wait_for};
use crate::program::{ask, message, program, says};
use crate::uploads::{Numbers, journalled, journals, parts, rules};

/// The definition of the bundle that all tests of this file import.
static DEFINITION: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(definition("ner")).unwrap());

/// Command that imports the bundle as `id`, in parts of 2 KiB unless `more` overrides it.
fn command(standin: &StandIn, state: &Path, id: &str, more: &[&str]) -> Command {
    let mut command = program();
    command
        .args(["import", "--url", &standin.url(), "--es-model-id", id])
        .arg("--bundle")
        .arg(bundle("ner"))
        .arg("--state-dir")
        .arg(state)
        .args(if more.contains(&"--part-size") { &[][..] } else { &["--part-size", "2KiB"] })
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs an import to its end and returns exit code and message.
fn import(standin: &StandIn, state: &Path, id: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = command(standin, state, id, more).output().unwrap();
    (output.status.code(), message(&output))
}

fn is_whole(standin: &StandIn, id: &str) -> bool {
    let definition = standin.definition(id);
    standin.vocabulary(id).is_some()
        && definition.is_some_and(|path| fs::read(path).unwrap() == *DEFINITION)
}

/// Imports one model after another and kills the import every few requests, `kills` times in total.
fn killed(kills: u64, seed: u64) {
    let mut numbers = Numbers(seed);
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let (mut done, mut model) = (0, 0);
    while done < kills || model == 0 {
        let id = format!("m{model}");
        let (mut known, mut whole) = (BTreeSet::new(), false);
        while !whole {
            let at = 1 + numbers.below(24);
            let hold = if done >= kills {
                Faults::default()
            } else if numbers.below(2) == 0 {
                rules(&[&format!("any@{at}=hold")])
            } else {
                rules(&[&format!("any@{at}=store-hold")])
            };
            standin.set_faults(hold);
            let before = standin.requests().len();
            let mut child = command(&standin, state.path(), &id, &[]).spawn().unwrap();
            if held(&standin, 1, &mut child) {
                child.kill().unwrap();
                child.wait().unwrap();
                done += 1;
            } else {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{id} {done}: {}", message(&output));
                whole = true;
            }
            let sent: BTreeSet<_> = parts(&standin.requests()[before..]).into_iter().collect();
            let twice: Vec<_> = sent.intersection(&known).collect();
            assert!(twice.is_empty(), "{id} {done}: journalled and sent again: {twice:?}");
            known.extend(journalled(state.path()));
        }
        assert!(is_whole(&standin, &id), "{id}");
        assert!(journals(state.path()).is_empty(), "{id}");
        let count = DEFINITION.len().div_ceil(2048) as u64;
        assert!(known.len() as u64 <= count);
        model += 1;
    }
    assert_eq!(done, kills);
    let deletions = standin.requests().iter().filter(|r| r.method == "DELETE").count();
    assert_eq!(deletions, 0, "going on needs no deletion");
}

#[test]
fn import_killed_at_any_moment_resumes() {
    thread::scope(|scope| {
        for seed in [1, 2] {
            scope.spawn(move || killed(25, seed));
        }
    });
}

#[test]
fn ctrl_c_finishes_parts_in_progress_and_the_next_run_resumes() {
    for name in ["-INT", "-TERM"] {
        let standin = StandIn::start(Options::default());
        let state = tempfile::tempdir().unwrap();
        standin.set_faults(rules(&["part@5-8=hold"]));
        let (mut child, mut stderr) =
            spawn(command(&standin, state.path(), "m", &["--upload-concurrency", "4"]));
        assert!(held(&standin, 4, &mut child));
        signal(&child, name);
        wait_for(&mut stderr, "once more");
        standin.release();
        let (code, rest) = end(child, stderr);
        assert_eq!(code, Some(130), "{rest}");
        says(&rest, &["interrupted", "8 of", "parts are stored", "Run the same command again"]);
        let known = journalled(state.path());
        assert_eq!(known.len(), 8, "those under way were finished");
        let before = standin.requests().len();
        let (code, rest) = import(&standin, state.path(), "m", &[]);
        assert_eq!(code, Some(0), "{rest}");
        says(&rest, &["resuming the upload of m: 8 of"]);
        let requests = standin.requests().split_off(before);
        assert!(parts(&requests).iter().all(|part| !known.contains(part)));
        assert!(is_whole(&standin, "m") && journals(state.path()).is_empty());
    }
}

#[test]
fn second_ctrl_c_stops_immediately() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(rules(&["part@5-8=store-hold"]));
    let (mut child, mut stderr) =
        spawn(command(&standin, state.path(), "m", &["--upload-concurrency", "4"]));
    assert!(held(&standin, 4, &mut child));
    signal(&child, "-INT");
    wait_for(&mut stderr, "once more");
    signal(&child, "-INT");
    // The held requests are not released: the program does not wait for them.
    let (code, rest) = end(child, stderr);
    assert_eq!(code, Some(130), "{rest}");
    says(&rest, &["4 of", "Run the same command again"]);
    let (code, rest) = import(&standin, state.path(), "m", &[]);
    assert_eq!(code, Some(0), "{rest}");
    assert!(is_whole(&standin, "m"));
}

#[test]
fn ctrl_c_without_journal_deletes_the_model() {
    let standin = StandIn::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    standin.set_faults(rules(&["part@5-8=hold"]));
    let (mut child, mut stderr) = spawn(command(&standin, &file, "m", &[]));
    wait_for(&mut stderr, "cannot write an upload journal");
    assert!(held(&standin, 4, &mut child));
    signal(&child, "-INT");
    wait_for(&mut stderr, "once more");
    standin.release();
    let (code, rest) = end(child, stderr);
    assert_eq!(code, Some(130), "{rest}");
    says(&rest, &["The incomplete model m was removed"]);
    assert!(standin.model_ids().is_empty());
    standin.set_faults(Faults::default());
    let (code, rest) = import(&standin, &file, "m", &[]);
    assert_eq!(code, Some(0), "without a journal an import succeeds too: {rest}");
}

#[test]
fn second_import_on_the_same_machine_is_rejected() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(rules(&["part@5=hold"]));
    let (mut first, stderr) = spawn(command(&standin, state.path(), "m", &[]));
    assert!(held(&standin, 1, &mut first));
    for more in [&[][..], &["--clear-previous"]] {
        let (code, said) = import(&standin, state.path(), "m", more);
        assert_eq!(code, Some(7), "{said}");
        says(&said, &["another process on this machine is importing m"]);
    }
    // Another model can be imported.
    assert_eq!(import(&standin, state.path(), "n", &[]).0, Some(0));
    standin.release();
    let (code, said) = end(first, stderr);
    assert_eq!(code, Some(0), "{said}");
    assert!(is_whole(&standin, "m") && is_whole(&standin, "n"));
}

#[test]
fn second_import_on_another_machine_is_rejected() {
    let standin = StandIn::start(Options::default());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    standin.set_faults(rules(&["part@5=hold"]));
    let (mut first, stderr) = spawn(command(&standin, here.path(), "m", &[]));
    assert!(held(&standin, 1, &mut first));
    for more in [&[][..], &["--on-conflict", "skip"]] {
        let (code, said) = import(&standin, there.path(), "m", more);
        assert_eq!(code, Some(7), "{said}");
        says(
            &said,
            &["incomplete model m", "not started on this machine", "was kept", "--clear-previous"],
        );
    }
    standin.release();
    let (code, said) = end(first, stderr);
    assert_eq!(code, Some(0), "{said}");
    assert!(is_whole(&standin, "m"));
}

#[test]
fn one_of_two_simultaneous_imports_fails() {
    let standin = StandIn::start(Options::default());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Both imports have seen a free id when the second one creates the model.
    standin.set_faults(rules(&["create@1=hold"]));
    let (mut first, stderr) = spawn(command(&standin, here.path(), "m", &[]));
    assert!(held(&standin, 1, &mut first));
    assert_eq!(import(&standin, there.path(), "m", &[]).0, Some(0));
    standin.release();
    let (code, said) = end(first, stderr);
    assert_eq!(code, Some(7), "{said}");
    says(&said, &["another import created the model m in the meantime", "was kept"]);
    assert!(is_whole(&standin, "m"));
    assert!(journals(here.path()).is_empty() && journals(there.path()).is_empty());
}

#[test]
fn model_deleted_during_upload_is_not_touched() {
    let standin = StandIn::start(Options::default());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    standin.set_faults(rules(&["part-9@1=store-hold"]));
    let (mut first, stderr) = spawn(command(&standin, here.path(), "m", &[]));
    assert!(held(&standin, 1, &mut first));
    let body = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
    // All parts except the held one and the last are stored, so only the check before the last part can detect the deletion.
    let count = DEFINITION.len().div_ceil(2048);
    while parts(&standin.requests()).len() < count - 1 {
        thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(ask(&standin, "DELETE", "/_ml/trained_models/m", None).0, 200);
    assert_eq!(ask(&standin, "PUT", "/_ml/trained_models/m", Some(&body)).0, 200);
    standin.release();
    let (code, said) = end(first, stderr);
    assert_eq!(code, Some(7), "{said}");
    says(&said, &["deleted or replaced during the upload", "was kept"]);
    assert_eq!(standin.model_ids(), ["m"], "theirs is still there");
    assert!(journals(here.path()).is_empty());
    drop(there);
}

#[test]
fn unreachable_cluster_keeps_the_journal() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(rules(&["any@14-9999=503"]));
    let (code, said) = import(&standin, state.path(), "m", &["--retries", "2"]);
    assert_eq!(code, Some(6), "{said}");
    says(&said, &["(503)", "The upload of m can be resumed", "Run the same command again"]);
    let known = journalled(state.path());
    assert!(!known.is_empty());
    standin.set_faults(Faults::default());
    let before = standin.requests().len();
    let (code, said) = import(&standin, state.path(), "m", &["--part-size", "4KiB"]);
    assert_eq!(code, Some(0), "another part size is passed over: {said}");
    let requests: Vec<Exchange> = standin.requests().split_off(before);
    assert!(parts(&requests).iter().all(|part| !known.contains(part)));
    assert!(is_whole(&standin, "m"));
}

#[test]
fn incomplete_model_of_this_machine_is_replaced() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(rules(&["any@14-9999=503"]));
    assert_eq!(import(&standin, state.path(), "m", &["--retries", "0"]).0, Some(6));
    standin.set_faults(Faults::default());
    // Another model with the same id. The incomplete model is ours, so it is replaced.
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--state-dir"])
        .arg(state.path())
        .arg("--bundle")
        .arg(bundle("text_embedding"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    says(&message(&output), &["removing the incomplete model m of an earlier import"]);
    assert!(standin.configuration("m").unwrap()["inference_config"]["text_embedding"].is_object());
    assert!(journals(state.path()).is_empty());
}

#[test]
fn stale_journal_is_ignored() {
    // All stored parts are visible, so that a deletion removes everything.
    let options = Options { refresh_interval: Duration::ZERO, ..Options::default() };
    let standin = StandIn::start(options);
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(rules(&["any@14-9999=503"]));
    assert_eq!(import(&standin, state.path(), "m", &["--retries", "0"]).0, Some(6));
    standin.set_faults(Faults::default());
    assert_eq!(ask(&standin, "DELETE", "/_ml/trained_models/m", None).0, 200);
    let (code, said) = import(&standin, state.path(), "m", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(is_whole(&standin, "m") && journals(state.path()).is_empty());
}

#[test]
fn existing_model_in_use_is_kept() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    assert_eq!(import(&standin, state.path(), "m", &["--start"]).0, Some(0));
    let path = "/_ml/trained_models/m/deployment/_start?deployment_id=other";
    assert_eq!(ask(&standin, "POST", path, None).0, 200);
    let (code, said) = import(&standin, state.path(), "m", &["--clear-previous"]);
    assert_eq!(code, Some(6), "{said}");
    says(&said, &["currently deployed", "still exists", "Stop the deployments of the model"]);
    assert!(is_whole(&standin, "m") && journals(state.path()).is_empty());
    assert_eq!(ask(&standin, "POST", "/_ml/trained_models/other/deployment/_stop", None).0, 200);
    let (code, said) = import(&standin, state.path(), "m", &["--clear-previous"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(is_whole(&standin, "m"));
}

#[test]
fn running_model_is_kept_running() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let skip = ["--start", "--on-conflict", "skip"];
    for stopped in [false, true, false] {
        let (code, said) = import(&standin, state.path(), "m", &skip);
        assert_eq!(code, Some(0), "{said}");
        let (_, stats) = ask(&standin, "GET", "/_ml/trained_models/m/_stats", None);
        assert_eq!(stats["trained_model_stats"][0]["deployment_stats"]["state"], "started");
        if stopped {
            let path = "/_ml/trained_models/m/deployment/_stop";
            assert_eq!(ask(&standin, "POST", path, None).0, 200);
        }
    }
    assert!(is_whole(&standin, "m"));
}

/// Starts a command on the real model, and sends Ctrl-C when libtorch begins to convert it. Returns exit code, signal and message.
#[cfg(feature = "torch")]
fn interrupt_conversion(mut command: Command) -> (Option<i32>, Option<i32>, String) {
    use std::os::unix::process::ExitStatusExt;

    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, mut stderr) = spawn(command);
    // A line before libtorch traces, quantizes and compares 90 MB, which takes seconds.
    let mut said = wait_for(&mut stderr, "reading the weights");
    signal(&child, "-INT");
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(!said.contains("panicked") && !said.contains("converting"), "{said}");
    (status.code(), status.signal(), said)
}

#[cfg(feature = "torch")]
#[test]
fn ctrl_c_during_a_conversion_ends_apply_with_130() {
    let standin = StandIn::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.yaml");
    let model = crate::real_model::folder();
    let model = model.display();
    let list = format!("models:\n  - {{hub-model-id: {model}, es-model-id: m, quantize: true}}\n");
    fs::write(&file, list).unwrap();
    let state = folder.path().join("state");
    let mut command = program();
    command.arg("apply").arg(&file).args(["--url", &standin.url()]);
    command.env("RUST_ELAND_STATE_DIR", &state);
    let (code, signal, said) = interrupt_conversion(command);
    assert_eq!((code, signal), (Some(130), None), "{said}");
    says(&said, &["interrupted"]);
    assert!(standin.model_ids().is_empty() && journals(&state).is_empty());
}

#[cfg(feature = "torch")]
#[test]
fn ctrl_c_during_a_conversion_ends_export_with_130_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["export", "--quantize", "--es-model-id", "m", "--hub-model-id"]);
    command.arg(crate::real_model::folder()).arg("--output").arg(folder.path());
    let (code, signal, said) = interrupt_conversion(command);
    assert_eq!((code, signal), (Some(130), None), "{said}");
    says(&said, &["interrupted"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(feature = "torch")]
#[test]
fn ctrl_c_during_a_conversion_ends_import_before_any_change() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["import", "--url", &standin.url(), "--es-model-id", "m", "--quantize"]);
    command.arg("--hub-model-id").arg(crate::real_model::folder());
    command.arg("--state-dir").arg(state.path());
    let (code, signal, said) = interrupt_conversion(command);
    // The signal ends the process. Shells report this as exit status 130.
    assert_eq!((code, signal), (None, Some(2)), "{said}");
    assert!(standin.model_ids().is_empty() && journals(state.path()).is_empty());
}
