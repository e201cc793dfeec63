//! Uploads to failing clusters: at the end the cluster has the complete model, nothing of it, or a part of it with a journal to resume from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rust_eland::bundle::{Artifact, ArtifactFormat, Bundle};
use rust_eland::elasticsearch::{
    Client, ClientError, Connection, Import, Interruption, OnConflict, Outcome, RemoteState,
};
use rust_eland::mapped_file::MappedFile;
use rust_eland::observer::Progress;
use rust_eland::retry::RetryPolicy;

use rust_eland::version::{Target, Version};
use rust_eland::vocabulary::Vocabulary;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use standin::{Exchange, Faults, Options, Random, Rule, StandIn};

use crate::bundle_fixtures;
use crate::program::{ask, message, program, says};

/// Size of a part in tests, in bytes.
const PART: usize = 1024;

/// Pseudo-random numbers from a seed (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A bundle with an arbitrary definition, which the server does not read before it starts the model.
fn bundle(id: &str, seed: u64, length: usize) -> Bundle {
    let mut numbers = Numbers(seed);
    let bytes: Vec<u8> =
        (0..length.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).take(length).collect();
    let sha256 = sha256(&bytes);
    let configuration = json!({
        "model_type": "pytorch",
        "inference_config": {"pass_through": {}},
        "input": {"field_names": ["text_field"]},
        "metadata": {"definition_sha256": sha256},
    });
    let Value::Object(configuration) = configuration else { unreachable!() };
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).to_vec();
    Bundle {
        model_id: id.parse().unwrap(),
        configuration,
        vocabulary: Some(Vocabulary { vocabulary: tokens.into(), merges: None, scores: None }),
        artifact: Artifact {
            format: ArtifactFormat::TorchScript,
            bytes: Arc::new(bytes.into()),
            sha256,
        },
        minimum_version: Version::OLDEST,
        target: Target::Any,
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An import with short waits, because the stand-in responds quickly.
fn import(state: &Path) -> Import {
    let milliseconds = Duration::from_millis;
    let mut retry = RetryPolicy::default();
    retry.retries = 8;
    retry.timeout = Duration::from_secs(60);
    retry.first_wait = milliseconds(1);
    retry.longest_wait = milliseconds(4);
    let mut import = Import::default();
    import.part_size = PART;
    import.retry = retry;
    import.refresh_interval = milliseconds(12);
    import.state_folder = Some(state.to_owned());
    import
}

async fn run(import: &Import, client: &Client, bundle: &Bundle) -> Result<Outcome, ClientError> {
    let (_interrupter, interruption) = Interruption::new();
    let transaction = import.begin(client, &bundle.model_id).await?;
    transaction.run(bundle, &Progress::quiet(), &interruption).await
}

async fn connect(standin: &StandIn) -> Client {
    // On a busy machine, a restart may take longer than requested.
    for _ in 0..1000 {
        if let Ok(client) = Client::connect(Connection::to_url(&standin.url()).unwrap()).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the stand-in stays away");
}

fn is_whole(standin: &StandIn, bundle: &Bundle) -> bool {
    let id = bundle.model_id.as_str();
    standin.vocabulary(id).is_some()
        && standin
            .definition(id)
            .is_some_and(|path| sha256(&fs::read(path).unwrap()) == bundle.artifact.sha256)
}

/// Journals in a state folder.
pub fn journals(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("imports")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).collect()
}

/// Acknowledged parts in the only journal of a state folder.
pub fn journalled(state: &Path) -> BTreeSet<u64> {
    let Some(path) = journals(state).pop() else { return BTreeSet::new() };
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| line.split_once(" stored ")?.1.parse().ok()).collect()
}

/// Sent parts, in order.
pub fn parts(requests: &[Exchange]) -> Vec<u64> {
    let puts = requests.iter().filter(|request| request.method == "PUT");
    puts.filter_map(|request| request.path.split_once("/definition/")?.1.parse().ok()).collect()
}

