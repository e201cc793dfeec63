//! Connections that break, stall or send wrong bytes, and processes that are killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::hub::{Break, Fault, Host, Hub, Options};
use rust_eland::source::hub::{HubError, HubSettings, RangeSettings};
use serde_json::{Value, json};

use super::{
    Cache, ID, asked, explained, fetch, files_below, noise, on_cdn, repository, runtime, serving,
};
use crate::program::{message, says};

const WEIGHTS: &str = "model.safetensors";

/// The first byte and the number of sent bytes of each request for the weights to the CDN.
fn ranges(hub: &Hub) -> Vec<(u64, u64)> {
    let name = on_cdn(&repository(), WEIGHTS);
    let requests = hub.requests();
    let requests = requests.iter().filter(|request| request.path.contains(&name));
    requests.map(|request| (request.from.unwrap_or(0), request.sent())).collect()
}

fn size() -> u64 {
    repository().files[WEIGHTS].content.len() as u64
}

#[test]
fn cut_connection_is_resumed_at_the_last_byte() {
    for (after, times) in [(0, 2), (1, 2), (100_000, 2), (299_999, 1)] {
        let hub = serving([repository()]);
        hub.inject(Fault::cdn("", times, Break::Cut(after)));
        hub.inject(Fault::hub("resolve-cache", 3, Break::Cut(after.min(10_000))));
        let cache = Cache::new();
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        assert_eq!(hub.faults_left(), 0);
        let ranges = ranges(&hub);
        assert_eq!(ranges.len(), times + 1, "{ranges:?}");
        for pair in ranges.windows(2) {
            // The next request starts within the bytes that were sent.
            assert!(pair[1].0 >= pair[0].0 && pair[1].0 <= pair[0].0 + pair[0].1, "{ranges:?}");
        }
        assert_eq!(ranges[times].0 + ranges[times].1, size());
    }
}

#[test]
fn stalled_connection_is_closed_and_resumed() {
    for (host, how) in [
        (Fault::cdn as fn(&str, usize, Break) -> Fault, Break::Stall(100_000)),
        (Fault::cdn, Break::Silence),
        (Fault::hub, Break::Silence),
        (Fault::hub, Break::Stall(3)),
    ] {
        let hub = serving([repository()]);
        hub.inject(host("", 1, how));
        let cache = Cache::new();
        let mut settings = cache.settings(&hub.url());
        settings.read_timeout = Duration::from_secs(1);
        fetch(settings, ID, "main").unwrap();
        cache.holds(&repository());
        assert_eq!(hub.faults_left(), 0);
    }
}

#[test]
fn server_without_ranges_is_read_from_the_start() {
    let hub = serving([repository()]);
    hub.inject(Fault::cdn("", 1, Break::Cut(100_000)));
    hub.inject(Fault::cdn("", 1, Break::NoRange));
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
    assert_eq!(asked(&hub, &on_cdn(&repository(), WEIGHTS)).last().unwrap().2, 200);
}

/// Settings that download the weights in ranges of 40,000 bytes, four at a time.
fn in_ranges(cache: &Cache, hub: &Hub) -> HubSettings {
    let mut settings = cache.settings(&hub.url());
    settings.ranges = RangeSettings { smallest_file: 100_000, length: 40_000, connections: 4 };
    settings
}

#[test]
fn large_file_is_downloaded_in_ranges_with_one_redirect() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    fetch(in_ranges(&cache, &hub), ID, "main").unwrap();
    cache.holds(&repository());
    let mut ranges = ranges(&hub);
    ranges.sort_unstable();
    let expected: Vec<_> = (0..8).map(|n| (n * 40_000, 40_000.min(size() - n * 40_000))).collect();
    assert_eq!(ranges, expected);
    assert_eq!(asked(&hub, "/resolve/").iter().filter(|it| it.2 == 302).count(), 1);
    // A file below the limit comes in one answer.
    assert_eq!(asked(&hub, "resolve-cache").iter().filter(|it| it.1.is_some()).count(), 0);
}

#[test]
fn failed_range_continues_in_one_answer() {
    for how in [
        Break::Cut(10_000),
        Break::status(403, &[]),
        Break::status(200, &[]),
        Break::NoRange,
        Break::header("Content-Range", "bytes 0-39999/300000"),
    ] {
        let hub = serving([repository()]);
        // Other requests for the same path may fail first, because four are sent at the same time.
        hub.inject(Fault::cdn("", 2, how.clone()));
        let cache = Cache::new();
        fetch(in_ranges(&cache, &hub), ID, "main")
            .unwrap_or_else(|error| panic!("{how:?}: {error}"));
        cache.holds(&repository());
    }
    // Wrong bytes are found by the hash.
    let hub = serving([repository()]);
    hub.inject(Fault::cdn("", 1, Break::Flip));
    let cache = Cache::new();
    fetch(in_ranges(&cache, &hub), ID, "main").unwrap();
    cache.holds(&repository());
}

