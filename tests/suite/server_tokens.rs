//! The server's tokenization against the ids that Elasticsearch's own classes returned (`tests/fixtures/server-tokens`).

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use rust_eland::server_tokenization::{Exception, Settings, TokenizationError, Tokenizer};
use serde::Deserialize;
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
}

/// One text or two.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Text {
    /// One text.
    Single(String),
    /// Two texts.
    Pair(String, String),
}

#[derive(Deserialize)]
struct Vocabulary {
    vocabulary: Vec<String>,
    #[serde(default)]
    merges: Vec<String>,
    #[serde(default)]
    scores: Vec<f64>,
}

/// The tokenizer and the cases of a folder.
pub fn read(folder: &Path) -> (Tokenizer, Vec<Case>) {
    let mut json = String::new();
    let file = fs::File::open(folder.join("vocabulary.json.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut json).unwrap();
    let Vocabulary { vocabulary, merges, scores } = serde_json::from_str(&json).unwrap();
    let settings: Value =
        serde_json::from_slice(&fs::read(folder.join("tokenization.json")).unwrap()).unwrap();
    let settings = Settings::from_json(&settings).unwrap();
    let tokenizer = Tokenizer::build(settings, vocabulary, &merges, &scores).unwrap();
    let cases = fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    (tokenizer, cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server-tokens");
    let (mut compared, mut failures) = (0, Vec::new());
    for folder in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
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
