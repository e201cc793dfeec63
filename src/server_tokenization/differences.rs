//! What a text contains that Elasticsearch tokenizes differently from Transformers.

use std::fmt;

use icu_normalizer::DecomposingNormalizer;

use super::{Kind, Tokenizer, java};

/// Something in a text that Elasticsearch tokenizes differently from Transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A no-break space, which Elasticsearch does not treat as white space (`bert`, `mpnet`).
    NoBreakSpace(char),
    /// A character beyond U+FFFF, which Elasticsearch removes (`bert`, `mpnet`).
    BeyondBasicPlane(char),
    /// A special token, which Elasticsearch splits, or prefixes with `▁`.
    SpecialToken(String),
    /// U+FFFD, which Transformers removes (`bert`, `mpnet`).
    ReplacementCharacter,
    /// A symbol that loses a mark with its accents, such as ≠, which Elasticsearch then leaves in its word (lower-casing `bert`, `mpnet`).
    SymbolWithMark(char),
    /// A run of white space, which Elasticsearch does not divide as Transformers does (`roberta`, `byte_level_bpe`).
    WhiteSpaceRun,
    /// An apostrophe before a symbol, which Elasticsearch separates from the symbol (`roberta`, `byte_level_bpe`).
    Apostrophe,
    /// A `▁` at the end of a word, which Elasticsearch removes (`xlm_roberta`, `deberta_v2`).
    FinalPrefix,
    /// More than 512 characters without white space, which Elasticsearch divides (`bert`, `mpnet`).
    LongRun,
    /// A text without tokens. Elasticsearch throws an exception, or keeps a separator that Transformers drops.
    EmptyText,
    /// A text that Elasticsearch segments with its own Japanese analyser (`bert_ja`).
    JapaneseAnalyser,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBreakSpace(c) => write!(f, "no-break spaces (U+{:04X})", u32::from(*c)),
            Self::BeyondBasicPlane(c) => write!(f, "characters beyond U+FFFF ({c})"),
            Self::SpecialToken(token) => write!(f, "special tokens ({token})"),
            Self::ReplacementCharacter => f.write_str("the replacement character (U+FFFD)"),
            Self::SymbolWithMark(c) => write!(f, "symbols with a combining mark ({c})"),
            Self::WhiteSpaceRun => f.write_str("runs of white space"),
            Self::Apostrophe => f.write_str("an apostrophe before a symbol"),
            Self::FinalPrefix => f.write_str("▁ at the end of a word"),
            Self::LongRun => f.write_str("more than 512 characters without white space"),
            Self::EmptyText => f.write_str("a text without tokens"),
            Self::JapaneseAnalyser => f.write_str("words of the Japanese analyser"),
        }
    }
}

impl Tokenizer {
    /// What a text or a pair contains that Elasticsearch tokenizes differently from Transformers. The list may contain differences that have
    /// no effect in the context of this text.
    #[must_use]
    pub fn differences(&self, first: &str, second: Option<&str>) -> Vec<Difference> {
        let mut found = Vec::new();
        let texts = [Some(first), second];
        for text in texts.iter().flatten() {
            for difference in self.differences_in(text) {
                if !found.contains(&difference) {
                    found.push(difference);
                }
            }
        }
        let is_empty = |text: &&str| !self.tokens(text).is_ok_and(|tokens| !tokens.is_empty());
        if self.settings.kind == Kind::BertJa {
            found.push(Difference::JapaneseAnalyser);
        } else if texts.iter().flatten().any(is_empty) {
            found.push(Difference::EmptyText);
        }
        found
    }

