//! The protocol of the real hub, point by point.

use ::hub::{Access, Break, Fault, Host, Hub, Options, Repository};
use rust_eland::source::hub::HubError;

use super::{Cache, ID, asked, explained, fetch, on_cdn, repository, serving};
use crate::program::says;

const TOKEN: &str = "hf_granted";
const STRANGER: &str = "hf_stranger";

fn guarded(access: Access) -> Hub {
    Hub::start(Options {
        repositories: vec![repository().access(access)],
        token: Some(TOKEN.into()),
        stranger: Some(STRANGER.into()),
        ..Options::default()
    })
}

#[test]
fn download_requests_only_needed_files_and_sends_the_token_only_to_the_hub() {
    let hub = guarded(Access::Private);
    let cache = Cache::new();
    let snapshot = cache.fetch_as(&hub, TOKEN).unwrap();
    cache.holds(&repository());
    assert_eq!(snapshot.origin.model_id, ID);
    assert_eq!(snapshot.origin.commit, repository().commit());
    // Small files are redirected within the hub, which needs the token again. Large files come from the CDN, which must not receive it.
    for request in hub.requests() {
        let expected = (request.host == Host::Hub).then(|| format!("Bearer {TOKEN}"));
        assert_eq!(request.authorization, expected, "{request:?}");
        assert_eq!(request.method, "GET");
        for unneeded in ["gitattributes", "onnx", "pytorch_model"] {
            assert!(!request.path.contains(unneeded), "{request:?}");
        }
    }
    assert_eq!(asked(&hub, "vocab.txt"), [(Host::Hub, None, 307), (Host::Hub, None, 200)]);
    let resolved = asked(&hub, "model.safetensors");
    assert_eq!(resolved, [(Host::Hub, None, 302)]);
    assert_eq!(asked(&hub, &on_cdn(&repository(), "model.safetensors")), [(Host::Cdn, None, 200)]);
}

#[test]
fn listing_is_read_in_pages_and_in_both_forms() {
    let hub =
        Hub::start(Options { repositories: vec![repository()], page: 2, ..Options::default() });
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
    assert_eq!(asked(&hub, "/tree/").len(), 4);

    // Some mirrors name the hash as the other API call does.
    let hub = serving([repository()]);
    let nodes: Vec<_> = repository()
        .files
        .iter()
        .map(|(path, file)| {
            let mut node = serde_json::json!({
                "type": "file", "path": path, "size": file.content.len(), "oid": file.blob()});
            if file.large {
                node["lfs"] =
                    serde_json::json!({"sha256": file.sha256(), "size": file.content.len()});
            }
            node
        })
        .collect();
    let listing = serde_json::Value::from(nodes).to_string();
    hub.inject(Fault::hub("/tree/", 1, Break::Answer(200, Vec::new(), listing)));
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
}

#[test]
fn revision_is_a_branch_a_tag_or_a_commit() {
    let repository = repository().revision("v1.0").revision("refs/pr/1");
    let hub = serving([repository.clone()]);
    for revision in ["v1.0", "refs/pr/1", &repository.commit()] {
        let cache = Cache::new();
        fetch(cache.settings(&hub.url()), ID, revision).unwrap();
        cache.holds(&repository);
        let reference = cache.hub().join("models--org--model/refs").join(revision);
        let named = std::fs::read_to_string(reference).ok();
        let is_commit = revision == repository.commit();
        assert_eq!(named, (!is_commit).then(|| repository.commit()), "{revision}");
    }
    assert_eq!(asked(&hub, "/revision/refs%2Fpr%2F1").len(), 1);
    for missing in ["v2.0", &"0".repeat(40)] {
        let error = fetch(Cache::new().settings(&hub.url()), ID, missing).unwrap_err();
        assert!(matches!(error, HubError::NoRevision { .. }), "{error}");
        says(&explained(&error), &[ID, missing, "`revision`"]);
    }
}

#[test]
fn renamed_repository_is_found_by_its_old_id() {
    let hub = serving([repository().alias("model").alias("Org/Model")]);
    for id in ["model", "Org/Model"] {
        let cache = Cache::new();
        let snapshot = fetch(cache.settings(&hub.url()), id, "main").unwrap();
        assert_eq!(snapshot.origin.model_id, id);
        let weights = std::fs::read(snapshot.folder.join("model.safetensors")).unwrap();
        assert!(weights == repository().files["model.safetensors"].content);
        // Python uses the id that was requested.
        let folder = format!("models--{}", id.replace('/', "--"));
        assert!(snapshot.folder.starts_with(cache.hub().join(folder)));
    }
    assert!(asked(&hub, "/api/models/model/").iter().all(|(_, _, status)| *status == 307));
}

