//! Reads the tokenizer files of a model, and converts them to a vocabulary and settings with which Elasticsearch tokenizes as the
//! model does.
//!
//! The reference is the slow tokenizer of Transformers (`get_vocab`, `bpe_ranks`, SentencePiece's scores) if the repository has its
//! files, and otherwise the fast tokenizer of `tokenizer.json`.

mod adaptation;
mod added;
mod appended;
mod byte_level;
mod class;
mod error;
mod excerpt;
mod ids;
mod japanese;
mod kept_characters;
mod kept_tokens;
mod kind;
mod model_tokenizer;
mod own_names;
mod reader;
mod row_layout;
mod sentencepiece;
mod sentencepiece_bpe;
mod tokenizer_json;
mod unigram;
mod uploaded;
mod wordpiece;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::adaptation::Adaptation;
use self::added::AddedTokens;
pub use self::appended::append_tokens;
use self::class::{Choice, Class};
pub use self::error::TokenizerError;
pub use self::kept_tokens::KeptTokens;
pub use self::kind::{ServerTokens, TokenizerKind};
pub use self::model_tokenizer::ModelTokenizer;
use self::reader::{Base, Draft, Reader, slow_files};
pub use self::row_layout::{Piece, RowLayout};
use self::tokenizer_json::TokenizerJson;
pub use self::uploaded::read_vocabulary;
use crate::config::{ModelConfig, SpecialTokenNames, TokenizerConfig};
use crate::source::{ModelFiles, is_lfs_pointer};
use crate::special_tokens::SpecialTokens;
use crate::vocabulary::Vocabulary;

/// A tokenizer in the form that is uploaded.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// The tokenizer of Elasticsearch.
    pub kind: TokenizerKind,
    /// Tokens, merges and scores.
    pub vocabulary: Vocabulary,
    /// Settings in `inference_config.*.tokenization` that only this tokenizer has.
    pub settings: Map<String, Value>,
    /// Ids that the graph needs.
    pub special: SpecialTokens,
    /// Layout of rows with one text, or the reason why it cannot be built.
    pub single: Result<RowLayout, String>,
    /// Layout of rows with two texts, or the reason why it cannot be built.
    pub pair: Result<RowLayout, String>,
    /// Id of the token with which Elasticsearch starts a row.
    pub first: i64,
    /// Whether the model's own tokenizer lower-cases texts, which Elasticsearch's tokenizer of this kind does not.
    pub lower_cases: bool,
    /// Maximum input length in tokens.
    pub max_length: Option<u32>,
    /// How the upload changes or approximates the tokenizer.
    pub adaptation: Adaptation,
    /// The tokens that are kept for texts of some scripts; `None` if all are kept.
    pub kept: Option<KeptTokens>,
    /// Differences from the server's tokenizer.
    pub warnings: Vec<String>,
    /// Tokens that only Transformers' defaults require.
    appended: Vec<String>,
    /// The model's names of the tokens that are renamed in the uploaded vocabulary, by id.
    own_names: Vec<(usize, String)>,
}

const DO_LOWER_CASE: &str = "do_lower_case";
const WITH_SPECIAL_TOKENS: &str = "with_special_tokens";

