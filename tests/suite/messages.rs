//! Help, errors and log, on a terminal and without one.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rust_eland::cli::EXIT_CODES;
use serde_json::Value;
use standin::{Credential, Options, StandIn};

use crate::fixtures::Fixture;
use crate::program::{message, program, says};
use crate::snapshots::{check, shown};
use crate::terminal::Terminal;

/// Runs the program in a folder with a fixed terminal width for clap.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .current_dir(folder)
        .env("COLUMNS", "100")
        .env_remove("RUST_ELAND_STATE_DIR")
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn help_of_every_command_matches_its_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let mut pages = vec![(vec!["--help"], "help.txt".to_owned())];
    let root = rust_eland::cli::definition();
    let commands: Vec<_> = root.get_subcommands().map(|command| command.get_name()).collect();
    for &command in &commands {
        pages.push((vec![command, "--help"], format!("help-{command}.txt")));
    }
    pages.push((vec!["pipeline", "create", "--help"], "help-pipeline-create.txt".to_owned()));
    for (arguments, file) in pages {
        let output = run(folder.path(), &arguments);
        assert!(output.stderr.is_empty(), "{}", message(&output));
        assert!(!output.stdout.contains(&b'\x1b'), "{arguments:?}");
        check(&file, &shown(&arguments, &output));
    }
}

#[test]
fn exit_codes_match_documentation_and_help() {
    let page = include_str!("../../docs/exit-codes.md");
    let table = page.lines().skip_while(|line| *line != "| exit code | meaning |").skip(2);
    let table: Vec<_> = table.take_while(|line| line.starts_with('|')).collect();
    let expected = EXIT_CODES.map(|(code, meaning)| format!("| {code} | {meaning} |"));
    assert_eq!(table, expected);
    for command in [&["--help"][..], &["import", "--help"]] {
        let help = String::from_utf8(run(Path::new("."), command).stdout).unwrap();
        says(
            &help,
            &[
                "Exit codes:",
                "  130  interrupted",
                "  7    a model, endpoint or pipeline with this id",
            ],
        );
    }
}