#[test]
fn download_in_ranges_resumes_after_the_last_written_byte() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    hub.inject(Fault::cdn("", usize::MAX, Break::status(503, &[])));
    fetch(in_ranges(&cache, &hub), ID, "main").unwrap_err();
    let blobs = cache.hub().join("models--org--model/blobs");
    let etag = repository().files[WEIGHTS].etag();
    let mut partial = files_below(&blobs);
    partial.retain(|path| path.display().to_string().contains(&etag));
    fs::write(&partial[0], &repository().files[WEIGHTS].content[..123_456]).unwrap();
    let hub = serving([repository()]);
    fetch(in_ranges(&cache, &hub), ID, "main").unwrap();
    cache.holds(&repository());
    let mut starts: Vec<u64> = ranges(&hub).into_iter().map(|(start, _)| start).collect();
    starts.sort_unstable();
    assert_eq!(starts, [123_456, 163_456, 203_456, 243_456, 283_456]);
}

#[test]
fn stopped_download_in_ranges_keeps_the_bytes_of_the_first_range() {
    let hub = serving([repository()]);
    // Each connection stalls within its range.
    hub.inject(Fault::cdn("", usize::MAX, Break::Stall(10_000)));
    let cache = Cache::new();
    let settings = in_ranges(&cache, &hub);
    let path = || {
        let files = files_below(&cache.hub().join("models--org--model/blobs"));
        let etag = repository().files[WEIGHTS].etag();
        files.into_iter().find(|path| path.to_string_lossy().contains(&etag))
    };
    let length = || path().and_then(|path| fs::metadata(path).ok()).map_or(0, |data| data.len());
    let begun = Instant::now();
    runtime().block_on(async {
        let (id, revision) = (ID.parse().unwrap(), "main".parse().unwrap());
        let client = rust_eland::source::hub::Hub::new(settings).unwrap();
        let plan = client.plan(&id, &revision).await.unwrap();
        let written = async {
            while length() < 10_000 && begun.elapsed() < Duration::from_secs(20) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let progress = rust_eland::observer::Progress::quiet();
        tokio::select! {
            result = plan.download(&progress) => panic!("{result:?}"),
            () = written => {}
        }
    });
    assert_eq!(length(), 10_000);
    let hub = serving([repository()]);
    fetch(in_ranges(&cache, &hub), ID, "main").unwrap();
    cache.holds(&repository());
    assert_eq!(ranges(&hub).into_iter().map(|(start, _)| start).min(), Some(10_000));
}

#[test]
fn ranges_are_faster_where_each_connection_is_limited() {
    let time = |connections: usize| {
        let hub = Hub::start(Options {
            repositories: vec![repository()],
            bytes_per_second: Some(150_000),
            ..Options::default()
        });
        let cache = Cache::new();
        let mut settings = in_ranges(&cache, &hub);
        settings.ranges.connections = connections;
        let begun = Instant::now();
        fetch(settings, ID, "main").unwrap();
        begun.elapsed()
    };
    let (one, eight) = (time(1), time(8));
    assert!(eight < one.mul_f64(0.7), "{one:?} {eight:?}");
}

#[test]
fn unfit_answers_are_not_written() {
    let page = "<html><body>Service unavailable</body></html>";
    for how in [
        Break::status(403, &[]),
        Break::status(503, &[]),
        Break::status(200, &[]),
        Break::status(206, &[]),
        Break::status(404, &[]),
        Break::status(400, &[]),
        Break::status(416, &[]),
        Break::Answer(200, Vec::new(), page.repeat(20_000)),
    ] {
        let hub = serving([repository()]);
        // In the first attempt, and in an attempt that resumes.
        hub.inject(Fault::cdn("", 1, how.clone()));
        hub.inject(Fault::cdn("", 1, Break::Cut(100_000)));
        hub.inject(Fault::cdn("", 1, how.clone()));
        let cache = Cache::new();
        cache.fetch(&hub).unwrap_or_else(|error| panic!("{how:?}: {error}"));
        cache.holds(&repository());
        assert_eq!(hub.faults_left(), 0, "{how:?}");
    }
    for range in ["bytes 5-299999/300000", "bytes 0-299999/300001", "bytes */300000", "5", ""] {
        let hub = serving([repository()]);
        hub.inject(Fault::cdn("", 1, Break::Cut(100_000)));
        hub.inject(Fault::cdn("", 1, Break::header("Content-Range", range)));
        let cache = Cache::new();
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        assert_eq!(hub.faults_left(), 0, "{range}");
    }
    for status in [403, 503] {
        let hub = serving([repository()]);
        hub.inject(Fault::cdn("", usize::MAX, Break::status(status, &[])));
        let cache = Cache::new();
        let error = cache.fetch(&hub).unwrap_err();
        assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
        says(&explained(&error), &[WEIGHTS, &status.to_string(), "Run again later"]);
        assert!(!error.to_string().contains("Signature"), "{error}");
        assert!(!cache.blob(&repository().files[WEIGHTS].etag()).exists());
        cache.is_sound();
    }
    // Errors of the hub itself are retried too.
    let hub = serving([repository()]);
    hub.inject(Fault::hub("/api/", 1, Break::status(502, &[])));
    hub.inject(Fault::hub("/resolve/", 1, Break::status(504, &[])));
    Cache::new().fetch(&hub).unwrap();
}

#[test]
fn wrong_bytes_are_downloaded_again_and_never_kept() {
    let hub = serving([repository()]);
    hub.inject(Fault::cdn("", 1, Break::Flip));
    hub.inject(Fault::hub("resolve-cache", 1, Break::Flip));
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
    assert_eq!(hub.faults_left(), 0);

    let hub = serving([repository()]);
    hub.inject(Fault::cdn("", usize::MAX, Break::Flip));
    let cache = Cache::new();
    let error = cache.fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::Mismatch { times: 3, .. }), "{error}");
    says(&error.to_string(), &[WEIGHTS, "3 times", "None of it was kept"]);
    cache.is_sound();
    let etag = repository().files[WEIGHTS].etag();
    assert!(!cache.blob(&etag).exists() && !cache.blob(&format!("{etag}.incomplete")).exists());

    // A page of unknown length.
    let hub = serving([repository()]);
    hub.inject(Fault::hub("resolve-cache", 1, Break::NoLength));
    hub.inject(Fault::cdn("", 1, Break::NoLength));
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
}

