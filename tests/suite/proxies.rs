//! Tests with real proxies between the program and a cluster: tinyproxy, and nginx as a reverse proxy with TLS. Both are Debian
//! packages. Without them the tests print NOT TESTED, and fail in CI.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use standin::{Options, StandIn};
use tempfile::TempDir;

use crate::bundle_fixtures::bundle;
use crate::certificates::Authority;
use crate::fronts::Front;
use crate::program::{message, program, says};

/// Programs, their Debian packages, and the tested features.
const TINYPROXY: (&str, &str, &str) = ("tinyproxy", "tinyproxy-bin", "HTTP proxies");
const NGINX: (&str, &str, &str) = ("nginx", "nginx-light", "a reverse proxy with TLS");

/// Path of a program, or `None` with a message if it is not installed. Panics in CI.
pub(crate) fn find((name, package, what): (&str, &str, &str)) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        let expected =
            format!("NOT TESTED: {what}; this machine has no {name} (apt-get install {package})\n");
        assert!(env::var_os("CI").is_none(), "{expected}");
        // Write to the file descriptor, because the test harness captures the output of passing tests.
        std::io::stderr().write_all(expected.as_bytes()).unwrap();
    }
    found
}

#[test]
fn proxies_are_installed_in_ci() {
    find(TINYPROXY);
    find(NGINX);
}