/// One error of each frequent kind.
#[test]
fn typical_errors_match_their_snapshots() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    symlink(Fixture::named("bert/st-mean").model(), folder.join("all-MiniLM-L6-v2")).unwrap();
    symlink(Fixture::named("bert/ner").model(), folder.join("bert-base-NER")).unwrap();
    std::fs::create_dir(folder.join("gpt2")).unwrap();
    std::fs::write(folder.join("gpt2/config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    let export = ["export", "--hub-model-id", "all-MiniLM-L6-v2", "--es-model-id", "minilm"];
    let export = run(folder, &[&export[..], &["--output", "out"]].concat());
    assert!(export.status.success(), "{}", message(&export));

    let open = StandIn::start(Options::default());
    let credentials = vec![Credential::user("elastic", "right-one")];
    let secured = StandIn::start(Options { credentials, ..Options::default() });
    let old = StandIn::start(Options { version: "8.6.2".parse().unwrap(), ..Options::default() });
    let (open, secured, old) = (open.url(), secured.url(), old.url());
    let import =
        ["import", "-q", "--hub-model-id", "./all-MiniLM-L6-v2", "--es-model-id", "minilm"];
    let import = |rest: &[&'static str]| [&import[..], rest].concat();
    let first = run(folder, &[&import(&["--url"])[..], &[&open]].concat());
    assert!(first.status.success(), "{}", message(&first));

    let urls =
        [("http://open:9200", &open), ("http://secured:9200", &secured), ("http://old:9200", &old)];
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("unknown-option", vec!["import", "--hub-modl-id", "x"]),
        ("no-cluster", vec!["import", "--hub-model-id", "./all-MiniLM-L6-v2"]),
        ("unknown-task", import(&["--task-type", "embedding"])),
        ("tag-without-a-task", import(&["--task-type", "summarization"])),
        (
            "no-such-folder",
            vec![
                "import",
                "-q",
                "--url",
                "http://open:9200",
                "--hub-model-id",
                "./all-minilm-l6-v2/",
            ],
        ),
        (
            "no-such-bundle",
            vec![
                "import",
                "-q",
                "--url",
                "http://open:9200",
                "--bundle",
                "out/minilm.metadta.json",
            ],
        ),
        (
            "folder-for-a-bundle",
            vec!["import", "-q", "--url", "http://open:9200", "--bundle", "out"],
        ),
        ("nobody-listens", import(&["--url", "http://127.0.0.1:1"])),
        (
            "nobody-listens-verbose",
            [&import(&["--url", "http://127.0.0.1:1", "-v"])[2..], &[]].concat(),
        ),
        (
            "wrong-password",
            import(&["--url", "http://secured:9200", "--es-api-key", "aWQ6a2V5LXdyb25n"]),
        ),
        ("too-old", import(&["--url", "http://old:9200"])),
        ("model-exists", import(&["--url", "http://open:9200"])),
        ("other-architecture", vec!["export", "-q", "--hub-model-id", "gpt2", "--output", "out"]),
        (
            "wrong-task",
            vec![
                "export",
                "-q",
                "--hub-model-id",
                "bert-base-NER",
                "--task-type",
                "text_similarity",
                "--output",
                "out",
            ],
        ),
        ("bad-id", import(&["--url", "http://open:9200", "--es-model-id", "Mini LM"])),
        ("no-such-model", vec!["status", "--url", "http://open:9200", "minilm-2"]),
        ("nobody-listens-json", import(&["--url", "http://127.0.0.1:1", "--log-format", "json"])),
    ];
    for (name, arguments) in cases {
        let mut arguments = arguments;
        if name == "nobody-listens-verbose" {
            arguments = ["import"].into_iter().chain(arguments).collect();
        }
        if name == "bad-id" {
            arguments.drain(4..6);
        }
        let real: Vec<_> = arguments
            .iter()
            .map(|&word| urls.iter().find(|(name, _)| *name == word).map_or(word, |(_, url)| url))
            .collect();
        let output = run(folder, &real);
        let mut text = shown(&arguments, &output);
        for (name, url) in urls {
            text = text.replace(url.as_str(), name);
        }
        check(&format!("error-{name}.txt"), &without_times(&text));
        assert!(!output.status.success() && output.stdout.is_empty(), "{name}: {text}");
        assert!(!text.contains('\x1b') && !text.contains("right-one"), "{name}: {text}");
    }
}

/// Replaces the parts of the output that differ between runs.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let plain = line.get(23..).filter(|_| is_time(line)).map(|rest| format!("TIME{rest}"));
        let json = line.split_once("\"timestamp\":\"").and_then(|(before, rest)| {
            Some(format!("{before}\"timestamp\":\"TIME{}", &rest[rest.find('"')?..]))
        });
        let line = plain.or(json).unwrap_or_else(|| line.to_owned());
        match line.split_once(" ms: ").zip(line.find("failed after ")) {
            Some(((_, rest), at)) => format!("{}failed after N ms: {rest}", &line[..at]),
            None => line,
        }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

/// Whether a line begins with a time like Python's `%(asctime)s`: `2026-11-21 12:18:03,123`.
fn is_time(line: &str) -> bool {
    let form = "dddd-dd-dd dd:dd:dd,ddd ";
    line.len() >= form.len()
        && line.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            form => byte == form,
        })
}

/// Arguments of an import into an empty stand-in.
fn import(standin: &StandIn, id: &str) -> Vec<String> {
    let model = Fixture::named("bert/ner").model().display().to_string();
    let words = ["import", "--url", &standin.url(), "--hub-model-id", &model, "--es-model-id", id];
    words.map(str::to_owned).to_vec()
}

#[test]
fn log_has_the_format_of_eland_without_escape_codes() {
    let standin = StandIn::start(Options::default());
    let output = program().args(import(&standin, "m")).output().unwrap();
    let log = message(&output);
    assert!(output.status.success() && !log.contains('\x1b') && !log.contains('\r'), "{log}");
    // The last message is the summary, which has several lines.
    let lines: Vec<_> = log.lines().collect();
    let last = lines.iter().position(|line| line.ends_with("m is imported")).unwrap();
    assert!(lines[..=last].iter().all(|line| is_time(line)), "{log}");
    assert!(log.lines().any(|line| line[23..].starts_with(" INFO : connected to")), "{log}");
}

