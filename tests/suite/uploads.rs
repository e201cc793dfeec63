//! Uploads to clusters that fail: in the end the model is whole, or not there, or half there with a journal to go on from.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rust_eland::bundle::{Bundle, Definition};
use rust_eland::checkpoint::Map;
use rust_eland::elasticsearch::{
    Client, ClientError, Connection, Import, Interruption, Left, OnConflict, Outcome, Patience,
};
use rust_eland::progress::Progress;
use rust_eland::tokenizer::Vocabulary;
use rust_eland::version::Version;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use standin::{Exchange, Faults, Options, Random, Rule, StandIn};

use crate::fixtures::Fixture;
use crate::program::{ask, message, program, says};

/// Bytes of a part in tests.
const PART: usize = 1024;

/// Numbers that a seed determines (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A bundle whose definition is any bytes: the server does not read them until it starts the model.
fn bundle(id: &str, seed: u64, length: usize) -> Bundle {
    let mut numbers = Numbers(seed);
    let bytes: Vec<u8> =
        (0..length.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).take(length).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
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
        vocabulary: Vocabulary { vocabulary: tokens, merges: None, scores: None },
        definition: Definition { bytes: Arc::new(Map::of(&file).unwrap()), sha256 },
        minimum_version: Version::OLDEST,
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An import whose waits are short, since nothing but the stand-in is waited for.
fn import(state: &Path) -> Import {
    let milliseconds = Duration::from_millis;
    Import {
        part_size: PART,
        patience: Patience {
            retries: 8,
            timeout: Duration::from_secs(60),
            first_wait: milliseconds(1),
            longest_wait: milliseconds(4),
            refresh: milliseconds(12),
        },
        state_folder: Some(state.to_owned()),
        ..Import::default()
    }
}

async fn run(import: &Import, client: &Client, bundle: &Bundle) -> Result<Outcome, ClientError> {
    let (_interrupter, interruption) = Interruption::new();
    let transaction = import.begin(client, &bundle.model_id).await?;
    transaction.run(bundle, Progress::default(), &interruption).await
}

async fn connect(standin: &StandIn) -> Client {
    Client::connect(Connection::to_url(&standin.url()).unwrap()).await.unwrap()
}

fn is_whole(standin: &StandIn, bundle: &Bundle) -> bool {
    let id = bundle.model_id.as_str();
    standin.vocabulary(id).is_some()
        && standin
            .definition(id)
            .is_some_and(|path| sha256(&fs::read(path).unwrap()) == bundle.definition.sha256)
}

/// The journals in a state folder.
fn journals(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("imports")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).collect()
}

/// The parts that a state folder's only journal has as acknowledged.
fn journalled(state: &Path) -> BTreeSet<u64> {
    let Some(path) = journals(state).pop() else { return BTreeSet::new() };
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| line.split_once(" stored ")?.1.parse().ok()).collect()
}

/// The parts that were sent, in order.
fn parts(requests: &[Exchange]) -> Vec<u64> {
    let puts = requests.iter().filter(|request| request.method == "PUT");
    puts.filter_map(|request| request.path.split_once("/definition/")?.1.parse().ok()).collect()
}

fn rules(rules: &[&str]) -> Faults {
    let rules = rules.iter().map(|rule| rule.parse::<Rule>().unwrap()).collect();
    Faults { rules, ..Faults::default() }
}

/// The faults of one of the seeded runs, and how often things may go on failing.
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
        // The master is away for a while, and for longer than the patience lasts.
        2 => vec![format!("any@{at}-{}=503", at + 4 + numbers.below(60))],
        // Bursts of push-back.
        3 => {
            vec![format!("part@{at}-{}=rejected", at + 12), format!("any@{at}-{}=breaker", at + 6)]
        }
        // The server goes away and comes back.
        4 => vec![format!("any@{at}=restart-5ms"), format!("any@{}=store-restart-1ms", at + 3)],
        // A proxy with a small limit.
        5 => return Faults { random: Some(random), body_limit: Some(900), ..rules(&[]) },
        // A part that is never taken.
        6 => vec![format!("part-{}=400", numbers.below(20))],
        // The end of all connections.
        _ => vec![format!(
            "any@{at}-999999={}",
            ["cut", "store-cut", "503", "store-500"][numbers.below(4) as usize]
        )],
    };
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    Faults { random: Some(random), ..rules(&more) }
}

/// What became of the runs.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicU64,
    resumed: AtomicU64,
    removed: AtomicU64,
    nothing: AtomicU64,
}

/// One import under faults, and whatever it takes to end it well.
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
            assert_eq!(*outcome, Outcome::Stored, "seed {seed}");
            assert!(is_whole(standin, &bundle), "seed {seed}: acknowledged, and not whole");
            assert!(journals(state.path()).is_empty(), "seed {seed}: the journal is left");
            tally.whole.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Err(ClientError::Unfinished { left: Left::Resumable(_), .. }) => {
            assert_eq!(journals(state.path()).len(), 1, "seed {seed}: {outcome:?}");
            tally.resumed.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            assert!(!is_there(), "seed {seed} leaves an orphan: {error}");
            assert!(journals(state.path()).is_empty(), "seed {seed}: {error}");
            let removed = matches!(error, ClientError::Unfinished { left: Left::Removed, .. });
            let count = if removed { &tally.removed } else { &tally.nothing };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    // The same command again, on a cluster that is well.
    let known = journalled(state.path());
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
fn a_thousand_faulted_imports_end_whole_or_without_an_orphan() {
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
                    // Now and then an empty one; every other keeps parts invisible for longer than an import waits by itself.
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
    // Each of the ways has been gone.
    assert!(whole > RUNS / 3 && resumed > RUNS / 20 && removed > RUNS / 20);
}