pub fn rules(rules: &[&str]) -> Faults {
    let rules = rules.iter().map(|rule| rule.parse::<Rule>().unwrap()).collect();
    Faults { rules, ..Faults::default() }
}

/// Faults of a seeded run, including how often faults may repeat.
fn faults_of(seed: u64) -> Faults {
    let mut numbers = Numbers(seed);
    let kinds = [
        "500",
        "502",
        "503",
        "504",
        "breaker",
        "rejected",
        "store-500",
        "store-503",
        "store-504",
        "store-breaker",
        "cut",
        "store-cut",
        "cut-body",
        "cut-answer",
        "slow-3ms",
    ];
    let random = Random {
        seed,
        per_mille: 20 + u32::try_from(numbers.below(280)).unwrap(),
        faults: kinds.iter().map(|kind| kind.parse().unwrap()).collect(),
    };
    let at = 1 + numbers.below(35);
    let more = match seed % 8 {
        0 | 1 => vec![],
        // The master is unavailable, for some time or longer than the retries last.
        2 => vec![format!("any@{at}-{}=503", at + 4 + numbers.below(60))],
        // Bursts of responses with status 429.
        3 => {
            vec![format!("part@{at}-{}=rejected", at + 12), format!("any@{at}-{}=breaker", at + 6)]
        }
        // The server restarts.
        4 => vec![format!("any@{at}=restart-5ms"), format!("any@{}=store-restart-1ms", at + 3)],
        // A proxy with a small limit.
        5 => return Faults { random: Some(random), body_limit: Some(900), ..rules(&[]) },
        // A part that is always rejected.
        6 => vec![format!("part-{}=400", numbers.below(20))],
        // All connections end.
        _ => vec![format!(
            "any@{at}-999999={}",
            ["cut", "store-cut", "503", "store-500"][numbers.below(4) as usize]
        )],
    };
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    Faults { random: Some(random), ..rules(&more) }
}

/// Results of the runs.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicU64,
    resumed: AtomicU64,
    removed: AtomicU64,
    nothing: AtomicU64,
}

