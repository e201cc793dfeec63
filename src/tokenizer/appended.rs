//! Tokens that are appended to the uploaded vocabulary, where Elasticsearch would otherwise return tokens that the model's own tokenizer
//! does not return.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Adaptation, ServerTokens, Tokenizer, TokenizerKind};
use crate::special_tokens::{AppendedTokens, SpecialTokens, WithoutEmbedding};
use crate::vocabulary::Vocabulary;

/// Characters that MeCab, the segmenter of the model's own tokenizer, drops after NFKC.
const BLANKS: [&str; 6] = [" ", "\t", "\n", "\u{A0}", "\u{202F}", "\u{3000}"];

/// Characters in the name of a byte, such as `<0x0A>`.
const NAME_LENGTH: f64 = 6.;

/// Appends the tokens with which the graph can restore the rows of the model's own tokenizer: bytes for `deberta_v2`, unless the
/// vocabulary has them already, and white space for `bert_ja`. Returns what was appended.
pub fn append_tokens(kind: TokenizerKind, vocabulary: &mut Vocabulary) -> Option<AppendedTokens> {
    let Vocabulary { vocabulary: tokens, scores, .. } = vocabulary;
    let tokens = Arc::make_mut(tokens);
    let first = i64::try_from(tokens.len()).ok()?;
    match kind {
        TokenizerKind::DebertaV2 => {
            let unknown = tokens.iter().rposition(|token| token == kind.tokens().unknown)?;
            let unknown = i64::try_from(unknown).ok()?;
            let bytes: Vec<String> = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")).collect();
            let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
            if bytes.iter().all(|byte| known.contains(byte.as_str())) {
                return None;
            }
            if let Some(scores) = scores {
                // Lower than the sum for the characters of the name, so that a text that contains the name is cut as before. The score
                // of unknown characters falls, too, which has no effect: a token of a trained vocabulary contains no character that is
                // not a token itself, so that there is no other way to cut such a text.
                let least = scores.iter().copied().fold(0., f64::min);
                scores.resize(scores.len() + bytes.len(), least * NAME_LENGTH - 1.);
            }
            tokens.extend(bytes);
            Some(AppendedTokens::Bytes { first, unknown })
        }
        TokenizerKind::BertJapanese => {
            // A run of white space may be one word.
            tokens.extend(BLANKS.map(str::to_owned));
            tokens.extend(BLANKS.map(|blank| format!("##{blank}")));
            Some(AppendedTokens::Blanks { first })
        }
        TokenizerKind::Bert
        | TokenizerKind::MpNet
        | TokenizerKind::Roberta
        | TokenizerKind::ByteLevelBpe
        | TokenizerKind::XlmRoberta => None,
    }
}

impl Tokenizer {
    /// Appends the tokens with which the graph can restore the rows of the model's own tokenizer, and those that Elasticsearch requires.
    /// The vocabulary must have the model's tokens only.
    pub fn append_tokens(&mut self) {
        self.special.appended = append_tokens(self.kind, &mut self.vocabulary);
        let ServerTokens { class, .. } = self.kind.tokens();
        match self.kind {
            TokenizerKind::Roberta => self.append_required(),
            // T5 has no token before a text.
            TokenizerKind::XlmRoberta if self.drops_first() => self.append_missing(&[class]),
            _ => (),
        }
    }

    /// Appends the tokens for unknown text and for padding to a vocabulary that lacks them.
    pub fn append_required(&mut self) {
        let ServerTokens { unknown, padding, .. } = self.kind.tokens();
        self.append_missing(&[unknown, padding]);
    }

    /// Appends those of the tokens for unknown text, for padding and before a text that the vocabulary lacks.
    fn append_missing(&mut self, required: &[&'static str]) {
        let missing: Vec<&str> =
            required.iter().copied().filter(|token| self.vocabulary.id(token).is_none()).collect();
        if missing.is_empty() {
            return;
        }
        self.adaptation = self.adaptation.max(Adaptation::Adapted);
        let id = |id: usize| i64::try_from(id).unwrap_or(i64::MAX);
        let ServerTokens { unknown, padding, class, .. } = self.kind.tokens();
        self.special.without_embedding = Some(WithoutEmbedding {
            first: id(self.vocabulary.vocabulary.len()),
            replacement: self.vocabulary.id(unknown).map_or(0, id),
        });
        self.warnings.push(format!(
            "appended to the uploaded vocabulary, because Elasticsearch requires them: {}",
            missing.join(", ")
        ));
        Arc::make_mut(&mut self.vocabulary.vocabulary)
            .extend(missing.into_iter().map(str::to_owned));
        if let Some(scores) = &mut self.vocabulary.scores {
            scores.resize(self.vocabulary.vocabulary.len(), 0.);
        }
        self.special.padding = self.vocabulary.id(padding).map_or(-1, id);
        self.first = self.vocabulary.id(class).map_or(-1, id);
    }

    /// The number of tokens that the model has: those of the uploaded vocabulary without the appended ones.
    #[must_use]
    pub fn model_tokens(&self) -> i64 {
        let uploaded = i64::try_from(self.vocabulary.vocabulary.len()).unwrap_or(i64::MAX);
        let SpecialTokens { appended, without_embedding, .. } = self.special;
        let without_embedding = without_embedding.map(|tokens| tokens.first);
        appended.map(AppendedTokens::first).or(without_embedding).unwrap_or(uploaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[&str]) -> Vocabulary {
        Vocabulary {
            vocabulary: Arc::new(tokens.iter().map(|token| (*token).to_owned()).collect()),
            scores: Some(tokens.iter().map(|_| -2.).collect()),
            merges: None,
        }
    }

    #[test]
    fn bytes_follow_the_vocabulary_with_the_lowest_scores() {
        let mut uploaded = vocabulary(&["[PAD]", "[UNK]", "a"]);
        let appended = append_tokens(TokenizerKind::DebertaV2, &mut uploaded);
        assert_eq!(appended, Some(AppendedTokens::Bytes { first: 3, unknown: 1 }));
        assert_eq!(uploaded.vocabulary.len(), 3 + 256);
        assert_eq!(uploaded.vocabulary[3 + 0x2D], "<0x2D>");
        assert_eq!(uploaded.scores.as_ref().unwrap()[2..5], [-2., -13., -13.]);
        // A vocabulary with all bytes has them for the model's own tokenizer.
        assert_eq!(append_tokens(TokenizerKind::DebertaV2, &mut uploaded), None);
    }

    #[test]
    fn white_space_is_appended_for_japanese_only() {
        let mut uploaded = vocabulary(&["a"]);
        assert_eq!(append_tokens(TokenizerKind::Bert, &mut uploaded), None);
        let appended = append_tokens(TokenizerKind::BertJapanese, &mut uploaded);
        assert_eq!(appended, Some(AppendedTokens::Blanks { first: 1 }));
        assert_eq!(uploaded.vocabulary[1], " ");
        assert_eq!(uploaded.vocabulary.last().unwrap(), "##\u{3000}");
    }
}
