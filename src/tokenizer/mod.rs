//! What Elasticsearch needs to tokenize as the model's own tokenizer does: a vocabulary and settings.
//!
//! The measure is the slow tokenizer of Transformers (`get_vocab`, `bpe_ranks`, SentencePiece's scores) wherever a repository has its
//! files, and the fast one where it has `tokenizer.json` alone.

mod added;
mod byte_level;
mod class;
mod encoder;
mod ids;
mod japanese;
mod sentencepiece;
mod tokenizer_json;
mod unigram;
mod uploaded;
mod wordpiece;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::added::AddedTokens;
use self::class::{Choice, Class};
pub use self::encoder::{Cut, Encoder, Row};
use self::ids::{Ids, Precedence};
use self::tokenizer_json::{Algorithm, TokenizerJson};
use crate::config::{ModelConfig, SpecialTokenNames, TokenizerConfig};
use crate::source::{ModelFiles, SourceError};
use crate::special_tokens::SpecialTokens;
use crate::version::Version;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server has no tokenizer like it.
    #[error(
        "the tokenizer {0} has no equivalent in Elasticsearch, so its texts would be tokenized wrongly; supported are {supported}",
        supported = class::SUPPORTED
    )]
    Unsupported(String),
    /// A file does not hold what it should.
    #[error("{file} cannot be used: {reason}")]
    Broken {
        /// The file's name.
        file: &'static str,
        /// Why not.
        reason: String,
    },
    /// The note that git keeps in place of a large file.
    #[error(
        "{0} is a Git LFS pointer, not the file itself: run `git lfs pull` in the model's folder"
    )]
    LfsPointer(&'static str),
    /// A vocabulary without tokens.
    #[error("{0} holds no tokens; fetch it again")]
    Empty(&'static str),
    /// An id far beyond the number of tokens.
    #[error(
        "a token has the id {id} although there are {tokens} tokens; the tokenizer files are broken or do not belong together"
    )]
    Id {
        /// The id.
        id: usize,
        /// How many tokens there are.
        tokens: usize,
    },
    /// Merges of another vocabulary.
    #[error(
        "{unknown} of the {merges} merges in merges.txt name tokens that vocab.json does not have: the two files do not belong \
         together"
    )]
    Merges {
        /// Merges that name unknown tokens.
        unknown: usize,
        /// All merges.
        merges: usize,
    },
    /// The server refuses byte-level BPE without merges.
    #[error(
        "there are no merges, which Elasticsearch's {0} tokenizer demands; is the tokenizer complete?"
    )]
    NoMerges(&'static str),
    /// Tokens that the server demands.
    #[error(
        "the tokenizer's files lack {}, which Elasticsearch's {kind} tokenizer demands; is this the vocabulary of the model?",
        missing.join(", ")
    )]
    MissingTokens {
        /// The server's tokenizer.
        kind: &'static str,
        /// The tokens.
        missing: Vec<&'static str>,
    },
    /// The tokenizer puts other tokens around a text than the server does.
    #[error(
        "the tokenizer's {role} is {token}, where Elasticsearch's {kind} tokenizer puts {server}: every text would be read wrongly"
    )]
    OtherToken {
        /// What the token is for.
        role: &'static str,
        /// The tokenizer's.
        token: String,
        /// The server's tokenizer.
        kind: &'static str,
        /// The server's token.
        server: &'static str,
    },
    /// No text can be tokenized with what is uploaded.
    #[error("texts cannot be tokenized with this vocabulary: {0}; leave out --quantize")]
    Encoder(String),
    /// More tokens than embeddings.
    #[error(
        "the vocabulary has {tokens} tokens, the model embeddings for {rows}: they do not belong \
         together; use the tokenizer files that came with the weights"
    )]
    TooLarge {
        /// Tokens in the vocabulary.
        tokens: usize,
        /// Rows of the embedding table.
        rows: i64,
    },
}

/// A tokenizer of the server, under its name in `inference_config.*.tokenization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenizerKind {
    /// WordPiece.
    Bert,
    /// WordPiece on words that a Japanese analyser finds.
    BertJapanese,
    /// WordPiece with RoBERTa's special tokens.
    MpNet,
    /// Byte-level BPE.
    Roberta,
    /// Unigram.
    XlmRoberta,
    /// Unigram with BERT's special tokens.
    DebertaV2,
}

/// The tokens that a tokenizer of the server looks for in a vocabulary. All but the mask must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTokens {
    /// Fills short rows.
    pub padding: &'static str,
    /// Ends a text.
    pub separator: &'static str,
    /// Begins a row.
    pub class: &'static str,
    /// Stands for what the vocabulary does not have.
    pub unknown: &'static str,
    /// Stands for a missing word.
    pub mask: &'static str,
}

