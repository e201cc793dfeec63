//! Converts texts to rows of ids as Elasticsearch does with the uploaded vocabulary.

use std::ops::Range;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NFKC, Nmt, NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{ModelWrapper, Tokenizer as Algorithm};

use super::{DO_LOWER_CASE, Tokenizer, TokenizerError, TokenizerKind};

/// Maximum number of characters of a word. The server's WordPiece replaces longer words by the unknown token.
const LONGEST_WORD: usize = 100;

/// Tokenizes as Elasticsearch does. Japanese words are segmented as in BERT, because the server's Japanese analyser is not
/// available.
pub struct Encoder {
    algorithm: Algorithm,
    kind: TokenizerKind,
    class: i64,
    separator: i64,
    unknown: i64,
    mask: Option<i64>,
    max_sequence_length: usize,
}

/// One row of input for the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Ids, including special tokens.
    pub ids: Vec<i64>,
    /// Positions of the tokens of the text, or of the second text of a pair.
    pub text: Range<usize>,
}

/// The text of a pair that is truncated if the pair is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The first text.
    First,
    /// The second text.
    Second,
}

impl Encoder {
    /// Creates a tokenizer for rows of at most `max_sequence_length` tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] if texts cannot be tokenized with the vocabulary.
    pub fn new(tokenizer: &Tokenizer, max_sequence_length: u32) -> Result<Self, TokenizerError> {
        let server = tokenizer.kind.tokens();
        let tokens = &tokenizer.vocabulary.vocabulary;
        // If a token occurs several times, its last id is used.
        let id = |token: &str| {
            let place = tokens.iter().rposition(|other| other == token)?;
            i64::try_from(place).ok()
        };
        let special = |token: &'static str| {
            let missing = vec![token];
            id(token).ok_or(TokenizerError::MissingTokens { kind: tokenizer.kind.name(), missing })
        };
        Ok(Self {
            algorithm: algorithm(tokenizer).map_err(|e| TokenizerError::Encoder(e.to_string()))?,
            kind: tokenizer.kind,
            class: special(server.class)?,
            separator: special(server.separator)?,
            unknown: special(server.unknown)?,
            mask: id(server.mask),
            max_sequence_length: usize::try_from(max_sequence_length).unwrap_or(usize::MAX),
        })
    }

    /// Row of one text. A text that is too long is truncated at the end.
    ///
    /// # Errors
    /// [`TokenizerError`] if the tokenizer fails.
    pub fn single(&self, text: &str) -> Result<Row, TokenizerError> {
        let mut tokens = self.tokens(text)?;
        tokens.truncate(self.max_sequence_length.saturating_sub(2));
        Ok(self.row(None, &tokens))
    }

    /// Row of a text in which one token is the mask: the mask in the text, or else the token in the middle.
    ///
    /// # Errors
    /// [`TokenizerError`] if the tokenizer fails.
    pub fn masked(&self, text: &str) -> Result<Row, TokenizerError> {
        let Some(mask) = self.mask else { return self.single(text) };
        let mut tokens;
        let at;
        if let Some((before, after)) = text.split_once(self.kind.mask_token()) {
            tokens = self.tokens(before.trim_end())?;
            at = tokens.len();
            tokens.push(mask);
            tokens.extend(self.tokens(after)?);
        } else {
            tokens = self.tokens(text)?;
            tokens.truncate(self.max_sequence_length.saturating_sub(2));
            at = tokens.len() / 2;
            match tokens.get_mut(at) {
                Some(token) => *token = mask,
                None => tokens.push(mask),
            }
        }
        let room = self.max_sequence_length.saturating_sub(2);
        // Tokens that do not fit are removed on the side of the mask that has more tokens.
        let from = (at + 1).saturating_sub(room);
        let kept = tokens.get(from..(from + room).min(tokens.len())).unwrap_or_default();
        let row = self.row(None, kept);
        let at = row.text.start + at - from;
        Ok(Row { text: at..at + 1, ..row })
    }

    /// Row of two texts.
    ///
    /// # Errors
    /// [`TokenizerError`] if the tokenizer fails.
    pub fn pair(&self, first: &str, second: &str, cut: Cut) -> Result<Row, TokenizerError> {
        let (mut first, mut second) = (self.tokens(first)?, self.tokens(second)?);
        let room = self.max_sequence_length.saturating_sub(2 + self.kind.separators());
        let (cut, other) = match cut {
            Cut::First => (&mut first, &mut second),
            Cut::Second => (&mut second, &mut first),
        };
        // The server would reject a pair that is still too long, so the other text is truncated as well.
        other.truncate(room);
        cut.truncate(room - other.len());
        Ok(self.row(Some(&first), &second))
    }

    fn row(&self, first: Option<&[i64]>, text: &[i64]) -> Row {
        let mut ids = vec![self.class];
        if let Some(first) = first {
            ids.extend(first);
            ids.extend(std::iter::repeat_n(self.separator, self.kind.separators()));
        }
        let start = ids.len();
        ids.extend(text);
        let end = ids.len();
        ids.push(self.separator);
        Row { ids, text: start..end }
    }

    /// Tokens of the text, without special tokens.
    fn tokens(&self, text: &str) -> Result<Vec<i64>, TokenizerError> {
        let word_piece = matches!(
            self.kind,
            TokenizerKind::Bert | TokenizerKind::BertJapanese | TokenizerKind::MpNet
        );
        // Java represents characters beyond U+FFFF by two surrogates, which the server removes as control characters.
        let basic: String;
        let text = if word_piece {
            basic = text.chars().filter(|&c| u32::from(c) <= 0xFFFF).collect();
            &basic
        } else {
            text
        };
        let encoding = self
            .algorithm
            .encode(text, false)
            .map_err(|error| TokenizerError::Encoder(error.to_string()))?;
        let mut ids = Vec::with_capacity(encoding.len());
        for (&id, piece) in encoding.get_ids().iter().zip(encoding.get_tokens()) {
            let id = i64::from(id);
            if id == self.unknown && self.kind == TokenizerKind::DebertaV2 {
                let byte = |byte: u8| self.algorithm.token_to_id(&format!("<0x{byte:02X}>"));
                ids.extend(piece.bytes().map(|b| byte(b).map_or(self.unknown, i64::from)));
            } else {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

/// Creates the tokenization algorithm and its normalization from the vocabulary.
fn algorithm(tokenizer: &Tokenizer) -> tokenizers::Result<Algorithm> {
    let uploaded = &tokenizer.vocabulary;
    let flag = |name: &str| tokenizer.settings.get(name) == Some(&Value::Bool(true));
    let unknown = tokenizer.kind.tokens().unknown;
    let numbered = |key: &dyn Fn(&String) -> String| -> Vocab {
        uploaded.vocabulary.iter().map(key).zip(0..).collect()
    };
    let (model, normalizer, words): (ModelWrapper, Option<NormalizerWrapper>, PreTokenizerWrapper) =
        match tokenizer.kind {
            TokenizerKind::Bert | TokenizerKind::BertJapanese | TokenizerKind::MpNet => {
                let lower = flag(DO_LOWER_CASE);
                let key = |token: &String| if lower { token.to_lowercase() } else { token.clone() };
                // The unknown token is also added in its original case, because lower-casing changes it.
                let mut vocabulary = numbered(&key);
                if let Some(id) = uploaded.vocabulary.iter().rposition(|token| token == unknown) {
                    vocabulary.insert(unknown.to_owned(), u32::try_from(id)?);
                }
                let model = WordPiece::builder()
                    .vocab(vocabulary)
                    .unk_token(unknown.to_owned())
                    .continuing_subword_prefix("##".to_owned())
                    .max_input_chars_per_word(LONGEST_WORD)
                    .build()?;
                let normalizer = BertNormalizer::new(true, true, Some(lower), lower);
                (model.into(), Some(normalizer.into()), BertPreTokenizer.into())
            }
            TokenizerKind::Roberta => {
                let vocabulary = numbered(&String::clone);
                let known = |token: &str| vocabulary.contains_key(token);
                let merges = uploaded.merges.iter().flatten().filter_map(|line| {
                    let (a, b) = line.split_once(' ')?;
                    let usable = known(a) && known(b) && known(&format!("{a}{b}"));
                    usable.then(|| (a.to_owned(), b.to_owned()))
                });
                let merges = merges.collect();
                let model = BPE::builder()
                    .vocab_and_merges(vocabulary, merges)
                    .unk_token(unknown.to_owned())
                    .build()?;
                (model.into(), None, ByteLevel::new(flag("add_prefix_space"), false, true).into())
            }
            TokenizerKind::XlmRoberta | TokenizerKind::DebertaV2 => {
                let scores = uploaded.scores.iter().flatten().copied();
                let id = uploaded.vocabulary.iter().rposition(|token| token == unknown);
                let scored = uploaded.vocabulary.iter().cloned().zip(scores).collect();
                // DeBERTa treats unknown characters slightly differently from the server.
                let model = Unigram::from(scored, id, false)?;
                let normalizer = Sequence::new(vec![Nmt.into(), NFKC.into()]);
                let words = PreTokenizers::new(vec![
                    WhitespaceSplit.into(),
                    Metaspace::new('▁', PrependScheme::Always, true).into(),
                ]);
                (model.into(), Some(normalizer.into()), words.into())
            }
        };
    let mut algorithm = Algorithm::new(model);
    algorithm.with_normalizer(normalizer).with_pre_tokenizer(Some(words));
    Ok(algorithm)
}