impl Tokenizer {
    /// Reads the tokenizer files of a model.
    ///
    /// # Errors
    /// [`TokenizerError`] if files are missing or damaged, Elasticsearch has no such tokenizer, or required tokens are missing.
    pub fn read(files: &ModelFiles, model: &ModelConfig) -> Result<Self, TokenizerError> {
        let config = TokenizerConfig::read(files)?;
        // The name is checked first, because reading the files of an unsupported tokenizer would produce a worse message.
        class::check_name(&config, model)?;
        let map = SpecialTokenNames::read(files)?;
        let (json, unreadable) = match TokenizerJson::read(files) {
            Ok(json) => (json, None),
            Err(error @ TokenizerError::Source(_)) => return Err(error),
            Err(error) => (None, Some(error)),
        };
        let json = json.as_ref();
        let Choice { mut class, makes_token_types, mut by_content, mut warnings } =
            class::choose(&config, &map, model, json)?;

        let reader = Reader { files, config: &config, json, has_special_tokens: true };
        let slow = if by_content { None } else { reader.slow(class)? };
        match unreadable {
            Some(error) if slow.is_none() => return Err(error),
            Some(error) => warnings.push(format!("{error}; {} is used instead", slow_files(class))),
            None => (),
        }
        if let (None, Some(json)) = (&slow, json)
            && json.algorithm() != class.algorithm()
        {
            // The named class is fast, so `tokenizer.json` determines its behaviour.
            (class, by_content) = (class::by_content(&config, &map, json)?, true);
        }
        let added = AddedTokens::gather(files, &config, &map, class, by_content, json)?;
        let from_json = slow.is_none() && json.is_some();
        let (base, ids) = match (slow, json) {
            (Some(base), json) => {
                let (base, ids) = base.numbered(&added, class)?;
                if let Some(json) = json.filter(|json| json.algorithm() == class.algorithm()) {
                    warnings.extend(reader.compare(json, class, &added, &ids));
                }
                (base, ids)
            }
            (None, Some(json)) => {
                let base = reader.fast(json, class)?;
                let ids = ids::fast(&base.tokens, &json.added_tokens, &added)?;
                (base, ids)
            }
            (None, None) => match reader.by_other_names(class)? {
                Some(base) => base.numbered(&added, class)?,
                None => {
                    let advice =
                        "one of them contains the vocabulary; download the tokenizer files too";
                    let wanted = match class {
                        Class::Gemma => tokenizer_json::NAME.to_owned(),
                        _ => format!("{} and no {}", slow_files(class), tokenizer_json::NAME),
                    };
                    return Err(files.missing(&wanted, advice).into());
                }
            },
        };
        let draft = Draft { class, by_content, from_json, makes_token_types, base, ids, added };
        reader.finish(draft, warnings)
    }

    /// Reads the tokenizer of a model whose rows are the tokens of one text, without special tokens. Only `tokenizer.json` counts, as in the
    /// libraries of static embeddings. The vocabulary may lack tokens that Elasticsearch requires.
    ///
    /// # Errors
    /// [`TokenizerError`] if the file is missing or damaged, or Elasticsearch has no such tokenizer.
    pub fn read_without_special_tokens(files: &ModelFiles) -> Result<Self, TokenizerError> {
        let Some(json) = TokenizerJson::read(files)? else {
            let advice = "it contains the vocabulary; download it too";
            return Err(files.missing(tokenizer_json::NAME, advice).into());
        };
        let (config, map) = (TokenizerConfig::default(), SpecialTokenNames::default());
        let class = class::of_algorithm(&json)?;
        let reader =
            Reader { files, config: &config, json: Some(&json), has_special_tokens: false };
        let added = AddedTokens::gather(files, &config, &map, class, true, Some(&json))?;
        let base = reader.fast(&json, class)?;
        let ids = ids::fast(&base.tokens, &json.added_tokens, &added)?;
        let (by_content, from_json, makes_token_types) = (true, true, None);
        let draft = Draft { class, by_content, from_json, makes_token_types, base, ids, added };
        let mut tokenizer = reader.finish(draft, Vec::new())?;
        // Tokens that the file does not contain come last.
        let in_file = tokenizer.vocabulary.vocabulary.len() - tokenizer.appended.len();
        tokenizer.truncate(in_file);
        tokenizer.leave_out_special_tokens();
        tokenizer.max_length = json.truncates_to();
        tokenizer.adaptation = tokenizer.adaptation.max(Adaptation::Adapted);
        Ok(tokenizer)
    }

    /// Records that text is lower-cased before it reaches the tokenizer (`do_lower_case` in `sentence_bert_config.json`). The model
    /// keeps accents, but Elasticsearch removes them from lower-cased text. Therefore the uploaded settings change only if the
    /// tokenizer lower-cases anyway.
    pub fn lower_case(&mut self) {
        if self.settings.get(DO_LOWER_CASE) == Some(&Value::Bool(true)) {
            return;
        }
        self.warnings.push(
            "the model reads lower-cased text with accents (do_lower_case in sentence_bert_config.json), but Elasticsearch removes the accents of a text that it lower-cases. Therefore do_lower_case is not sent: convert texts to lower case before you send them"
                .to_owned(),
        );
    }

    /// Uploads that rows consist of the tokens of one text, without a first token and a separator.
    pub fn leave_out_special_tokens(&mut self) {
        self.settings.insert(WITH_SPECIAL_TOKENS.to_owned(), false.into());
        self.single = Ok(RowLayout::of_texts(false, false));
    }

