//! Rows of ids as Elasticsearch passes them to the graph, for texts of this program.

use crate::server_tokenization::{
    NO_SPAN, Row as ServerRow, Settings, Tokenizer as ServerTokenizer, Truncate,
};
use crate::tasks::agreement::Row;
use crate::tasks::{Task, TextForm};
use crate::tokenizer::{Tokenizer, TokenizerError, TokenizerKind};

/// Computes the rows of texts.
#[derive(Debug)]
pub struct ServerRows {
    server: ServerTokenizer,
    is_japanese: bool,
}

impl ServerRows {
    /// Rows of at most `max_sequence_length` tokens.
    ///
    /// # Errors
    /// When the server could not build its tokenizer from the vocabulary.
    pub fn new(tokenizer: &Tokenizer, max_sequence_length: u32) -> Result<Self, TokenizerError> {
        let broken = |reason: String| TokenizerError::Broken { file: "the vocabulary", reason };
        let settings = serde_json::json!({ tokenizer.kind.name(): tokenizer.settings });
        let mut settings =
            Settings::from_json(&settings).map_err(|error| broken(error.to_string()))?;
        settings.max_sequence_length = usize::try_from(max_sequence_length).unwrap_or(usize::MAX);
        let vocabulary = &tokenizer.vocabulary;
        let server = ServerTokenizer::build(
            settings,
            vocabulary.vocabulary.clone(),
            vocabulary.merges.as_deref().unwrap_or_default(),
            vocabulary.scores.as_deref().unwrap_or_default(),
        )
        .map_err(|error| broken(error.to_string()))?;
        Ok(Self { server, is_japanese: tokenizer.kind == TokenizerKind::BertJapanese })
    }

    /// The rows of texts in the form that a task reads. Elasticsearch refuses some pairs; these have no row.
    #[must_use]
    pub fn of_task(&self, task: Task, texts: &[String]) -> Vec<Row> {
        match task.text_form() {
            TextForm::Single => texts.iter().filter_map(|text| self.single(text)).collect(),
            TextForm::Masked => texts.iter().filter_map(|text| self.masked(text)).collect(),
            TextForm::Neighbours => {
                let next = texts.iter().cycle().skip(1);
                let pairs = texts.iter().zip(next);
                pairs.filter_map(|(a, b)| self.pair(a, b, Truncate::Second)).collect()
            }
            TextForm::Hypotheses(topics) => {
                let hypotheses =
                    topics.iter().cycle().map(|topic| format!("This example is {topic}."));
                let pairs = texts.iter().zip(hypotheses);
                pairs.filter_map(|(a, b)| self.pair(a, &b, Truncate::First)).collect()
            }
        }
    }

    /// The row of one text. The end of a long text is cut. None if Elasticsearch refuses the text.
    #[must_use]
    pub fn single(&self, text: &str) -> Option<Row> {
        let rows = if self.is_japanese {
            let tokens = self.server.tokens_of_segments(&words(text));
            self.server.single_rows(&tokens, Truncate::First, NO_SPAN)
        } else if text.is_empty() {
            self.server.single_rows(&[], Truncate::First, NO_SPAN)
        } else {
            self.server.single(text, Truncate::First, NO_SPAN)
        };
        Some(row(rows.ok()?.pop()?))
    }

    /// The row of a text in which one token is the mask: the mask in the text, otherwise the token in the middle.
    #[must_use]
    pub fn masked(&self, text: &str) -> Option<Row> {
        let mut row = self.single(text)?;
        let Some(mask) = self.server.mask().1.map(i64::from) else { return Some(row) };
        let at = match row.ids.iter().position(|id| *id == mask) {
            Some(at) => at,
            None => {
                let middle = row.text.start + row.text.len() / 2;
                match row.ids.get_mut(middle) {
                    Some(id) if !row.text.is_empty() => *id = mask,
                    _ => row.ids.insert(middle.min(row.ids.len()), mask),
                }
                middle
            }
        };
        row.text = at..at + 1;
        Some(row)
    }

    /// The row of two texts. None if Elasticsearch refuses the pair.
    #[must_use]
    pub fn pair(&self, first: &str, second: &str, truncate: Truncate) -> Option<Row> {
        // A pair whose other text is too long is cut in both texts.
        let found = self.server.pair(first, second, truncate);
        let found = found.or_else(|_| self.server.pair(first, second, Truncate::Balanced));
        found.ok().map(row)
    }
}

fn row(row: ServerRow) -> Row {
    Row {
        text: row.offset..row.offset + row.tokens.len(),
        ids: row.ids.into_iter().map(i64::from).collect(),
    }
}

/// Words of a text in place of those of Elasticsearch's Japanese analyser: runs of characters of one kind, and single ideographs.
fn words(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        '\u{3040}'..='\u{309F}' => 1,
        '\u{30A0}'..='\u{30FF}' => 2,
        c if c.is_ascii_alphanumeric() => 3,
        _ => 0,
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| before != kind(c) || before == 0) {
            words.push(&text[start..at]);
            start = at;
        }
        before = Some(kind(c));
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn japanese_words_are_runs_of_one_kind() {
        assert_eq!(words("東京はABC カナ。"), ["東", "京", "は", "ABC", " ", "カナ", "。"]);
        assert_eq!(words(""), [""; 0]);
    }
}
