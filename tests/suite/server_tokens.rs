//! The server's tokenization against the ids that Elasticsearch's own classes returned (`tests/fixtures/server-tokens`).

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rust_eland::server_tokenization::{
    Difference, Exception, Settings, TokenizationError, Tokenizer,
};
use rust_eland::tokenizer::{TokenizerKind, append_tokens};
use rust_eland::vocabulary::Vocabulary;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A text or a pair with the ids of the server and of the model's own tokenizer.
#[derive(Deserialize)]
pub struct Case {
    /// What the text is an example of.
    pub kind: String,
    /// The text or the pair.
    pub text: Text,
    /// The ids that the server computes; none where it throws.
    pub server: Option<Vec<u32>>,
    /// The Java exception.
    pub error: Option<String>,
    /// The ids of the model's own tokenizer.
    pub huggingface: Vec<u32>,
}

/// One text or two.
#[derive(Deserialize, Serialize, Debug)]
#[serde(untagged)]
pub enum Text {
    /// One text.
    Single(String),
    /// Two texts.
    Pair(String, String),
}

/// The vocabulary, the settings and the cases of a folder.
fn parts(folder: &Path) -> (Vocabulary, Settings, Vec<Case>) {
    let mut json = String::new();
    let file = fs::File::open(folder.join("vocabulary.json.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut json).unwrap();
    let settings: Value =
        serde_json::from_slice(&fs::read(folder.join("tokenization.json")).unwrap()).unwrap();
    let cases = fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    (
        serde_json::from_str(&json).unwrap(),
        Settings::from_json(&settings).unwrap(),
        cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    )
}

/// The server's tokenizer for a vocabulary.
fn build(vocabulary: Vocabulary, settings: Settings) -> Tokenizer {
    let Vocabulary { vocabulary, merges, scores } = vocabulary;
    let (merges, scores) = (merges.unwrap_or_default(), scores.unwrap_or_default());
    Tokenizer::build(settings, vocabulary, &merges, &scores).unwrap()
}

/// The tokenizer and the cases of a folder.
pub fn read(folder: &Path) -> (Tokenizer, Vec<Case>) {
    let (vocabulary, settings, cases) = parts(folder);
    (build(vocabulary, settings), cases)
}

/// The folders of the tokenizers, sorted by name.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server-tokens");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The ids that this program computes for a text or pair.
pub fn ids(tokenizer: &Tokenizer, text: &Text) -> Result<Vec<u32>, TokenizationError> {
    let (truncate, span) = (tokenizer.settings().truncate, tokenizer.settings().span);
    Ok(match text {
        Text::Single(text) => tokenizer.single(text, truncate, span)?.remove(0).ids,
        Text::Pair(first, second) => tokenizer.pair(first, second, truncate)?.ids,
    })
}

/// The name of the Java class that an error stands for.
fn java_class(error: &TokenizationError) -> &'static str {
    match error {
        TokenizationError::Server { exception: Exception::IllegalArgument, .. } => {
            "java.lang.IllegalArgumentException"
        }
        TokenizationError::Server { exception: Exception::IndexOutOfBounds, .. } => {
            "java.lang.IndexOutOfBoundsException"
        }
        TokenizationError::Server { exception: Exception::ArrayIndexOutOfBounds, .. } => {
            "java.lang.ArrayIndexOutOfBoundsException"
        }
        _ => "another class",
    }
}

#[test]
fn every_case_has_the_ids_or_the_exception_of_the_server() {
    let (mut compared, mut failures) = (0, Vec::new());
    for folder in folders() {
        let (tokenizer, cases) = read(&folder);
        for case in cases {
            compared += 1;
            let found = ids(&tokenizer, &case.text);
            let equal = match (&found, &case.server, &case.error) {
                (Ok(ids), Some(server), None) => ids == server,
                (Err(error), None, Some(thrown)) => thrown.starts_with(java_class(error)),
                _ => false,
            };
            if !equal {
                let Case { kind, text, server, error, .. } = case;
                failures.push(format!(
                    "{folder:?}, {kind}, {text:?}: {found:?} instead of {server:?} {error:?}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {compared}:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(compared, 2002);
}

/// If this variable is set, the list of differences is written again.
const UPDATE: &str = "UPDATE_DIFFERENCES";

/// `differences.tsv` lists each text that the model reads with other ids than those of its own tokenizer, with the reason.
#[test]
fn texts_that_differ_from_the_models_tokenizer_are_listed() {
    let mut list = "tokenizer\tkind\ttext\treason\n".to_owned();
    let mut counts = Vec::new();
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let (mut vocabulary, settings, cases) = parts(&folder);
        // As an import uploads the vocabulary; the graph undoes the difference.
        let appended = match name.as_str() {
            "deberta_v2" => append_tokens(TokenizerKind::DebertaV2, &mut vocabulary),
            _ => None,
        };
        let tokenizer = build(vocabulary, settings);
        let (mut before, mut after) = (0, 0);
        for Case { kind, text, server, huggingface, .. } in &cases {
            before += usize::from(server.as_ref() == Some(huggingface));
            let found = ids(&tokenizer, text);
            let read = match (&found, appended) {
                (Ok(ids), Some(appended)) => Ok(appended.model_ids(ids)),
                (found, _) => found.clone(),
            };
            if read.as_ref() == Ok(huggingface) {
                after += 1;
                continue;
            }
            let mut reasons = match text {
                Text::Single(text) => tokenizer.differences(text, None),
                Text::Pair(first, second) => tokenizer.differences(first, Some(second)),
            };
            // Empty texts explain an exception, whatever else the texts contain.
            if read.is_err() {
                reasons.retain(|reason| *reason == Difference::EmptyText);
            }
            assert!(!reasons.is_empty(), "{name}: no reason for {text:?}");
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            let exception = if read.is_err() { "exception: " } else { "" };
            let text = escaped(&serde_json::to_string(text).unwrap());
            let reasons = escaped(&reasons.join(", "));
            list += &format!("{name}\t{kind}\t{text}\t{exception}{reasons}\n");
        }
        counts.push((name, cases.len(), before, after));
    }
    let path = folders()[0].parent().unwrap().join("differences.tsv");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &list).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (found, known) = (lines(&list), lines(&known));
    assert!(
        found == known,
        "the list of differences has changed. If that is intended, write the list with\n  {UPDATE}=1 cargo test --test suite \
         server_tokens\nNew:\n{}\nGone:\n{}",
        found.difference(&known).cloned().collect::<Vec<_>>().join("\n"),
        known.difference(&found).cloned().collect::<Vec<_>>().join("\n")
    );
    // Texts, texts with equal ids as uploaded by eland, and with the appended tokens.
    let expected = [
        ("bert-cased", 286, 221, 221),
        ("bert-uncased", 286, 216, 216),
        ("camembert", 286, 273, 273),
        ("deberta_v2", 286, 153, 276),
        ("mpnet", 286, 214, 214),
        ("roberta", 286, 259, 259),
        ("xlm_roberta", 286, 273, 273),
    ];
    assert_eq!(
        counts,
        expected.map(|(name, all, before, after)| (name.into(), all, before, after))
    );
}

/// A text with characters other than printable ASCII, letters and digits as escapes, as in JSON.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        c if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    text.chars().map(escape).collect()
}
