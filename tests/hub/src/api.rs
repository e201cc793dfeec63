//! The API: the commit of a revision and the files of a commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::repository::{Access, File, Repository, git_blob};
use crate::server::{Asked, Caller, State};

/// Answers `/api/models/ID[/revision/REVISION]` and `/api/models/ID/tree/REVISION`.
pub(crate) fn answer(state: &State, asked: &Asked, parts: &[String]) -> Answer {
    if state.caller(asked) == Caller::Revoked {
        return Answer::error(401, None, "Invalid credentials in Authorization header");
    }
    let what = parts.iter().position(|part| part == "revision" || part == "tree");
    let (id, rest) = parts.split_at(what.unwrap_or(parts.len()));
    let id = id.join("/");
    let repository = match find(state, asked, &id) {
        Found::Repository(repository) => repository,
        Found::Elsewhere(canonical) => {
            // As on the real hub, the redirect has no other headers.
            let path =
                asked.path.replacen(&format!("/models/{id}"), &format!("/models/{canonical}"), 1);
            return Answer::redirect(307, &path);
        }
        Found::Refused(answer) => return answer,
    };
    let commit = repository.commit();
    let revision = rest.get(1).map_or("main", String::as_str);
    if revision != commit && !repository.revisions.iter().any(|name| name == revision) {
        return Answer::error(
            404,
            Some("RevisionNotFound"),
            &format!("Invalid rev id: {revision}"),
        );
    }
    if rest.first().is_some_and(|part| part == "tree") {
        tree(state, asked, &repository)
    } else {
        info(asked, &repository)
    }
}

/// The result of looking up an id.
pub(crate) enum Found {
    Repository(Arc<Repository>),
    Elsewhere(String),
    Refused(Answer),
}

pub(crate) fn find(state: &State, asked: &Asked, id: &str) -> Found {
    let repositories = state.repositories();
    if let Some(repository) =
        repositories.iter().find(|one| one.aliases.iter().any(|alias| alias == id))
    {
        return Found::Elsewhere(repository.id.clone());
    }
    let repository = repositories.iter().find(|one| one.id == id);
    match (repository, state.caller(asked)) {
        (Some(repository), caller)
            if repository.access != Access::Private || caller == Caller::Granted =>
        {
            Found::Repository(Arc::clone(repository))
        }
        // The hub does not reveal whether the repository exists.
        (_, Caller::Nobody | Caller::Revoked) => {
            Found::Refused(Answer::error(401, None, "Invalid username or password."))
        }
        _ => Found::Refused(Answer::error(404, Some("RepoNotFound"), "Repository not found")),
    }
}

fn info(asked: &Asked, repository: &Repository) -> Answer {
    let blobs = asked.path.contains("blobs=true");
    let siblings = repository.files.iter().map(|(path, file)| {
        let mut sibling = json!({ "rfilename": path });
        if blobs {
            sibling["size"] = file.content.len().into();
            sibling["blobId"] = name_in_git(file).into();
            if file.large {
                sibling["lfs"] = json!({ "sha256": file.sha256(), "size": file.content.len(), "pointerSize": file.pointer().len() });
            }
        }
        sibling
    });
    Answer::json(&json!({
        "id": repository.id,
        "modelId": repository.id,
        "sha": repository.commit(),
        "private": repository.access == Access::Private,
        "gated": if repository.access == Access::Gated { json!("manual") } else { json!(false) },
        "siblings": siblings.collect::<Vec<_>>(),
    }))
}

fn tree(state: &State, asked: &Asked, repository: &Repository) -> Answer {
    let mut nodes: Vec<Value> = Vec::new();
    let folders: BTreeSet<&str> = repository
        .files
        .keys()
        .filter_map(|path| path.rsplit_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    for folder in folders {
        nodes.push(json!({ "type": "directory", "oid": git_blob(folder.as_bytes()), "size": 0, "path": folder }));
    }
    for (path, file) in &repository.files {
        let size = file.content.len();
        let mut node =
            json!({ "type": "file", "oid": name_in_git(file), "size": size, "path": path });
        if file.large {
            node["lfs"] =
                json!({ "oid": file.sha256(), "size": size, "pointerSize": file.pointer().len() });
        }
        if file.xet {
            node["xetHash"] = file.xet_hash().into();
        }
        nodes.push(node);
    }
    let number = |name: &str| {
        let (_, rest) = asked.path.split_once(name)?;
        rest.split('&').next()?.parse::<usize>().ok()
    };
    let first = number("cursor=").unwrap_or(0);
    let next = first + state.page();
    let more = next < nodes.len();
    let page: Vec<Value> = nodes.into_iter().skip(first).take(state.page()).collect();
    let answer = Answer::json(&page.into());
    if !more {
        return answer;
    }
    let path = asked.path.split('?').next().unwrap_or_default();
    let link =
        format!("<{}{path}?recursive=true&expand=false&cursor={next}>; rel=\"next\"", state.url());
    answer.header("Link", &link)
}

fn name_in_git(file: &File) -> String {
    if file.large { git_blob(file.pointer().as_bytes()) } else { file.blob() }
}
