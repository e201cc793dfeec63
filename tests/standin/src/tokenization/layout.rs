//! Rows of token ids: special tokens around one text or two, truncation, windows (contract, 3.3 and 3.5).

use super::{Token, Tokenizer};
use crate::configuration::tokenization::{NO_SPAN, Truncate};
use crate::errors::ApiError;

/// One row that the graph is fed, before padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    /// The word of the text that each id belongs to; none for special tokens.
    pub(crate) words: Vec<Option<usize>>,
    /// The tokens of the last text in this row: of the only text, or of a pair's second.
    pub(crate) tokens: Vec<Token>,
    /// Where those tokens begin in the row.
    pub(crate) offset: usize,
    pub(crate) is_truncated: bool,
}

impl Tokenizer {
    fn extra_single(&self) -> usize {
        if self.with_special_tokens { 2 } else { 0 }
    }

    fn extra_pair(&self) -> usize {
        2 + self.special.separators
    }

    /// The rows of one text: one, or windows that overlap by `span` tokens.
    pub(crate) fn single(
        &self,
        text: &str,
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, ApiError> {
        let tokens = self.tokens(text);
        let max = self.max_sequence_length;
        let length = tokens.len() + self.extra_single();
        if length <= max {
            return Ok(vec![self.single_row(&tokens, false)]);
        }
        let room = max.saturating_sub(self.extra_single());
        match (truncate, usize::try_from(span)) {
            (Truncate::None, Err(_)) => Err(too_large(length, max)),
            (Truncate::None, Ok(span)) => {
                let windows = windows(&tokens, room, span)?;
                Ok(windows.into_iter().map(|window| self.single_row(window, false)).collect())
            }
            _ => Ok(vec![self.single_row(&tokens[..room], true)]),
        }
    }

    /// The row of a pair.
    pub(crate) fn pair(
        &self,
        first: &str,
        second: &str,
        truncate: Truncate,
    ) -> Result<Row, ApiError> {
        let mut rows = self.pair_windows(first, second, truncate, NO_SPAN)?;
        rows.pop().ok_or_else(|| ApiError::server("no tokenization"))
    }

    /// The rows of a pair: one, or windows over the second text.
    pub(crate) fn pair_windows(
        &self,
        first: &str,
        second: &str,
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, ApiError> {
        if !self.with_special_tokens {
            return Err(ApiError::illegal_argument(
                "Unable to do sequence pair tokenization without special tokens",
            ));
        }
        let (first, second) = (self.tokens(first), self.tokens(second));
        let (max, extra) = (self.max_sequence_length, self.extra_pair());
        let length = first.len() + second.len() + extra;
        if length <= max {
            return Ok(vec![self.pair_row(&first, &second, false)]);
        }
        if let Ok(span) = usize::try_from(span) {
            let windows = pair_windows(&first, &second, max, extra, span)?;
            return Ok(windows
                .into_iter()
                .map(|window| self.pair_row(&first, window, false))
                .collect());
        }
        let room = max.saturating_sub(extra);
        let exceeds = |which: &str, length: usize| {
            ApiError::bad_request(format!(
                "Attempting truncation [{truncate}] but input is too large for the {which} sequence. The tokenized input length [{length}] exceeds the maximum sequence length [{room}], when taking special tokens into account"
            ))
        };
        let (keep_first, keep_second) = match truncate {
            Truncate::None => return Err(too_large(length, max)),
            Truncate::First if second.len() > room => {
                return Err(exceeds("second", second.len()));
            }
            Truncate::Second if first.len() > room => return Err(exceeds("first", first.len())),
            Truncate::First => (room - second.len(), second.len()),
            Truncate::Second => (first.len(), room - first.len()),
            Truncate::Balanced => {
                let limit = if second.len() > room / 2 { room / 2 } else { room - second.len() };
                let keep_first = first.len().min(limit);
                (keep_first, second.len().min(room - keep_first))
            }
        };
        Ok(vec![self.pair_row(&first[..keep_first], &second[..keep_second], true)])
    }

    fn single_row(&self, tokens: &[Token], is_truncated: bool) -> Row {
        let mut row = Row::new(tokens, is_truncated);
        if self.with_special_tokens {
            row.push_special(self.special.begin, 1);
        }
        row.push(tokens);
        if self.with_special_tokens {
            row.push_special(self.special.end, 1);
        }
        row
    }

    fn pair_row(&self, first: &[Token], second: &[Token], is_truncated: bool) -> Row {
        let mut row = Row::new(second, is_truncated);
        row.push_special(self.special.begin, 1);
        row.push(first);
        row.push_special(self.special.end, self.special.separators);
        row.push(second);
        row.push_special(self.special.end, 1);
        row
    }
}

impl Row {
    fn new(tokens: &[Token], is_truncated: bool) -> Self {
        Self {
            ids: Vec::new(),
            words: Vec::new(),
            tokens: tokens.to_vec(),
            offset: 0,
            is_truncated,
        }
    }

    fn push_special(&mut self, id: u32, times: usize) {
        self.ids.extend(std::iter::repeat_n(id, times));
        self.words.extend(std::iter::repeat_n(None, times));
    }

    fn push(&mut self, tokens: &[Token]) {
        self.offset = self.ids.len();
        self.ids.extend(tokens.iter().map(|token| token.id));
        self.words.extend(tokens.iter().map(|token| Some(token.word)));
    }
}

fn too_large(length: usize, max: usize) -> ApiError {
    ApiError::bad_request(format!(
        "Input too large. The tokenized input length [{length}] exceeds the maximum sequence length [{max}]"
    ))
}

/// Cuts tokens into windows of at most `room`, each sharing `span` tokens with the one before, without cutting words where possible.
fn windows(tokens: &[Token], room: usize, span: usize) -> Result<Vec<&[Token]>, ApiError> {
    let same_word = |at: usize| tokens[at].word == tokens[at - 1].word;
    let mut found = Vec::new();
    let (mut start, mut end) = (0, 0);
    while end < tokens.len() {
        end = (start + room).min(tokens.len());
        if end != tokens.len() {
            while end > start + 1 && same_word(end) {
                end -= 1;
            }
        }
        found.push(&tokens[start..end]);
        if end == tokens.len() {
            break;
        }
        let before = start;
        start = end.saturating_sub(span);
        if start <= before {
            return Err(ApiError::illegal_state(
                "Tokenization cannot be satisfied with the current span setting. Consider decreasing the span setting",
            ));
        }
        while start > before + 1 && same_word(start) {
            start -= 1;
        }
    }
    Ok(found)
}

/// The windows over a pair's second text, each beside the whole first one.
fn pair_windows<'a>(
    first: &[Token],
    second: &'a [Token],
    max: usize,
    extra: usize,
    span: usize,
) -> Result<Vec<&'a [Token]>, ApiError> {
    let taken = first.len() + extra;
    let Some(room) = max.checked_sub(taken).filter(|room| *room > 0) else {
        return Err(ApiError::illegal_argument(format!(
            "Unable to do sequence pair tokenization: the first sequence [{taken} tokens] is longer than the max sequence length [{max} tokens]"
        )));
    };
    if span > room {
        return Err(ApiError::illegal_argument(format!(
            "Unable to do sequence pair tokenization: the combined first sequence, span length and delimiting tokens [{} + {span} + {extra} = {} tokens] is longer than the max sequence length [{max} tokens]. Reduce the size of the [span] window.",
            first.len(),
            taken + span
        )));
    }
    windows(second, room, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::tokenization::Tokenization;
    use crate::version::Version;
    use crate::vocabulary::Vocabulary;

    /// Single letters are tokens of their own from 10 on; `ab##c` has two pieces.
    fn tokenizer(max: usize, special: bool) -> Tokenizer {
        let mut vocabulary: Vec<String> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "##c"].map(str::to_owned).to_vec();
        vocabulary.extend((6..10).map(|i| format!("[unused{i}]")));
        vocabulary.extend(('a'..='z').map(String::from));
        let settings = serde_json::json!({"bert": {"max_sequence_length": max, "with_special_tokens": special}});
        let settings = Tokenization::parse(settings, Version::default()).unwrap();
        Tokenizer::build(&settings, Vocabulary { vocabulary, ..Vocabulary::default() }).unwrap()
    }

