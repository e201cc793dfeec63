//! The fingerprint of an import: one SHA-256 of everything that determines a bundle. If the model in the cluster has the same
//! fingerprint, it need not be converted again.

use std::fs::File;
use std::io;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::conversion::Options;
use crate::hexadecimal::hexadecimal;
use crate::source::Origin;

/// The SHA-256 of a hub commit, the options, the title and the program. `None` if the program's own file cannot be read.
#[must_use]
pub fn fingerprint(commit: &Origin, options: &Options, title: &str) -> Option<String> {
    Some(of_program(&program().ok()?, commit, options, title))
}

fn of_program(program: &str, commit: &Origin, options: &Options, title: &str) -> String {
    // A new option does not compile until it is listed here.
    let Options {
        task,
        part,
        lora_task,
        max_length,
        dimensions,
        scripts,
        ingest_prefix,
        search_prefix,
        prompts,
        target,
        origin,
        quantize,
        no_verify: _,
        allow_inexact_tokenizer: _,
    } = options;
    let quantize = quantize
        .as_ref()
        .map(|it| json!({"scheme": it.scheme.name(), "texts": it.texts.as_deref(), "least": it.min_agreement, "target": it.target_agreement}));
    let mut all = json!({
        "program": program,
        "files": {"id": commit.model_id, "commit": commit.commit},
        "origin": origin.as_ref().map(ToString::to_string),
        "title": title,
        "task": task.map(|task| task.name()),
        "max_length": max_length,
        "ingest_prefix": ingest_prefix,
        "search_prefix": search_prefix,
        "prompts": prompts,
        "target": target.to_string(),
        "quantize": quantize,
    });
    // Absent by default, so that the fingerprints of earlier imports stay the same.
    if let Some(part) = part {
        all["part"] = part.as_str().into();
    }
    if let Some(task) = lora_task {
        all["lora_task"] = task.as_str().into();
    }
    if let Some(dimensions) = dimensions {
        all["dimensions"] = (*dimensions).into();
    }
    if let Some(scripts) = scripts {
        all["scripts"] = scripts.to_string().into();
    }
    hexadecimal(&Sha256::digest(all.to_string()))
}

/// Hash of the program's file, because another version may build another graph.
fn program() -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(std::env::current_exe()?)?, &mut hash)?;
    Ok(format!("{} {}", hexadecimal(&hash.finalize()), build_info::LIBTORCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_changes_with_everything_that_changes_the_bundle() {
        let commit =
            |digit: &str| Origin { model_id: "org/model".into(), commit: digit.repeat(40) };
        let origin = commit("a");
        let of = |options: &Options, title: &str| {
            let origin = options.origin.clone().unwrap();
            of_program("program", &origin, options, title)
        };
        let plain = Options { origin: Some(origin), ..Options::default() };
        let first = of(&plain, "a");
        assert_eq!(first, of(&plain, "a"));
        assert_eq!(first, of(&Options { no_verify: true, ..plain.clone() }, "a"));
        let others = [
            Options { task: Some(crate::tasks::Task::Ner), ..plain.clone() },
            Options { max_length: Some(7), ..plain.clone() },
            Options { part: Some("query".into()), ..plain.clone() },
            Options { lora_task: Some("query".into()), ..plain.clone() },
            Options { dimensions: Some(7), ..plain.clone() },
            Options { scripts: Some("latin".parse().unwrap()), ..plain.clone() },
            Options { scripts: Some("latin,greek".parse().unwrap()), ..plain.clone() },
            Options { search_prefix: Some("q: ".into()), ..plain.clone() },
            Options { ingest_prefix: Some("q: ".into()), ..plain.clone() },
            Options { quantize: Some(Default::default()), ..plain.clone() },
            Options { target: "8.17.0".parse().unwrap(), ..plain.clone() },
            Options { origin: Some(commit("b")), ..plain.clone() },
        ];
        let mut all: Vec<_> = others.iter().map(|options| of(options, "a")).collect();
        all.push(of(&plain, "b"));
        all.push(of_program("another program", &commit("a"), &plain, "a"));
        all.push(first);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 15);
    }

    /// A change would make every model that was imported before look outdated.
    #[test]
    fn fingerprint_of_a_hub_model_equals_that_of_release_0_1_0() {
        let origin = Origin {
            model_id: "org/model".into(),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
        };
        let options = Options {
            task: Some(crate::tasks::Task::TextEmbedding),
            search_prefix: Some("query: ".into()),
            target: "8.17.0".parse().unwrap(),
            origin: Some(origin.clone()),
            ..Options::default()
        };
        assert_eq!(
            of_program("p", &origin, &options, "org/model"),
            "27ba2fb25902f3b3adca8e74977deb75b9972dc7316bd8fbd3c31c01bc9bfdc7"
        );
    }
}