#[test]
fn missing_or_private_repository_is_not_found() {
    for access in [Some(Access::Private), None] {
        let repositories: Vec<Repository> =
            access.map(|access| repository().access(access)).into_iter().collect();
        let hub = Hub::start(Options {
            repositories,
            token: Some(TOKEN.into()),
            stranger: Some(STRANGER.into()),
            ..Options::default()
        });
        let error = Cache::new().fetch(&hub).unwrap_err();
        assert!(matches!(error, HubError::NotFound { token: false, .. }), "{error}");
        says(&explained(&error), &[ID, "not found", "private", "spelling", "`hub_access_token`"]);
        let error = Cache::new().fetch_as(&hub, STRANGER).unwrap_err();
        assert!(matches!(error, HubError::NotFound { token: true, .. }), "{error}");
        says(&explained(&error), &[ID, "not found", "your token may not read it", "spelling"]);
    }
}

#[test]
fn gated_repository_error_names_the_page_to_request_access() {
    let hub = guarded(Access::Gated);
    let page = format!("{}/{ID}", hub.url());
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::Gated { token: false, .. }), "{error}");
    says(&explained(&error), &[&page, "no token was sent", "`hub_access_token`"]);
    let error = Cache::new().fetch_as(&hub, STRANGER).unwrap_err();
    assert!(matches!(error, HubError::Gated { token: true, .. }), "{error}");
    says(&explained(&error), &[&page, "the account of your token does not have it"]);
    let cache = Cache::new();
    cache.fetch_as(&hub, TOKEN).unwrap();
    cache.holds(&repository());
    // The listing is public, so a complete cache needs no token.
    hub.forget();
    cache.fetch(&hub).unwrap();
    assert!(asked(&hub, "/resolve").is_empty());
}

#[test]
fn revoked_token_is_refused_for_public_repositories_too() {
    let hub = guarded(Access::Public);
    let error = Cache::new().fetch_as(&hub, "hf_revoked").unwrap_err();
    assert!(matches!(error, HubError::Token { .. }), "{error}");
    says(
        &explained(&error),
        &["does not accept the token from the test", "Public models do not need a token"],
    );
    assert!(!error.to_string().contains("hf_revoked"));
    Cache::new().fetch(&hub).unwrap();
}

#[test]
fn listed_file_that_is_not_served_is_named() {
    let hub = serving([repository()]);
    let headers = [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", "0")];
    hub.inject(Fault::hub("/vocab.txt", 1, Break::status(404, &headers[..1])));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::NoFile { .. }), "{error}");
    says(&error.to_string(), &["vocab.txt", "does not serve it"]);
}

#[test]
fn absent_files_are_recorded_as_python_does() {
    let hub = serving([repository()]);
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    let folder = cache.hub().join("models--org--model/.no_exist").join(repository().commit());
    let mut absent: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    absent.sort();
    assert_eq!(absent, ["modules.json", "tokenizer_config.json"]);
}

#[test]
fn rate_limit_is_waited_for() {
    let ways: [&[(&str, &str)]; 3] =
        [&[("Retry-After", "1")], &[("RateLimit", "\"resolvers\";r=0;t=1")], &[]];
    for headers in ways {
        let hub = serving([repository()]);
        let limit = || Break::status(429, headers);
        hub.inject(Fault::hub("/revision/main", 1, limit()));
        hub.inject(Fault::hub("/resolve/", 2, limit()));
        hub.inject(Fault::cdn("", 1, limit()));
        let cache = Cache::new();
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
        assert_eq!(hub.faults_left(), 0);
    }
    let hub = serving([repository()]);
    hub.inject(Fault::hub("/api/", usize::MAX, Break::status(429, &[("Retry-After", "86400")])));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::RateLimit { seconds: Some(86400), .. }), "{error}");
    says(&explained(&error), &["86400 s", "HF_TOKEN"]);
    assert_eq!(hub.requests().len(), 1);
}

#[test]
fn xet_file_is_downloaded_over_https() {
    let repository = Repository::new(ID)
        .file("config.json", "{}")
        .file("vocab.txt", "a")
        .xet("model.safetensors", super::noise(5, 50_000));
    let hub = serving([repository.clone()]);
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository);
    assert!(asked(&hub, "xet-read-token").is_empty());
}
