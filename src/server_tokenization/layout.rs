//! Rows of token ids: special tokens around one text or two, truncation, windows (contract, 3.3 and 3.5).

use super::settings::{NO_SPAN, Truncate};
use super::{Exception, Kind, Token, TokenizationError, Tokenizer};

/// The ids of one text or pair, or of a window of a long one, before padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The ids, special tokens included.
    pub ids: Vec<u32>,
    /// The word that each id belongs to; none for special tokens.
    pub words: Vec<Option<usize>>,
    /// The tokens of the last text in the row: of a single text, or of the second text of a pair.
    pub tokens: Vec<Token>,
    /// The position of these tokens in the row.
    pub offset: usize,
    /// Whether tokens were left out.
    pub is_truncated: bool,
}

impl Tokenizer {
    /// The rows of one text: one row, or windows that share `span` tokens.
    ///
    /// # Errors
    /// When the server throws an exception, for example because the text is too long and `truncate` is [`Truncate::None`].
    pub fn single(
        &self,
        text: &str,
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, TokenizationError> {
        self.single_rows(&self.tokens(text)?, truncate, span)
    }

    /// The rows of the tokens of one text.
    ///
    /// # Errors
    /// As for [`Tokenizer::single`].
    pub fn single_rows(
        &self,
        tokens: &[Token],
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, TokenizationError> {
        let max = self.settings.max_sequence_length;
        let extra = if self.settings.with_special_tokens { 2 } else { 0 };
        let length = tokens.len() + extra;
        if length <= max {
            return Ok(vec![self.single_row(tokens, false)]);
        }
        let room = max.checked_sub(extra).ok_or_else(|| negative_length(max, extra));
        match (truncate, usize::try_from(span)) {
            (Truncate::None, Err(_)) => Err(too_long(length, max)),
            (Truncate::None, Ok(span)) => {
                let windows = windows(tokens, room?, span, false)?;
                Ok(windows.into_iter().map(|window| self.single_row(window, false)).collect())
            }
            _ => Ok(vec![self.single_row(&tokens[..room?], true)]),
        }
    }

    /// The row of a pair of texts, without windows.
    ///
    /// # Errors
    /// When the server throws an exception, for example because the first text has no tokens.
    pub fn pair(
        &self,
        first: &str,
        second: &str,
        truncate: Truncate,
    ) -> Result<Row, TokenizationError> {
        self.pair_of_tokens(&self.tokens(first)?, &self.tokens(second)?, truncate)
    }

    /// The row of the tokens of a pair of texts, without windows.
    ///
    /// # Errors
    /// As for [`Tokenizer::pair`].
    pub fn pair_of_tokens(
        &self,
        first: &[Token],
        second: &[Token],
        truncate: Truncate,
    ) -> Result<Row, TokenizationError> {
        self.check_special_tokens()?;
        self.truncated_pair(first, second, truncate)
    }

    /// The rows of a pair of texts: one row, or windows over the second text that share `span` tokens.
    ///
    /// # Errors
    /// When the server throws an exception, for example because `span` is too large for windows beside the first text.
    pub fn pair_windows(
        &self,
        first: &str,
        second: &str,
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, TokenizationError> {
        self.check_special_tokens()?;
        self.pair_windows_of_tokens(&self.tokens(first)?, &self.tokens(second)?, truncate, span)
    }

    /// The rows of the tokens of a pair of texts.
    ///
    /// # Errors
    /// As for [`Tokenizer::pair_windows`].
    pub fn pair_windows_of_tokens(
        &self,
        first: &[Token],
        second: &[Token],
        truncate: Truncate,
        span: i32,
    ) -> Result<Vec<Row>, TokenizationError> {
        self.check_special_tokens()?;
        let (max, extra) = (self.settings.max_sequence_length, self.extra_pair());
        let length = first.len() + second.len() + extra;
        if length < max || (length > max && span <= NO_SPAN) {
            return Ok(vec![self.truncated_pair(first, second, truncate)?]);
        }
        let taken = first.len() + extra;
        let Some(room) = max.checked_sub(taken).filter(|room| *room > 0) else {
            return Err(Exception::IllegalArgument.error(format!(
                "Unable to do sequence pair tokenization: the first sequence [{taken} tokens] is longer than the max sequence length [{max} tokens]"
            )));
        };
        // A row of exactly the maximum length is a single window, even without a span.
        let Ok(span) = usize::try_from(span) else {
            return Ok(vec![self.pair_row(first, second, false)?]);
        };
        if span > room {
            return Err(Exception::IllegalArgument.error(format!(
                "Unable to do sequence pair tokenization: the combined first sequence, span length and delimiting tokens [{} + {span} + {extra} = {} tokens] is longer than the max sequence length [{max} tokens]. Reduce the size of the [span] window.",
                first.len(),
                taken + span
            )));
        }
        let windows = windows(second, room, span, true)?;
        windows.into_iter().map(|window| self.pair_row(first, window, false)).collect()
    }

    fn check_special_tokens(&self) -> Result<(), TokenizationError> {
        if self.settings.with_special_tokens {
            return Ok(());
        }
        Err(Exception::IllegalArgument
            .error("Unable to do sequence pair tokenization without special tokens"))
    }

    fn extra_pair(&self) -> usize {
        2 + self.special.separators
    }

    /// The row of a pair, truncated if too long.
    fn truncated_pair(
        &self,
        first: &[Token],
        second: &[Token],
        truncate: Truncate,
    ) -> Result<Row, TokenizationError> {
        let (max, extra) = (self.settings.max_sequence_length, self.extra_pair());
        let length = first.len() + second.len() + extra;
        if length <= max {
            return self.pair_row(first, second, false);
        }
        let exceeds = |which: &str, length: usize| {
            Exception::BadRequest.error(format!(
                "Attempting truncation [{truncate}] but input is too large for the {which} sequence. The tokenized input length [{length}] exceeds the maximum sequence length [{}], when taking special tokens into account",
                signed_difference(max, extra)
            ))
        };
        let room = max.checked_sub(extra);
        let (keep_first, keep_second) = match truncate {
            Truncate::None => return Err(too_long(length, max)),
            Truncate::First => {
                let kept = room.and_then(|room| room.checked_sub(second.len()));
                (kept.ok_or_else(|| exceeds("second", second.len()))?, second.len())
            }
            Truncate::Second => {
                let kept = room.and_then(|room| room.checked_sub(first.len()));
                (first.len(), kept.ok_or_else(|| exceeds("first", first.len()))?)
            }
            Truncate::Balanced => {
                let room = room.ok_or_else(|| negative_length(max, extra))?;
                let limit = if second.len() > room / 2 { room / 2 } else { room - second.len() };
                let keep_first = first.len().min(limit);
                (keep_first, second.len().min(room - keep_first))
            }
        };
        self.pair_row(&first[..keep_first], &second[..keep_second], true)
    }

    fn single_row(&self, tokens: &[Token], is_truncated: bool) -> Row {
        let mut row = Row::new(tokens, is_truncated);
        if self.settings.with_special_tokens {
            row.push_special(self.special.begin, 1);
        }
        row.push(tokens);
        if self.settings.with_special_tokens {
            row.push_special(self.special.end, 1);
        }
        row
    }

    /// The row of two texts. The server needs the last word of the first text.
    fn pair_row(
        &self,
        first: &[Token],
        second: &[Token],
        is_truncated: bool,
    ) -> Result<Row, TokenizationError> {
        let is_deberta = self.settings.kind == Kind::DebertaV2;
        if is_deberta && (first.is_empty() || second.is_empty()) {
            let message = "Both sequences must have at least one token";
            return Err(Exception::IllegalArgument.error(message));
        }
        if first.is_empty() {
            return Err(Exception::IndexOutOfBounds.index(-1, 0));
        }
        let mut row = Row::new(second, is_truncated);
        row.push_special(self.special.begin, 1);
        row.push(first);
        row.push_special(self.special.end, self.special.separators);
        row.push(second);
        row.push_special(self.special.end, 1);
        Ok(row)
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

fn too_long(length: usize, max: usize) -> TokenizationError {
    Exception::BadRequest.error(format!(
        "Input too large. The tokenized input length [{length}] exceeds the maximum sequence length [{max}]"
    ))
}

/// The error of Java's `subList` for a negative length.
fn negative_length(max: usize, extra: usize) -> TokenizationError {
    let end = signed_difference(max, extra);
    Exception::IllegalArgument.error(format!("fromIndex(0) > toIndex({end})"))
}

fn signed_difference(a: usize, b: usize) -> i128 {
    a as i128 - b as i128
}

/// Cuts tokens into windows of at most `room` tokens that share `span` tokens with the window before, without cutting words where
/// possible. With `check_last`, the server also demands progress after the last window.
fn windows(
    tokens: &[Token],
    room: usize,
    span: usize,
    check_last: bool,
) -> Result<Vec<&[Token]>, TokenizationError> {
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
        let before = start;
        start = end.saturating_sub(span);
        if start <= before && (check_last || end < tokens.len()) {
            return Err(Exception::IllegalState.error(
                "Tokenization cannot be satisfied with the current span setting. Consider decreasing the span setting",
            ));
        }
        while start < tokens.len() && start > before + 1 && same_word(start) {
            start -= 1;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Settings;
    use super::*;

    /// A tokenizer whose single letters have the ids from 10; `abc` has two pieces.
    fn tokenizer_of(kind: &str, max: usize, special: bool) -> Tokenizer {
        let mut vocabulary: Vec<String> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "##c", "<pad>", "<s>", "</s>"]
                .map(str::to_owned)
                .to_vec();
        vocabulary.push("[unused]".into());
        vocabulary.extend(('a'..='z').map(String::from));
        let settings = json!({kind: {"max_sequence_length": max, "with_special_tokens": special}});
        let settings = Settings::from_json(&settings).unwrap();
        Tokenizer::build(settings, vocabulary, &[], &[]).unwrap()
    }

    fn tokenizer(max: usize, special: bool) -> Tokenizer {
        tokenizer_of("bert", max, special)
    }

    fn ids(rows: &[Row]) -> Vec<Vec<u32>> {
        rows.iter().map(|row| row.ids.clone()).collect()
    }

    fn message<T: std::fmt::Debug>(result: Result<T, TokenizationError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn single_text_is_framed_and_truncated() {
        let rows = tokenizer(5, true).single("a b c", Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 11, 12, 3]]);
        assert!(!rows[0].is_truncated);
        for truncate in [Truncate::First, Truncate::Second, Truncate::Balanced] {
            let rows = tokenizer(4, true).single("a b c", truncate, NO_SPAN).unwrap();
            assert_eq!(ids(&rows), [[2, 10, 11, 3]]);
            assert!(rows[0].is_truncated);
        }
        assert_eq!(
            message(tokenizer(4, true).single("a b c", Truncate::None, NO_SPAN)),
            "Input too large. The tokenized input length [5] exceeds the maximum sequence length [4]"
        );
        let rows = tokenizer(2, true).single("a", Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[2, 3]]);
        assert!(
            message(tokenizer(1, true).single("a", Truncate::First, NO_SPAN))
                .contains("toIndex(-1)")
        );
    }

    // Contract, 3.1: with_special_tokens.
    #[test]
    fn without_special_tokens_only_single_texts_are_accepted() {
        let rows = tokenizer(2, false).single("a b c", Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[10, 11]]);
        assert_eq!(
            message(tokenizer(9, false).pair("a", "b", Truncate::First)),
            "Unable to do sequence pair tokenization without special tokens"
        );
    }

    // Contract, 3.1: span.
    #[test]
    fn windows_overlap_and_keep_words_whole() {
        let rows = tokenizer(5, true).single("a b c d e", Truncate::None, 1).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 11, 12, 3], [2, 12, 13, 14, 3]]);
        let rows = tokenizer(5, true).single("a b abc d", Truncate::None, 0).unwrap();
        assert_eq!(ids(&rows), [vec![2, 10, 11, 3], vec![2, 4, 5, 13, 3]]);
        // A window begins with a whole word, although that shares more tokens than the span.
        let rows = tokenizer(5, true).single("a abc b c", Truncate::None, 1).unwrap();
        assert_eq!(ids(&rows), [vec![2, 10, 4, 5, 3], vec![2, 4, 5, 11, 3], vec![2, 11, 12, 3]]);
        assert!(message(tokenizer(4, true).single("a b c", Truncate::None, 2)).contains("span"));
    }

    // Contract, 3.3 and 3.5.
    #[test]
    fn pair_is_framed_and_truncated() {
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
        let short_second = pair(8, "a b c d e", "f", Truncate::Balanced).unwrap();
        assert_eq!(short_second.ids, [2, 10, 11, 12, 13, 3, 15, 3]);
        let short_first = pair(8, "a", "b c d e f", Truncate::Balanced).unwrap();
        assert_eq!(short_first.ids, [2, 10, 3, 11, 12, 13, 14, 3]);
        let refused = message(pair(5, "a", "b c d", Truncate::First));
        assert!(refused.contains("too large for the second sequence. The tokenized input length [3] exceeds the maximum sequence length [2]"), "{refused}");
        let refused = message(pair(5, "a b c", "d", Truncate::Second));
        assert!(
            refused.contains(
                "Attempting truncation [second] but input is too large for the first sequence"
            ),
            "{refused}"
        );
        assert!(message(pair(6, "a b", "c d", Truncate::None)).contains("length [7] exceeds"));
    }

    #[test]
    fn mpnet_pair_has_two_separators() {
        let row = tokenizer_of("mpnet", 9, true).pair("a", "b", Truncate::First).unwrap();
        assert_eq!(row.ids, [7, 10, 8, 8, 11, 8]);
    }

    // Measured for bert and deberta_v2 in tests/fixtures/server-tokens, kinds pairempty and pairspace.
    #[test]
    fn pair_without_tokens_in_the_first_text_is_an_error() {
        let pair = |max, first, second| tokenizer(max, true).pair(first, second, Truncate::First);
        assert_eq!(message(pair(9, "", "a")), "Index -1 out of bounds for length 0");
        assert_eq!(pair(9, "a", "").unwrap().ids, [2, 10, 3, 3]);
        // The second text leaves no room for the first.
        assert_eq!(message(pair(5, "a", "b c")), "Index -1 out of bounds for length 0");
    }

    #[test]
    fn windows_of_a_pair_repeat_the_first_text() {
        let windows = |max, first, second, span| {
            tokenizer(max, true).pair_windows(first, second, Truncate::None, span)
        };
        let rows = windows(7, "a", "b c d e f", 1).unwrap();
        assert_eq!(ids(&rows), [[2, 10, 3, 11, 12, 13, 3], [2, 10, 3, 13, 14, 15, 3]]);
        assert!(message(windows(6, "a", "b c d", 3)).contains("[1 + 3 + 3 = 7 tokens]"));
        assert!(message(windows(4, "a", "b c", 0)).contains("the first sequence [4 tokens]"));
        // A row of exactly the maximum length counts as a window, so that the span must leave room to proceed.
        assert_eq!(ids(&windows(6, "a", "b c", 1).unwrap()), [[2, 10, 3, 11, 12, 3]]);
        assert!(message(windows(6, "a", "b c", 2)).contains("current span setting"));
        assert_eq!(ids(&windows(6, "a", "b c", NO_SPAN).unwrap()), [[2, 10, 3, 11, 12, 3]]);
        assert!(message(windows(6, "a", "b c d", NO_SPAN)).starts_with("Input too large"));
    }

    // Contract, 3.2.
    #[test]
    fn missing_special_token_is_a_conflict() {
        let build = |tokens: &[&str]| {
            let vocabulary: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
            let settings = Settings::from_json(&json!({"bert": {}})).unwrap();
            Tokenizer::build(settings, vocabulary, &[], &[]).err().map(|error| error.to_string())
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

    // real-server.md, item 5: each blank is a segment, which needs an entry of its own in the vocabulary.
    #[test]
    fn japanese_segments_are_not_split_at_characters() {
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "東京", "都", "##都", " "];
        let vocabulary = vocabulary.map(str::to_owned).to_vec();
        let settings = Settings::from_json(&json!({"bert_ja": {}})).unwrap();
        let tokenizer = Tokenizer::build(settings, vocabulary, &[], &[]).unwrap();
        assert_eq!(tokenizer.tokens("東京都"), Err(TokenizationError::NoJapaneseAnalyser));
        let tokens = tokenizer.tokens_of_segments(&["東京", "都", " ", "\n", "東京都"]);
        assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [4, 5, 7, 1, 4, 6]);
        let rows = tokenizer.single_rows(&tokens[..2], Truncate::First, NO_SPAN).unwrap();
        assert_eq!(ids(&rows), [[2, 4, 5, 3]]);
    }
}
