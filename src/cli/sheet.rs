//! A report in sections, as text and as a page.

use std::fmt::{Display, Write as _};

/// A title, and sections with lines.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// A heading with the lines below it. The first section of a sheet has no heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug)]
pub(super) enum Line {
    /// A name and its value.
    Value(String, String),
    /// An element of a list.
    Item(String),
    /// A command, JSON or an identifier, with its line breaks.
    Code(String),
}

impl Sheet {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), sections: vec![Section::default()] }
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.sections.push(Section { heading: text.to_owned(), lines: Vec::new() });
    }

    pub(super) fn line(&mut self, name: &str, value: impl Display) {
        self.push(Line::Value(name.to_owned(), value.to_string()));
    }

    pub(super) fn some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    pub(super) fn item(&mut self, text: impl Display) {
        self.push(Line::Item(text.to_string()));
    }

    pub(super) fn code(&mut self, text: &str) {
        self.push(Line::Code(text.to_owned()));
    }

    fn push(&mut self, line: Line) {
        if let Some(section) = self.sections.last_mut() {
            section.lines.push(line);
        }
    }

    /// The text, without a line break at the end.
    pub(super) fn text(&self) -> String {
        let mut text = self.title.clone();
        for Section { heading, lines } in &self.sections {
            if !heading.is_empty() {
                text += &format!("\n\n{heading}");
            }
            for line in lines {
                // Writing to a string cannot fail.
                let _ = match line {
                    Line::Value(name, value) => write!(text, "\n  {name:<15} {value}"),
                    Line::Item(item) => write!(text, "\n  - {item}"),
                    Line::Code(code) => {
                        code.lines().try_for_each(|line| write!(text, "\n  {line}"))
                    }
                };
            }
        }
        text
    }
}
