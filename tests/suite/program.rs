//! Runs the program, and asks a stand-in as a user of the cluster would.

use std::process::{Command, Output};

use serde_json::Value;
use standin::StandIn;

/// The program, with nothing in its environment that a developer's machine may hold.
pub fn program() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_rust-eland")))
}

/// A command without the program's environment variables.
pub fn clean(mut command: Command) -> Command {
    for name in ["ES_URL", "CLOUD_ID", "ES_USERNAME", "ES_PASSWORD", "ES_API_KEY", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env_remove("HUB_ACCESS_TOKEN").env("NO_PROXY", "127.0.0.1");
    command
}

/// What the program says of a failure.
pub fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails unless every part is in the message.
#[track_caller]
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// Sends a request to the stand-in and returns status and JSON.
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
