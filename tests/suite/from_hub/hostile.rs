//! Hostile listings and headers: no file is written outside the cache, and no token is sent to another host.

use std::fs;

use ::hub::{Break, Fault, Host, Hub, Options};
use rust_eland::source::hub::HubError;
use serde_json::{Value, json};

use super::{Cache, ID, explained, fetch, files_below, repository, serving};
use crate::program::{message, says};

fn listing(more: &[Value]) -> String {
    let mut nodes: Vec<Value> = repository()
        .files
        .iter()
        .map(|(path, file)| {
            json!({"type": "file", "path": path, "size": file.content.len(), "oid": file.blob(),
                "lfs": file.large.then(|| json!({"oid": file.sha256(), "size": file.content.len()}))})
        })
        .collect();
    nodes.extend_from_slice(more);
    Value::from(nodes).to_string()
}

fn answering(path: &str, text: String) -> Hub {
    let hub = serving([repository()]);
    hub.inject(Fault::hub(path, usize::MAX, Break::Answer(200, Vec::new(), text)));
    hub
}

fn node(path: &str, oid: &str) -> Value {
    json!({"type": "file", "path": path, "size": 8, "oid": oid})
}

#[test]
fn listed_names_outside_the_repository_are_ignored() {
    let oid = repository().files["README.md"].blob();
    let names =
        ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "C:evil", "", "a\nb", "./x"];
    let hub = answering("/tree/", listing(&names.map(|name| node(name, &oid))));
    let outer = tempfile::tempdir().unwrap();
    let mut settings = Cache::new().settings(&hub.url());
    settings.cache = outer.path().join("deep/cache");
    fetch(settings, ID, "main").unwrap();
    for path in files_below(outer.path()) {
        assert!(path.starts_with(outer.path().join("deep/cache")), "{path:?}");
        assert!(!path.to_string_lossy().contains("evil"), "{path:?}");
    }
}

#[test]
fn unsafe_names_are_counted_after_the_first_five() {
    let oid = repository().files["README.md"].blob();
    let nodes: Vec<Value> = (0..100).map(|n| node(&format!("../{n}"), &oid)).collect();
    let output = Cache::new().download(&answering("/tree/", listing(&nodes)), &[]);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["\"../4\"", "ignored 100 files with unsafe names"]);
    assert!(!message(&output).contains("../5"), "{}", message(&output));
}

#[test]
fn invalid_hashes_and_commits_are_refused() {
    let outside = format!("../../{}", "a".repeat(34));
    let large = json!({"type": "file", "path": "x", "size": 1, "oid": "a".repeat(40),
        "lfs": {"oid": "../".repeat(21) + "x", "size": 1}});
    for node in
        [node("x", &outside), node("x", "main"), node("config.json", &"a".repeat(40)), large]
    {
        let cache = Cache::new();
        let error = cache.fetch(&answering("/tree/", listing(&[node]))).unwrap_err();
        assert!(matches!(error, HubError::Hostile { .. }), "{error}");
        assert!(files_below(cache.home()).is_empty());
    }
    for sha in ["../../../evil", "main", ""] {
        let cache = Cache::new();
        let info = json!({"id": ID, "sha": sha}).to_string();
        let error = cache.fetch(&answering("/revision/", info)).unwrap_err();
        assert!(matches!(error, HubError::Hostile { .. }), "{error}");
        assert!(files_below(cache.home()).is_empty());
    }
}

#[test]
fn headers_that_contradict_the_listing_are_refused() {
    let other = "b".repeat(64);
    for (name, value) in [
        ("X-Repo-Commit", "../../../evil"),
        ("X-Repo-Commit", &"0".repeat(40)),
        ("X-Linked-ETag", "\"../../../../evil\""),
        ("X-Linked-ETag", &format!("\"{other}\"")),
        ("X-Linked-Size", "1"),
        ("Location", "file:///etc/passwd"),
        ("Location", "http://me:secret@127.0.0.1/"),
        ("Location", "http://[::"),
    ] {
        let hub = serving([repository()]);
        hub.inject(Fault::hub("/model.safetensors", 1, Break::header(name, value)));
        let cache = Cache::new();
        let error = cache.fetch(&hub).unwrap_err();
        assert!(matches!(error, HubError::Hostile { .. }), "{name}: {error}");
        assert!(!error.to_string().contains("secret"));
        cache.is_sound();
        assert!(!cache.blob("evil").exists());
        // The refused answer leaves nothing behind.
        cache.fetch(&hub).unwrap();
        cache.holds(&repository());
    }
    // An ETag is never used as a name.
    let hub = serving([repository()]);
    hub.inject(Fault::hub("resolve-cache", 9, Break::header("ETag", "\"../../../../evil\"")));
    hub.inject(Fault::cdn("", 9, Break::header("ETag", "\"../../../../evil\"")));
    let cache = Cache::new();
    cache.fetch(&hub).unwrap();
    cache.holds(&repository());
}