impl TokenizerKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bert,
        Self::BertJapanese,
        Self::MpNet,
        Self::Roberta,
        Self::XlmRoberta,
        Self::DebertaV2,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::BertJapanese => "bert_ja",
            Self::MpNet => "mpnet",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm_roberta",
            Self::DebertaV2 => "deberta_v2",
        }
    }

    /// How many tensors the server passes to the graph: input_ids, attention_mask, token_type_ids, position_ids, in this order.
    #[must_use]
    pub fn inputs(self) -> usize {
        match self {
            Self::Bert | Self::BertJapanese => 4,
            Self::DebertaV2 => 3,
            Self::MpNet | Self::Roberta | Self::XlmRoberta => 2,
        }
    }

    /// The first Elasticsearch that has it.
    #[must_use]
    pub fn since(self) -> Version {
        match self {
            Self::Bert => Version::new(8, 0, 0),
            Self::MpNet | Self::Roberta => Version::new(8, 2, 0),
            Self::BertJapanese | Self::XlmRoberta => Version::new(8, 9, 0),
            Self::DebertaV2 => Version::new(8, 16, 0),
        }
    }

    /// The tokens that the server looks for.
    #[must_use]
    pub fn tokens(self) -> ServerTokens {
        let of = |[padding, separator, class, unknown, mask]: [&'static str; 5]| ServerTokens {
            padding,
            separator,
            class,
            unknown,
            mask,
        };
        match self {
            Self::Bert | Self::BertJapanese | Self::DebertaV2 => {
                of(["[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]"])
            }
            // The unknown token is BERT's: its vocabulary lies within this one.
            Self::MpNet => of(["<pad>", "</s>", "<s>", "[UNK]", "<mask>"]),
            Self::Roberta | Self::XlmRoberta => of(["<pad>", "</s>", "<s>", "<unk>", "<mask>"]),
        }
    }

    /// The token that stands for a missing word.
    #[must_use]
    pub fn mask_token(self) -> &'static str {
        self.tokens().mask
    }
}

/// The body of the vocabulary request. A token's position is its id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// The tokens in the order of their ids.
    pub vocabulary: Vec<String>,
    /// What byte-level BPE joins, as lines `a b` in the order of their ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges: Option<Vec<String>>,
    /// What each token weighs in Unigram, in the order of the ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<f64>>,
}

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

/// What the readers of the families share.
struct Reader<'a> {
    files: &'a ModelFiles,
    config: &'a TokenizerConfig,
    json: Option<&'a TokenizerJson>,
}

/// A vocabulary without added tokens.
#[derive(Debug, Default)]
struct Base {
    /// Tokens with their ids; of those with the same text the last one counts.
    tokens: Vec<(usize, String)>,
    merges: Option<Vec<String>>,
    /// By id.
    scores: Option<Vec<f64>>,
    notes: Vec<String>,
}

impl Base {
    fn of(tokens: Vec<(usize, String)>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// With its tokens in the order of their ids, as the slow tokenizer numbers them.
    fn numbered(
        mut self,
        added: &AddedTokens,
        class: Class,
    ) -> Result<(Self, Ids), TokenizerError> {
        let tokens = std::mem::take(&mut self.tokens);
        Ok((self, ids::slow(tokens, added, precedence(class))?))
    }
}

/// All that was read.
struct Draft {
    class: Class,
    /// tokenizer.json alone decided what it is.
    by_content: bool,
    /// The vocabulary is from tokenizer.json.
    from_json: bool,
    base: Base,
    ids: Ids,
    added: AddedTokens,
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

impl Reader<'_> {
    /// The files that the slow tokenizer reads, if they are there.
    fn slow(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::WordPiece => wordpiece::slow(self),
            Algorithm::Bpe => byte_level::slow(self),
            _ => unigram::slow(self, class),
        }
    }