/// A running proxy with its files, stopped on drop.
struct Running {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Running {
    /// Starts a program on a free port of an unused loopback address. `configure` writes its files and returns its arguments.
    fn start(program: &Path, configure: impl FnOnce(&Path, SocketAddr) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = std::process::id();
        let ip = Ipv4Addr::new(127, 81, (id >> 8) as u8, id as u8);
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let arguments = configure(folder.path(), address);
        let log = fs::File::create(folder.path().join("output")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Self { child, address, folder };
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program:?} ended: {}", running.read("output"));
            thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running tinyproxy, or `None` if it is not installed.
fn tinyproxy(more: &str) -> Option<Running> {
    let program = find(TINYPROXY)?;
    Some(Running::start(&program, |folder, address| {
        let configuration = format!(
            "Listen {}\nPort {}\nTimeout 600\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\n{more}\n",
            address.ip(),
            address.port(),
            folder.join("log").display()
        );
        let path = folder.join("tinyproxy.conf");
        fs::write(&path, configuration).unwrap();
        vec!["-d".into(), "-c".into(), path.to_str().unwrap().into()]
    }))
}

/// Imports a model that the cluster already has, so that exit code 7 proves that the cluster was reached.
fn import(options: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = program()
        .envs(variables.iter().copied())
        .args(["import", "--es-model-id", "m", "--bundle"])
        .arg(bundle("ner"))
        .args(options)
        .output()
        .unwrap();
    (output.status.code().unwrap(), message(&output))
}

#[track_caller]
fn reaches(options: &[&str], variables: &[(&str, &str)]) -> String {
    let (code, message) = import(options, variables);
    assert_eq!(code, 7, "{message}");
    message
}

#[track_caller]
fn refused(options: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) -> String {
    let (found, message) = import(options, variables);
    assert_eq!(found, code, "{message}");
    says(&message, parts);
    message
}

fn cluster() -> StandIn {
    StandIn::start(Options { existing_models: vec!["m".into()], ..Options::default() })
}

#[test]
fn proxy_of_the_environment_is_used() {
    let Some(proxy) = tinyproxy("") else { return };
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config());
    let secure = format!("https://127.0.0.1:{}", front.port());
    let plain = standin.url();
    let through = format!("http://{}", proxy.address);
    let without_scheme = proxy.address.to_string();
    let nowhere = "http://127.0.0.1:1";
    let ca = ["--ca-certs", &authority.file];
    // Number of requests through the proxy since the previous call.
    let mut seen = 0;
    let mut passed = |kind: &str| {
        let all = proxy.read("log").matches(kind).count();
        let new = all - seen;
        seen = all;
        new
    };
    let request = "Request (file descriptor";
    for variables in [
        [("HTTP_PROXY", through.as_str()), ("HTTPS_PROXY", nowhere)],
        [("http_proxy", &through), ("no_proxy", "es.example,10.0.0.0/8")],
        [("ALL_PROXY", &without_scheme), ("HTTP_PROXY", "")],
    ] {
        reaches(&["--url", &plain], &variables);
        assert!(passed(request) > 0, "{variables:?}");
    }
    for variables in [
        [("HTTPS_PROXY", through.as_str()), ("HTTP_PROXY", nowhere)],
        [("https_proxy", &through), ("NO_PROXY", "es.example")],
    ] {
        reaches(&[&["--url", &secure][..], &ca].concat(), &variables);
        assert!(passed(request) > 0, "{variables:?}");
    }
    assert!(proxy.read("log").contains(&format!("CONNECT 127.0.0.1:{}", front.port())));
    let check = program()
        .envs([("HTTPS_PROXY", through.as_str())])
        .args(["check", "--url", &secure])
        .args(ca)
        .output()
        .unwrap();
    says(&String::from_utf8_lossy(&check.stdout), &["verified, but not shown", "through a proxy"]);
    assert!(passed(request) > 0);
    let around =
        [("HTTP_PROXY", through.as_str()), ("HTTPS_PROXY", &through), ("NO_PROXY", "127.0.0.1")];
    reaches(&["--url", &plain], &around);
    reaches(&[&["--url", &secure][..], &ca].concat(), &around);
    assert_eq!(passed(request), 0);
    let message = reaches(&["--url", &plain], &[("HTTP_PROXY", "gopher://x-secret@y")]);
    says(&message, &["HTTP_PROXY is ignored"]);
    assert!(!message.contains("x-secret"), "{message}");
}

#[test]
fn proxy_with_password_requires_credentials() {
    let Some(proxy) = tinyproxy("BasicAuth proxyuser proxysecret1") else { return };
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config());
    let secure = format!("https://127.0.0.1:{}", front.port());
    let plain = standin.url();
    let ca = ["--url", &secure, "--ca-certs", &authority.file];
    // Special characters are percent-encoded.
    let right = format!("http://proxyuser:proxysecret%31@{}", proxy.address);
    let wrong = format!("http://proxyuser:wrongsecret@{}", proxy.address);
    let without = format!("http://{}", proxy.address);
    let both = |value: &'static str| [("HTTP_PROXY", value), ("HTTPS_PROXY", value)];
    reaches(&["--url", &plain, "--debug"], &both(right.clone().leak()));
    reaches(&ca, &both(right.clone().leak()));
    assert!(standin.requests().len() > 2);
    let place = format!("through the proxy http://{}/", proxy.address);
    for value in [wrong, without] {
        let variables = both(value.leak());
        let expected = &[place.as_str(), "user name and password"];
        let messages = [
            refused(&["--url", &plain], &variables, 5, expected),
            refused(&ca, &variables, 5, expected),
        ];
        for message in messages {
            assert!(!message.contains("wrongsecret"), "{message}");
        }
    }
}

#[test]
fn proxy_failure_names_the_proxy() {
    let Some(proxy) = tinyproxy("ConnectPort 443") else { return };
    let through = format!("http://{}", proxy.address);
    let variables = [("ALL_PROXY", through.as_str())];
    let place = format!("through the proxy {through}/");
    let expected = &[place.as_str(), "The proxy does not connect to the cluster", "NO_PROXY"];
    // A port that the proxy does not allow, and ports without a server.
    refused(&["--url", "https://127.0.0.1:1"], &variables, 5, expected);
    refused(&["--url", "https://127.0.0.1:443"], &variables, 5, expected);
    refused(&["--url", "http://127.0.0.1:1"], &variables, 5, expected);
    refused(&["--url", "https://no-such-host.invalid:443"], &variables, 5, expected);
    let closed = [("ALL_PROXY", "http://127.0.0.1:1")];
    let expected = &["through the proxy http://127.0.0.1:1/", "refused"];
    refused(&["--url", "https://es.example:9200"], &closed, 5, expected);
    refused(&["--url", "http://es.example:9200"], &closed, 5, expected);
}

#[test]
fn proxy_with_tls_is_used() {
    let Some(proxy) = tinyproxy("") else { return };
    let (standin, authority) = (cluster(), Authority::new("Company CA"));
    let front = Front::tls_to(proxy.address.to_string(), authority.server().config());
    let through = format!("https://127.0.0.1:{}", front.port());
    let variables = [("HTTP_PROXY", through.as_str())];
    reaches(&["--url", &standin.url(), "--ca-certs", &authority.file], &variables);
    assert!(proxy.read("log").contains("Request (file descriptor"));
}

#[test]
fn socks_proxy_is_used() {
    let (standin, authority) = (cluster(), Authority::new("Cluster CA"));
    let front = Front::tls(&standin, authority.server().config());
    let through = format!("socks5://{}", socks());
    let variables = [("ALL_PROXY", through.as_str())];
    reaches(&["--url", &standin.url()], &variables);
    let secure = format!("https://127.0.0.1:{}", front.port());
    reaches(&["--url", &secure, "--ca-certs", &authority.file], &variables);
    let closed = [("ALL_PROXY", "socks5://127.0.0.1:1")];
    refused(&["--url", &standin.url()], &closed, 5, &["through the proxy socks5://127.0.0.1:1"]);
}

/// Address of a SOCKS server (RFC 1928) that only supports CONNECT to IPv4 addresses. It stops with the test process.
fn socks() -> SocketAddr {
    fn relay(mut near: TcpStream) -> std::io::Result<()> {
        let mut greeting = [0; 2];
        near.read_exact(&mut greeting)?;
        near.read_exact(&mut vec![0; greeting[1].into()])?;
        near.write_all(&[5, 0])?;
        let mut request = [0; 10];
        near.read_exact(&mut request)?;
        let [5, 1, 0, 1, a, b, c, d, high, low] = request else { return Ok(()) };
        let to = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]));
        let mut far = TcpStream::connect(to)?;
        near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        let (mut from, mut into) = (near.try_clone()?, far.try_clone()?);
        thread::spawn(move || std::io::copy(&mut from, &mut into));
        std::io::copy(&mut far, &mut near)?;
        near.shutdown(Shutdown::Both)
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || relay(near));
        }
    });
    address
}

