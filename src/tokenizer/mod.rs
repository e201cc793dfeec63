//! What Elasticsearch needs to tokenize as the model's own tokenizer does: a vocabulary and settings.
//!
//! The measure is the slow tokenizer of Transformers (`get_vocab`, `bpe_ranks`, SentencePiece's scores) wherever a repository has its
//! files, and the fast one where it has `tokenizer.json` alone.

mod added;
mod byte_level;
mod class;
mod encoder;
mod error;
mod ids;
mod japanese;
mod kind;
mod model_tokenizer;
mod reader;
mod sentencepiece;
mod tokenizer_json;
mod unigram;
mod uploaded;
mod wordpiece;

use std::collections::HashMap;

use serde_json::{Map, Value};

use self::added::AddedTokens;
use self::class::Choice;
pub use self::encoder::{Cut, Encoder, Row};
pub use self::error::TokenizerError;
pub use self::kind::{ServerTokens, TokenizerKind};
pub use self::model_tokenizer::ModelTokenizer;
use self::reader::{Base, Draft, Reader, slow_files};
use self::tokenizer_json::TokenizerJson;
pub use self::uploaded::read_vocabulary;
use crate::config::{ModelConfig, SpecialTokenNames, TokenizerConfig};
use crate::source::{ModelFiles, is_lfs_pointer};
use crate::special_tokens::SpecialTokens;
use crate::vocabulary::Vocabulary;

/// A tokenizer, as it is uploaded.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// The server's tokenizer.
    pub kind: TokenizerKind,
    /// Its tokens.
    pub vocabulary: Vocabulary,
    /// Its own settings within `inference_config.*.tokenization`, beside those that all tokenizers have.
    pub settings: Map<String, Value>,
    /// Ids that the graph needs.
    pub special: SpecialTokens,
    /// The longest input, in tokens, that the tokenizer was made for.
    pub max_length: Option<u32>,
    /// What the server will do differently, if anything.
    pub warnings: Vec<String>,
    /// Tokens that only Transformers' defaults call for.
    appended: Vec<String>,
}

const DO_LOWER_CASE: &str = "do_lower_case";

impl Tokenizer {
    /// Reads the tokenizer files of a model.
    ///
    /// # Errors
    /// When they are missing or broken, the server has no such tokenizer, or tokens that it demands are missing.
    pub fn read(files: &ModelFiles, model: &ModelConfig) -> Result<Self, TokenizerError> {
        let config = TokenizerConfig::read(files)?;
        // By name first: a file of another kind of tokenizer would only give a worse message.
        class::check_name(&config, model)?;
        let map = SpecialTokenNames::read(files)?;
        let (json, unreadable) = match TokenizerJson::read(files) {
            Ok(json) => (json, None),
            Err(error @ TokenizerError::Source(_)) => return Err(error),
            Err(error) => (None, Some(error)),
        };
        let json = json.as_ref();
        let Choice { mut class, mut by_content, mut warnings } =
            class::choose(&config, &map, model, json)?;

        let reader = Reader { files, config: &config, json };
        let slow = if by_content { None } else { reader.slow(class)? };
        match unreadable {
            Some(error) if slow.is_none() => return Err(error),
            Some(error) => {
                warnings.push(format!("{error}; {} is used without it", slow_files(class)))
            }
            None => (),
        }
        if let (None, Some(json)) = (&slow, json)
            && json.algorithm() != class.algorithm()
        {
            // A fast class runs whatever the file holds.
            (class, by_content) = (class::by_content(&config, &map, json)?, true);
        }
        let added = AddedTokens::gather(files, &config, &map, class, json)?;
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
                    let advice = "one of them holds the vocabulary; fetch the tokenizer files too";
                    let wanted = format!("{} and no {}", slow_files(class), tokenizer_json::NAME);
                    return Err(files.missing(&wanted, advice).into());
                }
            },
        };
        reader.finish(Draft { class, by_content, from_json, base, ids, added }, warnings)
    }

    /// Makes the server lower-case text, where its tokenizer can; else the user is warned.
    pub fn lower_case(&mut self) {
        match self.settings.get_mut(DO_LOWER_CASE) {
            Some(set) if *set == Value::Bool(true) => (),
            Some(set) => {
                *set = true.into();
                self.warnings.extend(case_warning(&self.vocabulary.vocabulary));
            }
            None => self.warnings.push(format!(
                "the model is to read lower-cased text (sentence_bert_config.json), which Elasticsearch's {} tokenizer cannot do: \
                 lower-case texts before you send them",
                self.kind.name()
            )),
        }
    }

    /// Checks that every token has a row in the embedding table. Special tokens that no file holds and that have no row are left out:
    /// the model never knew them.
    ///
    /// # Errors
    /// When other tokens have none.
    pub fn check_embeddings(&mut self, rows: i64) -> Result<(), TokenizerError> {
        let tokens = self.vocabulary.vocabulary.len();
        let room = usize::try_from(rows).unwrap_or_default();
        if tokens <= room {
            return Ok(());
        }
        let surplus = self.vocabulary.vocabulary.get(room..).unwrap_or_default();
        let spare = surplus.iter().all(|token| self.appended.contains(token));
        if !spare {
            return Err(TokenizerError::TooLarge { tokens, rows });
        }
        self.warnings.push(format!(
            "left out of the vocabulary, for the model has no embedding for them: {}",
            surplus.join(", ")
        ));
        self.vocabulary.vocabulary.truncate(room);
        if let Some(scores) = &mut self.vocabulary.scores {
            scores.truncate(room);
        }
        Ok(())
    }
}

/// A warning where lower-casing makes the server take one token for another: it then compares texts with the vocabulary regardless of
/// case, and of tokens that differ in nothing else the last one counts.
fn case_warning(tokens: &[String]) -> Option<String> {
    let lower: Vec<String> = tokens.iter().map(|token| token.to_lowercase()).collect();
    let last: HashMap<&str, usize> =
        lower.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let hidden: Vec<String> = lower
        .iter()
        .zip(tokens)
        .enumerate()
        .filter(|(_, (lower, token))| lower == token)
        .filter_map(|(id, (lower, _))| {
            let other = tokens.get(*last.get(lower.as_str())?)?;
            (other != lower).then(|| format!("{lower:?} ({id}) is taken for {other:?}"))
        })
        .collect();
    ids::some_of(&hidden).map(|some| {
        format!("with do_lower_case Elasticsearch does not tell tokens apart that differ in case only: {some}")
    })
}

/// The bytes of a file that git may have left behind.
fn bytes(files: &ModelFiles, name: &'static str) -> Result<Option<Vec<u8>>, TokenizerError> {
    let bytes = files.bytes(name)?;
    if bytes.as_deref().is_some_and(is_lfs_pointer) {
        return Err(TokenizerError::LfsPointer(name));
    }
    Ok(bytes)
}