/// Runs one import with faults, and repeats it without faults if necessary.
async fn faulted(seed: u64, standin: &StandIn, tally: &Tally) {
    let state = tempfile::tempdir().unwrap();
    standin.set_faults(Faults::default());
    let client = connect(standin).await;
    let length = 18 * PART + 1 + (seed % 2000) as usize;
    let bundle = bundle(&format!("m{seed}"), seed, length);
    let import = import(state.path());
    standin.set_faults(faults_of(seed));
    let outcome = run(&import, &client, &bundle).await;
    standin.set_faults(Faults::default());
    let is_there = || standin.configuration(bundle.model_id.as_str()).is_some();
    match &outcome {
        Ok(outcome) => {
            assert!(matches!(outcome, Outcome::Stored { .. }), "seed {seed}");
            assert!(is_whole(standin, &bundle), "seed {seed}: acknowledged, and not whole");
            assert!(journals(state.path()).is_empty(), "seed {seed}: the journal is left");
            tally.whole.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Err(ClientError::Unfinished { remote_state: RemoteState::Resumable { .. }, .. }) => {
            assert_eq!(journals(state.path()).len(), 1, "seed {seed}: {outcome:?}");
            tally.resumed.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            assert!(!is_there(), "seed {seed} leaves an orphan: {error}");
            assert!(journals(state.path()).is_empty(), "seed {seed}: {error}");
            let removed =
                matches!(error, ClientError::Unfinished { remote_state: RemoteState::Removed, .. });
            let count = if removed { &tally.removed } else { &tally.nothing };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    // The same command runs again on a working cluster.
    let known = journalled(state.path());
    let client = connect(standin).await;
    let before = standin.requests().len();
    let again = run(&import, &client, &bundle).await;
    assert!(again.is_ok(), "seed {seed}: first {outcome:?}, then {again:?}");
    assert!(is_whole(standin, &bundle), "seed {seed}: not whole the second time");
    assert!(journals(state.path()).is_empty(), "seed {seed}: the journal is left");
    let requests = standin.requests();
    if !requests[before..].iter().any(|request| ["DELETE"].contains(&&*request.method))
        && is_there()
    {
        let sent = parts(&requests[before..]);
        let twice: Vec<_> = sent.iter().filter(|part| known.contains(part)).collect();
        let anew = requests[before..]
            .iter()
            .any(|r| r.method == "PUT" && r.path.ends_with(bundle.model_id.as_str()));
        assert!(anew || twice.is_empty(), "seed {seed}: sent again though journalled: {twice:?}");
    }
}

#[test]
fn thousand_imports_with_faults_leave_no_orphan() {
    const RUNS: u64 = 1000;
    const THREADS: u64 = 4;
    let tally = Tally::default();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let tally = &tally;
            scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut standin = None;
                for (i, seed) in (thread..RUNS).step_by(THREADS as usize).enumerate() {
                    // Some definitions are empty. Every second stand-in keeps parts invisible for longer than an import waits by default.
                    if i % 25 == 0 {
                        let interval = if i % 50 == 0 { 10 } else { 100 };
                        standin = None;
                        standin.get_or_insert_with(|| {
                            StandIn::start(Options {
                                refresh_interval: Duration::from_millis(interval),
                                ..Options::default()
                            })
                        });
                    }
                    runtime.block_on(faulted(seed, standin.as_ref().unwrap(), tally));
                }
            });
        }
    });
    println!("{tally:?}");
    let Tally { whole, resumed, removed, nothing } = tally;
    let count = |number: AtomicU64| number.into_inner();
    let (whole, resumed, removed) = (count(whole), count(resumed), count(removed));
    assert_eq!(whole + resumed + removed + count(nothing), RUNS);
    // Each result occurred.
    assert!(whole > RUNS / 3 && resumed > RUNS / 20 && removed > RUNS / 20);
}

/// Imports a bundle once, in this process.
fn once(standin: &StandIn, import: &Import, bundle: &Bundle) -> Result<Outcome, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { run(import, &connect(standin).await, bundle).await })
}

/// The requests of an upload, as `PUT vocabulary`.
fn lines(requests: &[Exchange]) -> Vec<String> {
    let short = |path: &str| path.rsplit("m/").next().unwrap().to_owned();
    requests.iter().map(|request| format!("{} {}", request.method, short(&request.path))).collect()
}

#[test]
fn last_part_is_sent_alone_at_the_end() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let bundle = bundle("m", 1, 20 * PART);
    assert!(matches!(
        once(&standin, &import(state.path()), &bundle).unwrap(),
        Outcome::Stored { .. }
    ));
    let requests = standin.requests();
    let mut lines = lines(&requests);
    let first = lines.iter().position(|line| line.starts_with("PUT")).unwrap();
    let lines = &mut lines[first..];
    assert!(lines[0].starts_with("PUT"), "{lines:?}");
    // The vocabulary is sent beside the parts.
    lines[1..21].sort();
    let mut expected: Vec<_> = (0..19).map(|part| format!("PUT definition/{part}")).collect();
    expected.push("PUT vocabulary".to_owned());
    expected.sort();
    assert_eq!(lines[1..21], expected);
    assert!(lines[21].starts_with("GET") && lines[22] == "PUT definition/19", "{lines:?}");
    assert!(lines[23].starts_with("GET") && lines.len() == 24);
    assert_eq!(requests.last().unwrap().query, "include=definition_status");
    for request in &requests {
        let compressed = request.path.ends_with("/vocabulary").then(|| "gzip".to_owned());
        assert_eq!(request.content_encoding, compressed, "{}", request.path);
    }
    let metadata = &standin.configuration("m").unwrap()["metadata"];
    assert_eq!(metadata["definition_sha256"], bundle.artifact.sha256);
}

