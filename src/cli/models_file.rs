//! A YAML file of imports: `defaults` and a list of `models`, with the options of `rust-eland import` as keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::option_value::Value;
use super::similar::similar;

/// Maximum size of the file in bytes.
const MAX_BYTES: u64 = 4 << 20;

const DEFAULTS: &str = "defaults";
const MODELS: &str = "models";

/// A problem in the file, with its line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct Wrong {
    pub(super) line: usize,
    problem: String,
}

/// Name and value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: Value,
}

/// One import.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) line: usize,
    pub(super) settings: Vec<Setting>,
}

/// The content of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModelsFile {
    pub(super) defaults: Vec<Setting>,
    pub(super) models: Vec<Model>,
}

impl Wrong {
    pub(super) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }
}

/// Reads the text of a file, or of standard input for `-`.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("the file is not UTF-8 text"))
}

impl ModelsFile {
    /// Parses the text of a file.
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        let mut events = Events(Parser::new_from_str(text));
        let mut file = Self::default();
        let mut seen = Vec::new();
        let line = loop {
            match events.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::MappingStart(..), line) => break line,
                (Event::StreamEnd | Event::DocumentEnd, line) => {
                    return Err(Wrong::new(
                        line,
                        "the file lists no models; add a list under `models`",
                    ));
                }
                (_, line) => {
                    return Err(Wrong::new(
                        line,
                        "the file must be a mapping with the key `models` and optionally `defaults`",
                    ));
                }
            }
        };
        while let Some((name, line)) = events.key(&mut seen)? {
            match &*name {
                DEFAULTS => file.defaults = events.settings_or_nothing()?,
                MODELS => file.models = events.models()?,
                name => {
                    let meant = similar(name, [DEFAULTS, MODELS]);
                    let meant = meant.first().unwrap_or(&"`models` or `defaults`");
                    return Err(Wrong::new(
                        line,
                        format!("unknown key `{name}`: did you mean {meant}?"),
                    ));
                }
            }
        }
        loop {
            match events.next()? {
                (Event::StreamEnd, _) => break,
                (Event::DocumentEnd, _) => {}
                (_, line) => {
                    return Err(Wrong::new(
                        line,
                        "the file contains more than one document; write only one",
                    ));
                }
            }
        }
        if file.models.is_empty() {
            return Err(Wrong::new(line, "the file lists no models; add a list under `models`"));
        }
        Ok(file)
    }
}

