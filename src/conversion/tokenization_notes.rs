//! Texts that Elasticsearch tokenizes differently from the model's own tokenizer: one note for each kind of difference, with an example, and
//! the share of the built-in texts that differ.

use super::{ConversionError, TokenizerDifference};
use crate::server_tokenization::{NO_SPAN, Settings, Tokenizer as ServerTokenizer, Truncate};
use crate::source::ModelFiles;
use crate::tokenizer::{ModelTokenizer, Tokenizer, TokenizerKind};

/// Maximum input length for the examples. It is longer than every example.
const MAX_LENGTH: usize = 512;

/// Example word for vocabularies without a plain word.
const WORD: &str = "word";

/// A kind of difference.
struct Probe {
    /// What Elasticsearch does.
    what: &'static str,
    first: String,
    /// The second text of a pair.
    second: Option<String>,
}

/// How Elasticsearch's tokenizer differs from the model's own.
#[derive(Default)]
pub(super) struct Comparison {
    /// Notes on the texts that the server tokenizes differently.
    pub(super) notes: Vec<String>,
    /// The difference on the built-in texts. `None` without `tokenizer.json`, and for Japanese, which Elasticsearch's analyser segments.
    pub(super) difference: Option<TokenizerDifference>,
}

/// Compares both tokenizers. `folder` holds the model's own tokenizer, and `languages` are those of the model card.
///
/// # Errors
/// When `tokenizer.json` cannot be read.
pub(super) fn compare(
    folder: &ModelFiles,
    tokenizer: &Tokenizer,
    reads_pairs: bool,
    languages: &[String],
) -> Result<Comparison, ConversionError> {
    let settings = serde_json::json!({ tokenizer.kind.name(): tokenizer.settings });
    let vocabulary = &tokenizer.vocabulary;
    let merges = vocabulary.merges.as_deref().unwrap_or_default();
    let scores = vocabulary.scores.as_deref().unwrap_or_default();
    let tokens = vocabulary.vocabulary.clone();
    let server = Settings::from_json(&settings)
        .ok()
        .and_then(|settings| ServerTokenizer::build(settings, tokens, merges, scores).ok());
    // Errors of the server's tokenizer are reported elsewhere.
    let Some(server) = server else { return Ok(Comparison::default()) };
    if tokenizer.kind == TokenizerKind::BertJapanese {
        return Ok(Comparison::default());
    }
    let probes = probes(tokenizer, reads_pairs);
    let of_probes = probes.iter().flat_map(|it| [Some(&it.first), it.second.as_ref()]);
    let mut texts: Vec<&str> = of_probes.flatten().map(String::as_str).collect();
    texts.extend_from_slice(&TokenizerDifference::texts());
    let model = ModelTokenizer::read_for(folder, MAX_LENGTH, &texts)?
        .map(|model| model.for_rows_of(tokenizer));
    let notes = probes.iter().filter_map(|it| it.note(&server, model.as_ref()));
    let mut notes: Vec<String> = notes.collect();
    let (appended, kept) = (tokenizer.special.appended, tokenizer.kept_scripts());
    let measure = |model| TokenizerDifference::measure(&server, model, appended, languages, kept);
    let difference = model.as_ref().map(measure);
    notes.extend(difference.as_ref().and_then(TokenizerDifference::note));
    Ok(Comparison { notes, difference })
}

/// The kinds of difference of a tokenizer.
fn probes(tokenizer: &Tokenizer, reads_pairs: bool) -> Vec<Probe> {
    let word = example_word(&tokenizer.vocabulary.vocabulary);
    let single = |what, first| Probe { what, first, second: None };
    let special = usize::try_from(tokenizer.special.separator).ok();
    let special = special.and_then(|id| tokenizer.vocabulary.vocabulary.get(id));
    let special = special.map_or("", String::as_str);
    let mut probes = match tokenizer.kind {
        TokenizerKind::Bert | TokenizerKind::MpNet => vec![
            single(
                "Elasticsearch removes characters beyond U+FFFF, such as emoji",
                format!("{word}😀"),
            ),
            single(
                "Elasticsearch does not split words at no-break spaces (U+00A0, U+2007, U+202F)",
                format!("{word}\u{A0}{word}"),
            ),
            single(
                "Elasticsearch splits special tokens that occur in a text",
                format!("{word} {special}"),
            ),
        ],
        TokenizerKind::Roberta | TokenizerKind::ByteLevelBpe => vec![
            single(
                "Elasticsearch keeps a run of white space together, unless its last character is a space",
                format!("{word}\n\n{word}"),
            ),
            single(
                "Elasticsearch splits special tokens that occur in a text",
                format!("{word}{special}"),
            ),
        ],
        // The other differences are rare.
        TokenizerKind::XlmRoberta | TokenizerKind::DebertaV2 | TokenizerKind::BertJapanese => {
            Vec::new()
        }
    };
    if reads_pairs {
        probes.push(Probe {
            what: match tokenizer.kind {
                TokenizerKind::XlmRoberta | TokenizerKind::DebertaV2 => {
                    "Elasticsearch rejects pairs with an empty text"
                }
                _ => "Elasticsearch rejects pairs whose first text is empty",
            },
            first: String::new(),
            second: Some(word.to_owned()),
        });
    }
    probes
}

impl Probe {
    /// The note, if the server's tokens differ from the model's or there is no model to compare with. None if the model's own tokenizer
    /// cannot read the text.
    fn note(&self, server: &ServerTokenizer, model: Option<&ModelTokenizer>) -> Option<String> {
        let served = match &self.second {
            None => server.single(&self.first, Truncate::First, NO_SPAN).map(|mut rows| rows.pop()),
            Some(second) => server.pair(&self.first, second, Truncate::First).map(Some),
        };
        let served = served.ok().flatten().map(|row| row.ids);
        let expected = model.map(|it| it.ids(&self.first, self.second.as_deref()));
        let expected = expected.transpose().ok()?;
        if expected.is_some() && expected == served {
            return None;
        }
        let example = match &self.second {
            None => format!("{:?}", self.first),
            Some(second) => format!("the pair {:?}, {second:?}", self.first),
        };
        let joined = |tokens: Vec<String>| tokens.join(" ");
        let is = match &served {
            Some(ids) => {
                let token = |id: &u32| server.stored(*id as usize).unwrap_or("?").to_owned();
                format!("becomes {}", joined(ids.iter().map(token).collect()))
            }
            None => "is an error".to_owned(),
        };
        let instead = match (model, &expected) {
            (Some(model), Some(ids)) => {
                let token = |id: &u32| model.token(*id).unwrap_or_else(|| "?".into());
                format!(" instead of {}", joined(ids.iter().map(token).collect()))
            }
            _ => String::new(),
        };
        Some(format!("{}: {example} {is}{instead}", self.what))
    }
}

/// A word that is one token of the vocabulary.
fn example_word(vocabulary: &[String]) -> &str {
    let words = vocabulary.iter().map(|token| token.trim_start_matches(['Ġ', '▁']));
    let is_word = |word: &&str| word.len() >= 4 && word.bytes().all(|b| b.is_ascii_lowercase());
    words.into_iter().find(is_word).unwrap_or(WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_word_is_a_plain_word() {
        let word = |tokens: &[&str]| {
            let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
            example_word(&tokens).to_owned()
        };
        assert_eq!(word(&["[PAD]", "##ing", "the", "café", "night"]), "night");
        assert_eq!(word(&["<s>", "Ġtoo", "Ġnight"]), "night");
        assert_eq!(word(&["▁"]), "word");
    }
}