#[test]
fn parallel_parts_never_exceed_the_limit() {
    for concurrency in [2, 4, 7] {
        let standin = StandIn::start(Options::default());
        standin.set_faults(rules(&["part=hold"]));
        let bundle = bundle("m", 1, 20 * PART);
        let mut import = import(Path::new(""));
        (import.concurrency, import.state_folder) = (concurrency, None);
        thread::scope(|scope| {
            let importing = scope.spawn(|| once(&standin, &import, &bundle));
            while !importing.is_finished() {
                // An upload begins with at most four parts. The first round decides that it grows; later rounds depend on time.
                let wanted = match parts(&standin.requests()).len() {
                    0 => concurrency.min(4),
                    1..=4 => concurrency,
                    _ => 1,
                };
                if standin.held() >= wanted {
                    standin.release();
                }
                thread::sleep(Duration::from_millis(1));
            }
            importing.join().unwrap().unwrap();
        });
        assert_eq!(standin.most_at_once(), concurrency);
        assert!(is_whole(&standin, &bundle));
    }
}

#[test]
fn model_without_vocabulary_is_stored_whole() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let bundle = Bundle { vocabulary: None, ..bundle("m", 1, 3 * PART) };
    once(&standin, &import(state.path()), &bundle).unwrap();
    let requests = standin.requests();
    assert!(!requests.iter().any(|request| request.path.ends_with("/vocabulary")));
    assert_eq!(parts(&requests).len(), 3);
    let metadata = &standin.configuration("m").unwrap()["metadata"];
    assert_eq!(metadata["definition_sha256"], bundle.artifact.sha256);
    // On the next import it is up to date.
    let mut update = import(state.path());
    update.on_conflict = OnConflict::Update;
    assert_eq!(once(&standin, &update, &bundle).unwrap(), Outcome::Unchanged);
}

/// Imports a definition that is mapped from a file, and changes the file while the third part is being sent.
fn import_while_file_changes(change: impl FnOnce(&fs::File)) {
    let standin = StandIn::start(Options::default());
    standin.set_faults(rules(&["part-2=hold"]));
    let plain = bundle("m", 1, 20 * PART);
    let bytes = plain.artifact.bytes.get(0..20 * PART).unwrap().into_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    let map = MappedFile::open(file.path()).unwrap();
    let artifact = Artifact { bytes: Arc::new(map.into()), ..plain.artifact };
    let mapped = Bundle { artifact, ..plain };
    let state = tempfile::tempdir().unwrap();
    let mut import = import(state.path());
    import.concurrency = 1;
    let error = thread::scope(|scope| {
        let importing = scope.spawn(|| once(&standin, &import, &mapped));
        while standin.held() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        change(&fs::OpenOptions::new().write(true).open(file.path()).unwrap());
        standin.set_faults(Faults::default());
        standin.release();
        importing.join().unwrap().unwrap_err()
    });
    let ClientError::Unfinished { cause, remote_state: RemoteState::Removed, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(&*cause, ClientError::FileChanged { path } if path == file.path()), "{cause}");
    assert!(!standin.model_ids().contains(&"m".to_owned()));
    assert!(parts(&standin.requests()).len() < 20);
}

#[test]
fn file_that_shrinks_during_upload_ends_the_import_and_removes_the_model() {
    import_while_file_changes(|file| file.set_len(PART as u64).unwrap());
}

#[test]
fn file_that_changes_during_upload_ends_the_import_and_removes_the_model() {
    import_while_file_changes(|file| {
        // The time differs even if the file system stores coarse times.
        let later = std::time::SystemTime::now() + Duration::from_secs(5);
        file.set_modified(later).unwrap();
    });
}

