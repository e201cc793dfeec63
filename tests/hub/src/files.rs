//! The files: the hub serves small files, and the CDN serves large ones.

use crate::answer::Answer;
use crate::api::{Found, find};
use crate::repository::{Access, File, Repository};
use crate::server::{Asked, Caller, State};

/// The signature of the addresses on the CDN.
const SIGNATURE: &str = "X-Amz-Signature=0123456789abcdef";

/// Answers `/ID/resolve/REVISION/PATH`.
pub(crate) fn resolve(state: &State, asked: &Asked, id: &str, rest: &[String]) -> Answer {
    let repository = match find(state, asked, id) {
        Found::Repository(repository) => repository,
        Found::Elsewhere(canonical) => {
            let path = asked.path.replacen(&format!("/{id}/"), &format!("/{canonical}/"), 1);
            return Answer::redirect(307, &path);
        }
        Found::Refused(answer) => return answer,
    };
    if let Some(refused) = refused(state, asked, &repository) {
        return refused;
    }
    let commit = repository.commit();
    let Some((revision, path)) = rest.split_first() else { return not_found() };
    if *revision != commit && !repository.revisions.contains(revision) {
        return Answer::error(
            404,
            Some("RevisionNotFound"),
            &format!("Invalid rev id: {revision}"),
        );
    }
    let path = path.join("/");
    let Some(file) = repository.files.get(&path) else {
        return Answer::error(404, Some("EntryNotFound"), "Entry not found")
            .header("X-Repo-Commit", &commit);
    };
    let etag = format!("\"{}\"", file.etag());
    if !file.large {
        let etag_query = etag.replace('"', "%22");
        let location = format!("/api/resolve-cache/models/{id}/{commit}/{path}?etag={etag_query}");
        return Answer::redirect(307, &location)
            .header("X-Repo-Commit", &commit)
            .header("X-Linked-ETag", &etag)
            .header("Accept-Ranges", "bytes");
    }
    let location = format!("{}/repos/{id}/{}?{SIGNATURE}", state.cdn_url(), file.sha256());
    let answer = Answer::redirect(302, &location)
        .header("X-Repo-Commit", &commit)
        .header("X-Linked-ETag", &etag)
        .header("X-Linked-Size", &file.content.len().to_string())
        .header("Accept-Ranges", "bytes");
    if !file.xet {
        return answer;
    }
    let token =
        format!("<{}/api/models/{id}/xet-read-token/{commit}>; rel=\"xet-auth\"", state.url());
    answer.header("X-Xet-Hash", &file.xet_hash()).header("Link", &token)
}

/// Answers `/api/resolve-cache/models/ID/COMMIT/PATH`.
pub(crate) fn resolve_cache(state: &State, asked: &Asked, parts: &[String]) -> Answer {
    let found = state.repositories().into_iter().find_map(|repository| {
        let prefix: Vec<&str> = repository.id.split('/').collect();
        let rest = parts.strip_prefix(
            prefix.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>().as_slice(),
        )?;
        let (commit, path) = rest.split_first()?;
        let file = repository.files.get(&path.join("/")).filter(|file| !file.large)?.clone();
        (*commit == repository.commit()).then_some((repository, file))
    });
    let Some((repository, file)) = found else { return not_found() };
    // Private files need the token here as well.
    if let Some(refused) = refused(state, asked, &repository) {
        return refused;
    }
    if repository.access == Access::Private && state.caller(asked) != Caller::Granted {
        return Answer::error(401, None, "Invalid username or password.");
    }
    let etag = format!("\"{}\"", file.blob());
    if asked.if_none_match.as_deref() == Some(etag.as_str()) {
        return Answer::new(304, "").header("ETag", &etag);
    }
    Answer::file(&file.content, asked.from, asked.to)
        .header("ETag", &etag)
        .header("X-Repo-Commit", &repository.commit())
}

/// Answers of the CDN, which has neither commits nor tokens.
pub(crate) fn cdn(state: &State, asked: &Asked) -> Answer {
    // The real CDN refuses a request with both a signature and a token.
    if asked.authorization.is_some() {
        return Answer::new(
            400,
            "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>",
        );
    }
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    if query != SIGNATURE {
        return Answer::new(403, "<Error><Code>AccessDenied</Code></Error>");
    }
    let (id, name) = path.trim_start_matches("/repos/").rsplit_once('/').unwrap_or_default();
    let repositories = state.repositories();
    let repository = repositories.iter().find(|repository| repository.id == id);
    let mut files = repository.into_iter().flat_map(|repository| repository.files.values());
    match files.find(|file| file.large && file.sha256() == name) {
        Some(file) => {
            Answer::file(&file.content, asked.from, asked.to).header("ETag", &other_etag(file))
        }
        None => Answer::new(404, "<Error><Code>NoSuchKey</Code></Error>"),
    }
}

/// An ETag of 64 digits that is not the SHA-256.
fn other_etag(file: &File) -> String {
    format!("\"{}\"", file.sha256().chars().rev().collect::<String>())
}

fn refused(state: &State, asked: &Asked, repository: &Repository) -> Option<Answer> {
    if repository.access != Access::Gated {
        return None;
    }
    let message = "Access to this model is restricted.";
    match state.caller(asked) {
        Caller::Granted => None,
        Caller::Known => Some(Answer::error(403, Some("GatedRepo"), message)),
        Caller::Nobody | Caller::Revoked => Some(Answer::error(401, Some("GatedRepo"), message)),
    }
}

pub(crate) fn not_found() -> Answer {
    Answer::new(404, "<html><body>404</body></html>").header("Content-Type", "text/html")
}