    /// The same under other names.
    fn by_other_names(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::Unigram => unigram::by_any_name(self, class),
            _ => Ok(None),
        }
    }

    fn fast(&self, json: &TokenizerJson, class: Class) -> Result<Base, TokenizerError> {
        let base = match class.algorithm() {
            Algorithm::WordPiece => wordpiece::fast(json)?,
            Algorithm::Bpe => byte_level::fast(json)?,
            _ => unigram::fast(json, class)?,
        };
        if base.tokens.is_empty() {
            Err(TokenizerError::Empty(tokenizer_json::NAME))
        } else {
            Ok(base)
        }
    }

    /// Compares the slow tokenizer's ids with those of `tokenizer.json`, which is not used, so that it may be wrong in other ways.
    fn compare(
        &self,
        json: &TokenizerJson,
        class: Class,
        added: &AddedTokens,
        slow: &Ids,
    ) -> Option<String> {
        let base = self.fast(json, class).ok()?;
        let fast = ids::fast(&base.tokens, &json.added_tokens, added).ok()?;
        let some = ids::some_of(&ids::differences(&slow.tokens, &fast.tokens))?;
        let files = slow_files(class);
        Some(format!(
            "{files} and tokenizer.json do not give the same ids: {some}; those of the former are used"
        ))
    }

    /// Checks what was read, and puts it into the form that is uploaded.
    fn finish(&self, draft: Draft, mut warnings: Vec<String>) -> Result<Tokenizer, TokenizerError> {
        let Draft {
            class,
            by_content,
            from_json,
            base: Base { merges, scores, notes, .. },
            ids,
            added,
        } = draft;
        warnings.extend(notes);
        warnings.extend(ids.warnings.iter().cloned());
        let mut kind = class.kind();
        let mut settings = Map::new();
        match class {
            Class::Bert | Class::MpNet => {
                let lower_case = wordpiece::do_lower_case(self, by_content, &mut warnings);
                settings.insert(DO_LOWER_CASE.into(), lower_case.into());
            }
            Class::BertJapanese => {
                kind = japanese::kind(self, &mut warnings)?;
                let lower_case = self.config.do_lower_case.unwrap_or(false);
                settings.insert(DO_LOWER_CASE.into(), lower_case.into());
            }
            Class::Roberta => {
                let add = byte_level::add_prefix_space(self, &mut warnings);
                settings.insert("add_prefix_space".into(), add.into());
            }
            Class::XlmRoberta | Class::Camembert | Class::DebertaV2 => {
                unigram::check_settings(self, class, &mut warnings);
            }
        }
        if settings.get(DO_LOWER_CASE) == Some(&Value::Bool(true)) {
            warnings.extend(case_warning(&ids.tokens));
        }
        if let Some(merges) = &merges {
            if merges.is_empty() {
                return Err(TokenizerError::NoMerges(kind.name()));
            }
            warnings.extend(ids::some_of(&byte_level::ambiguous(merges)).map(|some| {
                format!("there are merges to the same token ({some}); Elasticsearch gives both the later one's rank")
            }));
        }
        let scores = scores.map(|mut scores| {
            scores.resize(ids.tokens.len(), 0.);
            scores
        });
        let special = self.special_tokens(kind, from_json, &ids, &added, &mut warnings)?;
        Ok(Tokenizer {
            kind,
            vocabulary: Vocabulary { vocabulary: ids.tokens, merges, scores },
            settings,
            special,
            max_length: self.config.max_length(),
            warnings,
            appended: ids.appended,
        })
    }

    /// The ids of the special tokens, once it is sure that the server's are the tokenizer's.
    fn special_tokens(
        &self,
        kind: TokenizerKind,
        from_json: bool,
        Ids { tokens, appended, .. }: &Ids,
        added: &AddedTokens,
        warnings: &mut Vec<String>,
    ) -> Result<SpecialTokens, TokenizerError> {
        // The last place counts, as in the server.
        let find = |token: &str| tokens.iter().rposition(|other| other == token);
        let id = |token: &str| find(token).and_then(|id| i64::try_from(id).ok()).unwrap_or(-1);
        let server = kind.tokens();
        let missing: Vec<_> = [server.padding, server.separator, server.class, server.unknown]
            .into_iter()
            .filter(|token| find(token).is_none() || appended.iter().any(|other| other == token))
            .collect();
        if !missing.is_empty() {
            return Err(TokenizerError::MissingTokens { kind: kind.name(), missing });
        }

        // A fast tokenizer goes by its file's template, a slow one by the roles.
        let template = self.json.filter(|_| from_json).map(TokenizerJson::template);
        let (first, last) = match template {
            Some(Some(template)) => {
                (template.first.or(Some("none")), template.last.or(Some("none")))
            }
            Some(None) => {
                warnings.push(format!(
                    "tokenizer.json puts no tokens around a text; Elasticsearch puts {} and {}",
                    server.class, server.separator
                ));
                (None, None)
            }
            None => (added.role("cls_token"), added.role("sep_token")),
        };
        for (role, token, server) in
            [("first token", first, server.class), ("last token", last, server.separator)]
        {
            if let Some(token) = token.filter(|token| *token != server) {
                let kind = kind.name();
                return Err(TokenizerError::OtherToken {
                    role,
                    token: token.to_owned(),
                    kind,
                    server,
                });
            }
        }
        for (role, server) in [("unk_token", server.unknown), ("mask_token", server.mask)] {
            if let Some(token) = added.role(role).filter(|token| *token != server) {
                warnings.push(format!(
                    "the tokenizer's {role} is {token}; Elasticsearch's {} tokenizer takes {server}",
                    kind.name()
                ));
            }
        }
        Ok(SpecialTokens { padding: id(server.padding), separator: id(server.separator) })
    }
}

fn precedence(class: Class) -> Precedence {
    match class {
        Class::MpNet => Precedence::Vocabulary,
        Class::XlmRoberta | Class::Camembert => Precedence::Replaced,
        _ => Precedence::Added,
    }
}

/// The files of the slow tokenizer, for messages.
fn slow_files(class: Class) -> String {
    match class.algorithm() {
        Algorithm::WordPiece => wordpiece::VOCABULARY.into(),
        Algorithm::Bpe => format!("{} with {}", byte_level::VOCABULARY, byte_level::MERGES),
        _ => unigram::own_file(class).into(),
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
    if bytes
        .as_ref()
        .is_some_and(|bytes| bytes.starts_with(b"version https://git-lfs.github.com/spec/"))
    {
        return Err(TokenizerError::LfsPointer(name));
    }
    Ok(bytes)
}