#[test]
fn proxy_with_a_small_limit_gets_smaller_parts() {
    let standin = StandIn::start(Options::default());
    standin.set_faults(Faults { body_limit: Some(6000), ..Faults::default() });
    let state = tempfile::tempdir().unwrap();
    let mut import = import(state.path());
    import.part_size = 1 << 20;
    let bundle = bundle("m", 1, 100_000);
    once(&standin, &import, &bundle).unwrap();
    assert!(is_whole(&standin, &bundle));
    // 100,000 bytes halved until base64 of them is within the limit: 3,125.
    assert_eq!(parts(&standin.requests()).last(), Some(&31));
}

#[test]
fn parts_of_an_earlier_model_are_never_used() {
    // Parts stay invisible for so long that a deletion does not remove them.
    let options = Options { refresh_interval: Duration::from_secs(3600), ..Options::default() };
    let standin = StandIn::start(options);
    let old = bundle("m", 1, 4 * PART);
    let body = json!(old.configuration);
    let path = "/_ml/trained_models/m";
    assert_eq!(ask(&standin, "PUT", path, Some(&body)).0, 200);
    let part =
        json!({"definition": "AAAA", "total_definition_length": 20 * PART, "total_parts": 20});
    assert_eq!(ask(&standin, "PUT", &format!("{path}/definition/7"), Some(&part)).0, 200);
    assert_eq!(ask(&standin, "DELETE", path, None).0, 200);
    let bundle = bundle("m", 2, 20 * PART);
    let mut import = import(Path::new(""));
    (import.concurrency, import.state_folder) = (1, None);
    let outcome = once(&standin, &import, &bundle);
    // The import may fail, because nothing is refreshed for an hour. It must not succeed with a foreign part.
    match outcome {
        Ok(_) => assert!(is_whole(&standin, &bundle)),
        Err(error) => {
            assert!(standin.model_ids().is_empty(), "{error}");
            says(&error.to_string(), &["parts of an earlier model m are still stored"]);
        }
    }
}

#[test]
fn existing_model_is_treated_as_on_conflict_requests() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let (old, new) = (bundle("m", 1, 5 * PART), bundle("m", 2, 6 * PART));
    let of = |on_conflict| {
        let mut import = import(state.path());
        import.on_conflict = on_conflict;
        import
    };
    assert!(matches!(once(&standin, &of(OnConflict::Skip), &old).unwrap(), Outcome::Stored { .. }));
    let created =
        |standin: &StandIn| standin.configuration("m").unwrap()["metadata"]["import_id"].clone();
    let first = created(&standin);
    assert_eq!(once(&standin, &of(OnConflict::Skip), &old).unwrap(), Outcome::Unchanged);
    let error = once(&standin, &of(OnConflict::Skip), &new).unwrap_err();
    assert!(matches!(error, ClientError::Different(_)), "{error}");
    let error = once(&standin, &of(OnConflict::Fail), &new).unwrap_err();
    assert!(matches!(error, ClientError::Exists(_)), "{error}");
    assert_eq!(created(&standin), first);
    assert!(matches!(
        once(&standin, &of(OnConflict::Replace), &new).unwrap(),
        Outcome::Stored { .. }
    ));
    assert!(is_whole(&standin, &new) && created(&standin) != first);
    // A model without a checksum counts as a different model.
    let plain = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
    assert_eq!(ask(&standin, "PUT", "/_ml/trained_models/plain", Some(&plain)).0, 200);
    let error = once(&standin, &of(OnConflict::Skip), &bundle("plain", 1, PART)).unwrap_err();
    assert!(matches!(error, ClientError::Different(_)), "{error}");
    assert!(journals(state.path()).is_empty());
}

#[test]
fn failure_after_deletion_of_the_old_model_is_reported() {
    let standin = StandIn::start(Options::default());
    let state = tempfile::tempdir().unwrap();
    let (old, new) = (bundle("m", 1, 5 * PART), bundle("m", 2, 6 * PART));
    once(&standin, &import(state.path()), &old).unwrap();
    standin.set_faults(rules(&["part-3=400"]));
    let mut import = import(state.path());
    import.on_conflict = OnConflict::Replace;
    let error = once(&standin, &import, &new).unwrap_err().to_string();
    says(
        &error,
        &["(400)", "The old model m was deleted before that", "incomplete model m was removed"],
    );
    assert!(standin.model_ids().is_empty());
}