/// A running nginx with TLS that forwards `/es/` to a stand-in, or `None` if it is not installed.
fn nginx(standin: &StandIn, authority: &Authority) -> Option<Running> {
    let program = find(NGINX)?;
    Some(Running::start(&program, |folder, address| {
        let signed = authority.sign(&[&address.ip().to_string()], |_| {});
        fs::write(folder.join("server.crt"), &signed.pem).unwrap();
        fs::write(folder.join("server.key"), &signed.key).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;
             {user}
             events {{}}
             http {{
                 access_log off;
                 {temporary}
                 server {{
                     listen {address} ssl;
                     ssl_certificate server.crt;
                     ssl_certificate_key server.key;
                     client_max_body_size 1m;
                     location /es/ {{ proxy_pass {}/; proxy_http_version 1.1; }}
                 }}
             }}",
            standin.url(),
            user = if fs::metadata(folder).unwrap().uid() == 0 { "user root;" } else { "" },
        );
        fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let folder = format!("{}/", folder.display());
        let arguments = ["-e", "stderr", "-p", &folder, "-c", "nginx.conf"];
        arguments.map(str::to_owned).to_vec()
    }))
}

#[test]
fn reverse_proxy_with_tls_and_path_prefix_is_used() {
    let (standin, authority) = (StandIn::start(Options::default()), Authority::new("Company CA"));
    let Some(nginx) = nginx(&standin, &authority) else { return };
    let url = format!("https://{}/es", nginx.address);
    let ca = ["--ca-certs", &authority.file];
    let (code, message) = import(&[&["--url", &url][..], &ca].concat(), &[]);
    assert_eq!(code, 0, "{message}");
    assert_eq!(standin.model_ids(), ["m"]);
    let wrong = format!("https://{}/elastic", nginx.address);
    let expected = &["/elastic/ does not exist on the server", "path of the address"];
    refused(&[&["--url", &wrong][..], &ca].concat(), &[], 5, expected);
    let plain = format!("http://{}/es", nginx.address);
    refused(&["--url", &plain], &[], 5, &["write https:// instead of http://"]);
    drop(standin);
    let expected = &["502", "A proxy or load balancer does not reach the cluster"];
    refused(&[&["--url", &url][..], &ca].concat(), &[], 6, expected);
}