#[test]
fn token_is_sent_only_to_the_hub() {
    let token = "hf_granted";
    let start = || {
        let options = Options {
            repositories: vec![repository()],
            token: Some(token.into()),
            ..Options::default()
        };
        Hub::start(options)
    };
    // The other host is the CDN, which records its requests.
    let elsewhere = |hub: &Hub| {
        let probe = Cache::new();
        probe.fetch(hub).unwrap();
        let requests = hub.requests();
        assert!(requests.iter().any(|request| request.host == Host::Cdn));
        hub.forget();
    };
    let is_secret = |hub: &Hub| {
        for request in hub.requests().iter().filter(|request| request.host == Host::Cdn) {
            assert_eq!(request.authorization, None, "{request:?}");
        }
    };
    let cdn = |hub: &Hub| {
        let sha256 = repository().files["model.safetensors"].sha256();
        let requests = hub.requests();
        assert!(requests.iter().all(|request| !request.path.contains(&sha256)));
        let headers = fetch_location(hub);
        headers.rsplit_once("/repos/").unwrap().0.to_owned()
    };
    // A redirect of a small file, the next page of the listing, and a redirect of the API.
    let hub = start();
    elsewhere(&hub);
    let address = cdn(&hub);
    let away = [("Location", format!("{address}/anywhere"))];
    let away: Vec<(&str, &str)> =
        away.iter().map(|(name, value)| (*name, value.as_str())).collect();
    hub.inject(Fault::hub("/resolve/", 9, Break::status(302, &away)));
    let error = Cache::new().fetch_as(&hub, token).unwrap_err();
    assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
    is_secret(&hub);
    assert!(hub.requests().iter().any(|request| request.path == "/anywhere"));

    let hub = start();
    let link = format!("<{address}/api/next>; rel=\"next\"");
    hub.inject(Fault::hub("/tree/", 1, Break::header("Link", &link)));
    let error = Cache::new().fetch_as(&hub, token).unwrap_err();
    says(&error.to_string(), &["another host"]);
    is_secret(&hub);

    for way in ["/revision/", "/tree/"] {
        let hub = start();
        hub.inject(Fault::hub(way, 1, Break::status(307, &away)));
        let error = Cache::new().fetch_as(&hub, token).unwrap_err();
        assert!(matches!(error, HubError::NotAHub { .. }), "{error}");
        says(&explained(&error), &["HF_ENDPOINT"]);
        is_secret(&hub);
    }
}

/// The address to which the hub redirects for the weights.
fn fetch_location(hub: &Hub) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    super::runtime().block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let url = format!("{}/{ID}/resolve/main/model.safetensors", hub.url());
        let request = client.get(url).header("Authorization", "Bearer hf_granted");
        let response = request.send().await.unwrap();
        response.headers()["location"].to_str().unwrap().to_owned()
    })
}

#[test]
fn endless_redirects_and_listings_are_refused() {
    let hub = serving([repository()]);
    let away = format!("/{ID}/resolve/x/config.json");
    hub.inject(Fault::hub("/resolve/", usize::MAX, Break::status(302, &[("Location", &away)])));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::NotAHub { .. }), "{error}");
    assert!(hub.requests().len() < 20);

    let hub = serving([repository()]);
    let link = format!("</api/models/{ID}/tree/main>; rel=\"next\"");
    hub.inject(Fault::hub("/tree/", usize::MAX, Break::header("Link", &link)));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::Hostile { .. }), "{error}");

    // Endless pages without a file.
    let hub = serving([repository()]);
    let page = Break::Answer(200, vec![("Link".into(), link)], "[]".into());
    hub.inject(Fault::hub("/tree/", usize::MAX, page));
    let error = Cache::new().fetch(&hub).unwrap_err();
    says(&error.to_string(), &["too many pages"]);
}

#[test]
fn answer_of_another_server_is_reported() {
    for text in ["<html>Please log in</html>", "[]", "{}", "null", ""] {
        let error = Cache::new().fetch(&answering("/revision/", text.into())).unwrap_err();
        assert!(matches!(error, HubError::NotAHub { .. }), "{text}: {error}");
        says(&explained(&error), &["HF_ENDPOINT", "proxy"]);
    }
    let hub = serving([repository()]);
    hub.inject(Fault::hub("/api/", 1, Break::status(404, &[])));
    let error = Cache::new().fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::NotAHub { .. }), "{error}");
}

#[test]
fn names_in_repository_files_stay_inside_the_repository() {
    for (name, text) in [
        ("modules.json", r#"[{"path": "../../..", "type": "x"}]"#),
        ("modules.json", r#"[{"path": "/etc", "type": "x"}]"#),
        ("modules.json", "not JSON"),
        ("config.json", "not JSON"),
        ("model.safetensors.index.json", r#"{"weight_map": {"a": "../../x"}}"#),
    ] {
        let mut repository = repository().file(name, text);
        repository.files.remove("model.safetensors");
        let cache = Cache::new();
        let error = cache.fetch(&serving([repository])).unwrap_err();
        says(&error.to_string(), &[name]);
        cache.is_sound();
    }
    let mut huge: Vec<Value> = serde_json::from_str(&listing(&[])).unwrap();
    for node in huge.iter_mut().filter(|node| node["path"] == "config.json") {
        node["size"] = json!(1_u64 << 50);
    }
    let cache = Cache::new();
    let error = cache.fetch(&answering("/tree/", Value::from(huge).to_string())).unwrap_err();
    says(&error.to_string(), &["config.json", "too large"]);
    assert!(fs::read_dir(cache.home()).unwrap().next().is_none());
}
