//! README.md and docs/ match the program: their commands run, their tables match the fixtures, options and messages, and their links
//! have targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hub::Repository;
use rust_eland::models::Architecture;
use rust_eland::tasks::Task;
use standin::{Options, StandIn};

use crate::fixtures::{Fixture, copy};
use crate::from_hub::serving;
use crate::program::{clean, message, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Paths of all documents for users.
fn documents() -> Vec<String> {
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|page| format!("docs/{}", page.unwrap().file_name().to_str().unwrap()));
    let mut all: Vec<_> = pages.filter(|name| name.ends_with(".md")).collect();
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned));
    all.sort();
    all
}

/// The code blocks of a document in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let mut wanted = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), wanted) {
            (Some(mark), None) => {
                wanted = Some(mark == language);
                blocks.extend((mark == language).then(Vec::new));
            }
            (Some(_), Some(_)) => wanted = None,
            (None, Some(true)) => blocks.last_mut().unwrap().push(line),
            (None, _) => {}
        }
    }
    blocks.into_iter().map(|lines| lines.join("\n")).collect()
}

/// The commands of a code block: continued lines are joined; comments and blank lines are removed.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let bare = joined.lines().map(|line| line.split("  #").next().unwrap().trim());
    bare.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// First words of documented commands that no test runs, with the reason. `check_shape` validates these commands.
const NOT_RUN: [(&str, &str); 11] = [
    ("make", "takes minutes; .ci/run runs test, lint, doc and deny"),
    ("cargo run", "the tests run these programs"),
    ("docker compose", "needs a container engine; `make check-yaml` validates compose.yaml"),
    ("docker run", "needs a container engine; `make image-test` runs similar commands"),
    ("kubectl", "needs a cluster; `make check-yaml` validates the manifests"),
    ("pip install", "needs what `make wheel` builds; `make wheel-test` installs it"),
    ("python3 -m venv", "needs what `make wheel` builds; `make wheel-test` installs it"),
    ("tar -xzf", "needs what `make dist` builds; `make dist-test` unpacks it"),
    ("cosign", "needs a published release"),
    ("sha256sum", "needs a published release"),
    ("gh attestation", "needs a published release"),
];

fn assert_current_archive(name: &str) {
    let stem = format!("rust-eland-{}-", env!("CARGO_PKG_VERSION"));
    assert!(name.starts_with(&stem), "{name} is not of the version of Cargo.toml");
}

