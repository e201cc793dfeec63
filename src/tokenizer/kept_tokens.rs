//! Vocabularies without the tokens of other scripts.

use std::sync::Arc;

use super::kept_characters::KeptCharacters;
use super::{Piece, RowLayout, Tokenizer, TokenizerError, TokenizerKind};
use crate::scripts::Scripts;
use crate::special_tokens::{AppendedTokens, SpecialTokens, WithoutEmbedding};

/// The tokens of a model that are kept for texts of some scripts, and their new ids: the position among the kept tokens.
///
/// A text of these scripts gets the same tokens with the kept vocabulary as with the whole one. Proof: WordPiece, Unigram and byte-level BPE
/// look up parts of the normalized text in their vocabulary, apart from special tokens and marks such as `##` and `▁`. Every token that is
/// left out has a character that no normalized text of these scripts contains. So no look-up ever finds it, and the choice among all other
/// tokens is the same. Unigram also scores unknown characters by the lowest score of the vocabulary. Therefore a token with this score is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTokens {
    /// The scripts.
    pub scripts: Scripts,
    /// Number of tokens of the model.
    pub of: usize,
    /// The model's id of each kept token, ascending.
    ids: Arc<[i64]>,
    /// The new id of the token for unknown text.
    unknown: Option<u32>,
}

impl KeptTokens {
    /// The model's id of each kept token, ascending. These are the rows of the word embeddings that are kept.
    #[must_use]
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Whether a token of the model is left out.
    #[must_use]
    pub fn leaves_out_any(&self) -> bool {
        self.ids.len() < self.of
    }

    /// The new id of a token of the model. A token that is left out gets the id of the token for unknown text.
    #[must_use]
    pub fn new_id(&self, id: u32) -> u32 {
        let new = self.place(id.into()).and_then(|id| u32::try_from(id).ok());
        new.or(self.unknown).unwrap_or_default()
    }

    /// The model's id of a token with a new id.
    #[must_use]
    pub fn model_id(&self, id: u32) -> Option<u32> {
        u32::try_from(*self.ids.get(usize::try_from(id).ok()?)?).ok()
    }

    /// The position of a token of the model among the kept ones.
    fn place(&self, id: i64) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    /// The new id of a token that is kept, or that was appended after the tokens of the model. Negative ids, which stand for no token, do not
    /// change.
    fn renumbered(&self, id: i64) -> i64 {
        let of = i64::try_from(self.of).unwrap_or(i64::MAX);
        let kept = i64::try_from(self.ids.len()).unwrap_or(i64::MAX);
        match id {
            _ if id < 0 => id,
            _ if id >= of => id - of + kept,
            _ => self.place(id).and_then(|id| i64::try_from(id).ok()).unwrap_or(-1),
        }
    }
}

impl Tokenizer {
    /// Leaves out the tokens that no text of `scripts` contains. The tokens before `first` keep their ids. Tokens that were appended to
    /// those of the model must be appended already.
    ///
    /// # Errors
    /// [`TokenizerError::Scripts`] if the tokenizer does not look up parts of the text.
    pub fn keep_scripts(&mut self, scripts: &Scripts, first: usize) -> Result<(), TokenizerError> {
        if self.kind == TokenizerKind::BertJapanese {
            return Err(TokenizerError::Scripts("its vocabulary is Japanese only".into()));
        }
        let is_byte_level =
            matches!(self.kind, TokenizerKind::Roberta | TokenizerKind::ByteLevelBpe);
        let characters = KeptCharacters::of(scripts);
        let of = usize::try_from(self.model_tokens()).unwrap_or_default();
        let mut required = self.required_ids();
        required.extend(self.lowest_score());
        let tokens = &self.vocabulary.vocabulary;
        let is_kept = |(id, token): &(usize, &String)| {
            *id < first || required.contains(id) || characters.make_up(token, is_byte_level)
        };
        let ids = tokens.iter().enumerate().take(of).filter(is_kept);
        let ids: Arc<[i64]> = ids.filter_map(|(id, _)| i64::try_from(id).ok()).collect();
        let mut kept = KeptTokens { scripts: scripts.clone(), of, ids, unknown: None };
        if kept.leaves_out_any() {
            self.renumber(&kept);
            if let Some(merges) = &mut self.vocabulary.merges {
                // A merge whose result is kept has kept parts.
                merges
                    .retain(|merge| characters.make_up(&merge.replacen(' ', "", 1), is_byte_level));
            }
        }
        kept.unknown = self.unknown_id().and_then(|id| u32::try_from(id).ok());
        self.warnings.push(self.note_of_scripts(&kept));
        self.kept = Some(kept);
        Ok(())
    }