#[test]
fn partial_file_of_another_tool_is_continued_in_a_copy() {
    let content = repository().files[WEIGHTS].content.clone();
    let etag = repository().files[WEIGHTS].etag();
    let begun = |bytes: &[u8]| {
        let cache = Cache::new();
        let path = cache.blob(&format!("{etag}.incomplete"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let hub = serving([repository()]);
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        // The other tool may still be writing the file.
        assert!(fs::read(&path).unwrap() == bytes);
        ranges(&hub)
    };
    assert_eq!(begun(&content[..123_456]), [(123_456, 300_000 - 123_456)]);
    assert_eq!(begun(&content), []);
    // Bytes that are not a part of the file are found by the hash.
    assert_eq!(begun(&noise(9, 1000)), [(1000, 299_000), (0, 300_000)]);
    assert_eq!(begun(&noise(9, 300_000)), [(0, 300_000)]);
    assert_eq!(begun(&noise(9, 300_001)), [(0, 300_000)]);
}

#[test]
fn parts_of_two_versions_are_never_joined() {
    let hub = serving([repository()]);
    hub.inject(Fault::cdn("", usize::MAX, Break::Cut(50_000)));
    let cache = Cache::new();
    let mut settings = cache.settings(&hub.url());
    settings.backoff = Duration::ZERO;
    // 50,000 bytes at a time would complete the file, so the hub fails in the middle.
    hub.inject(Fault::hub("/model.safetensors", usize::MAX, Break::status(503, &[])));
    fetch(settings, ID, "main").unwrap_err();
    drop(hub);
    let newer = repository().large(WEIGHTS, noise(77, 300_000)).file("vocab.txt", noise(78, 100));
    let hub = serving([newer.clone()]);
    cache.fetch(&hub).unwrap();
    cache.holds(&newer);

    // The commit is pinned if the branch moves between the listing and the download.
    let hub = serving([repository()]);
    let cache = Cache::new();
    let stale = json!({"id": ID, "sha": repository().commit()}).to_string();
    hub.replace(newer);
    hub.inject(Fault::hub("/revision/main", 1, Break::Answer(200, Vec::new(), stale)));
    let error = cache.fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::NoRevision { .. }), "{error}");
}

#[test]
fn parallel_downloads_request_each_file_once() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    let one = || async {
        let client = super::Client::new(cache.settings(&hub.url())).unwrap();
        let plan = client.plan(&ID.parse().unwrap(), &"main".parse().unwrap()).await.unwrap();
        plan.download(&super::Progress::quiet()).await.unwrap()
    };
    runtime().block_on(async { tokio::join!(one(), one(), one()) });
    cache.holds(&repository());
    let requests = hub.requests();
    for path in ["/resolve/", "/resolve-cache/"] {
        let mut paths: Vec<_> =
            requests.iter().map(|r| &r.path).filter(|p| p.contains(path)).collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }
    assert_eq!(ranges(&hub), [(0, 300_000)]);
}

