//! How exactly Elasticsearch follows a model's own tokenizer: both tokenize built-in texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
#[cfg(feature = "torch")]
use serde_json::{Value, json};

use crate::scripts::Scripts;
use crate::server_tokenization::{Token, Tokenizer as ServerTokenizer};
use crate::special_tokens::AppendedTokens;
use crate::tokenizer::ModelTokenizer;

/// Sentences by language. A line `== LANGUAGE SCRIPT` begins the sentences of a language.
const PROSE: &str = include_str!("prose.txt");

/// Beginning of a line that names a language and its script.
const HEADING: &str = "== ";

/// The largest share of different tokens with which a tokenizer counts as exact.
pub const ACCEPTED_SHARE: f64 = 0.001;

/// Numbers of tokens and of texts, and how many of them differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Tokens of the texts.
    pub tokens: usize,
    /// Tokens that only one of the tokenizers returns.
    pub different_tokens: usize,
    /// Texts.
    pub texts: usize,
    /// Texts with different tokens.
    pub different_texts: usize,
}

impl Counts {
    /// The share of different tokens, from 0 to 1.
    #[must_use]
    pub fn token_share(&self) -> f64 {
        share(self.different_tokens, self.tokens)
    }

    /// The share of texts with different tokens, from 0 to 1.
    #[must_use]
    pub fn text_share(&self) -> f64 {
        share(self.different_texts, self.texts)
    }

    fn add(&mut self, server: &[u32], model: &[u32]) {
        let different = different_tokens(server, model);
        self.tokens += server.len().max(model.len());
        self.different_tokens += different;
        self.texts += 1;
        self.different_texts += usize::from(different > 0);
    }
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 0. } else { part as f64 / all as f64 }
}

/// The difference between Elasticsearch's tokens and those of a model's own tokenizer, measured on built-in texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerDifference {
    /// Languages of the model card that the built-in texts have. Empty if the card names none of them.
    pub languages: Vec<&'static str>,
    /// Figures for these languages, or for all.
    pub measured: Counts,
    /// Figures by script, for all languages.
    pub scripts: BTreeMap<&'static str, Counts>,
    /// Scripts whose tokens are left out of the vocabulary, so that their texts are not compared.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<&'static str>,
}

impl TokenizerDifference {
    /// The built-in texts.
    #[must_use]
    pub fn texts() -> Vec<&'static str> {
        PROSE.lines().filter(|line| !line.starts_with(HEADING)).collect()
    }

    /// Tokenizes the built-in texts both ways. `languages` are those of the model card. Texts that the model's own tokenizer cannot read do
    /// not count, nor texts with characters of other scripts than the `kept` ones.
    pub fn measure(
        server: &ServerTokenizer,
        model: &ModelTokenizer,
        appended: Option<AppendedTokens>,
        languages: &[String],
        kept: Option<&Scripts>,
    ) -> Self {
        let ids = |tokens: &[Token]| tokens.iter().map(|token| token.id).collect::<Vec<u32>>();
        let named = |language: &str| languages.iter().any(|name| code(name) == language);
        let mut by_language: Vec<(&str, &str, Counts)> = Vec::new();
        let mut left_out = BTreeSet::new();
        for line in PROSE.lines() {
            if let Some((language, script)) =
                line.strip_prefix(HEADING).and_then(|heading| heading.split_once(' '))
            {
                by_language.push((language, script, Counts::default()));
                continue;
            }
            let Some((_, script, counts)) = by_language.last_mut() else { continue };
            if kept.is_some_and(|scripts| !scripts.contain(line)) {
                left_out.insert(*script);
                continue;
            }
            // A text that Elasticsearch refuses has no tokens.
            let mut served = ids(&server.tokens(line).unwrap_or_default());
            if let Some(appended) = appended {
                served = appended.model_ids(&served);
            }
            // A tokenizer without a token for unknown text fails.
            let Ok(tokens) = model.tokens(line) else { continue };
            counts.add(&served, &ids(&tokens));
        }
        if kept.is_some() {
            by_language.retain(|(.., counts)| counts.texts > 0);
        }
        let mut scripts: BTreeMap<&'static str, Counts> = BTreeMap::new();
        for (_, script, counts) in &by_language {
            sum(scripts.entry(script).or_default(), counts);
        }
        let languages: Vec<_> = by_language
            .iter()
            .map(|(language, ..)| *language)
            .filter(|language| named(language))
            .collect();
        let mut measured = Counts::default();
        let counted =
            by_language.iter().filter(|it| languages.is_empty() || languages.contains(&it.0));
        counted.for_each(|(.., counts)| sum(&mut measured, counts));
        left_out.retain(|script| !scripts.contains_key(script));
        Self { languages, measured, scripts, left_out }
    }

    /// The figures that a model's metadata records: shares from 0 to 1, in the languages of the model card or in all, and by script.
    #[cfg(feature = "torch")]
    pub(super) fn metadata(&self) -> Value {
        let rounded = |share: f64| (share * 1e6).round() / 1e6;
        let shares = |counts: &Counts| {
            json!({
                "different_tokens": rounded(counts.token_share()),
                "different_texts": rounded(counts.text_share()),
            })
        };
        let mut figures = shares(&self.measured);
        let different = self.scripts.iter().filter(|(_, counts)| counts.different_texts > 0);
        figures["languages"] =
            json!(if self.languages.is_empty() { &["all"][..] } else { &self.languages });
        figures["scripts"] =
            different.map(|(script, counts)| ((*script).to_owned(), shares(counts))).collect();
        figures
    }

    /// Whether Elasticsearch returns other tokens for any of the built-in texts.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.scripts.values().any(|counts| counts.different_texts > 0)
    }

    /// Note for the user, if there is a difference.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.is_any().then(|| {
            format!(
                "Elasticsearch tokenizes some of the built-in texts differently from the model's own tokenizer: {self}"
            )
        })
    }

    /// Whether the share of different tokens in the model's languages is too large to be accepted silently.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.measured.token_share() > ACCEPTED_SHARE
    }
}

