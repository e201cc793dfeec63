//! The lines about the version of a cluster: libtorch, tokenizers, tasks, and features of the API.

use serde_json::json;

use super::{CheckLine, Subject};
use crate::elasticsearch::Client;
use crate::tasks::Task;
use crate::tokenizer::TokenizerKind;
use crate::version::Version;

/// Features of the API, with the first version that has them.
const FEATURES: [(&str, Version); 6] = [
    ("measured memory", Version::MEMORY_METADATA),
    ("prefixes", Version::PREFIX_STRINGS),
    ("inference endpoints", Version::ENDPOINT),
    ("rerank endpoints", Version::RERANK_ENDPOINT),
    ("adaptive allocations", Version::ADAPTIVE_ALLOCATIONS),
    ("endpoints for existing deployments", Version::ENDPOINT_OF_DEPLOYMENT),
];

/// The version and its libtorch.
pub(super) fn version(client: &Client) -> CheckLine {
    let target = client.target();
    let libtorch = target.libtorch();
    let version = if client.is_serverless() {
        "Elasticsearch Serverless".to_owned()
    } else {
        format!("Elasticsearch {target}")
    };
    let summary = match libtorch {
        Some(libtorch) => format!("{version} with libtorch {libtorch}"),
        None => version,
    };
    let details = json!({ "version": target.to_string(), "libtorch": libtorch });
    CheckLine::ok(Subject::Version, summary).with_details(details)
}

/// The tokenizers, tasks and features of the version.
pub(super) fn lines(client: &Client) -> [CheckLine; 3] {
    let tokenizers = TokenizerKind::ALL.map(|kind| (kind.name(), kind.since()));
    let tasks = Task::ALL.map(|task| (task.name(), Version::OLDEST));
    let mut tasks_line = line(client, Subject::Tasks, &tasks);
    if !client.supports(Version::TEXT_EXPANSION_TOKENIZERS) {
        tasks_line.summary = format!(
            "{} (text_expansion with the tokenizer bert only, before {})",
            tasks_line.summary,
            Version::TEXT_EXPANSION_TOKENIZERS
        );
    }
    [
        line(client, Subject::Tokenizers, &tokenizers),
        tasks_line,
        line(client, Subject::Features, &FEATURES),
    ]
}

fn line(client: &Client, subject: Subject, all: &[(&str, Version)]) -> CheckLine {
    let (supported, missing): (Vec<_>, Vec<_>) =
        all.iter().partition(|(_, since)| client.supports(*since));
    let names: Vec<_> = supported.iter().map(|(name, _)| *name).collect();
    let later: Vec<_> = missing.iter().map(|(name, since)| format!("{name} ({since})")).collect();
    let mut summary = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if !later.is_empty() {
        summary = format!("{summary}; later versions also have {}", later.join(", "));
    }
    let details = json!({
        "supported": names,
        "later": missing.iter().map(|(name, since)| json!({"name": name, "since": since.to_string()})).collect::<Vec<_>>(),
    });
    CheckLine::ok(subject, summary).with_details(details)
}