    /// The scripts whose tokens are kept; `None` if all tokens are.
    #[must_use]
    pub fn kept_scripts(&self) -> Option<&Scripts> {
        self.kept.as_ref().filter(|kept| kept.leaves_out_any()).map(|kept| &kept.scripts)
    }

    /// The rows of the word embeddings that are kept; `None` if all are.
    #[must_use]
    pub fn kept_rows(&self) -> Option<&[i64]> {
        self.kept.as_ref().filter(|kept| kept.leaves_out_any()).map(KeptTokens::ids)
    }

    /// The ids of special tokens: those that the graph needs, those that rows are composed of, and those that Elasticsearch requires.
    fn required_ids(&self) -> Vec<usize> {
        let SpecialTokens { padding, separator, appended, without_embedding } = self.special;
        let unknown = appended.and_then(|appended| match appended {
            AppendedTokens::Bytes { unknown, .. } => Some(unknown),
            AppendedTokens::Blanks { .. } => None,
        });
        let replacement = without_embedding.map(|tokens| tokens.replacement);
        let layouts = [&self.single, &self.pair].into_iter().flatten();
        let in_rows = layouts.flat_map(RowLayout::order).filter_map(|piece| match piece {
            Piece::Token(id) => Some(id),
            Piece::First | Piece::Second => None,
        });
        let named = self.kind.tokens();
        let named = [named.padding, named.separator, named.class, named.unknown, named.mask];
        let named = named.into_iter().filter_map(|token| self.vocabulary.id(token));
        let in_graph =
            [padding, separator, self.first].into_iter().chain(unknown).chain(replacement);
        in_graph.chain(in_rows).filter_map(|id| usize::try_from(id).ok()).chain(named).collect()
    }

    /// The first token with the lowest score.
    fn lowest_score(&self) -> Option<usize> {
        let scores = self.vocabulary.scores.iter().flatten().enumerate();
        scores.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| id)
    }

    /// Removes tokens from the vocabulary and changes all ids.
    fn renumber(&mut self, kept: &KeptTokens) {
        let new = |id: i64| kept.renumbered(id);
        let is_kept =
            |id: usize| id >= kept.of || i64::try_from(id).is_ok_and(|id| kept.place(id).is_some());
        retain(Arc::make_mut(&mut self.vocabulary.vocabulary), is_kept);
        if let Some(scores) = &mut self.vocabulary.scores {
            retain(scores, is_kept);
        }
        self.first = new(self.first);
        let SpecialTokens { padding, separator, appended, without_embedding } = self.special;
        self.special = SpecialTokens {
            padding: new(padding),
            separator: new(separator),
            appended: appended.map(|appended| match appended {
                AppendedTokens::Bytes { first, unknown } => {
                    AppendedTokens::Bytes { first: new(first), unknown: new(unknown) }
                }
                AppendedTokens::Blanks { first } => AppendedTokens::Blanks { first: new(first) },
            }),
            without_embedding: without_embedding.map(|WithoutEmbedding { first, replacement }| {
                WithoutEmbedding { first: new(first), replacement: new(replacement) }
            }),
        };
        for layout in [&mut self.single, &mut self.pair].into_iter().flatten() {
            for (piece, _) in &mut layout.pieces {
                if let Piece::Token(id) = piece {
                    *id = new(*id);
                }
            }
        }
        self.own_names.retain(|(id, _)| is_kept(*id));
        for (id, _) in &mut self.own_names {
            *id = i64::try_from(*id).ok().and_then(|id| new(id).try_into().ok()).unwrap_or(*id);
        }
    }

    /// What happens to texts of other scripts.
    fn note_of_scripts(&self, kept: &KeptTokens) -> String {
        let names: Vec<_> = kept.scripts.names().collect();
        let (names, number, of) = (names.join(", "), kept.ids.len(), kept.of);
        if !kept.leaves_out_any() {
            return format!(
                "all {of} tokens are kept, because texts of the scripts {names} can contain each of them"
            );
        }
        let unknown = self.kind.tokens().unknown;
        let become_ = match self.kind {
            TokenizerKind::Roberta | TokenizerKind::ByteLevelBpe => {
                "fall apart into single bytes".to_owned()
            }
            _ => format!("become {unknown}"),
        };
        format!(
            "{number} of {of} tokens are kept, for texts in {names}, ASCII, digits, punctuation, symbols and emoji: these get the same tokens as before. \
             Letters of other scripts {become_}, so the model does not understand texts that contain them"
        )
    }
}

/// Keeps the items at some positions.
fn retain<T>(items: &mut Vec<T>, is_kept: impl Fn(usize) -> bool) {
    let mut at = 0;
    items.retain(|_| {
        at += 1;
        is_kept(at - 1)
    });
}