#[test]
fn json_log_has_one_object_per_line() {
    let standin = StandIn::start(Options::default());
    let json = |output: &Output| -> Vec<Value> {
        message(output).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let output =
        program().args(import(&standin, "m")).args(["--log-format", "json"]).output().unwrap();
    let lines = json(&output);
    assert!(output.status.success());
    let is_logged =
        |text: &str| lines.iter().any(|line| line["message"].as_str().unwrap().contains(text));
    assert!(is_logged("connected to Elasticsearch") && is_logged("uploading"), "{lines:?}");
    // The warnings are about the tokenizer.
    let is_level = |line: &Value| line["level"] == "INFO" || line["level"] == "WARN";
    assert!(lines.iter().all(|line| is_level(line) && line["timestamp"].is_string()), "{lines:?}");

    let refused = [(vec!["--es-model-id", "m"], 7, "already has"), (vec!["--strat"], 2, "--start")];
    for (arguments, code, part) in refused {
        let command = import(&standin, "m");
        let command = if code == 7 { &command[..5] } else { &command[..] };
        let output =
            program().args(command).args(arguments).arg("--log-format=json").output().unwrap();
        let lines = json(&output);
        let last = lines.last().unwrap();
        assert_eq!((&last["level"], &last["exit_code"]), (&"ERROR".into(), &code.into()), "{last}");
        assert!(last["message"].as_str().unwrap().contains(part), "{last}");
    }
}

#[test]
fn quiet_run_prints_nothing_and_verbose_run_prints_more() {
    let standin = StandIn::start(Options::default());
    let run = |id: &str, option: &[&str]| {
        let output = program().args(import(&standin, id)).args(option).output().unwrap();
        assert!(output.status.success(), "{}", message(&output));
        message(&output)
    };
    let quiet = run("a", &["--quiet"]);
    assert!(quiet.lines().all(|line| line.contains(" WARNING : Elasticsearch ")), "{quiet}");
    let usual = run("b", &[]);
    let verbose = run("c", &["-v"]);
    let very = run("d", &["-vv"]);
    assert!(!usual.contains("DEBUG") && verbose.contains(" DEBUG : "), "{verbose}");
    // `-v` logs requests, and `-vv` also the messages of reqwest and hyper.
    let of_libraries =
        |log: &str| log.lines().filter(|line| line.contains("connecting to")).count();
    assert!(of_libraries(&verbose) == 0 && of_libraries(&very) > 0, "{very}");
    let both = program().args(["list", "-q", "-v"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn colours_are_printed_only_on_terminals_that_accept_them() {
    let standin = StandIn::start(Options::default());
    let command = import(&standin, "m");
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let mut terminal = Terminal::start(&command, &[]);
    terminal.wait_for("\x1b[32mINFO\x1b[0m : connected to");
    assert_eq!(terminal.end().1, Some(0));
    let (shown, code) = Terminal::start(&command, &[]).end();
    assert_eq!(code, Some(7));
    says(&shown, &["\x1b[1;31merror:\x1b[0m the cluster already has a model m"]);
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (shown, code) = Terminal::start(&command, &[environment]).end();
        assert_eq!(code, Some(7), "{shown}");
        assert!(!shown.contains('\x1b'), "{environment:?}: {shown:?}");
    }
}

#[test]
fn version_contains_commit_and_libtorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run(folder, &["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let [program, commit, libtorch, target] = lines[..] else { panic!("{text}") };
    assert_eq!(program, concat!("rust-eland ", env!("CARGO_PKG_VERSION")));
    assert!(libtorch.starts_with("libtorch 2."), "{text}");
    assert!(target.starts_with("target ") && target.contains(std::env::consts::ARCH), "{text}");
    // In a git clone, the version contains the commit.
    let git = Command::new("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).output();
    if let Some(head) = git.ok().filter(|output| output.status.success()) {
        assert_eq!(commit, format!("commit {}", String::from_utf8(head.stdout).unwrap().trim()));
    }
    let short = run(folder, &["-V"]).stdout;
    assert_eq!(String::from_utf8(short).unwrap(), format!("{program}\n"));
}

#[test]
fn completions_contain_commands_options_and_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let script = |shell: &str| {
        let output = run(folder.path(), &["completions", shell]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", message(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish", "powershell"] {
        says(&script(shell), &["rust-eland", "import", "hub-model-id"]);
        // clap_complete does not write values for PowerShell.
        assert!(shell == "powershell" || script(shell).contains("text_embedding"), "{shell}");
    }
    std::fs::write(folder.path().join("script"), script("bash")).unwrap();
    let completed = |words: &[&str]| {
        let typed = "source ./script; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                     by=$(complete -p rust-eland | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                     $by rust-eland \"${@: -1}\" \"${@: -2:1}\"; echo \"${COMPREPLY[@]}\"";
        let output = Command::new("bash")
            .args(["-c", typed, "bash", "rust-eland"])
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed(&["imp"]), "import");
    assert_eq!(completed(&["import", "--hub-mod"]), "--hub-model-id");
    assert_eq!(completed(&["import", "--task-type", "text_s"]), "text_similarity");
    assert_eq!(run(folder.path(), &["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn manual_has_a_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let page = |arguments: &[&str]| {
        let output = run(folder.path(), &[&["man"], arguments].concat());
        assert!(output.status.success(), "{}", message(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    says(&page(&[]), &[".TH rust-eland 1", "rust\\-eland\\-import(1)", "130  interrupted"]);
    says(&page(&["import"]), &[".TH rust-eland-import 1", "\\-\\-hub\\-model\\-id", "\\-\\-quiet"]);
    says(&page(&["pipeline-create"]), &[".TH rust-eland-pipeline-create 1", "\\-\\-input\\-field"]);
    assert_eq!(page(&["--output", "pages"]), "pages\n");
    assert!(folder.path().join("pages/rust-eland-pipeline-create.1").is_file());
    for command in rust_eland::cli::definition().get_subcommands() {
        let name = format!("pages/rust-eland-{}.1", command.get_name());
        assert!(folder.path().join(&name).is_file(), "{name}");
    }
    let unknown = run(folder.path(), &["man", "imprt"]);
    assert_eq!(unknown.status.code(), Some(2));
    says(&message(&unknown), &["unknown command \"imprt\"; try import"]);
}

/// A model whose `config.json` tries to control the terminal: ESC, C1 and a change of direction.
#[test]
fn control_characters_of_a_model_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "ev\u001b[2J\u009b31mil\u202e"}"#,
    )
    .unwrap();
    let standin = StandIn::start(Options::default());
    let url = standin.url();
    let model = folder.path().display().to_string();
    let import = ["import", "--url", &url, "--hub-model-id", &model, "--es-model-id", "m"];
    let inspect = ["inspect", "--hub-model-id", &model, "--output", "json"];
    for arguments in [&import[..], &[&import[..], &["--log-format", "json"]].concat(), &inspect] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", message(&output));
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(stream);
            assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}']), "{text:?}");
        }
        assert!(message(&output).contains("ev"), "{}", message(&output));
    }
    let (shown, code) = Terminal::start(&import, &[("NO_COLOR", "1")]).end();
    assert_eq!(code, Some(3), "{shown}");
    says(&shown, &[r"ev\u{1b}[2J\u{9b}31mil\u{202e}"]);
}

#[test]
fn invalid_log_levels_are_reported() {
    let standin = StandIn::start(Options::default());
    let list = |levels: &str| {
        let mut command = program();
        message(
            &command
                .args(["list", "--url", &standin.url()])
                .env("RUST_LOG", levels)
                .output()
                .unwrap(),
        )
    };
    says(&list("rust_eland=lots"), &["WARNING : ignored the environment variable RUST_LOG: "]);
    for valid in ["rust_eland=debug", "warn", ""] {
        assert!(!list(valid).contains("RUST_LOG"), "{valid}");
    }
}

#[test]
fn closed_standard_error_does_not_change_the_exit_code() {
    for (arguments, code) in [
        (&["inspect", "--tree-model", "none.json"][..], 4),
        (&["inspect", "--tree-model", "none.json", "--log-format", "json"], 4),
        (&["inspect", "--tree-model", "none.json", "--timings"], 4),
        (&["inspect", "--tree-model", "none.json", "--timings=json", "-vv"], 4),
        (
            &[
                "infer",
                "--tree-model",
                "tests/fixtures/trees/sklearn-1.9.1-forest-labels.pkl",
                "--data",
                "README.md",
            ],
            2,
        ),
        (&["inspect", "--tree-model", "tests/fixtures/trees/sklearn-1.9.1-forest-labels.pkl"], 0),
        (&["--unknown"], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = program().args(arguments).stderr(writer).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
    }
}
