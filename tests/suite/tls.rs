//! Certificates: who is believed, who is not, and what is said then. All of them are made here.

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use standin::{Options, StandIn};

use crate::certificates::{Authority, Signed, fingerprint};
use crate::fixtures::Fixture;
use crate::fronts::{Canned, Front};
use crate::program::{message, program, says};

/// Imports a small model; returns exit code and message. The system's authorities are those in `system`, none if that is empty.
fn import_trusting(system: &str, url: &str, more: &[&str]) -> (i32, String) {
    let output = program()
        .env("SSL_CERT_FILE", system)
        .args(["import", "--url", url, "--task-type", "ner", "--es-model-id", "m"])
        .args(more)
        .arg("--hub-model-id")
        .arg(Fixture::named("bert/ner").model())
        .output()
        .unwrap();
    (output.status.code().unwrap(), message(&output))
}

/// As [`import_trusting`], on a machine whose authorities do not know the cluster's.
fn import(url: &str, more: &[&str]) -> (i32, String) {
    let other = Authority::new("Somebody else");
    import_trusting(&other.file, url, more)
}

fn https(front: &Front) -> String {
    format!("https://127.0.0.1:{}", front.port())
}

/// Fails unless the import is refused with a code and a message, and nothing was asked of the cluster.
#[track_caller]
fn refused(standin: &StandIn, url: &str, more: &[&str], code: i32, parts: &[&str]) {
    let (found, message) = import(url, more);
    assert_eq!(found, code, "{message}");
    says(&message, parts);
    assert!(standin.requests().is_empty(), "{:?}", standin.requests());
}

/// Fails unless the cluster is reached, which says that the model is there already.
#[track_caller]
fn reaches(url: &str, more: &[&str]) -> String {
    let (code, message) = import(url, more);
    assert_eq!(code, 7, "{message}");
    message
}

/// A cluster with the model that is to be imported.
fn cluster() -> StandIn {
    StandIn::start(Options { existing_models: vec!["m".into()], ..Options::default() })
}

#[test]
fn private_authority_is_rejected_without_ca_certs() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config());
    let advice =
        &["cannot reach https://127.0.0.1", "UnknownIssuer", "--ca-certs", "--ca-fingerprint"];
    refused(&standin, &https(&front), &[], 5, advice);
    reaches(&https(&front), &["--ca-certs", &authority.file]);
    let localhost = format!("https://localhost:{}", front.port());
    reaches(&localhost, &["--ca-certs", &authority.file]);
    let whole = ["--ca-certs", &authority.file, "--clear-previous"];
    let (code, message) = import(&https(&front), &whole);
    assert_eq!(code, 0, "{message}");
    // In a bundle of several.
    let other = Authority::new("Another");
    let bundle = format!("a comment\n{}\n{}", other.issuer.pem(), authority.issuer.pem());
    let bundle = authority.keep("bundle.pem", bundle);
    reaches(&https(&front), &["--ca-certs", &bundle]);
}

#[test]
fn system_authorities_are_trusted() {
    let (standin, authority) = (cluster(), Authority::new("Company CA"));
    let front = Front::tls(&standin, authority.server().config());
    let (code, message) = import_trusting(&authority.file, &https(&front), &[]);
    assert_eq!(code, 7, "{message}");
    // --ca-certs takes their place.
    let other = Authority::new("Another");
    let named = ["--ca-certs", &other.file];
    let (code, message) = import_trusting(&authority.file, &https(&front), &named);
    assert_eq!(code, 5, "{message}");
    // A machine without any can speak plain HTTP, and says what it lacks for more.
    let none = authority.keep("none.pem", "");
    let (code, message) = import_trusting(&none, &standin.url(), &[]);
    assert_eq!(code, 7, "{message}");
    let (code, message) = import_trusting(&none, &https(&front), &[]);
    assert_eq!(code, 2, "{message}");
    says(&message, &["certificate authorities cannot be read", "ca-certificates"]);
    let pinned = ["--ca-fingerprint", &fingerprint(&authority.der())];
    let (code, message) = import_trusting(&none, &https(&front), &pinned);
    assert_eq!(code, 7, "{message}");
}