    fn differences_in(&self, text: &str) -> Vec<Difference> {
        let mut found = Vec::new();
        let special = self.special_token_in(text).map(Difference::SpecialToken);
        match self.settings.kind {
            Kind::Bert | Kind::Mpnet => {
                let is_no_break = |c: &char| matches!(c, '\u{A0}' | '\u{2007}' | '\u{202F}');
                found.extend(text.chars().find(is_no_break).map(Difference::NoBreakSpace));
                let beyond = text.chars().find(|c| !java::is_one_unit(*c));
                found.extend(beyond.map(Difference::BeyondBasicPlane));
                found.extend(special);
                if text.contains('\u{FFFD}') {
                    found.push(Difference::ReplacementCharacter);
                }
                if self.settings.do_lower_case {
                    let decomposing = DecomposingNormalizer::new_nfd();
                    let loses_mark = |c: &char| {
                        let mut parts = decomposing.normalize_iter(std::iter::once(*c));
                        parts.next().is_some_and(|base| base != *c && base.is_ascii_punctuation())
                    };
                    found.extend(text.chars().find(loses_mark).map(Difference::SymbolWithMark));
                }
                if text.split(char::is_whitespace).any(|run| run.chars().count() > 512) {
                    found.push(Difference::LongRun);
                }
            }
            Kind::Roberta { .. } | Kind::ByteLevelBpe { .. } => {
                let characters: Vec<char> = text.chars().collect();
                let any = |is: fn(char, char) -> bool| {
                    characters.windows(2).any(|pair| is(pair[0], pair[1]))
                };
                if any(|a, b| a.is_whitespace() && b.is_whitespace()) {
                    found.push(Difference::WhiteSpaceRun);
                }
                if any(|a, b| a == '\'' && !b.is_alphanumeric() && !b.is_whitespace()) {
                    found.push(Difference::Apostrophe);
                }
                found.extend(special);
            }
            Kind::XlmRoberta | Kind::DebertaV2 => {
                found.extend(special);
                if text.split(char::is_whitespace).any(|word| word.ends_with('▁')) {
                    found.push(Difference::FinalPrefix);
                }
            }
            Kind::BertJa => (),
        }
        found
    }

    /// The first special token that occurs in a text and that Elasticsearch does not treat as Transformers does.
    fn special_token_in(&self, text: &str) -> Option<String> {
        let kind = &self.settings.kind;
        let mask = self.special.mask_text.as_str();
        let mut tokens: Vec<&str> = [self.special.unknown, self.special.pad]
            .into_iter()
            .chain(
                self.settings
                    .with_special_tokens
                    .then_some([self.special.begin, self.special.end])
                    .into_iter()
                    .flatten(),
            )
            .filter_map(|id| self.stored(id as usize))
            .collect();
        let lower = self.settings.do_lower_case.then(|| text.to_lowercase());
        // The mask is found as written. Transformers finds it in capitals, too, where text is lower-cased.
        let occurrences = |text: &str| text.matches(mask).count();
        let in_capitals = |lower: &String| occurrences(lower) > occurrences(text);
        if *kind == Kind::Mpnet && lower.as_ref().is_some_and(in_capitals) {
            tokens.push(mask);
        }
        let occurs = |token: &&str| {
            text.contains(*token)
                || lower.as_ref().is_some_and(|lower| {
                    *kind == Kind::Mpnet && lower.contains(&token.to_lowercase())
                })
        };
        tokens.into_iter().find(occurs).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Settings;
    use super::*;

    fn found(settings: serde_json::Value, first: &str, second: Option<&str>) -> Vec<String> {
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<pad>", "<unk>", "<s>", "</s>", "a"];
        let settings = Settings::from_json(&settings).unwrap();
        let scores = [0.; 9];
        let tokenizer =
            Tokenizer::build(settings, vocabulary.map(str::to_owned).to_vec(), &[], &scores);
        let differences = tokenizer.unwrap().differences(first, second);
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_depend_on_the_tokenizer() {
        let bert = || json!({"bert": {"do_lower_case": true}});
        assert_eq!(
            found(bert(), "a\u{A0}!", Some("😀 [SEP]")),
            ["no-break spaces (U+00A0)", "characters beyond U+FFFF (😀)", "special tokens ([SEP])"]
        );
        assert_eq!(found(bert(), "a ≠ a", None), ["symbols with a combining mark (≠)"]);
        assert_eq!(found(json!({"bert": {}}), "a ≠ é", None), [""; 0]);
        assert_eq!(found(bert(), "a", Some("")), ["a text without tokens"]);
        let roberta = || json!({"roberta": {}});
        assert_eq!(
            found(roberta(), "a\n\na'; </s>", None),
            ["runs of white space", "an apostrophe before a symbol", "special tokens (</s>)"]
        );
        assert_eq!(found(roberta(), "it's\u{A0}😀", None), [""; 0]);
        assert_eq!(found(json!({"deberta_v2": {}}), "a▁ a", None), ["▁ at the end of a word"]);
    }
}