#[test]
fn unsuitable_cluster_is_detected_before_any_change() {
    use standin::{Credential, Privilege};
    let is_untouched = |standin: &StandIn| {
        let requests = standin.requests();
        requests.iter().all(|r| r.method == "GET" || r.path.ends_with("_has_privileges"))
    };
    let state = tempfile::tempdir().unwrap();
    let small = bundle("m", 1, PART);
    // The user may read, but not create models.
    let standin = StandIn::start(Options {
        credentials: vec![Credential::user("me", "secret").allowed(Privilege::Monitor)],
        ..Options::default()
    });
    let url = standin.url().replace("http://", "http://me:secret@");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(async {
        let client = Client::connect(Connection::to_url(&url).unwrap()).await.unwrap();
        let import = import(state.path());
        import.begin(&client, &small.model_id).await.unwrap_err()
    });
    says(&error.to_string(), &["the user me is not allowed to manage machine learning"]);
    says(&error.hint().unwrap().to_string(), &["manage_ml"]);
    assert!(is_untouched(&standin));
    // The version lacks a feature, which the second check detects.
    let standin =
        StandIn::start(Options { version: "8.15.5".parse().unwrap(), ..Options::default() });
    let needy = Bundle { minimum_version: Version::new(8, 16, 0), ..bundle("m", 1, PART) };
    let error = once(&standin, &import(state.path()), &needy).unwrap_err();
    says(&error.to_string(), &["8.15.5", "needs 8.16.0 or later"]);
    assert!(is_untouched(&standin));
    // Another client creates the model between the two checks.
    let standin = StandIn::start(Options::default());
    standin.set_faults(rules(&["memory=hold"]));
    thread::scope(|scope| {
        let importing = scope.spawn(|| once(&standin, &import(state.path()), &small));
        while standin.held() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let other = tempfile::tempdir().unwrap();
        let theirs = json!({"model_type": "pytorch", "inference_config": {"pass_through": {}}});
        assert_eq!(ask(&standin, "PUT", "/_ml/trained_models/m", Some(&theirs)).0, 200);
        drop(other);
        standin.release();
        let error = importing.join().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::ExistsIncomplete(_)), "{error}");
    });
}

