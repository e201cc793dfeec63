//! Runs the program, and sends requests to a stand-in.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use standin::StandIn;

/// The program with an environment that does not depend on the developer's machine.
pub fn program() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_rust-eland")))
}

/// Environment variables that affect connections and output of the program.
pub const VARIABLES: [&str; 32] = [
    "ALL_PROXY",
    "CLOUD_ID",
    "ES_API_KEY",
    "ES_PASSWORD",
    "ES_TOKEN",
    "ES_URL",
    "ES_USERNAME",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "HUB_ACCESS_TOKEN",
    "HUGGINGFACE_HUB_CACHE",
    "HUGGING_FACE_HUB_TOKEN",
    "KIBANA_URL",
    "NO_PROXY",
    "REQUEST_METHOD",
    "RUST_LOG",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TRANSFORMERS_OFFLINE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NO_COLOR",
];

/// A command without the program's environment variables.
pub fn clean(mut command: Command) -> Command {
    for name in VARIABLES {
        command.env_remove(name);
    }
    // Folder for upload journals, which every run deletes at its end.
    command.env("RUST_ELAND_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command
}

/// Runs a command with bytes on standard input.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program may write before it has read everything.
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    })
}

/// Standard error of the program.
pub fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard error of the program without its warnings about the server's tokenizer, which nearly every model causes.
pub fn message_without_tokenizer_warnings(output: &Output) -> String {
    let message = message(output);
    let is_about_tokenizer = |line: &&str| line.contains(" WARNING : Elasticsearch ");
    message.split_inclusive('\n').filter(|line| !is_about_tokenizer(line)).collect()
}

/// Panics unless the message contains every part.
#[track_caller]
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Sends a request to the stand-in and returns the status and the JSON body.
pub fn ask(standin: &StandIn, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let method = method.parse().unwrap();
        let mut request = client.request(method, format!("{}{path}", standin.url()));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    })
}

/// The folder `name` in which the make target `target` stores what it downloads.
pub fn downloaded(name: &str, target: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    let folder = cache.join("rust-eland").join(name);
    assert!(folder.is_dir(), "{} is missing: run `make {target}`", folder.display());
    folder
}