    /// The ids of the first token, the separator, padding and the unknown token.
    #[must_use]
    pub fn special_ids(&self) -> Vec<i64> {
        let SpecialTokens { padding, separator, .. } = self.special;
        [self.first, separator, padding].into_iter().chain(self.unknown_id()).collect()
    }

    /// The id of the token for unknown text.
    #[must_use]
    pub fn unknown_id(&self) -> Option<i64> {
        let id = self.vocabulary.id(self.kind.tokens().unknown)?;
        i64::try_from(id).ok()
    }

    /// Whether the model's rows of one text have no token before the text (T5), so that the graph drops the first token of Elasticsearch.
    #[must_use]
    pub fn drops_first(&self) -> bool {
        self.single.as_ref() == Ok(&RowLayout::without_first(self.special.separator))
    }

    /// Whether rows have a first token and separators.
    #[must_use]
    pub fn has_special_tokens(&self) -> bool {
        self.settings.get(WITH_SPECIAL_TOKENS) != Some(&Value::Bool(false))
    }

    /// Checks that every token has a row in the embedding table. Tokens without a row are removed if they are special tokens that are in
    /// no file, because the model was not trained with them, or if Elasticsearch finds them in no text.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`] if another token has no row.
    pub fn check_embeddings(&mut self, rows: i64) -> Result<(), TokenizerError> {
        let tokens = self.vocabulary.vocabulary.len();
        let room = usize::try_from(rows).unwrap_or_default();
        if tokens <= room {
            return Ok(());
        }
        let surplus = self.vocabulary.vocabulary.get(room..).unwrap_or_default();
        let is_spare = |token: &String| self.appended.contains(token) || self.is_unreachable(token);
        let spare = surplus.iter().all(is_spare);
        if !spare {
            return Err(TokenizerError::TooLarge { tokens, rows });
        }
        self.warnings.push(format!(
            "left out of the vocabulary, because the model has no embeddings for them: {}",
            surplus.join(", ")
        ));
        self.truncate(room);
        Ok(())
    }

    /// Whether no text contains a token of a byte-level BPE vocabulary, because no merge results in it.
    fn is_unreachable(&self, token: &str) -> bool {
        let ServerTokens { padding, separator, class, unknown, mask } = self.kind.tokens();
        let is_special = [padding, separator, class, unknown, mask].contains(&token);
        let is_result = |merge: &String| {
            merge.split_once(' ').is_some_and(|(a, b)| token.strip_prefix(a) == Some(b))
        };
        self.kind == TokenizerKind::Roberta
            && !is_special
            && token.chars().nth(1).is_some()
            && !self.vocabulary.merges.iter().flatten().any(is_result)
    }

    /// Removes the last tokens, so that `length` remain.
    fn truncate(&mut self, length: usize) {
        Arc::make_mut(&mut self.vocabulary.vocabulary).truncate(length);
        if let Some(scores) = &mut self.vocabulary.scores {
            scores.truncate(length);
        }
    }
}

/// Renames tokens with capital letters, which lower-cased text never contains. Elasticsearch ignores case when it compares
/// lower-cased text with the vocabulary, and uses the last of the tokens that differ only in case. Without the new names it could
/// use `A` instead of `a`. Special tokens keep their names.
fn hide_capitals(tokens: &mut [String], kind: TokenizerKind) {
    let ServerTokens { padding, separator, class, unknown, mask } = kind.tokens();
    let special = [padding, separator, class, unknown, mask];
    for (id, token) in tokens.iter_mut().enumerate() {
        // Elasticsearch splits words at all other characters.
        let is_word = token.trim_start_matches("##").chars().all(char::is_alphanumeric);
        if is_word && token.to_lowercase() != *token && !special.contains(&token.as_str()) {
            // Elasticsearch splits texts at spaces, so no text contains this name.
            token.push_str(&format!(" [id {id}]"));
        }
    }
}

/// Bytes of a file, which may be a Git LFS pointer.
fn bytes(files: &ModelFiles, name: &'static str) -> Result<Option<Vec<u8>>, TokenizerError> {
    let bytes = files.bytes(name)?;
    if bytes.as_deref().is_some_and(is_lfs_pointer) {
        return Err(TokenizerError::LfsPointer(name));
    }
    Ok(bytes)
}