#[test]
fn model_larger_than_every_node_is_stored_with_a_warning() {
    for (ml_memory, said) in [
        (100 << 20, &["needs", "largest machine learning node has 100 MiB"][..]),
        (0, &["no machine learning node"]),
    ] {
        let standin = StandIn::start(Options { ml_memory, ..Options::default() });
        let output = program()
            .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--bundle"])
            .arg(bundle_fixtures::bundle("ner"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", message(&output));
        says(&message(&output), said);
    }
}

#[test]
fn invalid_upload_options_are_rejected() {
    for (arguments, said) in [
        (["--part-size", "36MiB"], "1 KiB to 35 MiB"),
        (["--part-size", "10"], "1 KiB to 35 MiB"),
        (["--part-size", "1m"], "512KiB or 4MiB"),
        (["--upload-concurrency", "0"], "1..=64"),
        (["--on-conflict", "ask"], "fail, replace, skip"),
        (["--timeout", "soon"], "90s or 15m"),
    ] {
        let output = program()
            .args(["import", "--url", "http://127.0.0.1:1", "--hub-model-id", "x"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        says(&message(&output), &[said]);
    }
}

/// Size of the private writable memory of this process in KiB, which `ulimit -d` limits.
#[cfg(target_os = "linux")]
fn data() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Runs this test in two further processes. The first uploads little, which shows the memory that the process needs by itself. The second
/// uploads much, with its memory limited to that and the memory of the parts.
#[test]
#[cfg(target_os = "linux")]
fn memory_of_an_upload_is_two_parts_per_parallel_request() {
    const NAME: &str = "uploads::memory_of_an_upload_is_two_parts_per_parallel_request";
    const URL: &str = "RUST_ELAND_TEST_URL";
    const LENGTH: &str = "RUST_ELAND_TEST_LENGTH";
    const CONCURRENCY: usize = 4;
    const SIZE: usize = 8 << 20;
    let mut import = import(Path::new(""));
    import.concurrency = CONCURRENCY;
    import.part_size = SIZE;
    import.state_folder = None;
    if let (Ok(url), Ok(length)) = (std::env::var(URL), std::env::var(LENGTH)) {
        let length: u64 = length.parse().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        let map = MappedFile::from_file(file.try_clone().unwrap(), Path::new("file")).unwrap();
        let sha256 = sha256(map.as_ref());
        let artifact =
            Artifact { format: ArtifactFormat::TorchScript, bytes: Arc::new(map.into()), sha256 };
        let bundle = Bundle { artifact, ..bundle(&format!("m{length}"), 1, 1) };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::connect(Connection::to_url(&url).unwrap()).await.unwrap();
            run(&import, &client, &bundle).await.unwrap();
        });
        println!("data {}", data());
        return;
    }
    let standin = StandIn::start(Options::default());
    let upload = |length: usize, limit: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("ulimit -d {limit}; exec \"$@\""), "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(URL, standin.url())
            .env(LENGTH, length.to_string())
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", message(&output));
        let data = said.lines().find_map(|line| line.split_once("data ")).unwrap().1;
        data.trim().parse::<usize>().unwrap()
    };
    let little = upload(CONCURRENCY * PART, "unlimited");
    let much = 16 * SIZE;
    upload(much, &(little + CONCURRENCY * 2 * SIZE / 1024).to_string());
    assert_eq!(
        fs::metadata(standin.definition(&format!("m{much}")).unwrap()).unwrap().len(),
        much as u64
    );
    // Two parts are 16 MiB.
    assert_eq!(standin.most_at_once(), 2);
}

#[test]
fn stand_in_that_discards_parts_accepts_every_import() {
    let standin = StandIn::start(Options { discard_parts: true, ..Options::default() });
    let output = program()
        .args(["import", "--url", &standin.url(), "--es-model-id", "m", "--bundle"])
        .arg(bundle_fixtures::bundle("ner"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(standin.model_ids(), ["m"]);
    assert_eq!(fs::metadata(standin.definition("m").unwrap()).unwrap().len(), 0);
}

/// The definition is hashed first and sent later from the same memory map.
#[test]
fn file_changed_during_the_upload_ends_the_import_without_a_model() {
    for shortened in [false, true] {
        let standin = StandIn::start(Options::default());
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("definition");
        let random = bundle("m", 7, 16 * PART);
        fs::write(&path, random.artifact.bytes.get(0..16 * PART).unwrap()).unwrap();
        let map = MappedFile::open(&path).unwrap();
        let artifact = Artifact { bytes: Arc::new(map.into()), ..random.artifact };
        let bundle = Bundle { artifact, ..bundle("m", 7, 16 * PART) };
        standin.set_faults(rules(&["part@3=hold"]));
        let error = thread::scope(|scope| {
            let importing = scope.spawn(|| once(&standin, &import(state.path()), &bundle));
            while standin.held() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            // Timestamps of files advance in steps of a few milliseconds.
            thread::sleep(Duration::from_millis(50));
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            if shortened {
                file.set_len(PART as u64).unwrap();
            } else {
                std::io::Write::write_all(&mut &file, b"other bytes").unwrap();
            }
            standin.release();
            importing.join().unwrap().unwrap_err()
        });
        says(&error.to_string(), &["definition", "changed"]);
        assert!(standin.model_ids().is_empty(), "{error}");
        assert!(journals(state.path()).is_empty(), "{error}");
    }
}