/// `make dist` makes the same check, after minutes.
#[test]
fn archives_have_the_names_that_cargo_binstall_expects() {
    let script = "import sys; sys.path.insert(0, 'scripts'); import dist; \
                  dist.check_binstall(dist.crates(sys.argv[1])[0], 'aarch64-apple-darwin')";
    let mut check = clean(Command::new("python3"));
    let output = check.args(["-Bc", script, env!("CARGO")]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
}

fn check_shape(command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    match words[0] {
        "make" => {
            let rule = format!("\n{}: ", words[1]);
            assert!(read("Makefile").contains(&rule), "the Makefile has no target for: {command}");
        }
        "cargo" => {
            let package = words[words.iter().position(|word| *word == "-p").unwrap() + 1];
            let manifest = read(&format!("tests/{package}/Cargo.toml"));
            assert!(manifest.contains(&format!("name = \"{package}\"")), "{command}");
        }
        "docker" if words[1] == "compose" => assert!(root().join("compose.yaml").exists()),
        "kubectl" => {
            for path in words.iter().filter(|word| word.starts_with("deploy/")) {
                assert!(root().join(path).exists(), "{path} does not exist: {command}");
            }
        }
        "tar" => assert_current_archive(words[2]),
        "gh" => assert_current_archive(words[3]),
        "pip" => assert_current_archive(&words[2].replace("./rust_eland-", "rust-eland-")),
        "python3" => {}
        "cosign" | "sha256sum" => {
            let release = read(".github/workflows/release.yml");
            let files = words.iter().filter(|word| word.starts_with("SHA256SUMS"));
            assert!(files.clone().count() > 0, "{command}");
            for file in files {
                assert!(release.contains(*file), "release.yml does not write {file}: {command}");
            }
        }
        _ => {
            let image = words.iter().position(|word| *word == "rust-eland").unwrap();
            let mut options = words[2..image].iter();
            while let Some(option) = options.next() {
                match *option {
                    "--rm" | "-it" | "--read-only" => {}
                    "-v" | "-e" | "--network" | "--user" => assert!(options.next().is_some()),
                    other => panic!("unsupported docker option {other}: {command}"),
                }
            }
            // The words after the image are the program and its options, which the program must accept.
            let folder = session("docker");
            folder.run(&format!("{} --help >help", words[image + 1..].join(" ")));
        }
    }
}

/// A folder with the program under both names, a cluster, and a hub with the models named in the documents.
struct Session {
    folder: tempfile::TempDir,
    standin: StandIn,
    hub: hub::Hub,
}

/// Models named in the documents, and the fixtures that replace them.
const MODELS: [(&str, &str); 7] = [
    ("sentence-transformers/all-MiniLM-L6-v2", "bert/st-mean"),
    ("dslim/bert-base-NER", "bert/ner"),
    ("cross-encoder/ms-marco-MiniLM-L6-v2", "bert/cross-encoder"),
    (
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill",
        "sparse/opensearch-doc-v3-distill",
    ),
    ("BAAI/bge-m3", "sparse/bge-m3"),
    ("jinaai/jina-embeddings-v3", "jina3/jina-embeddings-v3"),
    ("minishlab/potion-base-8M", "static/potion-base-8M"),
];

/// Tree models named in the documents, and the fixtures that replace them.
const TREE_MODELS: [(&str, &str); 4] = [
    ("churn.ubj", "xgboost-3.2.0-binary.ubj"),
    ("price.txt", "lightgbm-4.7.0-regression.txt"),
    ("segment.joblib", "sklearn-1.9.1-tree-labels.joblib"),
    ("rank.ubj", "xgboost-3.2.0-ranking.ubj"),
];

fn session(document: &str) -> Session {
    let model = |fixture: &str| root().join("tests/fixtures").join(fixture).join("model");
    let hub =
        serving(MODELS.map(|(id, fixture)| Repository::of_folder(id, &model(fixture)).unwrap()));
    let session = Session {
        folder: tempfile::Builder::new().prefix("documents-").tempdir().unwrap(),
        standin: StandIn::start(Options::default()),
        hub,
    };
    let path = session.folder.path();
    fs::create_dir(path.join("bin")).unwrap();
    for name in ["rust-eland", "eland_import_hub_model"] {
        let link = path.join("bin").join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rust-eland"), link).unwrap();
    }
    // Folders that a reader is assumed to have, except those that the document itself downloads.
    for (id, fixture) in MODELS {
        let name = id.split('/').next_back().unwrap();
        if !read_or_nothing(document).contains(&format!("--output {name}")) {
            copy(&model(fixture), &path.join(name));
        }
    }
    fs::copy(root().join("tests/fixtures/definitions/scripted.pt"), path.join("model.pt")).unwrap();
    fs::write(path.join("vocab.json"), crate::definitions::vocabulary().to_string()).unwrap();
    fs::write(path.join("config.json"), crate::definitions::configuration().to_string()).unwrap();
    for (name, fixture) in TREE_MODELS {
        let file = root().join("tests/fixtures/trees").join(fixture);
        fs::copy(file, path.join(name)).unwrap();
    }
    fs::write(path.join("rows.csv"), "price,count,delta,change,flag\n19.99,3,0.001,0,1\n").unwrap();
    // The models file that the document shows.
    let text = read_or_nothing(document);
    if let Some(file) = blocks(&text, "yaml").iter().find(|it| it.starts_with("# models.yaml")) {
        fs::write(path.join("models.yaml"), format!("{file}\n")).unwrap();
    }
    session
}

fn read_or_nothing(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_default()
}

impl Session {
    /// Runs a code block in a shell, with the addresses replaced. Every command must succeed.
    fn run(&self, block: &str) {
        let folder = self.folder.path();
        let mut script = block.to_owned();
        for address in [
            "https://elastic:PASSWORD@localhost:9200",
            "https://localhost:9200",
            "http://localhost:9200",
        ] {
            script = script.replace(address, &self.standin.url());
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let output = clean(Command::new("sh"))
            .args(["-euc", &script])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", folder.join("bin").display()))
            .env("ES_URL", self.standin.url())
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", folder.join("huggingface"))
            .env("RUST_ELAND_STATE_DIR", folder.join("state"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}\n{}", message(&output));
    }
}

/// Runs the commands of a document in order.
fn run(document: &str) {
    let session = session(document);
    for block in blocks(&read(document), "sh") {
        let (not_run, run): (Vec<_>, Vec<_>) = commands(&block)
            .into_iter()
            .partition(|command| NOT_RUN.iter().any(|(start, _)| command.starts_with(start)));
        not_run.iter().for_each(|command| check_shape(command));
        // A block that unpacks an archive, or creates a virtual environment, also runs programs from there.
        let unpacks =
            |command: &String| command.starts_with("tar") || command.starts_with("python3 -m venv");
        if !run.is_empty() && !not_run.iter().any(unpacks) {
            session.run(&run.join("\n"));
        }
    }
}

macro_rules! run {
    ($($name:ident: $document:literal,)*) => {
        $(#[test] fn $name() { run($document); })*
        const RUN: &[&str] = &[$($document),*];
    };
}

run! {
    readme_commands_run: "README.md",
    security_commands_name_files_of_a_release: "SECURITY.md",
    contributing_commands_have_targets: "CONTRIBUTING.md",
    get_started_commands_run: "docs/get-started.md",
    air_gapped_commands_run: "docs/air-gapped.md",
    bundle_commands_run: "docs/bundles.md",
    check_commands_run: "docs/check.md",
    kibana_commands_run: "docs/kibana.md",
    pipeline_commands_run: "docs/pipelines.md",
    troubleshooting_commands_run: "docs/troubleshooting.md",
    container_commands_are_valid: "docs/containers.md",
    deployment_commands_run: "docs/deployments.md",
    endpoint_commands_run: "docs/endpoints.md",
    exit_code_commands_run: "docs/exit-codes.md",
    hub_commands_run: "docs/hub.md",
    infer_commands_run: "docs/infer.md",
    inspect_commands_run: "docs/inspect.md",
    kubernetes_commands_name_existing_folders: "docs/kubernetes.md",
    many_models_commands_run: "docs/many-models.md",
    migration_commands_run: "docs/migrating-from-eland.md",
    model_commands_run: "docs/models.md",
    acceptance_command_has_a_target: "docs/acceptance.md",
    option_commands_run: "docs/options.md",
    quantization_commands_run: "docs/quantization.md",
    sparse_commands_run: "docs/sparse.md",
    tokenize_commands_run: "docs/tokenize.md",
    tree_commands_run: "docs/trees.md",
    verify_commands_run: "docs/verify.md",
}

#[test]
fn every_document_with_commands_is_run() {
    for document in documents() {
        let text = read(&document);
        let shown = !blocks(&text, "sh").is_empty();
        assert_eq!(shown, RUN.contains(&document.as_str()), "the commands of {document}");
        // Commands in blocks of other languages would not be run.
        for language in ["", "bash", "console", "shell", "text"] {
            for block in blocks(&text, language) {
                assert!(!block.contains("rust-eland "), "not marked as sh in {document}:\n{block}");
            }
        }
        for line in text.lines() {
            assert!(!line.starts_with("    rust-eland "), "not marked as sh in {document}: {line}");
        }
    }
}

/// The cells of the table whose first header line starts with `header`, row by row.
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {header}");
    rows
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn model_table_matches_the_fixtures() {
    let mut proved: BTreeMap<String, BTreeSet<Task>> = BTreeMap::new();
    for fixture in Fixture::all() {
        proved.entry(fixture.architecture().to_owned()).or_default().extend(fixture.tasks());
    }
    // A table of static embeddings is no architecture of Transformers.
    let known = Architecture::names().into_iter().chain(["static"]);
    let known: BTreeSet<_> = known.map(str::to_owned).collect();
    assert_eq!(known, proved.keys().cloned().collect());

    let models = read("docs/models.md");
    let header = models.lines().find(|line| line.starts_with("| `model_type` |")).unwrap();
    let tasks: Vec<Task> = header
        .trim_matches('|')
        .split('|')
        .skip(1)
        .map(|name| name.trim().parse().unwrap())
        .collect();
    assert_eq!(tasks, Task::ALL);
    let claimed: BTreeMap<_, BTreeSet<_>> = table(&models, "| `model_type` |")
        .into_iter()
        .map(|row| {
            let marked = tasks.iter().zip(&row[1..]).filter(|(_, cell)| *cell == "✓");
            let architecture = row[0].split(' ').next().unwrap().to_owned();
            (architecture, marked.map(|(task, _)| *task).collect())
        })
        .collect();
    assert_eq!(claimed, proved);
}

/// The options of eland_import_hub_model 9.2.0.
const PEER: [&str; 19] = [
    "--url",
    "--cloud-id",
    "--hub-model-id",
    "--hub-access-token",
    "--es-model-id",
    "-u",
    "--es-username",
    "-p",
    "--es-password",
    "--es-api-key",
    "--task-type",
    "--quantize",
    "--start",
    "--clear-previous",
    "--insecure",
    "--ca-certs",
    "--ingest-prefix",
    "--search-prefix",
    "--max-model-input-length",
];

#[test]
fn eland_options_are_documented_and_accepted() {
    let page = read("docs/migrating-from-eland.md");
    let rows = table(&page, "| eland's option |");
    let documented: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let help = help(&["import"]);
    for option in PEER {
        assert!(documented.contains(&option), "{option} is not in the table");
        assert!(options(&help).contains(option), "{option} is not accepted");
    }
    assert_eq!(documented.len(), PEER.len(), "{documented:?}");
}

fn help(command: &[&str]) -> String {
    let output = program().args(command).arg("--help").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The options listed in a help text.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| {
        line.split([' ', ',']).take_while(|word| word.is_empty() || word.starts_with('-'))
    });
    let plain = |word: &&str| {
        word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // An optional value: `--quantize[=<SCHEME>]`.
    let names = words.map(|word| word.split('[').next().unwrap_or_default());
    names.filter(plain).map(str::to_owned).collect()
}

/// The names of all commands, from the help of the program.
fn command_names() -> Vec<String> {
    let help = help(&[]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // Continued descriptions are indented further.
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' '));
    names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn options_of_every_command_are_documented() {
    let documented = read("docs/options.md") + &read("docs/deployments.md");
    let documented: BTreeSet<_> = quoted(&documented)
        .into_iter()
        .flat_map(|code| code.split([' ', '/', '=']))
        .map(str::to_owned)
        .collect();
    let names = command_names();
    assert!(names.len() > 10, "{names:?}");
    let nested = ["pipeline create"].map(str::to_owned);
    for name in names.iter().chain(&nested).filter(|name| *name != "help") {
        for option in options(&help(&name.split(' ').collect::<Vec<_>>())) {
            let general = ["-h", "--help", "-V", "--version"].contains(&option.as_str());
            assert!(
                general || documented.contains(&option),
                "{option} of {name} is not documented"
            );
        }
    }
}

/// The text of all files in src/ without comment lines; string literals with continued lines are joined.
fn sources() -> String {
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    all(&root().join("src"), &mut files);
    let mut joined = String::new();
    for file in files {
        let mut continues = false;
        for line in fs::read_to_string(file).unwrap().lines() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let text = if continues { line.trim_start() } else { line };
            let stem = text.strip_suffix('\\');
            continues = stem.is_some();
            joined += stem.unwrap_or(text);
            if !continues {
                joined.push('\n');
            }
        }
    }
    joined
}

#[test]
fn troubleshooting_messages_exist_in_the_source() {
    let page = read("docs/troubleshooting.md");
    let sources = sources();
    let mut explained = 0;
    for section in page.split("\n## ").filter(|section| section.contains("| message |")) {
        // These are messages of the system's loader.
        if section.starts_with("Before the program") {
            continue;
        }
        for row in table(section, "| message |") {
            for part in quoted(&row[0]) {
                assert!(sources.contains(part), "{part:?} is not in src/");
                explained += 1;
            }
        }
    }
    assert!(explained > 30, "{explained}");
}

/// The anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_has_a_target() {
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            let content = fs::read_to_string(&target);
            let content =
                content.unwrap_or_else(|error| panic!("{document} links to {link}: {error}"));
            let headings = content.lines().filter(|line| line.starts_with('#'));
            let anchors: Vec<_> =
                headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect();
            assert!(
                fragment.is_empty() || anchors.contains(&fragment.to_owned()),
                "{document}: {link}"
            );
        }
    }
}

#[test]
fn source_paths_in_documents_exist() {
    for document in documents() {
        for path in quoted(&read(&document)) {
            let source =
                ["src/", "tests/", "scripts/"].iter().any(|folder| path.starts_with(folder));
            if source && !path.contains(['*', ' ']) && !path.contains("NAME") {
                assert!(
                    root().join(path).exists(),
                    "{document} names {path}, which does not exist"
                );
            }
        }
    }
}

#[test]
fn every_page_is_in_the_index() {
    let index = read("docs/README.md");
    for document in documents() {
        if let Some(page) = document.strip_prefix("docs/")
            && page != "README.md"
        {
            assert!(index.contains(&format!("]({page})")), "docs/README.md does not list {page}");
        }
    }
}

#[test]
fn actions_are_pinned_to_commits() {
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let (action, version) = line.1.split_once(" # v").unwrap_or((line.1, ""));
            let commit = action.split_once('@').map_or("", |(_, commit)| commit);
            let pinned = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(pinned && !version.is_empty(), "{}: {}", path.display(), line.1);
        }
    }
}