#[test]
fn certificate_of_another_host_is_rejected() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.sign(&["es.example"], |_| {}).config());
    let parts = &["127.0.0.1", "es.example", "use one of them in the address"];
    refused(&standin, &https(&front), &["--ca-certs", &authority.file], 5, parts);
}

#[test]
fn expired_certificate_is_rejected() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let certs = ["--ca-certs", &authority.file];
    for (years, word) in [((2001, 2002), "expired"), ((2100, 2101), "not valid yet")] {
        let signed = authority.sign(&["127.0.0.1"], |params| {
            params.not_before = date_time_ymd(years.0, 1, 1);
            params.not_after = date_time_ymd(years.1, 1, 1);
        });
        let front = Front::tls(&standin, signed.config());
        refused(&standin, &https(&front), &certs, 5, &[word, "Renew", "clock"]);
        let pinned = ["--ca-fingerprint", &fingerprint(&authority.der())];
        refused(&standin, &https(&front), &pinned, 5, &[word, "Renew"]);
    }
}

#[test]
fn fingerprint_of_the_authority_is_accepted() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let server = authority.server();
    let front = Front::tls(&standin, server.config());
    let plain = fingerprint(&authority.der());
    let wrong = fingerprint(&Authority::new("Another").der());
    let told = &["none of the server's certificates", &plain, "Compare --ca-fingerprint"];
    refused(&standin, &https(&front), &["--ca-fingerprint", &wrong], 5, told);
    for malformed in ["", "abc", &plain[1..], "sha1:00"] {
        let told = &["--ca-fingerprint", "64 hexadecimal digits"];
        refused(&standin, &https(&front), &["--ca-fingerprint", malformed], 2, told);
    }
    reaches(&https(&front), &["--ca-fingerprint", &plain]);
    let pairs: Vec<_> = (0..32).map(|at| plain[2 * at..2 * at + 2].to_uppercase()).collect();
    reaches(&https(&front), &["--ca-fingerprint", &pairs.join(":")]);
    // The server's own certificate will do too, as in Elastic's clients.
    let own = fingerprint(&server.chain[0]);
    reaches(&https(&front), &["--ca-fingerprint", &own]);
}

#[test]
fn pinned_authority_accepts_any_host_name_with_a_valid_signature() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let pinned = fingerprint(&authority.der());
    // Somebody in between appends the authority's certificate, which is public, to a chain of his own.
    let mut forged = Authority::new("Mallory").server();
    forged.chain.push(authority.der());
    let front = Front::tls(&standin, forged.config());
    refused(&standin, &https(&front), &["--ca-fingerprint", &pinned], 5, &["UnknownIssuer"]);
    let front = Front::tls(&standin, authority.sign(&["es01"], |_| {}).config());
    reaches(&https(&front), &["--ca-fingerprint", &pinned]);
}

#[test]
fn client_certificate_is_sent() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config_for(&authority));
    let client = authority.sign(&["client"], |_| {});
    let (certificate, key) =
        (authority.keep("client.crt", &client.pem), authority.keep("client.key", &client.key));
    let ca = ["--ca-certs", &authority.file];
    let with = |more: &[&'static str]| [&ca[..], more].concat();
    refused(&standin, &https(&front), &with(&[]), 5, &["CertificateRequired", "--client-cert"]);

    let named = |certificate: &str, key: &str| {
        let named = ["--client-cert", certificate, "--client-key", key];
        named.map(str::to_owned)
    };
    let given = |options: &[String]| -> Vec<String> {
        ca.iter().map(|word| (*word).to_owned()).chain(options.iter().cloned()).collect()
    };
    let check = |options: &[String], code: i32, parts: &[&str]| {
        let options = given(options);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        refused(&standin, &https(&front), &options, code, parts);
    };
    let stranger = Authority::new("Another").sign(&["client"], |_| {});
    let (other, its_key) =
        (authority.keep("other.crt", &stranger.pem), authority.keep("other.key", &stranger.key));
    check(&named(&other, &its_key), 5, &["--client-cert"]);
    check(&named(&certificate, &its_key), 2, &["client.crt", "--client-key"]);
    let locked = authority.keep(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    check(&named(&certificate, &locked), 2, &["locked.key", "encrypted"]);
    check(&named(&certificate, &certificate), 2, &["--client-key", "no private key"]);
    check(&named(&key, &key), 2, &["--client-cert", "holds no certificate"]);
    check(&named("none", &key), 2, &["--client-cert none", "No such file"]);
    check(&named(&certificate, &key)[2..], 2, &["--client-cert"]);

    let both = authority.keep("both.pem", format!("{}{}", client.key, client.pem));
    reaches(&https(&front), &[ca[0], ca[1], "--client-cert", &both]);
    let separate = ["--client-cert", &certificate, "--client-key", &key];
    reaches(&https(&front), &[&ca[..], &separate].concat());
}

#[test]
fn insecure_accepts_any_certificate_with_a_warning() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.sign(&["es.example"], |_| {}).config());
    for more in [&["--insecure"]; 2] {
        let message = reaches(&https(&front), more);
        assert_eq!(message.matches("is not verified").count(), 1, "{message}");
    }
    for contradicting in [["--ca-certs", &authority.file], ["--ca-fingerprint", "00"]] {
        let (code, message) =
            import(&https(&front), &[&["--insecure"][..], &contradicting].concat());
        assert_eq!(code, 2, "{message}");
    }
}

