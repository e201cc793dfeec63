//! Suggestions for a misspelled name.

use std::fs;
use std::path::{Path, PathBuf};

use super::command_error::CommandError;
use crate::bundle::{BundleError, READING};
use crate::conversion::ConversionError;
use crate::elasticsearch::ClientError;
use crate::error::Error;
use crate::source::SourceError;
use crate::source::hub::HubError;

/// Minimum similarity for a suggestion; the threshold that clap uses for options.
const LIKE: f64 = 0.7;

/// Maximum number of suggestions.
const SHOWN: usize = 3;

/// Maximum number of entries of a folder to compare.
const ENTRIES: usize = 10_000;

/// The candidates that resemble a name, most similar first.
pub(super) fn similar<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    similar_above(LIKE, name, candidates)
}

/// The candidates whose similarity to a name, from 0 to 1, is larger than `least`, most similar first.
pub(super) fn similar_above<'a>(
    least: f64,
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let likeness = |candidate: &&'a str| strsim::jaro_winkler(&name, &candidate.to_lowercase());
    let mut found: Vec<_> = candidates.into_iter().map(|it| (likeness(&it), it)).collect();
    found.retain(|(likeness, _)| *likeness > least);
    found.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.cmp(other)));
    found.into_iter().map(|(_, name)| name).take(SHOWN).collect()
}

/// Suggestion for the path in an error, if a file with a similar name exists.
pub(super) fn tip(error: &CommandError) -> Option<String> {
    let CommandError::Work(error) = error else { return None };
    let found = match error {
        Error::Bundle(BundleError::Invalid { path, .. }) => {
            vec![path.with_extension("metadata.json")]
                .into_iter()
                .filter(|it| it.is_file())
                .collect()
        }
        error => beside(missing(error)?),
    };
    let names: Vec<_> = found.iter().map(|path| format!("'{}'", path.display())).collect();
    match &*names {
        [] => None,
        [name] => Some(format!("a file with a similar name exists: {name}")),
        names => Some(format!("files with similar names exist: {}", names.join(", "))),
    }
}

/// Suggestion for a missing file, to append to a message.
pub(super) fn file_tip(path: &Path) -> String {
    let found = if path.exists() { Vec::new() } else { beside(path) };
    let names: Vec<_> = found.iter().map(|path| format!("'{}'", path.display())).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("\n\n  tip: did you mean {}?", names.join(", "))
    }
}

/// The missing path in an error.
fn missing(error: &Error) -> Option<&Path> {
    let path = match error {
        Error::Hub(HubError::Id { name, .. }) => Path::new(name),
        // A misspelled folder name is a valid hub id.
        Error::Hub(
            HubError::NotFound { id, .. }
            | HubError::NotCached { id, .. }
            | HubError::Unreachable { id, .. },
        ) => Path::new(id.as_str()),
        Error::Bundle(BundleError::Io { what: READING, path, .. }) if path.is_dir() => {
            return Some(path);
        }
        Error::Bundle(BundleError::Io { what: READING, path, .. })
        | Error::Conversion(ConversionError::Source(SourceError::NotAFolder(path)))
        | Error::Client(ClientError::Certificates { path, .. }) => path,
        _ => return None,
    };
    (!path.exists()).then_some(path)
}

/// Files with a similar name in the same folder. If the path is a folder instead of a bundle, the bundles in it.
fn beside(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let bundles = names(path).into_iter().filter(|name| name.ends_with(".metadata.json"));
        return bundles.take(SHOWN).map(|name| path.join(name)).collect();
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent == Path::new("") { Path::new(".") } else { parent };
    if folder.is_dir() {
        let names = names(folder);
        return similar(name, names.iter().map(String::as_str))
            .into_iter()
            .map(|name| parent.join(name))
            .collect();
    }
    // The misspelled name may be a folder in the path.
    let through = beside(parent).into_iter().map(|folder| folder.join(name));
    through.filter(|path| path.exists()).collect()
}

/// Names of the visible entries of a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names =
        entries.take(ENTRIES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_similar_names_come_first() {
        let names = ["minilm.pt", "minilm.metadata.json", "minilm.vocab.json", "readme"];
        assert_eq!(similar("minilm.metadta.json", names)[0], "minilm.metadata.json");
        assert!(similar("xyz", names).is_empty());
        assert!(similar("MINILM.PT", names).contains(&"minilm.pt"));
    }

    #[test]
    fn file_is_suggested_for_reading_only() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("x.html"), "").unwrap();
        let tip = |what| {
            let (path, source) = (root.path().join("x"), std::io::Error::other("no"));
            tip(&Error::Bundle(BundleError::Io { what, path, source }).into())
        };
        assert!(tip(READING).unwrap().contains("x.html"));
        assert_eq!(tip("cannot create the folder"), None);
    }

    #[test]
    fn path_with_a_misspelled_folder_is_suggested() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("models/minilm")).unwrap();
        fs::create_dir_all(root.path().join("models/.minilm-hidden")).unwrap();
        let found = |path: &str| beside(&root.path().join(path));
        let expected = [root.path().join("models/minilm")];
        for path in ["models/miniLM-L6", "modls/minilm", "model/minilm", "models/mimilm"] {
            assert_eq!(found(path), expected, "{path}");
        }
        assert!(found("models/other").is_empty() && found("x/y/z").is_empty());
    }
}
