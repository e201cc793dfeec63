//! The connection to the hub: tokens, proxies, mirrors and certificates.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;

use ::hub::{Access, Host, Hub, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

use rust_eland::source::hub::{HubError, Token};

use super::{Cache, ID, fetch, repository, runtime, serving};
use crate::program::{message, says};

const TOKEN: &str = "hf_granted_0123456789";

fn private() -> Hub {
    Hub::start(Options {
        repositories: vec![repository().access(Access::Private)],
        token: Some(TOKEN.into()),
        ..Options::default()
    })
}

#[test]
fn token_is_read_from_every_setting_and_never_shown() {
    let hub = private();
    let other = "hf_other_0123456789";
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let ways: [(&[&str], Variables<'_>); 5] = [
        (&["--hub-access-token", TOKEN], &[("HUB_ACCESS_TOKEN", other), ("HF_TOKEN", other)]),
        (&[], &[("HUB_ACCESS_TOKEN", TOKEN), ("HF_TOKEN", other)]),
        (&[], &[("HF_TOKEN", TOKEN)]),
        (&[], &[("HUB_ACCESS_TOKEN", ""), ("HF_TOKEN", TOKEN)]),
        (&[], &[("HUGGING_FACE_HUB_TOKEN", TOKEN)]),
    ];
    let run = |cache: &Cache, arguments: &[&str], variables: Variables<'_>| {
        let mut program = cache.program(&hub.url());
        program.args(["download", "--hub-model-id", ID]).args(arguments);
        // The logs of all crates.
        let output =
            program.envs(variables.iter().copied()).env("RUST_LOG", "trace").output().unwrap();
        let log = message(&output);
        assert!(output.status.success(), "{arguments:?} {variables:?}: {log}");
        assert!(!log.contains(TOKEN) && !log.contains(other));
    };
    for (arguments, variables) in ways {
        run(&Cache::new(), arguments, variables);
    }
    // The token file in HF_HOME and elsewhere.
    let cache = Cache::new();
    fs::write(cache.home().join("token"), format!("{TOKEN}\n")).unwrap();
    run(&cache, &[], &[]);
    let path = cache.home().join("token");
    run(&Cache::new(), &[], &[("HF_TOKEN_PATH", path.to_str().unwrap())]);

    for (token, part) in
        [("hf_revoked", "does not accept the token"), ("hf_\u{7f}", "a header cannot contain")]
    {
        let output = Cache::new().download(&hub, &["--hub-access-token", token]);
        assert!(!output.status.success());
        says(&message(&output), &[part, "--hub-access-token"]);
        assert!(!message(&output).contains(token));
    }
}

#[test]
fn expired_token_of_the_token_file_suggests_a_new_login() {
    let hub = private();
    let cache = Cache::new();
    fs::write(cache.home().join("token"), "hf_oauth_expired").unwrap();
    let output = cache.download(&hub, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["does not accept the token", "Run `hf auth login` again"]);
    assert!(!message(&output).contains("hf_oauth_expired"));
    // A token from a variable is not stored by `hf auth login`.
    let output = cache
        .program(&hub.url())
        .args(["download", "--hub-model-id", ID])
        .env("HF_TOKEN", "hf_revoked")
        .output()
        .unwrap();
    says(&message(&output), &["the token from HF_TOKEN", "Create a token"]);
    assert!(!message(&output).contains("login"));
}

#[test]
fn redirect_to_another_address_of_the_hub_is_followed_with_the_token() {
    let hub = private();
    let moved = Hub::start(Options { moved_to: Some(hub.url()), ..Options::default() });
    let cache = Cache::new();
    let mut settings = cache.settings(&moved.url());
    settings.token = Token::new(TOKEN, "the test");
    // The address is not an address of the hub, so the token must not be sent to it.
    let error = fetch(settings.clone(), ID, "main").unwrap_err();
    assert!(matches!(error, HubError::NotAHub { .. }), "{error}");
    says(&error.to_string(), &[&hub.url().replace("http://", ""), "not an address of the hub"]);
    assert!(hub.requests().is_empty());
    settings.hub_addresses = vec![hub.url().parse().unwrap()];
    fetch(settings, ID, "main").unwrap();
    cache.holds(&repository());
    let bearer = format!("Bearer {TOKEN}");
    let of_hub = |request: &::hub::Request| request.host == Host::Hub;
    for request in hub.requests().iter().filter(|it| of_hub(it)) {
        assert_eq!(request.authorization.as_deref(), Some(&*bearer));
    }
    for request in hub.requests().iter().filter(|it| !of_hub(it)) {
        assert_eq!(request.authorization, None);
    }
}

#[test]
fn proxy_is_used_unless_the_host_is_excepted() {
    let hub = serving([repository()]);
    // The host does not exist, so only a proxy can answer.
    let through = |cache: &Cache, variables: &[(&str, &str)]| {
        let mut program = cache.program("http://hub.invalid");
        program.env_remove("NO_PROXY").env("HF_HUB_DOWNLOAD_TIMEOUT", "60");
        program.envs(variables.iter().copied());
        program.args(["download", "--hub-model-id", ID]).output().unwrap()
    };
    let cache = Cache::new();
    let output = through(&cache, &[("HTTP_PROXY", &hub.url())]);
    assert!(output.status.success(), "{}", message(&output));
    cache.holds(&repository());
    let direct = |no_proxy: &str| {
        let mut program = Cache::new().program(&hub.url());
        program.env("HTTP_PROXY", "http://127.0.0.1:9").env("NO_PROXY", no_proxy);
        program.args(["download", "--hub-model-id", ID]).output().unwrap().status.success()
    };
    assert!(direct("127.0.0.1") && !direct("example.com"));
}

#[test]
fn unreachable_proxy_is_named_without_its_password() {
    let mut program = Cache::new().program("http://hub.invalid");
    program.env("HTTP_PROXY", "http://me:correct-horse@127.0.0.1:9").env_remove("NO_PROXY");
    let output = program.args(["download", "--hub-model-id", ID]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["hub.invalid through the proxy http://127.0.0.1:9"]);
    assert!(!message(&output).contains("correct-horse"));
}

#[test]
fn mirror_below_a_path_is_an_endpoint() {
    let hub = serving([repository()]);
    let url = format!("{}/", hub.url());
    let cache = Cache::new();
    let output = cache.program(&url).args(["download", "--hub-model-id", ID]).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let url = format!("{}/mirror", hub.url());
    let output =
        Cache::new().program(&url).args(["download", "--hub-model-id", ID]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(hub.requests().iter().any(|request| request.path.starts_with("/mirror/api/models/")));
}

/// Puts a TLS proxy in front of a hub. Returns its address and the certificate of its authority.
fn with_tls(hub: &Hub, runtime: &tokio::runtime::Runtime) -> (String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority);
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.unwrap().der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let to = hub.url().replace("http://", "");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((near, _)) = listener.accept().await {
            let (to, acceptor) = (to.clone(), acceptor.clone());
            tokio::spawn(async move {
                let mut near = acceptor.accept(near).await?;
                let mut far = tokio::net::TcpStream::connect(to).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (url, authority.pem())
}

#[test]
fn named_certificate_of_a_re_signing_proxy_is_trusted() {
    let small = ::hub::Repository::new(ID)
        .file("config.json", r#"{"model_type": "bert"}"#)
        .file("vocab.txt", "x")
        .file("model.safetensors", super::noise(60, 1000));
    let hub = serving([small.clone()]);
    let runtime = runtime();
    let (url, pem) = with_tls(&hub, &runtime);
    let cache = Cache::new();
    let path = cache.home().join("ca.pem");
    fs::write(&path, pem).unwrap();
    let path = path.to_str().unwrap();
    let download = |cache: &Cache, arguments: &[&str], variables: &[(&str, &str)]| {
        let mut program = cache.program(&url);
        program.envs(variables.iter().copied()).args(["download", "--hub-model-id", ID]);
        program.args(arguments).output().unwrap()
    };
    let output = download(&cache, &[], &[]);
    assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    says(&message(&output), &["is not trusted", "--hub-ca-certs", "re-signs"]);
    // The request is not retried, because the certificate would be refused again.
    assert!(!message(&output).contains("retrying"));
    let output = download(&cache, &["--hub-ca-certs", path], &[]);
    assert!(output.status.success(), "{}", message(&output));
    cache.holds(&small);
    let output = download(&Cache::new(), &[], &[("SSL_CERT_FILE", path)]);
    assert!(output.status.success(), "{}", message(&output));

    // A redirect to an address without encryption is refused.
    let hub = serving([repository()]);
    let (url, pem) = with_tls(&hub, &runtime);
    let path = cache.home().join("other.pem");
    fs::write(&path, pem).unwrap();
    let mut program = Cache::new().program(&url);
    program.args(["download", "--hub-model-id", ID, "--hub-ca-certs"]).arg(&path);
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    says(&message(&output), &["without encryption"]);
    assert!(hub.requests().iter().all(|request| request.host == Host::Hub));

    for (content, reason) in
        [("", "contains no certificates"), ("no certificate", "contains no certificates")]
    {
        let path = cache.home().join("empty.pem");
        fs::write(&path, content).unwrap();
        let output = download(&cache, &["--hub-ca-certs", path.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(2));
        says(&message(&output), &[reason, "--hub-ca-certs"]);
    }
}