#[test]
fn file_without_certificates_is_rejected() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let broken = "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n";
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let folder = authority.folder.path().to_str().unwrap().to_owned();
    for (path, reason) in [
        (format!("{folder}/absent.crt"), "No such file"),
        (folder.clone(), "directory"),
        (authority.keep("empty.crt", ""), "it is empty"),
        (authority.keep("other.txt", "hello"), "holds no certificate"),
        (authority.keep("ca.der", authority.der()), "holds no certificate"),
        (authority.keep("broken.crt", broken), "broken"),
        (authority.keep("nonsense.crt", nonsense), "invalid peer certificate"),
    ] {
        let parts = &["--ca-certs", &path, reason, "PEM"];
        // Told before any work, also for an address that needs none.
        refused(&standin, &standin.url(), &["--ca-certs", &path], 2, parts);
    }
}

#[test]
fn self_signed_certificate_is_reported() {
    let (standin, authority) = (cluster(), Authority::new("unused"));
    // As openssl req -x509 makes them.
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let server = Signed {
        chain: vec![certificate.der().clone()],
        pem: certificate.pem(),
        key: key.serialize_pem(),
    };
    let front = Front::tls(&standin, server.config());
    let path = authority.keep("self.crt", &server.pem);
    let told = &["its own authority", "--ca-fingerprint"];
    refused(&standin, &https(&front), &["--ca-certs", &path], 5, told);
    reaches(&https(&front), &["--ca-fingerprint", &fingerprint(certificate.der())]);
}

#[test]
fn tls_and_plain_http_mix_up_is_reported() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config());
    let plain = format!("http://127.0.0.1:{}", front.port());
    refused(&standin, &plain, &[], 5, &["speak TLS", "write https:// instead of http://"]);
    let tls = standin.url().replace("http:", "https:");
    refused(&standin, &tls, &[], 5, &["does not speak TLS: write http:// instead of https://"]);
    // nginx says so in words, Elasticsearch hangs up.
    let nginx = "<center>The plain HTTP request was sent to HTTPS port</center>";
    let nginx = Canned::with("400 Bad Request", "content-type: text/html\r\n", nginx);
    refused(&standin, &nginx.url(), &[], 5, &["write https:// instead of http://"]);
    let silent = Canned::answering("");
    refused(&standin, &silent.url(), &[], 5, &["If the port speaks TLS, write https://"]);
}

#[test]
fn server_without_common_tls_version_is_reported() {
    // A handshake failure: alert 40, as a server that knows TLS 1.0 alone gives.
    let alert = Canned::answering([0x15, 3, 1, 0, 2, 2, 40]);
    let url = format!("https://127.0.0.1:{}", alert.port());
    let (code, message) = import(&url, &[]);
    assert_eq!(code, 5, "{message}");
    says(&message, &["versions 1.2 and 1.3"]);
    // A port that is closed is told as with plain HTTP.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, message) = import(&format!("https://127.0.0.1:{port}"), &[]);
    assert_eq!(code, 5, "{message}");
    says(&message, &["refused", "Nothing listens there"]);
}