/// Events of the parser, each with its line.
struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Wrong> {
        let (event, span): (Event<'a>, Span) = match self.0.next_event() {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(Wrong::new(error.marker().line(), error.info())),
            None => return Ok((Event::StreamEnd, 1)),
        };
        let line = span.start.line();
        let has_tag = match &event {
            Event::Scalar(_, _, _, tag)
            | Event::SequenceStart(_, tag)
            | Event::MappingStart(_, tag) => tag.is_some(),
            _ => false,
        };
        match event {
            _ if has_tag => {
                Err(Wrong::new(line, "tags (`!name`) are not supported; remove the tag"))
            }
            Event::Alias(_) => {
                Err(Wrong::new(line, "aliases (`*name`) are not supported; use `defaults`"))
            }
            event => Ok((event, line)),
        }
    }

    /// Next key of a mapping, or `None` at its end.
    fn key(&mut self, seen: &mut Vec<String>) -> Result<Option<(String, usize)>, Wrong> {
        match self.next()? {
            (Event::MappingEnd, _) => Ok(None),
            (Event::Scalar(name, ..), line) => {
                let name = name.into_owned();
                if seen.contains(&name) {
                    return Err(Wrong::new(
                        line,
                        format!("`{name}` is set twice; remove one of them"),
                    ));
                }
                seen.push(name.clone());
                Ok(Some((name, line)))
            }
            (_, line) => {
                Err(Wrong::new(line, "expected a key and a value, such as `task-type: ner`"))
            }
        }
    }

    /// Remaining options of a mapping.
    fn settings(&mut self) -> Result<Vec<Setting>, Wrong> {
        let (mut settings, mut seen) = (Vec::new(), Vec::new());
        while let Some((name, line)) = self.key(&mut seen)? {
            settings.push(Setting { line, name, value: self.value()? });
        }
        Ok(settings)
    }

    fn settings_or_nothing(&mut self) -> Result<Vec<Setting>, Wrong> {
        match self.next()? {
            (Event::MappingStart(..), _) => self.settings(),
            (Event::Scalar(text, style, ..), _) if is_null(&text, style) => Ok(Vec::new()),
            (_, line) => Err(Wrong::new(
                line,
                "`defaults` must contain options and their values, such as `start: true`",
            )),
        }
    }

    fn models(&mut self) -> Result<Vec<Model>, Wrong> {
        let wrong = |line| {
            Wrong::new(
                line,
                "`models` must be a list in which each model starts with `- hub-model-id: …`",
            )
        };
        match self.next()? {
            (Event::SequenceStart(..), _) => {}
            (Event::Scalar(text, style, ..), _) if is_null(&text, style) => return Ok(Vec::new()),
            (_, line) => return Err(wrong(line)),
        }
        let mut models = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(models),
                (Event::MappingStart(..), line) => {
                    models.push(Model { line, settings: self.settings()? })
                }
                (_, line) => return Err(wrong(line)),
            }
        }
    }

    fn value(&mut self) -> Result<Value, Wrong> {
        let wrong = |line| Wrong::new(line, "an option must have one value or a list of values");
        match self.next()? {
            (Event::Scalar(text, style, ..), _) if is_null(&text, style) => Ok(Value::Absent),
            (Event::Scalar(text, ..), _) => Ok(Value::Text(text.into_owned())),
            (Event::SequenceStart(..), _) => {
                let mut values = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(Value::List(values)),
                        (Event::Scalar(text, ..), _) => values.push(text.into_owned()),
                        (_, line) => return Err(wrong(line)),
                    }
                }
            }
            (_, line) => Err(wrong(line)),
        }
    }
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && ["", "~", "null", "Null", "NULL"].contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_defaults_keep_their_lines() {
        let text = "# ours\ndefaults:\n  start: true\n  revision: ~\nmodels:\n  - hub-model-id: a/b\n    header: [x, 'y: z']\n\n  - hub-model-id: \"null\"\n";
        let setting = |line, name: &str, value| Setting { line, name: name.into(), value };
        let of = |text: &str| Value::Text(text.into());
        let expected = ModelsFile {
            defaults: vec![setting(3, "start", of("true")), setting(4, "revision", Value::Absent)],
            models: vec![
                Model {
                    line: 6,
                    settings: vec![
                        setting(6, "hub-model-id", of("a/b")),
                        setting(7, "header", Value::List(vec!["x".into(), "y: z".into()])),
                    ],
                },
                Model { line: 9, settings: vec![setting(9, "hub-model-id", of("null"))] },
            ],
        };
        assert_eq!(ModelsFile::read(text), Ok(expected));
    }

    #[test]
    fn models_file_errors_have_line_numbers() {
        for (text, line, problem) in [
            ("", 1, "lists no models"),
            ("models:\n", 1, "lists no models"),
            ("- a\n", 1, "must be a mapping"),
            ("models:\n  - a: 1\nmodel:\n  - b\n", 3, "did you mean models?"),
            ("models:\n  hub-model-id: x\n", 2, "`models` must be a list"),
            ("models:\n  - x\n", 2, "`models` must be a list"),
            ("defaults: 3\n", 1, "`defaults` must contain options"),
            ("models:\n  - a: 1\n    a: 2\n", 3, "`a` is set twice"),
            ("models:\n  - a: {b: c}\n", 2, "one value or a list"),
            ("models:\n  - a: [[b]]\n", 2, "one value or a list"),
            ("models:\n  - a: &x 1\n  - a: *x\n", 3, "aliases"),
            ("models:\n  - a: !env B\n", 2, "tags"),
            ("models:\n  - a: 1\n---\nmodels: []\n", 3, "more than one document"),
            ("models:\n  - a: 'b\n", 2, ""),
            ("models:\n\t- a: b\n", 2, ""),
        ] {
            let wrong = ModelsFile::read(text).expect_err(text);
            assert!(wrong.problem.contains(problem), "{text:?}: {wrong}");
            assert_eq!(wrong.line, line, "{text:?}: {wrong}");
        }
    }

    #[test]
    fn arbitrary_models_file_does_not_panic() {
        let text = "defaults: {a: b, c: [d]}\nmodels:\n  - {a: 'x', b: \"y\"}\n  - ? e\n    : |\n      f\n";
        for end in 0..text.len() {
            let _ = ModelsFile::read(&text[..end]);
            let _ = ModelsFile::read(&text[end..]);
        }
    }
}