    fn ids(rows: &[Row]) -> Vec<Vec<u32>> {
        rows.iter().map(|row| row.ids.clone()).collect()
    }

    #[test]
    fn one_text_is_framed_and_truncated() {
        let rows = tokenizer(5, true).single("a b c", Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 11, 12, 3]]);
        assert!(!rows[0].is_truncated);
        let rows = tokenizer(4, true).single("a b c", Truncate::Second, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 11, 3]]);
        assert!(rows[0].is_truncated);
        let rows = tokenizer(2, false).single("a b c", Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[10, 11]]);
        let refused = tokenizer(4, true).single("a b c", Truncate::None, NO_SPAN).unwrap_err();
        assert_eq!(
            refused.everything(),
            "Input too large. The tokenized input length [5] exceeds the maximum sequence length [4]"
        );
    }

    #[test]
    fn windows_overlap_and_keep_words_whole() {
        let rows = tokenizer(5, true).single("a b c d e", Truncate::None, 1).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 11, 12, 3], [2, 12, 13, 14, 3]]);
        let rows = tokenizer(5, true).single("a b abc d", Truncate::None, 0).unwrap();
        assert_eq!(ids(&rows), [vec![2, 10, 11, 3], vec![2, 4, 5, 13, 3]]);
    }

    #[test]
    fn a_pair_is_framed_and_truncated() {
        let pair =
            |max, first, second, truncate| tokenizer(max, true).pair(first, second, truncate);
        let row = pair(7, "a b", "c d", Truncate::First).unwrap();
        assert_eq!(row.ids, [2, 10, 11, 3, 12, 13, 3]);
        assert_eq!((row.offset, row.tokens.len(), row.is_truncated), (4, 2, false));
        assert_eq!(pair(6, "a b", "c d", Truncate::First).unwrap().ids, [2, 10, 3, 12, 13, 3]);
        assert_eq!(pair(6, "a b", "c d", Truncate::Second).unwrap().ids, [2, 10, 11, 3, 12, 3]);
        let balanced = pair(7, "a b c d", "e f g", Truncate::Balanced).unwrap();
        assert_eq!(balanced.ids, [2, 10, 11, 3, 14, 15, 3]);
        assert!(balanced.is_truncated);
        let refused = pair(5, "a", "b c d", Truncate::First).unwrap_err().everything();
        assert!(refused.contains("too large for the second sequence. The tokenized input length [3] exceeds the maximum sequence length [2]"), "{refused}");
        assert!(pair(6, "a b", "c d", Truncate::None).is_err());
        assert!(tokenizer(9, false).pair("a", "b", Truncate::First).is_err());
    }

    #[test]
    fn windows_of_a_pair_repeat_the_first_text() {
        let rows = tokenizer(7, true).pair_windows("a", "b c d e f", Truncate::None, 1).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 3, 11, 12, 13, 3], [2, 10, 3, 13, 14, 15, 3]]);
        let wide = tokenizer(6, true).pair_windows("a", "b c d", Truncate::None, 3).unwrap_err();
        assert!(wide.everything().contains("[1 + 3 + 3 = 7 tokens]"));
        assert!(tokenizer(4, true).pair_windows("a", "b c", Truncate::None, 0).is_err());
    }

    #[test]
    fn a_missing_special_token_is_a_conflict() {
        let settings = Tokenization::default();
        let build = |tokens: &[&str]| {
            let vocabulary = tokens.iter().map(|token| (*token).to_owned()).collect();
            Tokenizer::build(&settings, Vocabulary { vocabulary, ..Vocabulary::default() })
                .err()
                .map(|error| error.everything())
        };
        assert_eq!(
            build(&["[PAD]"]).unwrap(),
            "stored vocabulary is missing required [[UNK]] token"
        );
        assert_eq!(
            build(&["[PAD]", "[UNK]", "[CLS]"]).unwrap(),
            "stored vocabulary is missing required [[SEP]] token(s)"
        );
        assert_eq!(build(&["[PAD]", "[UNK]", "[CLS]", "[SEP]"]), None);
    }
}