#[cfg(feature = "torch")]
#[test]
fn reverse_proxy_with_body_limit_gets_smaller_parts() {
    use crate::fixtures::Fixture;

    let (standin, authority) = (StandIn::start(Options::default()), Authority::new("Company CA"));
    let Some(nginx) = nginx(&standin, &authority) else { return };
    let url = format!("https://{}/es", nginx.address);
    let model = tempfile::tempdir().unwrap();
    grow(&Fixture::named("bert/ner").model(), model.path());
    let import = |more: &[&str]| {
        let output = program()
            .args(["import", "--url", &url, "--ca-certs", &authority.file, "--task-type", "ner"])
            .args(["--max-model-input-length", "16", "--es-model-id", "m", "--clear-previous"])
            .args(more)
            .arg("--hub-model-id")
            .arg(model.path())
            .output()
            .unwrap();
        let message = message(&output);
        assert!(output.status.success(), "{message}");
        assert!(fs::metadata(standin.definition("m").unwrap()).unwrap().len() > 2 << 20);
        message
    };
    // nginx rejects large parts (413 with a page); smaller parts reach the stand-in.
    let smaller = "starting again with parts of 524288 bytes";
    says(&import(&[]), &[smaller]);
    assert!(standin.requests().iter().all(|request| request.body_length < 1 << 20));
    assert!(!import(&["--part-size", "512KiB"]).contains("starting again"));
}

/// Writes a copy of a model with a position table that makes it larger than a part of 1 MiB.
#[cfg(feature = "torch")]
fn grow(model: &Path, to: &Path) {
    use serde_json::{Value, json};

    const POSITIONS: usize = 20_000;
    for entry in fs::read_dir(model).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(POSITIONS);
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let weights = fs::read(to.join("model.safetensors")).unwrap();
    let (length, rest) = weights.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let mut tensors: Vec<_> = header.as_object_mut().unwrap().iter_mut().collect();
    tensors.retain(|(name, _)| *name != "__metadata__");
    tensors.sort_by_key(|(_, tensor)| tensor["data_offsets"][0].as_u64());
    let mut grown = Vec::new();
    for (name, tensor) in tensors {
        let [from, to] = [0, 1].map(|end| tensor["data_offsets"][end].as_u64().unwrap() as usize);
        let start = grown.len();
        grown.extend_from_slice(&data[from..to]);
        if name.ends_with("position_embeddings.weight") {
            let width = tensor["shape"][1].as_u64().unwrap() as usize;
            grown.resize(start + 4 * POSITIONS * width, 0);
            tensor["shape"][0] = json!(POSITIONS);
        }
        tensor["data_offsets"] = json!([start, grown.len()]);
    }
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &grown].concat();
    fs::write(to.join("model.safetensors"), file).unwrap();
}