impl fmt::Display for TokenizerDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { languages, measured, scripts, left_out } = self;
        write!(
            f,
            "{} of the tokens and {} of the texts differ",
            percent(measured.token_share()),
            percent(measured.text_share())
        )?;
        if !languages.is_empty() {
            write!(f, " in {}", languages.join(", "))?;
        }
        let differs = |(_, counts): &(&&str, &Counts)| counts.different_tokens > 0;
        let by_script: Vec<String> = scripts
            .iter()
            .filter(differs)
            .map(|(script, counts)| format!("{script} {}", percent(counts.token_share())))
            .collect();
        if !by_script.is_empty() {
            write!(f, "; tokens by script: {}", by_script.join(", "))?;
        }
        if !left_out.is_empty() {
            let left_out: Vec<_> = left_out.iter().copied().collect();
            write!(
                f,
                "; not compared, because their tokens are left out: {}",
                left_out.join(", ")
            )?;
        }
        Ok(())
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100. * share)
}

fn sum(to: &mut Counts, counts: &Counts) {
    to.tokens += counts.tokens;
    to.different_tokens += counts.different_tokens;
    to.texts += counts.texts;
    to.different_texts += counts.different_texts;
}

/// The language of a tag such as `zh-CN` or `en_US`, in lower case.
fn code(tag: &str) -> String {
    tag.split(['-', '_']).next().unwrap_or_default().to_lowercase()
}

/// Lengths of the common prefix and the common suffix of two rows. Both together are at most as long as the shorter row.
#[must_use]
pub fn common_ends<T: PartialEq>(a: &[T], b: &[T]) -> (usize, usize) {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = a[start..].iter().rev().zip(b[start..].iter().rev());
    (start, rest.take_while(|(a, b)| a == b).count())
}

/// Tokens of the longer row that no longest common subsequence of both rows contains.
fn different_tokens(a: &[u32], b: &[u32]) -> usize {
    let (start, end) = common_ends(a, b);
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    // Lengths of the longest common subsequences of the beginnings.
    let mut lengths = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = if x == y { diagonal + 1 } else { above.max(lengths[at]) };
            diagonal = above;
        }
    }
    a.len().max(b.len()) - lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_has_a_heading_for_each_language_and_many_scripts() {
        let headings: Vec<_> =
            PROSE.lines().filter_map(|line| line.strip_prefix(HEADING)).collect();
        assert!(headings.iter().all(|heading| heading.split(' ').count() == 2));
        assert!(headings.len() >= 25 && PROSE.starts_with("== en Latin\n"));
        assert!(PROSE.lines().all(|line| !line.trim().is_empty() && line.trim() == line));
    }

    #[test]
    fn common_ends_do_not_overlap() {
        assert_eq!(common_ends(&[1, 2, 3], &[1, 2, 3]), (3, 0));
        assert_eq!(common_ends(&[1, 2, 3], &[1, 9, 9, 3]), (1, 1));
        assert_eq!(common_ends(&[1, 1], &[1, 1, 1]), (2, 0));
        assert_eq!(common_ends(&[], &[1]), (0, 0));
    }

    #[test]
    fn tokens_outside_of_the_common_subsequence_differ() {
        for (a, b, different) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], 0),
            (&[1, 2, 3], &[1, 4, 3], 1),
            (&[1, 2, 3], &[1, 2, 5, 6, 3], 2),
            (&[1, 7, 8, 3], &[1, 3], 2),
            (&[], &[1, 2], 2),
            (&[1, 2, 9, 3, 4], &[1, 3, 9, 2, 4], 2),
        ] {
            assert_eq!(different_tokens(a, b), different, "{a:?} {b:?}");
            assert_eq!(different_tokens(b, a), different, "{b:?} {a:?}");
        }
    }

    #[test]
    fn figures_are_shown_by_script() {
        let counts = |tokens, different_tokens, texts, different_texts| Counts {
            tokens,
            different_tokens,
            texts,
            different_texts,
        };
        let difference = TokenizerDifference {
            languages: vec!["en"],
            measured: counts(1000, 2, 50, 1),
            scripts: BTreeMap::from([
                ("Latin", counts(2000, 2, 80, 1)),
                ("Han", counts(9, 0, 1, 0)),
            ]),
            left_out: BTreeSet::new(),
        };
        assert_eq!(
            difference.to_string(),
            "0.2 % of the tokens and 2.0 % of the texts differ in en; tokens by script: Latin 0.1 %"
        );
        assert!(difference.is_any() && difference.is_too_large());
        assert_eq!(code("zh-Hant"), "zh");
    }
}