#[test]
fn full_disk_is_reported_before_the_download() {
    let hub = serving([repository()]);
    let mut nodes: Vec<Value> = Vec::new();
    for (path, file) in &repository().files {
        let size = if path == WEIGHTS { 1 << 60 } else { file.content.len() as u64 };
        nodes.push(json!({"type": "file", "path": path, "size": size, "oid": file.blob(),
            "lfs": file.large.then(|| json!({"oid": file.sha256(), "size": size}))}));
    }
    let listing = Value::from(nodes).to_string();
    hub.inject(Fault::hub("/tree/", 1, Break::Answer(200, Vec::new(), listing.clone())));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::Space { .. }), "{error}");
    says(&explained(&error), &["are free", "HF_HOME"]);
    assert!(asked(&hub, "vocab.txt").is_empty() && asked(&hub, WEIGHTS).is_empty());
    // The copy of the files needs space too.
    hub.inject(Fault::hub("/tree/", 1, Break::Answer(200, Vec::new(), listing)));
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let output = folder.path().join("new/model");
    let output = cache.download(&hub, &["--output", output.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["copy of the model needs", "are free", "--output"]);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[cfg_attr(not(feature = "torch"), ignore = "imports a model with libtorch")]
#[test]
fn download_killed_twenty_times_requests_no_byte_twice() {
    const RUNS: u64 = 20;
    let repository = repository()
        .file("tokenizer.json", noise(11, 700_000))
        .large(WEIGHTS, noise(12, 3_000_000));
    let needed = ["config.json", "vocab.txt", "tokenizer.json", WEIGHTS];
    let total: u64 = needed.iter().map(|name| repository.files[*name].content.len() as u64).sum();
    let hub = serving([repository.clone()]);
    let cache = Cache::new();
    let partly = || -> Vec<(String, u64)> {
        let paths = files_below(&cache.hub());
        let names = paths.iter().filter(|path| path.parent().unwrap().ends_with("blobs"));
        names
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::metadata(path).unwrap().len())
            })
            .collect()
    };
    let mut points = noise(13, RUNS as usize).into_iter().map(u64::from);
    for run in 0..RUNS {
        let before = partly();
        hub.forget();
        // About 5 % in each run, at pseudo-random points.
        hub.hold_after(total / (RUNS + 2) * (64 + points.next().unwrap()) / 256);
        let mut child = cache
            .program(&hub.url())
            .args(["download", "--hub-model-id", ID])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !hub.is_holding() {
            assert!(child.try_wait().unwrap().is_none(), "run {run} ended on its own");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        resumed_from(&hub, &repository, &before);
    }
    hub.forget();
    let before = partly();
    assert!(before.iter().any(|(name, _)| name.ends_with(".incomplete")), "{before:?}");
    hub.release();
    let output = cache.download(&hub, &[]);
    assert!(output.status.success(), "{}", message(&output));
    resumed_from(&hub, &repository, &before);
    cache.holds(&repository);
    let snapshot = cache.snapshot(&repository.commit());
    assert!(
        fs::read(snapshot.join("tokenizer.json")).unwrap()
            == repository.files["tokenizer.json"].content
    );
    // After that, nothing is left to download.
    hub.forget();
    assert!(cache.download(&hub, &[]).status.success());
    assert!(hub.requests().iter().all(|request| request.path.starts_with("/api/models/")));
}

/// Fails unless each request starts at the end of the partial file.
#[track_caller]
fn resumed_from(hub: &Hub, repository: &::hub::Repository, before: &[(String, u64)]) {
    for request in hub.requests() {
        let file = match request.host {
            Host::Hub if !request.path.contains("/resolve-cache/") => continue,
            _ => repository.files.iter().find(|(path, file)| {
                request.path.contains(&format!("/{path}?")) || request.path.contains(&file.sha256())
            }),
        };
        let etag = file.unwrap().1.etag();
        assert!(
            !before.iter().any(|(name, _)| *name == etag),
            "requested although complete: {request:?}"
        );
        let is_partial = |name: &str| name.starts_with(&etag) && name.ends_with(".incomplete");
        let partial = before.iter().find(|(name, _)| is_partial(name));
        let length = partial.map_or(0, |(_, size)| *size);
        assert_eq!(request.from.unwrap_or(0), length, "{request:?}");
    }
}

#[cfg_attr(not(feature = "torch"), ignore = "imports a model with libtorch")]
#[test]
fn download_continues_after_ctrl_c() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    hub.hold_after(150_000);
    let program = cache.program(&hub.url());
    // A test in the background ignores Ctrl-C, and the program would inherit this.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let child = command
        .args(["download", "--hub-model-id", ID])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !hub.is_holding() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    // The signal ends the process. Shells report this as exit status 130.
    assert_eq!(child.wait_with_output().unwrap().status.signal(), Some(2));
    cache.is_sound();
    hub.release();
    assert!(cache.download(&hub, &[]).status.success());
    cache.holds(&repository());
}
